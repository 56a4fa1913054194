"""The loss guard: steps with a NaN loss or gradient are skipped; the third in a row is undone at a lower rate."""

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.messages import Messages
from support.runs import assert_same_checkpoint, checkpoint, rows, train, train_in_two_processes
from support.vocoders import new_vocoder

from wavegen.checkpoint import load_checkpoint
from wavegen.corpora.manifest import Clip, read_manifest
from wavegen.mel import profile
from wavegen.training import data
from wavegen.training.config import TrainingConfig
from wavegen.training.data import Segments
from wavegen.training.guard import skip
from wavegen.training.objectives import (
    AdversarialObjective,
    Losses,
    Objective,
    ReconstructionObjective,
)
from wavegen.training.state import TrainingState
from wavegen.vocoders import Vocoder

MEL = profile("bigvgan-24k")
CONSTANT = "training.decay=constant"
NAN = float("nan")


class Poison:
    """Makes the loss of chosen steps NaN, in the first attempts at them; counts the attempts."""

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        steps: set[int],
        *,
        attempts: int = 1,
        kind: type[Objective] = ReconstructionObjective,
    ) -> None:
        self.attempts: Counter[int] = Counter()
        original = kind.forward

        def forward(objective: Objective, batch: data.Batch, *, step: int = 0) -> Losses:
            parts = original(objective, batch, step=step)
            if torch.is_grad_enabled():  # not in validation
                self.attempts[step + 1] += 1
                if step + 1 in steps and self.attempts[step + 1] <= attempts:
                    return self.spoil(objective.vocoder, parts)
            return parts

        monkeypatch.setattr(kind, "forward", forward)

    def spoil(self, vocoder: Vocoder, parts: Losses) -> Losses:
        return {**parts, "loss": parts["loss"] * NAN}


class PoisonedGradient(Poison):
    """The loss is finite, its gradient is NaN."""

    def spoil(self, vocoder: Vocoder, parts: Losses) -> Losses:
        weight = next(p for p in vocoder.parameters() if p.requires_grad).flatten()[0]
        return {**parts, "loss": parts["loss"] + (weight - weight.detach()).sqrt()}


def steps_taken(tensors: dict[str, torch.Tensor]) -> int:
    """Steps that the vocoder's optimiser has taken, the same for every weight that learns."""
    (steps,) = {int(x) for name, x in tensors.items() if re.fullmatch(r"optimizer\.\d+\.step", name)}
    return steps


def clips_of_step(run: Path, step: int) -> list[str]:
    """Names of the clips in the batch of the step after ``step - 1`` others."""
    clips = [clip for clip in read_manifest(run / "features/manifest.tsv", Clip) if clip.split == "train"]
    return Segments(clips, MEL, frames=16, seed=0).names(step - 1, 4)


@pytest.mark.parametrize("kind", [Poison, PoisonedGradient])
def test_a_step_with_a_nan_loss_or_gradient_is_skipped_and_recorded(
    tmp_path: Path, recipe: Path, kind: type[Poison], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    kind(monkeypatch, {3, 6})
    run = tmp_path / "run"
    assert train(recipe, run) == 0
    skipped = rows(run, "skipped")
    assert [row["step"] for row in skipped] == [3, 6]
    assert skipped[0]["wrong"] == (["loss", "gradient_norm"] if kind is Poison else ["gradient_norm"])
    assert [row["clips"] for row in skipped] == [clips_of_step(run, 3), clips_of_step(run, 6)]
    names = ", ".join(clips_of_step(run, 3)[:3])
    wrong = ", ".join(skipped[0]["wrong"])
    assert f"step 3 skipped: NaN or infinite {wrong} (clips {names}, …)\n" in capsys.readouterr().out
    assert [row["step"] for row in rows(run, "train")] == [1, 2, 4, 5, 7, 8]
    assert not rows(run, "rollback")
    tensors, header = load_checkpoint(checkpoint(run, 8))
    assert (header["step"], header["rollbacks"]) == (8, 0)
    assert steps_taken(tensors) == 6
    assert all(value.isfinite().all() for value in tensors.values())
    assert not checkpoint(run, 6).exists()  # it was due, but its step was skipped


def test_a_skip_touches_neither_weights_nor_ema_weights_nor_optimisers() -> None:
    state = TrainingState(new_vocoder("spectral", MEL, channels=4, layers=1), TrainingConfig(steps=9))
    for step in range(2):
        for parameter in state.vocoder.parameters():
            parameter.grad = torch.full_like(parameter, NAN if step else 1.0)
        if step == 0:
            state.take_step()
            before = {name: value.clone() for name, value in state.tensors().items()}
    record = skip(state, {"loss": torch.tensor(NAN), "mel": torch.tensor(1.0)}, ["a"])
    assert record == (2, ["loss"], ["a"])
    assert state.step == 2
    assert all(torch.equal(before[name], value) for name, value in state.tensors().items())


def test_the_clip_with_a_nan_is_named(tmp_path: Path, recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = data.read_crop

    def read_crop(clip: Clip, *arguments: Any, **options: Any) -> data.Batch:
        crop = original(clip, *arguments, **options)
        return crop._replace(audio=crop.audio * NAN) if clip.name == "a4" else crop

    monkeypatch.setattr(data, "read_crop", read_crop)
    run = tmp_path / "run"
    assert train(recipe, run, "training.batch_size=1", "training.steps=10") == 0
    skipped = rows(run, "skipped")
    assert skipped
    assert {tuple(row["clips"]) for row in skipped} == {("a4",)}
    assert len(skipped) + len(rows(run, "train")) == 10


def test_two_skips_in_a_row_do_not_go_back(tmp_path: Path, recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Poison(monkeypatch, {3, 4, 6, 7})
    assert train(recipe, tmp_path / "run") == 0
    assert len(rows(tmp_path / "run", "skipped")) == 4
    assert not rows(tmp_path / "run", "rollback")


def test_the_third_skip_in_a_row_goes_back_to_the_last_good_checkpoint_at_half_the_rate(
    tmp_path: Path, recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    poison, run = Poison(monkeypatch, {5, 6, 7}), tmp_path / "run"
    assert train(recipe, run, CONSTANT) == 0
    assert "3 steps skipped in a row: back to step 4, with 0.5 times the learning rate\n" in capsys.readouterr().out
    assert [poison.attempts[step] for step in range(1, 9)] == [1, 1, 1, 1, 2, 2, 2, 1]
    (row,) = rows(run, "rollback")
    assert (row["step"], row["from_step"], row["learning_rate_factor"]) == (4, 7, 0.5)
    assert [(s["step"], s["clips"]) for s in row["skipped"]] == [(n, clips_of_step(run, n)) for n in (5, 6, 7)]
    rates = {row["step"]: row["learning_rate"] for row in rows(run, "train")}
    assert list(rates) == list(range(1, 9))  # each step once: the rows of undone steps are dropped
    assert [rates[step] / rates[4] for step in (5, 6, 7, 8)] == [0.5] * 4
    assert load_checkpoint(checkpoint(run, 8))[1]["rollbacks"] == 1
    assert steps_taken(load_checkpoint(checkpoint(run, 8))[0]) == 8


def test_a_rollback_undoes_the_steps_since_the_checkpoint(
    tmp_path: Path, recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps 5 and 6 were taken before the skips: they are undone, and taken again from the weights of step 4."""
    settings = (CONSTANT, "training.checkpoint_every=4", "training.steps=10")
    Poison(monkeypatch, {7, 8, 9})
    assert train(recipe, tmp_path / "a", *settings) == 0
    Poison(monkeypatch, {5, 6, 7})
    assert train(recipe, tmp_path / "b", *settings) == 0
    assert rows(tmp_path / "a", "rollback")[0]["step"] == rows(tmp_path / "b", "rollback")[0]["step"] == 4
    assert_same_checkpoint(checkpoint(tmp_path / "a", 10), checkpoint(tmp_path / "b", 10))


@pytest.mark.parametrize("stop", [4, 6])
def test_a_run_resumed_after_a_rollback_equals_an_uninterrupted_one(
    tmp_path: Path, recipe: Path, monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for run, steps in ((whole, ("8",)), (parts, (str(stop), "8"))):
        Poison(monkeypatch, {3, 4, 5} if stop == 6 else {2, 3, 4})
        for end in steps:
            # A training validates after its last step too, so both must validate where one of them stops.
            pace = (f"training.steps={end}", "training.checkpoint_every=1", "training.validate_every=2")
            assert train(recipe, run, CONSTANT, *pace) == 0
        assert len(rows(run, "rollback")) == 1
    assert_same_checkpoint(checkpoint(whole, 8), checkpoint(parts, 8))


def test_a_run_killed_just_after_a_rollback_keeps_the_lower_rate(
    tmp_path: Path, recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    settings = (CONSTANT, "training.checkpoint_every=4")
    Poison(monkeypatch, {5, 6, 7})
    assert train(recipe, whole, *settings) == 0

    poison = Poison(monkeypatch, {5, 6, 7})
    original: Callable[..., None] = TrainingState.take_step

    def dies(state: TrainingState) -> None:
        if poison.attempts[5] == 2:
            raise KeyboardInterrupt
        original(state)

    with monkeypatch.context() as patch:
        patch.setattr(TrainingState, "take_step", dies)
        assert train(recipe, killed, *settings) == 130
    assert train(recipe, killed, *settings) == 0  # no step is spoilt any more: only the checkpoint has the lower rate
    assert_same_checkpoint(checkpoint(whole, 8), checkpoint(killed, 8))
    assert len(rows(killed, "rollback")) == 1


ADVERSARIAL = (
    "training.adversarial={periods: [2], period_channels: [4], resolutions: [], betas: [0.3, 0.4], weight_decay: 0.5, "
    "clip_norm: 0.01, learning_rate: 1.0e-3}"
)


def test_a_rollback_lowers_the_rate_of_the_discriminators_too(
    tmp_path: Path, recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates: list[tuple[int, list[float]]] = []
    original = TrainingState.take_step

    def take_step(state: TrainingState) -> None:
        assert state.discriminator_optimizer is not None
        (group,) = state.discriminator_optimizer.param_groups
        assert (group["betas"], group["weight_decay"]) == ((0.3, 0.4), 0.5)
        gradients = [p.grad for p in state.discriminators.parameters() if p.grad is not None]
        assert torch.stack([gradient.norm() for gradient in gradients]).norm() <= 0.01 * 1.001
        step = state.step
        original(state)
        rates.append((step, [state.optimizer.param_groups[0]["lr"], group["lr"]]))

    monkeypatch.setattr(TrainingState, "take_step", take_step)
    Poison(monkeypatch, {5, 6, 7}, kind=AdversarialObjective)
    assert train(recipe, tmp_path / "run", CONSTANT, ADVERSARIAL) == 0
    assert [step for step, _ in rates] == [0, 1, 2, 3, 4, 5, 6, 7]
    for _, lowered in rates[4:]:
        assert [after / before for after, before in zip(lowered, rates[3][1], strict=True)] == [0.5, 0.5]


def test_means_in_the_log_do_not_count_undone_steps(
    tmp_path: Path, recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps 5 and 6 were taken, undone, and taken again: a mean over both attempts would differ."""
    settings = (CONSTANT, "training.checkpoint_every=4", "training.log_every=8")
    Poison(monkeypatch, {7, 8, 9})
    assert train(recipe, tmp_path / "a", *settings, "training.steps=16") == 0
    Poison(monkeypatch, {5, 6, 7})
    assert train(recipe, tmp_path / "b", *settings, "training.steps=16") == 0
    losses = [[row["loss"] for row in rows(tmp_path / run, "train")] for run in "ab"]
    assert losses[0] == losses[1]


def test_a_validation_after_a_skip_is_never_the_best(
    tmp_path: Path, recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No checkpoint is saved after a skip, so none could be the best."""
    Poison(monkeypatch, {4})
    run = tmp_path / "run"
    assert train(recipe, run, "training.steps=5", "training.checkpoint_every=1") == 0
    first, last = rows(run, "valid")
    assert load_checkpoint(checkpoint(run, 5))[1]["best"] == pytest.approx(last["loss"])
    assert (first["step"], last["step"]) == (4, 5)
    assert load_checkpoint(run / "checkpoints/best.safetensors")[1]["step"] == 5


def test_a_run_whose_last_step_was_skipped_can_be_extended(
    tmp_path: Path, recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Poison(monkeypatch, {8})
    run = tmp_path / "run"
    assert train(recipe, run, "training.checkpoint_every=100", "training.validate_every=100") == 0
    assert checkpoint(run, 8).exists()
    assert train(recipe, run, "training.checkpoint_every=100", "training.validate_every=100", "training.steps=9") == 0
    assert [row["step"] for row in rows(run, "train")] == [*range(1, 8), 9]


def test_without_a_checkpoint_to_go_back_to_training_stops(
    tmp_path: Path, recipe: Path, monkeypatch: pytest.MonkeyPatch, messages: Messages, capsys: Any
) -> None:
    Poison(monkeypatch, {1, 2, 3})
    assert train(recipe, tmp_path / "run") == 2
    messages.check(capsys.readouterr().err)
    assert [row["step"] for row in rows(tmp_path / "run", "skipped")] == [1, 2, 3]


def test_training_stops_instead_of_a_third_rollback(
    tmp_path: Path, recipe: Path, monkeypatch: pytest.MonkeyPatch, messages: Messages, capsys: Any
) -> None:
    poison, run = Poison(monkeypatch, {5, 6, 7}, attempts=9), tmp_path / "run"
    assert train(recipe, run) == 2
    messages.check(capsys.readouterr().err)
    assert poison.attempts[7] == 3
    assert [row["learning_rate_factor"] for row in rows(run, "rollback")] == [0.5, 0.25]
    assert not (run / "model.safetensors").exists()
    assert max(path.name for path in (run / "checkpoints").iterdir()) == checkpoint(run, 4).name


def test_nan_weights_are_not_saved(tmp_path: Path, recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original, broken = TrainingState.take_step, []

    def breaks(state: TrainingState) -> None:
        original(state)
        if state.step == 3 and not broken:
            broken.append(True)
            with torch.no_grad():
                next(state.vocoder.parameters()).fill_(NAN)

    monkeypatch.setattr(TrainingState, "take_step", breaks)
    run = tmp_path / "run"
    assert train(recipe, run, "training.checkpoint_every=1") == 0
    (row,) = rows(run, "rollback")
    assert (row["step"], row["from_step"]) == (2, 6)
    assert all(v.isfinite().all() for v in load_checkpoint(run / "model.safetensors")[0].values())


def test_nan_weights_do_not_become_a_model(
    tmp_path: Path, recipe: Path, monkeypatch: pytest.MonkeyPatch, messages: Messages, capsys: Any
) -> None:
    original = TrainingState.take_step

    def breaks(state: TrainingState) -> None:
        original(state)
        if state.step == 8:
            with torch.no_grad():
                next(state.vocoder.parameters()).fill_(NAN)

    monkeypatch.setattr(TrainingState, "take_step", breaks)
    assert train(recipe, tmp_path / "run") == 2
    messages.check(capsys.readouterr().err)
    assert not (tmp_path / "run/model.safetensors").exists()


# Spoils the loss of one process, whose gradient stays finite: the other process can only know by communication.
ONE_OF_TWO = """
import os, sys, torch
from wavegen.commands.train import main
from wavegen.training.objectives import ReconstructionObjective
original, seen = ReconstructionObjective.forward, []
def forward(self, batch, *, step=0):
    parts = original(self, batch, step=step)
    if torch.is_grad_enabled() and os.environ["RANK"] == "1" and step + 1 in (2, 5, 6, 7) and step not in seen:
        seen.append(step)
        parts = {**parts, "loss": parts["loss"] + torch.tensor(float("nan"))}
    return parts
ReconstructionObjective.forward = forward
sys.exit(main(sys.argv[1:]))
"""


def test_processes_agree_on_what_is_skipped_and_undone(tmp_path: Path, recipe: Path) -> None:
    script, run = tmp_path / "one_of_two.py", tmp_path / "run"
    script.write_text(ONE_OF_TWO)
    result = train_in_two_processes(recipe, run, script=script)
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.count("step 2 skipped: NaN or infinite a loss in another process (clips ") == 1
    assert result.stdout.count("3 steps skipped in a row: back to step 4,") == 1
    assert [row["step"] for row in rows(run, "skipped")] == [2]
    assert [row["step"] for row in rows(run, "rollback")] == [4]
    assert [row["step"] for row in rows(run, "train")] == [1, 3, 4, 5, 6, 7, 8]
    tensors, header = load_checkpoint(checkpoint(run, 8))
    assert (steps_taken(tensors), header["rollbacks"]) == (7, 1)
