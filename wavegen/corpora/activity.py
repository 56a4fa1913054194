"""Speech activity of a clean recording by its level, with hangover: labels that need no annotation."""

import numpy as np
from scipy.ndimage import binary_closing, binary_opening

from wavegen.corpora.frame_labels import frame_centres
from wavegen.mel import MelSpec

PRE_EMPHASIS_HZ = 120.0  # above it, levels rise by 6 dB an octave: fricatives count like vowels, and rumble hardly
WINDOW_S = 0.02
LOUD, QUIET = 95.0, 5.0  # percentiles of the level that stand for speech and for what is between
ABOVE_QUIET_DB = 12.0
BELOW_LOUD_DB = (38.0, 24.0)
HANGOVER_S = 0.2
SHORTEST_S = 0.06
SILENCE_DB = -80.0  # quieter frames count as silence, whatever the rest of the recording is


def frame_levels_db(samples: np.ndarray, spec: MelSpec, *, emphasis: bool = True) -> np.ndarray:
    """Level of the sound around the centre of each frame's window, in dB of full scale.

    Args:
        samples: float ``[samples]`` at the definition's sample rate.
        spec: the mel definition.
        emphasis: whether to weigh frequencies by pre-emphasis.

    Returns:
        float64 ``[frames]``.
    """
    sound = samples.astype(np.float64)
    if emphasis:
        weight = np.exp(-2 * np.pi * PRE_EMPHASIS_HZ / spec.sample_rate_hz)
        sound = sound - weight * np.concatenate((sound[:1], sound[:-1]))
    energy = np.cumsum(np.concatenate(([0.0], sound**2)))
    half = WINDOW_S * spec.sample_rate_hz / 2
    centres = frame_centres(spec, spec.frames(len(samples)))
    first, stop = ((centres + side).round().astype(int).clip(0, len(samples)) for side in (-half, half))
    return 10 * np.log10((energy[stop] - energy[first]) / np.maximum(stop - first, 1) + 1e-12)


def level_threshold_db(levels_db: np.ndarray) -> float:
    """The level from which a frame of a recording is active.

    It lies 10 dB above the quiet frames, but no more than 45 and no less than 30 dB below the loud ones: a recording
    may have no pause, or digital silence in its pauses.
    """
    quiet, loud = np.percentile(levels_db, (QUIET, LOUD))
    furthest, nearest = BELOW_LOUD_DB
    return float(max(np.clip(quiet + ABOVE_QUIET_DB, loud - furthest, loud - nearest), SILENCE_DB))


def with_hangover(active: np.ndarray, spec: MelSpec) -> np.ndarray:
    """Bridge pauses up to 0.2 s, then drop what is shorter than 0.06 s; both keep the ends of what is left in place.

    The closure of a plosive is part of speech, and a click is not. Hangover that only runs on after the end, as in a
    detector that cannot look ahead, would label every end late.

    Args:
        active: ``[frames]``, True where the level is high.
        spec: the mel definition.
    """
    frame_s = spec.hop_length / spec.sample_rate_hz
    bridged, shortest = round(HANGOVER_S / frame_s), max(1, round(SHORTEST_S / frame_s))
    padded = np.pad(active, bridged + 1)  # otherwise, the ends of the recording would count as active or not at random
    padded = binary_closing(padded, np.ones(bridged + 1))
    return binary_opening(padded, np.ones(shortest))[bridged + 1 : -bridged - 1]


def speech_activity(samples: np.ndarray, spec: MelSpec) -> np.ndarray:
    """Whether there is speech in each frame of a clean recording of speech.

    The rule hears the level alone: a door that slams is speech to it.

    Args:
        samples: float ``[samples]`` at the definition's sample rate.
        spec: the mel definition.

    Returns:
        bool ``[frames]``.
    """
    levels_db = frame_levels_db(samples, spec)
    if not len(levels_db):
        return np.zeros(0, dtype=bool)
    return with_hangover(levels_db > level_threshold_db(levels_db), spec)
