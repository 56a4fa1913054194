"""The blocks beyond the laws: sizes against real convolutions, folding, interpolation, inversion."""

import copy
import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from wavegen.blocks import (
    Context,
    DilatedConv1d,
    DilatedStack,
    GatedResidualBlock,
    HoldUpsampler,
    InverseSTFT,
    SeparableResidualBlock,
    StagedUpsampler,
    apply_weight_norm,
    causal_padding,
    effective_kernel_size,
    exponential_dilations,
    fold_weight_norm,
    griffin_lim,
    output_size,
    receptive_field,
    same_padding,
    small_factors,
)
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


def test_receptive_field_grows_to_15_not_16() -> None:
    assert [receptive_field(3, (1, 2, 4)[:n]) for n in (1, 2, 3)] == [3, 7, 15]
    stack = DilatedStack(GatedResidualBlock(2, kernel_size=3, dilation=d, padding="same") for d in (1, 2, 4))
    assert stack.context == Context(7, 7)
    assert stack.context.receptive_field == 15


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: effective_kernel_size(0), "kernel_size is 0; give a whole number of at least 1"),
        (lambda: output_size(5, 3, stride=0), "stride is 0; give a whole number of at least 1"),
        (
            lambda: output_size(5, 3, dilation=4),
            "an input of 5 steps padded by 0 + 0 is shorter than the kernel's span of 9; "
            "give at least 9 steps, or pad more",
        ),
        (lambda: effective_kernel_size((3, 3), (1, 1, 1)), "arguments for 2 and 3 dimensions; give one entry each"),
        (lambda: DilatedConv1d(4, 4, 3, padding="casual"), "padding is 'casual'; give 'causal' or 'same'"),  # type: ignore[arg-type]
        (lambda: HoldUpsampler(4, padding="valid"), "padding is 'valid'; give 'causal' or 'same'"),  # type: ignore[arg-type]
        (lambda: GatedResidualBlock(4, gate_channels=5), "gate_channels is 5; the gate halves it: give an even number"),
        (
            lambda: StagedUpsampler((4, 0)),
            "upsampling factors (4, 0); give whole numbers of at least 1",
        ),
        (lambda: DilatedStack([]), "a stack of no blocks; give at least one"),
        (
            lambda: GatedResidualBlock(4, condition_channels=2)(torch.zeros(1, 4, 5)),
            "a block with 2 condition channels got no condition; pass condition=, or build it with "
            "condition_channels=0",
        ),
    ],
)
def test_impossible_geometry_says_why(call: object, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        call()  # type: ignore[operator]
    assert str(caught.value) == message


def test_exponential_dilations() -> None:
    assert exponential_dilations(3, 4) == (1, 2, 4, 8) * 3
    assert exponential_dilations(1, 3, base=3) == (1, 3, 9)


def test_state_dict_keys_are_those_of_a_plain_convolution() -> None:
    assert set(DilatedConv1d(2, 3, 3).state_dict()) == {"weight", "bias"}


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


def test_upsampling_starts_as_linear_interpolation() -> None:
    y = HoldUpsampler(4)(torch.tensor([[[0.0, 4.0, 4.0, 0.0]]]))
    assert y[0, 0].tolist() == [0, 0, 0, 0, 1, 2, 3, 4, 4, 4, 4, 4, 3, 2, 1, 0]


@pytest.mark.parametrize(
    ("n_fft", "win", "hop", "left"), [(64, 64, 16, 24), (64, 64, 16, 32), (60, 40, 13, 30), (64, 48, 16, 24)]
)
def test_inverse_stft_inverts_and_agrees_with_torch(n_fft: int, win: int, hop: int, left: int) -> None:
    torch.manual_seed(0)
    window = F.pad(torch.hann_window(win, dtype=torch.float64), ((n_fft - win) // 2, n_fft - win - (n_fft - win) // 2))
    layer = InverseSTFT(n_fft, hop, window, left_padding=left)
    x = torch.randn(2, 9 * hop, dtype=torch.float64)
    spectrum = layer.analyse(x)
    torch.testing.assert_close(layer(spectrum), x)  # all of it, the first and last samples too
    if left == n_fft // 2:
        theirs = torch.istft(spectrum, n_fft, hop, window=window, center=True, length=8 * hop)
        torch.testing.assert_close(layer(spectrum)[:, : 8 * hop], theirs)


def test_griffin_lim_approaches_a_consistent_spectrum_and_momentum_hastens_it() -> None:
    torch.manual_seed(0)
    layer = InverseSTFT(64, 16, torch.hann_window(64, dtype=torch.float64), left_padding=24)
    time = torch.arange(40 * 16) / 8000
    x = torch.stack([torch.sin(2 * math.pi * f * time) for f in (300.0, 1234.0)]).double()
    magnitude = layer.analyse(x).abs()
    start = magnitude.to(torch.complex128)

    def error(iterations: int, momentum: float) -> float:
        spectrum = griffin_lim(layer, magnitude, start, iterations=iterations, momentum=momentum)
        return float((layer.analyse(layer(spectrum)).abs() - magnitude).norm() / magnitude.norm())

    assert error(0, 0.0) > error(4, 0.0) > error(20, 0.0) > error(20, 0.99)


def test_left_padding_that_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError, match="must lie between 0 and n_fft - hop_length"):
        InverseSTFT(64, 16, torch.hann_window(64), left_padding=50)
