"""Training that starts from another run's weights."""

import shutil
from pathlib import Path

import pytest
import torch
from support.corpus import write_corpus, write_recipe
from support.messages import Messages
from support.runs import assert_same_checkpoint, checkpoint, rows, train

from wavegen.checkpoint import load_checkpoint
from wavegen.recipe import load_recipe
from wavegen.vocoders import VOCODERS

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


@pytest.mark.parametrize("vocoder", sorted(VOCODERS))
@pytest.mark.parametrize("source", ["first", "first/model.safetensors"])
def test_the_run_starts_from_the_ema_weights_of_the_other(
    vocoder: str, source: str, recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = write_recipe(tmp_path / "tiny.yaml", tmp_path / "corpus", vocoder=vocoder)
    assert train(recipe, Path("first"), "training.steps=4") == 0
    assert train(recipe, Path("second"), f"init={source}", *STILL) == 0
    assert f"starting from {tmp_path}/first" in capsys.readouterr().out
    ema, header = load_checkpoint(Path("first/model.safetensors"))
    assert header["step"] == 4
    now, _ = load_checkpoint(checkpoint(Path("second"), 1))
    for name, value in ema.items():
        for prefix in ("ema.", "model."):
            assert torch.allclose(now[prefix + name.removeprefix("ema.")], value, rtol=1e-6, atol=1e-9), name
    assert rows(Path("second"), "valid")[0]["loss"] == pytest.approx(rows(Path("first"), "valid")[0]["loss"], rel=1e-3)


def test_a_resumed_run_does_not_need_the_other(recipe: Path) -> None:
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
    trained, _ = load_checkpoint(checkpoint(Path("first"), 2))
    slow = ("training.adversarial.learning_rate=1e-30", "training.adversarial.weight_decay=0", "training.steps=1")
    assert train(recipe, Path("second"), "init=first", *ADVERSARIAL, *slow) == 0
    assert "(step 2), with its discriminators\n" in capsys.readouterr().out
    now, _ = load_checkpoint(checkpoint(Path("second"), 1))
    names = [name for name in trained if name.startswith("discriminator.")]
    assert names
    for name in names:
        assert torch.allclose(now[name], trained[name], rtol=1e-6, atol=1e-9), name
    for number, other in enumerate(("period_channels=[6]", "periods=[3]")):  # no shape depends on a period
        assert train(recipe, Path(f"other{number}"), "init=first", *ADVERSARIAL, f"training.adversarial.{other}") == 0
        assert "with new discriminators because its settings for them differ\n" in capsys.readouterr().out
    assert train(recipe, Path("fourth"), "init=first/model.safetensors", *ADVERSARIAL) == 0
    assert "with new discriminators because it has none\n" in capsys.readouterr().out


@pytest.mark.parametrize("change", ["vocoder.channels=24", "mel=vocos-24k", "init=nowhere"])
def test_an_init_that_does_not_fit_is_refused(
    change: str, recipe: Path, messages: Messages, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(recipe, Path("first"), "training.steps=2") == 0
    capsys.readouterr()
    assert train(recipe, Path("second"), "init=first", change) == 2
    messages.check(capsys.readouterr().err)
    assert not Path("second").exists()  # refused before extraction


def test_an_init_may_differ_in_settings_that_keep_its_weights(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(recipe, Path("first"), "training.steps=2", "vocoder.refinement_iterations=0") == 0
    assert train(recipe, Path("second"), "init=first", "vocoder.refinement_iterations=1", *STILL) == 0
    assert "starting from" in capsys.readouterr().out


def test_an_init_in_a_recipe_is_relative_to_its_file(tmp_path: Path, recipe: Path) -> None:
    folder = tmp_path / "sub"
    folder.mkdir()
    (folder / "tiny.yaml").write_text(recipe.read_text() + "init: ../first\n")
    assert load_recipe(folder / "tiny.yaml").init == folder / "../first"
    assert load_recipe(folder / "tiny.yaml", ["init=first"]).init == tmp_path / "first"


def test_the_untrained_vocoder_in_the_scores_is_the_one_the_run_started_from(recipe: Path) -> None:
    assert train(recipe, Path("first"), "training.steps=4") == 0
    assert train(recipe, Path("second"), "init=first", *STILL, "samples.clips=1") == 0
    samples = Path("second/samples")
    (untrained,) = samples.glob("*.untrained.wav")
    vocoder = untrained.with_name(untrained.name.replace(".untrained", ""))
    assert untrained.read_bytes() == vocoder.read_bytes()
