"""The training section of a recipe: how it is set, and what may change while a run goes on."""

from pathlib import Path

from wavegen.config import MayChangeDuringRun
from wavegen.recipe import load_recipe
from wavegen.training.config import AdversarialConfig, TrainingConfig


def test_settings_that_do_not_change_the_training_may_change_during_a_run() -> None:
    before = TrainingConfig(steps=10)
    after = TrainingConfig(
        steps=20, log_every=1, validate_every=1, checkpoint_every=1, keep_checkpoints=1, valid_clips=1, valid_frames=1,
        listen_clips=1, listen_frames=1, workers=1, cuda_graphs=False,
    )  # fmt: skip
    assert len(before.differences(after)) == 11
    assert before.differences(after, without=MayChangeDuringRun) == {}
    faster = after.model_copy(update={"learning_rate": 1.0})
    assert before.differences(faster, without=MayChangeDuringRun) == {"learning_rate": (2e-3, 1.0)}


def test_one_override_turns_adversarial_training_on(recipe: Path) -> None:
    assert load_recipe(recipe).training.adversarial is None
    longer = "training.segment_frames=20"
    started = load_recipe(recipe, [longer, "training.adversarial.start_step=1000"]).training.adversarial
    assert started == AdversarialConfig(start_step=1000)
    assert load_recipe(recipe, [longer, "training.adversarial={}"]).training.adversarial == AdversarialConfig()
    assert load_recipe(recipe, ["training.adversarial={}", "training.adversarial=null"]).training.adversarial is None
