"""Linear layers with a row per frame, in float32, bfloat16 or int8."""

from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from wavegen.engines.packed.arena import STEP_BYTES, Arena
from wavegen.engines.packed.products import Matrix
from wavegen.engines.simd import LANES, TARGET
from wavegen.engines.spectral.rows import ROWS_AT_ONCE, WIDTH, Operands
from wavegen.engines.spectral.workspace import Workspace

RowPrecision = Literal["float32", "bfloat16", "int8"]
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}  # of oneDNN's products

BFLOAT16_RUNS = not {"+avx512bf16", "+bf16"}.isdisjoint(TARGET[2].split(","))
"""Whether the processor multiplies bfloat16; on others such products are slower than those of float32."""


class Product:
    """A linear layer, and GELU behind it if wanted.

    oneDNN computes it if this torch has it: on processors of any maker it uses the widest vectors, it applies GELU to
    sums that are still in the cache, and it keeps the weights in the order in which it reads them.

    Args:
        weight: ``[outputs, inputs]``; copied.
        bias: ``[outputs]``; copied.
        dtype: precision of the weights, of what they multiply, and of the result; sums are float32.
        gelu: whether the result goes through GELU.
    """

    def __init__(self, weight: Tensor, bias: Tensor, dtype: torch.dtype = torch.float32, *, gelu: bool = False) -> None:
        self._weight = weight.detach().to(dtype, copy=True, memory_format=torch.contiguous_format)
        self._bias = bias.detach().to(dtype, copy=True)
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


class RowLayer:
    """A linear layer: compiled code computes few rows, and in int8 all; oneDNN computes many.

    Args:
        weight: ``[outputs, inputs]``; copied.
        bias: ``[outputs]``; copied.
        run: the compiled function ``run_layer``.
        precision: precision of the weights and of what they multiply.
    """

    def __init__(self, weight: Tensor, bias: Tensor, run: Any, precision: RowPrecision) -> None:
        self._outputs, self._inputs = weight.shape
        self._run, self._workspace, self._few = run, Workspace(), few_rows(precision)
        self._product = None if precision == "int8" else Product(weight, bias, DTYPES[precision])
        if precision != "bfloat16":
            arena, padded = Arena(precision, LANES), padded_matrix(weight.detach().numpy())
            first = arena.add(padded)
            self._matrix = Matrix(arena.finished(), first, padded.shape[1], padded.shape[0])
            self._bias = np.pad(bias.detach().numpy(), (0, len(padded) - self._outputs))

    def __call__(self, rows: Tensor) -> Tensor:
        """``[…, inputs]`` to ``[…, outputs]``; bfloat16 stays bfloat16."""
        frames = rows.shape[:-1].numel()
        if self._product is not None and (frames > self._few or not self._few):
            return self._product(rows)
        padded = self._workspace.zeros("rows", frames, self._matrix.inputs)
        padded[:, : self._inputs] = rows.reshape(frames, self._inputs)
        result = torch.empty(frames, self._matrix.outputs)
        operands = operands_of(self._workspace, "codes", padded, self._matrix.weights)
        self._run(self._matrix, self._bias, operands, result.view(-1).numpy())
        return result[:, : self._outputs].contiguous().view(*rows.shape[:-1], self._outputs)


def few_rows(precision: RowPrecision) -> int:
    """Up to how many rows compiled code computes, because oneDNN takes longer to call; it cannot compute bfloat16."""
    return 0 if precision == "bfloat16" else 8


def operands_of(workspace: Workspace, name: str, rows: Tensor, weights: np.ndarray) -> Operands:
    """Wrap rows for packed matrices; for int8 ``weights`` with room for the codes of ``ROWS_AT_ONCE`` rows."""
    floats = rows.view(-1).numpy()
    if weights.dtype != np.int8:
        return Operands(floats, floats)
    size = ROWS_AT_ONCE * (rows.shape[1] + STEP_BYTES)
    return Operands(floats, workspace.empty(name, size, dtype=torch.uint8).numpy())


def padded_matrix(matrix: np.ndarray) -> np.ndarray:
    """``[outputs, inputs]`` with zeros up to whole ``WIDTH`` on both axes."""
    outputs, inputs = (whole(size) for size in matrix.shape)
    return np.pad(matrix, ((0, outputs - matrix.shape[0]), (0, inputs - matrix.shape[1])))


def whole(size: int) -> int:
    """The next multiple of ``WIDTH``."""
    return -(-size // WIDTH) * WIDTH
