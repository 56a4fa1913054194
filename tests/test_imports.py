"""What loading and running costs: the blocks need torch alone, synthesis no training library, --help nothing."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.vocoders import SPEC, tiny_mel, write_model

from wavegen.mel import save_mel

COMMANDS = ("bench", "evaluate", "export", "extract", "import", "inpaint", "label", "synth", "train")
OWN = {"wavegen", "torch", *sys.stdlib_module_names}


def run_python(
    code: str, *arguments: object, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run ``code`` in a fresh interpreter; warnings are errors there too, as in pytest."""
    command = [sys.executable, "-W", "error", "-c", code, *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=120, env={**os.environ, **(environment or {})}
    )


def foreign_packages(module: str) -> set[str]:
    """Top-level packages that importing ``module`` loads beyond torch's own, wavegen and the standard library."""
    done = run_python(
        """
import importlib, json, sys, torch
before = set(sys.modules)
importlib.import_module(sys.argv[1])
print(json.dumps(sorted({name.split(".")[0] for name in set(sys.modules) - before})))
""",
        module,
    )
    assert done.returncode == 0, done.stderr
    loaded = set(json.loads(done.stdout))
    assert "wavegen" in loaded
    return loaded - OWN


@pytest.mark.parametrize("package", ["wavegen.blocks", "wavegen.source"])
def test_what_other_projects_import_loads_torch_alone(package: str) -> None:
    assert foreign_packages(package) == set()


def test_that_test_can_fail() -> None:
    assert "pydantic" in foreign_packages("wavegen.mel")


SYNTHESIS = """
import json, sys
from wavegen.commands.synth import main
mel, out, packages, *model = sys.argv[1:]
assert main([mel, out, *model]) == 0
with open(packages, "w") as file:
    json.dump(sorted({name.split(".")[0] for name in sys.modules}), file)
"""


def packages_of_synthesis(folder: Path, *model: object, environment: dict[str, str] | None = None) -> set[str]:
    """Top-level packages that ``wavegen-synth`` loads for a short mel."""
    save_mel(folder / "a.npz", tiny_mel(20), SPEC)
    done = run_python(
        SYNTHESIS, folder / "a.npz", folder / "a.wav", folder / "packages.json", *model, environment=environment
    )
    assert done.returncode == 0, done.stderr
    assert (folder / "a.wav").exists()
    return set(json.loads((folder / "packages.json").read_text()))


def test_synthesis_loads_no_training_or_evaluation_library(tmp_path: Path) -> None:
    loaded = packages_of_synthesis(tmp_path, "--model", write_model(tmp_path / "model.safetensors"))
    assert loaded >= {"torch", "soundfile", "safetensors"}  # the list does hold what was loaded
    assert not loaded & {
        "librosa",
        "torchaudio",
        "tensorboard",
        "matplotlib",
        "pystoi",
        "pesq",
        "pyworld",
        "pyloudnorm",
    }


@pytest.mark.parametrize("model", ["source-filter", "spectral"])
def test_the_first_sound_on_a_machine_waits_for_no_compiler(tmp_path: Path, model: str) -> None:
    """As long as nothing is compiled on disk, torch computes a short sound, and numba is not even loaded."""
    path = write_model(tmp_path / "model.safetensors", model)
    cache = tmp_path / "cache"
    loaded = packages_of_synthesis(tmp_path, "--model", path, environment={"NUMBA_CACHE_DIR": str(cache)})
    assert "numba" not in loaded
    assert not cache.exists()


@pytest.mark.parametrize("command", COMMANDS)
def test_help_loads_nothing(command: str) -> None:
    done = run_python(
        """
import importlib, keyword, sys
name = sys.argv[1]
try:
    importlib.import_module(f"wavegen.commands.{name}{'_' * keyword.iskeyword(name)}").main(["--help"])
finally:
    assert not sys.modules.keys() & {"torch", "numpy", "pydantic", "soundfile"}
""",
        command,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: wavegen-{command} ")
    assert done.stderr == ""


@pytest.mark.parametrize("command", COMMANDS)
def test_the_installed_command_answers_help(command: str) -> None:
    installed = Path(sys.executable).with_name(f"wavegen-{command}")
    done = subprocess.run([installed, "--help"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"usage: wavegen-{command} ")
