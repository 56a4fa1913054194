"""Holes of a recording: named by the user, listed in a file, or found."""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from wavegen.audio.runs import runs
from wavegen.errors import DataError, MissingDataError

SHORTEST_SILENCE_S = 0.002  # a run of digital zero below this may be a quiet sound
LONGEST_SILENCE_S = 0.4  # and beyond this a pause
CLIPPED_SAMPLES = 3  # equal samples at the extreme of a recording that count as clipped
CLIPPED_LEVEL = 0.25  # below this, the extreme of a recording is not the limit of a converter


class Hole(NamedTuple):
    """Samples ``start`` to ``stop - 1`` that are missing."""

    start: int
    stop: int


def lost_samples(holes: Iterable[Hole], count: int) -> np.ndarray:
    """Which of ``count`` samples lie in holes, bool ``[count]``."""
    lost = np.zeros(count, dtype=bool)
    for hole in holes:
        lost[hole.start : hole.stop] = True
    return lost


def parse_holes(text: str, samples: int, sample_rate_hz: int, where: object = "--holes") -> list[Hole]:
    """Holes from text such as ``1.20-1.28,3.0-3.1``, in seconds.

    Args:
        text: the text.
        samples: length of the recording.
        sample_rate_hz: its sample rate.
        where: the place that an error names.

    Raises:
        DataError: a part is not two numbers, ends before it starts, or lies outside the recording.
    """
    pairs = []
    for part in text.split(","):
        start, dash, stop = part.strip().partition("-")
        if not dash:
            raise DataError(f"{part.strip()!r} is not START-STOP", where=where, remedy="write 1.20-1.28,3.0-3.1")
        pairs.append((start, stop))
    return _in_samples(pairs, samples, sample_rate_hz, where)


def read_holes(path: Path, samples: int, sample_rate_hz: int) -> list[Hole]:
    """Holes from a file with a start and an end in seconds on each line, separated by white space.

    What follows on a line is ignored, so Audacity's labels can be read; so are empty lines, and those that begin with
    ``#`` or with the word ``start``.

    Raises:
        DataError: the file is missing or not text, or as in ``parse_holes``.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError as error:
        raise MissingDataError(where=path) from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            "cannot be read as text", where=path, remedy="give lines of START and END in seconds"
        ) from error
    pairs = []
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words or words[0].startswith("#") or words[0] == "start":
            continue
        if len(words) < 2:
            raise DataError(f"line {number} has no end", where=path, remedy="give START and END in seconds")
        pairs.append((words[0], words[1]))
    return _in_samples(pairs, samples, sample_rate_hz, path)


def detect_holes(samples: np.ndarray, sample_rate_hz: int) -> list[Hole]:
    """Runs of digital zero, and clipped peaks.

    Zeros at both ends of a recording are not holes, nor are runs shorter than 2 ms or longer than 0.4 s.

    Args:
        samples: float ``[samples]``.
        sample_rate_hz: the sample rate.
    """
    zeros = [
        hole
        for hole in holes_in(samples == 0)
        if hole.start > 0 and hole.stop < len(samples)
        if SHORTEST_SILENCE_S <= (hole.stop - hole.start) / sample_rate_hz <= LONGEST_SILENCE_S
    ]
    clipped: list[Hole] = []
    for extreme in (samples.max(initial=0.0), samples.min(initial=0.0)):
        if abs(extreme) >= CLIPPED_LEVEL:
            flat = np.abs(samples - extreme) < 1e-4
            clipped += [hole for hole in holes_in(flat) if hole.stop - hole.start >= CLIPPED_SAMPLES]
    return merged([*zeros, *clipped])


def merged(holes: Iterable[Hole], gap: int = 0) -> list[Hole]:
    """Holes in their order, with those joined that overlap or have at most ``gap`` samples between them."""
    joined: list[Hole] = []
    for hole in sorted(holes):
        if joined and hole.start <= joined[-1].stop + gap:
            joined[-1] = Hole(joined[-1].start, max(joined[-1].stop, hole.stop))
        else:
            joined.append(hole)
    return joined


def holes_in(lost: np.ndarray) -> list[Hole]:
    """The holes of a recording whose samples are missing where bool ``[samples]`` is True."""
    return [Hole(*part) for part in runs(lost)]


def _in_samples(pairs: Sequence[tuple[str, str]], samples: int, sample_rate_hz: int, where: object) -> list[Hole]:
    duration_s = samples / sample_rate_hz
    holes = []
    for start, stop in pairs:
        try:
            start_s, stop_s = float(start), float(stop)
        except ValueError as error:
            raise DataError(f"{start}-{stop} are not two numbers", where=where, remedy="give seconds") from error
        if not (math.isfinite(start_s) and 0 <= start_s < stop_s <= duration_s + 1 / sample_rate_hz):
            raise DataError(
                f"the hole {start}-{stop} is not within the recording's {duration_s:.3f} s",
                where=where,
                remedy="give a start before an end, in seconds",
            )
        first = round(start_s * sample_rate_hz)
        holes.append(Hole(first, min(samples, max(first + 1, round(stop_s * sample_rate_hz)))))
    return merged(holes)
