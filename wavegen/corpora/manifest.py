"""Recordings and manifests: the only interface between a corpus on disk and training."""

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import MISSING, dataclass, fields, replace
from fnmatch import fnmatch
from pathlib import Path, PurePath
from typing import Any, Literal, TypeVar

from wavegen.corpora.formats import OURS, REMEDY, read_list
from wavegen.corpora.lists import Table, read_table, write_table
from wavegen.errors import DataError

Split = Literal["train", "valid"]
_SPLITS: dict[str, Split] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("valid", "validation", "val", "dev", "development"), "valid"),
}


@dataclass(frozen=True)
class Recording:
    """One audio file of a corpus.

    Attributes:
        name: unique in the corpus; by default the path below the corpus folder, without suffix.
        path: the audio file.
        split: "train" or "valid".
        mel: a mel that a TTS predicted for the recording, to use in place of the recording's own mel.
        speaker: the speaker's name; empty if the corpus has no speaker names or they are not used.
    """

    name: str
    path: Path
    split: Split
    mel: Path | None = None
    speaker: str = ""


@dataclass(frozen=True)
class Clip:
    """One recording after extraction.

    Attributes:
        name, split, speaker: those of ``Recording``.
        samples, frames: lengths of ``audio`` and ``mel``.
        audio: a mono file at the mel's sample rate.
        mel: the ``.npz`` file.
        f0: the ``.npy`` file with the pitch labels; None if there are none or the vocoder does not read them.
        labels: the ``.npy`` file with the labels of the frames; None if the network does not learn from them.
    """

    name: str
    split: Split
    samples: int
    frames: int
    audio: Path
    mel: Path
    speaker: str = ""
    f0: Path | None = None
    labels: Path | None = None


Row = TypeVar("Row", Recording, Clip)


def split_recordings(paths: dict[str, Path], held_out: float | str) -> list[Recording]:
    """Split recordings, given as name → path, by ``held_out`` as in ``find_recordings``; 0 puts all into "train"."""
    if isinstance(held_out, str):
        valid = {name for name in paths if fnmatch(name, held_out)}
        if len(valid) in (0, len(paths)):
            raise DataError(
                f"held_out {held_out!r} matches {len(valid)} of {len(paths)} recordings",
                remedy=f"use a glob that matches some of the names, which look like {next(iter(paths))!r}",
            )
    else:
        # Any share above 0 gives at least one validation recording; at least one recording is left for training.
        count = min(math.ceil(held_out * len(paths)), len(paths) - 1)
        by_hash = sorted(paths, key=lambda name: hashlib.sha256(name.encode()).digest())
        valid = set(by_hash[:count])
    return [Recording(name, path, "valid" if name in valid else "train") for name, path in sorted(paths.items())]


def speaker_table(rows: Sequence[Recording] | Sequence[Clip]) -> tuple[str, ...]:
    """Names of the speakers in the training split, sorted.

    Raises:
        DataError: a row has no speaker, there is only one speaker, or a speaker has validation recordings alone.
    """
    nameless = [row.name for row in rows if not row.speaker]
    if nameless:
        raise DataError(
            f"{len(nameless)} of {len(rows)} recordings have no speaker: {', '.join(nameless[:3])}",
            where="data.speakers",
            remedy="put each into a folder named after its speaker, or add the column speaker to the manifest",
        )
    table = sorted({row.speaker for row in rows if row.split == "train"})
    speakers = {row.speaker for row in rows}
    unknown = sorted(speakers - {*table})
    if unknown:
        raise DataError(
            f"no training recordings of {len(unknown)} of the {len(speakers)} speakers: {', '.join(unknown[:3])}",
            where="data.held_out",
            remedy="leave some recordings of each speaker for training, or leave these speakers out",
        )
    if len(table) < 2:
        what = f"all recordings have the speaker {table[0]!r}"
        raise DataError(what, where="data.speakers", remedy="set it to false for a single speaker")
    return tuple(table)


def take_evenly(clips: Sequence[Clip], count: int) -> list[Clip]:
    """Take ``count`` clips (or all, if there are fewer) at even distances, because neighbours share a speaker."""
    count = min(count, len(clips))
    return [clips[index * len(clips) // count] for index in range(count)]


def write_manifest(path: Path, rows: Sequence[Row]) -> None:
    """Write recordings or clips as tab-separated text with a header.

    Paths below the manifest's folder are relative to it. Optional columns that are empty in every row are left out.

    Raises:
        DataError: a name or a path has a tab or a line break in it, is not UTF-8, or a name has spaces around it.
        OutputError: the file cannot be written.
    """

    def shown(value: object) -> object:
        if isinstance(value, Path) and value.is_relative_to(path.parent):
            return value.relative_to(path.parent).as_posix()
        return "" if value is None else value

    columns = [
        field.name for field in fields(rows[0]) if any(getattr(row, field.name) != field.default for row in rows)
    ]
    for row in rows:
        for text in (row.name, row.speaker):
            if text != text.strip():  # reading would strip it
                raise DataError(f"{text!r} has spaces around it", where=path, remedy="rename it")
    write_table(path, columns, [[shown(getattr(row, name)) for name in columns] for row in rows])


def read_recordings(path: Path, *, held_out: float | str = 0.05) -> list[Recording]:
    """Read a list of recordings made by hand or by another tool, of any format in ``wavegen.corpora.formats``.

    Ours is tab-separated text with a header, without quoting. The column ``path`` (or ``audio``) is required; relative
    paths start at the list's folder. Optional columns: ``name`` (default: the path without suffix), ``split`` (default:
    chosen by ``held_out``), ``mel`` (a mel that a TTS predicted for the recording) and ``speaker``. Other columns, such
    as a text, are not read.

    Args:
        path: the list.
        held_out: that of ``find_recordings``.

    Raises:
        DataError: the file is missing or unreadable, has no rows, a row is not a recording, or two have the same name.
    """
    found, table = read_list(path)
    remedy = REMEDY if found == OURS else f"it was read as {found}"
    has_split = "split" in table.columns

    # Fill in the columns that may be missing.
    for _, row in table.rows:
        row["path"] = row.get("path") or row.get("audio", "")
        row["name"] = row.get("name", "").strip() or _default_name(row["path"].strip())
        row.setdefault("split", "train")
    recordings = _parse_rows(path, table, Recording, remedy)

    # Split them, unless the list says how.
    if has_split:
        return recordings
    paths = {recording.name: recording.path for recording in recordings}
    splits = {recording.name: recording.split for recording in split_recordings(paths, held_out)}
    return [replace(recording, split=splits[recording.name]) for recording in recordings]


def _default_name(path: str) -> str:
    if not path:
        return ""
    parts = PurePath(path).with_suffix("").parts
    return "/".join(part for part in parts if part not in ("..", "~", PurePath(path).anchor)).strip()


def listed_recordings(corpus: Path, listing: str = "MANIFEST.tsv") -> list[Recording]:
    """Read the list that a corpus brings: tab-separated text without quoting, with a header.

    It has the columns ``file`` (below the corpus folder) and ``split``, and may have ``speaker`` and others.

    Args:
        corpus: the folder of the corpus.
        listing: the name of the list in it.

    Returns:
        The recordings in the order of the list, each named by its path below the folder, without the suffix.

    Raises:
        DataError: a row has no file or another split, the list is empty, or recordings are missing.
    """
    path = corpus / listing
    remedy = "it needs the tab-separated columns file and split"
    table = read_table(path, ("file",), remedy)
    for _, row in table.rows:
        row["path"] = row["file"]
        row["name"] = PurePath(row["file"].strip()).with_suffix("").as_posix() if row["file"].strip() else ""
    recordings = _parse_rows(path, table, Recording, remedy)
    refuse_missing(recordings, path, "copy the corpus again")
    return recordings


def refuse_missing(recordings: Sequence[Recording], listing: Path, remedy: str) -> None:
    """Raise DataError, which counts them and names three, if recordings that a list names do not exist."""
    paths = [recording.path for recording in recordings if not recording.path.is_file()]
    folder = listing.parent
    missing = [str(path.relative_to(folder) if path.is_relative_to(folder) else path) for path in paths]
    if missing:
        what = f"{len(missing)} of the {len(recordings)} recordings listed here are missing: {', '.join(missing[:3])}"
        raise DataError(f"{what}{', …' if len(missing) > 3 else ''}", where=listing, remedy=remedy)


def read_manifest(path: Path, row_type: type[Row]) -> list[Row]:
    """Read a manifest that ``write_manifest`` wrote.

    Args:
        path: tab-separated text whose header names the fields of ``row_type``; relative paths start at its folder.
        row_type: ``Recording`` or ``Clip``.

    Raises:
        DataError: the file is missing or unreadable, has no rows, or a row is not a ``row_type``.
    """
    needed = [field.name for field in fields(row_type) if field.default is MISSING]
    remedy = f"it needs the tab-separated columns {', '.join(needed)}"
    return _parse_rows(path, read_table(path, ("name",), remedy), row_type, remedy)


def _parse_rows(path: Path, table: Table, row_type: type[Row], remedy: str) -> list[Row]:
    parse: dict[str, Callable[[str], object]] = {"name": _name, "split": _split}
    parse |= dict.fromkeys(("samples", "frames"), lambda value: int(_filled(value)))
    parse |= dict.fromkeys(("path", "audio", "mel", "f0", "labels"), lambda value: _path(path.parent, value))
    result = []
    for number, row in table.rows:
        try:
            values: dict[str, Any] = {
                field.name: parse.get(field.name, str.strip)(row[field.name])
                for field in fields(row_type)
                if field.default is MISSING or row.get(field.name, "").strip()
            }
            result.append(row_type(**values))
        except (KeyError, ValueError) as error:
            fault = f"it has no column {error}" if isinstance(error, KeyError) else error
            what = f"line {number} is not a row of a manifest ({fault})"
            raise DataError(what, where=path, remedy=remedy) from error
    if not result:
        raise DataError("has no rows", where=path, remedy=remedy)
    name, count = Counter(row.name for row in result).most_common(1)[0]
    if count > 1:
        raise DataError(f"{count} recordings are named {name!r}", where=path, remedy="give each its own name")
    return result


def _filled(value: str) -> str:
    if not value.strip():
        raise ValueError("a cell is empty")
    return value.strip()


def _path(folder: Path, value: str) -> Path:
    """A path of a list. Spaces around it are part of it only if there is such a file."""
    literal, stripped = folder / value, _filled(value)
    if value == stripped or literal.exists():
        return Path(value).expanduser() if value.startswith("~/") and not literal.exists() else literal
    return _path(folder, stripped)


def _name(value: str) -> str:
    """Check a name: files are named after it, and must not leave their folder."""
    value = _filled(value)
    if PurePath(value).is_absolute() or ".." in PurePath(value).parts:
        raise ValueError(f"the name {value!r} leads out of its folder")
    return value


def _split(value: str) -> Split:
    word = value.strip().lower()
    if word in ("test", "eval", "evaluation", "testing"):
        raise ValueError(f"the split {word!r} is for neither training nor validation: leave such rows out")
    if word not in _SPLITS:
        raise ValueError(f"the split {value.strip()!r} is neither train nor valid")
    return _SPLITS[word]
