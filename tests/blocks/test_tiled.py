"""The tiled stack: the same sums of skips and the same gradients as the stack itself."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from wavegen.blocks import DilatedStack, GatedResidualBlock, HoldUpsampler, SeparableResidualBlock, tiled
from wavegen.blocks.tiled import runs_in_tiles, sum_of_skips

HOP = 7


def stack(kernel_size: int, *, padding: str = "causal") -> DilatedStack:
    torch.manual_seed(0)
    return DilatedStack(
        GatedResidualBlock(
            6, kernel_size=kernel_size, dilation=dilation, padding=padding, gate_channels=10, skip_channels=5,
            condition_channels=3,
        )
        for dilation in (1, 2, 4, 8, 1, 2)
    ).double()  # fmt: skip


def inputs(frames: int) -> tuple[Tensor, Tensor]:
    x = torch.randn(2, 6, frames * HOP, dtype=torch.float64, requires_grad=True)
    return x, torch.randn(2, 3, frames, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize("frames", [1, 9])
@pytest.mark.parametrize("tile_samples", [1, 2 * HOP, 2048])
@pytest.mark.parametrize("kernel_size", [1, 2, 3])
def test_tiles_of_any_size_give_the_sums_and_gradients_of_the_stack(
    kernel_size: int, tile_samples: int, frames: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiled, "TILE_SAMPLES", tile_samples)
    blocks, upsample = stack(kernel_size), HoldUpsampler(HOP).double()
    x, condition = inputs(frames)
    variables = [x, condition, *blocks.parameters(), *upsample.parameters()]
    expected = blocks(x, upsample(condition))[1]
    read = F.pad(condition, (upsample.context.left, 0))
    skips = sum_of_skips(blocks, x, read, upsample.weights())
    torch.testing.assert_close(skips, expected, rtol=1e-12, atol=1e-12)

    weights = torch.randn_like(expected)
    gradients = [
        torch.autograd.grad((y * weights).sum(), variables, allow_unused=True, materialize_grads=True)
        for y in (skips, expected)
    ]
    for variable, found, wanted in zip(variables, *gradients, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10, msg=str(variable.shape))
    assert all(gradient.abs().max() > 1e-6 for gradient in gradients[0][:3])


def test_only_causal_gated_blocks_with_a_condition_run_in_tiles() -> None:
    x = torch.zeros(1, 6, HOP)
    assert runs_in_tiles(stack(2), x)
    assert not runs_in_tiles(stack(2), x.to("meta"))
    assert not runs_in_tiles(stack(3, padding="same"), x)
    assert not runs_in_tiles(DilatedStack([GatedResidualBlock(6)]), x)
    assert not runs_in_tiles(DilatedStack([SeparableResidualBlock(6, condition_channels=3)]), x)
