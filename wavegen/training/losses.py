"""Distances between generated and real sound, differentiable."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from wavegen.mel import LogMel, reflect_pad
from wavegen.melspec import MelSpec


class LogMelDistance(nn.Module):
    """Mean absolute difference of natural-log mels, in nepers: 0 for equal, falls with quality.

    Args:
        spec: framing and filters; its log, affine map and statistics are left out, so that values compare between
            definitions.
    """

    def __init__(self, spec: MelSpec) -> None:
        super().__init__()
        self.log_mel = LogMel(spec.plain)

    def forward(self, generated: Tensor, real: Tensor) -> Tensor:
        """Scalar, of ``[batch, samples]`` each."""
        return (self.log_mel(generated) - self.log_mel(real)).abs().mean()


class MultiResolutionSTFTLoss(nn.Module):
    """Spectral convergence and log-magnitude distance at several resolutions (arXiv:1910.11480, eqs. 3–6).

    Args:
        resolutions: (n_fft, hop) each; the window is as long as the transform.
    """

    def __init__(self, resolutions: Sequence[tuple[int, int]]) -> None:
        super().__init__()
        self.resolutions = tuple(resolutions)
        for n_fft, _ in self.resolutions:
            self.register_buffer(f"window_{n_fft}", torch.hann_window(n_fft), persistent=False)

    def forward(self, generated: Tensor, real: Tensor) -> Tensor:
        """Scalar, of ``[batch, samples]`` each: the sum over resolutions, each the mean over items."""
        total = generated.new_zeros(())
        for n_fft, hop in self.resolutions:
            a, b = self._magnitude(generated, n_fft, hop), self._magnitude(real, n_fft, hop)
            convergence = torch.linalg.vector_norm(b - a, dim=(1, 2)) / torch.linalg.vector_norm(b, dim=(1, 2)).clamp(
                min=1e-3
            )
            total = total + convergence.mean() + (a.log() - b.log()).abs().mean()
        return total

    def _magnitude(self, samples: Tensor, n_fft: int, hop: int) -> Tensor:
        padded = reflect_pad(samples, (n_fft - hop) // 2)
        window = self.get_buffer(f"window_{n_fft}")
        spectrum = torch.stft(padded, n_fft, hop, window=window, center=False, return_complex=True)
        # √(re² + im² + ε): the derivative of a plain absolute value is infinite at 0, and so is the log of silence.
        return torch.view_as_real(spectrum).square().sum(-1).add(1e-9).sqrt()
