"""Validation: the score that the best checkpoint is chosen by."""

import sys
from pathlib import Path

import pytest
import torch
from support.messages import Messages
from support.runs import assert_same_checkpoint, rows, train

from wavegen.checkpoint import load_checkpoint
from wavegen.training.data import Batch
from wavegen.training.objectives import (
    Losses,
    ReconstructionObjective,
)
from wavegen.training.validation import is_improvement

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
