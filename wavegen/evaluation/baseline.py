"""Baselines without training: Griffin-Lim, the source-filter vocoder, and the best that quantised outputs can reach."""

from collections.abc import Callable, Mapping
from functools import lru_cache

import numpy as np
import torch

from wavegen.audio import to_int16
from wavegen.blocks import InverseSTFT, griffin_lim
from wavegen.levels import mu_law_decode, mu_law_encode
from wavegen.mel import LogMel, MelInverse, MelSpec, check_mel
from wavegen.synthesis import synthesize
from wavegen.vocoders import Vocoder, build_vocoder
from wavegen.vocoders.source_filter import SourceFilterConfig

# Fast Griffin-Lim (Perraudin et al., 2013); 0 is the original algorithm, which converges far more slowly.
MOMENTUM = 0.99
# More updates of the mel inverse make no audible difference.
UPDATES = 20

Resynthesizer = Callable[[np.ndarray, MelSpec], np.ndarray]
"""A recording ``[samples]`` within ±1 at the sample rate of a mel definition -> another version of it."""


def griffin_lim_baseline(mel: np.ndarray, spec: MelSpec, iterations: int = 32) -> np.ndarray:
    """Waveform of a mel without any training: a magnitude that has this mel, with phases by Griffin-Lim.

    Phases start at zero at each frame's centre, which means alternating signs of the bins; nothing is random.

    Args:
        mel: ``[n_mels, frames]``, made by the definition ``spec``.
        spec: the mel definition.
        iterations: iterations of Griffin-Lim; quality still rises slowly beyond the default.

    Returns:
        float32 ``[frames * hop_length]``.

    Raises:
        MelError: ``mel`` cannot have been made by ``spec``.
    """
    check_mel(mel, spec, "griffin_lim_baseline")
    istft = InverseSTFT(spec.n_fft, spec.hop_length, spec.window(), left_padding=spec.left_padding)
    magnitude = MelInverse(spec, updates=UPDATES)(torch.tensor(mel, dtype=torch.float32)[None])
    centre_sign = 1.0 - 2.0 * (torch.arange(magnitude.shape[1])[:, None] % 2)
    start = torch.complex(magnitude * centre_sign, torch.zeros_like(magnitude))
    spectrum = griffin_lim(istft, magnitude, start, iterations=iterations, momentum=MOMENTUM)
    return istft(spectrum)[0].numpy()


def source_filter_baseline(mel: np.ndarray, spec: MelSpec) -> np.ndarray:
    """Waveform of a mel by the source-filter vocoder with its shipped pitch network and default iterations.

    Args:
        mel: ``[n_mels, frames]``, made by the definition ``spec``.
        spec: the mel definition.

    Returns:
        float32 ``[frames * hop_length]``.

    Raises:
        MelError: ``mel`` cannot have been made by ``spec``.
    """
    check_mel(mel, spec, "source_filter_baseline")
    return synthesize(_source_filter_vocoder(spec), mel)


@lru_cache(maxsize=4)
def _source_filter_vocoder(spec: MelSpec) -> Vocoder:
    return build_vocoder(SourceFilterConfig(), spec).prepared_for_synthesis()


def log_mel_of(samples: np.ndarray, spec: MelSpec) -> np.ndarray:
    """Mel ``[n_mels, frames]`` of float ``samples`` ``[samples]`` at the sample rate of ``spec``.

    Raises:
        MelError: there are too few samples for a frame.
    """
    return LogMel(spec)(torch.from_numpy(samples)[None])[0].numpy()


def _griffin_lim(samples: np.ndarray, spec: MelSpec) -> np.ndarray:
    return griffin_lim_baseline(log_mel_of(samples, spec), spec)


def _source_filter(samples: np.ndarray, spec: MelSpec) -> np.ndarray:
    return source_filter_baseline(log_mel_of(samples, spec), spec)


def _mu_law(samples: np.ndarray, spec: MelSpec) -> np.ndarray:
    return mu_law_decode(mu_law_encode(torch.from_numpy(samples))).numpy()


def _pcm16(samples: np.ndarray, spec: MelSpec) -> np.ndarray:
    return to_int16(samples).astype(np.float32) / 32768


BASELINES: Mapping[str, Resynthesizer] = {
    "griffin-lim": _griffin_lim,
    "source-filter": _source_filter,
    "mu-law": _mu_law,
    "pcm16": _pcm16,
}
"""Baselines by name.

``griffin-lim`` and ``source-filter`` speak the recording's mel. ``mu-law`` and ``pcm16`` round its samples to 256
mu-law classes and to 16 bits, which is the best that models with such outputs can reach.
"""
