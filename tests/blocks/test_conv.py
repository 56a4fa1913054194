"""The dilated convolution's parameters, and weight normalisation."""

import copy

import pytest
import torch
from torch import nn

from wavegen.blocks import (
    DilatedConv1d,
    GatedResidualBlock,
    SeparableResidualBlock,
    apply_weight_norm,
    fold_weight_norm,
)


def test_state_dict_keys_are_those_of_a_plain_convolution() -> None:
    assert set(DilatedConv1d(2, 3, 3).state_dict()) == {"weight", "bias"}


@pytest.mark.parametrize("kind", [GatedResidualBlock, SeparableResidualBlock])
def test_folding_weight_norm_changes_nothing_beyond_rounding(kind: type[nn.Module]) -> None:
    torch.manual_seed(0)
    module = apply_weight_norm(kind(6, dilation=2)).double()
    for name, parameter in module.named_parameters():
        if name.endswith("original0"):
            nn.init.uniform_(parameter, 0.5, 2.0)  # away from the norms that the weights have anyway
    x = torch.randn(2, 6, 30).double()
    before = module(x)[0]
    folded = fold_weight_norm(copy.deepcopy(module))
    assert not [name for name in folded.state_dict() if "original" in name]
    torch.testing.assert_close(folded(x)[0], before, rtol=1e-12, atol=1e-12)


def test_a_folded_module_refuses_weights_saved_before_folding() -> None:
    unfolded = apply_weight_norm(GatedResidualBlock(4))
    folded = fold_weight_norm(copy.deepcopy(unfolded))
    with pytest.raises(RuntimeError, match="Missing key"):
        folded.load_state_dict(unfolded.state_dict())
