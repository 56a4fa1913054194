"""The training section of a recipe: what it refuses, and what may change while a run goes on."""

from pathlib import Path
from typing import Any

import pytest
from support.corpus import write_recipe
from support.messages import Messages
from support.runs import train

from wavegen.config import MayChangeDuringRun, parse
from wavegen.errors import ConfigError
from wavegen.recipe import load_recipe
from wavegen.training.config import AdversarialConfig, TrainingConfig

IMPOSSIBLE: dict[str, dict[str, Any]] = {
    "n_fft not a multiple of 8": {"mel_scales": ((510, 40),)},
    "n_fft not a multiple of 8, though of 4": {"mel_scales": ((100, 20),)},
    "more bins than the transform has": {"mel_scales": ((64, 33),)},
    "hop longer than n_fft": {"stft_resolutions": ((256, 512),)},
    "unknown metric": {"best_by": "peqs"},
    "nothing to score": {"best_by": "stoi", "listen_clips": 0},
    "no discriminators": {"adversarial": {"periods": (), "resolutions": ()}},
    "a period twice": {"adversarial": {"periods": (2, 2)}},
    "a resolution twice": {"adversarial": {"resolutions": ((256, 64), (256, 64))}},
    "hop as long as n_fft": {"adversarial": {"resolutions": ((64, 64),)}},
}


@pytest.mark.parametrize("case", IMPOSSIBLE)
def test_impossible_settings_are_refused(case: str, messages: Messages) -> None:
    with messages.refused(ConfigError):
        parse(TrainingConfig, {"steps": 1, **IMPOSSIBLE[case]}, where="training")


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


@pytest.mark.parametrize(
    "override",
    [
        "training.adversarial={}",
        "training.adversarial={resolutions: [[4096, 1024]], periods: [37]}",
        "training.adversarial.los=hinge",
        "training.best_by=peqs",
    ],
)
def test_a_recipe_is_refused_before_data_is_read(recipe: Path, override: str, messages: Messages) -> None:
    with messages.refused(ConfigError):
        load_recipe(recipe, [override, "data.corpus=none"])


def test_the_shortest_segment_that_a_message_names_works(recipe: Path, tmp_path: Path) -> None:
    settings = ["training.adversarial={}", "training.segment_frames=20", "training.steps=1"]
    assert train(recipe, tmp_path / "run", *settings) == 0


def test_adversarial_training_of_an_autoregressive_vocoder_is_refused(
    tmp_path: Path, corpus: Path, messages: Messages
) -> None:
    recipe = write_recipe(tmp_path / "r.yaml", corpus, vocoder="wavenet")
    with messages.refused(ConfigError):
        load_recipe(recipe, ["training.adversarial={}"])
