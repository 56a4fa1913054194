"""The guide's vocoder, in a copy of the project: two new files, and every law and command works for it."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.corpus import write_corpus

ROOT = Path(__file__).parents[1]
GUIDE = ROOT / ".github" / "CONTRIBUTING.md"
NAME = "direct"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project with the two files that the guide shows, and no other change."""
    project = tmp_path_factory.mktemp("project")
    for folder in ("wavegen", "recipes", "tests", "conf"):
        shutil.copytree(ROOT / folder, project / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", project)
    text = GUIDE.read_text(encoding="utf-8")
    (module,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (recipe,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    (project / "wavegen" / "vocoders" / f"{NAME}.py").write_text(module)
    (project / "recipes" / "folder" / f"{NAME}.yaml").write_text(recipe)
    return project


def run(project: Path, *arguments: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(project)}
    program = [sys.executable, "-m", *arguments]
    done = subprocess.run(program, cwd=project, env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def test_every_law_runs_over_a_new_vocoder(project: Path) -> None:
    laws = run(
        project, "pytest", "tests/test_contracts.py", "-vv", "-k", f"{NAME} or covered", "-p", "no:cacheprovider"
    )
    for law in ("context", "causality", "length", "batching", "streaming", "purity"):
        for example in ("0-centred", "1-uncentred", "0-uncentred-speakers"):
            assert f"test_{law}[{NAME}-{example}] PASSED" in laws, (law, example)


def test_the_tests_of_vocoders_and_recipes_pass_with_it(project: Path) -> None:
    tests = (
        "vocoders/test_definition.py",
        "vocoders/test_speaker_condition.py",
        "commands/test_speakers.py",
        "recipes/test_shipped.py",
        "test_recipe_reading.py",
        "test_recipe_of_a_run.py",
    )
    # Not those that read a shipped recipe on its own: of these, only the new one's can have changed.
    chosen = f"{NAME} or every or listed or recipe and not (wheel or shipped or resolved)"
    run(project, "pytest", *(f"tests/{test}" for test in tests), "-k", chosen, "-p", "no:cacheprovider")


def test_a_new_vocoder_goes_from_recordings_to_sound(project: Path, tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus")
    tiny = ["vocoder.channels=8", "vocoder.layers=3", "training.steps=4", "training.batch_size=2"]
    out = ["--out", str(tmp_path / "run"), "--device", "cpu"]
    run(project, "wavegen", "train", f"folder/{NAME}", f"data.corpus={corpus}", "data.held_out=a[01]", *tiny, *out)
    mel = next((tmp_path / "run" / "features" / "mels").glob("*.npz"))
    run(project, "wavegen", "synth", str(mel), str(tmp_path / "a.wav"), "--model", str(tmp_path / "run"))
    assert (tmp_path / "a.wav").exists()
