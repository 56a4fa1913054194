"""Inverse short-time Fourier transform as a streaming output layer."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wavegen.blocks.conv import Context, masked
from wavegen.errors import ConfigError

State = tuple[Tensor, Tensor, Tensor]

# The least sum of squared windows to divide by; sound framings stay far above it.
SMALLEST_ENVELOPE = 1e-2
# Keeps the derivative of a modulus finite at 0. Far below the power of quiet speech: 1e-6 damps that in every
# iteration of Griffin-Lim and doubles the log-mel error after 32.
SMALLEST_POWER = 1e-10


class InverseSTFT(nn.Module):
    """Complex spectra to ``hop_length`` samples per frame, by windowed overlap-add.

    Frame ``t`` covers the samples from ``t * hop_length - left_padding`` on. What falls before sample 0 or beyond
    ``frames * hop_length`` is cut off::

        frame 0   ╭───────────╮
        frame 1       ╭───────────╮
        frame 2           ╭───────────╮
        samples     |─── frames × hop ───|
                 ↔ left_padding

    The sum is divided by the sum of the squared windows (Griffin and Lim, 1984, eq. 6). Frames overlap what comes
    before and after, so the layer looks ahead; streamed, its output lags by ``left_padding`` samples, and two tails
    are carried: the signal's and the window envelope's.

    Args:
        n_fft: length of the transform.
        hop_length: samples per frame.
        window: ``[n_fft]``, analysis and synthesis window.
        left_padding: samples that frame 0 begins before the signal: ``n_fft // 2`` for centred framing,
            ``(n_fft - hop_length) // 2`` for uncentred.
    """

    def __init__(self, n_fft: int, hop_length: int, window: Tensor, *, left_padding: int) -> None:
        super().__init__()
        if not 0 <= left_padding <= n_fft - hop_length:
            raise ConfigError(
                f"left_padding {left_padding} with n_fft {n_fft} and hop_length {hop_length}",
                remedy="it must lie between 0 and n_fft - hop_length",
            )
        self.n_fft, self.hop_length, self.left_padding = n_fft, hop_length, left_padding
        self.register_buffer("window", window.clone(), persistent=False)
        self.window: Tensor
        # Which frames have a non-zero window over the samples of frame t.
        reach = window.nonzero()
        first, last = int(reach[0]), int(reach[-1])
        self.context = Context(
            left=(last - left_padding) // hop_length,
            right=(left_padding + hop_length - 1 - first) // hop_length,
        )

    @property
    def latency_samples(self) -> int:
        """How far streamed output lags behind its input."""
        return self.left_padding

    def forward(self, spectrum: Tensor, mask: Tensor | None = None) -> Tensor:
        """Synthesise whole signals.

        Args:
            spectrum: complex ``[batch, n_fft // 2 + 1, frames]``.
            mask: ``[batch, 1, frames]``, True where a frame is real; others add nothing.

        Returns:
            ``[batch, frames * hop_length]``; zeros after the last real frame.
        """
        frames = spectrum.shape[-1]
        signal, envelope = self._overlap_add(spectrum, mask)
        kept = slice(self.left_padding, self.left_padding + frames * self.hop_length)
        samples = signal[:, kept] / envelope[:, kept].clamp(min=SMALLEST_ENVELOPE)
        return samples if mask is None else masked(samples, self.sample_mask(mask))

    def analyse(self, samples: Tensor) -> Tensor:
        """The spectra that ``forward`` inverts, with zeros around the signal.

        Args:
            samples: ``[batch, frames * hop_length]``.

        Returns:
            complex ``[batch, n_fft // 2 + 1, frames]``.
        """
        right_padding = self.n_fft - self.hop_length - self.left_padding
        padded = F.pad(samples, (self.left_padding, right_padding))
        return torch.stft(padded, self.n_fft, self.hop_length, window=self.window, center=False, return_complex=True)

    def sample_mask(self, mask: Tensor) -> Tensor:
        """The mask of samples ``[batch, frames * hop_length]`` for one of frames ``[batch, 1, frames]``."""
        return mask[:, 0].repeat_interleave(self.hop_length, dim=-1)

    def initial_state(self, batch: int) -> State:
        """Tails of the signal and of the envelope, both zeros, and the count of samples still to cut off."""
        tail = self.window.new_zeros(batch, self.n_fft - self.hop_length)
        return tail, tail[:1], torch.tensor(self.left_padding)

    def step(self, spectrum: Tensor, state: State) -> tuple[Tensor, State]:
        """Synthesise from the next frames.

        Args:
            spectrum: complex ``[batch, n_fft // 2 + 1, frames]``.
            state: what ``initial_state`` or the step before returned; it is not changed.

        Returns:
            the samples that no later frame will change, ``[batch, samples]`` (none at first), and the next state.
        """
        frames = spectrum.shape[-1]
        if frames == 0:
            return spectrum.real.new_zeros(spectrum.shape[0], 0), state
        signal_tail, envelope_tail, cut = state
        signal, envelope = self._overlap_add(spectrum, None)
        signal = signal + F.pad(signal_tail, (0, frames * self.hop_length))
        envelope = envelope + F.pad(envelope_tail, (0, frames * self.hop_length))
        ready = frames * self.hop_length
        skipped = min(int(cut), ready)
        samples = signal[:, skipped:ready] / envelope[:, skipped:ready].clamp(min=SMALLEST_ENVELOPE)
        return samples, (signal[:, ready:], envelope[:, ready:], cut - skipped)

    def flush(self, state: State) -> Tensor:
        """The samples that were waiting for frames that will not come, ``[batch, samples]``."""
        signal, envelope, cut = state
        # All that was cut off at the start is owed at the end: frames × hop samples in total.
        kept = slice(int(cut), self.left_padding)
        return signal[:, kept] / envelope[:, kept].clamp(min=SMALLEST_ENVELOPE)

    def _overlap_add(self, spectrum: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Sums over frames of the windowed signal ``[batch, n]`` and of the squared window ``[1 or batch, n]``."""
        frames = torch.fft.irfft(spectrum, n=self.n_fft, dim=1) * self.window[:, None]
        squares = self.window.square()[:, None].expand(1, -1, frames.shape[-1])
        if mask is not None:
            frames, squares = masked(frames, mask), masked(squares, mask)
        return self._fold(frames), self._fold(squares)

    def _fold(self, frames: Tensor) -> Tensor:
        length = (frames.shape[-1] - 1) * self.hop_length + self.n_fft
        folded = F.fold(frames, (1, length), kernel_size=(1, self.n_fft), stride=(1, self.hop_length))
        return folded[:, 0, 0]


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

    The fast variant of Griffin-Lim (Perraudin et al., 2013); differentiable, so a network can be trained through
    it. Each iteration reads :func:`griffin_lim_context` more frames.

    Args:
        istft: the transform pair.
        magnitude: ``[batch, n_fft // 2 + 1, frames]``.
        spectrum: complex, same shape: where to start.
        iterations: how many projections.
        momentum: 0 for the original algorithm; 0.99 converges much faster.
        mask: ``[batch, 1, frames]``, True where a frame is real.

    Returns:
        complex spectrum ``[batch, n_fft // 2 + 1, frames]``.
    """
    before: Tensor | None = None
    for _ in range(iterations):
        consistent = istft.analyse(istft(spectrum, mask))
        ahead = consistent
        if before is not None and momentum:
            ahead = consistent - momentum / (1 + momentum) * before
        before = consistent
        # √(re² + im² + ε): the derivative of a plain absolute value is infinite at 0.
        modulus = torch.view_as_real(ahead).square().sum(-1).add(SMALLEST_POWER).sqrt()
        spectrum = ahead * (magnitude / modulus)
    return spectrum


def griffin_lim_context(istft: InverseSTFT) -> Context:
    """Frames read by one iteration: those whose windows overlap this frame's."""
    reach = istft.window.nonzero()
    span = int(reach[-1] - reach[0])
    return Context(span // istft.hop_length, span // istft.hop_length)
