"""Metrics of the waveform: their formulas, and cases with a known answer."""

import math

import numpy as np
import pytest
from support.metrics import RATE, SPEC, compute, hiss
from support.signals import speech, tone

from wavegen.evaluation.metrics import Undefined


@pytest.mark.parametrize("snr_db", [-10, 0, 20])
def test_si_sdr_is_the_ratio_for_any_gain_and_offset(snr_db: float) -> None:
    clean, other = hiss(4.0), hiss(4.0, seed=1)
    noisy = clean + other * 10 ** (-snr_db / 20)
    assert compute("si_sdr", clean, 0.3 * noisy + 0.05) == pytest.approx(snr_db, abs=0.2)


def test_si_sdr_is_its_formula() -> None:
    """As in Le Roux et al., eq. 2."""
    s, g = speech().astype(np.float64), speech(pitch_hz=121).astype(np.float64)
    s, g = s - s.mean(), g - g.mean()
    scaled = (g @ s) / (s @ s) * s
    wanted = 10 * np.log10((scaled @ scaled) / ((scaled - g) @ (scaled - g)))
    assert compute("si_sdr", speech(), speech(pitch_hz=121)) == pytest.approx(wanted, abs=1e-3)


@pytest.mark.parametrize("gain", [2.0, 0.5])
def test_a_gain_of_two_is_6_02_lu(gain: float) -> None:
    assert compute("loudness", 0.3 * speech(), 0.3 * gain * speech()) == pytest.approx(20 * math.log10(gain), abs=1e-3)


def test_loudness_of_the_reference_tone_is_that_of_bs_1770() -> None:
    """A sine of 997 Hz at 0 dBFS in one channel is -3.01 LUFS (BS.1770-4, annex 1)."""
    from pyloudnorm import Meter

    sine = tone(997, 48000, 96000, amplitude=1.0)
    assert Meter(48000).integrated_loudness(sine) == pytest.approx(-3.01, abs=0.05)
    spec = SPEC.replace(sample_rate_hz=48000, f_max_hz=24000)
    sines = [tone(hertz, 48000, 96000, amplitude=0.5) for hertz in (997, 10000)]
    # K-weighting lifts 10 kHz by its shelf of 4 dB; 997 Hz by 0.7 dB.
    assert compute("loudness", *sines, spec) == pytest.approx(3.3, abs=0.2)


def spoken_with_pauses() -> np.ndarray:
    """Two seconds of noise, with a pause of 0.4 s at 1e-4."""
    samples = hiss(2.0)
    samples[RATE : RATE + 2 * RATE // 5] *= 1e-3
    return samples


def test_noise_in_pauses_scores_its_level() -> None:
    reference = spoken_with_pauses()
    noisy = reference + hiss(2.0, 1e-2, seed=1)
    wanted = 10 * math.log10((1e-4**2 + 1e-2**2) / 1e-4**2)
    assert compute("silence_level", reference, noisy) == pytest.approx(wanted, abs=0.3)
    gated = np.where(np.abs(reference) < 6e-4, 0, reference)
    assert compute("silence_level", reference, gated) == pytest.approx(-16, abs=0.5)  # -80 dBFS to the floor of -96


def test_level_in_pauses_needs_pauses() -> None:
    with pytest.raises(Undefined, match="no pauses"):
        compute("silence_level", hiss(2.0), hiss(2.0))


@pytest.mark.parametrize("offset", [0.01, -0.02])
def test_dc_offset_is_in_percent(offset: float) -> None:
    assert compute("dc_offset", speech(), speech() + np.float32(offset)) == pytest.approx(100 * offset, abs=1e-3)


def test_a_steady_tone_scores_its_prominence_and_another_noise_little() -> None:
    noise, frequency = hiss(4.0, 0.01), 24000 / 2048 * 128  # in the middle of a bin
    assert compute("tonal_line", noise, hiss(4.0, 0.01, seed=1)) < 3.5
    # Mean power of the noise in a bin, if a full-scale tone has 1: 4 σ² Σw² / (Σw)², where Σw² / (Σw)² = 1.5 / 2048
    # for a Hann window. It has a chi-square distribution of two degrees of freedom, whose median is ln 2 of its mean.
    tone_level = 0.01
    noise_level = math.sqrt(0.01**2 * 4 * 1.5 / 2048 * math.log(2))
    wanted = 20 * math.log10(tone_level / noise_level)
    found = compute("tonal_line", noise, (noise + tone(frequency, RATE, len(noise), tone_level)).astype(np.float32))
    assert found == pytest.approx(wanted, abs=1.0)


def test_a_tone_of_the_recording_is_not_an_artefact() -> None:
    humming = (hiss(4.0, 0.01) + tone(1500, RATE, 4 * RATE, 0.01)).astype(np.float32)
    assert compute("tonal_line", humming, humming) == 0
    assert compute("tonal_line", humming, hiss(4.0, 0.01)) < 3.5  # a lost tone is not a line


def test_clipping_is_the_share_at_full_scale_minus_the_recordings() -> None:
    samples = np.linspace(-0.5, 0.5, 1000, dtype=np.float32)
    clipped = samples.copy()
    clipped[:20], clipped[-10:] = -1, 32767 / 32768
    assert compute("clipping", samples, clipped) == pytest.approx(3)
    assert compute("clipping", clipped, clipped) == compute("clipping", clipped, samples) == 0


def test_length_is_in_ms_before_the_cut() -> None:
    assert compute("length", hiss(1.0), hiss(1.25)) == pytest.approx(250)
    assert compute("length", hiss(1.0), hiss(0.99)) == pytest.approx(-10)
