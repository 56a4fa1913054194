"""Interpolation by linear prediction, against sounds that obey a predictor."""

import numpy as np

from wavegen.audio.interpolation import interpolate
from wavegen.inpainting import Hole

TIME = np.arange(2000)
SINES = np.sin(TIME / 3) + 0.5 * np.sin(TIME / 7.3 + 1)


def filled_in(hole: Hole) -> np.ndarray:
    """What is interpolated in a hole of the sines, whatever the hole holds."""
    damaged = SINES.copy()
    damaged[hole.start : hole.stop] = 99
    return interpolate(damaged, hole, order=32)


def test_a_sum_of_sines_is_restored() -> None:
    assert np.abs(filled_in(Hole(1000, 1080)) - SINES[1000:1080]).max() < 0.05


def test_a_hole_at_an_end_continues_the_sound_and_fades() -> None:
    start, end = filled_in(Hole(0, 30)), filled_in(Hole(1970, 2000))
    assert np.abs(start[-3:] - SINES[27:30]).max() < 0.02
    assert np.abs(end[:3] - SINES[1970:1973]).max() < 0.06
    assert max(abs(start[0]), abs(end[-1])) < 0.05


def test_the_error_of_the_prediction_is_smallest() -> None:
    random = np.random.default_rng(0)
    sound = np.convolve(random.standard_normal(800), [1, 1.2, 0.8, 0.3], "same")
    hole = Hole(400, 420)
    best = sound.copy()
    best[hole.start : hole.stop] = interpolate(sound, hole, order=8, iterations=1)
    zeroed = sound.copy()
    zeroed[hole.start : hole.stop] = 0
    # The predictor of the first iteration, from the normal equations of the sound with zeros in the hole.
    lags = [np.dot((w := zeroed * np.hanning(800))[k:], w[: 800 - k]) for k in range(9)]
    matrix = np.array([[lags[abs(i - j)] for j in range(8)] for i in range(8)]) + np.eye(8) * 1e-6 * lags[0]
    predictor = np.concatenate(([1], -np.linalg.solve(matrix, lags[1:])))

    def energy(x: np.ndarray) -> float:
        return float((np.convolve(x, predictor, "valid") ** 2).sum())

    for _ in range(20):
        other = best.copy()
        other[hole.start : hole.stop] += 0.01 * random.standard_normal(20)
        assert energy(best) < energy(other)


def test_silence_and_little_sound_give_finite_samples() -> None:
    assert not interpolate(np.zeros(100), Hole(10, 20)).any()
    assert np.isfinite(interpolate(np.arange(5.0), Hole(1, 4))).all()
    assert interpolate(np.ones(3), Hole(0, 3)).tolist() == [0, 0, 0]


def test_sound_that_the_window_hides_predicts_silence() -> None:
    for level in (1.0, 1e-200):  # at an end, where the window is zero; and too faint for its power to be a number
        sound = np.zeros(2000)
        sound[0 if level == 1 else 500] = level
        assert not interpolate(sound, Hole(1000, 1080), order=32).any()
