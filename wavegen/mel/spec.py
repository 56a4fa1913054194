"""The mel contract: what the numbers of a mel spectrogram mean, and checks that a mel keeps to it.

Systems that all use "80-bin log-mels" disagree about the scale, norm, logarithm, floor or framing, and their files do
not show it. A ``MelSpec`` states all of these. Every mel file and every vocoder carries one, and the two are compared
field by field.
"""

import math
from functools import lru_cache
from typing import Annotated, Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, PositiveFloat, PositiveInt, model_validator
from torch import Tensor

from wavegen.config import Config
from wavegen.errors import MelError

NonNegativeFloat = Annotated[float, Field(ge=0)]
# Far beyond any definition in use. Files state definitions too, and a filter bank has n_mels · n_fft / 2 numbers.
MAX_RATE_HZ = 2**20
MAX_N_FFT = 2**16
MAX_FILTERBANK = 2**24
FftSize = Annotated[int, Field(gt=0, le=MAX_N_FFT)]


class MelSpec(Config):
    """One definition of a log-mel spectrogram ``[.., n_mels, frames]``.

    With ``S`` the STFT (periodic Hann window of ``win_length``, zero-padded to ``n_fft``)::

        linear = filterbank @ sqrt(re(S)² + im(S)² + magnitude_eps)
        value  = clip(gain · log(max(linear, floor)) + bias)
        mel    = (value - mean) / std

    Framing, with ``p = left_padding`` reflected samples on each side: frame ``i`` covers the samples
    ``i·hop - p … i·hop - p + n_fft - 1``::

        center=True   p = n_fft // 2          frame i is centred on sample i·hop, frames = samples // hop + 1
        center=False  p = (n_fft - hop) // 2  frame i is centred on its own hop,   frames = samples // hop

    Attributes:
        sample_rate_hz: the sample rate of the audio.
        n_fft, win_length, hop_length: the STFT's sizes in samples.
        n_mels, f_min_hz, f_max_hz, scale, norm: the triangular filters (norm "slaney": each has unit area in Hz).
        log: "ln" or "log10".
        floor: the smallest linear mel; everything below it becomes the floor.
        center: the framing (above).
        gain, bias, clip: applied to the logarithm, in this order.
        magnitude_eps: keeps the square root differentiable at 0; 0 leaves it out.
        stft_normalized: whether the STFT is divided by sqrt(sum(window²)), as torchaudio's ``normalized=True`` does.
        mean, std: statistics of the corpus for each bin, applied last; give both or neither.
    """

    sample_rate_hz: Annotated[int, Field(gt=0, le=MAX_RATE_HZ)]
    n_fft: FftSize
    win_length: FftSize
    hop_length: FftSize
    n_mels: PositiveInt
    f_min_hz: NonNegativeFloat
    f_max_hz: PositiveFloat
    scale: Literal["slaney", "htk"]
    norm: Literal["slaney", "none"]
    log: Literal["ln", "log10"]
    floor: PositiveFloat
    center: bool
    gain: PositiveFloat = 1.0
    bias: float = 0.0
    clip: tuple[float, float] | None = None
    magnitude_eps: NonNegativeFloat = 0.0
    stft_normalized: bool = False
    mean: tuple[float, ...] | None = None
    std: tuple[PositiveFloat, ...] | None = None

    @model_validator(mode="after")
    def _is_possible(self) -> "MelSpec":
        if self.n_mels * self.n_fft > MAX_FILTERBANK:
            raise ValueError(f"n_mels {self.n_mels} times n_fft {self.n_fft} is more than {MAX_FILTERBANK}")
        if self.win_length > self.n_fft:
            raise ValueError(f"win_length {self.win_length} is longer than n_fft {self.n_fft}")
        if self.hop_length > self.win_length:
            raise ValueError(f"hop_length {self.hop_length} skips samples of win_length {self.win_length}")
        if not self.center and (self.n_fft - self.hop_length) % 2:
            raise ValueError("n_fft - hop_length must be even if center is false: half of it is padded on each side")
        if self.f_min_hz >= self.f_max_hz:
            raise ValueError(f"f_min_hz {self.f_min_hz:g} is not below f_max_hz {self.f_max_hz:g}")
        if self.f_max_hz > self.sample_rate_hz / 2:
            raise ValueError(f"f_max_hz {self.f_max_hz:g} is above half of sample_rate_hz {self.sample_rate_hz}")
        if self.clip is not None and self.clip[0] >= self.clip[1]:
            raise ValueError(f"clip {self.clip} is not (low, high)")
        if (self.mean is None) != (self.std is None):
            raise ValueError("mean and std belong together: give both or neither")
        for name, values in (("mean", self.mean), ("std", self.std)):
            if values is not None and len(values) != self.n_mels:
                raise ValueError(f"{name} has {len(values)} values for {self.n_mels} mel bins")
        return self

    @property
    def left_padding(self) -> int:
        """Samples of padding before the signal, and as many after it."""
        return (self.n_fft if self.center else self.n_fft - self.hop_length) // 2

    @property
    def min_samples(self) -> int:
        """Samples of the shortest audio that has a frame; reflection needs one sample more than it pads."""
        return max(self.left_padding + 1, self.n_fft - 2 * self.left_padding)

    def frames(self, samples: int) -> int:
        """The number of frames of a clip that is ``samples`` long."""
        return max(0, (samples + 2 * self.left_padding - self.n_fft) // self.hop_length + 1)

    def window(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """Periodic Hann window ``[n_fft]`` on the CPU: ``win_length`` samples, zeros evenly around them."""
        hann = torch.hann_window(self.win_length, dtype=torch.float64, device="cpu")
        left = (self.n_fft - self.win_length) // 2
        return F.pad(hann, (left, self.n_fft - self.win_length - left)).to(dtype)

    def filterbank(self) -> np.ndarray:
        """Triangular filters ``[n_mels, n_fft // 2 + 1]``, float64, read-only."""
        return _filterbank(self)

    def to_linear(self, mel: Tensor) -> Tensor:
        """Linear magnitude of ``mel`` ``[.., n_mels, frames]``; what floor and clip cut off is not restored."""
        return self._to_ln(mel).exp()

    def from_linear(self, linear: Tensor) -> Tensor:
        """Mel of ``linear`` magnitude ``[.., n_mels, frames]``: floor, log, gain, bias, clip, statistics."""
        # The clamp comes before the log: in the other order, the gradient at 0 would be 0 · inf = NaN.
        return self._from_ln(linear.clamp(min=self.floor).log())

    def replace(self, **changes: Any) -> "MelSpec":
        """A copy with some fields changed, validated again."""
        return MelSpec(**{**self.model_dump(), **changes})

    @property
    def plain(self) -> "MelSpec":
        """The same frames and filters with a bare natural logarithm, so that values of two definitions compare."""
        return self.replace(log="ln", gain=1.0, bias=0.0, clip=None, mean=None, std=None)

    @property
    def _gain_of_ln(self) -> float:
        return self.gain / (math.log(10) if self.log == "log10" else 1.0)

    def _from_ln(self, ln: Tensor) -> Tensor:
        value = ln * self._gain_of_ln + self.bias
        if self.clip is not None:
            value = value.clamp(*self.clip)
        if self.mean is not None and self.std is not None:
            value = (value - _column(self.mean, value)) / _column(self.std, value)
        return value

    def _to_ln(self, mel: Tensor) -> Tensor:
        if self.mean is not None and self.std is not None:
            mel = mel * _column(self.std, mel) + _column(self.mean, mel)
        return (mel - self.bias) / self._gain_of_ln

    @property
    def ln_range(self) -> tuple[float, float]:
        """Natural logarithm of the smallest and the largest linear mel that this definition can represent."""
        low, high = math.log(self.floor), math.inf
        if self.clip is not None:
            clip_low, clip_high = ((edge - self.bias) / self._gain_of_ln for edge in self.clip)
            low, high = max(low, clip_low), clip_high
        return low, high


def _column(values: tuple[float, ...], like: Tensor) -> Tensor:
    # While a graph is exported, tensors that are made are not real: nothing may keep them.
    column = _column_on.__wrapped__ if torch.compiler.is_compiling() else _column_on
    return column(values, like.dtype, like.device)


@lru_cache(maxsize=32)
def _column_on(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    # Cached, because a new tensor is copied to the GPU: the copy waits for all work there, and a CUDA graph cannot
    # record it. A tensor made in inference mode could not be used in training later, so leave that mode.
    with torch.inference_mode(False):
        return torch.tensor(values, dtype=dtype, device=device)[:, None]


def _hz_to_mel(hz: np.ndarray, scale: str) -> np.ndarray:
    """Hz to mel: O'Shaughnessy's formula (htk); or linear up to 1 kHz = 15 mel, then 27 mel per factor 6.4 (slaney)."""
    if scale == "htk":
        return 2595 * np.log10(1 + hz / 700)
    return np.where(hz < 1000, hz * 3 / 200, 15 + 27 * np.log(np.maximum(hz, 1000) / 1000) / math.log(6.4))


def _mel_to_hz(mel: np.ndarray, scale: str) -> np.ndarray:
    if scale == "htk":
        return 700 * (10 ** (mel / 2595) - 1)
    return np.where(mel < 15, mel * 200 / 3, 1000 * np.exp(math.log(6.4) * (mel - 15) / 27))


@lru_cache(maxsize=32)
def _filterbank(spec: MelSpec) -> np.ndarray:
    low, high = _hz_to_mel(np.array([spec.f_min_hz, spec.f_max_hz]), spec.scale)
    corners = _mel_to_hz(np.linspace(low, high, spec.n_mels + 2), spec.scale)  # filter m has corners m, m+1, m+2
    left, peak, right = corners[:-2, None], corners[1:-1, None], corners[2:, None]
    bins = np.arange(spec.n_fft // 2 + 1) * spec.sample_rate_hz / spec.n_fft
    filters = np.maximum(0, np.minimum((bins - left) / (peak - left), (right - bins) / (right - peak)))
    if spec.norm == "slaney":
        filters *= 2 / (right - left)
    filters.setflags(write=False)  # the cache gives the same array to every caller
    return filters


def _inexact(source: MelSpec, target: MelSpec) -> set[str]:
    """The differing fields that make an exact conversion from ``source`` to ``target`` impossible."""
    differing = set(source.differences(target))
    inexact = differing - {"log", "gain", "bias", "mean", "std", "floor", "clip"}
    (low, high), (target_low, target_high) = source.ln_range, target.ln_range
    if target_low < low - 1e-9 or target_high > high + 1e-9:  # the target represents values that the source cut off
        inexact |= differing & {"floor", "clip"} or differing & {"log", "gain", "bias"}
    return inexact


def check_compatible(found: MelSpec, wanted: MelSpec, where: object) -> None:
    """Check that a mel has the definition that is needed.

    Args:
        found: the mel's definition.
        wanted: the definition that is needed.
        where: the file or argument to name in the error.

    Raises:
        MelError: the definitions differ; names every differing field with both values, and says whether ``convert``
            helps.
    """
    differing = found.differences(wanted)
    if not differing:
        return

    def shown(value: Any) -> str:
        return f"{len(value)} values" if isinstance(value, list) and len(value) > 2 else str(value)

    fields = ", ".join(f"{name} is {shown(a)}, not {shown(b)}" for name, (a, b) in differing.items())
    inexact = [name for name in differing if name in _inexact(found, wanted)]
    exact = [name for name in differing if name not in inexact]
    if inexact:
        remedy = f"{', '.join(inexact)} cannot be converted exactly, so extract the mel from the recording again"
        remedy += f" (wavegen.mel.convert can convert {', '.join(exact)})" if exact else ""
    else:
        remedy = f"wavegen.mel.convert converts {', '.join(exact)} exactly"
    raise MelError(f"mel has another definition: {fields}", where=where, remedy=remedy)


def convert(mel: Tensor, source: MelSpec, target: MelSpec) -> Tensor:
    """Convert ``mel`` ``[.., n_mels, frames]`` from one definition to another, if that is exact.

    The base of the logarithm, gain, bias and statistics convert exactly, and so do a higher floor and an added clip.

    Raises:
        MelError: another field differs; names each of them.
    """
    if _inexact(source, target):
        check_compatible(source, target, "convert")
    if source == target:
        return mel
    return target._from_ln(source._to_ln(mel).clamp(min=math.log(target.floor)))


@lru_cache(maxsize=32)
def ln_ceilings(spec: MelSpec) -> tuple[float, float]:
    """Natural logarithms of the largest linear mel of audio within ±1: in any bin, and in the quietest bin of a frame.

    With |x| <= 1, Parseval gives sum(|X_k|²) <= n_fft · sum(w²) / 2 over the bins between 0 and Nyquist (a
    filter is zero at both), so by Cauchy-Schwarz f · |X| <= norm(f) · sqrt(n_fft · sum(w²) / 2). The quietest
    bin is at most the mean of all bins, and that is the output of the mean filter.
    """
    filters, window = spec.filterbank(), spec.window(torch.float64).numpy()
    energy = 1.0 if spec.stft_normalized else float(np.sum(window**2))
    norms = np.linalg.norm(filters, axis=1).max(), np.linalg.norm(filters.mean(axis=0))
    loudest, quietest = (math.log(norm * math.sqrt(spec.n_fft * energy / 2)) for norm in norms)
    return loudest, quietest


_EXTRACT_AGAIN = "extract it again with this definition from samples within ±1"
_OR_STATE_STATISTICS = "; if it was normalised by a corpus's mean and std, give an .npz whose definition states them"


def check_mel(mel: np.ndarray, spec: MelSpec, where: object) -> None:
    """Check that ``mel`` can be a mel ``[n_mels, frames]`` with the definition ``spec``.

    The values may go 20 dB beyond what audio within ±1 can give. That is generous, and still detects linear magnitudes,
    decibels, values scaled to 0…1 and mels of int16 samples.

    Args:
        mel: any array.
        spec: the definition to check against.
        where: the file or argument to name in the error.

    Raises:
        MelError: the axes, number of bins or type are wrong, the array is empty, a value is NaN or infinite, or this
            definition cannot give such values.
    """

    def refuse(what: str, remedy: str) -> None:
        raise MelError(what, where=where, remedy=remedy)

    # Type and shape.
    if mel.dtype.kind != "f":
        kind = "Python objects" if mel.dtype.hasobject else f"{mel.dtype} values"
        refuse(f"holds {kind}, not floats", "save the mel as float32")
    if mel.ndim == 3 and mel.shape[0] == 1:
        refuse(f"has a batch axis, shape {mel.shape}", "save mel[0]")
    if mel.ndim != 2:
        refuse(f"has {mel.ndim} axes, shape {mel.shape}", f"save one mel [{spec.n_mels}, frames]")
    bins, frames = mel.shape
    if bins != spec.n_mels and frames == spec.n_mels:
        refuse(f"looks like [frames, n_mels], shape {mel.shape}", "transpose it: save mel.T")
    if bins != spec.n_mels:
        refuse(f"has {bins} mel bins, not {spec.n_mels}", "extract it with the vocoder's definition")
    if frames == 0:
        refuse("has no frames", "check the recording it was made from")

    # Values that no definition gives. From here on, the extremes of each bin stand for all of its values.
    low, high = mel.min(axis=1, keepdims=True), mel.max(axis=1, keepdims=True)
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        refuse("has NaN or infinite values", "look for the fault in what made it")
    if spec.clip is None and spec.mean is None and low.min() >= 0 and high.max() <= 1:
        refuse(f"has only values within 0…1, which no {spec.log} mel has", f"undo its scaling, or {_EXTRACT_AGAIN}")

    # The range that this definition gives, compared as natural logarithms.
    edges = np.concatenate([low, high], axis=1).astype(np.float64)
    ln = spec._to_ln(torch.from_numpy(edges))
    lowest, highest = ln[:, 0].min().item(), ln[:, 1].max().item()
    (floor, ceiling), (loudest, quietest) = spec.ln_range, ln_ceilings(spec)
    twenty_db, db_per_ln = math.log(10), 20 / math.log(10)
    ceiling = min(ceiling, loudest)
    extract_again = _EXTRACT_AGAIN + _OR_STATE_STATISTICS * (spec.mean is None)
    if lowest < floor - twenty_db:
        refuse(
            f"goes {db_per_ln * (floor - lowest):.0f} dB below this definition's floor, {spec.floor:g}",
            f"if it holds decibels or another log, {_EXTRACT_AGAIN}",
        )
    if highest > ceiling + twenty_db:
        refuse(
            f"goes {db_per_ln * (highest - ceiling):.0f} dB above what audio within ±1 can give",
            f"if it holds linear magnitudes or was made from int16 samples, {extract_again}",
        )
    if lowest > quietest - twenty_db / 2:
        refuse(
            f"never falls below {low.min():.3g}, as only the {spec.log} mel of full-scale noise does",
            f"if it holds linear magnitudes, {extract_again}",
        )
