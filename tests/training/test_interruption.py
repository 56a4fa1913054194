"""Training that is cut short: by a kill, a signal, a full disk, a damaged file, another process."""

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from support.corpus import write_corpus, write_recipe
from support.runs import assert_same_checkpoint, rows, train

from wavegen.checkpoint import load_checkpoint
from wavegen.corpora.manifest import Clip, read_manifest
from wavegen.mel import profile
from wavegen.training.data import Segments
from wavegen.training.state import RunFolder, TrainingState

MEL = profile("bigvgan-24k")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


StartTraining = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start_training() -> Iterator[StartTraining]:
    """Start ``wavegen-train`` beside the test, which it does not outlive; ``alone`` in a process group of its own."""
    started: list[subprocess.Popen[str]] = []

    def start(recipe: Path, out: Path, *overrides: str, alone: bool = False) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "wavegen.commands.train", str(recipe), "--out", str(out), "--device", "cpu"]
        process = subprocess.Popen(
            [*command, *overrides], text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=alone
        )
        started.append(process)
        return process

    yield start
    for process in started:
        with process:  # closes its pipe
            process.kill()


@pytest.mark.parametrize(("sign", "code"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, 130)])
def test_a_killed_run_goes_on_as_if_nothing_had_happened(
    tmp_path: Path, corpus: Path, sign: signal.Signals, code: int, start_training: StartTraining
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
def test_a_signal_to_all_processes_saves_a_checkpoint_too(
    tmp_path: Path, corpus: Path, sign: signal.Signals, start_training: StartTraining
) -> None:
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
    tmp_path: Path, corpus: Path, capsys: pytest.CaptureFixture[str], start_training: StartTraining
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


def test_a_half_written_log_does_not_stop_a_resume(tmp_path: Path, corpus: Path) -> None:
    recipe, out = write_recipe(tmp_path / "r.yaml", corpus), tmp_path / "run"
    assert train(recipe, out, "training.steps=4") == 0
    with open(out / "log.jsonl", "a") as log:
        log.write('{"step": 5, "ki')
    assert train(recipe, out) == 0
    assert [row["step"] for row in rows(out, "train")] == list(range(1, 9))


def test_a_damaged_model_is_written_again(tmp_path: Path, corpus: Path) -> None:
    recipe, model = write_recipe(tmp_path / "r.yaml", corpus), tmp_path / "run" / "model.safetensors"
    assert train(recipe, tmp_path / "run", "training.steps=2") == 0
    whole = {name: tensor.clone() for name, tensor in load_checkpoint(model)[0].items()}  # not mapped from the file
    model.write_bytes(model.read_bytes()[:1000])
    assert train(recipe, tmp_path / "run", "training.steps=2") == 0
    again, _ = load_checkpoint(model)
    assert all(torch.equal(whole[name], again[name]) for name in whole)
