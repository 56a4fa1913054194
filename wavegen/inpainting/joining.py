"""How sound that a vocoder rendered joins the sound around a hole: shifted into its phase, and faded."""

import numpy as np

SHORT_S = 0.005  # linear prediction alone fills shorter holes
ALIGNED_S, SHIFT_S = 0.02, 0.008  # sound that is compared beside a hole, and the longest shift


def best_shift(wanted: np.ndarray, found: np.ndarray) -> int:
    """The shift at which a sound agrees best with another, by normalised cross-correlation; 0 if ``wanted`` is silent.

    Args:
        wanted: float ``[samples]``.
        found: float ``[samples + 2 * reach]``, the sound from ``reach`` samples earlier to ``reach`` later.

    Returns:
        -reach to reach: ``found`` at ``reach + shift`` is where ``wanted`` begins.
    """
    if not wanted.any():
        return 0
    energy = np.convolve(found**2, np.ones(len(wanted)), "valid")
    likeness = np.correlate(found, wanted, "valid") / np.sqrt(energy + 1e-9)
    return int(np.argmax(likeness)) - (len(found) - len(wanted)) // 2


def rendered_share(from_start: np.ndarray, from_end: np.ndarray, fade: float) -> np.ndarray:
    """The weight of the rendered sound in samples of a hole, 0 to 1; linear prediction has the rest.

    Args:
        from_start: distances in samples from the first sample of the hole, ``[samples]``.
        from_end: distances from its last sample, same shape; infinite while its end is not known.
        fade: samples from either end within which the weight rises.
    """
    return np.clip((np.minimum(from_start, from_end) + 0.5) / fade, 0, 1)
