"""``wavegen-train --list`` and ``--show``: all recipes, and all settings with their meanings."""

from pathlib import Path

import pytest
from support.commands import Refused
from support.corpus import write_recipe

from wavegen.commands import train
from wavegen.config import Config
from wavegen.mel import MelSpec
from wavegen.recipe import DataConfig, Recipe, SamplesConfig, find_recipe, load_recipe, shipped_recipes
from wavegen.settings import describe, documentation
from wavegen.training.config import AdversarialConfig, TrainingConfig
from wavegen.vocoders import VOCODERS

CONFIGS = [
    Recipe, DataConfig, SamplesConfig, TrainingConfig, AdversarialConfig, MelSpec,
    *(vocoder.Config for vocoder in VOCODERS.values()),
]  # fmt: skip

pytestmark = pytest.mark.usefixtures("folder")


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.__name__)
def test_every_setting_has_a_meaning(config: type[Config]) -> None:
    assert documentation(config).keys() == config.model_fields.keys()
    assert all(len(meaning) > 10 for meaning in documentation(config).values())


@pytest.mark.parametrize("vocoder", sorted(VOCODERS))
def test_shown_settings_are_a_recipe(vocoder: str) -> None:
    recipe = load_recipe(write_recipe(Path("r.yaml"), Path("corpus"), vocoder=vocoder), ["training.adversarial=null"])
    text = describe(recipe)
    Path("shown.yaml").write_text(text)
    assert load_recipe(Path("shown.yaml")) == recipe
    lines = text.splitlines()
    assert "  # the number of optimiser steps." in lines
    assert "  steps: 8" in lines
    assert all(len(line) <= 112 for line in lines if line.lstrip().startswith("#"))


def test_show_prints_the_values_after_overrides(capsys: pytest.CaptureFixture[str]) -> None:
    assert train.main(["demo", "training.steps=7", "--show"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "  steps: 7\n" in out
    assert not list(Path().iterdir())


def test_list_names_every_recipe_with_its_description(capsys: pytest.CaptureFixture[str]) -> None:
    assert train.main(["--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["recipe", *shipped_recipes()]
    assert all(len(line.split()) > 2 for line in lines[1:])


@pytest.mark.parametrize("arguments", [[], ["--show"], ["demmo", "--show"], ["demo", "training.stepz=1", "--show"]])
def test_a_mistake_in_showing(arguments: list[str], refused: Refused) -> None:
    refused(train.main, *arguments, hide=f"^{find_recipe('demo').parent}")
