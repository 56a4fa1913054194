"""Masks of frames and samples, and what lies outside them."""

import pytest
import torch
from support.messages import Messages

from wavegen.blocks import DilatedConv1d, frame_mask, masked, sample_mask
from wavegen.errors import ConfigError


def test_a_frame_is_real_before_its_items_length() -> None:
    mask = frame_mask(torch.tensor([3, 0, 2]), 3)
    assert mask.tolist() == [[[True, True, True]], [[False, False, False]], [[True, True, False]]]


def test_every_sample_of_a_real_frame_is_real() -> None:
    mask = sample_mask(frame_mask(torch.tensor([2, 1]), 2), 3)
    assert mask.tolist() == [[[True] * 6], [[True] * 3 + [False] * 3]]


def test_without_lengths_there_is_no_mask() -> None:
    x = torch.randn(2, 3, 4)
    mask = frame_mask(None, 4)
    assert mask is None
    assert sample_mask(mask, 5) is None
    assert masked(x, mask) is x


def test_whatever_lies_outside_the_mask_becomes_zero() -> None:
    x = torch.tensor([[[1.0, torch.nan, torch.inf]], [[2.0, 3.0, torch.nan]]])
    assert masked(x, frame_mask(torch.tensor([1, 2]), 3)).tolist() == [[[1, 0, 0]], [[2, 3, 0]]]


def test_a_mask_of_another_type_or_shape_is_refused(messages: Messages) -> None:
    x = torch.randn(2, 2, 5)
    for mask in (
        torch.ones(2, 1, 5),
        torch.ones(2, 1, 5, dtype=torch.int64),
        torch.ones(2, 5, dtype=torch.bool),  # would be taken for one of channels
        torch.ones(2, 1, 4, dtype=torch.bool),
        torch.ones(3, 1, 5, dtype=torch.bool),
        torch.ones(5, dtype=torch.bool),
    ):
        with messages.refused(ConfigError):
            masked(x, mask)
        with pytest.raises(ConfigError):
            DilatedConv1d(2, 2, 3)(x, mask)
