"""Pairs of recordings and outputs, and the names of systems."""

from pathlib import Path

import numpy as np
import pytest

from wavegen.audio import write_audio
from wavegen.evaluation.pairing import pair_by_name, system_names


def test_names_pair_across_suffixes_and_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for path in ("real/x/a.wav", "out/x/a.flac", "out/a.flac"):
        write_audio(Path(path), np.zeros(9, dtype=np.float32), 16000)
    pairing = pair_by_name(Path("real"), {"out": Path("out")})
    assert pairing.outputs == {"out": {"x/a": Path("out/x/a.flac")}}
    assert pairing.notes == ["out has no recording for 1 of 2 outputs"]


def test_system_names_are_as_short_as_possible() -> None:
    def names(*places: str, taken: tuple[str, ...] = ()) -> list[str]:
        return system_names([Path(place) for place in places], taken)

    assert names("/x/hifigan", "/x/vocos/") == ["hifigan", "vocos"]
    assert names("/x/one/wavs", "/x/two/wavs") == ["one/wavs", "two/wavs"]
    assert names("/x/wavs", "/x/wavs") == ["x/wavs", "x/wavs'"]
    assert names("/x/pcm16", taken=("pcm16",)) == ["x/pcm16"]


def test_system_names_of_paths_with_dots_have_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a/b").mkdir(parents=True)
    assert system_names([Path("a/b/..")]) == ["a"]
