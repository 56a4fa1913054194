"""Validation: the score that the best checkpoint is chosen by."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from support.corpus import write_corpus, write_recipe
from support.messages import Messages
from support.metrics import needs, needs_all
from support.runs import assert_same_checkpoint, rows, train

from wavegen.checkpoint import load_checkpoint
from wavegen.corpora.manifest import Clip
from wavegen.evaluation import samples
from wavegen.training import board, validation
from wavegen.training.data import Batch
from wavegen.training.objectives import (
    Losses,
    ReconstructionObjective,
)
from wavegen.training.validation import is_improvement, listened_metrics

LISTENED = ("training.listen_clips=2", "training.listen_frames=60", "training.decay=constant")


def test_the_best_checkpoint_has_the_best_value_of_the_chosen_metric_also_when_resumed(
    tmp_path: Path, recipe: Path
) -> None:
    by = ("training.best_by=si_sdr", "training.validate_every=2")
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


def listened_clips(monkeypatch: pytest.MonkeyPatch) -> tuple[list[str], list[str]]:
    """Names that will be filled by a training: clips whose losses are computed, and clips that are synthesised."""
    validated: list[str] = []
    listened: list[str] = []
    read_crop, open_mel = validation.read_crop, board.open_mel

    def read(clip: Clip, *arguments: Any) -> Batch:
        validated.append(clip.name)
        return read_crop(clip, *arguments)

    def open_file(path: Path) -> Any:
        listened.append(path.stem)
        return open_mel(path)

    monkeypatch.setattr(validation, "read_crop", read)
    monkeypatch.setattr(board, "open_mel", open_file)
    return validated, listened


def test_a_metric_chooses_on_one_half_of_the_validation_clips_and_the_samples_are_of_the_other(
    tmp_path: Path, recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("data.held_out=a[0-3]", "training.listen_clips=4", "training.listen_frames=60", "samples.clips=4")
    validated, listened = listened_clips(monkeypatch)
    monkeypatch.setattr(samples, "available", lambda: ["si_sdr"])  # nobody reads the scores
    assert train(recipe, tmp_path / "metric", *options, "training.best_by=si_sdr") == 0
    assert set(validated) == set(listened) == {"a0", "a2"}
    assert {path.name for path in (tmp_path / "metric/samples").glob("a?.wav")} == {"a1.wav", "a3.wav"}
    validated.clear()
    listened.clear()
    assert train(recipe, tmp_path / "loss", *options) == 0
    assert set(validated) == set(listened) == {"a0", "a1", "a2", "a3"}
    assert {path.name for path in (tmp_path / "loss/samples").glob("a?.wav")} == {f"a{n}.wav" for n in range(4)}


def test_validation_computes_the_metric_that_chooses_or_all_that_are_not_costly() -> None:
    assert listened_metrics("si_sdr") == ["si_sdr"]
    assert listened_metrics("distillmos") == ["distillmos"]
    cheap = listened_metrics("loss")
    assert {"stoi", "log_mel", "si_sdr"} <= set(cheap)
    assert not {"distillmos", "dnsmos", "visqol"} & set(cheap)


@pytest.mark.parametrize("metric", ["distillmos", "visqol"])
def test_predicted_opinion_chooses_the_best_checkpoint_without_changing_the_training(
    tmp_path: Path, metric: str
) -> None:
    needs(metric)
    recipe = write_recipe(tmp_path / "r.yaml", write_corpus(tmp_path / "corpus", seconds=1.3))
    options = ("training.listen_clips=1", "training.listen_frames=120")
    assert train(recipe, tmp_path / "run", *options, f"training.best_by={metric}") == 0
    scores = {row["step"]: row[metric] for row in rows(tmp_path / "run", "listened")}
    header = load_checkpoint(tmp_path / "run/checkpoints/best.safetensors")[1]
    assert (header["step"], header["best"]) == max(scores.items(), key=lambda item: item[1])
    assert train(recipe, tmp_path / "unheard") == 0
    tensors = [load_checkpoint(tmp_path / run / "model.safetensors")[0] for run in ("run", "unheard")]
    assert all(torch.equal(tensors[0][name], tensors[1][name]) for name in tensors[0])


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


@needs_all  # the message lists them
def test_choosing_the_best_by_a_metric_whose_package_is_missing_is_refused(
    tmp_path: Path,
    recipe: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    messages: Messages,
) -> None:
    monkeypatch.setitem(sys.modules, "pesq", None)
    assert train(recipe, tmp_path / "run", *LISTENED, "training.best_by=pesq") == 2
    messages.check(capsys.readouterr().err)


def test_a_validation_with_a_nan_loss_is_never_the_best(
    tmp_path: Path, recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = ReconstructionObjective.forward

    def forward(objective: ReconstructionObjective, batch: Batch, *, step: int = 0) -> Losses:
        parts = original(objective, batch, step=step)
        wrong = step == 4 and not torch.is_grad_enabled()
        return {**parts, "loss": parts["loss"] * float("nan")} if wrong else parts

    monkeypatch.setattr(ReconstructionObjective, "forward", forward)
    run = tmp_path / "run"
    assert train(recipe, run) == 0
    assert load_checkpoint(run / "checkpoints/best.safetensors")[1]["step"] == 8
