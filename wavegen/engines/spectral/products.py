"""Matrix products with a row per frame, in float32 or in bfloat16."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from wavegen.engines.simd import TARGET

BFLOAT16_RUNS = not {"+avx512bf16", "+bf16"}.isdisjoint(TARGET[2].split(","))
"""Whether the processor multiplies bfloat16; on others such products are slower than those of float32."""


class Product:
    """A linear layer, and GELU behind it if wanted.

    oneDNN computes it if this torch has it: on processors of any maker it uses the widest vectors, it applies GELU to
    sums that are still in the cache, and it keeps the weights in the order in which it reads them.

    Args:
        weight: ``[outputs, inputs]``; copied.
        bias: ``[outputs]``, or None; copied.
        dtype: precision of the weights, of what they multiply, and of the result; sums are float32.
        gelu: whether the result goes through GELU.
    """

    def __init__(
        self, weight: Tensor, bias: Tensor | None, dtype: torch.dtype = torch.float32, *, gelu: bool = False
    ) -> None:
        self._weight = weight.detach().to(dtype, copy=True, memory_format=torch.contiguous_format)
        self._bias = None if bias is None else bias.detach().to(dtype, copy=True)
        self._gelu = gelu
        self._packed = self._pack()

    def __call__(self, rows: Tensor) -> Tensor:
        """``[…, inputs]`` to ``[…, outputs]``."""
        rows = rows.to(self._weight.dtype)
        if self._packed is not None:
            return self._fused(rows, self._packed)
        result = F.linear(rows, self._weight, self._bias)
        return F.gelu(result) if self._gelu else result

    def _pack(self) -> Tensor | None:
        """The weights in oneDNN's order; None if this torch cannot compute with them."""
        try:
            packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(self._weight)
            self._fused(self._weight.new_zeros(1, self._weight.shape[1]), packed)
        except (AttributeError, RuntimeError, TypeError):  # functions that torch's own compiler calls; they may change
            return None
        return packed

    def _fused(self, rows: Tensor, packed: Tensor) -> Tensor:
        activation: tuple[Any, ...] = ("gelu", [], "none") if self._gelu else ("none", [], "")
        result: Tensor = torch.ops.mkldnn._linear_pointwise(rows, packed, self._bias, *activation)
        return result
