"""Fast engines against the reference: the same numbers, the same samples, and the laws of streaming and batching."""

import copy
import inspect
import os
import pickle
import platform
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from support.vocoders import SPEC, new_vocoder, tiny_mel, write_model
from torch import Tensor, nn

from wavegen.commands import synth
from wavegen.engines import Engine, HeldCondition, ReferenceEngine, make_engine
from wavegen.errors import ConfigError, StreamingError
from wavegen.mel import MelSpec, save_mel
from wavegen.vocoders.wavenet import WaveNet

MEL = MelSpec(
    sample_rate_hz=8000, n_fft=32, win_length=32, hop_length=8, n_mels=6, f_min_hz=0, f_max_hz=4000,
    scale="slaney", norm="slaney", log="ln", floor=1e-5, center=False, magnitude_eps=1e-9,
)  # fmt: skip
CONDITION = 5
LOGIT_BOUND, INT16_LOGIT_BOUND = 1e-3, 3e-2  # of logits of about 5

# name: (output, residual, skip, hidden, cycles, depth, kernel). Channels that are no multiple of any vector, panels of
# every width, dilations shorter and longer than a block of samples.
SHAPES = {
    "wide": ("mu-law", 70, 100, 40, 1, 3, 2),
    "deep": ("mu-law", 20, 17, 33, 2, 9, 2),
    "no-past": ("mu-law", 8, 16, 16, 1, 2, 1),
    "three-taps": ("logistic-mixture", 9, 33, 20, 2, 5, 3),
    "one-block": ("gaussian", 16, 8, 8, 1, 1, 2),
    "gaussian": ("gaussian", 33, 40, 24, 1, 6, 2),
}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """The reference's steps are too small to share; where cores are busy, waiting for the other takes longer."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def network(name: str) -> WaveNet:
    output, residual, skip, hidden, cycles, depth, kernel = SHAPES[name]
    torch.manual_seed(0)
    model = new_vocoder(
        "wavenet", MEL, output=output, residual_channels=residual, skip_channels=skip, hidden_channels=hidden,
        condition_channels=CONDITION, cycles=cycles, depth=depth, kernel_size=kernel,
    )  # fmt: skip
    for parameter_name, parameter in model.named_parameters():
        fan_in = parameter[0].numel() if parameter.dim() > 1 else 4
        # The last layer speaks up, so that distributions are neither flat nor certain.
        nn.init.normal_(parameter, std=(3 if parameter_name == "output.weight" else 1) * fan_in**-0.5)
    if output != "mu-law":
        # A component that is wide forgets the past at the clip; a narrow one makes rounding matter.
        with torch.no_grad():
            model.output.bias.sub_(3.0)
            model.output.bias[: -(len(model.output.bias) // (3 if output == "logistic-mixture" else 2))].add_(3.0)
    return model.eval().requires_grad_(False)


def inputs(model: WaveNet, batch: int, samples: int, *, seed: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """Previous samples ``[batch, samples]``, a condition for each sample, and noise."""
    generator = torch.Generator().manual_seed(seed)
    given = torch.rand(batch, samples, generator=generator) * 2 - 1
    condition = torch.randn(batch, CONDITION, samples, generator=generator)
    return given, condition, torch.rand(batch, model.distribution.draws, samples, generator=generator)


def agreeing(one: Tensor, other: Tensor) -> int:
    """Samples from the start on that are the same up to rounding, over all items the fewest."""
    return int(((one - other).abs() < 1e-3).int().cumprod(dim=1).sum(dim=1).min())


def pieces(engine: Engine, condition: Tensor, noise: Tensor, sizes: list[int]) -> Tensor:
    previous, state, made = torch.zeros(len(noise)), engine.initial_state(len(noise)), []
    for c, u in zip(condition.split(sizes, dim=2), noise.split(sizes, dim=2), strict=True):
        samples, state = engine.generate(previous, c, u, state)
        made.append(samples)
        previous = samples[:, -1] if samples.shape[1] else previous
    return torch.cat(made, dim=1)


@cache
def reference_logits(name: str) -> Tensor:
    """The reference's over 2,000 samples of ``inputs``, ``[1, channels, 2000]``."""
    model = network(name)
    given, condition, _ = inputs(model, 1, 2000)
    reference = ReferenceEngine(model)
    return reference.predict(given, condition, reference.initial_state(1))[0]


def check_logits(name: str, expected: Tensor) -> None:
    """Both precisions of the numba engine against the reference."""
    model = network(name)
    given, condition, _ = inputs(model, 1, 2000)
    assert expected.std() > 0.1
    for precision, bound in (("float32", LOGIT_BOUND), ("int16", INT16_LOGIT_BOUND)):
        engine = make_engine(model, "numba", precision)
        got, _ = engine.predict(given, condition, engine.initial_state(1))
        assert got.shape == expected.shape
        assert (got - expected).abs().max() < bound, (name, precision)


def check_lock_step(name: str, precision: str) -> None:
    """Items together are what they are alone, bit for bit, whatever is left over beside whole groups of 8 or 4."""
    model = network(name)
    engine = make_engine(model, "numba", precision)
    _, condition, noise = inputs(model, 15, 60)
    alone = [
        engine.generate(torch.zeros(1), condition[i : i + 1], noise[i : i + 1], engine.initial_state(1))
        for i in range(15)
    ]
    for batch in (1, 2, 5, 8, 15):
        together, (_, *memories) = engine.generate(
            torch.zeros(batch), condition[:batch], noise[:batch], engine.initial_state(batch)
        )
        for i, (samples, (_, *expected)) in enumerate(alone[:batch]):
            assert torch.equal(together[i], samples[0])
            for part, one in zip(memories, expected, strict=True):
                assert torch.equal(part[i], one[0])


@pytest.mark.parametrize("name", SHAPES)
def test_logits_are_the_references_over_2000_samples(name: str) -> None:
    check_logits(name, reference_logits(name))


@pytest.mark.parametrize("name", ["deep", "three-taps", "gaussian"])
def test_the_same_seed_gives_the_references_samples(name: str) -> None:
    """All 1500 of two items, in every shape here; in general until a draw falls between two roundings."""
    model = network(name)
    _, condition, noise = inputs(model, 2, 1500)
    samples = [
        e.generate(torch.zeros(2), condition, noise, e.initial_state(2))[0]
        for e in (ReferenceEngine(model), make_engine(model, "numba"))
    ]
    assert samples[0].std() > 0.01
    assert agreeing(*samples) == 1500


@pytest.mark.parametrize("name", ["deep", "three-taps", "gaussian"])
@pytest.mark.parametrize("temperature", [0.0, 0.6])
def test_temperature(name: str, temperature: float) -> None:
    model = network(name)
    _, condition, noise = inputs(model, 1, 300)
    samples = [
        e.generate(torch.zeros(1), condition, noise, e.initial_state(1), temperature=temperature)[0]
        for e in (ReferenceEngine(model), make_engine(model, "numba"))
    ]
    assert agreeing(*samples) == 300
    engine = make_engine(model, "numba")
    with pytest.raises(ConfigError, match="temperature: -1 is negative"):
        engine.generate(torch.zeros(1), condition, noise, engine.initial_state(1), temperature=-1)


@pytest.mark.parametrize("precision", ["float32", "int16"])
@pytest.mark.parametrize("name", ["deep", "three-taps", "one-block"])
def test_pieces_of_any_length_are_the_whole_exactly(name: str, precision: str) -> None:
    model = network(name)
    engine = make_engine(model, "numba", precision)
    _, condition, noise = inputs(model, 2, 700)
    whole = pieces(engine, condition, noise, [700])
    for sizes in ([1, 2, 3, 0, 5, 600, 89], [8] * 87 + [4], [512, 188]):
        assert torch.equal(pieces(engine, condition, noise, sizes), whole)


@pytest.mark.parametrize("precision", ["float32", "int16"])
@pytest.mark.parametrize("name", SHAPES)
def test_items_in_lock_step_are_the_same_alone(name: str, precision: str) -> None:
    check_lock_step(name, precision)


def test_an_item_in_lock_step_that_is_no_number_harms_no_other() -> None:
    model = network("deep")
    engine = make_engine(model, "numba")
    _, condition, noise = inputs(model, 8, 40)
    expected = pieces(engine, condition, noise, [40])
    condition[3] = torch.nan
    got = pieces(engine, condition, noise, [40])
    others = [0, 1, 2, 4, 5, 6, 7]
    assert torch.equal(got[others], expected[others])


def test_the_state_that_is_given_stays_as_it_is() -> None:
    model = network("deep")
    engine = make_engine(model, "numba")
    given, condition, noise = inputs(model, 1, 50)
    _, state = engine.generate(given[:, 0], condition, noise, engine.initial_state(1))
    before = [part.clone() for part in state]
    first, second = (engine.generate(given[:, 0], condition, noise, state) for _ in range(2))
    engine.predict(given, condition, state)
    assert torch.equal(first[0], second[0])
    assert all(torch.equal(*parts) for parts in zip(first[1], second[1], strict=True))
    assert all(torch.equal(*parts) for parts in zip(before, state, strict=True))


def test_a_held_condition_is_the_samples_that_it_stands_for() -> None:
    model = network("deep")
    held = HeldCondition(torch.randn(2, CONDITION, 21), torch.rand(2, 30))
    condition = held.per_sample()
    assert condition.shape == (2, CONDITION, held.samples) == (2, CONDITION, 600)
    assert torch.allclose(
        condition[:, :, 31], held.weights[0, 1] * held.frames[..., 1] + held.weights[1, 1] * held.frames[..., 2]
    )
    given, _, _ = inputs(model, 2, 600)
    for engine in (ReferenceEngine(model), make_engine(model, "numba")):
        state = engine.initial_state(2)
        one, other = (engine.predict(given, c, state)[0] for c in (held, condition))
        assert (one - other).abs().max() < LOGIT_BOUND


def test_wrong_shapes_are_refused() -> None:
    model = network("one-block")
    engine = make_engine(model, "numba")
    given, condition, noise = inputs(model, 1, 10)
    with pytest.raises(ValueError, match="noise has shape"):
        engine.generate(given[:, 0], condition, noise[..., :9], engine.initial_state(1))
    with pytest.raises(ValueError, match="9 previous samples, and a condition for 10"):
        engine.predict(given[:, :9], condition, engine.initial_state(1))
    with pytest.raises(ValueError, match=r"a condition of \[1, 4, 10\], expected \[1, 5, …\]"):
        engine.predict(given, condition[:, :4], engine.initial_state(1))
    for other in (ReferenceEngine(model), make_engine(network("deep"), "numba")):
        with pytest.raises(StreamingError, match="numba engine: a state of another engine, model or kind of processor"):
            engine.predict(given, condition, other.initial_state(1))
        with pytest.raises(StreamingError, match="torch engine: a state of another engine or model"):
            ReferenceEngine(network("gaussian")).predict(given, condition, other.initial_state(1))


# ---- a vocoder's engine ------------------------------------------------------------------------------------


def test_wavenets_speak_through_the_fast_engine_and_keep_it() -> None:
    model = network("deep")
    assert model.engine().description.startswith("numba float32, vectors of ")
    assert model.engine() is model.engine()
    mel = torch.randn(2, MEL.n_mels, 40)
    fast = model.synthesize(mel, seed=[1, 2])
    assert model.use_engine("torch") == "torch"
    assert agreeing(model.synthesize(mel, seed=[1, 2]), fast) == 320
    assert model.use_engine("numba", "int16").startswith("numba int16")


@pytest.mark.parametrize("engine", ["numba", "torch"])
def test_weights_are_never_stale(engine: str) -> None:
    """However they are changed: in place, through .data (which torch does not count), by loading, by replacing."""
    model, mel = network("one-block"), torch.randn(1, MEL.n_mels, 8, generator=torch.Generator().manual_seed(0))
    model.use_engine(engine)
    other = network("one-block")
    for parameter in other.parameters():
        parameter.mul_(1.3)

    def halve(parameter: nn.Parameter) -> None:
        parameter.data = parameter.data / 2

    changes = {
        "in place": lambda: model.hidden.weight.mul_(0.5),
        "through data": lambda: model.output.bias.data.add_(0.05),
        "through numpy": lambda: model.output.bias.numpy().__iadd__(0.05),
        "other memory": lambda: halve(model.stack.blocks[0].output.weight),
        "a new parameter": lambda: setattr(model.input, "weight", nn.Parameter(model.input.weight * 2)),
        "load_state_dict": lambda: model.load_state_dict(other.state_dict()),
    }
    before = model.synthesize(mel)
    for name, change in changes.items():
        change()
        fresh = copy.deepcopy(model)
        fresh.use_engine(engine)
        after = model.synthesize(mel)
        assert torch.equal(after, fresh.synthesize(mel)), name
        assert not torch.equal(after, before), name
        before = after


def test_copies_and_pickles_leave_the_engine_behind() -> None:
    model, mel = network("one-block"), torch.randn(1, MEL.n_mels, 4)
    model.use_engine("numba")
    expected = model.synthesize(mel)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert twin.engine() is not model.engine()
        assert twin.engine().description == model.engine().description
        assert torch.equal(twin.synthesize(mel), expected)


@pytest.mark.parametrize("name", ["deep", "gaussian"])
def test_what_is_no_number_does_no_harm(name: str) -> None:
    model = network(name)
    given, condition, _ = inputs(model, 1, 20)
    given[0, 3] = torch.nan
    model.output.bias[0] = torch.nan
    engine = make_engine(model, "numba")
    engine.predict(given, condition, engine.initial_state(1))


def test_weight_norm_is_folded_into_the_engine() -> None:
    torch.manual_seed(0)
    model = new_vocoder(
        "wavenet", MEL, residual_channels=8, skip_channels=8, hidden_channels=8, depth=3, weight_norm=True
    ).eval()
    mel = torch.randn(1, MEL.n_mels, 10)
    unfolded = model.synthesize(mel)
    assert torch.equal(model.prepared_for_synthesis().synthesize(mel), unfolded)


# ---- what works where --------------------------------------------------------------------------------------


def test_auto_falls_back_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    model = network("one-block").double()
    why = "numba engine: runs float32 models on the CPU, not a float64 model on cpu"
    assert make_engine(model).description == f"torch, because {why}"
    with pytest.raises(ConfigError, match=why):
        make_engine(model, "numba")
    monkeypatch.setitem(sys.modules, "numba", None)  # makes the import fail
    monkeypatch.delitem(sys.modules, "wavegen.engines.autoregressive.compiled", raising=False)
    for module in ("simd", "products", "drawing", "sample_loop"):
        monkeypatch.delitem(sys.modules, f"wavegen.engines.autoregressive.{module}", raising=False)
    monkeypatch.delattr("wavegen.engines.autoregressive.compiled", raising=False)
    assert make_engine(network("one-block")).description.startswith("torch, because numba cannot be imported (")
    with pytest.raises(ConfigError, match=r"numba cannot be imported .*; pip install numba"):
        make_engine(network("one-block"), "numba")


def test_choices_that_are_none() -> None:
    model = network("one-block")
    with pytest.raises(ConfigError, match="engine: unknown engine 'onnx'; use auto or torch or numba"):
        make_engine(model, "onnx")
    with pytest.raises(ConfigError, match="precision: unknown precision 'int4'; use float32 or int16"):
        model.use_engine("auto", "int4")
    with pytest.raises(ConfigError, match="precision: the torch engine has no int16; use the numba engine"):
        make_engine(model, "torch", "int16")


ANOTHER_PROCESS = """
import sys
sys.path[:0] = [{tests!r}, {tests!r} + "/.."]
import torch
from safetensors.torch import load_file
from test_autoregressive import check_lock_step, check_logits
from wavegen.engines.autoregressive import simd
torch.set_num_threads(1)
for name, expected in load_file({logits!r}).items():
    check_logits(name, expected)
    check_lock_step(name, "float32")
print(simd.LANES)
"""


def another_process(tmp_path: Path, **environment: str) -> str:
    """Run the checks on every shape with another kind of processor in mind; returns its lanes."""
    logits = tmp_path / "logits.safetensors"
    save_file({name: reference_logits(name).contiguous() for name in SHAPES}, logits)
    code = ANOTHER_PROCESS.format(tests=str(Path(__file__).parent), logits=str(logits))
    environment = {**os.environ, **environment}
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def needs_lanes(lanes: int) -> None:
    from wavegen.engines.autoregressive import simd

    if platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip("NEON is the only width here, and the other tests run it")
    if lanes > simd.LANES:
        pytest.skip(f"this processor has no vectors of {lanes}")


def test_vectors_of_8(tmp_path: Path) -> None:
    needs_lanes(8)
    processor = {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+avx2,+fma"}
    assert another_process(tmp_path, **processor) == "8"


def test_vectors_of_4_and_a_cache_that_cannot_be_used(tmp_path: Path) -> None:
    """Both in one process, because compiling takes the time: an unusable cache costs only the cache."""
    needs_lanes(4)
    (tmp_path / "file").touch()
    processor = {"NUMBA_CPU_NAME": "x86-64", "NUMBA_CPU_FEATURES": "+sse2"}
    cache = str(tmp_path / "file" / "below")
    assert another_process(tmp_path, NUMBA_CACHE_DIR=cache, **processor) == "4"


def test_a_full_disk_costs_only_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    from wavegen.engines.autoregressive import compiled

    made: list[bool] = []

    def loop(fingerprint: int, *, cached: bool) -> Callable[..., None]:
        def run(*arguments: object) -> None:
            if cached:
                raise OSError(28, "No space left on device")
            made.append(True)

        return run

    monkeypatch.setattr(compiled, "_loops", {})
    monkeypatch.setattr(compiled, "_loop", loop)
    compiled._call("float32", ())
    compiled._call("float32", ())
    assert made == [True, True]


def test_the_cache_is_keyed_by_the_source_of_all_that_is_compiled() -> None:
    from wavegen.engines.autoregressive import compiled

    key = compiled._fingerprint(compiled.COMPILED)
    assert key == compiled._fingerprint(compiled.COMPILED)
    for left_out in compiled.COMPILED:
        assert key != compiled._fingerprint(tuple(module for module in compiled.COMPILED if module is not left_out))
    one, other = (compiled._loop(fingerprint, cached=False).py_func for fingerprint in (1, 2))
    assert [cell.cell_contents for f in (one, other) for cell in f.__closure__] == [1, 2]  # part of numba's key


def test_nothing_of_ours_is_compiled_that_the_cache_does_not_know() -> None:
    from wavegen.engines.autoregressive import compiled

    known = {module.__name__.split(".")[-1] for module in compiled.COMPILED}
    source = "".join(inspect.getsource(module) for module in compiled.COMPILED)
    reached = {"sample_loop", *re.findall(r"from wavegen\.engines\.(\w+) import", source)}
    assert reached - known == {"base"}  # whose types packing names


def test_synth_prints_the_engine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_mel(tmp_path / "a.npz", tiny_mel(3), SPEC)
    model = str(write_model(tmp_path / "wavenet.safetensors", "wavenet"))
    spectral = str(write_model(tmp_path / "spectral.safetensors"))
    arguments = [str(tmp_path / "a.npz"), str(tmp_path / "a.wav"), "--device", "cpu", "--model"]
    for engine, line in (("auto", "numba float32, vectors of "), ("torch", "torch")):
        assert synth.main([*arguments, model, "--engine", engine]) == 0
        assert f"wavegen-synth: engine {line}" in capsys.readouterr().err
    assert synth.main([*arguments, spectral]) == 0
    assert "engine" not in capsys.readouterr().err
    assert synth.main([*arguments, spectral, "--engine", "numba"]) == 2
    assert "no engine 'numba' in float32 for a vocoder that does not go sample by sample" in capsys.readouterr().err
