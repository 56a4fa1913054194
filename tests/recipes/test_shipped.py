"""The shipped recipes: each loads, states its size, and is listed in a README."""

import re
from pathlib import Path

import pytest

from wavegen.config import load_yaml
from wavegen.mel import profile
from wavegen.models import MODELS
from wavegen.recipe import (
    SHIPPED,
    build,
    find_recipe,
    load_recipe,
    shipped_recipes,
)
from wavegen.vocoders import VOCODERS


def test_the_shipped_recipes_are_listed_by_name() -> None:
    names = shipped_recipes()
    assert names == sorted(names)
    assert {"demo", "folder/spectral", "folder/wavenet", "ljspeech/spectral", "ljspeech/wavenet"} <= set(names)
    files = list((SHIPPED / "recipes").rglob("*.yaml"))
    assert {find_recipe(name) for name in names} == set(files)
    assert len(names) == len(files)


@pytest.mark.parametrize("name", shipped_recipes())
def test_a_shipped_recipe_loads_and_its_vocoder_can_be_built(name: str) -> None:
    recipe = load_recipe(find_recipe(name))
    vocoder = build(recipe, device="meta")
    assert vocoder.mel == recipe.mel
    assert all(parameter.is_meta for parameter in vocoder.parameters())
    # No recipe knows where a user keeps a corpus; the demo's lies beside it.
    assert (recipe.data.corpus is None) == (not name.startswith("demo"))


@pytest.mark.parametrize("name", shipped_recipes())
def test_a_shipped_recipe_states_its_size_correctly(name: str) -> None:
    recipe = load_recipe(find_recipe(name))
    size = f"{sum(parameter.numel() for parameter in build(recipe, device='meta').parameters()) / 1e6:.1f} M"
    path = find_recipe(name)
    stated = re.findall(r"([\d.]+ M) parameters", path.read_text(encoding="utf-8"))
    assert set(stated) <= {size}
    row = recipe_rows(path.with_name("README.md")).get(name)  # a new recipe may be without one
    assert row is None or row.endswith(f"| {size} | {recipe.training.batch_size} | {recipe.training.steps:,} |")


def recipe_rows(readme: Path) -> dict[str, str]:
    """The rows of a README's table of recipes, by recipe."""
    lines = readme.read_text(encoding="utf-8").splitlines() if readme.exists() else []
    return {match[1]: line for line in lines if (match := re.match(r"\| `([\w-]+(?:/[\w-]+)?)` \|", line))}


def test_tables_of_recipes_are_found() -> None:
    assert "ljspeech/spectral" in recipe_rows(SHIPPED / "recipes/ljspeech/README.md")


def test_every_vocoder_and_model_has_a_recipe() -> None:
    assert {load_recipe(find_recipe(name)).network.name for name in shipped_recipes()} == {*VOCODERS, *MODELS}


def test_every_shipped_fragment_is_used_by_two_recipes_or_more() -> None:
    used = [fragment for name in shipped_recipes() for fragment in load_yaml(find_recipe(name)).get("uses", [])]
    fragments = [path.stem for path in (SHIPPED / "conf").glob("*.yaml")]
    assert fragments
    assert all(used.count(fragment) >= 2 for fragment in fragments)


def test_all_ljspeech_recipes_read_the_corpus_as_distributed_and_share_their_features() -> None:
    recipes = [load_recipe(find_recipe(name)) for name in shipped_recipes() if name.startswith("ljspeech/")]
    assert recipes
    for recipe in recipes:
        assert recipe.mel == profile("hifigan-22k")
        assert recipe.data == recipes[0].data
        assert recipe.data.features == Path("features/ljspeech-hifigan-22k")
