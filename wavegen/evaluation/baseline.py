"""Systems that need no training, for a number to be measured by: a vocoder, and ceilings of resynthesis."""

from collections.abc import Callable, Mapping

import numpy as np
import torch

from wavegen.audio import to_int16
from wavegen.blocks import InverseSTFT, griffin_lim
from wavegen.distributions import mu_law_decode, mu_law_encode
from wavegen.mel import LogMel, MelInverse, MelSpec, check_mel

# Fast Griffin-Lim (Perraudin et al., 2013); 0 is the original, which converges far more slowly.
MOMENTUM = 0.99
# More updates than these change nothing that is heard.
UPDATES = 20


def griffin_lim_baseline(mel: np.ndarray, spec: MelSpec, iterations: int = 32) -> np.ndarray:
    """Waveform of a mel without any training: the magnitude that explains the mel, phases by Griffin-Lim.

    Phases start at zero at each frame's centre, that is at alternating signs of the bins; nothing is random.

    Args:
        mel: ``[n_mels, frames]`` made to ``spec``.
        spec: the definition of ``mel``.
        iterations: of Griffin-Lim; quality still rises slowly beyond the default.

    Returns:
        float32 ``[frames * hop_length]``.

    Raises:
        MelError: ``mel`` cannot be of ``spec``.
    """
    check_mel(mel, spec, "griffin_lim_baseline")
    istft = InverseSTFT(spec.n_fft, spec.hop_length, spec.window(), left_padding=spec.left_padding)
    magnitude = MelInverse(spec, updates=UPDATES)(torch.tensor(mel, dtype=torch.float32)[None])
    centre_sign = 1.0 - 2.0 * (torch.arange(magnitude.shape[1])[:, None] % 2)
    start = torch.complex(magnitude * centre_sign, torch.zeros_like(magnitude))
    spectrum = griffin_lim(istft, magnitude, start, iterations=iterations, momentum=MOMENTUM)
    return istft(spectrum)[0].numpy()


def log_mel_of(samples: np.ndarray, spec: MelSpec) -> np.ndarray:
    """Mel ``[n_mels, frames]`` of float ``samples`` ``[samples]`` at the rate of ``spec``, for copy synthesis.

    Raises:
        MelError: the samples are too few for a frame.
    """
    return LogMel(spec)(torch.from_numpy(samples)[None])[0].numpy()


def _griffin_lim(samples: np.ndarray, spec: MelSpec) -> np.ndarray:
    return griffin_lim_baseline(log_mel_of(samples, spec), spec)


def _mu_law(samples: np.ndarray, spec: MelSpec) -> np.ndarray:
    return mu_law_decode(mu_law_encode(torch.from_numpy(samples))).numpy()


def _pcm16(samples: np.ndarray, spec: MelSpec) -> np.ndarray:
    return to_int16(samples).astype(np.float32) / 32768


BASELINES: Mapping[str, Callable[[np.ndarray, MelSpec], np.ndarray]] = {
    "griffin-lim": _griffin_lim,
    "mu-law": _mu_law,
    "pcm16": _pcm16,
}
"""Name -> function of a recording ``[samples]`` within ±1 at the rate of the definition.

``griffin-lim`` inverts the recording's mel; ``mu-law`` and ``pcm16`` round its samples to 256 mu-law classes and to 16
bits, which is the best that models with such outputs can do.
"""
