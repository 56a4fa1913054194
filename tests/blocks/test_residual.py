"""Residual blocks against the papers' equations, and stacks of blocks."""

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from support.messages import Messages

from wavegen.blocks import (
    DilatedStack,
    GatedResidualBlock,
    ResidualBlock,
    SeparableResidualBlock,
    exponential_dilations,
    frame_mask,
    masked,
)
from wavegen.errors import ConfigError


def test_exponential_dilations_start_over_in_every_cycle() -> None:
    assert exponential_dilations(3, 4) == (1, 2, 4, 8) * 3
    assert exponential_dilations(1, 3, base=3) == (1, 3, 9)


def test_gated_block_is_the_papers_equation() -> None:
    block = GatedResidualBlock(3, kernel_size=2, dilation=4, skip_channels=5, condition_channels=2).double()
    x, condition = torch.randn(1, 3, 20).double(), torch.randn(1, 2, 20).double()
    h = F.conv1d(F.pad(x, (4, 0)), block.conv.weight, block.conv.bias, dilation=4)
    assert block.condition is not None
    h = h + F.conv1d(condition, block.condition.weight)
    z = torch.tanh(h[:, :3]) * torch.sigmoid(h[:, 3:])
    out = F.conv1d(z, block.output.weight, block.output.bias)
    residual, skip = block(x, condition)
    torch.testing.assert_close(residual, (x + out[:, :3]) * math.sqrt(0.5))
    torch.testing.assert_close(skip, out[:, 3:])


def test_an_impossible_block_is_refused(messages: Messages) -> None:
    stepping = GatedResidualBlock(4)
    calls: list[Callable[[], object]] = [
        lambda: GatedResidualBlock(4, gate_channels=5),
        lambda: DilatedStack([]),
        lambda: GatedResidualBlock(4, condition_channels=2)(torch.zeros(1, 4, 5)),
        lambda: GatedResidualBlock(4)(torch.zeros(1, 4, 5), torch.zeros(1, 2, 5)),
        lambda: DilatedStack([GatedResidualBlock(4)])(torch.zeros(1, 4, 5), torch.zeros(1, 2, 5)),
        lambda: DilatedStack([stepping]).step(torch.zeros(1, 4, 5), (stepping.initial_state(1),), torch.zeros(1, 2, 5)),
        lambda: exponential_dilations(1, 22),
        lambda: exponential_dilations(10**9, 10),
    ]
    for call in calls:
        with messages.refused(ConfigError):
            call()


@pytest.mark.parametrize("block", [GatedResidualBlock, SeparableResidualBlock])
def test_nothing_in_the_padding_reaches_an_output_or_a_gradient(block: Callable[..., ResidualBlock]) -> None:
    """NaN in the padding of the input and of the condition, as in a batch of items that were put together unfilled."""
    torch.manual_seed(0)
    stack = DilatedStack(block(4, dilation=dilation, padding="same", condition_channels=3) for dilation in (1, 2))
    mask = frame_mask(torch.tensor([9, 5]), 9)
    x, condition = torch.randn(2, 4, 9), torch.randn(2, 3, 9)
    spoilt, spoilt_condition = (torch.where(mask, values, torch.nan) for values in (x, condition))
    _, skips = stack(masked(spoilt, mask), spoilt_condition, mask)
    _, clean = stack(masked(x, mask), masked(condition, mask), mask)
    assert torch.equal(skips, clean)
    masked(skips, mask).square().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in stack.parameters() if parameter.grad is not None)
