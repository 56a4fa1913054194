"""The training of Vocos: it resumes, and writes a checkpoint at each mark."""

import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from support.corpus import write_corpus, write_recipe
from support.messages import PROJECT, Messages

from wavegen.checkpoint import load_checkpoint
from wavegen.errors import ConfigError

SCRIPT = PROJECT / "recipes/speech24k/train_vocos.py"


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    """The names that the script defines."""
    return runpy.run_path(str(SCRIPT))


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """A corpus, and beside it a recipe that lists it."""
    folder = write_corpus(tmp_path / "corpus", clips=4, seconds=0.8)
    write_recipe(tmp_path / "tiny.yaml", folder)
    return folder


def test_a_missing_package_is_named_with_the_command_that_installs_it(
    script: dict[str, Any], monkeypatch: pytest.MonkeyPatch, messages: Messages
) -> None:
    monkeypatch.setitem(sys.modules, "vocos", None)
    with messages.refused(ConfigError):
        script["vocos_module"]("models")


def test_without_the_package_the_script_ends_with_one_line_and_writes_nothing(
    script: dict[str, Any],
    corpus: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "vocos", None)
    assert script["main"]([str(corpus), "--out", str(tmp_path / "vocos")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not (tmp_path / "vocos").exists()


class StopsAfterOneStep:
    """In place of ``Interruption``: as if the user pressed Ctrl-C during the first step."""

    checks = 0

    def __enter__(self) -> "StopsAfterOneStep":
        return self

    def __exit__(self, *error: object) -> None:
        pass

    @property
    def requested(self) -> bool:
        self.checks += 1
        return self.checks > 1


@pytest.mark.slow  # Vocos has one size
@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
def test_a_stopped_training_resumes_exactly(
    script: dict[str, Any], corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("vocos", reason="needs the package vocos", exc_type=ImportError)
    monkeypatch.chdir(tmp_path)
    options = ["--recipe", "tiny.yaml", "--batch", "1", "--steps", "2", "--device", "cpu"]
    main = script["main"]
    assert main(["corpus", *options, "--marks", "1e-6", "--out", "whole"]) == 0

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(script["train"].__globals__, "Interruption", StopsAfterOneStep)
        assert main(["corpus", *options, "--out", "halved"]) == 0
    assert not list(Path("halved").glob("checkpoints/*"))
    assert main(["corpus", *options, "--out", "halved"]) == 0
    states = [load_checkpoint(Path(out) / "state.safetensors") for out in ("whole", "halved")]
    assert states[0][1]["spent"][0] == states[1][1]["spent"][0] == 2
    assert all(torch.equal(tensor, states[1][0][name]) for name, tensor in states[0][0].items())
    marks = sorted(float(path.stem.removeprefix("minutes-")) for path in Path("whole/checkpoints").iterdir())
    assert marks[0] == 1e-6
    assert len(marks) == 2
