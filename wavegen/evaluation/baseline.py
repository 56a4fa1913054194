"""The untrained vocoder that every trained one is shown beside."""

import numpy as np
import torch

from wavegen.blocks import InverseSTFT, griffin_lim
from wavegen.mel import MelInverse, MelSpec, check_mel

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
