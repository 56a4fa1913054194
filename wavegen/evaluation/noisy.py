"""Speech in noise: white, pink, and babble made of other speakers, at a signal-to-noise ratio."""

from collections.abc import Sequence

import numpy as np

TALKERS = 6


def pink_noise(count: int, random: np.random.Generator) -> np.ndarray:
    """Gaussian noise ``[count]`` whose power falls by 3 dB per octave, with an RMS of 1."""
    spectrum = np.fft.rfft(random.standard_normal(count))
    noise = np.fft.irfft(spectrum / np.sqrt(np.maximum(np.arange(len(spectrum)), 1)), count)
    return noise / np.sqrt(np.mean(noise**2))


def babble(voices: Sequence[np.ndarray], count: int, random: np.random.Generator, talkers: int = TALKERS) -> np.ndarray:
    """Several people who talk at once ``[count]``, each as loud as the others, with an RMS of 1.

    Args:
        voices: recordings of speech, as ``[samples]``; a talker says several of them, one after another.
        count: the number of samples.
        random: chooses the recordings, and where they begin.
        talkers: the number of people.
    """
    total = np.zeros(count)
    for _ in range(talkers):
        parts: list[np.ndarray] = []
        offset = 0
        while sum(map(len, parts)) < count + offset:
            parts.append(voices[int(random.integers(len(voices)))])
            offset = offset or int(random.integers(len(parts[0])))
        talker = np.concatenate(parts)[offset : offset + count].astype(np.float64)
        total += talker / max(np.sqrt(np.mean(talker**2)), 1e-9)
    return total / np.sqrt(np.mean(total**2))


def in_noise(speech: np.ndarray, noise: np.ndarray, snr_db: float, active: np.ndarray | None = None) -> np.ndarray:
    """Add noise to speech at a signal-to-noise ratio, float32 ``[samples]``.

    Args:
        speech: ``[samples]``.
        noise: ``[samples]``.
        snr_db: the level of the speech over that of the noise.
        active: ``[samples]``, True where there is speech; the level of the speech is taken there. None for everywhere.
    """
    spoken = speech if active is None else speech[active]
    level = np.sqrt(np.mean(spoken.astype(np.float64) ** 2)) if len(spoken) else 0.0
    scaled = noise * (level / np.sqrt(np.mean(noise**2)) * 10 ** (-snr_db / 20))
    return (speech + scaled).astype(np.float32)
