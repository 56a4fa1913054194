"""Errors of pitch and voicing for sounds whose pitch is known."""

import numpy as np
import pytest
import scipy.signal
from support.metrics import RATE, SPEC, compute, hiss

from wavegen.evaluation.metrics import METRICS, Pair, Undefined
from wavegen.evaluation.metrics.pitch import PitchTrack, pitch_track


def pulses(pitch_hz: float, seconds: float = 1.5) -> np.ndarray:
    """A steady, harmonic tone."""
    time = np.arange(round(seconds * RATE)) / RATE
    return (0.1 * sum(np.sin(2 * np.pi * k * pitch_hz * time) / k for k in range(1, int(8000 / pitch_hz)))).astype(
        np.float32
    )


@pytest.mark.parametrize("cents", [50, -50, 700])
def test_a_shifted_tone_scores_its_shift_in_cents(cents: float) -> None:
    shifted = pulses(150 * 2 ** (cents / 1200))
    assert compute("f0_rmse", pulses(150), shifted) == pytest.approx(abs(cents), abs=0.1)
    assert compute("voicing_f1", pulses(150), shifted) > 0.98


def test_pitch_counts_only_frames_clearly_voiced_in_both(monkeypatch: pytest.MonkeyPatch) -> None:
    reference, generated = np.full(100, 100.0), np.full(100, 100 * 2 ** (1 / 12))
    reference[:10], generated[60:] = 0, 0  # voiced in both from 10 to 59
    generated[10:12], generated[58:60], generated[:10] = (
        300,
        300,
        300,
    )  # wrong, but at an end or unvoiced in the reference
    tracks = {0.5: PitchTrack(reference, np.zeros(100)), 0.25: PitchTrack(generated, np.zeros(100))}
    monkeypatch.setattr("wavegen.evaluation.metrics.pitch.pitch_track", lambda samples: tracks[samples[0]])
    pair = Pair(np.full(16000, 0.5), np.full(16000, 0.25), SPEC.replace(sample_rate_hz=16000, f_max_hz=8000))
    assert METRICS["f0_rmse"].compute(pair) == pytest.approx(100)
    # 50 true positives, 10 false ones, 40 misses.
    assert METRICS["voicing_f1"].compute(pair) == pytest.approx(2 * 50 / (2 * 50 + 10 + 40))
    generated[13:] = 0
    with pytest.raises(Undefined, match="0 frames are clearly voiced in both, but it needs 10"):
        METRICS["f0_rmse"].compute(pair)


def test_half_a_voice_is_half_voiced() -> None:
    generated = pulses(150)
    generated[len(generated) // 2 :] = 0
    # The whole reference is voiced, and half of the output: TP 1/2, FN 1/2.
    assert compute("voicing_f1", pulses(150), generated) == pytest.approx(2 / 3, abs=0.03)


def test_periodicity_falls_with_noise_and_is_a_root_mean_square() -> None:
    pytest.importorskip("pyworld")
    tone_track, noise_track = (pitch_track(scipy.signal.resample_poly(s, 2, 3)) for s in (pulses(150), hiss(1.5)))
    assert np.median(tone_track.periodicity) > 0.95
    assert noise_track.periodicity.max() < 0.05
    found = compute("periodicity_rmse", pulses(150), hiss(1.5))
    assert found == pytest.approx(np.sqrt(np.mean((tone_track.periodicity - noise_track.periodicity) ** 2)), abs=0.03)
