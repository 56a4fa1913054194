"""Detectors of speech and the noise that they are tried in."""

import numpy as np
import pytest
from support.corpus import voice
from support.messages import Messages
from support.signals import tone

from wavegen.errors import DataError
from wavegen.evaluation.detectors import fixed_level_detector, webrtc_detector
from wavegen.evaluation.noisy import babble, in_noise, pink_noise
from wavegen.mel import profile

SPEC = profile("bigvgan-24k")
RATE = SPEC.sample_rate_hz


def spoken() -> tuple[np.ndarray, np.ndarray]:
    """A second of silence, a second of a voice, a second of silence; and where the voice is, per frame."""
    sound = 1e-4 * np.random.default_rng(0).standard_normal(3 * RATE)
    sound[RATE : 2 * RATE] += 0.3 * voice(1.0)
    frame = np.arange(SPEC.frames(len(sound))) * SPEC.hop_length / RATE
    return sound.astype(np.float32), (frame >= 1) & (frame < 2)


@pytest.mark.parametrize("emphasis", [True, False])
def test_a_detector_by_level_finds_a_voice_in_silence(emphasis: bool) -> None:
    sound, truth = spoken()
    assert (fixed_level_detector(sound, SPEC, 20.0, emphasis=emphasis) == truth).mean() > 0.98
    assert not fixed_level_detector(sound, SPEC, 90.0, emphasis=emphasis).any()


def test_pre_emphasis_decides_whether_rumble_is_active() -> None:
    sound, truth = spoken()
    sound[: RATE // 2] += tone(20, RATE, RATE // 2, 0.02).astype(np.float32)
    rumbles = [fixed_level_detector(sound, SPEC, 20.0, emphasis=emphasis)[~truth].any() for emphasis in (True, False)]
    assert rumbles == [False, True]


def test_the_detector_of_webrtc_finds_a_voice_and_answers_for_every_frame() -> None:
    pytest.importorskip("webrtcvad")
    sound, truth = spoken()
    found = webrtc_detector(sound, SPEC, 3)
    assert found.shape == truth.shape
    assert (found == truth).mean() > 0.9
    pieces = [np.diff(webrtc_detector(sound, SPEC, 3, hangover=over)).sum() for over in (True, False)]
    assert pieces[0] == 2 <= pieces[1]
    assert webrtc_detector(sound[: SPEC.min_samples], SPEC, 0).shape == (SPEC.frames(SPEC.min_samples),)


def test_a_missing_detector_says_what_to_install(monkeypatch: pytest.MonkeyPatch, messages: Messages) -> None:
    monkeypatch.setitem(__import__("sys").modules, "webrtcvad", None)
    with messages.refused(DataError):
        webrtc_detector(spoken()[0], SPEC, 3)


def test_noise_has_the_ratio_that_was_asked_for_where_there_is_speech() -> None:
    sound, _ = spoken()
    active = np.zeros(len(sound), bool)
    active[RATE : 2 * RATE] = True
    for snr_db in (10.0, 0.0):
        noisy = in_noise(sound, np.random.default_rng(1).standard_normal(len(sound)), snr_db, active)
        noise = noisy.astype(np.float64) - sound
        assert 10 * np.log10(np.mean(sound[active] ** 2.0) / np.mean(noise**2)) == pytest.approx(snr_db, abs=0.01)
    assert (in_noise(np.zeros(100), np.ones(100), 0.0) == 0).all()


def test_pink_noise_has_equal_power_in_every_octave() -> None:
    power = np.abs(np.fft.rfft(pink_noise(1 << 16, np.random.default_rng(0)))) ** 2
    octaves = [power[1 << k : 2 << k].sum() for k in range(8, 15)]
    assert np.ptp(10 * np.log10(octaves)) < 1


def test_babble_is_made_of_all_its_talkers_and_fills_the_time() -> None:
    voices = [np.sin(2 * np.pi * hz * np.arange(1000) / 1000) for hz in (50, 90, 130)]
    sound = babble(voices, 5000, np.random.default_rng(0))
    assert sound.shape == (5000,)
    assert np.sqrt(np.mean(sound**2)) == pytest.approx(1)
    spectrum = np.abs(np.fft.rfft(sound))
    assert all(spectrum[hz * 5 - 3 : hz * 5 + 4].max() > 100 for hz in (50, 90, 130))
    assert np.abs(sound[-500:]).max() > 0.1
