"""Sound while it is made: into a pipe, through a loudspeaker, and states of streams that wait in a file."""

import io
import itertools
import math
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from support.commands import Refused
from support.messages import Messages
from support.vocoders import SPEC, tiny_mel, tiny_vocoder, write_model

from wavegen.audio import WavStream
from wavegen.checkpoint import load_state, load_vocoder, save_checkpoint, save_state
from wavegen.commands import synth
from wavegen.errors import AudioError, CheckpointError, OutputError
from wavegen.mel import save_mel
from wavegen.synthesis import LIVE_CHUNK_FRAMES, LIVE_GROWTH, stream, streaming, synthesize
from wavegen.vocoders import VOCODERS, Vocoder
from wavegen.vocoders.spectral import SpectralVocoder

FRAMES = 40


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save_mel("a.npz", tiny_mel(FRAMES), SPEC)


@pytest.fixture(params=sorted(VOCODERS))
def model(request: pytest.FixtureRequest) -> str:
    return str(write_model(Path("model.safetensors"), request.param))


def expected(model: str) -> np.ndarray:
    return synthesize(load_vocoder(model), tiny_mel(FRAMES))


# ---- standard output


def test_standard_output_is_a_wav(model: str, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert synth.main(["a.npz", "-", "--model", model, "--float"]) == 0
    out, err = capfdbinary.readouterr()
    samples, rate = soundfile.read(io.BytesIO(out), dtype="float32")
    assert rate == SPEC.sample_rate_hz
    np.testing.assert_allclose(samples, expected(model), rtol=0, atol=1e-4)
    assert b"x real time, first sound after" in err


@pytest.mark.parametrize("float32", [False, True])
def test_the_stream_is_a_file_of_unknown_length(float32: bool, messages: Messages) -> None:
    file = io.BytesIO()
    stream = WavStream(file, 8000, float32=float32)
    soundfile.write("as-file.wav", np.array([0.5, -2.0, 0.25]), 8000, subtype="FLOAT" if float32 else "PCM_16")
    stream.write(np.array([0.5, -2.0]))
    stream.write(np.array([0.25]))
    streamed, rate = soundfile.read(io.BytesIO(file.getvalue()))
    np.testing.assert_array_equal(streamed, soundfile.read("as-file.wav")[0])
    assert rate == 8000
    assert soundfile.info(io.BytesIO(file.getvalue())).subtype == ("FLOAT" if float32 else "PCM_16")
    with messages.refused(AudioError):
        stream.write(np.array([np.nan]))
    with messages.refused(AudioError):
        stream.write(np.zeros((1, 2)))


def test_each_block_is_on_its_way_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes out early does not wait for what comes late."""
    write_model(Path("model.safetensors"), "wavenet")
    made: list[int] = []
    real = Vocoder.check_shape

    class Pipe(io.BytesIO):
        def flush(self) -> None:
            made.append(self.tell())

    monkeypatch.setattr(sys, "stdout", SimpleNamespace(buffer=Pipe()))
    monkeypatch.setattr(Vocoder, "check_shape", lambda self, mel: (made.append(-1), real(self, mel))[1])
    assert synth.main(["a.npz", "-", "--model", "model.safetensors"]) == 0
    first_step = made.index(-1)
    assert made[:first_step] == [44]  # the header, before anything is made
    assert made[first_step : first_step + 4] == [-1, 44 + 2 * 2 * SPEC.hop_length, -1, 44 + 2 * 5 * SPEC.hop_length]


def test_chunks_of_a_live_stream_grow_after_the_first_sound(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of two frames until the end would take up to 15 times the work."""
    vocoder = tiny_vocoder("wavenet").prepared_for_synthesis()
    vocoder.use_engine("torch")
    mel = tiny_mel(80)
    monkeypatch.setattr(streaming, "NATIVE_CHUNK_FRAMES", 12)
    lengths: list[int] = []
    real = Vocoder.check_shape
    monkeypatch.setattr(Vocoder, "check_shape", lambda self, mel: (lengths.append(mel.shape[-1]), real(self, mel))[1])
    live = np.concatenate(list(stream(vocoder, mel, live=True)))
    assert lengths[0] == LIVE_CHUNK_FRAMES
    assert all(b <= math.ceil(LIVE_GROWTH * a) for a, b in itertools.pairwise(lengths))  # never late below 0.8
    assert lengths == [2, 3, 4, 5, 7, 9, 12, 12, 12, 12, 2]
    np.testing.assert_array_equal(live, synthesize(vocoder, mel))


def test_standard_input_and_raw_standard_output(
    monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    model = str(write_model(Path("model.safetensors")))
    np.save("bare.npy", tiny_mel(FRAMES))
    for source in ("a.npz", "bare.npy"):
        for options, dtype, scale in (([], "<i2", 32768), (["--float"], "<f4", 1)):
            monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(Path(source).read_bytes())))
            assert synth.main(["-", "-", "--raw", "--model", model, *options]) == 0
            samples = np.frombuffer(capfdbinary.readouterr().out, dtype=dtype) / scale
            np.testing.assert_allclose(samples, expected(model).clip(-1, 1), rtol=0, atol=1e-4)
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(Path("a.npz").read_bytes())))
    assert synth.main(["-", "out.wav", "--model", model]) == 0
    assert soundfile.info("out.wav").frames == FRAMES * SPEC.hop_length


@pytest.mark.parametrize("content", [b"", b"no mel", b"PK\3\4"])
def test_standard_input_that_is_not_a_mel_is_named(
    content: bytes, monkeypatch: pytest.MonkeyPatch, refused: Refused
) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(content)))
    refused(synth.main, "-", "-", "--raw")


def test_raw_samples_are_for_standard_output(refused: Refused) -> None:
    refused(synth.main, "a.npz", "a.wav", "--raw")


def test_a_reader_that_goes_away_ends_it_with_one_line() -> None:
    model = write_model(Path("model.safetensors"))
    save_mel("long.npz", np.tile(tiny_mel(400), (1, 50)), SPEC)
    command = [sys.executable, "-m", "wavegen.commands.synth", "long.npz", "-", "--model", str(model)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(4)
        process.stdout.close()
        complaint = process.stderr.read().decode()
    assert process.returncode == 2
    # On a busy machine, a note that the start takes long comes before it.
    assert complaint.splitlines()[-1] == (
        "wavegen-synth: error: standard output: cannot write: Broken pipe; see why its reader stopped"
    )
    assert "Traceback" not in complaint


@pytest.mark.parametrize(
    "arguments",
    [
        ["a.npz"],
        [".", "-"],
        [".", "out", "--play"],
        [".", "out.wav"],
        ["a.npz", "a.wav", "--batch", "0"],
        ["a.npz", "a.wav", "--jobs", "-1"],
        ["a.npz", "a.wav", "--temperature", "-1"],
        ["a.npz", "a.wav", "--temperature", "inf"],
        ["a.npz", "a.wav", "--temperature", "nan"],
        ["a.npz", "a.wav", "--iterations", "-1"],
        ["a.npz", "a.wav", "--pitch", "25"],
        ["a.npz", "a.wav", "--pitch=-24.5"],
        ["a.npz", "a.wav", "--pitch", "nan"],
        ["a.npz", "a.wav", "--pitch", "high"],
    ],
    ids=" ".join,
)
def test_impossible_arguments_are_refused(arguments: list[str], refused: Refused) -> None:
    refused(synth.main, *arguments)


def test_a_temperature_sharpens_a_wavenet_alone(capsys: pytest.CaptureFixture[str], messages: Messages) -> None:
    wavenet, spectral = (str(write_model(Path(f"{name}.safetensors"), name)) for name in ("wavenet", "spectral"))
    made = []
    for options in ([], ["--temperature", "1"], ["--temperature", "0", "--seed", "1"], ["--temperature", "0"]):
        assert synth.main(["a.npz", "a.wav", "--model", wavenet, *options]) == 0
        made.append(Path("a.wav").read_bytes())
    assert made[0] == made[1]
    assert made[1] != made[2] == made[3]  # the mode needs no noise
    capsys.readouterr()
    assert synth.main(["a.npz", "a.wav", "--model", spectral, "--temperature", "0.5"]) == 2
    messages.check(capsys.readouterr().err.splitlines()[-1])


def test_iterations_are_a_spectral_vocoders_alone(capsys: pytest.CaptureFixture[str], messages: Messages) -> None:
    wavenet, spectral = (str(write_model(Path(f"{name}.safetensors"), name)) for name in ("wavenet", "spectral"))
    vocoder = load_vocoder(spectral)
    assert isinstance(vocoder, SpectralVocoder)
    usual = vocoder.synthesis_iterations
    made = {}
    for options in ([], ["--iterations", str(usual)], ["--iterations", "0"], ["--iterations", "9"]):
        assert synth.main(["a.npz", "a.wav", "--model", spectral, "--float", *options]) == 0
        made[" ".join(options)] = soundfile.read("a.wav", dtype="float32")[0]
    assert np.array_equal(made[""], made[f"--iterations {usual}"])
    for iterations in (0, 9):
        vocoder.synthesis_iterations = iterations
        of_it = made[f"--iterations {iterations}"]
        np.testing.assert_allclose(of_it, synthesize(vocoder, tiny_mel(FRAMES)), atol=1e-6)
        assert np.abs(of_it - made[""]).max() > 1e-3
    capsys.readouterr()
    assert synth.main(["a.npz", "a.wav", "--model", wavenet, "--iterations", "9"]) == 2
    messages.check(capsys.readouterr().err.splitlines()[-1])


def test_a_pitch_is_that_of_a_vocoder_with_a_source(capsys: pytest.CaptureFixture[str], messages: Messages) -> None:
    wavenet, source_filter = (write_model(Path(f"{n}.safetensors"), n) for n in ("wavenet", "source-filter"))
    vocoder = load_vocoder(source_filter)
    for option, semitones in (("0", 0), ("-2.5", -2.5), ("7", 7)):
        arguments = ["a.npz", "a.wav", "--model", str(source_filter), "--float", "--pitch", option]
        assert synth.main(arguments) == 0
        vocoder.set_synthesis_options(pitch=semitones)
        made = soundfile.read("a.wav", dtype="float32")[0]
        np.testing.assert_allclose(made, synthesize(vocoder, tiny_mel(FRAMES)), atol=1e-6)
    capsys.readouterr()
    assert synth.main(["a.npz", "a.wav", "--model", str(wavenet), "--pitch", "2"]) == 2
    messages.check(capsys.readouterr().err.splitlines()[-1])


# ---- the loudspeaker


class Loudspeaker:
    """Stands for the sounddevice package."""

    class PortAudioError(Exception):
        pass

    def __init__(self, fault: str = "", late: bool = False) -> None:
        self.fault, self.late, self.heard, self.calls = fault, late, list[np.ndarray](), list[str]()

    def OutputStream(self, **settings: Any) -> "Loudspeaker":  # noqa: N802
        self.settings = settings
        if self.fault == "open":
            raise self.PortAudioError("Error querying device -1")
        return self

    def write(self, samples: np.ndarray) -> bool:
        assert samples.dtype == np.float32
        assert samples.flags.c_contiguous
        assert samples.shape[1] == 1
        if self.fault == "write":
            raise self.PortAudioError("Device unplugged")
        self.heard.append(samples[:, 0])
        return self.late

    def __getattr__(self, name: str) -> Any:
        return lambda: self.calls.append(name)


@pytest.fixture
def loudspeaker(monkeypatch: pytest.MonkeyPatch) -> Loudspeaker:
    speaker = Loudspeaker()
    monkeypatch.setitem(sys.modules, "sounddevice", speaker)
    return speaker


def test_it_is_played_and_written(model: str, loudspeaker: Loudspeaker, capsys: pytest.CaptureFixture[str]) -> None:
    assert synth.main(["a.npz", "a.wav", "--play", "--model", model, "--float"]) == 0
    assert loudspeaker.settings == {"samplerate": SPEC.sample_rate_hz, "channels": 1, "dtype": "float32"}
    np.testing.assert_allclose(np.concatenate(loudspeaker.heard), expected(model).clip(-1, 1), rtol=0, atol=1e-4)
    assert loudspeaker.calls == ["start", "stop", "close"]
    np.testing.assert_allclose(soundfile.read("a.wav")[0], expected(model), rtol=0, atol=1e-4)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "gaps" not in captured.err


def test_gaps_are_told(loudspeaker: Loudspeaker, capsys: pytest.CaptureFixture[str]) -> None:
    loudspeaker.late = True
    model = str(write_model(Path("model.safetensors"), "wavenet"))
    assert synth.main(["a.npz", "--play", "--model", model]) == 0
    assert "8 gaps: this model is slower than real time here" in capsys.readouterr().err


@pytest.mark.parametrize("fault", ["open", "write"])
def test_a_device_that_fails(fault: str, loudspeaker: Loudspeaker, refused: Refused) -> None:
    loudspeaker.fault = fault
    model = str(write_model(Path("model.safetensors")))
    refused(synth.main, "a.npz", "a.wav", "--play", "--model", model)
    assert loudspeaker.calls == ([] if fault == "open" else ["start", "abort", "close"])


def test_no_package_to_play_with(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    model = str(write_model(Path("model.safetensors")))
    assert synth.main(["a.npz", "--play", "--model", model]) == 2
    assert "pip install 'wavegen[play]'; on Linux also install libportaudio2" in capsys.readouterr().err


# ---- states in files


@pytest.mark.parametrize("changes", [{}, {"padding": "causal", "refinement_iterations": 0, "synthesis_iterations": 0}])
@pytest.mark.parametrize("name", sorted(VOCODERS))
def test_a_saved_stream_goes_on(name: str, changes: dict[str, Any]) -> None:
    changes = changes if set(changes) <= set(VOCODERS[name].Config.model_fields) else {}
    vocoder = load_vocoder(write_model(Path("model.safetensors"), name, **changes))
    mel = torch.from_numpy(tiny_mel(FRAMES))[None]
    _, state = vocoder.step(mel[..., :25], vocoder.initial_state(1, seed=7))
    save_state(Path("stream.safetensors"), vocoder, state)
    again = load_vocoder("model.safetensors")
    continued = load_state(Path("stream.safetensors"), again)
    for part in (mel[..., 25:30], mel[..., 30:]):
        (expected, state), (got, continued) = vocoder.step(part, state), again.step(part, continued)
        assert expected.numel() > 0
        assert torch.equal(got, expected)
    assert torch.equal(again.flush(continued), vocoder.flush(state))


def test_a_state_that_is_none_or_anothers(messages: Messages) -> None:
    vocoder = tiny_vocoder("spectral").prepared_for_synthesis()
    save_state(Path("stream.safetensors"), vocoder, vocoder.initial_state(1))
    vocoder.corrections.bias.add_(0.1)
    with messages.refused(CheckpointError):
        load_state(Path("stream.safetensors"), vocoder)
    with messages.refused(CheckpointError):
        load_state(write_model(Path("model.safetensors")), vocoder)
    save_checkpoint(Path("folder/there"), {}, {})
    with pytest.raises(OutputError):
        save_state(Path("folder/there/stream.safetensors"), vocoder, vocoder.initial_state(1))
