"""Resampling: tones stay where they are, and what is above the new Nyquist frequency vanishes."""

import sys
from collections.abc import Iterator

import numpy as np
import pytest
from support.messages import Messages

from wavegen.audio.resampling import SOXR, TORCHAUDIO, installed_resampler, resample
from wavegen.errors import AudioError


def without(monkeypatch: pytest.MonkeyPatch, *packages: str) -> None:
    """Let packages be missing until the test ends; ``forget`` is needed too."""
    for package in packages:
        monkeypatch.setitem(sys.modules, package, None)
    installed_resampler.cache_clear()


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    """Look for the installed package again after the test."""
    yield
    installed_resampler.cache_clear()


@pytest.fixture(params=[TORCHAUDIO, SOXR])
def package(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The package that resamples in this test."""
    name: str = request.param
    pytest.importorskip(name)
    without(monkeypatch, *({TORCHAUDIO} - {name}))
    assert installed_resampler() == name
    return name


def tone(hz: float, sample_rate_hz: int) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hz / sample_rate_hz * np.arange(sample_rate_hz))).astype(np.float32)


def spectrum(samples: np.ndarray) -> np.ndarray:
    """Amplitude per bin; a bin is 1 Hz for a second of samples."""
    return np.abs(np.fft.rfft(samples * np.hanning(len(samples)))) * 4 / len(samples)


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize(("from_hz", "to_hz"), [(44100, 24000), (22050, 24000), (24000, 48000), (48000, 22050)])
def test_a_tone_keeps_its_frequency_and_amplitude(from_hz: int, to_hz: int) -> None:
    resampled = resample(tone(5000, from_hz), from_hz, to_hz)
    assert resampled.shape == (to_hz,)
    assert resampled.dtype == np.float32
    found = spectrum(resampled)
    assert found.argmax() == 5000
    assert found.max() == pytest.approx(0.5, rel=1e-3)
    found[4990:5011] = 0
    assert found[50:-50].max() < 0.5 * 10 ** (-80 / 20)  # away from the edges of the band: no images


@pytest.mark.usefixtures("package")
def test_a_tone_above_the_new_nyquist_vanishes_and_one_below_stays() -> None:
    middle = slice(2000, -2000)  # away from the clip's two ends, where the tone starts and stops
    assert np.abs(resample(tone(12100, 48000), 48000, 24000)[middle]).max() < 0.5 * 10 ** (-80 / 20)
    assert np.abs(resample(tone(10800, 48000), 48000, 24000)[middle]).max() == pytest.approx(0.5, rel=1e-2)


def test_rates_without_a_common_divisor_are_refused_at_once(messages: Messages) -> None:
    with messages.refused(AudioError):
        resample(np.zeros(100, np.float32), 44100, 16001)
    assert len(resample(np.zeros(441, np.float32), 44100, 16000)) == 160
    assert len(resample(np.zeros(11025, np.float32), 11025, 24000)) == 24000


@pytest.mark.usefixtures("package")
def test_the_length_is_rounded_up() -> None:
    for length in range(1, 60):
        for from_hz, to_hz in ((44100, 24000), (16000, 24000), (24000, 16000), (22050, 44100)):
            assert len(resample(np.ones(length, np.float32), from_hz, to_hz)) == -(-length * to_hz // from_hz)


def test_both_packages_compute_the_same_sound(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip(TORCHAUDIO)
    time = np.arange(48000) / 48000
    sound = sum(np.sin(2 * np.pi * hz * time + hz) for hz in (90, 440, 3000, 7000, 10000)).astype(np.float32) / 5
    theirs = resample(sound, 48000, 24000)
    without(monkeypatch, TORCHAUDIO)
    np.testing.assert_allclose(resample(sound, 48000, 24000)[500:-500], theirs[500:-500], atol=2e-4)


def test_without_either_package_resampling_is_refused(monkeypatch: pytest.MonkeyPatch, messages: Messages) -> None:
    without(monkeypatch, TORCHAUDIO, SOXR)
    with messages.refused(AudioError):
        resample(np.zeros(100, np.float32), 44100, 24000)
    assert len(resample(np.zeros(100, np.float32), 24000, 24000)) == 100
