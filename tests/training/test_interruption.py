"""Training that is cut short: by a kill, a signal, a damaged mel, another process."""

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import soundfile
from support.corpus import write_corpus, write_recipe
from support.kills import kill_and_compare
from support.messages import Messages
from support.runs import assert_same_checkpoint, rows, train

from wavegen.corpora.manifest import Clip, read_manifest
from wavegen.mel import profile
from wavegen.training import data
from wavegen.training.data import Segments
from wavegen.training.run_folder import RunFolder
from wavegen.training.state import TrainingState

MEL = profile("bigvgan-24k")


StartTraining = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start_training() -> Iterator[StartTraining]:
    """Start ``wavegen-train`` in another process, ``alone`` in a process group of its own; it ends with the test."""
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
def test_a_killed_run_resumes_as_if_nothing_had_happened(
    tmp_path: Path, recipe: Path, sign: signal.Signals, code: int, start_training: StartTraining
) -> None:
    settings = ("training.steps=20", "training.checkpoint_every=1", "training.keep_checkpoints=2")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert train(recipe, whole, *settings) == 0
    process = start_training(recipe, killed, *settings)
    while len(list(killed.glob("checkpoints/step-*"))) < 2:  # it saves after every step, so the kill may hit a save
        assert process.poll() is None, process.stdout and process.stdout.read()
        time.sleep(0.01)
    process.send_signal(sign)
    output, _ = process.communicate()
    assert process.returncode == code, output
    assert not (killed / "model.safetensors").exists()
    half_written = killed / "checkpoints" / ".step-00000009.1.part.safetensors"
    half_written.write_bytes(b"half")
    if sign == signal.SIGTERM:
        assert "the same command resumes from there" in output
    assert train(recipe, killed, *settings) == 0
    last = "checkpoints/step-00000020.safetensors"
    assert_same_checkpoint(whole / last, killed / last)
    assert [r["step"] for r in rows(killed, "train")] == list(range(1, 21))
    assert not half_written.exists()


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_all_processes_saves_a_checkpoint_too(
    tmp_path: Path, recipe: Path, sign: signal.Signals, start_training: StartTraining
) -> None:
    """A terminal's Ctrl-C, ``timeout`` and clusters send signals to the workers as well."""
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


def test_a_worker_survives_a_signal_and_ends_at_the_second(tmp_path: Path, recipe: Path) -> None:
    assert train(recipe, tmp_path / "run", "training.steps=1") == 0
    clips = read_manifest(tmp_path / "run/features/manifest.tsv", Clip)
    before = multiprocessing.active_children()
    batches = Segments(clips, MEL, frames=8, seed=0).batches(0, 1000, 2, rank=0, world=1, workers=1)
    next(batches)
    (worker,) = (process for process in multiprocessing.active_children() if process not in before)
    for sign in (signal.SIGINT, signal.SIGTERM):
        os.kill(worker.pid or 0, sign)
    for _ in range(20):  # more than the worker has read ahead
        next(batches)
    with contextlib.suppress(RuntimeError):  # torch may report the lost worker first
        worker.terminate()
        worker.join(timeout=60)
    worker.join(timeout=60)
    assert worker.exitcode == -signal.SIGTERM


def test_a_run_that_another_process_writes_is_refused(
    tmp_path: Path,
    recipe: Path,
    messages: Messages,
    capsys: pytest.CaptureFixture[str],
    start_training: StartTraining,
) -> None:
    out = tmp_path / "run"
    process = start_training(recipe, out, "training.steps=100000", "training.workers=1", "training.checkpoint_every=1")
    while not list(out.glob("checkpoints/step-*")):
        assert process.poll() is None, process.stdout and process.stdout.read()
        time.sleep(0.01)
    assert train(recipe, out, "training.steps=1") == 2
    messages.check(capsys.readouterr().err)
    process.kill()
    process.communicate()
    step = int(max(out.glob("checkpoints/step-*")).stem.removeprefix("step-"))
    assert train(recipe, out, f"training.steps={step + 1}") == 0


# --- files that break while they are read ---


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:3000])


def encode_without_seeking(path: Path) -> None:
    """As GSM, which libsndfile decodes from the start only."""
    samples, rate = soundfile.read(path)
    soundfile.write(path, samples, rate, subtype="GSM610")


BREAKS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "cut recording": ("corpus", cut),
    "missing recording": ("corpus", Path.unlink),
    "unseekable recording": ("corpus", encode_without_seeking),
    "missing mel": ("mels", Path.unlink),
    "cut mel": ("mels", cut),
}


@pytest.mark.filterwarnings("ignore:This DataLoader will create 2 worker processes")  # on a machine of one core
@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize("kind", BREAKS)
def test_a_file_that_breaks_during_training_ends_it_in_one_line(
    tmp_path: Path, workers: int, kind: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = write_corpus(tmp_path / "corpus")
    recipe = write_recipe(tmp_path / "r.yaml", corpus)
    place, break_file = BREAKS[kind]
    original = RunFolder.save
    broken: list[bool] = []

    def save(run: RunFolder, state: TrainingState, **options: bool) -> None:
        original(run, state, **options)
        files = [*corpus.glob("*")] if place == "corpus" else [*run.path.glob("features/mels/*")]
        for path in [] if broken else files:
            break_file(path)
        broken.append(True)

    monkeypatch.setattr(RunFolder, "save", save)
    monkeypatch.setattr(data, "usable_cores", lambda: 2)
    before = multiprocessing.active_children()
    settings = ("training.steps=100", f"training.workers={workers}", "training.checkpoint_every=1")
    assert train(recipe, tmp_path / "run", *settings) == 2
    (line,) = capsys.readouterr().err.splitlines()
    folder = corpus if place == "corpus" else tmp_path / "run/features/mels"
    assert line.startswith(f"wavegen-train: error: {folder}/a")
    assert "worker" not in line
    assert list(tmp_path.glob("run/checkpoints/step-*"))
    assert set(multiprocessing.active_children()) <= set(before)  # at once, not when Python ends


def test_a_training_whose_readers_met_an_error_ends(tmp_path: Path, start_training: StartTraining) -> None:
    """As a process, because Python waits for the readers where it ends."""
    corpus = write_corpus(tmp_path / "corpus")
    recipe = write_recipe(tmp_path / "r.yaml", corpus)
    settings = ("training.steps=100000", "training.workers=2", "training.checkpoint_every=1")
    process = start_training(recipe, tmp_path / "run", *settings)
    while not list(tmp_path.glob("run/checkpoints/step-*")):
        assert process.poll() is None, process.stdout and process.stdout.read()
        time.sleep(0.01)
    for path in corpus.glob("*"):
        path.unlink()
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 2, output
    assert "Traceback" not in output
    assert f"wavegen-train: error: {corpus}/a" in output


def test_a_worker_that_is_killed_ends_the_training_in_one_line(
    tmp_path: Path, recipe: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    original = RunFolder.save

    def save(run: RunFolder, state: TrainingState, **options: bool) -> None:
        original(run, state, **options)
        for process in multiprocessing.active_children():
            process.kill()

    monkeypatch.setattr(RunFolder, "save", save)
    settings = ("training.steps=1000", "training.workers=1", "training.checkpoint_every=1")
    assert train(recipe, tmp_path / "run", *settings) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "training.workers: a worker process was killed: " in line
    assert "resume from the last checkpoint" in line


@pytest.mark.slow
def test_a_training_that_is_killed_at_random_moments_writes_the_same_bytes(tmp_path: Path) -> None:
    """With two readers and discriminators; ``python tests/kills.py`` kills it more often."""
    print(kill_and_compare(tmp_path, kills=2, steps=16))
