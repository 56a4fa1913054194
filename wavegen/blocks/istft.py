"""Inverse short-time Fourier transform as a streaming output layer, and Griffin-Lim."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wavegen.blocks.conv import Context
from wavegen.blocks.masks import masked, sample_mask
from wavegen.blocks.transforms import complex_magnitude, overlap_add, stft
from wavegen.errors import ConfigError

# The smallest sum of squared windows to divide by; usable framings stay far above it.
MIN_ENVELOPE = 1e-2
# Keeps Griffin-Lim's division finite. It is far below the power of quiet speech: 1e-6 would damp quiet speech in every
# iteration and double the log-mel error after 32 iterations.
MAGNITUDE_EPS = 1e-10


class InverseSTFTState(NamedTuple):
    """Streaming state of an ``InverseSTFT``.

    Attributes:
        signal_tail: windowed signal of past frames that later frames overlap, ``[batch, n_fft - hop_length]``.
        envelope_tail: sum of their squared windows, ``[1, n_fft - hop_length]``.
        to_cut: count of samples before sample 0 that are still to be cut off, a scalar.
    """

    signal_tail: Tensor
    envelope_tail: Tensor
    to_cut: Tensor


class InverseSTFT(nn.Module):
    """Complex spectra to ``hop_length`` samples per frame, by windowed overlap-add.

    Frame ``t`` starts at sample ``t * hop_length - left_padding``. Samples before 0 and from ``frames * hop_length``
    on are cut off::

        frame 0   ╭───────────╮
        frame 1       ╭───────────╮
        frame 2           ╭───────────╮
        samples     |─── frames × hop ───|
                 ↔ left_padding

    The sum is divided by the sum of the squared windows, the envelope (Griffin and Lim, 1984, eq. 6). Frames overlap
    their neighbours on both sides, so the layer looks ahead: streamed output lags by ``left_padding`` samples, and the
    state carries the tails of the signal and of the envelope.

    Args:
        n_fft: length of the transform.
        hop_length: samples per frame.
        window: ``[n_fft]``, analysis and synthesis window.
        left_padding: samples of frame 0 before the signal begins: ``n_fft // 2`` for centred framing,
            ``(n_fft - hop_length) // 2`` for uncentred framing.

    Raises:
        ConfigError: ``left_padding`` is negative or above ``n_fft - hop_length``.
    """

    def __init__(self, n_fft: int, hop_length: int, window: Tensor, *, left_padding: int) -> None:
        super().__init__()
        if not 0 <= left_padding <= n_fft - hop_length:
            raise ConfigError(
                f"left_padding is {left_padding}, but must be from 0 to n_fft - hop_length",
                remedy=f"give 0 to {n_fft - hop_length}",
            )
        self.n_fft = n_fft
        self.hop_length = hop_length
        self.left_padding = left_padding
        self.register_buffer("window", window.clone(), persistent=False)
        self.window: Tensor
        # The context is the frames whose windows are not zero somewhere in the samples of frame t.
        first, last = _support(window)
        self.context = Context(
            left=(last - left_padding) // hop_length,
            right=(left_padding + hop_length - 1 - first) // hop_length,
        )

    @property
    def analysis_context(self) -> Context:
        """Frames of samples that ``analyse`` reads around a frame's own ``hop_length`` samples."""
        first, last = self.samples_analysed(0)
        return Context(left=max(0, -(first // self.hop_length)), right=max(0, last // self.hop_length))

    def samples_analysed(self, frame: int) -> tuple[int, int]:
        """The first and the last sample that ``analyse`` reads for a frame."""
        first, last = _support(self.window)
        start = frame * self.hop_length - self.left_padding
        return start + first, start + last

    @property
    def latency_samples(self) -> int:
        """Samples by which streamed output lags behind its input."""
        return self.left_padding

    def forward(self, spectrum: Tensor, mask: Tensor | None = None) -> Tensor:
        """Synthesise whole signals.

        Args:
            spectrum: complex ``[batch, n_fft // 2 + 1, frames]``.
            mask: ``[batch, 1, frames]``, True where a frame is real; other frames add nothing.

        Returns:
            ``[batch, frames * hop_length]``; zeros after the last real frame.
        """
        frames = spectrum.shape[-1]
        signal, envelope = self._overlap_add(spectrum, mask)
        kept = slice(self.left_padding, self.left_padding + frames * self.hop_length)
        samples = signal[:, kept] / envelope[:, kept].clamp(min=MIN_ENVELOPE)
        return samples if mask is None else masked(samples, sample_mask(mask, self.hop_length)[:, 0])

    def analyse(self, samples: Tensor) -> Tensor:
        """Compute the spectra that ``forward`` inverts, with zeros around the signal.

        Args:
            samples: ``[batch, frames * hop_length]``.

        Returns:
            complex ``[batch, n_fft // 2 + 1, frames]``.
        """
        right_padding = self.n_fft - self.hop_length - self.left_padding
        padded = F.pad(samples, (self.left_padding, right_padding))
        return stft(padded, self.window, self.hop_length)

    def initial_state(self, batch: int) -> InverseSTFTState:
        """State before the first frame: both tails are zeros, and ``left_padding`` samples are to be cut off."""
        tail = self.window.new_zeros(batch, self.n_fft - self.hop_length)
        return InverseSTFTState(signal_tail=tail, envelope_tail=tail[:1], to_cut=torch.tensor(self.left_padding))

    def step(self, spectrum: Tensor, state: InverseSTFTState) -> tuple[Tensor, InverseSTFTState]:
        """Synthesise from the next frames.

        Args:
            spectrum: complex ``[batch, n_fft // 2 + 1, frames]``.
            state: the state that ``initial_state`` or the previous ``step`` returned; it is not changed.

        Returns:
            the samples that no later frame will change, ``[batch, samples]`` (none at first), and the next state.
        """
        ready = spectrum.shape[-1] * self.hop_length
        if ready == 0:
            return spectrum.real.new_zeros(spectrum.shape[0], 0), state
        signal_tail, envelope_tail, to_cut = state
        signal, envelope = self._overlap_add(spectrum, None)
        signal = signal + F.pad(signal_tail, (0, ready))
        envelope = envelope + F.pad(envelope_tail, (0, ready))
        cut = min(int(to_cut), ready)
        samples = signal[:, cut:ready] / envelope[:, cut:ready].clamp(min=MIN_ENVELOPE)
        return samples, InverseSTFTState(signal[:, ready:], envelope[:, ready:], to_cut - cut)

    def flush(self, state: InverseSTFTState) -> Tensor:
        """The samples that were waiting for frames that will not come, ``[batch, samples]``."""
        signal_tail, envelope_tail, to_cut = state
        # As many samples as were cut off at the start are still missing at the end: the total is frames × hop.
        kept = slice(int(to_cut), self.left_padding)
        return signal_tail[:, kept] / envelope_tail[:, kept].clamp(min=MIN_ENVELOPE)

    def _overlap_add(self, spectrum: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Overlapped sums of the windowed frames ``[batch, n]`` and of the squared windows ``[1 or batch, n]``."""
        frames = torch.fft.irfft(spectrum.mT, n=self.n_fft) * self.window
        squares = self.window.square().expand(1, frames.shape[1], -1)
        if mask is not None:
            frames = masked(frames, mask.mT)
            squares = masked(squares, mask.mT)
        return overlap_add(frames, self.hop_length), overlap_add(squares, self.hop_length)


def griffin_lim(
    istft: InverseSTFT,
    magnitude: Tensor,
    spectrum: Tensor,
    *,
    iterations: int,
    momentum: float = 0.0,
    mask: Tensor | None = None,
) -> Tensor:
    """Move the phases of ``spectrum`` towards those of a real signal, keeping ``magnitude``.

    This is the fast variant of Griffin-Lim (Perraudin et al., 2013). It is differentiable, so a network can be trained
    through it. Each iteration widens the context by ``griffin_lim_context``.

    Args:
        istft: the transform and its inverse.
        magnitude: ``[batch, n_fft // 2 + 1, frames]``.
        spectrum: complex, same shape; its phases are the starting point.
        iterations: number of projections.
        momentum: 0 is the original algorithm; 0.99 converges much faster.
        mask: ``[batch, 1, frames]``, True where a frame is real.

    Returns:
        complex spectrum ``[batch, n_fft // 2 + 1, frames]``.
    """
    previous: Tensor | None = None
    for _ in range(iterations):
        consistent = istft.analyse(istft(spectrum, mask))
        ahead = consistent
        if previous is not None and momentum:
            ahead = consistent - momentum / (1 + momentum) * previous
        previous = consistent
        spectrum = ahead * (magnitude / complex_magnitude(ahead, MAGNITUDE_EPS))
    return spectrum


def griffin_lim_context(istft: InverseSTFT) -> Context:
    """Frames that one iteration reads around each frame: those whose windows overlap its window."""
    first, last = _support(istft.window)
    reach = (last - first) // istft.hop_length
    return Context(reach, reach)


def _support(window: Tensor) -> tuple[int, int]:
    """Indices of the first and the last value of a window that is not zero."""
    indices = window.nonzero()
    return int(indices[0]), int(indices[-1])
