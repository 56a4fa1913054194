"""Pitch from a magnitude spectrum: fundamental frequency and voicing of every frame."""

import math
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from wavegen.blocks import Context, DilatedConv1d, DilatedStack, SeparableResidualBlock

LOWEST_HZ = 50.0
CLASSES_PER_OCTAVE = 48
CLASSES = 5 * CLASSES_PER_OCTAVE
SMALLEST_MAGNITUDE = 1e-3  # smaller ones are silence
# The network sees every spectrum at the same frequencies, whatever its sample rate and transform.
GRID_SPACING_HZ = 24000 / 1024
GRID_POINTS = 192
AnyStack = Any  # a ``DilatedStack``, or what an engine computes in its place


class Pitch(NamedTuple):
    """Pitch of every frame.

    Attributes:
        f0_hz: fundamental frequency, ``[batch, 1, frames]``; a guess where the frame is not voiced.
        voicing: probability that the frame is voiced, ``[batch, 1, frames]``.
    """

    f0_hz: Tensor
    voicing: Tensor


class PitchNetwork(nn.Module):
    """A small causal stack over spectra at frame rate, which classifies F0 in steps of 1/48 octave.

    A frame's own spectrum has its harmonics, so frames to come would add nothing (measured: two of them change the
    median error by less than half a cent).

    Args:
        channels: channels of the stack.
        layers: number of blocks.
        kernel_size: taps of the blocks and of the input layer.
    """

    def __init__(self, channels: int = 96, layers: int = 5, kernel_size: int = 5) -> None:
        super().__init__()
        self.input = DilatedConv1d(GRID_POINTS, channels, kernel_size)
        self.input_norm = nn.LayerNorm(channels)
        self.stack = DilatedStack(
            SeparableResidualBlock(channels, kernel_size=kernel_size, expansion=2, initial_scale=1 / layers)
            for _ in range(layers)
        )
        self.output = DilatedConv1d(channels, CLASSES + 1, 1)

    @classmethod
    def shipped(cls) -> "PitchNetwork":
        """The network with the weights that wavegen ships, which do not take part in training.

        They are half precision on disk. Under ``torch.device("meta")`` there are shapes only.
        """
        network = cls()
        if not next(network.parameters()).is_meta:
            from safetensors.torch import load_file

            with torch.device("cpu"):
                weights = load_file(Path(__file__).with_name("pitch.safetensors"))
            network.load_state_dict({name: weight.float() for name, weight in weights.items()})
        return network.requires_grad_(False)

    @property
    def context(self) -> Context:
        """Frames read around each frame."""
        return self.input.context + self.stack.context

    def forward(
        self, magnitude: Tensor, sample_rate_hz: float, mask: Tensor | None = None, stack: AnyStack | None = None
    ) -> tuple[Tensor, Tensor]:
        """Classify every frame.

        Args:
            magnitude: ``[batch, n_fft / 2 + 1, frames]``.
            sample_rate_hz: sample rate; the last bin lies at half of it.
            mask: ``[batch, 1, frames]``, True where a frame is real; None if all are.
            stack: computes what ``self.stack`` does, which it is by default.

        Returns:
            logits of the classes ``[batch, 240, frames]`` and of voicing ``[batch, 1, frames]``.
        """
        h = self.input(self._on_grid(magnitude, sample_rate_hz), mask)
        h, _ = (stack or self.stack)(self._normalised(h), None, mask)
        return self._logits(h)

    def pitch(
        self, magnitude: Tensor, sample_rate_hz: float, mask: Tensor | None = None, stack: AnyStack | None = None
    ) -> Pitch:
        """F0 and voicing of every frame; arguments as in ``forward``."""
        logits, voicing = self(magnitude, sample_rate_hz, mask, stack)
        return Pitch(decode(logits), voicing.sigmoid())

    def initial_state(self, batch: int) -> tuple[Tensor, Any]:
        """State of a stream before its first frame."""
        return self.input.initial_state(batch), self.stack.initial_state(batch)

    def step(
        self, magnitude: Tensor, sample_rate_hz: float, state: tuple[Tensor, Any], stack: AnyStack | None = None
    ) -> tuple[Pitch, Any]:
        """F0 and voicing of the next frames of a stream, and its next state."""
        h, input_state = self.input.step(self._on_grid(magnitude, sample_rate_hz), state[0])
        (h, _), stack_state = (stack or self.stack).step(self._normalised(h), state[1])
        logits, voicing = self._logits(h)
        return Pitch(decode(logits), voicing.sigmoid()), (input_state, stack_state)

    def _on_grid(self, magnitude: Tensor, sample_rate_hz: float) -> Tensor:
        x = on_grid(magnitude.clamp(min=SMALLEST_MAGNITUDE).log(), sample_rate_hz)
        return x - x.mean(dim=1, keepdim=True)  # the level does not matter

    def _normalised(self, h: Tensor) -> Tensor:
        return self.input_norm(h.transpose(1, 2)).transpose(1, 2)

    def _logits(self, h: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.output(h)
        return logits[:, :CLASSES], logits[:, CLASSES:]


def on_grid(log_magnitude: Tensor, sample_rate_hz: float) -> Tensor:
    """Interpolate spectra ``[batch, bins, frames]`` linearly to the frequencies that the network sees.

    Returns:
        ``[batch, 192, frames]``; above half the sample rate the last bin repeats.
    """
    # While a graph is exported, tensors that are made are not real: nothing may keep them.
    find = _places.__wrapped__ if torch.compiler.is_compiling() else _places
    below, share = find(log_magnitude.shape[1], sample_rate_hz, log_magnitude.dtype, log_magnitude.device)
    return torch.lerp(log_magnitude[:, below], log_magnitude[:, below + 1], share)


@lru_cache(maxsize=16)
def _places(bins: int, sample_rate_hz: float, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """The bin below each frequency that the network sees, and the share of the way to the next one, ``[192, 1]``."""
    spacing = sample_rate_hz / 2 / (bins - 1)
    with torch.inference_mode(False):  # otherwise training could not use them
        place = torch.arange(GRID_POINTS, device=device, dtype=torch.float64) * GRID_SPACING_HZ / spacing
        place = place.clamp(max=bins - 1)
        below = place.floor().long().clamp(max=bins - 2)
        return below, (place - below).to(dtype)[:, None]


def decode(logits: Tensor) -> Tensor:
    """Mean of the classes around the most probable one, in hertz, ``[batch, 1, frames]``."""
    probability = logits.mT.softmax(dim=-1)
    best = probability.argmax(dim=-1, keepdim=True)
    near = (best + torch.arange(-3, 4, device=logits.device)).clamp(0, CLASSES - 1)
    weights = probability.gather(-1, near)
    # Counted from the most probable class, the mean keeps the digits that its whole number would take.
    beyond = (weights * (near - best)).sum(-1, keepdim=True) / weights.sum(-1, keepdim=True)
    octaves = best.to(logits.dtype) / CLASSES_PER_OCTAVE
    return (LOWEST_HZ * octaves.exp2() * (beyond / CLASSES_PER_OCTAVE).exp2()).mT


def soft_labels(f0_hz: Tensor, width: float = 1.5) -> Tensor:
    """Targets of the classes: a Gaussian around the place of F0.

    Args:
        f0_hz: ``[batch, 1, frames]``.
        width: its standard deviation in classes.

    Returns:
        ``[batch, 240, frames]``; each frame sums to 1.
    """
    place = CLASSES_PER_OCTAVE * torch.log2(f0_hz / LOWEST_HZ)
    classes = torch.arange(CLASSES, device=f0_hz.device, dtype=f0_hz.dtype)[:, None]
    return (-0.5 * ((classes - place) / width).square()).softmax(dim=1)


def cents(f0_hz: Tensor, reference_hz: Tensor) -> Tensor:
    """Distance of two frequencies in cents, 1/1200 octave."""
    return 1200 / math.log(2) * (f0_hz / reference_hz).log()
