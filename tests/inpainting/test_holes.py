"""Holes as text, as a file, and found in a recording."""

from pathlib import Path

import numpy as np
import pytest
from support.messages import Messages

from wavegen.errors import DataError
from wavegen.inpainting import Hole, detect_holes, parse_holes, read_holes
from wavegen.inpainting.holes import merged

RATE = 1000


def test_holes_are_read_in_seconds_sorted_and_joined() -> None:
    assert parse_holes("3.0-3.1, 1.20-1.28,1.25-1.3", 4000, RATE) == [Hole(1200, 1300), Hole(3000, 3100)]
    assert parse_holes("3.9-4.0", 4000, RATE) == [Hole(3900, 4000)]


def test_a_file_of_holes_may_be_audacity_labels(tmp_path: Path) -> None:
    path = tmp_path / "holes.tsv"
    path.write_text("start\tend\n# a comment\n\n0.5\t0.75\tclick\n2.0 2.5\n", encoding="utf-8")
    assert read_holes(path, 4000, RATE) == [Hole(500, 750), Hole(2000, 2500)]


@pytest.mark.parametrize("text", ["1.2", "2-1", "a-b", "1-9", "nan-1", ""])
def test_holes_that_cannot_be_are_refused(text: str, messages: Messages) -> None:
    with messages.refused(DataError):
        parse_holes(text, 4000, RATE)


def test_files_that_hold_no_holes_are_refused(
    tmp_path: Path, messages: Messages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.tsv").write_text("1.0\n")
    Path("b.tsv").write_bytes(b"\xff\xfe\x00")
    for name in ("none.tsv", "a.tsv", "b.tsv"):
        with messages.refused(DataError):
            read_holes(Path(name), 4000, RATE)


def test_digital_zeros_are_found_but_not_pauses_crossings_or_the_ends() -> None:
    samples = np.sin(np.arange(4000) / 3) * 0.2 + 0.001
    for start, stop in ((0, 50), (100, 101), (500, 580), (1000, 1500), (3990, 4000)):
        samples[start:stop] = 0
    assert detect_holes(samples, RATE) == [Hole(500, 580)]


def test_clipped_peaks_are_found() -> None:
    loud = np.sin(np.arange(189) / 10)  # three periods
    found = detect_holes(np.clip(loud, -0.8, 0.8), RATE)
    assert found
    assert all((np.abs(loud[hole.start : hole.stop]) >= 0.8).all() for hole in found)
    assert sum(hole.stop - hole.start for hole in found) == (np.abs(loud) >= 0.8).sum()
    assert detect_holes(loud, RATE) == []
    assert detect_holes(np.clip(loud, -0.8, 0.8) / 10, RATE) == []  # quiet sound is not clipped by a converter


def test_holes_near_each_other_are_joined() -> None:
    assert merged([Hole(5, 9), Hole(0, 4)], gap=1) == [Hole(0, 9)]
    assert merged([Hole(5, 9), Hole(0, 4)]) == [Hole(0, 4), Hole(5, 9)]
