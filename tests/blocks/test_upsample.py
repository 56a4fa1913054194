"""Upsampling against a held signal that is convolved."""

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from support.messages import Messages
from torch import nn

from wavegen.blocks import HoldUpsampler, StagedUpsampler, small_factors
from wavegen.errors import ConfigError


@pytest.mark.parametrize("padding", ["causal", "same"])
@pytest.mark.parametrize("hop", [1, 2, 5, 8])
def test_upsampling_is_a_held_signal_convolved(padding: str, hop: int) -> None:
    upsampler = HoldUpsampler(hop, padding=padding).double()  # type: ignore[arg-type]
    nn.init.normal_(upsampler.kernel)
    x = torch.randn(2, 3, 6).double()
    ahead = 0 if padding == "causal" else hop // 2
    held = F.pad(x.repeat_interleave(hop, dim=-1), (hop - 1 - ahead, ahead))
    expected = F.conv1d(held, upsampler.kernel.flip(0).expand(3, 1, -1), groups=3)
    torch.testing.assert_close(upsampler(x), expected)


@pytest.mark.parametrize("padding", ["causal", "same"])
@pytest.mark.parametrize(("hop", "taps"), [(4, 9), (3, 2), (2, 7)])
def test_upsampling_takes_a_kernel_of_any_length(padding: str, hop: int, taps: int) -> None:
    upsampler = HoldUpsampler(hop, kernel_size=taps, padding=padding).double()  # type: ignore[arg-type]
    nn.init.normal_(upsampler.kernel)
    x = torch.randn(2, 3, 6).double()
    ahead = 0 if padding == "causal" else taps // 2
    held = F.pad(x.repeat_interleave(hop, dim=-1), (taps - 1 - ahead, ahead))
    expected = F.conv1d(held, upsampler.kernel.flip(0).expand(3, 1, -1), groups=3)
    torch.testing.assert_close(upsampler(x), expected)


def test_upsampling_starts_as_linear_interpolation() -> None:
    y = HoldUpsampler(4)(torch.tensor([[[0.0, 4.0, 4.0, 0.0]]]))
    assert y[0, 0].tolist() == [0, 0, 0, 0, 1, 2, 3, 4, 4, 4, 4, 4, 3, 2, 1, 0]


@pytest.mark.parametrize("padding", ["causal", "same"])
def test_upsampling_in_stages_holds_and_convolves_in_turn(padding: str) -> None:
    torch.manual_seed(0)
    upsampler = StagedUpsampler((3, 2), padding=padding).double()  # type: ignore[arg-type]
    x = y = torch.randn(2, 4, 7).double()
    for stage, factor in zip(upsampler.stages, (3, 2), strict=True):
        nn.init.normal_(stage.kernel)
        pad = (2 * factor, 0) if padding == "causal" else (factor, factor)
        held = F.pad(y.repeat_interleave(factor, dim=-1), pad)
        y = F.conv1d(held, stage.kernel.flip(0).expand(4, 1, -1), groups=4)
    torch.testing.assert_close(upsampler(x), y)


def test_upsampling_in_stages_starts_as_a_smooth_interpolation_that_keeps_what_is_constant() -> None:
    y = StagedUpsampler((4, 4), padding="same")(torch.ones(1, 1, 9))[0, 0]
    torch.testing.assert_close(y[32:-32], torch.ones(9 * 16 - 64))


def test_frames_reached_are_those_that_gradients_reach() -> None:
    upsampler = StagedUpsampler((2, 3), padding="same")
    x = torch.zeros(1, 1, 20, requires_grad=True)
    for first, last in ((60, 60), (61, 70), (65, 65)):
        (gradient,) = torch.autograd.grad(upsampler(x)[..., first : last + 1].sum(), x)
        touched = gradient[0, 0].nonzero().flatten().tolist()
        assert upsampler.frames_reached(first, last) == (min(touched), max(touched))


def test_small_factors_multiply_to_the_hop() -> None:
    assert small_factors(256) == (4, 4, 4, 4)
    assert small_factors(300) == (5, 5, 4, 3)
    assert small_factors(257) == (257,)
    for hop in range(1, 700):
        factors = small_factors(hop)
        assert math.prod(factors) == hop
        assert factors == tuple(sorted(factors, reverse=True))


def test_an_impossible_upsampler_is_refused(messages: Messages) -> None:
    calls: list[Callable[[], object]] = [
        lambda: HoldUpsampler(4, padding="valid"),  # type: ignore[arg-type]
        lambda: StagedUpsampler((4, 0)),
    ]
    for call in calls:
        with messages.refused(ConfigError):
            call()
