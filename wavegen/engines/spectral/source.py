"""The shaped source with the engine's filters."""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor

from wavegen.engines.spectral.filters import LARGEST_ORDER
from wavegen.engines.spectral.functions import Functions
from wavegen.engines.spectral.products import Product
from wavegen.source import Pitch, Predictor, ShapedSource, SourceState

PIECE_FRAMES = 256


class CompiledSource(ShapedSource):
    """Computes what a float32 ``ShapedSource`` of order 32 or less does; made by ``of``."""

    _functions: Functions
    _products: tuple[Product, Product]

    @classmethod
    def of(cls, shaped: ShapedSource, functions: Functions) -> "CompiledSource":
        """The same source, which shares all constants."""
        other = copy.copy(shaped)
        other.__class__ = cls
        assert isinstance(other, cls)
        other._functions = functions
        low, high = (Product(other._shifted(taps).t(), None) for taps in (other.low, other.high))
        other._products = low, high
        return other

    def _compute(
        self, magnitude: Tensor, pitch: Pitch, before: SourceState, start: int, stop: int, first_frame: int
    ) -> tuple[Tensor, SourceState]:
        # In pieces, because arrays of whole utterances would have to be asked for, and given back, every time.
        pieces, state, length = [], before, PIECE_FRAMES * self.hop_length
        for begin in range(start, stop, length) or (start,):
            end = min(begin + length, stop)
            samples, state = super()._compute(magnitude, pitch, state, begin, end, first_frame)
            pieces.append(samples)
        return torch.cat(pieces, dim=-1), state

    def _filtered(self, x: Tensor, taps: Tensor) -> Tensor:
        length = self.prediction.sub_frame_length
        product = self._products[0 if taps is self.low else 1]
        return product(x.unfold(1, length + 2 * self.reach, length).contiguous()).flatten(1)

    def synthesise(self, excitation: Tensor, predictor: Predictor, past: Tensor) -> tuple[Tensor, Tensor]:
        """As in ``ShapedSource``."""
        order, length = past.shape[-1], self.prediction.sub_frame_length
        samples = torch.cat((F.pad(past, (LARGEST_ORDER - order, 0)), excitation), dim=-1)
        coefficients = F.pad(predictor.coefficients.mT, (0, 2 * LARGEST_ORDER - order))
        arrays = samples.view(-1), length, coefficients.view(-1), predictor.scale[:, 0].contiguous()
        self._functions.all_pole(*(array.numpy() if isinstance(array, Tensor) else array for array in arrays))
        return samples[..., LARGEST_ORDER:], samples[..., samples.shape[-1] - order :]
