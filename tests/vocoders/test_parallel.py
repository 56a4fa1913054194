"""The parallel WaveNet beyond the laws: the published equations, noise, sizes, and what is refused."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from support.contracts import check_streaming
from support.messages import Messages
from support.subjects import vocoder_subject
from support.vocoders import SPEC, new_vocoder, tiny_vocoder
from torch import Tensor, nn

from wavegen.blocks import Context
from wavegen.engines import TiledEngine
from wavegen.errors import ConfigError
from wavegen.mel import profile
from wavegen.noise import normal_noise
from wavegen.training.config import TrainingConfig
from wavegen.training.objectives import shortest_segment
from wavegen.vocoders.parallel import ParallelWaveNet

HOP, BINS = SPEC.hop_length, SPEC.n_mels
RESIDUAL, GATE, SKIP, CYCLES, DEPTH, WINDOW = 4, 6, 16, 2, 3, 2  # few skips may all end behind a ReLU


def randomised(model: ParallelWaveNet) -> ParallelWaveNet:
    torch.manual_seed(0)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.4)
    return model.double().eval()


# --- the published equations ---

Weights = dict[str, Tensor]


def published_weights(factors: tuple[int, ...], *, causal: bool) -> Weights:
    """Random weights under the names of the public implementation of Parallel WaveGAN."""
    generator = torch.Generator().manual_seed(1)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, dtype=torch.float64, generator=generator) * 0.4

    window = WINDOW + 1 if causal else 2 * WINDOW + 1
    weights = {"upsample_net.conv_in.weight": random(BINS, BINS, window)}
    for i, factor in enumerate(factors):  # a stretch lies before each convolution
        weights[f"upsample_net.upsample.up_layers.{2 * i + 1}.weight"] = random(1, 1, 1, 2 * factor + 1)
    shapes = {"first_conv": (RESIDUAL, 1, 1)}
    for i in range(CYCLES * DEPTH):
        shapes[f"conv_layers.{i}.conv"] = (GATE, RESIDUAL, 3)
        weights[f"conv_layers.{i}.conv1x1_aux.weight"] = random(GATE, BINS, 1)
        shapes[f"conv_layers.{i}.conv1x1_out"] = (RESIDUAL, GATE // 2, 1)
        shapes[f"conv_layers.{i}.conv1x1_skip"] = (SKIP, GATE // 2, 1)
    shapes |= {"last_conv_layers.1": (SKIP, SKIP, 1), "last_conv_layers.3": (1, SKIP, 1)}
    for name, shape in shapes.items():
        weights |= {f"{name}.weight": random(*shape), f"{name}.bias": random(shape[0])}
    return weights


def published_generator(w: Weights, noise: Tensor, mel: Tensor, factors: tuple[int, ...], *, causal: bool) -> Tensor:
    """arXiv:1910.11480: ``noise`` [batch, 1, samples], ``mel`` [batch, bins, frames + 2 · window]."""
    c = F.conv1d(mel, w["upsample_net.conv_in.weight"])
    c = (c[..., :-WINDOW] if causal else c)[:, None]
    for i, factor in enumerate(factors):
        c = F.interpolate(c, scale_factor=(1, factor), mode="nearest")
        kernel, pad = w[f"upsample_net.upsample.up_layers.{2 * i + 1}.weight"], 2 * factor if causal else factor
        c = F.conv2d(c, kernel, padding=(0, pad))[..., : c.shape[-1]]
    c = c[:, 0]

    x, skips = F.conv1d(noise, w["first_conv.weight"], w["first_conv.bias"]), 0
    for i in range(CYCLES * DEPTH):
        name, dilation = f"conv_layers.{i}", 2 ** (i % DEPTH)
        pad = 2 * dilation if causal else dilation
        h = F.conv1d(x, w[f"{name}.conv.weight"], w[f"{name}.conv.bias"], padding=pad, dilation=dilation)
        h_a, h_b = h[..., : x.shape[-1]].split(GATE // 2, dim=1)
        c_a, c_b = F.conv1d(c, w[f"{name}.conv1x1_aux.weight"]).split(GATE // 2, dim=1)
        h = torch.tanh(h_a + c_a) * torch.sigmoid(h_b + c_b)
        skips = skips + F.conv1d(h, w[f"{name}.conv1x1_skip.weight"], w[f"{name}.conv1x1_skip.bias"])
        x = (x + F.conv1d(h, w[f"{name}.conv1x1_out.weight"], w[f"{name}.conv1x1_out.bias"])) * math.sqrt(0.5)
    x = F.relu(skips * math.sqrt(1 / (CYCLES * DEPTH)))
    x = F.relu(F.conv1d(x, w["last_conv_layers.1.weight"], w["last_conv_layers.1.bias"]))
    return F.conv1d(x, w["last_conv_layers.3.weight"], w["last_conv_layers.3.bias"])


def load_published(model: ParallelWaveNet, w: Weights) -> None:
    """The mapping that the docstring of ``ParallelWaveNet`` states."""
    own = {"frame_conv.weight": w["upsample_net.conv_in.weight"], "frame_conv.bias": torch.zeros(BINS)}
    for i in range(len(model.upsample.stages)):
        own[f"upsample.stages.{i}.kernel"] = w[f"upsample_net.upsample.up_layers.{2 * i + 1}.weight"][0, 0, 0].flip(0)
    for kind in ("weight", "bias"):
        own[f"input.{kind}"] = w[f"first_conv.{kind}"]
        own[f"hidden.{kind}"], own[f"output.{kind}"] = (w[f"last_conv_layers.{i}.{kind}"] for i in (1, 3))
        for i in range(CYCLES * DEPTH):
            theirs, ours = f"conv_layers.{i}", f"stack.blocks.{i}"
            own[f"{ours}.conv.{kind}"] = w[f"{theirs}.conv.{kind}"]
            own[f"{ours}.output.{kind}"] = torch.cat([w[f"{theirs}.conv1x1_{n}.{kind}"] for n in ("out", "skip")])
    for i in range(CYCLES * DEPTH):
        own[f"stack.blocks.{i}.condition.weight"] = w[f"conv_layers.{i}.conv1x1_aux.weight"]
    model.load_state_dict(own)


@pytest.mark.parametrize("factors", [(4, 4), (2, 2, 4), (16,)])
@pytest.mark.parametrize("padding", ["same", "causal"])
@torch.no_grad()
def test_the_output_is_that_of_the_published_equations(padding: str, factors: tuple[int, ...]) -> None:
    causal = padding == "causal"
    model = new_vocoder(
        "parallel", SPEC, padding=padding, residual_channels=RESIDUAL, gate_channels=GATE, skip_channels=SKIP,
        cycles=CYCLES, depth=DEPTH, condition_window=WINDOW, upsample_factors=factors,
    ).double()  # fmt: skip
    weights = published_weights(factors, causal=causal)
    load_published(model, weights)
    mel = torch.randn(2, BINS, 9, dtype=torch.float64)
    noise = torch.randn(2, 9 * HOP, dtype=torch.float64)
    padded = F.pad(model.normalised(mel), (WINDOW, WINDOW))
    expected = published_generator(weights, noise[:, None], padded, factors, causal=causal)[:, 0]
    assert expected.std() > 0.03  # not all behind a ReLU
    torch.testing.assert_close(model(mel, noise=noise), expected, rtol=1e-12, atol=1e-12)


def test_the_defaults_are_the_published_shape() -> None:
    with torch.device("meta"):
        model = ParallelWaveNet(profile("pwg-22k"))
    per_layer = (128 * 64 * 3 + 128) + 128 * 80 + 2 * (64 * 64 + 64)
    outside = 2 * 64 + (64 * 64 + 64) + (64 + 1) + 80 * 80 * 5 + 80 + 4 * 9  # 80: a bias that theirs has not
    assert sum(p.numel() for p in model.parameters()) == 30 * per_layer + outside
    assert model.stack.context == Context(3069, 3069)
    assert [stage.hop_length for stage in model.upsample.stages] == [4, 4, 4, 4]
    assert model.context == Context(16, 16)
    # A crop must hold what a sample depends on: edges that only ever saw zeros fail on whole clips.
    assert shortest_segment(model, TrainingConfig(steps=1)) == 34


# --- noise ---


@torch.no_grad()
def test_the_noise_is_that_of_the_seed_and_the_position() -> None:
    model = tiny_vocoder("parallel").double()
    mel = torch.randn(2, BINS, 12, dtype=torch.float64)
    noise = normal_noise(torch.tensor([5, 6]), 0, 12 * HOP, 1)[:, 0].double()
    torch.testing.assert_close(model.synthesize(mel, seed=[5, 6]), model(mel, noise=noise))
    later = normal_noise(torch.tensor([5, 6]), 3 * HOP, 12 * HOP, 1)[:, 0].double()
    torch.testing.assert_close(model.generate(mel, None, torch.tensor([5, 6]), 3), model(mel, noise=later))


@torch.no_grad()
def test_an_item_depends_on_its_own_seed_alone() -> None:
    model, mel = tiny_vocoder("parallel").double(), torch.randn(1, BINS, 6, dtype=torch.float64)
    together = model.synthesize(mel.expand(3, -1, -1), seed=[5, 6, 5])
    assert torch.equal(together[0], together[2])
    assert not torch.equal(together[0], together[1])
    torch.testing.assert_close(together[1:2], model.synthesize(mel, seed=6), rtol=1e-12, atol=1e-12)


@torch.no_grad()
def test_what_is_trained_on_depends_on_nothing_but_the_item() -> None:
    model, mel = tiny_vocoder("parallel").double(), torch.randn(3, BINS, 9, dtype=torch.float64)
    lengths = torch.tensor([9, 4, 9])
    mask = (torch.arange(9) < lengths[:, None])[:, None]
    together = model(mel, mask)
    for i, length in enumerate(lengths.tolist()):
        alone = model(mel[i : i + 1, :, :length])
        torch.testing.assert_close(together[i : i + 1, : length * HOP], alone, rtol=1e-12, atol=1e-12)
    assert not together[1, 4 * HOP :].any()
    # Other mels get other noise, even where all that differs is rounding.
    assert (model(mel) - model(mel * (1 + 1e-12))).abs().max() > 0.01


def test_gradients_reach_every_parameter() -> None:
    model = tiny_vocoder("parallel", weight_norm=True)
    model(torch.randn(1, BINS, 12)).square().sum().backward()
    # The last block's residual goes nowhere, and neither do the biases' halves of it.
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


# --- streaming, sizes, refusals ---


@pytest.mark.parametrize("padding", ["same", "causal"])
def test_streaming_is_exact_where_noise_reaches_further_than_mel(padding: str) -> None:
    """One layer of a long kernel: a sample reads noise for frames whose mel it does not read."""
    shape = {"padding": padding, "cycles": 1, "depth": 1, "kernel_size": 5 * HOP, "condition_window": 0}
    model = randomised(tiny_vocoder("parallel", **shape))
    first, _ = model.upsample.frames_reached(0, HOP - 1)
    assert model.context.left > -first
    check_streaming(vocoder_subject("far", model), count=6)


@torch.no_grad()
def test_a_causal_model_lags_by_nothing_and_recomputes_nothing() -> None:
    causal, same = (tiny_vocoder("parallel", padding=padding) for padding in ("causal", "same"))
    assert (causal.latency_samples, causal.streaming_overhead(1)) == (0, 1.0)
    assert same.latency_samples == same.context.right * HOP > 0
    samples, state = causal.step(torch.randn(1, BINS, 1), causal.initial_state(1))
    assert samples.shape == (1, HOP)
    assert causal.flush(state).shape == (1, 0)


@torch.no_grad()
def test_folding_weight_norm_changes_nothing() -> None:
    model = randomised(tiny_vocoder("parallel", weight_norm=True))
    mel = torch.randn(1, BINS, 9, dtype=torch.float64)
    before = model.synthesize(mel)
    torch.testing.assert_close(model.prepared_for_synthesis().synthesize(mel), before, rtol=1e-12, atol=1e-12)
    assert not [name for name in model.state_dict() if "original" in name]


@pytest.mark.parametrize("options", [{"upsample_factors": (4, 3)}, {"gate_channels": 5}], ids=str)
def test_an_impossible_shape_is_refused(options: dict[str, Any], messages: Messages) -> None:
    with messages.refused(ConfigError):
        new_vocoder("parallel", SPEC, **options)


# --- the tiled engine ---


def engine_alone(model: ParallelWaveNet, mel: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """What ``synthesize`` makes, by tiles on a CPU, and what the network makes of the same noise."""
    noise = normal_noise(torch.full((len(mel),), seed), 0, mel.shape[-1] * HOP, 1)[:, 0].to(mel.dtype)
    return model.synthesize(mel, seed=seed), model(mel, noise=noise)


@pytest.mark.parametrize("tile", [1, 2 * HOP, 3 * HOP + 1, 1024])  # a part of a frame is a frame
@pytest.mark.parametrize("padding", ["same", "causal"])
@torch.no_grad()
def test_tiles_of_any_size_make_what_the_network_makes(
    padding: str, tile: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wavegen.engines.parallel.TILE_SAMPLES", tile)
    shape = {"padding": padding, "cycles": 2, "depth": 6, "kernel_size": 3}
    model = randomised(tiny_vocoder("parallel", **shape))
    tiled, whole = engine_alone(model, torch.randn(2, BINS, 11, dtype=torch.float64), 3)
    assert whole.std() > 0.01
    torch.testing.assert_close(tiled, whole, rtol=0, atol=1e-12 * float(whole.abs().max()))
    assert not torch.equal(tiled, whole)  # else it was not the engine that made them


@pytest.mark.parametrize("padding", ["same", "causal"])
@torch.no_grad()
def test_in_float32_tiles_stay_within_3e_5_of_the_largest_sample(padding: str) -> None:
    torch.manual_seed(0)
    model = new_vocoder("parallel", SPEC, padding=padding, cycles=2, depth=6)
    tiled, whole = engine_alone(model, torch.randn(1, BINS, 40), 3)
    assert 0 < (tiled - whole).abs().max() < 3e-5 * whole.abs().max()


@torch.no_grad()
def test_tiles_follow_a_change_of_the_weights() -> None:
    model, mel = randomised(tiny_vocoder("parallel")), torch.randn(1, BINS, 6, dtype=torch.float64)
    before = model.synthesize(mel)
    model.stack.blocks[1].conv.weight.data.mul_(1.1)
    tiled, whole = engine_alone(model, mel, 0)
    torch.testing.assert_close(tiled, whole, rtol=1e-12, atol=1e-12)
    assert (tiled - before).abs().max() > 1e-4


@torch.no_grad()
def test_what_tiles_keep_of_a_long_piece_is_its_end_alone() -> None:
    model = tiny_vocoder("parallel", padding="causal")
    noise, frames = torch.randn(50 * HOP), torch.randn(4, 50)
    _, after = TiledEngine(model).run(noise, frames, model.stack.initial_state(1))
    kept = [history.untyped_storage().nbytes() for history in after]
    assert kept == [4 * history.numel() for history in after]
