"""Linear layers in training: the products of oneDNN are those of torch, and so are their gradients."""

from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from wavegen.blocks import SeparableResidualBlock, products
from wavegen.blocks.products import linear

SHAPES = [((2, 48, 40), 70), ((5, 3), 7), ((1, 1), 1), ((0, 4), 3), ((2, 3, 4), 1)]


def layer(shape: tuple[int, ...], outputs: int, *, bias: bool = True) -> tuple[Tensor, Tensor, Tensor | None]:
    torch.manual_seed(0)
    x, weight = torch.randn(shape, requires_grad=True), torch.randn(outputs, shape[-1], requires_grad=True)
    return x, weight, torch.randn(outputs, requires_grad=True) if bias else None


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("shape", "outputs"), SHAPES)
def test_a_layer_and_its_gradients_are_those_of_torch(shape: tuple[int, ...], outputs: int, bias: bool) -> None:
    given = layer(shape, outputs, bias=bias)
    wanted = [part for part in given if part is not None]
    found, expected = linear(*given), F.linear(*given)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    into = torch.randn_like(expected)
    first = [torch.autograd.grad(y, wanted, into, create_graph=True) for y in (found, expected)]
    for mine, theirs in zip(*first, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-4)
    # Gradients of gradients, which a penalty on gradients needs.
    second = [torch.autograd.grad(sum(part.square().sum() for part in parts), wanted[:2]) for parts in first]
    for mine, theirs in zip(*second, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-2)


def test_only_gradients_that_are_wanted_are_computed() -> None:
    x, weight, bias = layer((5, 3), 7)
    linear(x.detach(), weight, bias).sum().backward()
    assert x.grad is None
    assert weight.grad is not None
    assert bias is not None
    assert torch.equal(bias.grad, torch.full((7,), 5.0))


@pytest.mark.skipif(not products._is_there(), reason="this torch has no products of oneDNN")
def test_onednn_computes_in_training_alone() -> None:
    x, weight, bias = layer((5, 3), 7)
    with mock.patch.object(products._Affine, "apply", side_effect=AssertionError) as apply:
        with pytest.raises(AssertionError):
            linear(x, weight, bias)
        with torch.no_grad():
            linear(x, weight, bias)
        linear(x.detach(), weight.detach(), bias)
        linear(x.double(), weight.double(), None)
        with torch.autocast("cpu", torch.bfloat16):
            linear(x, weight, bias)
        with mock.patch.object(torch.compiler, "is_compiling", return_value=True):
            linear(x, weight, bias)
        assert apply.call_count == 1


def test_a_torch_without_them_computes_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.ops.mkldnn, "_linear_pointwise", None)
    assert not products._is_there.__wrapped__()
    monkeypatch.setattr(products, "_is_there", lambda: False)
    given = layer((5, 3), 7)
    assert torch.equal(linear(*given), F.linear(*given))


def test_a_block_trains_with_them() -> None:
    block, x = SeparableResidualBlock(6, kernel_size=3), torch.randn(2, 6, 9)
    losses = []
    for there in (True, False):
        block.zero_grad()
        with mock.patch.object(products, "_is_there", return_value=there and products._is_there()):
            block(x)[0].square().sum().backward()
        losses.append([parameter.grad.clone() for parameter in block.parameters()])
    for mine, theirs in zip(*losses, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)
