"""The numba engine of vocoders with a source stage: each part against torch, and the laws in float32."""

import dataclasses
import math
import re

import numpy as np
import pytest
import torch
from numba import njit
from support.contracts import check_batching, check_length, check_purity, check_streaming
from support.mels import CENTRED_SHORT_WINDOW, TINIEST
from support.messages import Messages
from support.subjects import SPEAKERS, randomised, vocoder_subject
from support.vocoders import small_pitch_network, tiny_vocoder
from torch import Tensor

from wavegen.engines import make_spectral_engine
from wavegen.engines.packed import int8
from wavegen.engines.simd import LANES, load, store
from wavegen.engines.spectral import chain, spectra
from wavegen.engines.spectral import source as compiled_source
from wavegen.engines.spectral import stack as compiled_stack
from wavegen.engines.spectral.chain import CompiledChain
from wavegen.engines.spectral.functions import FUNCTIONS
from wavegen.engines.spectral.products import Product, RowLayer, RowPrecision
from wavegen.engines.spectral.rows import gelu
from wavegen.errors import ConfigError
from wavegen.mel import LogMel, MelSpec, profile
from wavegen.source import Pitch
from wavegen.vocoders import VOCODERS, build_vocoder
from wavegen.vocoders._sourced import SourcedVocoder
from wavegen.vocoders.spectral import LARGEST_CORRECTION, SpectralConfig, SpectralVocoder


@njit
def _gelu_in_place(values: np.ndarray) -> None:
    for i in range(0, len(values), LANES):
        store(values, i, gelu(load(values, i)))


# Frames of a tile and of a group, and one more or less: where a part ends, the next must go on.
FRAMES = [1, 15, 16, 17, 95, 96, 97, 100]
SPECS = [TINIEST, CENTRED_SHORT_WINDOW, profile("bigvgan-24k"), profile("hifigan-22k")]


def compiled(vocoder: SourcedVocoder) -> CompiledChain:
    engine = make_spectral_engine(vocoder, "numba")
    assert isinstance(engine, CompiledChain)
    return engine


def noise_mel(spec: MelSpec, batch: int, frames: int) -> Tensor:
    """The mel of noise whose level changes."""
    samples = torch.randn(batch, frames * spec.hop_length + spec.n_fft)
    samples *= torch.linspace(0.001, 0.5, samples.shape[1])
    return LogMel(spec)(samples)[..., :frames]


def relative(found: Tensor, expected: Tensor) -> float:
    assert found.shape == expected.shape
    return float((found - expected).abs().max() / expected.abs().max())


@pytest.fixture(autouse=True)
def _no_gradients() -> object:
    torch.manual_seed(0)
    with torch.no_grad():
        yield


# ---- the parts --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"{spec.n_fft}-{spec.n_mels}")
def test_the_inverse_of_the_mel_is_that_of_torch(spec: MelSpec) -> None:
    vocoder = tiny_vocoder("source-filter", spec=spec)
    engine = compiled(vocoder)
    for frames in FRAMES:
        mel = noise_mel(spec, 2, frames)
        assert relative(engine.invert(mel), vocoder.stage.mel_inverse(mel)) < 1e-5


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"{spec.n_fft}-{spec.n_mels}")
def test_the_source_is_that_of_torch_whole_and_in_steps(spec: MelSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled_source, "PIECE_FRAMES", 10)
    vocoder = tiny_vocoder("source-filter", spec=spec)
    engine, frames = compiled(vocoder), 23
    magnitude = vocoder.stage.mel_inverse(noise_mel(spec, 2, frames))
    pitch = Pitch(80 + 200 * torch.rand(2, 1, frames), torch.rand(2, 1, frames))
    seeds = torch.tensor([1, 2])
    expected = vocoder.shaped.whole(magnitude, pitch, seeds)
    assert relative(engine.shaped.whole(magnitude, pitch, seeds), expected) < 1e-4
    state, chunks = engine.shaped.initial_state(seeds), []
    for end in (1, 7, 23):
        samples, state = engine.shaped(magnitude, pitch, state, end=end)
        chunks.append(samples)
    assert relative(torch.cat(chunks, dim=-1), expected) < 1e-4


@pytest.mark.parametrize("iterations", [0, 1, 3])
@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"{spec.n_fft}-{spec.n_mels}")
def test_the_projection_is_that_of_torch(spec: MelSpec, iterations: int) -> None:
    vocoder = tiny_vocoder("source-filter", spec=spec)
    engine, projection = compiled(vocoder), vocoder.projection
    for blur_hz in (0.0, 150.0):
        projection.blur_hz = blur_hz
        for frames in FRAMES[:: 1 if spec.n_fft < 1000 else 3]:
            mel, samples = noise_mel(spec, 2, frames), 0.1 * torch.randn(2, frames * spec.hop_length)
            expected = projection(samples, mel, iterations=iterations)
            assert relative(engine.projection(samples[:, None], mel, None, iterations=iterations), expected) < 1e-4


def test_corrections_reach_the_spectra_as_in_torch() -> None:
    vocoder = tiny_vocoder("spectral", spec=TINIEST)
    engine = compiled(vocoder)
    mel = noise_mel(TINIEST, 2, 40)
    features = vocoder.stage(mel, None, torch.tensor([1, 2]))
    bins = TINIEST.n_fft // 2 + 1
    for scale in (0.3, 30.0):  # the larger one meets the limits
        corrections = scale * torch.randn(2, 4 * bins, 40)
        with_them = features._replace(corrections=corrections)
        expected = vocoder.render(with_them, None, None, 1)
        found = vocoder.render(with_them, None, None, 1, engine)
        assert relative(found, expected) < 1e-4
        assert relative(found, vocoder.render(features, None, None, 1)) > 0.1


@pytest.mark.parametrize("config", VOCODERS["spectral"].Config.examples(), ids=str)
def test_the_stack_is_that_of_torch_whole_and_in_steps(config: SpectralConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    vocoder = randomised(build_vocoder(config, TINIEST)).float()
    assert isinstance(vocoder, SpectralVocoder)
    monkeypatch.setattr(compiled_stack, "TILE_VALUES", 128 * config.channels * config.expansion)
    stack, engine = vocoder.stack, compiled(vocoder).stack
    assert engine is not None
    for frames in (1, 3, 8, 9, 15, 127, 128, 129, 300):  # few go through all blocks at once
        x = torch.randn(2, stack.channels, frames)
        assert relative(engine(x)[0], stack(x)[0]) < 1e-5
    if stack.context.right == 0:
        ours, theirs = stack.initial_state(2), stack.initial_state(2)
        for chunk in torch.randn(2, stack.channels, 20).split((1, 2, 0, 7, 10), dim=-1):
            (found, _), ours = engine.step(chunk, ours)
            (expected, _), theirs = stack.step(chunk, theirs)
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
            for mine, their in zip(ours, theirs, strict=True):
                torch.testing.assert_close(mine, their, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-6), (torch.bfloat16, 1e-2)])
def test_products_are_those_of_torch(
    dtype: torch.dtype, bound: float, fused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not fused:  # a torch that has other operations
        monkeypatch.setattr(torch.ops.mkldnn, "_linear_pointwise", None)
    layer, rows = torch.nn.Linear(40, 24), torch.randn(2, 5, 40)
    expected = layer(rows)
    assert relative(Product(layer.weight, layer.bias, dtype)(rows), expected) < bound
    found = Product(layer.weight, layer.bias, dtype, gelu=True)(rows)
    assert found.dtype == dtype
    assert relative(found, torch.nn.functional.gelu(expected)) < bound


@pytest.mark.parametrize(("precision", "bound"), [("float32", 1e-6), ("bfloat16", 1e-2), ("int8", 3e-2)])
@pytest.mark.parametrize("rows", [0, 1, 2, 5, 8, 9, 20])
def test_layers_are_those_of_torch_for_any_number_of_rows(precision: RowPrecision, bound: float, rows: int) -> None:
    if precision == "int8" and not int8.AVAILABLE:
        pytest.skip("this processor has no products of bytes")
    layer, x = torch.nn.Linear(40, 70), torch.randn(2, rows, 40)
    run = FUNCTIONS.get(compiled(tiny_vocoder("source-filter"))._try_out).run_layer
    found = RowLayer(layer.weight, layer.bias, run, precision)(x)
    expected = layer(x)
    assert found.shape == expected.shape
    assert rows == 0 or relative(found.float(), expected) < bound


def test_gelu_is_that_of_torch() -> None:
    x = torch.cat((torch.linspace(-12, 12, 4001), torch.tensor([-1e4, -30.0, -0.0, 1e-30, 30.0, 1e4])))
    x = x[: len(x) // LANES * LANES]
    found = x.clone()
    _gelu_in_place(found.numpy())
    assert ((found - torch.nn.functional.gelu(x.double())).abs() <= 2e-7 * x.abs().double()).all()


# ---- the laws ---------------------------------------------------------------------------------------------------

LAWFUL = [
    (name, config, speakers)
    for name in ("spectral", "source-filter")
    for config in VOCODERS[name].Config.examples()
    for speakers in ((), SPEAKERS)
    if VOCODERS[name].has_speakers or not speakers
]


@pytest.mark.parametrize(("name", "config", "speakers"), LAWFUL, ids=lambda value: str(value)[:60])
def test_the_laws_hold_in_float32(name: str, config: object, speakers: tuple[str, ...]) -> None:
    torch.manual_seed(0)
    if speakers:
        config = config.model_copy(update={"speaker_channels": 2})  # type: ignore[attr-defined]
    with small_pitch_network():
        vocoder = randomised(build_vocoder(config, TINIEST, speakers)).float().prepared_for_synthesis()
    assert vocoder.use_engine("numba").startswith("numba float32")
    whole = vocoder_subject(name, vocoder)
    subject = dataclasses.replace(whole, inputs=lambda b, n: tuple(x.float() for x in whole.inputs(b, n)), rounding=1)
    subject = dataclasses.replace(subject, for_item=lambda i: vocoder_subject(name, vocoder, first_item=i))
    check_length(subject)
    check_purity(subject)
    check_batching(subject, tolerance=1e-3)
    check_streaming(subject, tolerance=1e-3, count=6)


@pytest.mark.parametrize(("precision", "runs"), [("bfloat16", chain.BFLOAT16_RUNS), ("int8", int8.AVAILABLE)])
def test_fewer_bits_change_a_sound_little_and_its_chunks_less(precision: str, runs: bool) -> None:
    for config in VOCODERS["spectral"].Config.examples():
        vocoder = randomised(build_vocoder(config, TINIEST)).float().prepared_for_synthesis()
        mel = noise_mel(TINIEST, 1, 60)
        vocoder.use_engine("numba")
        expected = vocoder.synthesize(mel)
        assert vocoder.use_engine("numba", precision).startswith("numba ")
        whole = vocoder.synthesize(mel)
        assert relative(whole, expected) < 0.1
        assert torch.equal(whole, expected) != runs
        state, chunks = vocoder.initial_state(1), []
        for chunk in mel.split(13, dim=-1):
            samples, state = vocoder.step(chunk, state)
            chunks.append(samples)
        assert relative(torch.cat([*chunks, vocoder.flush(state)], dim=-1), whole) < 0.02


def test_a_stream_goes_on_with_another_engine() -> None:
    for name in ("spectral", "source-filter"):
        for config in VOCODERS[name].Config.examples():
            vocoder = randomised(build_vocoder(config, TINIEST)).float().prepared_for_synthesis()
            mel = noise_mel(TINIEST, 2, 60)
            vocoder.use_engine("torch")
            expected = vocoder.synthesize(mel)
            state, chunks = vocoder.initial_state(2), []
            for engine, chunk in zip(("numba", "torch", "numba"), mel.split(20, dim=-1), strict=True):
                vocoder.use_engine(engine)
                samples, state = vocoder.step(chunk, state)
                chunks.append(samples)
            chunks.append(vocoder.flush(state))
            assert relative(torch.cat(chunks, dim=-1), expected) < 1e-3


def test_readers_of_other_definitions_have_engines_of_their_own() -> None:
    vocoder = tiny_vocoder("source-filter", spec=TINIEST).prepared_for_synthesis()
    assert isinstance(vocoder, SourcedVocoder)
    vocoder.use_engine("numba")
    for spec in (TINIEST, CENTRED_SHORT_WINDOW):
        mel = noise_mel(spec, 1, 20)
        reader = vocoder.for_mel(spec)
        found = reader.synthesize(mel)
        reader.use_engine("torch")
        assert relative(found, reader.synthesize(mel)) < 1e-3
        reader.use_engine("numba")


# ---- the choice -------------------------------------------------------------------------------------------------


def test_auto_waits_until_the_code_is_compiled(monkeypatch: pytest.MonkeyPatch, messages: Messages) -> None:
    monkeypatch.setattr(FUNCTIONS, "is_ready", lambda: False)
    vocoder = tiny_vocoder("spectral")
    messages.check(vocoder.use_engine("auto"))
    monkeypatch.undo()
    assert vocoder.use_engine("numba").startswith("numba float32, vectors of ")
    assert vocoder.use_engine("auto").startswith("numba float32, vectors of ")


@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
@pytest.mark.parametrize("runs", [True, False])
def test_fewer_bits_need_a_processor_that_multiplies_them(
    precision: str, runs: bool, monkeypatch: pytest.MonkeyPatch, messages: Messages
) -> None:
    if precision == "int8" and runs and not int8.AVAILABLE:
        pytest.skip("this processor has no products of bytes")
    monkeypatch.setattr(chain, "BFLOAT16_RUNS", runs)
    monkeypatch.setattr(int8, "AVAILABLE", runs)
    description = tiny_vocoder("spectral").use_engine("numba", precision)
    messages.check(re.sub(r"vectors of \d+", "vectors of N", description))


def test_what_the_engine_does_not_run_is_refused(messages: Messages) -> None:
    vocoder = tiny_vocoder("spectral").double()
    messages.check(vocoder.use_engine("auto"))
    with messages.refused(ConfigError):
        vocoder.use_engine("numba")


def test_gradients_and_training_use_torch() -> None:
    vocoder = tiny_vocoder("spectral", spec=TINIEST)
    vocoder.use_engine("numba")
    assert isinstance(vocoder, SpectralVocoder)
    assert vocoder.compiled() is not None
    with torch.enable_grad():
        assert vocoder.compiled() is None
        assert vocoder(noise_mel(TINIEST, 1, 10)).requires_grad


def test_the_limits_are_those_of_the_vocoder() -> None:
    vocoder = tiny_vocoder("spectral", spec=TINIEST)
    engine = compiled(vocoder)
    mel = noise_mel(TINIEST, 1, 5)
    features = vocoder.stage(mel, None, torch.tensor([0]))
    bins = TINIEST.n_fft // 2 + 1
    limits = LARGEST_CORRECTION, float(TINIEST.window().sum())
    for value in (LARGEST_CORRECTION, 100.0):
        with_them = features._replace(corrections=torch.full((1, 4 * bins, 5), value))
        found = vocoder.render(with_them, None, None, 1, engine)
        at_limits = torch.full((1, 4 * bins, 5), LARGEST_CORRECTION)
        at_limits[:, 3 * bins :] = value  # the phase has none
        expected = engine.projection(
            features.source_samples(), mel, None, iterations=1, corrections=at_limits, limits=limits
        )
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("angle", [0.0, 0.5, math.pi / 2, -3.0, 100.0, -3000.0])
def test_compiled_functions_are_those_of_numpy(angle: float) -> None:
    found = spectra.turn(np.float32(angle))
    np.testing.assert_allclose(found, (np.cos(np.float32(angle)), np.sin(np.float32(angle))), rtol=0, atol=2e-7)
    for limit in (1.0, 87.0):
        x = np.float32(np.clip(angle, -limit, limit))
        np.testing.assert_allclose(spectra.bounded_exp(np.float32(angle), np.float32(limit)), np.exp(x), rtol=3e-7)
