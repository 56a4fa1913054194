"""``wavegen-train`` as a user meets it, and mistakes that all commands have in common."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.commands import Main, Refused, tree
from support.corpus import write_noise
from support.messages import Messages

from wavegen.commands import extract, train
from wavegen.recipe import find_recipe

pytestmark = pytest.mark.usefixtures("folder")


@pytest.mark.parametrize(
    "arguments",
    [
        ["demmo"],
        ["ljspeech/wavnet"],
        ["none.yaml"],
        ["demo", "training.stepz=5"],
        ["demo", "training.steps=many"],
        ["demo", "--out", "run", "steps"],
    ],
)
def test_a_bad_training(arguments: list[str], refused: Refused) -> None:
    refused(train.main, *arguments, hide=f"^{re.escape(str(find_recipe('demo').parent))}")


@pytest.mark.parametrize(
    ("main", "arguments"), [(extract.main, ["in", "file/out"]), (train.main, ["demo", "--out", "file/out"])]
)
def test_a_folder_that_cannot_be_written(main: Main, arguments: list[str], refused: Refused) -> None:
    """Below a file: folders without permission would not stop a test that runs as root."""
    write_noise("in/a.wav")
    Path("file").touch()
    refused(main, *arguments)


@pytest.mark.parametrize(
    ("command", "arguments"),
    [("synth", ["none.npy", "out.wav"]), ("extract", ["none", "out"]), ("train", ["demmo"])],
    ids=["synth", "extract", "train"],
)
def test_a_mistake_is_one_line_and_exit_code_2(command: str, arguments: list[str], messages: Messages) -> None:
    program = [Path(sys.executable).with_name(f"wavegen-{command}"), *arguments]
    done = subprocess.run(program, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (2, "")
    assert tree() == {}
    messages.check(done.stderr)
