"""What fills a hole: bit equality outside, no jump at its edges, and sound where a mel is known."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from support.corpus import voice
from torch import Tensor

import wavegen
from wavegen.audio.resampling import resample
from wavegen.blocks import Context
from wavegen.inpainting import Hole, fill_holes
from wavegen.inpainting.holes import lost_samples
from wavegen.mel import LogMel, profile
from wavegen.models.inpainter import KEPT

RATE = 24000
MEL = profile("bigvgan-24k")
HOLES = [Hole(6000, 7920), Hole(14000, 14048)]  # 80 ms, and 2 ms
LONG_HOLE = Hole(6000, 9600)  # 150 ms


class Foreseen:
    """Stands in for an inpainter, and knows the mel."""

    mel = MEL
    context: ClassVar[Context] = Context()

    def __init__(self, complete: Callable[[Tensor], Tensor]) -> None:
        self.complete = complete

    def __call__(self, mel: Tensor, known: Tensor) -> Tensor:
        return torch.where(known >= KEPT, mel, self.complete(mel))


def whole_mel(sound: np.ndarray) -> Tensor:
    padded = np.pad(sound, (0, -len(sound) % MEL.hop_length)).astype(np.float32)
    return LogMel(MEL)(torch.from_numpy(padded)[None])


def fill(sound: np.ndarray, inpainter: Any, iterations: int = 8, holes: Sequence[Hole] = HOLES) -> np.ndarray:
    return fill_holes(
        sound, list(holes), inpainter, wavegen.load("default"), sample_rate_hz=RATE, iterations=iterations
    )


@pytest.fixture(scope="module")
def sound() -> np.ndarray:
    return voice(0.8).astype(np.float64)


def test_outside_holes_nothing_changes_and_inside_the_mel_is_restored(sound: np.ndarray) -> None:
    damaged = sound.copy()
    for hole in HOLES:
        damaged[hole.start : hole.stop] = 0
    true = whole_mel(sound)
    filled = fill(damaged, Foreseen(lambda mel: true))
    outside = np.ones(len(sound), dtype=bool)
    for hole in HOLES:
        outside[hole.start : hole.stop] = False
    assert np.array_equal(filled[outside], sound[outside])
    inside = slice(6000 // 256, 7920 // 256)
    distances = [float((whole_mel(x) - true)[..., inside].abs().mean()) for x in (filled, damaged)]
    assert distances[0] < 0.25 * distances[1]


def test_there_is_no_jump_at_the_edges(sound: np.ndarray) -> None:
    true = whole_mel(sound)
    filled = fill(sound, Foreseen(lambda mel: true))
    usual = np.abs(np.diff(sound)).max()
    for hole in HOLES:
        assert np.abs(np.diff(filled[hole.start - 2 : hole.stop + 2])).max() < 2 * usual


@pytest.mark.parametrize("hole", [HOLES[0], LONG_HOLE])
def test_what_the_hole_held_does_not_matter(sound: np.ndarray, hole: Hole) -> None:
    true = whole_mel(sound)
    noisy = sound.copy()
    noisy[hole.start : hole.stop] = 0.9
    results = [fill(x, Foreseen(lambda mel: true), 1, [hole]) for x in (sound, noisy)]
    assert np.array_equal(*results)


def test_long_holes_at_another_rate_are_filled_wherever_they_are() -> None:
    sound = np.tile(voice(1.0, rate=48000), 3).astype(np.float64)
    holes = [Hole(0, 7200), Hole(60000, 66000), Hole(len(sound) - 6000, len(sound))]
    lost = lost_samples(holes, len(sound))
    keeping: Any = Foreseen(lambda mel: mel)
    vocoder = wavegen.load("default")
    filled = fill_holes(np.where(lost, 0, sound), holes, keeping, vocoder, sample_rate_hz=48000, iterations=1)
    assert np.array_equal(filled[~lost], sound[~lost])
    assert np.isfinite(filled).all()
    for hole in holes:
        assert np.abs(filled[hole.start : hole.stop]).max() > 0.01


def test_a_long_hole_at_another_rate_gets_what_the_recording_has_elsewhere(sound: np.ndarray) -> None:
    twice = np.concatenate((sound, sound))
    true = whole_mel(twice)
    blurred: Any = Foreseen(lambda mel: 0.5 * true[..., : mel.shape[-1]] + 0.5 * true.mean(dim=-1, keepdim=True))
    hole, vocoder = Hole(2 * LONG_HOLE.start, 2 * LONG_HOLE.stop), wavegen.load("default")
    filled = fill_holes(
        resample(twice, RATE, 2 * RATE), [hole], blurred, vocoder, sample_rate_hz=2 * RATE, iterations=8
    )
    inside = slice(LONG_HOLE.start // 256 + 1, LONG_HOLE.stop // 256 - 1)
    assert float((whole_mel(resample(filled, 2 * RATE, RATE)) - true)[..., inside].abs().mean()) < 0.5


def test_frames_of_a_hole_are_not_taken_for_recorded_ones() -> None:
    """Linear prediction of noise fades into silence, which this inpainter expects; the recording has none."""
    steady = 0.1 * np.random.default_rng(0).normal(size=48000)
    hole = Hole(21000, 27000)
    filled = fill(steady, Foreseen(lambda mel: mel), holes=[hole])
    middle = slice(23500, 24500)
    assert np.abs(filled[middle]).max() > 0.3 * np.abs(steady[middle]).max()


def test_a_long_hole_gets_what_the_recording_has_elsewhere(sound: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    twice = np.concatenate((sound, sound))
    true = whole_mel(twice)
    blurred = Foreseen(lambda mel: 0.5 * true[..., : mel.shape[-1]] + 0.5 * true.mean(dim=-1, keepdim=True))
    inside = slice(LONG_HOLE.start // 256 + 1, LONG_HOLE.stop // 256 - 1)
    distances = []
    for shortest_s in (0.1, 1.0):
        monkeypatch.setattr("wavegen.inpainting.exemplars.LONG_S", shortest_s)
        filled = fill(twice, blurred, holes=[LONG_HOLE])
        distances.append(float((whole_mel(filled) - true)[..., inside].abs().mean()))
    assert distances[0] < 0.5 * distances[1]
