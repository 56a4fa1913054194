"""``wavegen-synth`` as a user meets it: files, streams, exit codes, and one line for every mistake."""

import os
import pickle
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import save_file
from support.commands import Refused, tree
from support.vocoders import SPEC, tiny_mel, tiny_vocoder, write_model

from wavegen.checkpoint import tensor_files
from wavegen.commands import synth, train
from wavegen.mel import save_mel

pytestmark = pytest.mark.usefixtures("folder")
MODEL = "model.safetensors"
OTHER_SPEC = SPEC.replace(f_max_hz=3000, log="log10", floor=1e-6)


@pytest.fixture
def model() -> str:
    return str(write_model(Path(MODEL)))


@pytest.fixture
def mel() -> str:
    save_mel("a.npz", tiny_mel(40), SPEC)
    return "a.npz"


def test_a_mel_becomes_a_16_bit_wav(model: str, mel: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert synth.main([mel, "out/a.wav", "--model", model]) == 0
    info = soundfile.info("out/a.wav")
    assert (info.frames, info.samplerate, info.channels, info.subtype) == (40 * SPEC.hop_length, 8000, 1, "PCM_16")
    assert os.listdir("out") == ["a.wav"]
    out, err = capsys.readouterr()
    assert re.fullmatch(r"out/a\.wav: 0\.08 s of audio in \d+\.\d\d s, \d+(\.\d+)? x real time\n", out)
    assert err == ""


def test_a_bare_array_is_a_mel_too(model: str) -> None:
    np.save("a.npy", tiny_mel(40))
    assert synth.main(["a.npy", "a.flac", "--model", model]) == 0
    info = soundfile.info("a.flac")
    assert (info.frames, info.format, info.subtype) == (40 * SPEC.hop_length, "FLAC", "PCM_16")


def test_float_is_what_the_vocoder_made(model: str, mel: str) -> None:
    assert synth.main([mel, "a.wav", "--model", model, "--float"]) == 0
    assert soundfile.info("a.wav").subtype == "FLOAT"
    expected = tiny_vocoder("spectral").eval().synthesize(torch.from_numpy(tiny_mel(40))[None])[0].numpy()
    np.testing.assert_allclose(soundfile.read("a.wav", dtype="float32")[0], expected, rtol=0, atol=1e-6)


def test_a_folder_becomes_a_folder(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    for name, frames in {"1": 10, "sub/2": 20, "sub/deep/3": 30}.items():
        save_mel(f"mels/{name}.npz", tiny_mel(frames), SPEC)
    assert synth.main(["mels", "wavs", "--model", model]) == 0
    found = {path.relative_to("wavs").as_posix(): soundfile.info(path).frames for path in Path("wavs").rglob("*.*")}
    assert found == {"1.wav": 160, "sub/2.wav": 320, "sub/deep/3.wav": 480}
    assert capsys.readouterr().out.startswith("wavs: 0.12 s of audio in ")


def test_a_long_mel_in_chunks_is_the_whole(model: str) -> None:
    mel = tiny_mel(4321)  # more than two of the chunks that it is cut into
    save_mel("a.npz", mel, SPEC)
    assert synth.main(["a.npz", "a.wav", "--model", model, "--float"]) == 0
    whole = tiny_vocoder("spectral").eval().synthesize(torch.from_numpy(mel)[None])[0].numpy()
    made = soundfile.read("a.wav", dtype="float32")[0]
    assert len(made) == 4321 * SPEC.hop_length
    assert np.abs(made - whole).max() < 1e-3 * np.abs(whole).max()


def test_a_seed_decides_every_byte(mel: str) -> None:
    model = str(write_model(Path("wavenet.safetensors"), "wavenet"))
    for name, seed in (("a", "3"), ("b", "3"), ("c", "4")):
        assert synth.main([mel, f"{name}.wav", "--model", model, "--seed", seed]) == 0
    first, again, other = (Path(f"{name}.wav").read_bytes() for name in "abc")
    assert first == again
    assert first != other


def test_the_newest_finished_run_speaks(mel: str, capsys: pytest.CaptureFixture[str]) -> None:
    for age, run in enumerate(("new", "old")):
        path = write_model(Path("runs") / run / MODEL)
        os.utime(path, (1000 - age, 1000 - age))
    assert synth.main([mel, "a.wav"]) == 0
    assert capsys.readouterr().err == f"wavegen-synth: model runs/new/{MODEL}\n"


@pytest.mark.parametrize("given", ["run", f"run/{MODEL}", "run/checkpoints/step-00000008.safetensors", "unfinished"])
def test_a_model_is_a_run_or_a_file(given: str, mel: str) -> None:
    for path in (
        f"run/{MODEL}",
        "run/checkpoints/step-00000008.safetensors",
        "unfinished/checkpoints/step-1.safetensors",
    ):
        write_model(Path(path))
    assert synth.main([mel, "a.wav", "--model", given]) == 0
    assert Path("a.wav").exists()


def test_a_terminal_sees_progress(
    model: str, mel: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert synth.main([mel, "a.wav", "--model", model]) == 0
    assert re.search(r"synthesising: 100%.* 640/640 ", capsys.readouterr().err)


class Unpickled:
    """Makes a folder if it is ever unpickled."""

    def __reduce__(self) -> tuple[Callable[..., None], tuple[str]]:
        return os.mkdir, ("executed",)


def objects() -> None:
    np.save("a.npy", np.array([[Unpickled()]], dtype=object), allow_pickle=True)


def raw_pickle() -> None:
    Path("a.npy").write_bytes(pickle.dumps(Unpickled()))


def objects_in_npz() -> None:
    spec = np.array(SPEC.model_dump_json())
    np.savez("a.npz", allow_pickle=True, mel=np.array([[Unpickled()]], dtype=object), spec=spec)


def with_nan() -> None:
    mel = tiny_mel(40)
    mel[3, 17] = np.nan
    np.save("a.npy", mel)


def cut_short() -> None:
    save_mel("a.npz", tiny_mel(40), SPEC)
    os.truncate("a.npz", 300)


BAD_MELS: dict[str, Callable[[], object]] = {
    "swapped axes": lambda: np.save("a.npy", tiny_mel(40).T),
    "batched": lambda: np.save("a.npy", tiny_mel(40)[None]),
    "rank 3": lambda: np.save("a.npy", np.stack([tiny_mel(40)] * 2)),
    "objects": objects,
    "raw pickle": raw_pickle,
    "objects in npz": objects_in_npz,
    "integers": lambda: np.save("a.npy", tiny_mel(40).astype(np.int16)),
    "NaN": with_nan,
    "bins": lambda: np.save("a.npy", tiny_mel(40, spec=SPEC.replace(n_mels=7))),
    "definition": lambda: save_mel("a.npz", tiny_mel(40, spec=OTHER_SPEC), OTHER_SPEC),
    "no frames": lambda: np.save("a.npy", tiny_mel(40)[:, :0]),
    "empty": lambda: Path("a.npy").touch(),
    "text": lambda: Path("a.npy").write_text("a text"),
    "foreign npz": lambda: np.savez("a.npz", x=tiny_mel(40)),
    "cut short": cut_short,
    "suffix": lambda: Path("a.pt").touch(),
}


@pytest.mark.parametrize("name", BAD_MELS)
def test_a_bad_mel(name: str, model: str, refused: Refused) -> None:
    BAD_MELS[name]()
    (mel,) = (path.name for path in Path().glob("a.*"))
    refused(synth.main, mel, "out.wav", "--model", model)
    assert not Path("executed").exists()


def test_the_pickles_would_have_been_executed() -> None:
    for make in (objects, raw_pickle):
        make()
        np.load("a.npy", allow_pickle=True)
        Path("executed").rmdir()


def test_a_missing_mel(model: str, refused: Refused) -> None:
    refused(synth.main, "none.npz", "out.wav", "--model", model)


def test_a_folder_without_mels(model: str, refused: Refused) -> None:
    Path("mels").mkdir()
    Path("mels/notes.txt").touch()
    refused(synth.main, "mels", "wavs", "--model", model)


def test_one_bad_mel_of_a_folder_is_noticed_before_any_is_synthesised(model: str, refused: Refused) -> None:
    save_mel("mels/a.npz", tiny_mel(10), SPEC)
    np.save("mels/b.npy", np.full((8, 10), np.nan))
    refused(synth.main, "mels", "wavs", "--model", model)


BAD_MODELS: dict[str, Callable[[], object]] = {
    "missing": lambda: None,
    "truncated": lambda: os.truncate(write_model(Path("bad")), 3000),
    "pickled": lambda: torch.save({"x": Unpickled()}, "bad"),
    "foreign": lambda: save_file({"x": torch.zeros(3)}, "bad"),
    "folder": lambda: Path("bad").mkdir(),
}


@pytest.mark.parametrize("name", BAD_MODELS)
def test_a_bad_model(name: str, mel: str, refused: Refused) -> None:
    BAD_MODELS[name]()
    refused(synth.main, mel, "out.wav", "--model", "bad", hide=r"(?<=\()Error .*(?=\))")  # safetensors' words
    assert not Path("executed").exists()


def test_a_model_of_a_newer_format(mel: str, refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as newer_version:
        newer_version.setattr(tensor_files, "FORMAT", 2)
        write_model(Path("bad"))
    refused(synth.main, mel, "out.wav", "--model", "bad")


def test_a_bare_mel_of_another_definition_without_any_model(refused: Refused) -> None:
    np.save("tts.npy", np.full((80, 9), -5.0, np.float32))
    refused(synth.main, "tts.npy", "out.wav", "--model", "default")


@pytest.mark.parametrize(
    ("out", "options"),
    [("out.mp3", []), ("out", []), ("out.flac", ["--float"]), ("file/out.wav", []), ("file/deeper/out.wav", [])],
)
def test_a_bad_output(out: str, options: list[str], model: str, mel: str, refused: Refused) -> None:
    Path("file").touch()
    refused(synth.main, mel, out, "--model", model, *options)


def test_an_output_folder_that_is_a_file(model: str, refused: Refused) -> None:
    save_mel("mels/a.npz", tiny_mel(10), SPEC)
    Path("file").touch()
    refused(synth.main, "mels", "file", "--model", model)


@pytest.mark.parametrize("name", ["banana", "", "meta", "cuda:99", "cuda"])
def test_a_device_that_is_not_there(name: str, model: str, mel: str, refused: Refused) -> None:
    if name == "cuda" and torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    refused(synth.main, mel, "out.wav", "--model", model, "--device", name, hide=r" or cuda:\d")
    refused(train.main, "demo", "--out", "run", "--device", name, hide=r" or cuda:\d")


@pytest.mark.parametrize("seed", ["-1", str(2**63), "one"])
def test_an_impossible_seed(seed: str, mel: str, model: str, refused: Refused) -> None:
    refused(synth.main, mel, "out.wav", "--model", model, "--seed", seed)


def test_an_interrupt_leaves_nothing(
    model: str, mel: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("wavegen.audio.AudioWriter.write", interrupted)
    before = tree()
    assert synth.main([mel, "out.wav", "--model", model]) == 130
    assert capsys.readouterr() == ("", "wavegen-synth: interrupted\n")
    assert tree() == before


def test_streams_of_a_process(mel: str) -> None:
    """What a script reads is on stdout, what only a person needs is on stderr."""
    write_model(Path("runs/tiny") / MODEL)
    program = [sys.executable, "-m", "wavegen.commands.synth", mel, "a.wav"]
    done = subprocess.run(program, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0
    assert done.stdout.startswith("a.wav: 0.08 s of audio in ")
    assert done.stderr == f"wavegen-synth: model runs/tiny/{MODEL}\n"
