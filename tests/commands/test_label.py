"""``wavegen-label`` as a user meets it, from training without annotation to the label track."""

import io
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from support.commands import Refused
from support.corpus import RATE, voice, write_corpus
from support.runs import assert_same_checkpoint, checkpoint, rows, train

from wavegen.commands import label
from wavegen.corpora.label_files import Label, read_labels, write_labels

pytestmark = pytest.mark.usefixtures("alone")

RECIPE = """
description: tiny
mel: bigvgan-24k
data: {corpus: corpus, held_out: "a[01]"}
model: {name: labeller, channels: 6, layers: 2, kernel_size: 3, padding: causal, look_ahead: 1}
training:
  steps: 6
  batch_size: 4
  segment_frames: 32
  learning_rate: 2.0e-2
  warmup_steps: 2
  decay: constant
  log_every: 1
  validate_every: 3
  checkpoint_every: 2
  valid_frames: 60
  listen_clips: 1
samples: {clips: 1}
"""


@pytest.fixture
def run() -> Path:
    """A finished run of a tiny labeller."""
    write_corpus(Path("corpus"))
    Path("label.yaml").write_text(RECIPE)
    assert train(Path("label.yaml"), Path("runs/label")) == 0
    return Path("runs/label")


def test_a_recording_is_labelled_by_a_model_that_no_annotation_trained(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert {"loss", "f1_speech", "f1_voiced"} <= rows(run, "valid")[-1].keys()
    assert "labels: voiced, speech" in (run / "samples/index.html").read_text()
    (noisy,) = (run / "samples").glob("*.in-noise.wav")
    assert noisy.with_name(noisy.name.replace("in-noise", "reference")).exists()
    capsys.readouterr()
    assert label.main(["corpus/a0.wav", "a0.txt", "--probabilities", "a0.npy"]) == 0
    out = capsys.readouterr().out
    labels = read_labels(Path("a0.txt"), may_overlap=True)
    assert out == f"a0.txt: {len(labels)} labels in 0.80 s (speech, voiced)\n"
    probabilities = np.load("a0.npy")
    assert probabilities.dtype == np.float32
    assert probabilities.shape == (2, 75)
    assert (probabilities >= 0).all()
    assert (probabilities <= 1).all()
    covered = sum(entry.end_s - entry.start_s for entry in labels if entry.name == "speech")
    assert covered == pytest.approx((probabilities[0] > 0.5).mean() * 0.8, abs=0.02)


def test_a_live_sound_gets_the_labels_of_the_recording(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sound = np.concatenate([0.001 * np.ones(RATE), voice(1.0), 0.001 * np.ones(RATE), voice(0.7)])
    soundfile.write("a.wav", sound, RATE, subtype="PCM_16")
    assert label.main(["a.wav", "whole.txt", "--model", str(run)]) == 0
    samples, _ = soundfile.read("a.wav", dtype="int16")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(samples.tobytes())))
    capsys.readouterr()
    assert label.main(["-", "-", "--model", str(run)]) == 0
    live = capsys.readouterr().out
    Path("live.txt").write_text(live)
    whole = read_labels(Path("whole.txt"), may_overlap=True)
    assert read_labels(Path("live.txt"), may_overlap=True) == whole


def test_a_resumed_training_equals_an_uninterrupted_one(run: Path) -> None:
    assert train(Path("label.yaml"), Path("other"), "training.steps=3") == 0
    assert train(Path("label.yaml"), Path("other")) == 0
    assert_same_checkpoint(checkpoint(run, 6), checkpoint(Path("other"), 6))


def test_label_files_train_exclusive_classes(capsys: pytest.CaptureFixture[str]) -> None:
    write_corpus(Path("corpus"))
    for index in range(5):
        write_labels(Path(f"corpus/a{index}.lab"), [Label(0.05, 0.09, "a"), Label(0.09, 0.1, "b")])
    Path("label.yaml").write_text(RECIPE)
    settings = ["data.labels={suffix: .lab}", "model.classes=[a, b, c]", "model.exclusive=true", "model.background=c"]
    assert train(Path("label.yaml"), Path("runs/named"), *settings, "model.class_weights=[2, 2, 1]") == 0
    out = capsys.readouterr().out
    assert "labels of 5 clips" in out
    assert "1 recordings have no label file and are left out: a5" in out
    assert label.main(["corpus/a0.wav", "a0.txt", "--probabilities", "a0.npy"]) == 0
    assert np.allclose(np.load("a0.npy").sum(axis=0), 1, atol=1e-5)
    assert {entry.name for entry in read_labels(Path("a0.txt"))} <= {"a", "b"}


def test_mistakes(run: Path, refused: Refused) -> None:
    refused(label.main, "none.wav", "a.txt")
    refused(label.main, "corpus/a0.wav", "a.txt", "--model", "none")
    refused(label.main, "corpus/a0.wav", "corpus/a0.wav")
    refused(label.main, "-", "a.txt")
    refused(label.main, "-", "-", "--probabilities", "a.npy")


def test_a_recipe_that_needs_label_files_and_has_none_is_refused(refused: Refused) -> None:
    from wavegen.commands import train as command

    Path("label.yaml").write_text(RECIPE)
    refused(command.main, "label.yaml", "model.classes=[a, b]")
    refused(command.main, "label.yaml", "model.exclusive=true")
