"""Linear prediction that follows from a magnitude spectrum: predictors, and the filters that they define.

A frame's power spectrum is the Fourier transform of its autocorrelation ``r`` (Wiener-Khinchin). The predictor

    x̂[t] = Σ a[k] x[t-k],  k = 1…p

with the least mean squared error solves the normal equations ``Σ a[k] r[|i-k|] = r[i]``, by Levinson's recursion in p²
steps (Makhoul, 1975, "Linear prediction: a tutorial review"). The prediction error ``x - x̂`` is white, and the
filter ``1 / (1 - Σ a[k] z^-k)`` has the spectrum's envelope with the minimum phase of a vocal tract.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wavegen.blocks import Context
from wavegen.errors import ConfigError
from wavegen.source import compiled
from wavegen.source.compiled import compiled_code_runs

DIGITS = 36  # binary digits of an autocorrelation, see ``rounded``
SPLITTER = 1 + 2.0 ** (53 - DIGITS)  # Veltkamp's: the difference of two products has no digits below those
LEAST_FLOOR, LEAST_ERROR = 1e-9, 1e-12  # powers, so that silence has a predictor
SMALLEST_SCALE = 3e-5  # of full scale, about one step of 16 bits


class Predictor(NamedTuple):
    """Predictors of consecutive sub-frames.

    Attributes:
        coefficients: ``a``, ``[batch, order, sub-frames]``.
        scale: standard deviation of the prediction error, ``[batch, 1, sub-frames]``.
    """

    coefficients: Tensor
    scale: Tensor


class LinearPrediction(nn.Module):
    """Predictors from the magnitude spectra of overlapping frames.

    ::

        frames        |        f-1        |         f         |        f+1        |
        centres                 ·                   ·                   ·
        sub-frames    |    |    |    |    |    |    |    |    |    |    |    |    |

    The autocorrelations of two frames are interpolated linearly between the frames' centres. Unlike interpolated
    coefficients they stay positive definite, so that every filter is stable. Before the first centre and after the last
    the nearest frame holds.

    Args:
        window: the window of the frames ``[n_fft]``.
        hop_length: samples from one frame to the next.
        sample_rate_hz: sample rate.
        centre: samples from the start of a frame's own ``hop_length`` samples to the centre of its window.
        order: number of coefficients.
        sub_frames: predictors per frame; a divisor of ``hop_length``.
        lag_width_hz: standard deviation of the Gaussian that smooths the spectrum, which keeps sharp peaks stable.
        noise_floor: power of white noise that is added, relative to the frame's own.

    Raises:
        ConfigError: ``sub_frames`` does not divide ``hop_length``.
    """

    def __init__(
        self,
        window: Tensor,
        hop_length: int,
        sample_rate_hz: int,
        *,
        centre: float,
        order: int = 32,
        sub_frames: int = 4,
        lag_width_hz: float = 30.0,
        noise_floor: float = 1e-5,
    ) -> None:
        super().__init__()
        if hop_length % sub_frames:
            raise ConfigError(f"sub_frames is {sub_frames}, but must divide the hop length {hop_length}")
        self.order = order
        self.sub_frames = sub_frames
        self.sub_frame_length = hop_length // sub_frames
        self.window_energy = float(window.double().square().sum())
        self.noise_floor = noise_floor
        self.positions = sub_frame_positions(hop_length, sub_frames, centre)
        lags = torch.arange(order + 1, dtype=torch.float64)
        lag_window = torch.exp(-0.5 * (2 * math.pi * lag_width_hz / sample_rate_hz * lags).square())
        self.register_buffer("lag_window", lag_window[:, None].float(), persistent=False)
        self.lag_window: Tensor
        # The inverse Fourier transform of a power spectrum at a few lags only. Each bin but the first and the last one
        # stands for two.
        bins = torch.arange(len(window) // 2 + 1, dtype=torch.float64)
        cosines = torch.cos(2 * math.pi / len(window) * lags[:, None] * bins) * (2 / len(window))
        cosines[:, [0, -1]] /= 2
        self.register_buffer("cosines", cosines.float(), persistent=False)
        self.cosines: Tensor

    @property
    def context(self) -> Context:
        """Frames read by the interpolation around a frame's own."""
        return Context(int(min(self.positions) < 0), int(max(self.positions) > 0))

    def forward(self, magnitude: Tensor) -> Predictor:
        """Compute the predictors of every sub-frame.

        Args:
            magnitude: magnitude spectra of the windowed frames, ``[batch, n_fft / 2 + 1, frames]``.

        Returns:
            ``frames * sub_frames`` predictors, in the dtype of ``magnitude``; computed in float64.
        """
        # Whole or in chunks, always in the same layout: a product of another one is rounded differently.
        power = magnitude.mT.to(torch.float64, memory_format=torch.contiguous_format).square()
        # One product for each item: in one for all, the rounding of an item depends on its place.
        autocorrelation = torch.bmm(power, self.cosines.double().t().expand(len(power), -1, -1)).mT
        if magnitude.dtype == torch.float32:
            autocorrelation = rounded(autocorrelation)
        autocorrelation = interpolate_frames(autocorrelation, self.positions) * self.lag_window
        floor = torch.zeros_like(autocorrelation)
        # As a vector: the exporter to ONNX takes a scalar below 1e-8 for 0 and drops the addition.
        floor[:, 0] = autocorrelation[:, 0] * self.noise_floor + floor.new_full((1,), LEAST_FLOOR)
        coefficients, error = levinson(autocorrelation + floor)
        scale = (error.clamp(min=LEAST_ERROR) / self.window_energy).sqrt().clamp(min=SMALLEST_SCALE)
        return Predictor(coefficients.to(magnitude.dtype), scale.to(magnitude.dtype))


def rounded(x: Tensor) -> Tensor:
    """Round float64 to ``DIGITS`` binary digits.

    A product of matrices is rounded differently when there are more or fewer columns, such as the frames of a chunk.
    The equations of a predictor multiply that difference by up to 1e5. Without its last digits the product is the same
    for any chunks, nearly always, and so are the predictors.
    """
    shifted = x * SPLITTER
    return shifted - (shifted - x)


def levinson(autocorrelation: Tensor) -> tuple[Tensor, Tensor]:
    """Solve the normal equations of linear prediction.

    The recursion extends a predictor of order i to order i + 1 by its own mirror image::

        k      = (r[i+1] - Σ a[j] r[i+1-j]) / e          the reflection coefficient, |k| < 1
        a'[j]  = a[j] - k a[i+1-j],  a'[i+1] = k
        e'     = e (1 - k²)

    Args:
        autocorrelation: ``r[0]…r[p]``, ``[batch, p + 1, steps]``; positive definite.

    Returns:
        coefficients ``[batch, p, steps]`` and the power of the prediction error ``[batch, 1, steps]``.
    """
    if autocorrelation.dtype == torch.float64 and compiled_code_runs(autocorrelation):
        return compiled.levinson(autocorrelation)
    # With the coefficients in rows, their sums are rounded alike for any number of steps.
    r = autocorrelation.mT.contiguous()
    mirrored = r.flip(-1)
    order = r.shape[-1] - 1
    error = r[..., :1]
    coefficients = r[..., :0]
    for i in range(order):
        predicted = (coefficients * mirrored[..., order - i : order]).sum(-1, keepdim=True)
        reflection = (r[..., i + 1 : i + 2] - predicted) / error
        coefficients = torch.cat((coefficients - reflection * coefficients.flip(-1), reflection), dim=-1)
        error = error * (1 - reflection.square())
    return coefficients.mT, error.mT


def sub_frame_positions(hop_length: int, sub_frames: int, centre: float) -> tuple[float, ...]:
    """Distances of the centres of a frame's sub-frames from the centre of its window, in frames."""
    length = hop_length / sub_frames
    return tuple(((i + 0.5) * length - centre) / hop_length for i in range(sub_frames))


def interpolate_frames(x: Tensor, positions: tuple[float, ...]) -> Tensor:
    """Interpolate linearly between frames.

    Args:
        x: ``[batch, channels, frames]``.
        positions: distances from each frame at which to read, in -1…1 frames.

    Returns:
        ``[batch, channels, frames * len(positions)]``; beyond the ends the first and last frame hold.
    """
    if compiled_code_runs(x):
        return compiled.interpolate_frames(x, positions)
    before, after = F.pad(x, (1, 0), mode="replicate")[..., :-1], F.pad(x, (0, 1), mode="replicate")[..., 1:]
    parts = [x + abs(p) * ((before if p < 0 else after) - x) for p in positions]
    return torch.stack(parts, dim=-1).flatten(-2)


# --- filters ------------------------------------------------------------------


def prediction_error(samples: Tensor, predictor: Predictor, history: Tensor) -> tuple[Tensor, Tensor]:
    """Filter samples to their normalised prediction error ``(x - x̂) / scale``, all at once.

    Args:
        samples: ``[batch, samples]``, whole sub-frames.
        predictor: predictors of these sub-frames.
        history: the ``order`` samples before, ``[batch, order]``.

    Returns:
        ``[batch, samples]`` and the next history.
    """
    batch, order, sub_frames = predictor.coefficients.shape
    if sub_frames == 0:
        return samples, history
    extended = torch.cat((history, samples), dim=1)
    past = extended.unfold(1, order + 1, 1)[..., :-1].flip(-1)  # [batch, samples, order]: x[t-1]…x[t-order]
    past = past.reshape(batch, sub_frames, -1, order)
    predicted = torch.einsum("bsto,bos->bst", past, predictor.coefficients)
    error = (samples.reshape(batch, sub_frames, -1) - predicted) / predictor.scale.transpose(1, 2)
    return error.flatten(1), extended[:, extended.shape[1] - order :]


def synthesise_from_error(error: Tensor, predictor: Predictor, history: Tensor) -> tuple[Tensor, Tensor]:
    """Filter a normalised prediction error to samples: the inverse of ``prediction_error``.

    On a CPU, and without gradients, compiled code runs the recursion sample by sample. Otherwise the samples of a
    sub-frame are computed together: within it the filter is constant. With its impulse response h, the output is h
    convolved with the error and with what the samples before the sub-frame contribute to the prediction::

        x[t] = Σ h[t-i] (e[i] + c[i]),    c[i] = Σ a[i+1+j] x[-1-j]    for i+1+j ≤ order

    All responses are computed at once; only the contributions c run one sub-frame after another. Gradients take the
    samples before each sub-frame as given.

    Arguments and results as in ``prediction_error``, with error and samples exchanged.
    """
    coefficients = predictor.coefficients.transpose(1, 2)  # [batch, sub-frames, order]
    batch, sub_frames, order = coefficients.shape
    if sub_frames == 0:
        return error, history
    if compiled_code_runs(error):
        return _synthesise_compiled(error, predictor, history)
    excitation = error.reshape(batch, sub_frames, -1) * predictor.scale.transpose(1, 2)
    length = excitation.shape[-1]

    # The impulse response, as a lower triangular matrix of its shifts, [batch, sub-frames, length, length].
    responses = [torch.zeros_like(coefficients[..., 0])] * (order - 1) + [torch.ones_like(coefficients[..., 0])]
    mirrored = coefficients.flip(-1)
    for _ in range(length - 1):
        responses.append((torch.stack(responses[-order:], dim=-1) * mirrored).sum(-1))
    impulse = torch.stack(responses[order - 1 :], dim=-1)
    delays = torch.arange(length, device=error.device)
    shifts = F.pad(impulse, (length, 0))[..., length + delays[:, None] - delays]

    # ``ringing`` maps the past samples, newest first, to the samples of a sub-frame.
    lags = torch.arange(min(order, length), device=error.device)[:, None] + torch.arange(order, device=error.device)
    contributions = F.pad(coefficients, (0, order))[..., lags]
    ringing = shifts[..., : min(order, length)] @ contributions
    driven = (shifts @ excitation[..., None])[..., 0]

    past = history.flip(1)
    blocks = []
    for i in range(sub_frames):
        block = driven[:, i] + (ringing[:, i] @ past.detach()[..., None])[..., 0]
        blocks.append(block)
        past = torch.cat((block.flip(1), past), dim=1)[:, :order]
    return torch.cat(blocks, dim=1), past.flip(1)


def _synthesise_compiled(error: Tensor, predictor: Predictor, history: Tensor) -> tuple[Tensor, Tensor]:
    _, order, sub_frames = predictor.coefficients.shape
    scale = predictor.scale[:, 0].repeat_interleave(error.shape[1] // sub_frames, dim=1)
    samples = torch.cat((history, error * scale), dim=1)
    coefficients = predictor.coefficients.transpose(1, 2).flip(-1).contiguous()
    compiled.all_pole(samples, coefficients, order)
    return samples[:, order:], samples[:, samples.shape[1] - order :]
