"""Baselines of speech activity: a threshold on the level, and the detector of WebRTC."""

import importlib

import numpy as np

from wavegen.audio.resampling import resample
from wavegen.corpora.activity import QUIET, frame_levels_db, with_hangover
from wavegen.corpora.frame_labels import frame_centres
from wavegen.errors import DataError
from wavegen.mel import MelSpec

WEBRTC_RATE_HZ = 16000
WEBRTC_FRAME = 160  # 10 ms
WEBRTC_MODES = (0, 1, 2, 3)


def fixed_level_detector(
    samples: np.ndarray, spec: MelSpec, above_quiet_db: float, *, emphasis: bool = True
) -> np.ndarray:
    """Frames that are this much louder than the quiet ones of the sound, with hangover: bool ``[frames]``.

    Args:
        samples: float ``[samples]`` at the definition's sample rate.
        spec: the mel definition.
        above_quiet_db: the threshold above the level that 5 % of the frames do not reach.
        emphasis: whether levels are those after pre-emphasis.
    """
    levels_db = frame_levels_db(samples, spec, emphasis=emphasis)
    return with_hangover(levels_db > np.percentile(levels_db, QUIET) + above_quiet_db, spec)


def webrtc_detector(samples: np.ndarray, spec: MelSpec, mode: int, *, hangover: bool = False) -> np.ndarray:
    """The voice-activity detector of WebRTC, which decides on Gaussian mixtures of the energy in six bands.

    Args:
        samples: float ``[samples]`` within ±1, at the definition's sample rate.
        spec: the mel definition.
        mode: 0 finds the most speech, 3 lets the least noise pass.
        hangover: whether to bridge pauses and drop short parts as the level's rule does.

    Returns:
        bool ``[frames]``: its decision for the 10 ms around the centre of each frame's window.

    Raises:
        DataError: its package is not installed.
    """
    try:
        webrtcvad = importlib.import_module("webrtcvad")
    except ImportError as error:
        raise DataError(
            "the detector of WebRTC needs the package webrtcvad-wheels", remedy="pip install webrtcvad-wheels"
        ) from error
    sound = resample(samples.astype(np.float32), spec.sample_rate_hz, WEBRTC_RATE_HZ)
    whole = np.pad(sound, (0, -len(sound) % WEBRTC_FRAME))
    frames = np.clip(whole * 32768, -32768, 32767).astype("<i2").reshape(-1, WEBRTC_FRAME)
    detector = webrtcvad.Vad(mode)
    active = np.array([detector.is_speech(frame.tobytes(), WEBRTC_RATE_HZ) for frame in frames], dtype=bool)
    centres = frame_centres(spec, spec.frames(len(samples))) * (WEBRTC_RATE_HZ / spec.sample_rate_hz)
    found = active[(centres / WEBRTC_FRAME).astype(int).clip(max=len(active) - 1)]
    return with_hangover(found, spec) if hangover else found
