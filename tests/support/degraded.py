"""Speech with faults whose order of quality is known."""

import io
from collections.abc import Callable, Mapping

import numpy as np
import soundfile

from wavegen.evaluation.baseline import BASELINES
from wavegen.mel import MelSpec

MP3_RATE_HZ = 24000
MP3_COMPRESSION = 0.85  # 32 kbit/s at this sample rate
MP3_DELAY = 1105  # of encoder and decoder; libsndfile leaves it in at low bit rates, where it also returns more samples


def with_noise(samples: np.ndarray, snr_db: float) -> np.ndarray:
    """Add white noise at a signal-to-noise ratio; the sum is scaled down where it would clip."""
    noise = np.random.default_rng(0).standard_normal(len(samples))
    noisy = samples + noise * samples.std() / noise.std() * 10 ** (-snr_db / 20)
    return (noisy / max(1.0, np.abs(noisy).max())).astype(np.float32)


def as_mp3(samples: np.ndarray, spec: MelSpec) -> np.ndarray:
    """Encode and decode as MP3 at 32 kbit/s, at 24 kHz."""
    assert spec.sample_rate_hz == MP3_RATE_HZ
    file = io.BytesIO()
    soundfile.write(
        file, samples, MP3_RATE_HZ, format="MP3", subtype="MPEG_LAYER_III", bitrate_mode="CONSTANT",
        compression_level=MP3_COMPRESSION,
    )  # fmt: skip
    assert 30 < 8e-3 * file.tell() * MP3_RATE_HZ / len(samples) < 36  # kbit/s
    file.seek(0)
    decoded, _ = soundfile.read(file, dtype="float32")
    return decoded[MP3_DELAY if len(decoded) > len(samples) else 0 :]


DEGRADED: Mapping[str, Callable[[np.ndarray, MelSpec], np.ndarray]] = {
    "recording": lambda samples, spec: samples,
    "MP3 at 32 kbit/s": as_mp3,
    "Griffin-Lim": BASELINES["griffin-lim"],
    "noise at 20 dB": lambda samples, spec: with_noise(samples, 20),
    "noise at 10 dB": lambda samples, spec: with_noise(samples, 10),
    "noise at 0 dB": lambda samples, spec: with_noise(samples, 0),
}
"""Name -> function of a recording ``[samples]`` and the mel definition with its sample rate."""
