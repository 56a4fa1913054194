"""Pairs recordings with outputs by their names, and names the systems."""

import unicodedata
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from wavegen.corpora.folders import find_recordings
from wavegen.errors import DataError, MissingDataError
from wavegen.evaluation.halves import Half, half


@dataclass(frozen=True)
class Pairing:
    """Recordings and their outputs.

    Attributes:
        references: clip name -> recording.
        outputs: system -> clip name -> sound file.
        notes: counts of the recordings and outputs without a counterpart, as text.
    """

    references: Mapping[str, Path]
    outputs: Mapping[str, Mapping[str, Path]]
    notes: Sequence[str] = ()


def pair_by_name(
    references: Path, outputs: Mapping[str, Path], *, keep_all: bool = False, only: Half | None = None
) -> Pairing:
    """Pair sound files by their path below their folder, without its suffix; two single files always form a pair.

    Args:
        references: folder of the recordings, or a single recording.
        outputs: system -> folder of its outputs, or a single output.
        keep_all: keep recordings without any output, because models or baselines are still to make one.
        only: the half of the recordings to keep, of all below ``references``; by default all.

    Raises:
        DataError: a folder is missing or has no sound files, or none of a system's outputs has a counterpart.
    """
    notes: list[str] = []
    wanted = list_sounds(references, notes.append)
    paired = {}
    for system, place in outputs.items():
        found = list_sounds(place, notes.append)
        if references.is_file() and place.is_file():
            found = dict(zip(wanted, found.values(), strict=True))
        paired[system] = {name: found[name] for name in wanted if name in found}
        if not paired[system]:
            raise DataError(
                f"has no name in common with {references}: {_examples(found)} here, {_examples(wanted)} there",
                where=place,
                remedy="names are compared as paths below each folder, without the suffix; rename one side",
            )
        if missing := len(wanted) - len(paired[system]):
            notes.append(f"{system} has no output for {missing} of {len(wanted)} recordings")
        if unpaired := len(found) - len(paired[system]):
            notes.append(f"{system} has no recording for {unpaired} of {len(found)} outputs")
    kept = {name: path for name, path in wanted.items() if keep_all or any(name in files for files in paired.values())}
    if only is not None:
        in_half = half(list(wanted), only, name=str)
        notes.append(f"the {only} half of the recordings: {len(in_half)} of {len(wanted)}")
        kept = {name: path for name, path in kept.items() if name in in_half}
        paired = {
            system: {name: path for name, path in files.items() if name in in_half} for system, files in paired.items()
        }
    return Pairing(kept, paired, notes)


def list_sounds(place: Path, notify: Callable[[str], None] | None = None) -> dict[str, Path]:
    """Name -> path of the sound files below a folder, sorted; for a single file, only that one.

    Args:
        place: the folder or the file.
        notify: takes a line about files that were passed over although they may be sounds.

    Raises:
        DataError: there are none, or two have the same name.
    """
    if place.is_file():
        return {_normalised(place.stem): place}
    if not place.exists():
        raise MissingDataError("no such file or folder", where=place)
    found = find_recordings(place, held_out=0.0, notify=notify)
    named = {_normalised(recording.name): recording.path for recording in found}
    if len(named) < len(found):
        raise DataError(
            "two names differ only in how their accents are encoded (Unicode NFC and NFD)",
            where=place,
            remedy="rename one of the files",
        )
    return named


def _normalised(name: str) -> str:
    """``name`` in Unicode NFC, as most systems write accents (macOS writes NFD); invalid bytes become ``?``."""
    return unicodedata.normalize("NFC", name.encode(errors="replace").decode())


def system_names(places: Sequence[Path], taken: Sequence[str] = ()) -> list[str]:
    """A name for each place: the fewest last parts of its path that differ from the others and from ``taken``."""
    parts = [(place.with_suffix("") if place.is_file() else place).resolve().parts[1:] for place in places]
    names: list[str] = []
    for index, own in enumerate(parts):
        others = [*parts[:index], *parts[index + 1 :]]
        count = 1
        while count < len(own) and (
            any(own[-count:] == other[-count:] for other in others) or "/".join(own[-count:]) in taken
        ):
            count += 1
        # Names are still equal if the same folder is given twice.
        names.append(distinct("/".join(own[-count:]) or "output", [*names, *taken]))
    return names


def distinct(name: str, taken: Collection[str]) -> str:
    """``name``, followed by as many apostrophes as it takes to differ from the names in ``taken``."""
    while name in taken:
        name += "'"
    return name


def _examples(names: Mapping[str, Path]) -> str:
    first = list(names)[:3]
    more = len(names) - len(first)
    return ", ".join(map(repr, first)) + (f" and {more} more" if more else "")
