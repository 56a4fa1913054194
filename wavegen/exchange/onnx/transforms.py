"""Fourier transforms and the imposing of a mel in real arithmetic, of shapes that an ONNX runtime may vary.

Spectra are pairs of real and imaginary parts with frames in rows, ``[batch, frames, bins]``: products of matrices with
few rows are then plain ones, and nothing is transposed on the way.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wavegen.blocks import InverseSTFT
from wavegen.blocks.istft import MIN_ENVELOPE, griffin_lim_context
from wavegen.mel import MelProjection
from wavegen.mel.transform import MOMENTUM, SMALLEST_POWER, FilterBlocks

LEAST_SUM = 1e-12  # as in ``FilterBlocks``


class Spectrum(NamedTuple):
    """A complex spectrum ``[batch, frames, bins]``.

    Attributes:
        real: real parts.
        imaginary: imaginary parts.
    """

    real: Tensor
    imaginary: Tensor

    def scaled(self, gain: Tensor) -> "Spectrum":
        """The spectrum with every bin multiplied by a real number."""
        return Spectrum(self.real * gain, self.imaginary * gain)

    def magnitude(self) -> Tensor:
        """``√(re² + im² + SMALLEST_POWER)``, as in ``complex_magnitude``."""
        # As a vector: the exporter's optimiser takes a scalar below 1e-8 for 0 and drops the addition.
        least = torch.full((1,), SMALLEST_POWER)
        return (self.real * self.real + self.imaginary * self.imaginary + least).sqrt()


class Target(NamedTuple):
    """What Griffin-Lim iterations keep of a magnitude.

    Attributes:
        linear: the filters' outputs for it, ``[batch, frames, n_mels]``.
        kept: the bins that no filter reads, ``[batch, frames, bins]``; 0 elsewhere.
    """

    linear: Tensor
    kept: Tensor


class RealTransform(nn.Module):
    """The Fourier transform of real frames as two products with small matrices, and its inverse.

    With N = P·Q, sample n = Q·p + q and bin k = k₁ + P·k₂ (Cooley and Tukey, 1965)::

        X[k₁ + P·k₂] = Σ_q exp(-2πi q (k₁ + P·k₂) / N) · Σ_p x[Q·p + q] exp(-2πi p k₁ / P)

    For N = 1024 that takes an eighth of the products of a whole transform matrix, and 1/15 of its size in a file.
    The inverse is the transposed transform: the same matrices, and bins that stand for two frequencies count twice.

    Args:
        size: N, samples of a frame.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size, self.bins = size, size // 2 + 1
        self.rows = max(n for n in range(1, math.isqrt(size) + 1) if size % n == 0)  # P
        self.columns = size // self.rows  # Q
        self.kept = self.bins // self.rows + bool(self.bins % self.rows)  # values of k₂ up to half the sample rate
        p = torch.arange(self.rows, dtype=torch.float64)
        q = torch.arange(self.columns, dtype=torch.float64)
        first = 2 * math.pi / self.rows * p[:, None] * p  # [p, k₁]
        self.register_buffer("first", torch.cat((first.cos(), -first.sin()), dim=1).float())
        k = p[:, None] + self.rows * torch.arange(self.kept, dtype=torch.float64)  # [k₁, k₂]
        angle = 2 * math.pi / size * q[:, None] * k[:, None]  # [k₁, q, k₂]
        cosine, sine = angle.cos(), angle.sin()
        # (re, im) of an input at q, to (re, im) of the output at k₂.
        second = torch.cat((torch.cat((cosine, -sine), dim=2), torch.cat((sine, cosine), dim=2)), dim=1)
        self.register_buffer("second", second.float())
        weights = torch.full((self.bins,), 2 / size)
        weights[0] /= 2
        if size % 2 == 0:
            weights[-1] /= 2
        self.register_buffer("weights", weights)
        self.first: Tensor
        self.second: Tensor
        self.weights: Tensor

    def forward(self, frames: Tensor) -> Spectrum:
        """Spectra ``[batch, frames, bins]`` of frames ``[batch, frames, size]``."""
        batch, count, _ = frames.shape
        rows = frames.reshape(batch, count, self.rows, self.columns).mT  # [.., q, p]
        parts = (rows @ self.first).reshape(batch, count, self.columns, 2, self.rows)
        parts = parts.permute(0, 4, 1, 3, 2).reshape(batch, self.rows, count, 2 * self.columns)
        bins = (parts @ self.second).reshape(batch, self.rows, count, 2, self.kept)
        bins = bins.permute(3, 0, 2, 4, 1).reshape(2, batch, count, self.kept * self.rows)
        return Spectrum(bins[0, ..., : self.bins], bins[1, ..., : self.bins])

    def inverse(self, spectrum: Spectrum) -> Tensor:
        """Frames ``[batch, frames, size]`` of spectra ``[batch, frames, bins]``."""
        batch, count, _ = spectrum.real.shape
        both = torch.stack(spectrum.scaled(self.weights))
        bins = F.pad(both, (0, self.kept * self.rows - self.bins)).reshape(2, batch, count, self.kept, self.rows)
        parts = bins.permute(1, 4, 2, 0, 3).reshape(batch, self.rows, count, 2 * self.kept) @ self.second.mT
        parts = parts.reshape(batch, self.rows, count, 2, self.columns).permute(0, 2, 4, 3, 1)
        rows = parts.reshape(batch, count, self.columns, 2 * self.rows) @ self.first.mT
        return rows.mT.reshape(batch, count, self.size)


class RealSTFT(nn.Module):
    """``InverseSTFT`` and its analysis in real arithmetic.

    Args:
        istft: the transform whose sizes, window and framing it has.

    Attributes:
        context, analysis_context: those of ``InverseSTFT``.
        reach: frames that an iteration reads on both sides.
    """

    def __init__(self, istft: InverseSTFT) -> None:
        super().__init__()
        self.n_fft, self.hop_length, self.left_padding = istft.n_fft, istft.hop_length, istft.left_padding
        self.context, self.analysis_context = istft.context, istft.analysis_context
        self.reach = griffin_lim_context(istft).right
        self.parts = -(-self.n_fft // self.hop_length)  # hops that a frame reaches over
        self.transform = RealTransform(self.n_fft)
        self.register_buffer("window", istft.window.float())
        self.register_buffer("squares", istft.window.float().square())
        self.window: Tensor
        self.squares: Tensor

    def analyse(self, samples: Tensor) -> Spectrum:
        """Spectra ``[batch, frames, bins]`` of samples ``[batch, frames * hop_length]``, with zeros around them."""
        hop, parts = self.hop_length, self.parts
        frames = samples.shape[1] // hop
        right = (parts - 1) * hop - self.left_padding
        hops = F.pad(samples, (self.left_padding, right)).reshape(len(samples), -1, hop)
        framed = torch.cat([hops[:, part : part + frames] for part in range(parts)], dim=-1)
        return self.transform(framed[..., : self.n_fft] * self.window)

    def invert(self, spectrum: Spectrum, real: Tensor | None = None) -> Tensor:
        """Samples ``[batch, frames * hop_length]`` of spectra ``[batch, frames, bins]``.

        Frames for which ``real``, ``[frames]``, is 0 add nothing, and their samples are zeros.
        """
        frames = self.transform.inverse(spectrum) * self.window
        if real is None:
            envelope = self._overlap_add(torch.zeros_like(frames[:1]) + self.squares)
            return self._overlap_add(frames) / envelope.clamp(min=MIN_ENVELOPE)
        real = real[None, :, None]
        signal, envelope = self._overlap_add(frames * real), self._overlap_add(real * self.squares)
        samples = signal / envelope.clamp(min=MIN_ENVELOPE)
        return (samples.reshape(len(samples), -1, self.hop_length) * real).flatten(1)

    def _overlap_add(self, frames: Tensor) -> Tensor:
        """Sums of overlapping frames ``[batch, frames, n_fft]``, of which the padding is cut off."""
        batch, count, _ = frames.shape
        hop, parts = self.hop_length, self.parts
        rows = F.pad(frames, (0, parts * hop - self.n_fft)).reshape(batch, count, parts, hop)
        total = F.pad(rows[:, :, 0], (0, 0, 0, parts - 1))
        for part in range(1, parts):
            total = total + F.pad(rows[:, :, part], (0, 0, part, parts - 1 - part))
        return total.reshape(batch, -1)[:, self.left_padding : self.left_padding + count * hop]


class RealProjection(nn.Module):
    """``MelProjection`` and ``MelInverse`` in real arithmetic.

    Args:
        projection: the projection that it equals.
    """

    def __init__(self, projection: MelProjection) -> None:
        super().__init__()
        self.inverse, self.updates = projection.inverse, projection.updates
        self.stft = RealSTFT(projection.istft)
        filters = self.inverse.filter_blocks(torch.float32, projection.blur_hz)
        self.blocks: FilterBlocks = filters
        self.unread_from = None
        read = torch.ones(filters.filters.shape[1])
        read[filters.unread] = 0.0
        self.register_buffer("read_bins", read)
        self.read_bins: Tensor

    def linear(self, mel: Tensor) -> Tensor:
        """The product of the filters with a magnitude that has this mel, ``[batch, frames, n_mels]``."""
        return self.inverse.linear(mel).mT

    def flat(self, linear: Tensor, updates: int) -> Tensor:
        """The magnitude ``[batch, frames, bins]`` that ``MelInverse`` finds for a mel, from its ``linear``."""
        start = torch.zeros_like(linear[..., :1]) + self.read_bins
        return self._updated(start, linear, updates)

    def impose(self, spectrum: Spectrum, linear: Tensor) -> tuple[Tensor, Spectrum]:
        """As in ``MelProjection``."""
        own = spectrum.magnitude()
        magnitude = self._updated(own, linear, self.updates)
        return magnitude, spectrum.scaled(magnitude / own)

    def iterate(self, magnitude: Tensor, spectrum: Spectrum, iterations: int) -> Spectrum:
        """As in ``MelProjection``."""
        target = self.target(magnitude)
        previous: Spectrum | None = None
        for _ in range(iterations):
            consistent = self.stft.analyse(self.stft.invert(spectrum))
            spectrum = self.iterated(consistent, previous, target)
            previous = consistent
        return spectrum

    def target(self, magnitude: Tensor) -> Target:
        """What iterations keep of a magnitude ``[batch, frames, bins]``."""
        return Target(self._read(magnitude), magnitude * (1 - self.read_bins))

    def iterated(self, consistent: Spectrum, previous: Spectrum | None, target: Target) -> Spectrum:
        """The spectrum after an iteration, from the one that its inverse has and that of the iteration before."""
        ahead = consistent
        if previous is not None:
            share = MOMENTUM / (1 + MOMENTUM)
            ahead = Spectrum(*(new - share * old for new, old in zip(consistent, previous, strict=True)))
        own = ahead.magnitude()
        return ahead.scaled(self._gain(own, target.linear) * self.read_bins + target.kept / own)

    def _updated(self, magnitude: Tensor, linear: Tensor, updates: int) -> Tensor:
        for _ in range(updates):
            magnitude = magnitude * self._gain(magnitude, linear)
        return magnitude

    def _read(self, magnitude: Tensor) -> Tensor:
        parts = [magnitude[..., bins] @ self.blocks.filters[rows, bins].t() for rows, bins in self.blocks.by_filter]
        return torch.cat(parts, dim=-1)

    def _gain(self, magnitude: Tensor, linear: Tensor) -> Tensor:
        """The factor of one update, ``[batch, frames, bins]``; 1 where the filters read nothing."""
        ratio = linear / self._read(magnitude).clamp(min=LEAST_SUM)
        parts = [ratio[..., rows] @ self.blocks.weights[rows, bins] for bins, rows in self.blocks.by_bin]
        return torch.cat(parts, dim=-1) + (1 - self.read_bins)
