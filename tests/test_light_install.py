"""Synthesis needs the packages of ``conf/synthesis.txt`` alone; what needs more says which package is missing."""

import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
from packaging.requirements import Requirement
from support.corpus import voice
from support.messages import Messages
from support.packages import run_with_packages, with_dependencies
from support.vocoders import SPEC, tiny_mel, write_model

from wavegen.mel import save_mel

ROOT = Path(__file__).parent.parent
LINES = (ROOT / "conf/synthesis.txt").read_text(encoding="utf-8").splitlines()
LIGHT = [Requirement(line) for line in LINES if line and not line.startswith("#")]
NAMES = [requirement.name for requirement in LIGHT]

RUN = """
import importlib
raise SystemExit(importlib.import_module(f"wavegen.commands.{sys.argv[1]}").main(sys.argv[2:]))
"""


def test_the_ranges_are_those_of_the_project() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (lines,) = re.findall(r"^dependencies = \[\n(.*?)^\]", project, flags=re.DOTALL | re.MULTILINE)
    whole = {str(Requirement(text)) for text in re.findall(r'^ +"(.*?)",', lines, flags=re.MULTILINE)}
    assert {str(requirement) for requirement in LIGHT} < whole


def test_other_packages_cannot_be_imported_there() -> None:
    assert not with_dependencies(NAMES) & {"scipy", "matplotlib", "torchaudio", "tensorboard", "librosa"}
    for package in ("scipy", "matplotlib", "torchaudio", "tensorboard", "pytest"):
        done = run_with_packages(NAMES, f"import {package}")
        assert f"No module named '{package}'" in done.stderr, package
    assert run_with_packages(NAMES, "import torch, wavegen.synthesis").returncode == 0


@pytest.mark.parametrize("name", ["wavenet", "spectral", "parallel", "source-filter"])
def test_every_vocoder_synthesises_a_folder(name: str, tmp_path: Path) -> None:
    for mel in ("one", "two"):
        save_mel(tmp_path / "mels" / f"{mel}.npz", tiny_mel(20), SPEC)
    model = write_model(tmp_path / "model.safetensors", name)
    out = tmp_path / "out"
    done = run_with_packages(NAMES, RUN, "synth", tmp_path / "mels", out, "--model", model)
    assert done.returncode == 0, done.stderr
    sounds = [soundfile.read(out / f"{mel}.wav")[0] for mel in ("one", "two")]
    assert [len(sound) for sound in sounds] == [20 * SPEC.hop_length] * 2
    assert all(np.abs(sound).max() > 0 for sound in sounds)


def test_the_shipped_voice_copies_a_recording(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "hello.wav", voice(0.5, rate=24000), 24000)
    arguments = ("synth", tmp_path / "hello.wav", tmp_path / "copy.wav", "--model", "default")
    done = run_with_packages(NAMES, RUN, *arguments)
    assert done.returncode == 0, done.stderr
    assert soundfile.info(tmp_path / "copy.wav").samplerate == 24000


def test_mels_are_extracted(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "hello.wav", voice(0.5, rate=24000), 24000)
    done = run_with_packages(NAMES, RUN, "extract", tmp_path / "hello.wav", tmp_path / "features")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "features/mels/hello.npz").exists()


def test_a_command_names_the_package_that_it_lacks(tmp_path: Path, messages: Messages) -> None:
    (tmp_path / "sounds").mkdir()
    soundfile.write(tmp_path / "sounds/hello.wav", voice(0.5, rate=24000), 24000)
    scored = ["evaluate", tmp_path / "sounds", tmp_path / "sounds", "--out", tmp_path / "evaluation"]
    for command in (["train", "demo", "--out", tmp_path / "run"], scored):
        done = run_with_packages(NAMES, RUN, *command)
        assert (done.returncode, done.stdout) == (2, ""), done.stderr
        messages.check(done.stderr)
    assert [path.name for path in tmp_path.iterdir()] == ["sounds"]


def test_a_module_that_wavegen_itself_lacks_is_not_taken_for_a_package() -> None:
    code = "from wavegen.commands import run_command; run_command('x', lambda: __import__('wavegen.nothing'))"
    done = run_with_packages(NAMES, code)
    assert done.returncode == 1
    assert "No module named 'wavegen.nothing'" in done.stderr
