"""Sizes and paddings, against real convolutions."""

import doctest
import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from support.messages import Messages
from torch import nn

from wavegen.blocks import (
    Context,
    DilatedConv1d,
    DilatedConv2d,
    DilatedStack,
    GatedResidualBlock,
    causal_padding,
    effective_kernel_size,
    geometry,
    output_size,
    receptive_field,
    same_padding,
)
from wavegen.blocks.geometry import padding_for
from wavegen.errors import ConfigError

SIZES = list(itertools.product((1, 2, 3, 5), (1, 2, 3, 6), (1, 2, 3), (0, 1, 5), (26, 47)))


@pytest.mark.parametrize(("kernel", "dilation", "stride", "padding", "size"), SIZES)
def test_output_size_is_that_of_a_real_conv1d(kernel: int, dilation: int, stride: int, padding: int, size: int) -> None:
    real = nn.Conv1d(1, 1, kernel, stride=stride, padding=padding, dilation=dilation)(torch.zeros(1, 1, size)).shape[-1]
    assert output_size(size, kernel, stride=stride, padding=padding, dilation=dilation) == real


def test_output_size_is_that_of_a_real_conv2d() -> None:
    kernel, stride, padding, dilation, size = (3, 4), (1, 2), (6, 1), (6, 3), (19, 31)
    real = nn.Conv2d(1, 1, kernel, stride=stride, padding=padding, dilation=dilation)(torch.zeros(1, 1, *size)).shape
    assert output_size(size, kernel, stride=stride, padding=padding, dilation=dilation) == tuple(real[2:])


def test_the_textbook_case() -> None:
    assert effective_kernel_size(3, 6) == 13
    assert same_padding(3, 6) == (6, 6)
    assert output_size((19, 19), 3, padding=6, dilation=6) == (19, 19)
    assert nn.Conv2d(1, 1, 3, padding=6, dilation=6)(torch.zeros(1, 1, 19, 19)).shape[2:] == (19, 19)


@pytest.mark.parametrize("kernel", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("dilation", [1, 2, 3, 8])
def test_same_and_causal_padding_keep_every_size(kernel: int, dilation: int) -> None:
    for size in range(1, 40):
        for padding in (same_padding(kernel, dilation), causal_padding(kernel, dilation)):
            assert output_size(size, kernel, padding=padding, dilation=dilation) == size
    left, right = same_padding(kernel, dilation)
    assert right - left in (0, 1)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")  # torch copies the input for those
def test_same_padding_is_where_torch_puts_it() -> None:
    for kernel, dilation in itertools.product((2, 3, 4), (1, 3)):
        ours = DilatedConv1d(1, 1, kernel, dilation=dilation, padding="same")
        theirs = nn.Conv1d(1, 1, kernel, dilation=dilation, padding="same")
        theirs.load_state_dict(ours.state_dict())
        x = torch.randn(1, 1, 20)
        torch.testing.assert_close(ours(x), theirs(x))


def test_several_dimensions_at_once() -> None:
    assert effective_kernel_size((3, 5), 2) == (5, 9)
    assert same_padding((3, 4), (1, 3)) == ((1, 1), (4, 5))
    assert output_size((9, 8), (3, 4), padding=((1, 1), (4, 5)), dilation=(1, 3)) == (9, 8)
    assert output_size((10, 10, 10), 3, padding=1) == (10, 10, 10)


def test_causal_padding_and_receptive_fields_take_pairs() -> None:
    assert causal_padding((3, 2), (1, 5)) == ((2, 0), (5, 0))
    assert padding_for("causal", (3, 2)) == ((2, 0), (1, 0))
    assert padding_for("same", (3, 5), 2) == ((2, 2), (4, 4))
    assert receptive_field((3, 5), [(1, 2), 4]) == (11, 25)
    assert receptive_field(3, [(1, 2), 4]) == (11, 13)


def test_the_worked_example_in_the_documentation_runs() -> None:
    outcome = doctest.testmod(geometry)
    assert (outcome.attempted, outcome.failed) == (3, 0)


def test_the_worked_example_holds_for_layers_over_frequency_and_time() -> None:
    x = torch.zeros(1, 1, 19, 19)
    assert DilatedConv2d(1, 1, 3, dilation=6, padding="same")(x).shape == x.shape
    layers = [DilatedConv2d(1, 1, 3, dilation=d, padding="same") for d in (1, 2, 4)]
    impulse = torch.zeros(1, 1, 19, 19)
    impulse[..., 9, 9] = 1
    reached = []
    for layer in layers:
        nn.init.ones_(layer.weight)
        nn.init.zeros_(layer.bias)
        impulse = layer(impulse)
        reached.append((int(impulse[0, 0].any(1).sum()), int(impulse[0, 0].any(0).sum())))
    assert reached == [(3, 3), (7, 7), (15, 15)]


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
def test_a_layer_over_frequency_and_time_is_a_same_padded_conv2d() -> None:
    ours = DilatedConv2d(2, 3, (4, 3), dilation=(3, 2), padding="same")
    theirs = nn.Conv2d(2, 3, (4, 3), dilation=(3, 2), padding="same")
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(1, 2, 11, 9)
    torch.testing.assert_close(ours(x), theirs(x))


def test_receptive_field_grows_to_15_not_16() -> None:
    assert [receptive_field(3, (1, 2, 4)[:n]) for n in (1, 2, 3)] == [3, 7, 15]
    stack = DilatedStack(GatedResidualBlock(2, kernel_size=3, dilation=d, padding="same") for d in (1, 2, 4))
    assert stack.context == Context(7, 7)
    assert stack.context.receptive_field == 15


def test_impossible_geometry_is_refused(messages: Messages) -> None:
    calls: list[Callable[[], object]] = [
        lambda: effective_kernel_size(0),
        lambda: output_size(5, 3, stride=0),
        lambda: output_size(5, 3, dilation=4),
        lambda: effective_kernel_size((3, 3), (1, 1, 1)),
        lambda: output_size((5, 5), (3, 3, 3)),
        lambda: DilatedConv1d(4, 4, 3, padding="casual"),  # type: ignore[arg-type]
    ]
    for call in calls:
        with messages.refused(ConfigError):
            call()


def test_lists_and_numpys_integers_are_sizes() -> None:
    assert effective_kernel_size(np.int64(3), np.int32(2)) == 5
    assert effective_kernel_size([3, 5], 2) == (5, 9)  # type: ignore[call-overload]
    assert output_size([9, 8], [3, 4], padding=[[1, 1], [4, 5]], dilation=[1, 3]) == (9, 8)  # type: ignore[call-overload]
    assert receptive_field(3, np.array([1, 2, 4])) == 15
    assert type(receptive_field(3, np.array([1, 2, 4]))) is int


def test_what_is_not_a_whole_number_is_refused(messages: Messages) -> None:
    calls: list[Callable[[], object]] = [
        lambda: effective_kernel_size(3.0),  # type: ignore[call-overload]
        lambda: effective_kernel_size(3, 1.5),  # type: ignore[call-overload]
        lambda: effective_kernel_size((3, 2.5)),  # type: ignore[call-overload]
        lambda: effective_kernel_size("3"),  # type: ignore[call-overload]
        lambda: effective_kernel_size(None),  # type: ignore[call-overload]
        lambda: output_size(5.0, 3),  # type: ignore[call-overload]
        lambda: output_size(5, 3, padding=0.5),  # type: ignore[call-overload]
        lambda: output_size(5, (3, 3)),  # type: ignore[call-overload]
        lambda: same_padding(2.0),  # type: ignore[call-overload]
        lambda: causal_padding(3, 1.0),  # type: ignore[arg-type]
        lambda: receptive_field(3, (1, 2.0)),  # type: ignore[arg-type]
    ]
    for call in calls:
        with messages.refused(ConfigError):
            call()
