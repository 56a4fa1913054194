"""The parallel WaveNet beyond the laws: the published equations, how it begins, sizes, and what is refused."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from support.contracts import check_streaming
from support.messages import Messages
from support.parallel import BINS, HOP, correction, features_of, randomised, speech_like
from support.recordings import WOMAN, log_mel_distance, mel_of, recording
from support.subjects import vocoder_subject
from support.vocoders import SPEC, new_vocoder, tiny_vocoder
from torch import Tensor

from wavegen.blocks import Context
from wavegen.errors import ConfigError
from wavegen.mel import profile
from wavegen.training.config import TrainingConfig
from wavegen.training.shortest import shortest_segment
from wavegen.vocoders.parallel import ParallelWaveNet

RESIDUAL, GATE, SKIP, CYCLES, DEPTH, WINDOW = 4, 6, 16, 2, 3, 2  # few skips may all end behind a ReLU
SPEECH = profile("bigvgan-24k")


def small(**options: Any) -> ParallelWaveNet:
    """A network of few layers, as it is built for training, for mels of recordings."""
    torch.manual_seed(0)
    shape = {"residual_channels": 8, "gate_channels": 16, "skip_channels": 16, "cycles": 1, "depth": 4}
    vocoder = new_vocoder("parallel", SPEECH, **(shape | options))
    assert isinstance(vocoder, ParallelWaveNet)
    return vocoder.eval()


# --- the published equations ---

Weights = dict[str, Tensor]


def published_weights(factors: tuple[int, ...], *, causal: bool) -> Weights:
    """Random weights under the names of the public implementation of Parallel WaveGAN."""
    generator = torch.Generator().manual_seed(1)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, dtype=torch.float64, generator=generator) * 0.4

    window = WINDOW + 1 if causal else 2 * WINDOW + 1
    weights = {"upsample_net.conv_in.weight": random(BINS, BINS + 2, window)}
    for i, factor in enumerate(factors):  # a stretch lies before each convolution
        weights[f"upsample_net.upsample.up_layers.{2 * i + 1}.weight"] = random(1, 1, 1, 2 * factor + 1)
    shapes = {"first_conv": (RESIDUAL, 2, 1)}
    for i in range(CYCLES * DEPTH):
        shapes[f"conv_layers.{i}.conv"] = (GATE, RESIDUAL, 3)
        weights[f"conv_layers.{i}.conv1x1_aux.weight"] = random(GATE, BINS, 1)
        shapes[f"conv_layers.{i}.conv1x1_out"] = (RESIDUAL, GATE // 2, 1)
        shapes[f"conv_layers.{i}.conv1x1_skip"] = (SKIP, GATE // 2, 1)
    shapes |= {"last_conv_layers.1": (SKIP, SKIP, 1), "last_conv_layers.3": (1, SKIP, 1)}
    for name, shape in shapes.items():
        weights |= {f"{name}.weight": random(*shape), f"{name}.bias": random(shape[0])}
    return weights


def published_generator(w: Weights, z: Tensor, mel: Tensor, factors: tuple[int, ...], *, causal: bool) -> Tensor:
    """arXiv:1910.11480: ``z`` [batch, 2, samples], ``mel`` [batch, bins + 2, frames + 2 · window].

    Here ``z`` is not noise but the sources, and ``mel`` ends with the pitch.
    """
    c = F.conv1d(mel, w["upsample_net.conv_in.weight"])
    c = (c[..., :-WINDOW] if causal else c)[:, None]
    for i, factor in enumerate(factors):
        c = F.interpolate(c, scale_factor=(1, factor), mode="nearest")
        kernel, pad = w[f"upsample_net.upsample.up_layers.{2 * i + 1}.weight"], 2 * factor if causal else factor
        c = F.conv2d(c, kernel, padding=(0, pad))[..., : c.shape[-1]]
    c = c[:, 0]

    x, skips = F.conv1d(z, w["first_conv.weight"], w["first_conv.bias"]), 0
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
    missing, unexpected = model.load_state_dict(own, strict=False)
    assert {name.split(".")[0] for name in missing} == {"stage"}  # follows from the mel, or is shipped
    assert not unexpected


@pytest.mark.parametrize("factors", [(4, 4), (2, 2, 4), (16,)])
@pytest.mark.parametrize("padding", ["same", "causal"])
@torch.no_grad()
def test_the_correction_is_that_of_the_published_equations(padding: str, factors: tuple[int, ...]) -> None:
    causal = padding == "causal"
    model = new_vocoder(
        "parallel", SPEC, padding=padding, residual_channels=RESIDUAL, gate_channels=GATE, skip_channels=SKIP,
        cycles=CYCLES, depth=DEPTH, condition_window=WINDOW, upsample_factors=factors,
    ).double()  # fmt: skip
    assert isinstance(model, ParallelWaveNet)
    weights = published_weights(factors, causal=causal)
    load_published(model, weights)
    features = features_of(model, 9, batch=2)
    f0, voicing = features.spoken.pitch
    octaves = torch.log2(f0 / 150) * voicing
    assert octaves.abs().max() > 0.5
    condition = torch.cat((model.normalised(features.spoken.mel), octaves, 2 * voicing - 1), dim=1)
    padded = F.pad(condition, (WINDOW, WINDOW))
    expected = published_generator(weights, 10 * features.source_samples(), padded, factors, causal=causal)[:, 0]
    assert expected.std() > 0.03  # not all behind a ReLU
    torch.testing.assert_close(correction(model, features), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("iterations", [0, 2])
@torch.no_grad()
def test_the_mel_is_imposed_on_the_sum_of_sources_and_correction(iterations: int) -> None:
    model = randomised(tiny_vocoder("parallel", synthesis_iterations=iterations))
    features = features_of(model, 12)
    samples = features.source_samples().sum(1) + correction(model, features)
    expected = model.projection(samples, features.spoken.mel, iterations=iterations)
    torch.testing.assert_close(model.render(features, None, None, model.iterations), expected, rtol=1e-9, atol=1e-9)


def test_the_defaults_are_the_published_shape() -> None:
    """But for two sources instead of one noise, and for the pitch beside the mel."""
    model = ParallelWaveNet(profile("pwg-22k"))
    per_layer = (128 * 64 * 3 + 128) + 128 * 80 + 2 * (64 * 64 + 64)
    outside = 3 * 64 + (64 * 64 + 64) + (64 + 1) + 82 * 80 * 5 + 80 + 4 * 9  # 80: a bias that theirs has not
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == 30 * per_layer + outside
    assert model.stack.context == Context(3069, 3069)
    assert [stage.hop_length for stage in model.upsample.stages] == [4, 4, 4, 4]
    assert model.network_context == Context(16, 16)
    # A crop must hold what a sample depends on: edges that only ever saw zeros fail on whole clips.
    assert shortest_segment(model, TrainingConfig(steps=1)) == 34


# --- how it begins, and how it is trained ---


@pytest.mark.parametrize("profile_name", ["bigvgan-24k", "vocos-24k"])
@pytest.mark.parametrize(
    "options",
    [
        {"refinement_iterations": 1, "synthesis_iterations": 3},
        {"refinement_iterations": 0, "synthesis_iterations": 0},
        {"padding": "causal", "refinement_iterations": 0, "synthesis_iterations": 2, "weight_norm": True},
    ],
    ids=str,
)
def test_before_training_it_is_the_source_filter_vocoder(options: dict[str, Any], profile_name: str) -> None:
    spec = profile(profile_name)
    iterations = options["refinement_iterations"] + options["synthesis_iterations"]
    mel = mel_of(recording(WOMAN, seconds=0.4), spec).double()
    expected = new_vocoder("source-filter", spec, synthesis_iterations=iterations).double().synthesize(mel, seed=3)
    vocoder = new_vocoder("parallel", spec, cycles=1, depth=3, **options).double()
    torch.testing.assert_close(vocoder.synthesize(mel, seed=3), expected, rtol=0, atol=1e-12)
    assert expected.std() > 0.01


@pytest.mark.parametrize("weight_norm", [False, True])
@pytest.mark.parametrize("padding", ["same", "causal"])
def test_training_begins_there_too_and_its_gradients_reach_every_weight(padding: str, weight_norm: bool) -> None:
    vocoder = small(padding=padding, weight_norm=weight_norm).train()
    audio = torch.from_numpy(recording(WOMAN, seconds=0.4))[None]
    mel = mel_of(audio[0].numpy(), SPEECH)
    generated = vocoder(mel)
    assert torch.equal(vocoder(mel), generated)
    assert log_mel_distance(generated[0].detach().numpy(), mel, SPEECH) < 0.3

    trained = {name: p for name, p in vocoder.named_parameters() if not name.startswith("stage.network.")}
    optimiser = torch.optim.SGD(trained.values(), lr=0.1)
    for reached in ({"output.weight", "output.bias"}, set(trained)):  # at zero, the output lets no gradient through
        optimiser.zero_grad()
        generated = vocoder(mel)
        loss = (generated - audio[:, : generated.shape[1]]).abs().mean()
        loss.backward()
        assert loss.isfinite()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in trained.values())
        assert {name for name, p in trained.items() if p.grad is not None and p.grad.any()} == reached
        optimiser.step()
    assert not any(p.requires_grad or p.grad is not None for p in vocoder.pitch.parameters())


@torch.no_grad()
def test_all_noise_is_that_of_the_source() -> None:
    model, mel = randomised(tiny_vocoder("parallel")), speech_like(8, batch=2)
    seeds = torch.tensor([5, 6])
    sound = model.synthesize(mel, seed=[5, 6])
    assert torch.equal(model.synthesize(mel, seed=[5, 6]), sound)
    assert torch.equal(model.render(model.stage(mel, None, seeds), None, None, model.iterations), sound)
    assert not torch.equal(model.synthesize(mel, seed=[5, 7])[1], sound[1])


@torch.no_grad()
def test_an_item_depends_on_its_own_seed_alone() -> None:
    model, mel = randomised(tiny_vocoder("parallel")), speech_like(6)
    together = model.synthesize(mel.expand(3, -1, -1), seed=[5, 6, 5])
    torch.testing.assert_close(together[0], together[2], rtol=0, atol=1e-10)
    assert (together[0] - together[1]).abs().max() > 1e-3
    torch.testing.assert_close(together[1:2], model.synthesize(mel, seed=6), rtol=0, atol=1e-10)


@pytest.mark.parametrize("engine", ["torch", "tiled"])
@pytest.mark.parametrize("padding", ["same", "causal"])
@torch.no_grad()
def test_what_is_trained_on_depends_on_nothing_but_the_item(padding: str, engine: str) -> None:
    model, mel = randomised(tiny_vocoder("parallel", padding=padding)), speech_like(9, batch=3)
    model.use_engine(engine)
    lengths = torch.tensor([9, 4, 9])
    mask = (torch.arange(9) < lengths[:, None])[:, None]
    together = model(mel * mask, mask)
    for i, length in enumerate(lengths.tolist()):
        alone = model(mel[i : i + 1, :, :length])
        torch.testing.assert_close(together[i : i + 1, : length * HOP], alone, rtol=0, atol=1e-10)
    assert not together[1, 4 * HOP :].any()
    # Other mels get other noise, even where all that differs is rounding.
    assert (model(mel) - model(mel * (1 + 1e-12))).abs().max() > 1e-3


# --- streaming, sizes, refusals ---


@pytest.mark.parametrize("padding", ["same", "causal"])
def test_streaming_is_exact_where_the_network_reads_more_of_the_sources_than_of_the_mel(padding: str) -> None:
    """One layer of a long kernel: a sample reads sources of frames whose mel it does not read."""
    shape = {"padding": padding, "cycles": 1, "depth": 1, "kernel_size": 5 * HOP, "condition_window": 0}
    model = randomised(tiny_vocoder("parallel", **shape))
    assert model.network_context.left > model.frames_conditioned(0, HOP - 1).left
    check_streaming(vocoder_subject("far", model), count=6)


@torch.no_grad()
def test_a_causal_network_adds_no_latency_and_recomputes_nothing() -> None:
    causal, same = (randomised(tiny_vocoder("parallel", padding=padding)) for padding in ("causal", "same"))
    projection, source = causal.projection.context(0), causal.stage.shaped.context
    assert causal.render_context == projection
    assert same.render_context == projection + same.network_context
    assert same.network_context.right > 0
    for model in (causal, same):
        assert model.latency_samples == (source.right + model.render_context.right) * HOP
    assert causal.streaming_overhead(10) == (10 + projection.left + projection.right) / 10

    for model, most in ((causal, 20), (same, 10_000)):
        computed = []
        model.use_engine("torch")
        model.input.register_forward_hook(lambda layer, given, out, to=computed: to.append(out.shape[-1] // HOP))
        state = model.initial_state(1)
        for chunk in speech_like(20).split(2, dim=-1):
            _, state = model.step(chunk, state)
        model.flush(state)
        assert 20 <= sum(computed) <= most
    assert sum(computed) > 20  # the one that looks ahead recomputes its context


@torch.no_grad()
def test_folding_weight_norm_changes_nothing() -> None:
    model = randomised(tiny_vocoder("parallel", weight_norm=True))
    mel = speech_like(9)
    before = model.synthesize(mel)
    assert "stack.blocks.0.conv.parametrizations.weight.original0" in model.state_dict()
    torch.testing.assert_close(model.prepared_for_synthesis().synthesize(mel), before, rtol=0, atol=1e-10)
    assert not [name for name in model.state_dict() if "original" in name]


@pytest.mark.parametrize("options", [{"upsample_factors": (4, 3)}, {"gate_channels": 5}], ids=str)
def test_an_impossible_shape_is_refused(options: dict[str, Any], messages: Messages) -> None:
    with messages.refused(ConfigError):
        new_vocoder("parallel", SPEC, **options)
