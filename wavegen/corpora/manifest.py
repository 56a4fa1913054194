"""Recordings and manifests: the only interface between a corpus on disk and training."""

import csv
import hashlib
import io
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, replace
from fnmatch import fnmatch
from pathlib import Path, PurePath
from typing import Any, Literal, TypeVar

from wavegen.audio import AUDIO_SUFFIXES
from wavegen.errors import DataError
from wavegen.files import write_beside

Split = Literal["train", "valid"]


@dataclass(frozen=True)
class Recording:
    """One file of a corpus.

    ``name`` is unique in it: the path below the corpus folder without its suffix. ``mel`` is what a TTS predicted for
    the recording, in place of its own; ``speaker`` is empty where nobody asks who speaks.
    """

    name: str
    path: Path
    split: Split
    mel: Path | None = None
    speaker: str = ""


@dataclass(frozen=True)
class Clip:
    """One recording after extraction.

    ``audio`` is mono at the mel's sample rate, ``samples`` long; ``mel`` the ``.npz`` of it, ``frames`` long.
    """

    name: str
    split: Split
    samples: int
    frames: int
    audio: Path
    mel: Path
    speaker: str = ""


Row = TypeVar("Row", Recording, Clip)


def find_recordings(folder: Path, *, pattern: str = "**/*", held_out: float | str = 0.05) -> list[Recording]:
    """The recordings below a folder, each in its split.

    Args:
        folder: where the corpus lies.
        pattern: glob below ``folder``; of what it matches, the files with an audio suffix count.
        held_out: a share of the recordings (chosen by a hash of their names, so adding files moves few), or a
            glob that the names of the held-back ones match.

    Returns:
        sorted by name.

    Raises:
        DataError: no such folder, a pattern that is no glob below it, no recordings, two of one name, a name that
            is not UTF-8, or a glob that leaves a split empty.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError("no such folder", where=folder, remedy="give the folder that holds the recordings")
    try:
        if ".." in Path(pattern).parts:  # names would lead out of the folder, and so would the files called after them
            raise ValueError("it leaves the folder")
        # Hidden files are half-written ones and file managers' leavings.
        visible = (p for p in folder.glob(pattern) if not p.name.startswith("."))
        paths = sorted(p for p in visible if p.is_file() and p.suffix.lower() in AUDIO_SUFFIXES)
    except (ValueError, NotImplementedError) as error:  # NotImplementedError: an absolute path
        raise DataError(
            f"{pattern!r} is no pattern for files below it ({error})",
            where=folder,
            remedy="give one such as '**/*.wav'",
        ) from error
    if not paths:
        raise DataError(
            f"no recordings match {pattern!r}",
            where=folder,
            remedy=f"looked for {', '.join(sorted(AUDIO_SUFFIXES))}; check the folder and the pattern",
        )
    _refuse_unusable_names(folder, paths)
    return split_recordings({p.relative_to(folder).with_suffix("").as_posix(): p for p in paths}, held_out)


def split_recordings(paths: dict[str, Path], held_out: float | str) -> list[Recording]:
    """Name → path to recordings in their splits; ``held_out`` as in ``find_recordings``, 0 for none."""
    if isinstance(held_out, str):
        valid = {name for name in paths if fnmatch(name, held_out)}
        if len(valid) in (0, len(paths)):
            raise DataError(
                f"held_out {held_out!r} matches {len(valid)} of {len(paths)} recordings",
                remedy=f"it is compared with names like {next(iter(paths))!r}",
            )
    else:
        # Something is held back as soon as it is asked for, and something is always left to train on.
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
                remedy="rename one, or narrow the pattern, as '**/*.wav' does",
            )


def _is_utf8(path: Path) -> bool:
    try:
        str(path).encode()
    except UnicodeEncodeError:  # Python holds the bytes of such a name as lone surrogates
        return False
    return True


def speaker_table(rows: Sequence[Recording] | Sequence[Clip]) -> tuple[str, ...]:
    """Names of those who speak in the training split, sorted.

    Raises:
        DataError: somebody has no name, there is only one speaker, or one is held back whom none is trained on.
    """
    nameless = [row.name for row in rows if not row.speaker]
    if nameless:
        raise DataError(
            f"{len(nameless)} of {len(rows)} recordings have no speaker: {', '.join(nameless[:3])}",
            where="data.speakers",
            remedy="put each in a folder of its speaker's name, or add the column speaker to the manifest",
        )
    table = sorted({row.speaker for row in rows if row.split == "train"})
    unknown = sorted({row.speaker for row in rows} - {*table})
    if unknown:
        raise DataError(
            f"{len(unknown)} of the speakers held back have nothing to train on: {', '.join(unknown[:3])}",
            where="data.held_out",
            remedy="hold back some recordings of each, or leave these speakers out",
        )
    if len(table) < 2:
        raise DataError(f"all speak as {table[0]!r}", where="data.speakers", remedy="set it to false for one speaker")
    return tuple(table)


def spread(clips: Sequence[Clip], count: int) -> list[Clip]:
    """``count`` of the clips, evenly from all of them: the first few of a sorted corpus are one speaker's."""
    count = min(count, len(clips))
    return [clips[i * len(clips) // count] for i in range(count)]


def write_manifest(path: Path, rows: Sequence[Row]) -> None:
    """Write recordings or clips as tab-separated text with a header; files below its folder by relative path.

    A column that may be absent is, where it would say nothing.
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
    with write_beside(path) as beside:
        beside.write_text(text.getvalue(), encoding="utf-8")


def read_recordings(path: Path, *, held_out: float | str = 0.05) -> list[Recording]:
    """A list of recordings that somebody made, tab-separated, with a header.

    Args:
        path: the list. The column ``path`` (or ``audio``) is needed; ``name`` is else the path without its suffix,
            ``split`` is else chosen by ``held_out``, ``mel`` is what a TTS predicted for the recording, ``speaker``
            who speaks. Relative paths start at its folder.
        held_out: as in ``find_recordings``.

    Raises:
        DataError: the file is missing or unreadable, has no rows, one of them is no recording, or two have one name.
    """
    table, remedy = _read_table(path), "it needs the tab-separated column path, and may have name, split, mel, speaker"
    for line in table:
        line.setdefault("path", line.get("audio", ""))
        parts = PurePath(line["path"] or "").with_suffix("").parts if line["path"] else ()
        line.setdefault("name", "/".join(part for part in parts if part not in ("..", PurePath(line["path"]).anchor)))
    has_split = "split" in table[0] if table else True
    recordings = _parse_rows(path, [{"split": "train", **line} for line in table], Recording, remedy)
    seen = {recording.name for recording in recordings}
    if len(seen) < len(recordings):
        twice = next(name for name in seen if sum(r.name == name for r in recordings) > 1)
        raise DataError(f"two recordings named {twice!r}", where=path, remedy="give each a name of its own")
    if has_split:
        return recordings
    splits = {r.name: r.split for r in split_recordings({r.name: r.path for r in recordings}, held_out)}
    return [replace(recording, split=splits[recording.name]) for recording in recordings]


def read_manifest(path: Path, kind: type[Row]) -> list[Row]:
    """Read what ``write_manifest`` wrote.

    Args:
        path: tab-separated text whose header names the fields of ``kind``; relative paths start at its folder.
        kind: ``Recording`` or ``Clip``.

    Raises:
        DataError: the file is missing or unreadable, has no rows, or a row is not one of ``kind``.
    """
    needed = ", ".join(field.name for field in fields(kind) if field.default is MISSING)
    return _parse_rows(path, _read_table(path), kind, f"it needs the tab-separated columns {needed}")


def _read_table(path: Path) -> list[dict[str, str]]:
    remedy = "give tab-separated text with a header"
    try:
        with open(path, newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file, delimiter="\t"))
    except FileNotFoundError:
        raise DataError("no such manifest", where=path, remedy="check the path") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"not a manifest ({error})", where=path, remedy=remedy) from error


def _parse_rows(path: Path, rows: Sequence[Mapping[str, str]], kind: type[Row], remedy: str) -> list[Row]:
    parse: dict[str, Callable[[str], object]] = {"split": _split, "samples": int, "frames": int}
    parse |= dict.fromkeys(("path", "audio", "mel"), lambda value: path.parent / _not_empty(value))
    parse["name"] = _name
    result = []
    for line, row in enumerate(rows, start=2):
        try:
            values: dict[str, Any] = {
                field.name: parse.get(field.name, str)(row[field.name])
                for field in fields(kind)
                if field.default is MISSING or row.get(field.name)
            }
            result.append(kind(**values))
        except (KeyError, TypeError, ValueError) as error:
            what = f"line {line} is not a row of a manifest ({error!r})"
            raise DataError(what, where=path, remedy=remedy) from error
    if not result:
        raise DataError("a manifest without rows", where=path, remedy=remedy)
    return result


def _not_empty(value: str) -> str:
    if not value:
        raise ValueError("an empty cell")
    return value


def _name(value: str) -> str:
    """Files are called after it, in folders that they must not leave."""
    if PurePath(_not_empty(value)).is_absolute() or ".." in PurePath(value).parts:
        raise ValueError("a name that leads out of its folder")
    return value


def _split(value: str) -> Split:
    splits: dict[str, Split] = {"train": "train", "valid": "valid"}
    return splits[value]
