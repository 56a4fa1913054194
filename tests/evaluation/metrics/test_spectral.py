"""Distances of spectra against librosa, and cases with a known answer."""

import math

import librosa
import numpy as np
import pytest
import scipy.signal
from support.metrics import RATE, SPEC, compute, hiss
from support.signals import speech

from wavegen.evaluation.metrics.spectral import CEPSTRUM_SPEC
from wavegen.mel import PROFILES, profile


def test_log_mel_equals_librosa() -> None:
    reference, generated = speech(), speech(pitch_hz=150)

    def log_mel(samples: np.ndarray) -> np.ndarray:
        padded = np.pad(samples, (SPEC.n_fft - SPEC.hop_length) // 2, mode="reflect")
        mel = librosa.feature.melspectrogram(
            y=padded, sr=RATE, n_fft=1024, hop_length=256, n_mels=100, fmax=12000, power=1.0, center=False
        )
        return np.log(np.maximum(mel, 1e-5))

    wanted = np.abs(log_mel(reference) - log_mel(generated)).mean()
    assert compute("log_mel", reference, generated) == pytest.approx(wanted, rel=1e-3)


@pytest.mark.parametrize("name", ["bigvgan-24k", "pwg-24k", "vocos-24k"])
def test_doubling_is_ln_2_of_log_mel_for_any_logarithm(name: str) -> None:
    loud = hiss()  # far above every floor
    assert compute("log_mel", loud, 2 * loud, PROFILES[name]) == pytest.approx(math.log(2), rel=1e-4)


def test_statistics_do_not_change_log_mel() -> None:
    plain = profile("pwg-24k")
    standardised = plain.replace(mean=(-2.0,) * plain.n_mels, std=(0.5,) * plain.n_mels)
    pair = speech(), speech(pitch_hz=150)
    assert compute("log_mel", *pair, standardised) == compute("log_mel", *pair, plain)


def test_stft_distance_equals_librosa() -> None:
    reference, generated = speech(), speech(pitch_hz=150)
    distances = []
    for n_fft, hop in ((512, 128), (1024, 256), (2048, 512)):
        s, g = (
            np.abs(librosa.stft(x, n_fft=n_fft, hop_length=hop, pad_mode="reflect")).clip(1e-7**0.5)
            for x in (reference, generated)
        )
        distances.append(np.linalg.norm(s - g) / np.linalg.norm(s) + np.abs(np.log(s / g)).mean())
    assert compute("m_stft", reference, generated) == pytest.approx(np.mean(distances), rel=1e-4)


def test_cepstral_distortion_equals_librosa_if_all_frames_count() -> None:
    spec = profile("bigvgan-24k").replace(sample_rate_hz=16000, f_max_hz=8000)  # so that nothing is resampled
    reference, generated = hiss(rate=16000), scipy.signal.lfilter([1, 0.7], [1], hiss(rate=16000, seed=1))

    def cepstra(samples: np.ndarray) -> np.ndarray:
        mel = librosa.feature.melspectrogram(
            y=samples, sr=16000, n_fft=1024, win_length=400, hop_length=80, n_mels=80, fmax=8000, htk=True, norm=None,
            power=1.0, pad_mode="reflect",
        )  # fmt: skip
        # librosa's DCT is orthonormal; the cepstrum is √(2/M) times that.
        return math.sqrt(2 / 80) * librosa.feature.mfcc(S=np.log(np.maximum(mel, 1e-4)), n_mfcc=14, dct_type=2)[1:]

    distance = np.sqrt(np.square(cepstra(reference) - cepstra(generated)).sum(axis=0)).mean()
    wanted = 10 * math.sqrt(2) / math.log(10) * distance
    assert wanted > 1
    assert compute("mcd", reference, generated, spec) == pytest.approx(wanted, rel=1e-3)


def test_cepstral_distortion_ignores_the_level_and_measures_a_ripple_in_db() -> None:
    loud = hiss(2.0, rate=16000)
    spec = SPEC.replace(sample_rate_hz=16000, f_max_hz=8000)
    assert compute("mcd", loud, 0.25 * loud, spec) == pytest.approx(0, abs=1e-4)
    # A gain of e^(a cos) along the mel axis: c₄ = a alone, so that the distortion is 10 √2 / ln 10 · a.
    spectrum, hertz = np.fft.rfft(loud), np.fft.rfftfreq(len(loud), 1 / 16000)
    mel = np.log1p(hertz / 700) / np.log1p(8000 / 700)
    rippled = np.fft.irfft(spectrum * np.exp(0.2 * np.cos(4 * np.pi * mel))).astype(np.float32)
    assert compute("mcd", loud, rippled, spec) == pytest.approx(10 * math.sqrt(2) / math.log(10) * 0.2, rel=0.03)


def test_cepstral_distortion_ignores_pauses() -> None:
    spec = SPEC.replace(sample_rate_hz=16000, f_max_hz=8000)
    reference = np.concatenate([hiss(1, rate=16000), hiss(1, 1e-4, rate=16000)])
    noisy = reference.copy()
    noisy[17000:] = scipy.signal.lfilter([1, -0.9], [1], hiss(2, 1e-3, rate=16000))[17000:]
    assert compute("mcd", reference, noisy, spec) < 0.1


def test_every_cepstral_band_has_a_filter() -> None:
    assert (CEPSTRUM_SPEC.filterbank().sum(axis=1) > 0).all()
