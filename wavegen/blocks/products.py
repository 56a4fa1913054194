"""Linear layers in training on a CPU: the matrix products of oneDNN, which torch contains.

torch's default library reaches half of the speed of an AMD processor. oneDNN reaches nearly all of it, on processors of
any maker.
"""

from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``F.linear``, whose products oneDNN computes if float32 is trained on a CPU; equal up to rounding.

    Args:
        x: ``[…, inputs]``.
        weight: ``[outputs, inputs]``.
        bias: ``[outputs]``, or None.

    Returns:
        ``[…, outputs]``, differentiable any number of times.
    """
    if not _runs(x, weight):
        return F.linear(x, weight, bias)
    result: Tensor = _Affine.apply(x.reshape(-1, x.shape[-1]), weight, bias)
    return result.view(*x.shape[:-1], len(weight))


class _Affine(Function):
    """``a @ b.t() + bias`` of two matrices; its gradients are such products too."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(a, b)
        result: Tensor = torch.ops.mkldnn._linear_pointwise(a, b, bias, "none", [], "")
        return result

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        a, b = ctx.saved_tensors
        into_a = _Affine.apply(gradient, b.t(), None) if ctx.needs_input_grad[0] else None
        into_b = _Affine.apply(gradient.t(), a.t(), None) if ctx.needs_input_grad[1] else None
        return into_a, into_b, gradient.sum(0) if ctx.needs_input_grad[2] else None


def _runs(x: Tensor, weight: Tensor) -> bool:
    return (
        torch.is_grad_enabled()
        and (x.requires_grad or weight.requires_grad)
        and x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and x.numel() > 0
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
        and _is_there()
    )


@lru_cache(maxsize=1)
def _is_there() -> bool:
    """Whether the function exists and works: it is private to torch's compiler, so a release may change it."""
    a, b = torch.arange(6.0, device="cpu").view(2, 3), torch.arange(12.0, device="cpu").view(4, 3)
    try:
        return torch.equal(torch.ops.mkldnn._linear_pointwise(a, b, None, "none", [], ""), a @ b.t())
    except (AttributeError, RuntimeError, TypeError):
        return False
