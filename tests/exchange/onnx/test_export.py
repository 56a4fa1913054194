"""``wavegen-export`` as a user meets it: the file's sound is torch's, and every mistake is one line."""

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from support import sherpa
from support.commands import Refused, tree
from support.exports import CASES, exported_case
from support.messages import Messages
from support.vocoders import SPEC, small_pitch_network, tiny_mel, tiny_vocoder, torch_vocoder, write_model

import wavegen
from wavegen.commands import export, synth
from wavegen.errors import ConfigError
from wavegen.exchange.onnx import writer
from wavegen.exchange.onnx.graphs import Input, whole_inputs
from wavegen.exchange.onnx.precision import FEWEST
from wavegen.exchange.onnx.transforms import RealSTFT
from wavegen.mel import MelSpec, save_mel
from wavegen.noise import uniform_noise

pytest.importorskip("onnx", reason="needs the extra [export]")
pytest.importorskip("onnxscript", reason="needs the extra [export]")
onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra [export]")
reader = pytest.importorskip("wavegen.exchange.onnx.reader", reason="needs the extra [export]")
if not writer.EXPORTS:
    pytest.skip("needs torch 2.8 or later", allow_module_level=True)


@pytest.fixture(autouse=True)
def quick() -> Iterator[None]:
    with small_pitch_network():
        yield


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an exported spectral model, its reader and its checkpoint."""
    return exported_case("spectral", tmp_path_factory)


# Those that have parts of their own: the file of a whole spectral vocoder is ``exported``.
@pytest.mark.slow
@pytest.mark.parametrize("case", ["parallel", "vocos", "parallel-wavegan"])
def test_the_sound_is_that_of_torch(case: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = exported_case(case, tmp_path_factory)
    session = onnxruntime.InferenceSession(folder / "voice.onnx")
    mel = torch.from_numpy(tiny_mel(57, spec=CASES[case][1]))[None]
    (samples,) = session.run(None, {"mel": mel.numpy(), "seed": np.array([5])})
    expected = torch_vocoder(folder / "model.safetensors").synthesize(mel, seed=5).numpy()
    assert np.abs(samples - expected).max() < 1e-3 * np.abs(expected).max()


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_a_stream_is_the_whole_for_any_chunks(case: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = exported_case(case, tmp_path_factory, "--streaming")
    model = reader.Model(folder / "voice.onnx")
    mel = tiny_mel(90, spec=CASES[case][1])[:, :90]
    vocoder = torch_vocoder(folder / "model.safetensors")
    expected = vocoder.synthesize(torch.from_numpy(mel)[None], seed=4)[0].numpy()
    for sizes in ([90], [1] * 90, [0, 31, 2, 0, 57]):
        stream = model.stream(seed=4)
        ends = np.cumsum(sizes)
        chunks = [stream.step(mel[:, end - size : end]) for size, end in zip(sizes, ends, strict=True)]
        samples = np.concatenate([*chunks, stream.flush()])
        assert samples.shape == expected.shape
        assert np.abs(samples - expected).max() < 1e-3 * np.abs(expected).max()


def test_the_seed_is_optional_and_any_seed_gives_the_same_noise(exported: Path) -> None:
    session = onnxruntime.InferenceSession(exported / "voice.onnx")
    mel = tiny_mel(30)[None]
    (default,) = session.run(None, {"mel": mel})
    (zero,) = session.run(None, {"mel": mel, "seed": np.array([0])})
    (large,) = session.run(None, {"mel": mel, "seed": np.array([2**63 - 1])})
    assert np.array_equal(default, zero)
    assert not np.array_equal(default, large)
    expected = torch_vocoder(exported / "model.safetensors").synthesize(torch.from_numpy(mel), seed=2**63 - 1).numpy()
    assert np.abs(large - expected).max() < 1e-3 * np.abs(expected).max()


def test_the_file_says_where_it_comes_from(exported: Path) -> None:
    metadata = onnxruntime.InferenceSession(exported / "voice.onnx").get_modelmeta().custom_metadata_map
    assert MelSpec(**json.loads(metadata["wavegen_mel"])) == SPEC
    stated = {name: metadata[name] for name in ("sample_rate", "licence", "card", "steps", "model_type")}
    assert stated == {
        "sample_rate": "8000", "licence": "CC0", "card": "A tiny voice.", "steps": "8", "model_type": "hifigan",
    }  # fmt: skip
    digest = hashlib.sha256((exported / "model.safetensors").read_bytes()).hexdigest()
    assert metadata["source"] == f"wavegen {wavegen.__version__}, model.safetensors with sha256 {digest}"
    assert str(exported).encode() not in (exported / "voice.onnx").read_bytes()
    assert str(Path(wavegen.__file__).parent).encode() not in (exported / "voice.onnx").read_bytes()


# --- the reader --------------------------------------------------


def run_reader(exported: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run the reader alone: a process that cannot import wavegen or torch."""
    program = (
        "import runpy, sys; sys.modules['wavegen'] = sys.modules['torch'] = None; "
        "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    command = [sys.executable, "-c", program, str(exported / "reader.py"), str(exported / "voice.onnx"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_reader_renders_without_wavegen(exported: Path, folder: Path) -> None:
    save_mel("a.npz", tiny_mel(40), SPEC)
    done = run_reader(exported, "a.npz", "a.wav", "--seed", "3")
    assert (done.returncode, done.stderr) == (0, "")
    samples, rate = soundfile.read("a.wav")
    vocoder = torch_vocoder(exported / "model.safetensors")
    expected = vocoder.synthesize(torch.from_numpy(tiny_mel(40))[None], seed=3)[0].clamp(-1, 1).numpy()
    assert rate == SPEC.sample_rate_hz
    assert np.abs(samples - expected).max() < 1e-3


WRONG_MELS = {
    "definition.npz": (tiny_mel(40), SPEC.replace(f_max_hz=3000, floor=1e-6)),
    "bins.npy": (tiny_mel(40)[:-1], None),
    "nan.npy": (np.full((8, 40), np.nan, np.float32), None),
    "integers.npy": (np.zeros((8, 40), np.int16), None),
    "linear.npy": (np.exp(tiny_mel(40)), None),
    "decibels.npy": (10 * tiny_mel(40), None),
    "loud.npy": (tiny_mel(40) + 12, None),
}


@pytest.mark.parametrize("name", WRONG_MELS)
def test_the_reader_refuses_a_wrong_mel_in_one_line(
    name: str, exported: Path, folder: Path, messages: Messages, capsys: pytest.CaptureFixture[str]
) -> None:
    mel, spec = WRONG_MELS[name]
    if spec is None:
        np.save(name, mel)
    else:
        save_mel(name, mel, spec)
    before = tree()
    assert run_main(reader.main, [str(exported / "voice.onnx"), name, "a.wav"]) == 2
    assert tree() == before
    messages.check(capsys.readouterr().err.rstrip("\n"))


def run_main(main: Callable[[list[str]], int], arguments: list[str]) -> int:
    try:
        return main(arguments)
    except SystemExit as ended:
        return int(ended.code or 0)


# --- wavegen-synth -----------------------------------------------


def test_wavegen_synth_renders_an_exported_file(exported: Path, folder: Path) -> None:
    save_mel("mels/a.npz", tiny_mel(40), SPEC)
    save_mel("mels/b.npz", tiny_mel(20), SPEC)
    for name in ("voice.onnx", "model.safetensors"):
        assert synth.main(["mels", name, "--float", "--seed", "2", "--model", str(exported / name)]) == 0
    for name in ("a.wav", "b.wav"):
        found, expected = (soundfile.read(f"{of}/{name}")[0] for of in ("voice.onnx", "model.safetensors"))
        assert np.abs(found - expected).max() < 1e-3 * np.abs(expected).max()


def test_wavegen_synth_refuses_what_an_exported_file_cannot_do(exported: Path, folder: Path, refused: Refused) -> None:
    shutil.copy(exported / "voice.onnx", "voice.onnx")
    save_mel("a.npz", tiny_mel(40), SPEC)
    save_mel("other.npz", tiny_mel(40), SPEC.replace(f_max_hz=3000))
    Path("text.onnx").write_text("a text")
    refused(synth.main, "other.npz", "a.wav", "--model", "voice.onnx")
    refused(synth.main, "a.npz", "a.wav", "--model", "voice.onnx", "--iterations", "2", "--impose", "--engine", "torch")
    refused(synth.main, "a.npz", "a.wav", "--model", "text.onnx")
    refused(synth.main, "a.npz", "a.wav", "--model", "missing.onnx")
    refused(synth.main, "a.npz", "a.wav", "--model", "voice.onnx", "--profile", "bigvgan-24k")


# --- refusals of the export --------------------------------------


def test_what_cannot_be_exported_is_refused_in_one_line(folder: Path, refused: Refused) -> None:
    write_model(Path("wavenet.safetensors"), "wavenet")
    write_model(Path("spectral.safetensors"))
    write_model(Path("ann.safetensors"), speakers=("ann", "bob"), speaker_channels=2)
    refused(export.main, "wavenet.safetensors", "a.onnx")
    refused(export.main, "spectral.safetensors", "a.pt")
    write_model(Path("noise.safetensors"), "parallel-wavegan")
    refused(export.main, "spectral.safetensors", "a.onnx", "--form", "vocos")
    refused(export.main, "noise.safetensors", "a.onnx", "--form", "vocos")
    refused(export.main, "spectral.safetensors", "a", "--hub", "--streaming")
    refused(export.main, "ann.safetensors", "a.onnx")
    refused(export.main, "missing.safetensors", "a.onnx")


def test_an_operator_that_onnx_lacks_is_refused() -> None:
    class Bessel(torch.nn.Module):
        outputs = ("samples",)

        def inputs(self) -> dict[str, Input]:
            return whole_inputs(SPEC.n_mels)

        def forward(self, mel: torch.Tensor, seed: torch.Tensor) -> torch.Tensor:
            return torch.special.bessel_j0(mel) + seed

    with pytest.raises(ConfigError, match=r"torch's exporter cannot write this vocoder \(.*bessel_j0"):
        writer._exported(Bessel())


@pytest.mark.slow
def test_a_file_that_sounds_different_is_not_written(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_model(Path("model.safetensors"), "vocos")
    exact = RealSTFT.invert
    monkeypatch.setattr(RealSTFT, "invert", lambda self, spectrum: exact(self, spectrum) * 1.001)
    before = tree()
    assert export.main(["model.safetensors", "a.onnx"]) == 2
    assert tree() == before
    error = capsys.readouterr().err.splitlines()[-1]
    assert "a.onnx: the file's sound would differ from torch's by 1.0e-03 of the peak, more than 1e-04" in error


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "bound"), [("float16", 0.02), ("int8", 0.3)])
def test_weights_of_fewer_bits_make_a_smaller_file_and_nearly_the_sound(
    precision: str, bound: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    whole = exported_case("vocos", tmp_path_factory)
    files = [whole / "voice.onnx", exported_case("vocos", tmp_path_factory, "--precision", precision) / "voice.onnx"]
    weights = torch_vocoder(whole / "model.safetensors").parameters()
    large = sum(weight.nbytes for weight in weights if weight.numel() >= FEWEST)
    kept = {"float16": 1 / 2, "int8": 1 / 4}[precision]
    assert files[0].stat().st_size - files[1].stat().st_size > 0.9 * (1 - kept) * large
    mel = tiny_mel(60)
    exact, found = (reader.Model(file).render(mel) for file in files)
    assert 0 < np.abs(found - exact).max() < bound * np.abs(exact).max()


def test_the_pitch_network_keeps_its_bits() -> None:
    vocoder = tiny_vocoder("spectral").prepared_for_synthesis()
    weights = {id(weight) for weight in writer.whole_graph(vocoder).weights()}
    pitch = {id(weight) for weight in vocoder.pitch.parameters()}
    assert pitch
    assert not pitch & weights
    assert {id(weight) for weight in vocoder.parameters()} - pitch == weights


# --- sherpa-onnx -------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("form", "name", "spec"),
    [
        ("samples", "spectral", SPEC),
        ("vocos", "spectral", SPEC),
        ("vocos", "vocos", SPEC),
        ("vocos", "vocos", SPEC.replace(center=True)),
    ],
    ids=["samples", "spectrum", "Vocos", "Vocos, centred"],
)
def test_sherpa_onnx_makes_the_sound_of_torch(form: str, name: str, spec: MelSpec, folder: Path) -> None:
    pytest.importorskip("sherpa_onnx", reason="needs the package sherpa-onnx")
    options = {"refinement_iterations": 0, "synthesis_iterations": 0} if name == "spectral" else {}
    write_model(Path("model.safetensors"), name, spec=spec, **options)
    assert export.main(["model.safetensors", "a.onnx", "--form", form]) == 0
    mel = tiny_mel(60, spec=spec)
    samples, rate = sherpa.render(Path("a.onnx"), mel, spec.sample_rate_hz, folder)
    expected = torch_vocoder("model.safetensors").synthesize(torch.from_numpy(mel)[None])[0].numpy()
    assert rate == spec.sample_rate_hz
    if form == "samples":
        assert len(samples) == len(expected)
    elif spec.center:  # the inverse STFT of sherpa-onnx leaves out the last hop
        assert len(samples) == len(expected) - spec.hop_length
        expected = expected[: len(samples)]
    else:  # it keeps the padding, in which the sound begins
        assert len(samples) == len(expected) + spec.n_fft - spec.hop_length
        samples = samples[spec.left_padding :][: len(expected)]
    inside = slice(spec.n_fft, -spec.n_fft)
    assert np.abs(samples - expected)[inside].max() < 1e-4 * np.abs(expected).max()


def test_the_noise_of_a_file_is_that_of_torch_bit_for_bit(tmp_path: Path) -> None:
    class Noise(torch.nn.Module):
        outputs = ("noise",)

        def inputs(self) -> dict[str, Input]:
            return whole_inputs(SPEC.n_mels)

        def forward(self, mel: torch.Tensor, seed: torch.Tensor) -> torch.Tensor:
            return uniform_noise(seed, -64, mel.shape[-1] * 16, 2)

    model = writer._exported(Noise())
    session = onnxruntime.InferenceSession(model.SerializeToString())
    for seed in (0, 1, 2**63 - 1, -(2**63)):
        (found,) = session.run(None, {"mel": np.zeros((1, 8, 300), np.float32), "seed": np.array([seed])})
        assert np.array_equal(found, uniform_noise(torch.tensor([seed]), -64, 4800, 2).numpy())
