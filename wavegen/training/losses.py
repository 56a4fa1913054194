"""Losses: distances between generated and recorded sound, and those of adversarial training."""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wavegen.blocks import complex_magnitude, reflect_pad, stft
from wavegen.mel import LogMel, MelSpec


class LogMelDistance(nn.Module):
    """Mean absolute difference of natural-log mels, in nepers; 0 for equal sounds.

    Args:
        spec: framing and filters; its log, affine map and statistics are not used, so that values are comparable
            between mel definitions.
    """

    def __init__(self, spec: MelSpec) -> None:
        super().__init__()
        self.log_mel = LogMel(spec.plain)

    def forward(self, generated: Tensor, real: Tensor) -> Tensor:
        """The distance, a scalar, between two ``[batch, samples]``."""
        return (self.log_mel(generated) - self.log_mel(real)).abs().mean()


class MultiScaleMelDistance(nn.Module):
    """Mean of log-mel distances at several resolutions (arXiv:2306.06546, section 3.5, without its weights).

    Args:
        sample_rate_hz: sample rate of the sounds.
        scales: (n_fft, bins) of each mel; its bins cover the whole band, its hop is a quarter of its window.
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
        """The distance in nepers, a scalar, between two ``[batch, samples]``."""
        return torch.stack([distance(generated, real) for distance in self.distances]).mean()


class MultiResolutionSTFTLoss(nn.Module):
    """Spectral convergence and log-magnitude distance at several resolutions (arXiv:1910.11480, eqs. 3–6).

    Args:
        resolutions: (n_fft, hop) of each STFT; its window is as long as the transform.
    """

    def __init__(self, resolutions: Sequence[tuple[int, int]]) -> None:
        super().__init__()
        self.resolutions = tuple(resolutions)
        for n_fft, _ in self.resolutions:
            self.register_buffer(f"window_{n_fft}", torch.hann_window(n_fft), persistent=False)

    def forward(self, generated: Tensor, real: Tensor) -> Tensor:
        """The loss, a scalar, of two ``[batch, samples]``: the mean over items, summed over resolutions."""
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
        # √(re² + im² + ε): without ε, the derivative at 0 and the log of silence are infinite.
        return complex_magnitude(stft(padded, window, hop), 1e-9)


# Divisor of the feature maps of silence. Those of speech average a few hundredths when training starts.
SMALLEST_FEATURE = 1e-2
AdversarialLoss = Literal["hinge", "least-squares"]


def discriminator_loss(kind: AdversarialLoss, real: Sequence[Tensor], fake: Sequence[Tensor]) -> Tensor:
    """Discriminator loss: smallest for high logits of recordings and low logits of generated sound.

    With ``r`` and ``f`` the logits of recordings and generated sound::

        hinge           max(0, 1 - r) + max(0, 1 + f)       (arXiv:2210.13438, section 3.4)
        least-squares   (r - 1)² + f²                       (arXiv:2010.05646, eq. 1)

    Args:
        kind: which of the two.
        real: logits of recordings, a tensor of any shape for each discriminator.
        fake: logits of generated sound.

    Returns:
        the mean over patches, then over discriminators; a scalar.
    """
    if kind == "hinge":
        terms = [F.relu(1 - r).mean() + F.relu(1 + f).mean() for r, f in zip(real, fake, strict=True)]
    else:
        terms = [(r - 1).square().mean() + f.square().mean() for r, f in zip(real, fake, strict=True)]
    return torch.stack(terms).mean()


def generator_loss(kind: AdversarialLoss, fake: Sequence[Tensor]) -> Tensor:
    """Generator loss: the term for recordings of the discriminator loss, applied to the logits of generated sound."""
    return torch.stack([(F.relu(1 - f) if kind == "hinge" else (f - 1).square()).mean() for f in fake]).mean()


def feature_matching_loss(real: Sequence[Sequence[Tensor]], fake: Sequence[Sequence[Tensor]]) -> Tensor:
    """Mean absolute difference of feature maps, relative to the recording's (arXiv:2210.13438, eq. 2).

    Dividing by the recording's mean gives all layers and discriminators the same weight, whatever their size. It is
    done item by item, so that processes that share a batch get the same value as one process.

    Args:
        real: feature maps ``[batch, …]`` of recordings, for each discriminator and layer.
        fake: feature maps of generated sound.

    Returns:
        the mean over items, layers and discriminators; a scalar.
    """
    return torch.stack(
        [
            ((r - f).abs().flatten(1).mean(1) / r.abs().flatten(1).mean(1).clamp(min=SMALLEST_FEATURE)).mean()
            for layers in zip(real, fake, strict=True)
            for r, f in zip(*layers, strict=True)
        ]
    ).mean()
