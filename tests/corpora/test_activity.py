"""Speech activity by level: where it begins and ends in sounds whose ends are known."""

import numpy as np
import pytest
from support.signals import tone

from wavegen.audio.runs import runs
from wavegen.corpora.activity import frame_levels_db, speech_activity, with_hangover
from wavegen.corpora.frame_labels import frame_centres
from wavegen.mel import MelSpec, profile

SPEC = profile("bigvgan-24k")
RATE = SPEC.sample_rate_hz
FRAME_S = SPEC.hop_length / RATE


def bursts(*spans_s: tuple[float, float], seconds: float = 4.0, noise: float = 3e-4) -> np.ndarray:
    """Tones of 1 kHz with an amplitude of 0.1, in faint noise."""
    sound = noise * np.random.default_rng(0).standard_normal(round(seconds * RATE))
    for start, stop in spans_s:
        first, count = round(start * RATE), round((stop - start) * RATE)
        sound[first : first + count] += tone(1000, RATE, count, 0.1)
    return sound.astype(np.float32)


def spans(sound: np.ndarray, spec: MelSpec = SPEC) -> list[tuple[float, float]]:
    """Seconds at which activity starts and ends, half a hop before and after the centres of its frames."""
    centres = frame_centres(spec, spec.frames(len(sound)) + 1) / spec.sample_rate_hz
    half = spec.hop_length / spec.sample_rate_hz / 2
    return [(centres[first] - half, centres[stop] - half) for first, stop in runs(speech_activity(sound, spec))]


@pytest.mark.parametrize("spec", [SPEC, profile("vocos-24k")])
def test_activity_starts_and_ends_with_the_sound_to_a_frame(spec: MelSpec) -> None:
    found = spans(bursts((1.0, 1.5), (2.0, 3.0)), spec)
    assert np.abs(np.array(found) - [(1.0, 1.5), (2.0, 3.0)]).max() < 1.5 * FRAME_S


def test_short_pauses_are_bridged_and_clicks_dropped() -> None:
    assert len(spans(bursts((1.0, 1.5), (1.65, 2.5)))) == 1
    assert len(spans(bursts((1.0, 1.5), (1.8, 2.5)))) == 2
    assert spans(bursts((1.0, 1.5), (3.0, 3.02))) == spans(bursts((1.0, 1.5)))


def test_pauses_at_the_ends_are_not_bridged() -> None:
    assert with_hangover(np.arange(100) == 50, SPEC).sum() == 0
    active = (np.arange(100) >= 10) & (np.arange(100) < 90)
    assert (with_hangover(active, SPEC) == active).all()
    assert with_hangover(np.ones(3, bool), SPEC).sum() == 0
    assert with_hangover(np.ones(30, bool), SPEC).all()


def test_the_level_of_the_recording_does_not_matter() -> None:
    sound = bursts((1.0, 1.5), (2.0, 3.0))
    for gain in (0.1, 8.0):
        assert (speech_activity(gain * sound, SPEC) == speech_activity(sound, SPEC)).all()


def test_rumble_in_pauses_is_not_speech() -> None:
    sound = bursts((1.0, 1.5), (2.0, 3.0))
    rumble = tone(20, RATE, len(sound), 0.03).astype(np.float32)
    assert len(spans(sound + rumble)) == 2


def test_silence_and_sounds_too_short_for_a_frame_are_inactive() -> None:
    assert not speech_activity(np.zeros(RATE, np.float32), SPEC).any()
    assert not speech_activity(1e-6 * np.ones(RATE, np.float32), SPEC).any()
    assert speech_activity(np.zeros(10, np.float32), SPEC).shape == (0,)


def test_digital_silence_in_pauses_does_not_make_breath_speech() -> None:
    """Where pauses are empty, the threshold follows the loud frames."""
    sound = bursts((1.0, 1.5), (2.0, 3.0), noise=0.0)
    breath = bursts((0.3, 0.6), noise=0.0) * np.float32(10 ** (-42 / 20))
    assert len(spans(sound + breath)) == 2


def test_levels_are_those_of_the_sound_after_pre_emphasis() -> None:
    """At half the sample rate, a difference with weight w has a gain of 1 + w."""
    alternating = np.resize([0.1, -0.1], RATE)
    weight = np.exp(-2 * np.pi * 120 / RATE)
    inside = frame_levels_db(alternating, SPEC)[2:-2]
    assert np.abs(inside - 20 * np.log10(0.1 * (1 + weight))).max() < 1e-6
