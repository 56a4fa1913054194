"""The package itself: ``import wavegen``, ``python -m wavegen``, and the options that all commands share."""

import argparse
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from support.commands import command_main
from support.vocoders import write_model

import wavegen
from wavegen.__main__ import main
from wavegen.checkpoint import load_vocoder
from wavegen.commands import at_least

COMMANDS = ("bench", "evaluate", "export", "extract", "import", "inpaint", "label", "synth", "train")


def test_importing_the_package_loads_no_other_package() -> None:
    code = """
import sys
before = set(sys.modules)
import wavegen
loaded = {name.split(".")[0] for name in set(sys.modules) - before} - sys.stdlib_module_names
assert loaded == {"wavegen"}, loaded
assert "importlib.metadata" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_load_is_load_vocoder(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model.safetensors")
    theirs, ours = load_vocoder(model, "cpu").state_dict(), wavegen.load(model, device="cpu").state_dict()
    assert all(torch.equal(ours[key], weight) for key, weight in theirs.items())
    assert wavegen.load(model).mel.sample_rate_hz == 8000
    with pytest.raises(AttributeError, match="has no attribute 'lode'"):
        _ = wavegen.lode


def test_the_version_is_that_of_the_installed_package() -> None:
    assert wavegen.__version__ == version("wavegen")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_prints_its_version(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        command_main(command)(["--version"])
    assert capsys.readouterr().out == f"wavegen-{command} {wavegen.__version__}\n"


def test_without_arguments_the_commands_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    printed = capsys.readouterr().out
    assert [line.split()[0] for line in printed.splitlines() if line.split()[:1] and line.split()[0] in COMMANDS] == [
        *COMMANDS
    ]


def test_a_command_is_dispatched_with_its_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "no-such-recipe"]) == 2
    assert capsys.readouterr().err.startswith("wavegen-train: error: unknown recipe 'no-such-recipe'")
    done = subprocess.run(
        [sys.executable, "-m", "wavegen", "train", "--help"], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: wavegen-train ")


def test_an_unknown_command_is_refused_with_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["trian"])
    error = capsys.readouterr().err
    assert all(command in error for command in ("trian", *COMMANDS))


def test_at_least_converts_and_refuses_what_is_below() -> None:
    assert at_least(1)("1") == 1
    assert at_least(0, float)("0.5") == 0.5
    for convert, text in ((at_least(1), "0"), (at_least(0, float), "-0.1"), (at_least(0, float), "nan")):
        with pytest.raises(argparse.ArgumentTypeError, match=r"^must be at least [01]$"):
            convert(text)
    parser = argparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--jobs", type=at_least(1))
    with pytest.raises(argparse.ArgumentError, match="invalid int value: 'many'"):
        parser.parse_args(["--jobs", "many"])
