"""The recipe of a run: its copy in the run's folder, and what may change when the run is resumed."""

from pathlib import Path

import pytest
import soundfile
from support.corpus import write_corpus, write_recipe
from support.messages import Messages

from wavegen.commands.train import main
from wavegen.config import Config, MayChangeDuringRun, load_yaml
from wavegen.recipe import default_run_name, find_recipe, load_recipe, save_recipe, shipped_recipes
from wavegen.vocoders import VOCODERS

pytestmark = pytest.mark.usefixtures("alone")
CORPUS = Path("corpus")


def test_a_run_is_named_after_its_recipe() -> None:
    assert default_run_name("demo") == "demo"
    assert default_run_name("ljspeech/wavenet") == "ljspeech-wavenet"
    assert default_run_name("some/where/mine.yaml") == "mine"


@pytest.mark.parametrize("name", shipped_recipes())
def test_a_resolved_recipe_is_the_same_alone_and_elsewhere(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = load_recipe(find_recipe(name), ["data.corpus=audio", "training.steps=3"])
    save_recipe(recipe, Path("run/recipe.yaml"))
    assert "uses" not in load_yaml(Path("run/recipe.yaml"))
    monkeypatch.chdir("run")
    assert load_recipe(Path("recipe.yaml")) == recipe
    Path("elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    monkeypatch.setattr("wavegen.recipe.SHIPPED", Path("nowhere"))
    assert load_recipe(Path("../recipe.yaml")) == recipe


def test_a_recipe_without_a_corpus_is_refused(messages: Messages, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["folder/spectral", "--device", "cpu"]) == 2
    messages.check(capsys.readouterr().err)
    CORPUS.mkdir()
    assert main(["folder/spectral", "data.corpus=corpus", "--device", "cpu"]) == 2
    messages.check(capsys.readouterr().err)
    assert not Path("runs").exists()


# --- resuming a run ---

# The only settings that may change when a run is resumed: they say how it is watched and when it ends.
MAY_CHANGE = {
    "description",
    "data.features",
    "training.steps",
    "training.log_every",
    "training.validate_every",
    "training.checkpoint_every",
    "training.keep_checkpoints",
    "training.valid_clips",
    "training.valid_frames",
    "training.listen_clips",
    "training.listen_frames",
    "training.logger",
    "training.cuda_graphs",
    "training.workers",
    "samples.clips",
    "samples.baseline_iterations",
}


def marked_fields(config: Config, prefix: str = "") -> set[str]:
    """The dotted paths of the fields that are marked ``MayChangeDuringRun``."""
    paths = set()
    for name, field in type(config).model_fields.items():
        value = getattr(config, name)
        if any(isinstance(marker, MayChangeDuringRun) for marker in field.metadata):
            paths.add(prefix + name)
        elif isinstance(value, Config):
            paths |= marked_fields(value, f"{prefix}{name}.")
    return paths


@pytest.mark.parametrize("vocoder", VOCODERS)
def test_only_these_settings_may_change_when_a_run_is_resumed(vocoder: str, tmp_path: Path) -> None:
    recipe = load_recipe(write_recipe(tmp_path / "tiny.yaml", tmp_path / "corpus", vocoder=vocoder))
    assert marked_fields(recipe) == MAY_CHANGE
    adversarial = load_recipe(find_recipe("folder/spectral-adversarial"))
    assert marked_fields(adversarial) == MAY_CHANGE


def test_a_run_refuses_other_settings_than_it_began_with(
    messages: Messages, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    recipe = write_recipe(tmp_path / "tiny.yaml", write_corpus(tmp_path / "corpus"))

    def train(*overrides: str) -> int:
        return main([str(recipe), *overrides, "--out", "run", "--device", "cpu"])

    assert train("training.steps=1") == 0
    before = Path("run/recipe.yaml").read_bytes()
    capsys.readouterr()
    assert train("training.steps=1", "seed=1", "vocoder.channels=9", "training.adversarial={}") == 2
    messages.check(capsys.readouterr().err)
    assert Path("run/recipe.yaml").read_bytes() == before
    assert train("training.steps=2", "training.log_every=2", "description=other", "data.features=features") == 0
    assert Path("run/recipe.yaml").read_bytes() != before


def test_a_run_accepts_its_corpus_in_another_place(
    messages: Messages, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    recipe = write_recipe(tmp_path / "tiny.yaml", write_corpus(tmp_path / "corpus"))

    def train(corpus: str) -> int:
        capsys.readouterr()
        return main([str(recipe), f"data.corpus={corpus}", "training.steps=1", "--out", "run", "--device", "cpu"])

    assert train("corpus") == 0
    mels = {path: path.stat().st_mtime_ns for path in Path("run/features/mels").iterdir()}
    Path("corpus").rename("moved")
    assert train("moved") == 0
    messages.check("\n".join(capsys.readouterr().out.splitlines()[:3]))
    assert {path: path.stat().st_mtime_ns for path in Path("run/features/mels").iterdir()} == mels
    assert load_recipe(Path("run/recipe.yaml")).data.corpus == Path("moved").absolute()
    # Another corpus is still refused, and nothing changes.
    write_corpus(Path("other"), seconds=0.9)
    before = Path("run/recipe.yaml").read_bytes()
    assert train("other") == 2
    messages.check(capsys.readouterr().err)
    assert Path("run/recipe.yaml").read_bytes() == before


def test_a_run_inside_its_corpus_does_not_train_on_its_own_output(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    corpus = tmp_path / "corpus"
    recipe = write_recipe(tmp_path / "tiny.yaml", write_corpus(corpus))
    samples, rate = soundfile.read(corpus / "a0.wav")
    soundfile.write(corpus / "a6.ogg", samples, rate)  # converted, so that the run writes sounds
    arguments = [str(recipe), "training.steps=1", "samples.clips=1", "samples.baseline_iterations=1", "--device", "cpu"]
    for out in ("corpus/runs/first", "corpus/runs/first", "corpus/runs/second"):
        capsys.readouterr()
        assert main([*arguments, "--out", out]) == 0
        assert "features of 7 clips" in capsys.readouterr().out
    assert main([*arguments, "--out", "third", "data.features=corpus/features"]) == 0
    assert main([*arguments, "--out", "third", "data.features=corpus/features"]) == 0
    assert "features of 7 clips" in capsys.readouterr().out
    assert main([*arguments, "--out", "corpus"]) == 2


def test_a_batch_that_the_processes_cannot_share_is_refused_before_anything_is_made(
    monkeypatch: pytest.MonkeyPatch, messages: Messages, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    recipe = write_recipe(tmp_path / "tiny.yaml", write_corpus(tmp_path / "corpus"))
    monkeypatch.setenv("WORLD_SIZE", "3")
    assert main([str(recipe), "--out", "run", "--device", "cpu"]) == 2
    messages.check(capsys.readouterr().err)
    assert not Path("run").exists()


def test_a_run_that_has_more_steps_is_left_unchanged(
    messages: Messages, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    recipe = write_recipe(tmp_path / "tiny.yaml", write_corpus(tmp_path / "corpus"))
    assert main([str(recipe), "--out", "run", "--device", "cpu"]) == 0
    before = Path("run/recipe.yaml").read_bytes()
    capsys.readouterr()
    assert main([str(recipe), "training.steps=5", "--out", "run", "--device", "cpu"]) == 2
    messages.check(capsys.readouterr().err)
    assert Path("run/recipe.yaml").read_bytes() == before
