"""Distances between generated and real sound, and what discriminators make of them; all differentiable."""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wavegen.mel import LogMel, MelSpec, reflect_pad


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


class MultiScaleMelDistance(nn.Module):
    """Mean of log-mel distances at several resolutions (arXiv:2306.06546, section 3.5, without its weights).

    Args:
        sample_rate_hz: of the samples.
        scales: (n_fft, bins) each; the bins cover the whole band, the hop is a quarter of the window.
    """

    def __init__(self, sample_rate_hz: int, scales: Sequence[tuple[int, int]]) -> None:
        super().__init__()
        self.distances = nn.ModuleList(
            LogMelDistance(
                MelSpec(
                    sample_rate_hz=sample_rate_hz, n_fft=n_fft, win_length=n_fft, hop_length=n_fft // 4, n_mels=bins,
                    f_min_hz=0, f_max_hz=sample_rate_hz / 2, scale="slaney", norm="slaney", log="ln", floor=1e-5,
                    center=False, magnitude_eps=1e-9,
                )
            )
            for n_fft, bins in scales
        )  # fmt: skip

    def forward(self, generated: Tensor, real: Tensor) -> Tensor:
        """Scalar in nepers, of ``[batch, samples]`` each."""
        return torch.stack([distance(generated, real) for distance in self.distances]).mean()


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


# Silence has no features to be a share of; those of speech average some hundredths when training starts.
SMALLEST_FEATURE = 1e-2
AdversarialLoss = Literal["hinge", "least-squares"]


def discriminator_loss(kind: AdversarialLoss, real: Sequence[Tensor], fake: Sequence[Tensor]) -> Tensor:
    """What a discriminator minimises: high logits for recordings and low ones for what a vocoder made.

    ``"hinge"`` wants them beyond 1 and -1 (arXiv:2210.13438, section 3.4), ``"least-squares"`` at 1 and 0
    (arXiv:2010.05646, eq. 1).

    Args:
        kind: which of the two.
        real: logits for recordings, a tensor of any shape for each discriminator.
        fake: logits for generated sound.

    Returns:
        scalar: the mean over patches, then over discriminators.
    """
    if kind == "hinge":
        terms = [F.relu(1 - r).mean() + F.relu(1 + f).mean() for r, f in zip(real, fake, strict=True)]
    else:
        terms = [(r - 1).square().mean() + f.square().mean() for r, f in zip(real, fake, strict=True)]
    return torch.stack(terms).mean()


def deception_loss(kind: AdversarialLoss, fake: Sequence[Tensor]) -> Tensor:
    """What a vocoder minimises to be taken for a recording: the first term above, of its own logits."""
    return torch.stack([(F.relu(1 - f) if kind == "hinge" else (f - 1).square()).mean() for f in fake]).mean()


def feature_matching_loss(real: Sequence[Sequence[Tensor]], fake: Sequence[Sequence[Tensor]]) -> Tensor:
    """Mean absolute difference of feature maps as a share of the recording's (arXiv:2210.13438, eq. 2).

    The share makes layers and discriminators of any size and state count alike. It is taken item by item, so that
    processes which share a batch get what one process does.

    Args:
        real: feature maps ``[batch, …]`` of recordings, for each discriminator and layer.
        fake: those of generated sound.

    Returns:
        scalar: the mean over items, layers and discriminators.
    """
    return torch.stack(
        [
            ((r - f).abs().flatten(1).mean(1) / r.abs().flatten(1).mean(1).clamp(min=SMALLEST_FEATURE)).mean()
            for layers in zip(real, fake, strict=True)
            for r, f in zip(*layers, strict=True)
        ]
    ).mean()
