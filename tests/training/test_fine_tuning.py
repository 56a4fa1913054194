"""Training that begins with another run's weights."""

import shutil
from pathlib import Path

import pytest
import torch
from support.corpus import write_corpus, write_recipe
from support.runs import assert_same_checkpoint, checkpoint, rows, train

from wavegen.checkpoint import load_checkpoint
from wavegen.recipe import load_recipe

ADVERSARIAL = (
    "training.adversarial={periods: [2], period_channels: [4], resolutions: [], start_step: 0}",
    "training.steps=2",
    "training.checkpoint_every=1",
)
STILL = ("training.steps=1", "training.learning_rate=1e-30", "training.weight_decay=0", "training.validate_every=1")


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return write_recipe(tmp_path / "tiny.yaml", write_corpus(tmp_path / "corpus"))


@pytest.mark.parametrize("vocoder", ["spectral", "wavenet", "parallel"])
@pytest.mark.parametrize("source", ["first", "first/model.safetensors"])
def test_it_begins_where_the_other_ended(
    vocoder: str, source: str, recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = write_recipe(tmp_path / "tiny.yaml", tmp_path / "corpus", vocoder=vocoder)
    assert train(recipe, Path("first"), "training.steps=4") == 0
    assert train(recipe, Path("second"), f"init={source}", *STILL) == 0
    assert f"starting from {tmp_path}/first" in capsys.readouterr().out
    averaged, header = load_checkpoint(Path("first/model.safetensors"))
    assert header["step"] == 4
    now, _ = load_checkpoint(checkpoint(Path("second"), 1))
    for name, value in averaged.items():
        for prefix in ("ema.", "model."):
            assert torch.allclose(now[prefix + name.removeprefix("ema.")], value, rtol=1e-6, atol=1e-9), name
    assert rows(Path("second"), "valid")[0]["loss"] == pytest.approx(rows(Path("first"), "valid")[0]["loss"], rel=1e-3)


def test_once_begun_it_needs_the_other_no_more(recipe: Path) -> None:
    assert train(recipe, Path("first"), "training.steps=2") == 0
    assert train(recipe, Path("whole"), "init=first") == 0
    assert train(recipe, Path("stopped"), "init=first", "training.steps=4", "training.decay=constant") == 0
    assert train(recipe, Path("same"), "init=first", "training.decay=constant") == 0
    shutil.rmtree("first")
    (Path("stopped") / "model.safetensors").unlink()
    assert train(recipe, Path("stopped"), "init=first", "training.decay=constant") == 0
    assert_same_checkpoint(checkpoint(Path("stopped"), 8), checkpoint(Path("same"), 8))


def test_discriminators_are_taken_over(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(recipe, Path("first"), *ADVERSARIAL) == 0
    learnt, _ = load_checkpoint(checkpoint(Path("first"), 2))
    slow = ("training.adversarial.learning_rate=1e-30", "training.adversarial.weight_decay=0", "training.steps=1")
    assert train(recipe, Path("second"), "init=first", *ADVERSARIAL, *slow) == 0
    assert "(step 2), discriminators too" in capsys.readouterr().out
    now, _ = load_checkpoint(checkpoint(Path("second"), 1))
    names = [name for name in learnt if name.startswith("discriminator.")]
    assert names
    for name in names:
        assert torch.allclose(now[name], learnt[name], rtol=1e-6, atol=1e-9), name
    for number, other in enumerate(("period_channels=[6]", "periods=[3]")):  # a period is in no shape
        assert train(recipe, Path(f"other{number}"), "init=first", *ADVERSARIAL, f"training.adversarial.{other}") == 0
        assert "its discriminators are others, so they start anew" in capsys.readouterr().out
    assert train(recipe, Path("fourth"), "init=first/model.safetensors", *ADVERSARIAL) == 0
    assert "its discriminators are not there, so they start anew" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("vocoder.channels=24", "first/checkpoints/step-00000002.safetensors: was trained with another vocoder "
         "(vocoder.channels is 16, not 24); give the init the recipe was made for, or change the recipe"),
        ("mel=vocos-24k", "first/checkpoints/step-00000002.safetensors: was trained with another mel (mel.scale is "),
        ("init=nowhere", "nowhere: no such file; check the path"),
    ],
)  # fmt: skip
def test_an_init_that_does_not_fit(
    change: str, message: str, recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(recipe, Path("first"), "training.steps=2") == 0
    capsys.readouterr()
    assert train(recipe, Path("second"), "init=first", change) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"wavegen-train: error: {tmp_path}/{message}")
    assert not Path("second").exists()  # nothing was read, and nothing extracted


def test_an_init_in_a_recipe_is_relative_to_its_file(tmp_path: Path, recipe: Path) -> None:
    folder = tmp_path / "sub"
    folder.mkdir()
    (folder / "tiny.yaml").write_text(recipe.read_text() + "init: ../first\n")
    assert load_recipe(folder / "tiny.yaml").init == folder / "../first"
    assert load_recipe(folder / "tiny.yaml", ["init=first"]).init == tmp_path / "first"


def test_the_untrained_voice_in_the_scores_is_the_one_it_began_with(recipe: Path) -> None:
    assert train(recipe, Path("first"), "training.steps=4") == 0
    assert train(recipe, Path("second"), "init=first", *STILL, "samples.clips=1") == 0
    samples = Path("second/samples")
    (untrained,) = samples.glob("*.untrained.wav")
    vocoder = untrained.with_name(untrained.name.replace(".untrained", ""))
    assert untrained.read_bytes() == vocoder.read_bytes()
