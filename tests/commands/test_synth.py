"""The console commands as a user meets them: files, streams, exit codes, and one line for every mistake."""

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
from support.vocoders import SPEC, tiny_mel, tiny_vocoder, write_model

import wavegen.checkpoint
from wavegen.commands import extract, synth, train
from wavegen.corpora.manifest import Clip, read_manifest
from wavegen.mel import load_mel, profile, save_mel
from wavegen.recipe import find_recipe

MODEL = "model.safetensors"
OTHER_SPEC = SPEC.replace(f_max_hz=3000, log="log10", floor=1e-6)
GIVE_A_MEL = "give an .npz made by wavegen-extract, or a .npy with one float mel [n_mels, frames]"
GIVE_A_MODEL = "give a .safetensors file that wavegen wrote, such as an earlier one of the run"
CANNOT_WRITE = (
    "cannot write: a file is where its folder should be; "
    "check the folder's permissions and the free space; nothing there was changed"
)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where each test runs, so that messages name relative, known paths."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def model() -> str:
    return str(write_model(Path(MODEL)))


@pytest.fixture
def mel() -> str:
    save_mel("a.npz", tiny_mel(40), SPEC)
    return "a.npz"


def tree() -> dict[str, bytes | None]:
    """Everything below the current folder, hidden files too."""
    return {str(path): path.read_bytes() if path.is_file() else None for path in sorted(Path().rglob("*"))}


class Refused:
    """Runs a command that must fail: exit code 2, one line on stderr, nothing on stdout, no file changed."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys

    def __call__(self, main: Callable[[list[str]], int], *arguments: str) -> str:
        """The one line, without the command's name."""
        before = tree()
        self.capsys.readouterr()
        assert main(list(arguments)) == 2
        assert tree() == before
        out, err = self.capsys.readouterr()
        assert out == ""
        line = re.fullmatch(r"wavegen-\w+: error: (.*)\n", err)  # a dot is no newline
        assert line, err
        return line[1]


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Refused:
    return Refused(capsys)


# ---- wavegen-synth


def test_a_mel_becomes_a_16_bit_wav(model: str, mel: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert synth.main([mel, "out/a.wav", "--model", model]) == 0
    info = soundfile.info("out/a.wav")
    assert (info.frames, info.samplerate, info.channels, info.subtype) == (40 * SPEC.hop_length, 8000, 1, "PCM_16")
    assert os.listdir("out") == ["a.wav"]
    out, err = capsys.readouterr()
    assert re.fullmatch(r"out/a\.wav: 0\.08 s of audio in \d+\.\d\d s, \d+\.\d x real time\n", out)
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


def test_a_long_mel_in_pieces_is_the_whole(model: str) -> None:
    mel = tiny_mel(4321)  # more than two of the pieces that it is cut into
    save_mel("a.npz", mel, SPEC)
    assert synth.main(["a.npz", "a.wav", "--model", model, "--float"]) == 0
    whole = tiny_vocoder("spectral").eval().synthesize(torch.from_numpy(mel)[None])[0].numpy()
    made = soundfile.read("a.wav", dtype="float32")[0]
    assert len(made) == 4321 * SPEC.hop_length
    assert np.abs(made - whole).max() < 1e-5 * np.abs(whole).max()


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
    assert re.search(r"synthesising: 100%.* 40/40 ", capsys.readouterr().err)


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


BAD_MELS: dict[str, tuple[Callable[[], object], str]] = {
    "swapped axes": (
        lambda: np.save("a.npy", tiny_mel(40).T),
        "a.npy: looks like [frames, n_mels], shape (40, 8); transpose it: save mel.T",
    ),
    "batched": (
        lambda: np.save("a.npy", tiny_mel(40)[None]),
        "a.npy: has a batch axis, shape (1, 8, 40); save mel[0]",
    ),
    "rank 3": (
        lambda: np.save("a.npy", np.stack([tiny_mel(40)] * 2)),
        "a.npy: has 3 axes, shape (2, 8, 40); save one mel [8, frames]",
    ),
    "objects": (objects, f"a.npy: holds Python objects, which are never unpickled; {GIVE_A_MEL}"),
    "raw pickle": (raw_pickle, f"a.npy: is neither an .npy nor an .npz file; {GIVE_A_MEL}"),
    "objects in npz": (objects_in_npz, "a.npz: holds object (1, 1); write it with save_mel"),
    "integers": (
        lambda: np.save("a.npy", tiny_mel(40).astype(np.int16)),
        "a.npy: holds int16 values, not floats; save the mel as float32",
    ),
    "NaN": (with_nan, "a.npy: has NaN or infinite values; look for the fault in what made it"),
    "bins": (
        lambda: np.save("a.npy", tiny_mel(40, spec=SPEC.replace(n_mels=7))),
        "a.npy: has 7 mel bins where 8 are needed; extract it with the vocoder's definition",
    ),
    "definition": (
        lambda: save_mel("a.npz", tiny_mel(40, spec=OTHER_SPEC), OTHER_SPEC),
        "a.npz: mel made to another definition: f_max_hz is 3000.0, not 4000.0, log is log10, not ln, "
        "floor is 1e-06, not 1e-05; nothing converts f_max_hz exactly, extract it again from the recording "
        "(log, floor alone would convert exactly)",
    ),
    "no frames": (
        lambda: np.save("a.npy", tiny_mel(40)[:, :0]),
        "a.npy: has no frames; check the recording it was made from",
    ),
    "empty": (lambda: Path("a.npy").touch(), f"a.npy: is empty; {GIVE_A_MEL}"),
    "text": (lambda: Path("a.npy").write_text("a text"), f"a.npy: is neither an .npy nor an .npz file; {GIVE_A_MEL}"),
    "foreign npz": (
        lambda: np.savez("a.npz", x=tiny_mel(40)),
        f"a.npz: is an .npz without the arrays mel and spec; {GIVE_A_MEL}",
    ),
    "cut short": (cut_short, f"a.npz: cannot be read: File is not a zip file; {GIVE_A_MEL}"),
    "suffix": (lambda: Path("a.pt").touch(), "a.pt: a mel file ends in .npy or .npz; give one of those"),
}


@pytest.mark.parametrize("name", BAD_MELS)
def test_a_bad_mel(name: str, model: str, refused: Refused) -> None:
    make, message = BAD_MELS[name]
    make()
    (mel,) = (path.name for path in Path().glob("a.*"))
    assert refused(synth.main, mel, "out.wav", "--model", model) == message
    assert not Path("executed").exists()


def test_the_pickles_would_have_been_executed() -> None:
    for make in (objects, raw_pickle):
        make()
        np.load("a.npy", allow_pickle=True)
        Path("executed").rmdir()


def test_a_missing_mel(model: str, refused: Refused) -> None:
    message = refused(synth.main, "none.npz", "out.wav", "--model", model)
    assert message == "none.npz: no such file or folder; check the path"


def test_a_folder_without_mels(model: str, refused: Refused) -> None:
    Path("mels").mkdir()
    Path("mels/notes.txt").touch()
    message = refused(synth.main, "mels", "wavs", "--model", model)
    assert message == "mels: no .npy or .npz files; give the folder wavegen-extract wrote"


def test_one_bad_mel_of_a_folder_is_noticed_before_any_is_synthesised(model: str, refused: Refused) -> None:
    save_mel("mels/a.npz", tiny_mel(10), SPEC)
    np.save("mels/b.npy", np.full((8, 10), np.nan))
    message = refused(synth.main, "mels", "wavs", "--model", model)
    assert message == "mels/b.npy: has NaN or infinite values; look for the fault in what made it"


BAD_MODELS: dict[str, tuple[Callable[[], object], str]] = {
    "missing": (lambda: None, "bad: no such file; check the path"),
    "truncated": (
        lambda: os.truncate(write_model(Path("bad")), 3000),
        f"bad: is damaged or cut short (…); {GIVE_A_MODEL}",
    ),
    "pickled": (
        lambda: torch.save({"x": Unpickled()}, "bad"),
        f"bad: is a pickle, which wavegen never loads; {GIVE_A_MODEL}",
    ),
    "foreign": (
        lambda: save_file({"x": torch.zeros(3)}, "bad"),
        "bad: is a safetensors file without wavegen's header; give one that wavegen wrote",
    ),
    "folder": (
        lambda: Path("bad").mkdir(),
        "bad: a folder without a model or checkpoint; give a run folder",
    ),
}


@pytest.mark.parametrize("name", BAD_MODELS)
def test_a_bad_model(name: str, mel: str, refused: Refused) -> None:
    make, message = BAD_MODELS[name]
    make()
    found = refused(synth.main, mel, "out.wav", "--model", "bad")
    assert re.sub(r"\(Error .*\)", "(…)", found) == message  # in brackets are the words of safetensors
    assert not Path("executed").exists()


def test_a_model_of_a_newer_format(mel: str, refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as newer_version:
        newer_version.setattr(wavegen.checkpoint, "FORMAT", 2)
        write_model(Path("bad"))
    message = refused(synth.main, mel, "out.wav", "--model", "bad")
    assert message == "bad: is of format 2, this version reads format 1; update wavegen"


def test_no_model_anywhere(folder: Path, mel: str, refused: Refused) -> None:
    assert refused(synth.main, mel, "out.wav") == (
        f"no finished run in {folder / 'runs'}; train one, as with wavegen-train demo, "
        "or name a run's folder or a model file"
    )


@pytest.mark.parametrize(
    ("out", "options", "message"),
    [
        ("out.mp3", [], "out.mp3: audio is not written here; name it .wav or .flac"),
        ("out", [], "out: audio is not written here; name it .wav or .flac"),
        ("out.flac", ["--float"], "out.flac: 32-bit float audio is not written here; name it .wav"),
        ("file/out.wav", [], f"file/out.wav: {CANNOT_WRITE}"),
        ("file/deeper/out.wav", [], f"file/deeper/out.wav: {CANNOT_WRITE}"),
    ],
)
def test_a_bad_output(out: str, options: list[str], message: str, model: str, mel: str, refused: Refused) -> None:
    Path("file").touch()
    assert refused(synth.main, mel, out, "--model", model, *options) == message


def test_an_output_folder_that_is_a_file(model: str, refused: Refused) -> None:
    save_mel("mels/a.npz", tiny_mel(10), SPEC)
    Path("file").touch()
    assert refused(synth.main, "mels", "file", "--model", model) == f"file/a.wav: {CANNOT_WRITE}"


@pytest.mark.parametrize("name", ["banana", "", "meta", "cuda:99"])
def test_a_device_that_is_not_there(name: str, model: str, mel: str, refused: Refused) -> None:
    has = " or ".join(["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))])
    message = f"--device: no device {name!r} here; give {has}"
    assert refused(synth.main, mel, "out.wav", "--model", model, "--device", name) == message
    assert refused(train.main, "demo", "--out", "run", "--device", name) == message


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there(model: str, mel: str, refused: Refused) -> None:
    message = "--device: no device 'cuda' here; give cpu"
    assert refused(synth.main, mel, "out.wav", "--model", model, "--device", "cuda") == message
    assert refused(train.main, "demo", "--out", "run", "--device", "cuda") == message


@pytest.mark.parametrize("seed", ["-1", str(2**63), "one"])
def test_a_seed_that_is_none(seed: str, mel: str, model: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        synth.main([mel, "out.wav", "--model", model, "--seed", seed])
    assert stop.value.code == 2
    assert "--seed" in capsys.readouterr().err
    assert not Path("out.wav").exists()


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


# ---- wavegen-extract


def write_recordings(*names: str, seconds: float = 0.3) -> None:
    """Noise that swells from silence, 24 kHz."""
    for seed, name in enumerate(names):
        samples = np.random.default_rng(seed).uniform(-0.5, 0.5, round(24000 * seconds))
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(name, samples * np.linspace(0, 1, len(samples)) ** 2, 24000)


def test_one_recording_becomes_a_mel_and_a_manifest(capsys: pytest.CaptureFixture[str]) -> None:
    write_recordings("in/a.wav")
    assert extract.main(["in/a.wav", "out"]) == 0
    assert capsys.readouterr() == ("1 mels of 0.3 s extracted: out/manifest.tsv\n", "")
    mel, spec = load_mel("out/mels/a.npz")
    assert spec == profile("bigvgan-24k")
    assert mel.shape == (100, 28)
    (clip,) = read_manifest(Path("out/manifest.tsv"), Clip)
    assert (clip.name, clip.split, clip.samples, clip.frames) == ("a", "train", 7200, 28)


def test_a_folder_of_recordings_to_a_profile(capsys: pytest.CaptureFixture[str]) -> None:
    write_recordings("in/a.wav", "in/sub/b.flac")
    arguments = ["in", "out", "--profile", "vocos-24k"]
    assert extract.main(arguments) == 0
    assert load_mel("out/mels/sub/b.npz")[1] == profile("vocos-24k")
    assert [clip.name for clip in read_manifest(Path("out/manifest.tsv"), Clip)] == ["a", "sub/b"]
    assert capsys.readouterr().out == "2 mels of 0.6 s extracted: out/manifest.tsv\n"
    before = tree()
    assert extract.main(arguments) == 0
    assert capsys.readouterr().out == "2 mels of 0.6 s were finished already: out/manifest.tsv\n"
    assert tree() == before


def test_a_share_is_held_out() -> None:
    write_recordings(*(f"in/{index}.wav" for index in range(5)), seconds=0.1)
    assert extract.main(["in", "out", "--held-out", "0.4"]) == 0
    splits = [clip.split for clip in read_manifest(Path("out/manifest.tsv"), Clip)]
    assert sorted(splits) == ["train"] * 3 + ["valid"] * 2


def test_jobs_change_nothing() -> None:
    write_recordings(*(f"in/{index}.wav" for index in range(4)), seconds=0.1)
    for jobs in ("1", "3"):
        assert extract.main(["in", f"out{jobs}", "--jobs", jobs]) == 0
    written = tree()
    for path in ("manifest.tsv", *(f"mels/{index}.npz" for index in range(4))):
        assert written[f"out1/{path}"] == written[f"out3/{path}"]


def test_a_bad_recording_among_good_ones_is_reported_at_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    write_recordings("in/a.wav", "in/c.wav")
    Path("in/b.wav").write_text("a text")
    for how in ("extracted", "were finished already"):  # the second time too
        assert extract.main(["in", "out"]) == 1
        assert capsys.readouterr() == (
            f"2 mels of 0.6 s {how}: out/manifest.tsv\n",
            "wavegen-extract: 1 left out:\n"
            "  in/b.wav: cannot be decoded (Format not recognised.); copy or download it again, or leave it out\n",
        )
    assert [clip.name for clip in read_manifest(Path("out/manifest.tsv"), Clip)] == ["a", "c"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none", "out"], "none: no such folder; give the folder that holds the recordings"),
        (
            ["empty", "out"],
            "empty: no recordings match '**/*'; looked for .aif, .aiff, .flac, .mp3, .ogg, .opus, .wav; "
            "check the folder and the pattern",
        ),
        (
            ["in", "out", "--profile", "bigvgan-24"],
            "bigvgan-24: no mel profile has this name; try bigvgan-24k, bigvgan-44k, bigvgan-22k",
        ),
    ],
)
def test_a_bad_extraction(arguments: list[str], message: str, refused: Refused) -> None:
    write_recordings("in/a.wav")
    Path("empty").mkdir()
    assert refused(extract.main, *arguments) == message


@pytest.mark.parametrize("option", [["--jobs", "0"], ["--held-out", "1.0"], ["--held-out", "-0.1"]])
def test_a_bad_option_of_extraction(option: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    write_recordings("in/a.wav")
    with pytest.raises(SystemExit) as stop:
        extract.main(["in", "out", *option])
    assert stop.value.code == 2
    assert f"wavegen-extract: error: {' '.join(option)}: give " in capsys.readouterr().err
    assert not Path("out").exists()


# ---- wavegen-train


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["demmo"], "unknown recipe 'demmo'; did you mean 'demo'?"),
        (["ljspeech/wavnet"], "unknown recipe 'ljspeech/wavnet'; did you mean 'ljspeech/wavenet'?"),
        (["none.yaml"], "none.yaml: no such file; check the path"),
        (["demo", "training.stepz=5"], "{demo}: training.stepz: unknown key, did you mean 'steps'?"),
        (["demo", "training.steps=many"], '{demo}: training.steps: found "many", want an integer'),
        (["demo", "--out", "run", "steps"], "override 'steps': not of the form key=value"),
    ],
)
def test_a_bad_training(arguments: list[str], message: str, refused: Refused) -> None:
    assert refused(train.main, *arguments) == message.format(demo=find_recipe("demo"))


@pytest.mark.parametrize(
    ("main", "arguments"), [(extract.main, ["in", "file/out"]), (train.main, ["demo", "--out", "file/out"])]
)
def test_a_folder_that_cannot_be_written(
    main: Callable[[list[str]], int], arguments: list[str], folder: Path, refused: Refused
) -> None:
    """Below a file: folders without permission would not stop a test that runs as root."""
    write_recordings("in/a.wav")
    Path("file").touch()
    message = refused(main, *arguments)
    assert re.match(rf"{re.escape(str(folder))}/file/out/\S*: cannot \w", message), message


# ---- as processes


@pytest.mark.parametrize(
    ("command", "arguments", "message"),
    [
        ("synth", ["none.npy", "out.wav"], "none.npy: no such file or folder; check the path"),
        ("extract", ["none", "out"], "none: no such folder; give the folder that holds the recordings"),
        ("train", ["demmo"], "unknown recipe 'demmo'; did you mean 'demo'?"),
    ],
    ids=["synth", "extract", "train"],
)
def test_a_mistake_is_one_line_and_exit_code_2(command: str, arguments: list[str], message: str) -> None:
    program = [Path(sys.executable).with_name(f"wavegen-{command}"), *arguments]
    done = subprocess.run(program, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"wavegen-{command}: error: {message}\n")
    assert tree() == {}


def test_streams_of_a_process(mel: str) -> None:
    """What a script reads is on stdout, what only a person needs is on stderr."""
    write_model(Path("runs/tiny") / MODEL)
    program = [sys.executable, "-m", "wavegen.commands.synth", mel, "a.wav"]
    done = subprocess.run(program, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0
    assert done.stdout.startswith("a.wav: 0.08 s of audio in ")
    assert done.stderr == f"wavegen-synth: model runs/tiny/{MODEL}\n"
