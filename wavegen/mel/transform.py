"""Samples to mel frames, and mel frames back to the magnitude that explains them."""

import torch
from torch import Tensor, nn

from wavegen.errors import MelError
from wavegen.mel.spec import MelSpec


class LogMel(nn.Module):
    """``[batch, samples]`` -> ``[batch, n_mels, frames]`` by ``spec``, with ``spec.frames(samples)`` frames.

    Float64 stays float64; anything narrower is computed and returned in float32, under autocast too.

    Raises:
        MelError: the samples are not a float ``[batch, samples]``, or too few to reflect.
    """

    window: Tensor
    filters: Tensor

    def __init__(self, spec: MelSpec) -> None:
        super().__init__()
        self.spec = spec
        # Named devices, so that they hold numbers even where a model is built under torch.device("meta").
        window, filters = self._constants(torch.float32)
        self.register_buffer("window", window, persistent=False)
        self.register_buffer("filters", filters, persistent=False)

    def _constants(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        window = self.spec.window(torch.float64)
        if self.spec.stft_normalized:
            window = window / window.square().sum().sqrt()  # the STFT is linear in its window
        return window.to(dtype), torch.tensor(self.spec.filterbank(), dtype=dtype, device="cpu")

    def forward(self, samples: Tensor) -> Tensor:
        """Log-mel ``[batch, n_mels, frames]`` of ``samples`` ``[batch, samples]`` within ±1."""
        spec = self.spec
        if samples.ndim != 2 or not samples.is_floating_point():
            shape = list(samples.shape)
            raise MelError(f"LogMel needs float [batch, samples], not {samples.dtype} {shape}")
        if samples.shape[-1] < spec.shortest_clip:
            raise MelError(
                f"{samples.shape[-1]} samples are too short for a mel frame",
                remedy=f"give at least {spec.shortest_clip} samples",
            )
        dtype = torch.float64 if samples.dtype == torch.float64 else torch.float32
        window, filters = self.window, self.filters
        if not dtype == window.dtype == torch.float32:  # .double() or .half() of the buffers is only rounding
            window, filters = (c.to(samples.device) for c in self._constants(dtype))
        with torch.autocast(samples.device.type, enabled=False):
            padded = reflect_pad(samples.to(dtype), spec.left_padding)
            stft = torch.stft(padded, spec.n_fft, spec.hop_length, window=window, center=False, return_complex=True)
            if spec.magnitude_eps:
                magnitude = (stft.real.square() + stft.imag.square() + spec.magnitude_eps).sqrt()
            else:
                magnitude = stft.abs()  # unlike a square root, its gradient at silence is 0
            return spec.from_linear(filters @ magnitude)


class MelInverse(nn.Module):
    """Mel ``[batch, n_mels, frames]`` to the STFT magnitude ``[batch, n_fft // 2 + 1, frames]`` that explains it.

    Multiplicative updates from a flat start (Lee and Seung, 2001, eq. 5: the Kullback-Leibler ones). The result is
    positive, as smooth as the filters, and of the given mel; the clamped pseudo-inverse of the filterbank is none of
    these. Griffin-Lim from it reaches PESQ 3.6 on speech at bigvgan-24k where the pseudo-inverse reaches 3.1.

    Args:
        spec: the definition of the mels.
        updates: ten are near the limit; twenty are at it.
    """

    def __init__(self, spec: MelSpec, *, updates: int = 10) -> None:
        super().__init__()
        self.spec, self.updates = spec, updates
        filters = torch.tensor(spec.filterbank(), dtype=torch.float32, device="cpu")
        self.register_buffer("filters", filters, persistent=False)
        self.filters: Tensor
        # The mel of a normalised STFT is smaller by the window's energy.
        self.scale = float(spec.window().square().sum().sqrt()) if spec.stft_normalized else 1.0

    def forward(self, mel: Tensor) -> Tensor:
        """Magnitude in the precision of ``mel``, under autocast too."""
        with torch.autocast(mel.device.type, enabled=False):
            filters = self.filters.to(mel.dtype)
            linear = self.spec.to_linear(mel) * self.scale
            # A filter narrower than a bin is empty, and outside f_min … f_max no bin has a filter.
            weights = filters.t() / filters.sum(0)[:, None].clamp(min=1e-12)
            magnitude = filters.new_ones(len(mel), filters.shape[1], mel.shape[-1])
            for _ in range(self.updates):
                magnitude = magnitude * (weights @ (linear / (filters @ magnitude).clamp(min=1e-12)))
        return magnitude


def reflect_pad(x: Tensor, padding: int) -> Tensor:
    """``x`` ``[.., time]`` with ``padding`` mirrored steps on each side, the edge itself not repeated.

    By indexing: the gradient of torch's own reflection differs from run to run on a GPU.

    Raises:
        MelError: ``x`` has not more steps than are to be mirrored.
    """
    if x.shape[-1] <= padding:
        raise MelError(f"{x.shape[-1]} steps cannot be mirrored by {padding}", remedy=f"give at least {padding + 1}")
    before, after = x[..., 1 : padding + 1].flip(-1), x[..., x.shape[-1] - padding - 1 : -1].flip(-1)
    return torch.cat((before, x, after), dim=-1)
