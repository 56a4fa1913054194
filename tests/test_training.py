"""Training: the loop, resuming bit for bit, several processes against one, data, objectives."""

import contextlib
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from tiny import RATE, voice, write_corpus, write_recipe
from training_runs import assert_same_checkpoint, rows, train

from wavegen.audio import read_audio
from wavegen.checkpoint import load_checkpoint
from wavegen.commands.train import main
from wavegen.corpus import Clip, read_manifest
from wavegen.errors import ConfigError
from wavegen.files import LOCK
from wavegen.mel import load_mel
from wavegen.melspec import profile
from wavegen.training.config import TrainingConfig
from wavegen.training.data import Batch, Segments, read_crop
from wavegen.training.loop import is_improvement, uses_bfloat16
from wavegen.training.objectives import LikelihoodObjective, ReconstructionObjective, past_samples
from wavegen.training.schedule import learning_rate
from wavegen.training.state import RunFolder, TrainingState
from wavegen.vocoders import VOCODERS

MEL = profile("bigvgan-24k")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.mark.parametrize("vocoder", sorted(VOCODERS))
def test_a_run_leaves_what_it_promises(tmp_path: Path, corpus: Path, vocoder: str, capsys: object) -> None:
    recipe, out = write_recipe(tmp_path / "r.yaml", corpus, vocoder=vocoder), tmp_path / "run"
    assert train(recipe, out, "training.listen_clips=1", "training.listen_frames=4", "samples.clips=1") == 0
    names = sorted(path.name for path in out.iterdir())
    assert names == [
        LOCK, "checkpoints", "features", "log.jsonl", "model.safetensors", "recipe.yaml", "samples", "tensorboard",
    ]  # fmt: skip
    assert sorted(path.name for path in (out / "checkpoints").iterdir()) == [
        "best.safetensors", "step-00000006.safetensors", "step-00000008.safetensors",
    ]  # fmt: skip
    assert {"a0.wav", "a0.reference.wav", "a0.griffin-lim.wav", "a0.png", "scores.csv", "index.html"} <= {
        path.name for path in (out / "samples").iterdir()
    }
    assert [row["step"] for row in rows(out, "train")] == list(range(1, 9))
    assert [row["step"] for row in rows(out, "valid")] == [4, 8]
    assert {"loss", "gradient_norm", "learning_rate", "data_wait_share", "steps_per_s"} <= rows(out, "train")[0].keys()
    curves = tensorboard_tags(out / "tensorboard")
    assert {"train/loss", "train/gradient_norm", "train/learning_rate", "valid/loss"} <= curves["scalars"]
    assert "listened/log_mel" in curves["scalars"]
    assert [row["step"] for row in rows(out, "listened")] == [4, 8]
    assert curves["audio"] == {"a0/generated", "a0/recording"}
    assert curves["images"] == {"a0/spectrogram"}


LISTENED = ("training.listen_clips=2", "training.listen_frames=60", "training.decay=constant")


def test_the_best_checkpoint_is_the_best_by_the_metric_that_is_named_also_when_resumed(
    tmp_path: Path, corpus: Path
) -> None:
    recipe, by = write_recipe(tmp_path / "r.yaml", corpus), ("training.best_by=si_sdr", "training.validate_every=2")
    assert train(recipe, tmp_path / "whole", *LISTENED, *by) == 0
    scores = {row["step"]: row["si_sdr"] for row in rows(tmp_path / "whole", "listened")}
    assert list(scores) == [2, 4, 6, 8]
    header = load_checkpoint(tmp_path / "whole/checkpoints/best.safetensors")[1]
    assert (header["step"], header["best"]) == max(scores.items(), key=lambda item: item[1])
    assert train(recipe, tmp_path / "parts", *LISTENED, *by, "training.steps=4") == 0
    assert train(recipe, tmp_path / "parts", *LISTENED, *by) == 0
    for name in ("best", "step-00000008"):
        assert_same_checkpoint(*(tmp_path / run / f"checkpoints/{name}.safetensors" for run in ("whole", "parts")))
    assert train(recipe, tmp_path / "unheard", "training.decay=constant", "training.validate_every=2") == 0
    tensors = [load_checkpoint(tmp_path / run / "model.safetensors")[0] for run in ("whole", "unheard")]
    assert all(torch.equal(tensors[0][name], tensors[1][name]) for name in tensors[0]), "listening changed the training"


@pytest.mark.parametrize(
    ("best_by", "value", "best", "expected"),
    [
        ("loss", 1.0, None, True),
        ("loss", 1.0, 2.0, True),
        ("loss", 2.0, 1.0, False),
        ("pesq", 2.0, 1.0, True),
        ("pesq", 1.0, 2.0, False),
        ("mcd", 1.0, 2.0, True),
        ("loudness", 0.1, -0.5, True),
        ("loudness", -2.0, -0.5, False),
        ("pesq", None, None, False),
        ("pesq", None, 1.0, False),
        ("pesq", 1.0, 1.0, False),
    ],
)
def test_what_is_an_improvement(best_by: str, value: float | None, best: float | None, expected: bool) -> None:
    assert is_improvement(best_by, value, best) is expected


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["training.best_by=peqs"], "best_by: unknown 'peqs', did you mean 'pesq'?"),
        (["training.best_by=stoi"], "best_by: stoi is scored on the clips that are listened to; listen_clips is 0"),
    ],
)
def test_a_bad_best_by(
    overrides: list[str], message: str, tmp_path: Path, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(write_recipe(tmp_path / "r.yaml", corpus), tmp_path / "run", *overrides) == 2
    assert message in capsys.readouterr().err


def test_best_by_a_metric_whose_package_is_missing(
    tmp_path: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "pesq", None)
    recipe = write_recipe(tmp_path / "r.yaml", corpus)
    assert train(recipe, tmp_path / "run", *LISTENED, "training.best_by=pesq") == 2
    assert "training.best_by=pesq: no PESQ" in capsys.readouterr().err


def tensorboard_tags(folder: Path) -> dict[str, set[str]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return {kind: set(events.Tags()[kind]) for kind in ("scalars", "audio", "images")}


def test_training_lowers_the_loss(tmp_path: Path, corpus: Path) -> None:
    recipe = write_recipe(tmp_path / "r.yaml", corpus, vocoder="wavenet")
    assert train(recipe, tmp_path / "run", "training.steps=30", "training.learning_rate=0.01") == 0
    bits = [row["bits_per_sample"] for row in rows(tmp_path / "run", "train")]
    assert bits[0] == pytest.approx(8, abs=0.5)  # an untrained model of 256 classes knows nothing
    assert bits[-1] < bits[0] - 0.5


@pytest.mark.parametrize("vocoder", sorted(VOCODERS))
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(tmp_path: Path, corpus: Path, vocoder: str) -> None:
    recipe = write_recipe(tmp_path / "r.yaml", corpus, vocoder=vocoder)
    constant = "training.decay=constant"  # the only thing that depends on the last step is the decay
    assert train(recipe, tmp_path / "whole", constant) == 0
    assert train(recipe, tmp_path / "parts", constant, "training.steps=4") == 0
    assert train(recipe, tmp_path / "parts", constant) == 0
    last = "checkpoints/step-00000008.safetensors"
    assert_same_checkpoint(tmp_path / "whole" / last, tmp_path / "parts" / last)
    whole, parts = (rows(tmp_path / run, "train") for run in ("whole", "parts"))
    assert [row["loss"] for row in whole] == [row["loss"] for row in parts]


def test_a_difference_in_one_bit_would_be_noticed(tmp_path: Path, corpus: Path) -> None:
    """The comparison above can fail: another seed gives other bits."""
    recipe = write_recipe(tmp_path / "r.yaml", corpus)
    assert train(recipe, tmp_path / "a", "training.steps=2") == 0
    assert train(recipe, tmp_path / "b", "training.steps=2", "seed=1") == 0
    with pytest.raises(AssertionError, match="not bit for bit the same"):
        assert_same_checkpoint(*(tmp_path / run / "checkpoints/step-00000002.safetensors" for run in ("a", "b")))


def start_training(recipe: Path, out: Path, *overrides: str, alone: bool = False) -> subprocess.Popen[str]:
    """``alone``: in a process group of its own."""
    command = [sys.executable, "-m", "wavegen.commands.train", str(recipe), "--out", str(out), "--device", "cpu"]
    return subprocess.Popen(
        [*command, *overrides], text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=alone
    )


@pytest.mark.parametrize(("sign", "code"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, 130)])
def test_a_killed_run_goes_on_as_if_nothing_had_happened(
    tmp_path: Path, corpus: Path, sign: signal.Signals, code: int
) -> None:
    recipe = write_recipe(tmp_path / "r.yaml", corpus)
    settings = ("training.steps=40", "training.checkpoint_every=1", "training.keep_checkpoints=2")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert train(recipe, whole, *settings) == 0
    process = start_training(recipe, killed, *settings)
    while len(list(killed.glob("checkpoints/step-*"))) < 2:  # it saves after every step: the kill may hit a save
        assert process.poll() is None, process.stdout and process.stdout.read()
        time.sleep(0.01)
    process.send_signal(sign)
    output, _ = process.communicate()
    assert process.returncode == code, output
    assert not (killed / "model.safetensors").exists()
    half_written = killed / "checkpoints" / ".step-00000009.1.part.safetensors"
    half_written.write_bytes(b"half")
    if sign == signal.SIGTERM:
        assert "the same command goes on from there" in output
    assert train(recipe, killed, *settings) == 0
    last = "checkpoints/step-00000040.safetensors"
    assert_same_checkpoint(whole / last, killed / last)
    assert [r["step"] for r in rows(killed, "train")] == list(range(1, 41))
    assert not half_written.exists()


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_all_processes_saves_a_checkpoint_too(tmp_path: Path, corpus: Path, sign: signal.Signals) -> None:
    """As a terminal's Ctrl-C, ``timeout`` and a cluster send it: to those that read the segments as well."""
    recipe = write_recipe(tmp_path / "r.yaml", corpus)
    settings = ("training.steps=100000", "training.checkpoint_every=100000", "training.workers=2")
    process = start_training(recipe, tmp_path / "run", *settings, "training.validate_every=100000", alone=True)
    log = tmp_path / "run/log.jsonl"
    while not (log.exists() and log.read_text().count("\n") >= 3):
        assert process.poll() is None, process.stdout and process.stdout.read()
        time.sleep(0.01)
    os.killpg(process.pid, sign)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert "Traceback" not in output
    assert len(list((tmp_path / "run/checkpoints").glob("step-*"))) == 1


def test_a_reader_outlives_a_signal_and_goes_at_the_second(tmp_path: Path, corpus: Path) -> None:
    assert train(write_recipe(tmp_path / "r.yaml", corpus), tmp_path / "run", "training.steps=1") == 0
    clips = read_manifest(tmp_path / "run/features/manifest.tsv", Clip)
    before = multiprocessing.active_children()
    batches = Segments(clips, MEL, frames=8, seed=0).batches(0, 1000, 2, rank=0, world=1, workers=1)
    next(batches)
    (reader,) = (process for process in multiprocessing.active_children() if process not in before)
    for sign in (signal.SIGINT, signal.SIGTERM):
        os.kill(reader.pid or 0, sign)
    for _ in range(20):  # of which those read ahead are a few
        next(batches)
    with contextlib.suppress(RuntimeError):  # by which torch says that a reader is gone, if it sees it first
        reader.terminate()
        reader.join(timeout=60)
    reader.join(timeout=60)
    assert reader.exitcode == -signal.SIGTERM


def test_a_run_that_another_process_writes_is_refused(
    tmp_path: Path, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, out = write_recipe(tmp_path / "r.yaml", corpus), tmp_path / "run"
    process = start_training(recipe, out, "training.steps=100000", "training.workers=1", "training.checkpoint_every=1")
    while not list(out.glob("checkpoints/step-*")):
        assert process.poll() is None, process.stdout and process.stdout.read()
        time.sleep(0.01)
    assert train(recipe, out, "training.steps=1") == 2
    assert f"{out}: another process writes here; wait for it, or give another --out" in capsys.readouterr().err
    process.kill()
    process.communicate()
    step = int(max(out.glob("checkpoints/step-*")).stem.removeprefix("step-"))
    assert train(recipe, out, f"training.steps={step + 1}") == 0


@pytest.mark.parametrize("workers", [0, 1])
def test_a_mel_that_is_damaged_while_it_trains_is_named_in_one_line(
    tmp_path: Path, corpus: Path, workers: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = write_recipe(tmp_path / "r.yaml", corpus)
    original = RunFolder.save

    def save(run: RunFolder, state: TrainingState, **how: bool) -> None:
        original(run, state, **how)
        for mel in run.path.glob("features/mels/*"):
            mel.write_bytes(b"damaged")

    monkeypatch.setattr(RunFolder, "save", save)
    settings = ("training.steps=100", f"training.workers={workers}", "training.checkpoint_every=1")
    assert train(recipe, tmp_path / "run", *settings) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"wavegen-train: error: {tmp_path}/run/features/mels/a")
    assert "worker" not in line
    assert list(tmp_path.glob("run/checkpoints/step-*"))


def test_a_reader_that_is_killed_ends_the_training_in_one_line(
    tmp_path: Path, corpus: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    original = RunFolder.save

    def save(run: RunFolder, state: TrainingState, **how: bool) -> None:
        original(run, state, **how)
        for process in multiprocessing.active_children():
            process.kill()

    monkeypatch.setattr(RunFolder, "save", save)
    settings = ("training.steps=1000", "training.workers=1", "training.checkpoint_every=1")
    assert train(write_recipe(tmp_path / "r.yaml", corpus), tmp_path / "run", *settings) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "training.workers: a process that reads segments is gone" in line
    assert line.endswith("the same command goes on from the last checkpoint; if memory was short, give fewer, or 0")


@pytest.mark.parametrize("vocoder", sorted(VOCODERS))
def test_two_processes_take_the_steps_of_one(tmp_path: Path, corpus: Path, vocoder: str) -> None:
    recipe = write_recipe(tmp_path / "r.yaml", corpus, vocoder=vocoder)
    assert train(recipe, tmp_path / "one") == 0
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2",
        "-m", "wavegen.commands.train", str(recipe), "--out", str(tmp_path / "two"), "--device", "cpu",
    ]  # fmt: skip
    result = subprocess.run(
        command, env={**os.environ, "OMP_NUM_THREADS": "1"}, text=True, capture_output=True, timeout=300, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    for kind in ("train", "valid"):
        one, two = (np.array([row["loss"] for row in rows(tmp_path / run, kind)]) for run in ("one", "two"))
        # Rounding, which Adam's first steps and Griffin-Lim amplify; other segments would show from the first step.
        np.testing.assert_allclose(two[:2], one[:2], rtol=1e-4 if kind == "train" else 1e-2)
        np.testing.assert_allclose(two, one, rtol=2e-2)
    # A sum where a mean belongs would leave Adam's steps as they are, but not the gradient's norm.
    norms = [rows(tmp_path / run, "train")[0]["gradient_norm"] for run in ("one", "two")]
    assert norms[0] == pytest.approx(norms[1], rel=1e-4)
    assert rows(tmp_path / "one", "train") != rows(tmp_path / "two", "train")  # sums in another order: it was shared
    assert result.stdout.count("training ") == 1  # one voice


def test_a_batch_that_processes_cannot_share_is_refused(tmp_path: Path, corpus: Path) -> None:
    recipe = write_recipe(tmp_path / "r.yaml", corpus)
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2",
        "-m", "wavegen.commands.train", str(recipe), "--out", str(tmp_path / "two"), "training.batch_size=3",
    ]  # fmt: skip
    result = subprocess.run(command, text=True, capture_output=True, timeout=300, check=False)
    assert result.returncode != 0
    assert "training.batch_size 3 cannot be shared by 2 processes; give a multiple of it" in result.stderr


def test_a_changed_recipe_is_not_mixed_into_a_run(
    tmp_path: Path, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, out = write_recipe(tmp_path / "r.yaml", corpus), tmp_path / "run"
    assert train(recipe, out, "training.steps=2") == 0
    capsys.readouterr()
    assert train(recipe, out, "training.steps=2", "training.learning_rate=0.5") == 2
    assert capsys.readouterr().err == (
        f"wavegen-train: error: {out}: this run was begun with other settings "
        "(training.learning_rate: 0.002 -> 0.5); give another --out, or take the change back\n"
    )
    assert train(recipe, out, "training.steps=2", "training.log_every=5") == 0  # how it is watched may change


def test_the_resolved_recipe_alone_reproduces_the_run(tmp_path: Path, corpus: Path) -> None:
    recipe = write_recipe(tmp_path / "r.yaml", corpus)
    assert train(recipe, tmp_path / "first", "training.steps=2", "seed=3") == 0
    recipe.unlink()
    assert train(tmp_path / "first" / "recipe.yaml", tmp_path / "second") == 0
    last = "checkpoints/step-00000002.safetensors"
    assert_same_checkpoint(tmp_path / "first" / last, tmp_path / "second" / last)


def test_a_full_disk_while_saving_leaves_the_checkpoint_before(
    tmp_path: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, out = write_recipe(tmp_path / "r.yaml", corpus), tmp_path / "run"
    assert train(recipe, out, "training.steps=4") == 0
    (out / "model.safetensors").unlink()
    original = Path.write_bytes

    def full(path: Path, data: bytes) -> int:
        if path.suffix == ".safetensors":
            original(path, data[: len(data) // 2])
            raise OSError(28, "No space left on device")
        return original(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        assert train(recipe, out) == 2
    assert "No space left on device" in capsys.readouterr().err
    assert not list(out.rglob("*.part*"))
    assert train(recipe, out) == 0


def test_a_kill_between_the_two_files_of_a_best_checkpoint_loses_neither(
    tmp_path: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from wavegen.training import state

    recipe, out, saved = write_recipe(tmp_path / "r.yaml", corpus), tmp_path / "run", []
    original = state.save_checkpoint

    def killed(path: Path, *arguments: Any) -> None:
        saved.append(path.name)
        if len(saved) > 1 and saved[-2] == "best.safetensors":
            raise KeyboardInterrupt
        original(path, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(state, "save_checkpoint", killed)
        assert train(recipe, out) == 130
    assert "best.safetensors" in saved
    assert train(recipe, out) == 0
    assert load_checkpoint(out / "checkpoints/best.safetensors")[1]["best"] is not None


def test_a_damaged_model_is_written_again(tmp_path: Path, corpus: Path) -> None:
    recipe, model = write_recipe(tmp_path / "r.yaml", corpus), tmp_path / "run" / "model.safetensors"
    assert train(recipe, tmp_path / "run", "training.steps=2") == 0
    whole = {name: tensor.clone() for name, tensor in load_checkpoint(model)[0].items()}  # not mapped from the file
    model.write_bytes(model.read_bytes()[:1000])
    assert train(recipe, tmp_path / "run", "training.steps=2") == 0
    again, _ = load_checkpoint(model)
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def test_a_file_in_the_place_of_the_run_is_named(
    tmp_path: Path, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run").touch()
    assert train(write_recipe(tmp_path / "r.yaml", corpus), tmp_path / "run") == 2
    assert capsys.readouterr().err == f"wavegen-train: error: {tmp_path / 'run'}: is a file; give a folder\n"


def test_a_half_written_log_does_not_stop_a_resume(tmp_path: Path, corpus: Path) -> None:
    recipe, out = write_recipe(tmp_path / "r.yaml", corpus), tmp_path / "run"
    assert train(recipe, out, "training.steps=4") == 0
    with open(out / "log.jsonl", "a") as log:
        log.write('{"step": 5, "ki')
    assert train(recipe, out) == 0
    assert [row["step"] for row in rows(out, "train")] == list(range(1, 9))


@pytest.mark.parametrize("vocoder", sorted(VOCODERS))
def test_a_held_back_clip_of_a_few_samples_is_validated(tmp_path: Path, vocoder: str) -> None:
    corpus = write_corpus(tmp_path / "corpus")
    soundfile.write(corpus / "a0.wav", voice(400 / RATE), RATE)
    assert train(write_recipe(tmp_path / "r.yaml", corpus, vocoder=vocoder), tmp_path / "run") == 0
    assert [row["step"] for row in rows(tmp_path / "run", "valid")] == [4, 8]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU")
@pytest.mark.filterwarnings("ignore")  # of the compiler's own
@pytest.mark.parametrize("vocoder", sorted(VOCODERS))
def test_a_compiled_run_takes_the_steps_of_an_uncompiled_one(tmp_path: Path, corpus: Path, vocoder: str) -> None:
    recipe = write_recipe(tmp_path / "r.yaml", corpus, vocoder=vocoder)
    for compiled in ("true", "false"):
        assert train(recipe, tmp_path / compiled, "training.steps=2", f"training.compile={compiled}") == 0
    assert torch._dynamo.utils.counters["frames"]["ok"] > 0  # something was compiled
    a, b = (np.array([row["loss"] for row in rows(tmp_path / name, "train")]) for name in ("true", "false"))
    np.testing.assert_allclose(a, b, rtol=1e-3)


def test_bfloat16_trains_close_to_float32(tmp_path: Path, corpus: Path) -> None:
    recipe = write_recipe(tmp_path / "r.yaml", corpus)
    for precision in ("float32", "bfloat16"):
        assert train(recipe, tmp_path / precision, f"training.precision={precision}") == 0
    single, half = (rows(tmp_path / p, "train")[-1]["loss"] for p in ("float32", "bfloat16"))
    assert half == pytest.approx(single, rel=0.05)
    assert half != single


# --- data ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, corpus: Path) -> Path:
    folder = tmp_path_factory.mktemp("run")
    recipe = write_recipe(folder / "r.yaml", corpus)
    assert train(recipe, folder / "out", "training.steps=1") == 0
    return folder / "out"


def segments(run: Path, **changes: int) -> Segments:
    clips = [clip for clip in read_manifest(run / "features" / "manifest.tsv", Clip) if clip.split == "train"]
    return Segments(clips, MEL, **{"frames": 16, "seed": 0, **changes})


def test_a_segment_is_a_function_of_its_place_alone(run: Path) -> None:
    first, again = segments(run), segments(run)
    for _ in range(3):
        again[9, 9]  # what was read before changes nothing
    for step, place in ((0, 0), (5, 2), (70000, 31)):
        one, other = first[step, place], again[step, place]
        assert one.speakers is other.speakers is None
        assert all(torch.equal(a, b) for a, b in zip(one[:4], other[:4], strict=True))
    different = {tuple(first[step, place].audio[0, :8].tolist()) for step in range(6) for place in range(4)}
    assert len(different) > 12


def test_ranks_share_the_batch_that_one_process_would_take(run: Path) -> None:
    whole = next(segments(run).batches(3, 4, 4, rank=0, world=1, workers=0))
    halves = [next(segments(run).batches(3, 4, 4, rank=rank, world=2, workers=0)) for rank in (0, 1)]
    assert torch.equal(whole.audio[0::2], halves[0].audio)
    assert torch.equal(whole.audio[1::2], halves[1].audio)


def test_workers_read_what_one_process_reads(run: Path) -> None:
    one, several = (list(segments(run).batches(0, 3, 4, rank=0, world=1, workers=w)) for w in (0, 2))
    assert all(torch.equal(a.audio, b.audio) for a, b in zip(one, several, strict=True))


def test_audio_and_mel_of_a_segment_belong_together(run: Path) -> None:
    clip = segments(run).clips[0]
    crop = read_crop(clip, MEL, 5, 10)
    np.testing.assert_array_equal(crop.audio[0], read_audio(clip.audio)[5 * 256 : 15 * 256])
    np.testing.assert_array_equal(crop.mel[0], load_mel(clip.mel)[0][:, 5:15])


def test_a_clip_shorter_than_a_segment_is_padded_not_dropped(run: Path) -> None:
    data = segments(run)
    short = min(data.clips, key=lambda clip: clip.frames)
    assert short.frames < data.frames
    crop = read_crop(short, MEL, 0, data.frames)
    assert crop.lengths.tolist() == [short.frames]
    assert crop.audio.shape == (1, data.frames * 256)
    assert not crop.audio[:, short.frames * 256 :].any()
    lengths = {int(data[step, place].lengths) for step in range(60) for place in range(4)}
    assert short.frames in lengths


def test_only_the_segment_is_read_from_the_file(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import soundfile

    asked: list[int] = []
    original = soundfile.SoundFile.read

    def read(self: soundfile.SoundFile, frames: int = -1, *args: object, **kwargs: object) -> np.ndarray:
        asked.append(frames)
        return original(self, frames, *args, **kwargs)

    monkeypatch.setattr(soundfile.SoundFile, "read", read)
    read_crop(segments(run).clips[0], MEL, 5, 10)
    assert asked == [10 * 256]


# --- objectives and schedule --------------------------------------------------------------------------------------


def random_batch(lengths: list[int], starts: list[int], frames: int = 12) -> Batch:
    torch.manual_seed(0)
    audio = torch.rand(len(lengths), frames * 256) - 0.5
    mel = torch.randn(len(lengths), MEL.n_mels, frames)
    for i, length in enumerate(lengths):
        audio[i, length * 256 :] = 0
    return Batch(audio, mel, torch.tensor(lengths), torch.tensor(starts))


def with_nan_padding(batch: Batch) -> Batch:
    mel = batch.mel.clone()
    for i, length in enumerate(batch.lengths.tolist()):
        mel[i, :, length:] = float("nan")
    return batch._replace(mel=mel)


@pytest.mark.parametrize("name", sorted(VOCODERS))
def test_padding_reaches_neither_loss_nor_gradient(name: str) -> None:
    torch.manual_seed(0)
    shape = {
        "spectral": {"channels": 8, "layers": 1},
        "wavenet": {"cycles": 1, "depth": 3, "residual_channels": 4},
        "parallel": {"cycles": 1, "depth": 3, "residual_channels": 4},
    }
    vocoder = VOCODERS[name](MEL, **shape[name])
    objective = (
        LikelihoodObjective(vocoder)
        if vocoder.objective == "likelihood"
        else ReconstructionObjective(vocoder, MEL, TrainingConfig(steps=1))
    )
    batch = random_batch([12, 5], [0, 0])
    clean = objective(batch)["loss"]
    dirty = objective(with_nan_padding(batch))["loss"]
    assert torch.equal(clean, dirty)
    dirty.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in vocoder.parameters())


def test_samples_without_their_past_are_not_counted() -> None:
    vocoder = VOCODERS["wavenet"](MEL, cycles=1, depth=6, residual_channels=4)
    objective = LikelihoodObjective(vocoder)
    batch = random_batch([12], [40])
    log_prob = vocoder.log_prob(batch.audio, batch.mel)
    first = past_samples(vocoder)
    assert first >= vocoder.receptive_field_samples
    expected = -log_prob[:, first:].sum() / batch.audio.numel()
    torch.testing.assert_close(objective(batch)["loss"], expected)
    from_the_start = objective(batch._replace(starts=torch.tensor([0])))["loss"]
    torch.testing.assert_close(from_the_start, -log_prob.mean())


def test_reconstruction_of_the_recording_itself_costs_nothing() -> None:
    class Perfect(torch.nn.Module):
        audio, family = random_batch([12], [0]).audio, None

        def forward(self, mel: torch.Tensor, mask: torch.Tensor, speakers: torch.Tensor | None) -> torch.Tensor:
            return self.audio

    objective = ReconstructionObjective(Perfect(), MEL, TrainingConfig(steps=1))  # type: ignore[arg-type]
    assert objective(random_batch([12], [0]))["loss"] == 0
    Perfect.audio = Perfect.audio * 0.5
    halved = objective(random_batch([12], [0]))
    assert float(halved["mel"]) == pytest.approx(np.log(2), rel=1e-3)


def test_the_learning_rate_warms_up_and_decays() -> None:
    config = TrainingConfig(steps=1000, learning_rate=1e-2, warmup_steps=10, final_learning_rate=0.01)
    rates = [learning_rate(config, step) for step in range(1001)]
    assert rates[0] == pytest.approx(1e-3)
    assert max(rates) == pytest.approx(1e-2, rel=1e-3)
    assert rates[1000] == pytest.approx(1e-4)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    flat = TrainingConfig(steps=1000, learning_rate=1e-2, warmup_steps=10, decay="constant")
    assert learning_rate(flat, 999) == 1e-2


def test_impossible_resolutions_are_refused() -> None:
    with pytest.raises(ValueError, match="hop 512 is not shorter than n_fft 256"):
        TrainingConfig(steps=1, stft_resolutions=((256, 512),))


def test_a_run_without_held_back_clips_is_refused(tmp_path: Path, corpus: Path) -> None:
    from wavegen.training.loop import train as loop
    from wavegen.training.state import RunFolder

    vocoder = VOCODERS["spectral"](MEL, channels=8, layers=1)
    with pytest.raises(ConfigError, match=r"data\.held_out: 0 clips to train on and 0 held back"):
        loop(
            vocoder, [], TrainingConfig(steps=1), RunFolder(tmp_path, {}, {}),
            seed=0, device=torch.device("cpu"), say=print,
        )  # fmt: skip


@pytest.mark.gpu
@pytest.mark.parametrize("vocoder", sorted(VOCODERS))
def test_resuming_on_a_gpu_is_bit_for_bit_too(tmp_path: Path, corpus: Path, gpu: torch.device, vocoder: str) -> None:
    recipe = write_recipe(tmp_path / "r.yaml", corpus, vocoder=vocoder)
    # Graphs are recorded after 3 steps: what a resumed run computes kernel by kernel, the whole one replays.
    for name, steps, graphs in (("whole", 8, True), ("parts", 4, True), ("parts", 8, True), ("eager", 8, False)):
        settings = ["training.decay=constant", f"training.steps={steps}", "training.listen_clips=1"]
        settings.append(f"training.cuda_graphs={graphs}".lower())
        assert main([str(recipe), "--out", str(tmp_path / name), "--device", "cuda", *settings]) == 0
    last = "checkpoints/step-00000008.safetensors"
    for name in ("parts", "eager"):
        assert_same_checkpoint(tmp_path / "whole" / last, tmp_path / name / last)


def test_averaged_weights_follow_at_the_decay(tmp_path: Path) -> None:
    state = TrainingState(VOCODERS["spectral"](MEL, channels=4, layers=1), TrainingConfig(steps=1, ema_decay=0.9))
    before = state.average.output_norm.weight.clone()
    with torch.no_grad():
        state.vocoder.output_norm.weight.add_(1)
    state.step = 10_000  # past the quick start
    state.update_average()
    torch.testing.assert_close(state.average.output_norm.weight, before + 0.1)


def test_the_likelihood_of_padding_is_not_counted() -> None:
    vocoder = VOCODERS["wavenet"](MEL, cycles=1, depth=3, residual_channels=4)
    batch = random_batch([12, 5], [0, 0])
    log_prob = vocoder.log_prob(batch.audio, batch.mel * (torch.arange(12) < batch.lengths[:, None])[:, None])
    expected = -(log_prob[0].sum() + log_prob[1, : 5 * 256].sum()) / batch.audio.numel()
    torch.testing.assert_close(LikelihoodObjective(vocoder)(batch)["loss"], expected)


def test_bfloat16_is_left_to_vocoders_that_bear_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A parallel WaveNet's samples would have 8 bits. Whoever asks for bfloat16 gets it."""
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    gpu, cpu = torch.device("cuda"), torch.device("cpu")
    auto, asked = TrainingConfig(steps=1), TrainingConfig(steps=1, precision="bfloat16")
    with torch.device("meta"):
        vocoders = {name: kind(MEL) for name, kind in VOCODERS.items()}
    chosen = {name: uses_bfloat16(auto, vocoder, gpu) for name, vocoder in vocoders.items()}
    assert chosen == {"parallel": False, "spectral": True, "wavenet": True}
    assert not any(uses_bfloat16(auto, vocoder, cpu) for vocoder in vocoders.values())
    assert all(uses_bfloat16(asked, vocoder, gpu) for vocoder in vocoders.values())
