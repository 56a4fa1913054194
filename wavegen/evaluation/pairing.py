"""Which recording belongs to which output: by name."""

import unicodedata
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from wavegen.corpora.manifest import find_recordings
from wavegen.errors import DataError


@dataclass(frozen=True)
class Pairing:
    """Recordings with an output, and what was left over.

    Attributes:
        references: clip name -> recording, of the clips that have an output.
        outputs: system -> clip name -> sound file; of those clips only.
        notes: what has no counterpart, in words.
    """

    references: Mapping[str, Path]
    outputs: Mapping[str, Mapping[str, Path]]
    notes: Sequence[str] = ()


def pair_by_name(references: Path, outputs: Mapping[str, Path], *, keep_all: bool = False) -> Pairing:
    """Pair sound files by their path below their folder, without its suffix; two single files are a pair as they are.

    Args:
        references: folder of the recordings, or one of them.
        outputs: system -> folder of its outputs, or one.
        keep_all: keep the recordings that no folder has an output for, because something is still made of them.

    Raises:
        DataError: a folder is missing or without sound files, or an output has no counterpart at all.
    """
    wanted = list_sounds(references)
    paired, notes = {}, []
    for system, place in outputs.items():
        found = list_sounds(place)
        if references.is_file() and place.is_file():
            found = dict(zip(wanted, found.values(), strict=True))
        paired[system] = {name: found[name] for name in wanted if name in found}
        if not paired[system]:
            raise DataError(
                f"no file has the name of one in {references}: {_some(found)} here, {_some(wanted)} there",
                where=place,
                remedy="names are compared as paths below each folder, without the suffix; rename one side",
            )
        if missing := len(wanted) - len(paired[system]):
            notes.append(f"{system} has no output for {missing} of {len(wanted)} recordings")
        if spare := len(found) - len(paired[system]):
            notes.append(f"{spare} files of {system} have no recording")
    kept = {name: path for name, path in wanted.items() if keep_all or any(name in files for files in paired.values())}
    return Pairing(kept, paired, notes)


def list_sounds(place: Path) -> dict[str, Path]:
    """Name -> path of the sound files below a folder, sorted; of a file, itself.

    Raises:
        DataError: there are none, or two of one name.
    """
    if place.is_file():
        return {_composed(place.stem): place}
    if not place.exists():
        raise DataError("no such file or folder", where=place, remedy="check the path")
    found = find_recordings(place, held_out=0.0)
    named = {_composed(recording.name): recording.path for recording in found}
    if len(named) < len(found):
        raise DataError("two names differ in how their accents are written only", where=place, remedy="rename one")
    return named


def _composed(name: str) -> str:
    """Accents as one character with their letter, as most systems write them; macOS writes two. Bytes as ``?``."""
    return unicodedata.normalize("NFC", name.encode(errors="replace").decode())


def system_names(places: Sequence[Path], taken: Sequence[str] = ()) -> list[str]:
    """A name for each place: the last parts of its path, as few as tell it from the others and from ``taken``."""
    parts = [(place.with_suffix("") if place.is_file() else place).resolve().parts[1:] for place in places]
    names: list[str] = []
    for index, own in enumerate(parts):
        others = [*parts[:index], *parts[index + 1 :]]
        count = 1
        while count < len(own) and (
            any(own[-count:] == other[-count:] for other in others) or "/".join(own[-count:]) in taken
        ):
            count += 1
        names.append(distinct("/".join(own[-count:]) or "output", [*names, *taken]))  # the same folder twice
    return names


def distinct(name: str, taken: Collection[str]) -> str:
    """``name``, with marks after it where it is taken."""
    while name in taken:
        name += "'"
    return name


def _some(names: Mapping[str, Path]) -> str:
    first = list(names)[:3]
    more = len(names) - len(first)
    return ", ".join(map(repr, first)) + (f" and {more} more" if more else "")
