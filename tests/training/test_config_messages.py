"""The training section of a recipe: what it refuses."""

from pathlib import Path
from typing import Any

import pytest
from support.corpus import write_recipe
from support.messages import Messages
from support.runs import train

from wavegen.config import parse
from wavegen.errors import ConfigError
from wavegen.recipe import load_recipe
from wavegen.training.config import TrainingConfig

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
