"""Recordings and manifests: the only interface between a corpus on disk and training."""

import csv
import hashlib
import io
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, replace
from fnmatch import fnmatch
from pathlib import Path, PurePath
from typing import Any, Literal, TypeVar

from wavegen.audio import AUDIO_SUFFIXES
from wavegen.errors import DataError, MissingDataError
from wavegen.files import atomic_write

Split = Literal["train", "valid"]


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
        name, split, speaker: as in ``Recording``.
        samples, frames: lengths of ``audio`` and ``mel``.
        audio: a mono file at the mel's sample rate.
        mel: the ``.npz`` file.
        f0: the ``.npy`` file with the pitch labels; None if there are none or the vocoder does not read them.
    """

    name: str
    split: Split
    samples: int
    frames: int
    audio: Path
    mel: Path
    speaker: str = ""
    f0: Path | None = None


Row = TypeVar("Row", Recording, Clip)


def find_recordings(folder: Path, *, pattern: str = "**/*", held_out: float | str = 0.05) -> list[Recording]:
    """Find the recordings below a folder and split them.

    Args:
        folder: the corpus.
        pattern: a glob below ``folder``; files that match it and have an audio suffix are recordings.
        held_out: the share of the recordings to use for validation (chosen by a hash of their names, so that adding
            files moves few), or a glob that matches the names of the validation recordings.

    Returns:
        The recordings, sorted by name.

    Raises:
        DataError: the folder does not exist, the pattern is not a glob below it, there are no recordings, two have the
            same name, a name is not UTF-8, or ``held_out`` is a glob that leaves a split empty.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise MissingDataError("no such folder", where=folder, remedy="give the folder that holds the recordings")
    try:
        if ".." in Path(pattern).parts:  # such names, and the files named after them, would lead out of the folder
            raise ValueError("it leaves the folder")
        # Hidden files are half-written recordings or made by file managers.
        visible = (p for p in folder.glob(pattern) if not p.name.startswith("."))
        paths = sorted(p for p in visible if p.is_file() and p.suffix.lower() in AUDIO_SUFFIXES)
    except (ValueError, NotImplementedError) as error:  # NotImplementedError: an absolute path
        raise DataError(
            f"{pattern!r} is not a pattern for files in this folder ({error})",
            where=folder,
            remedy="use one such as '**/*.wav'",
        ) from error
    if not paths:
        raise DataError(
            f"no file matches {pattern!r} and ends in {', '.join(sorted(AUDIO_SUFFIXES))}",
            where=folder,
            remedy="check the folder and the pattern",
        )
    _refuse_unusable_names(folder, paths)
    return split_recordings({p.relative_to(folder).with_suffix("").as_posix(): p for p in paths}, held_out)


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


def _refuse_unusable_names(folder: Path, paths: Iterable[Path]) -> None:
    seen: dict[Path, Path] = {}
    for path in paths:
        if not _is_utf8(path):
            name = str(path.relative_to(folder))
            raise DataError(f"the name {name!a} is not UTF-8", where=folder, remedy="rename the file")
        other = seen.setdefault(path.with_suffix(""), path)
        if other is not path:
            raise DataError(
                f"{other.name} and {path.name} share the name {path.stem!r}",
                where=folder,
                remedy="rename one, or use a narrower pattern such as '**/*.wav'",
            )


def _is_utf8(path: Path) -> bool:
    try:
        str(path).encode()
    except UnicodeEncodeError:  # Python represents bytes that are not UTF-8 by lone surrogates
        return False
    return True


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
    """

    def shown(value: object) -> object:
        if isinstance(value, Path) and value.is_relative_to(path.parent):
            return value.relative_to(path.parent).as_posix()
        return value

    columns = [
        field.name for field in fields(rows[0]) if any(getattr(row, field.name) != field.default for row in rows)
    ]
    text = io.StringIO()
    writer = csv.writer(text, delimiter="\t", lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([shown(getattr(row, name)) for name in columns] for row in rows)
    with atomic_write(path) as beside:
        beside.write_text(text.getvalue(), encoding="utf-8")


def read_recordings(path: Path, *, held_out: float | str = 0.05) -> list[Recording]:
    """Read a list of recordings made by hand or by another tool: tab-separated text with a header.

    The column ``path`` (or ``audio``) is required; relative paths start at the list's folder. Optional columns:
    ``name`` (default: the path without suffix), ``split`` (default: chosen by ``held_out``), ``mel`` (a mel that a TTS
    predicted for the recording) and ``speaker``.

    Args:
        path: the list.
        held_out: as in ``find_recordings``.

    Raises:
        DataError: the file is missing or unreadable, has no rows, a row is not a recording, or two have the same name.
    """
    table = _read_table(path)

    # Fill in the columns that may be missing.
    for row in table:
        row.setdefault("path", row.get("audio", ""))
        row.setdefault("name", _default_name(row["path"]))
    has_split = "split" in table[0] if table else True
    rows = [{"split": "train", **row} for row in table]
    remedy = "it needs the tab-separated column path, and may have name, split, mel, speaker"
    recordings = _parse_rows(path, rows, Recording, remedy)

    # Names must be unique.
    name, count = Counter(recording.name for recording in recordings).most_common(1)[0]
    if count > 1:
        raise DataError(f"{count} recordings are named {name!r}", where=path, remedy="give each its own name")

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
    return "/".join(part for part in parts if part not in ("..", PurePath(path).anchor))


def listed_recordings(corpus: Path, listing: str = "MANIFEST.tsv") -> list[Recording]:
    """Read the list that a corpus brings: tab-separated text without quoting, with a header.

    It has the columns ``file`` (below the corpus folder) and ``split``, and may have ``speaker`` and others.

    Args:
        corpus: the folder of the corpus.
        listing: the name of the list in it.

    Returns:
        The recordings in the order of the list, each named by its path below the folder, without the suffix.

    Raises:
        DataError: a row has no file or another split, there are no rows, or recordings are missing.
    """
    path = corpus / listing
    rows: list[dict[str, Any]] = []
    with open(path, encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE):  # transcripts contain quotes
            if not row.get("file") or row.get("split") not in ("train", "valid"):
                raise DataError(
                    f"row {len(rows) + 1} has no file, or its split is neither train nor valid",
                    where=path,
                    remedy="it needs the tab-separated columns file and split",
                )
            rows.append(row)
    if not rows:
        raise DataError("lists no recordings", where=path, remedy="copy the corpus again")
    missing = [row["file"] for row in rows if not (corpus / row["file"]).is_file()]
    if missing:
        raise DataError(
            f"{len(missing)} of the {len(rows)} recordings listed here are missing: "
            f"{', '.join(missing[:3])}{', …' if len(missing) > 3 else ''}",
            where=path,
            remedy="copy the corpus again",
        )
    return [
        Recording(
            PurePath(row["file"]).with_suffix("").as_posix(),
            corpus / row["file"],
            row["split"],
            speaker=row.get("speaker") or "",
        )
        for row in rows
    ]


def read_manifest(path: Path, row_type: type[Row]) -> list[Row]:
    """Read a manifest that ``write_manifest`` wrote.

    Args:
        path: tab-separated text whose header names the fields of ``row_type``; relative paths start at its folder.
        row_type: ``Recording`` or ``Clip``.

    Raises:
        DataError: the file is missing or unreadable, has no rows, or a row is not a ``row_type``.
    """
    needed = ", ".join(field.name for field in fields(row_type) if field.default is MISSING)
    return _parse_rows(path, _read_table(path), row_type, f"it needs the tab-separated columns {needed}")


def _read_table(path: Path) -> list[dict[str, str]]:
    remedy = "give tab-separated text with a header"
    try:
        with open(path, newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file, delimiter="\t"))
    except FileNotFoundError:
        raise MissingDataError("no such manifest", where=path) from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"not a manifest ({error})", where=path, remedy=remedy) from error


def _parse_rows(path: Path, rows: Sequence[Mapping[str, str]], row_type: type[Row], remedy: str) -> list[Row]:
    parse: dict[str, Callable[[str], object]] = {"split": _split, "samples": int, "frames": int}
    parse |= dict.fromkeys(("path", "audio", "mel", "f0"), lambda value: path.parent / _not_empty(value))
    parse["name"] = _name
    result = []
    for line, row in enumerate(rows, start=2):
        try:
            values: dict[str, Any] = {
                field.name: parse.get(field.name, str)(row[field.name])
                for field in fields(row_type)
                if field.default is MISSING or row.get(field.name)
            }
            result.append(row_type(**values))
        except (KeyError, TypeError, ValueError) as error:
            what = f"line {line} is not a row of a manifest ({_fault(error)})"
            raise DataError(what, where=path, remedy=remedy) from error
    if not result:
        raise DataError("has no rows", where=path, remedy=remedy)
    return result


def _fault(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"it has no column {error}"
    return "it has too few cells" if isinstance(error, TypeError) else str(error)


def _not_empty(value: str) -> str:
    if not value:
        raise ValueError("a cell is empty")
    return value


def _name(value: str) -> str:
    """Check a name: files are named after it, and must not leave their folder."""
    if PurePath(_not_empty(value)).is_absolute() or ".." in PurePath(value).parts:
        raise ValueError(f"the name {value!r} leads out of its folder")
    return value


def _split(value: str) -> Split:
    splits: dict[str, Split] = {"train": "train", "valid": "valid"}
    if value not in splits:
        raise ValueError(f"the split {value!r} is neither train nor valid")
    return splits[value]
