"""What loading and running costs: the blocks need torch alone, synthesis no training library, --help nothing."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from support.vocoders import SPEC, tiny_mel, write_model

from wavegen.mel import save_mel

COMMANDS = ("bench", "evaluate", "export", "extract", "import", "inpaint", "label", "synth", "train")
OWN = {"wavegen", "torch", *sys.stdlib_module_names}


def run_python(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run ``code`` in a fresh interpreter; warnings are errors there too, as in pytest."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *map(str, arguments)], capture_output=True, text=True, timeout=120
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


def test_synthesis_loads_no_training_or_evaluation_library(tmp_path: Path) -> None:
    save_mel(tmp_path / "a.npz", tiny_mel(20), SPEC)
    done = run_python(
        """
import json, sys
from wavegen.commands.synth import main
mel, out, model, packages = sys.argv[1:]
assert main([mel, out, "--model", model]) == 0
with open(packages, "w") as file:
    json.dump(sorted({name.split(".")[0] for name in sys.modules}), file)
""",
        tmp_path / "a.npz",
        tmp_path / "a.wav",
        write_model(tmp_path / "model.safetensors"),
        tmp_path / "packages.json",
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "a.wav").exists()
    loaded = set(json.loads((tmp_path / "packages.json").read_text()))
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
