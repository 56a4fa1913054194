"""The dilated convolution's parameters, and weight normalisation."""

import copy
import warnings

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


@pytest.mark.parametrize("bias", [True, False])
def test_a_depthwise_convolution_of_a_single_step_is_that_of_many(bias: bool) -> None:
    torch.manual_seed(0)
    layer = DilatedConv1d(6, 6, 5, dilation=3, groups=6, bias=bias).double()
    x = torch.randn(2, 6, 20, dtype=torch.float64)
    state, steps = layer.initial_state(2).double(), []
    for index in range(20):
        step, state = layer.step(x[..., index : index + 1], state)
        steps.append(step)
    torch.testing.assert_close(torch.cat(steps, dim=-1), layer(x), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("kernel_size", "groups"), [(1, 1), (5, 6), (5, 1), (1, 6)])
def test_the_layout_in_memory_changes_nothing_but_rounding(kernel_size: int, groups: int) -> None:
    torch.manual_seed(0)
    layer = DilatedConv1d(6, 12, kernel_size, dilation=2, groups=groups, padding="same").double()
    x = torch.randn(2, 6, 9, dtype=torch.float64)
    mask = torch.arange(9)[None, None] < torch.tensor([9, 7])[:, None, None]
    results = []
    for given in (x, x.mT.contiguous().mT):
        output = layer(given.requires_grad_(), mask)
        weights = torch.arange(output.numel(), dtype=torch.float64).view_as(output).sin()
        results.append((output, *torch.autograd.grad((output * weights).sum(), (given, layer.weight, layer.bias))))
    for first, second in zip(*results, strict=True):
        torch.testing.assert_close(first, second, rtol=0, atol=1e-12)


# ---- weight normalisation


class _Layers(nn.Module):
    """One layer of each kind, one of them with weights of zero, as the last layer of a network often begins."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = DilatedConv1d(2, 3, 3)
        self.plane = nn.Conv2d(1, 2, (1, 3))
        self.up = nn.ConvTranspose1d(3, 2, 4, stride=2)
        self.linear = nn.Linear(2, 2)
        self.zero = nn.Conv1d(2, 2, 1)
        nn.init.zeros_(self.zero.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.up(self.conv(x))
        return h + self.zero(h) + self.linear(h.transpose(1, 2)).transpose(1, 2) + self.plane(h[:, None]).mean()


def test_weight_norm_changes_no_output_reaches_every_layer_and_may_be_applied_twice() -> None:
    torch.manual_seed(0)
    layers, x = _Layers(), torch.randn(2, 2, 9)
    plane = torch.randn(2, 2, 9)
    before = layers(x)
    apply_weight_norm(layers)
    names = sorted(name for name, _ in layers.named_parameters() if name.endswith("original0"))
    assert names == [f"{name}.parametrizations.weight.original0" for name in ("conv", "linear", "plane", "up", "zero")]
    torch.testing.assert_close(layers(x), before)
    weights = {name: value.clone() for name, value in layers.state_dict().items()}
    apply_weight_norm(layers)
    assert layers.state_dict().keys() == weights.keys()
    torch.testing.assert_close(layers(x), before)
    layers(plane).square().mean().backward()
    assert all(parameter.grad.isfinite().all() for parameter in layers.parameters())
    assert layers.zero.parametrizations.weight.original0.grad.any()  # it can learn
    fold_weight_norm(layers)
    torch.testing.assert_close(layers(x), before)
    assert not any("parametrizations" in name for name in layers.state_dict())


def test_the_older_weight_norm_of_torch_is_left_alone() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says that it is old
        layer = nn.utils.weight_norm(nn.Conv1d(1, 1, 3))
    apply_weight_norm(layer)
    assert {name for name, _ in layer.named_parameters()} == {"bias", "weight_g", "weight_v"}
