"""Which engine runs: chosen by name, or the fastest that works here, with the reason if it is not the fastest."""

import builtins
from pathlib import Path

import numba
import pytest
import torch
from support.engines import CHOICES, check_equals_reference, generate, inputs, network, run_python
from support.messages import Messages
from support.vocoders import SPEC, new_vocoder, tiny_mel, tiny_vocoder, write_model

from wavegen.commands import synth
from wavegen.engines import TiledEngine, make_engine, make_parallel_engine
from wavegen.engines.autoregressive.compiled import NumbaEngine
from wavegen.engines.packed import int8
from wavegen.errors import ConfigError, StreamingError
from wavegen.mel import save_mel
from wavegen.vocoders import VOCODERS
from wavegen.vocoders.wavenet import WaveNet

# ---- the contract: every engine equals the reference ----------------------------------------------------------


@pytest.mark.parametrize(("name", "engine"), CHOICES)
def test_every_engine_equals_the_reference(name: str, engine: str) -> None:
    for config in VOCODERS[name].Config.examples():
        check_equals_reference(config, engine)


def test_the_contract_notices_numba_samples_that_come_late(monkeypatch: pytest.MonkeyPatch) -> None:
    generate = NumbaEngine.generate

    def late(*arguments: object, **options: object) -> object:
        samples, state = generate(*arguments, **options)  # type: ignore[arg-type]
        return samples.roll(1, dims=1), state

    monkeypatch.setattr(NumbaEngine, "generate", late)
    with pytest.raises(AssertionError, match="wavenet numba float32: samples differ"):
        check_equals_reference(VOCODERS["wavenet"].Config.examples()[0], "numba")


def test_the_contract_notices_numba_logits_that_are_off(monkeypatch: pytest.MonkeyPatch) -> None:
    predict = NumbaEngine.predict

    def off(*arguments: object, **options: object) -> object:
        logits, state = predict(*arguments, **options)  # type: ignore[arg-type]
        return 1.05 * logits, state

    monkeypatch.setattr(NumbaEngine, "predict", off)
    with pytest.raises(AssertionError, match="wavenet numba float32: parameters differ"):
        check_equals_reference(VOCODERS["wavenet"].Config.examples()[0], "numba")


def test_the_contract_notices_iterations_without_momentum(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wavegen.engines.spectral.projection.MOMENTUM", 0.0)
    with pytest.raises(AssertionError, match="spectral numba float32: samples differ"):
        check_equals_reference(VOCODERS["spectral"].Config.examples()[0], "numba")


def test_the_contract_notices_tiles_without_their_history(monkeypatch: pytest.MonkeyPatch) -> None:
    run = TiledEngine.run

    def forgetful(self: TiledEngine, sources: torch.Tensor, frames: torch.Tensor, histories: tuple[torch.Tensor, ...]):  # type: ignore[no-untyped-def]
        return run(self, sources, frames, tuple(torch.ones_like(history) for history in histories))

    monkeypatch.setattr(TiledEngine, "run", forgetful)
    with pytest.raises(AssertionError, match="parallel tiled float32: samples differ"):
        check_equals_reference(VOCODERS["parallel"].Config.examples()[0], "tiled")


# ---- what works where ------------------------------------------------------------------------------------------


def test_int8_is_replaced_by_int16_on_a_processor_without_products_of_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(int8, "AVAILABLE", False)
    model = network("one-block")
    _, condition, noise = inputs(model, 1, 50)
    replaced, expected = (make_engine(model, "numba", precision) for precision in ("int8", "int16"))
    assert torch.equal(generate(replaced, condition, noise), generate(expected, condition, noise))
    assert replaced.description == f"{expected.description}, because this processor has no products of bytes"


def test_a_stream_cannot_change_to_another_kind_of_codes(messages: Messages) -> None:
    if not int8.AVAILABLE:
        pytest.skip("this processor has no products of bytes")
    model = network("deep")
    given, condition, _ = inputs(model, 1, 10)
    engine, other = (make_engine(model, "numba", precision) for precision in ("int16", "int8"))
    for first, then in ((engine, other), (other, engine)):
        with messages.refused(StreamingError):
            then.predict(given, condition, first.initial_state(1))


def test_auto_takes_the_fastest_engine() -> None:
    assert tiny_vocoder("wavenet").use_engine().startswith("numba float32, vectors of ")
    assert tiny_vocoder("wavenet").use_engine("auto", "int16").startswith("numba int16, vectors of ")
    assert tiny_vocoder("parallel").use_engine() == "tiled"
    assert tiny_vocoder("parallel").double().use_engine() == "tiled"
    for name in ("spectral", "source-filter"):
        tiny_vocoder(name).use_engine("numba")  # compiles it, so that from now on it is the fastest
        assert tiny_vocoder(name).use_engine().startswith("numba float32, vectors of ")


@pytest.mark.parametrize("name", VOCODERS)
def test_torch_is_always_possible(name: str) -> None:
    assert tiny_vocoder(name).to(torch.bfloat16).use_engine("torch") == "torch"


def test_auto_falls_back_to_torch_and_says_why(messages: Messages) -> None:
    wavenet, parallel = network("one-block").double(), tiny_vocoder("parallel").to(torch.bfloat16)
    for make, model, engine in ((make_engine, wavenet, "numba"), (make_parallel_engine, parallel, "tiled")):
        messages.check(make(model).description)
        with messages.refused(ConfigError):
            make(model, engine)


def test_on_a_gpu_torch_is_the_fastest_parallel_engine() -> None:
    assert make_parallel_engine(tiny_vocoder("parallel").to("meta")).description == "torch"


FAILURES = {
    "not installed": ("sys.modules['numba'] = None", "numba cannot be imported (import of numba halted"),
    "a name that moved": (
        "import numba.extending; del numba.extending.intrinsic",
        "the numba engine cannot be loaded (ImportError: cannot import name 'intrinsic'",
    ),
    "an attribute that is gone": (
        "from numba.core.registry import cpu_target; cpu_target.target_context.codegen = object",
        "the numba engine cannot be loaded (AttributeError: 'object' object has no attribute 'magic_tuple')",
    ),
    "a failure of the compiler": (
        "from numba.core import cgutils; del cgutils.for_range",
        "the numba engine cannot be compiled (AttributeError: module 'numba.core.cgutils' has no attribute 'for_range'",
    ),
}
CHOOSE = """
import torch
from support.engines import network
from wavegen.engines import make_engine
from wavegen.errors import ConfigError, StreamingError
model = network("one-block")
for _ in range(2):
    print(make_engine(model).description)
try:
    make_engine(model, "numba")
except ConfigError as error:
    print(error)
"""


@pytest.mark.parametrize("failure", FAILURES)
def test_any_failure_of_numba_falls_back_to_torch(failure: str, tmp_path: Path) -> None:
    """In a process of its own, whose numba is broken before wavegen imports it, and whose cache is empty."""
    sabotage, reason = FAILURES[failure]
    first, again, refusal = run_python(
        f"{sabotage}\n{CHOOSE}", NUMBA_OPT="0", NUMBA_CACHE_DIR=str(tmp_path)
    ).splitlines()
    assert first.startswith(f"torch, because {reason}")
    assert again == first
    assert refusal.startswith(f"engine: {reason}")
    assert "; " in refusal


def test_an_unknown_choice_is_refused(messages: Messages) -> None:
    wavenet, parallel, spectral = (tiny_vocoder(name) for name in ("wavenet", "parallel", "spectral"))
    for vocoder, choice in (
        (wavenet, ("onnx", "float32")),
        (wavenet, ("auto", "int4")),
        (wavenet, ("torch", "int16")),
        (wavenet, ("tiled", "float32")),
        (parallel, ("numba", "float32")),
        (parallel, ("auto", "int16")),
        (spectral, ("tiled", "float32")),
        (spectral, ("numba", "int16")),
    ):
        with messages.refused(ConfigError):
            vocoder.use_engine(*choice)


def test_weight_norm_is_folded_into_the_engine() -> None:
    torch.manual_seed(0)
    model = new_vocoder(
        "wavenet", SPEC, residual_channels=8, skip_channels=8, hidden_channels=8, depth=3, weight_norm=True
    ).eval()
    mel = torch.randn(1, SPEC.n_mels, 10)
    with_weight_norm = model.synthesize(mel)
    assert torch.equal(model.prepared_for_synthesis().synthesize(mel), with_weight_norm)


def test_a_prepared_vocoder_keeps_its_engine() -> None:
    model = network("deep").prepared_for_synthesis()
    assert isinstance(model, WaveNet)
    assert model.engine() is model.engine()
    assert model.use_engine("torch") == "torch"
    assert model.engine() is model.engine()


def test_synth_prints_the_engine(tmp_path: Path, capsys: pytest.CaptureFixture[str], messages: Messages) -> None:
    save_mel(tmp_path / "a.npz", tiny_mel(3), SPEC)
    arguments = [str(tmp_path / "a.npz"), str(tmp_path / "a.wav"), "--device", "cpu", "--model"]
    wavenet = str(write_model(tmp_path / "wavenet.safetensors", "wavenet"))
    for engine, line in (("auto", "numba float32, vectors of "), ("torch", "torch")):
        assert synth.main([*arguments, wavenet, "--engine", engine]) == 0
        assert f"wavegen-synth: engine {line}" in capsys.readouterr().err
    spectral = str(write_model(tmp_path / "spectral.safetensors"))
    for engine, line in (("numba", "numba float32, vectors of "), ("torch", "torch")):
        assert synth.main([*arguments, spectral, "--engine", engine]) == 0
        assert f"wavegen-synth: engine {line}" in capsys.readouterr().err
    assert synth.main([*arguments, spectral, "--engine", "tiled"]) == 2
    messages.check(capsys.readouterr().err)


# ---- a numba that does not compile ----------------------------------------------------------------------------


def test_a_numba_that_compiles_nothing_is_not_used(monkeypatch: pytest.MonkeyPatch, messages: Messages) -> None:
    """As with NUMBA_DISABLE_JIT=1, with which numba runs its functions as Python, thousands of times slower."""
    monkeypatch.setattr(numba.config, "DISABLE_JIT", 1)
    messages.check(make_engine(network("one-block")).description)
    with messages.refused(ConfigError):
        make_engine(network("one-block"), "numba")


@pytest.mark.parametrize(
    "fault", [ImportError("numpy.core.multiarray failed to import"), SystemError("initialization")]
)
def test_a_numba_that_fails_on_import_is_not_used(
    fault: Exception, monkeypatch: pytest.MonkeyPatch, messages: Messages
) -> None:
    real = builtins.__import__

    def fail(name: str, *arguments: object) -> object:
        if name.partition(".")[0] == "numba":
            raise fault
        return real(name, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", fail)
    messages.check(make_engine(network("one-block")).description)
