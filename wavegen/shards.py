"""Shards: parts of the work on many files that separate processes or machines do, and how the parts become one result.

Each shard writes its part into a folder of its own, hidden below the folder of the results::

    OUT/.shards/2-of-4/          what shard 2/4 made
    OUT/.shards/2-of-4/part.json what it was made from; written last, so that a part with this file is complete

The hidden folder is never taken for recordings, mels or results. A merge checks that the parts cover the work without
gaps and overlaps, moves their files to ``OUT``, and removes them.
"""

import argparse
import contextlib
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from wavegen.errors import DataError, OutputError
from wavegen.files import atomic_write

FOLDER = ".shards"
PART = "part.json"

Item = TypeVar("Item")


@dataclass(frozen=True, order=True)
class Shard:
    """One of ``count`` parts of the work; ``index`` counts from 1."""

    index: int
    count: int

    def of(self, items: Sequence[Item]) -> list[Item]:
        """The items of this shard: every ``count``-th, because neighbours are often alike in length."""
        return list(items[self.index - 1 :: self.count])

    def folder(self, out: Path) -> Path:
        """Where this shard's part of the results in ``out`` lies."""
        return out / FOLDER / f"{self.index}-of-{self.count}"

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


@dataclass(frozen=True)
class Part:
    """The complete part of one shard.

    Attributes:
        shard: the shard.
        folder: the folder with its files.
        items: name of each item that it worked on -> the identity of the item's input, as JSON.
        settings: all that the results depend on besides the inputs, as JSON; the same in all parts.
        files: the files that it made, as paths below ``folder``.
        results: other results, as JSON.
    """

    shard: Shard
    folder: Path
    items: Mapping[str, Any]
    settings: Mapping[str, Any]
    files: Sequence[str] = ()
    results: Mapping[str, Any] = field(default_factory=dict)


def parse_shard(text: str) -> Shard:
    """Read ``2/4``, the second of four shards; an argparse ``type``."""
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise argparse.ArgumentTypeError(f"{text!r} is not a shard; use I/N with I from 1 to N, such as 2/4")
    return Shard(int(match[1]), int(match[2]))


def identity(path: Path) -> list[int]:
    """Size and time of a file, which change when it is replaced; zeros if it cannot be read."""
    with contextlib.suppress(OSError):
        stat = path.stat()
        return [stat.st_size, stat.st_mtime_ns]
    return [0, 0]


def digest(path: Path) -> str:
    """A hash of a file's content, such as a model's, for the settings of a part."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write_part(part: Part) -> None:
    """Write ``part.json``, which marks the part as complete.

    Raises:
        OutputError: the folder cannot be written.
    """
    content = {"items": part.items, "settings": part.settings, "files": list(part.files), "results": part.results}
    with atomic_write(part.folder / PART) as beside:
        beside.write_text(json.dumps(content, default=float), encoding="utf-8")  # NumPy's numbers too


def read_part(shard: Shard, out: Path) -> Part | None:
    """The part of a shard; None if it is not complete."""
    folder = shard.folder(out)
    try:
        content = json.loads((folder / PART).read_text(encoding="utf-8"))
        return Part(shard, folder, **content)
    except (OSError, ValueError, TypeError):
        return None


def is_finished(shard: Shard, out: Path, items: Mapping[str, Any], settings: Mapping[str, Any]) -> bool:
    """Whether the part of a shard is complete, and was made from exactly these items by these settings."""
    part = read_part(shard, out)
    if part is None:
        return False
    is_same = [part.items, part.settings] == _as_read([items, settings])
    return is_same and all((part.folder / name).exists() for name in part.files)


def _as_read(value: Any) -> Any:
    """A value as it comes back from a JSON file, where a tuple has become a list."""
    return json.loads(json.dumps(value))


def shard_count(out: Path) -> int | None:
    """How many shards the parts below ``out`` belong to; None without parts.

    Raises:
        DataError: there are parts of different counts.
    """
    counts = sorted({shard.count for shard in _begun_shards(out)})
    if len(counts) > 1:
        raise DataError(
            f"has parts of {counts[0]} shards and parts of {counts[1]} shards, which overlap",
            where=out / FOLDER,
            remedy="remove the folders of one kind",
        )
    return counts[0] if counts else None


def join_parts(out: Path, wanted: Mapping[str, Any], settings: Mapping[str, Any]) -> list[Part]:
    """All parts below ``out``, after a check that they do the whole work once.

    Args:
        out: the folder of the results.
        wanted: name of each item of the whole work -> the identity of its input now.
        settings: the settings of the merge, which all parts must have.

    Raises:
        DataError: all parts, a shard or an item are missing; two parts have the same item, or have different settings;
            or an input has changed since.
    """
    wanted, settings = _as_read([wanted, settings])
    where = out / FOLDER
    count = shard_count(out)
    if count is None:
        raise DataError("has no parts to merge", where=out, remedy="run every shard first: --shard 1/N to N/N")
    shards = [Shard(index + 1, count) for index in range(count)]
    found = {shard: read_part(shard, out) for shard in shards}
    if missing := [str(shard) for shard, part in found.items() if part is None]:
        raise DataError(
            f"{len(missing)} of {count} shards are not finished: {', '.join(missing[:3])}",
            where=where,
            remedy=f"run the command with --shard {missing[0]}",
        )
    parts = [part for part in found.values() if part is not None]

    # All parts must have been made alike, by the settings of this command.
    for part in parts:
        if differing := [key for key, value in settings.items() if part.settings.get(key) != value]:
            raise DataError(
                f"shard {part.shard} was made with another {', '.join(differing)}",
                where=where,
                remedy="give the options that the shards were given, or run it again",
            )

    # Every item must be in one part, and be what it is now.
    owner: dict[str, Part] = {}
    for part in parts:
        for name in part.items:
            if name in owner:
                raise DataError(
                    f"shards {owner[name].shard} and {part.shard} overlap: both have {name!r}",
                    where=where,
                    remedy="the inputs have changed between them: remove this folder and run all shards again",
                )
            owner[name] = part
    gaps = [name for name in wanted if name not in owner]
    extra = [name for name in owner if name not in wanted]
    if gaps or extra:
        what = f"{len(gaps)} inputs are in no shard" if gaps else f"{len(extra)} inputs of the shards are gone"
        raise DataError(
            f"{what}: {', '.join(map(repr, (gaps or extra)[:3]))}",
            where=where,
            remedy="the inputs have changed since: remove this folder and run all shards again",
        )
    for name, part in owner.items():
        if part.items[name] != wanted[name]:
            raise DataError(
                f"{name!r} has changed since shard {part.shard} read it",
                where=where,
                remedy=f"run the command with --shard {part.shard} again",
            )
    return parts


def move_files(parts: Iterable[Part], out: Path) -> None:
    """Move the files of the parts to ``out``. After an interruption, the same call moves the rest.

    Raises:
        OutputError: a file is gone, or cannot be moved.
    """
    for part in parts:
        for name in part.files:
            source, target = part.folder / name, out / name
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                os.replace(source, target)
            except FileNotFoundError as error:
                if target.exists():  # moved before an interruption
                    continue
                remedy = f"run the command with --shard {part.shard} again"
                raise OutputError("is gone", where=source, remedy=remedy) from error
            except OSError as error:
                remedy = "check the folder's permissions"
                raise OutputError(f"cannot write: {error.strerror}", where=target, remedy=remedy) from error


def remove_parts(out: Path) -> None:
    """Remove all parts below ``out``."""
    shutil.rmtree(out / FOLDER, ignore_errors=True)


def _begun_shards(out: Path) -> list[Shard]:
    names = [path.name for path in (out / FOLDER).glob("*-of-*")]
    matches = [re.fullmatch(r"(\d+)-of-(\d+)", name) for name in names]
    return sorted(Shard(int(match[1]), int(match[2])) for match in matches if match)
