"""The public API: the modules export what ``wavegen/API.md`` promises, and a foreign project can be type-checked."""

import importlib
import inspect
import os
import re
import shlex
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path
from types import ModuleType

import pytest
from support.messages import Messages
from support.vocoders import tiny_vocoder

import wavegen
from wavegen.checkpoint import load_vocoder
from wavegen.vocoders import VOCODERS

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "wavegen/API.md").read_text(encoding="utf-8")
NAMES = r"`([\w.]+)`"
PROMISED = {
    module: re.findall(NAMES, names)
    for module, names in re.findall(r"^\| `(wavegen[\w.]*)` \| .*? \| (.*) \|$", PAGE, flags=re.MULTILINE)
}
OF_VOCODERS = PAGE.partition("| attribute |")[2]
ATTRIBUTES = re.findall(NAMES, "".join(re.findall(r"^\| (`[a-z_`, ]+) \| ", OF_VOCODERS, flags=re.MULTILINE)))


def exported(module: str) -> ModuleType:
    return importlib.import_module(module)


@pytest.mark.parametrize("module", PROMISED)
def test_what_is_promised_is_exported(module: str) -> None:
    assert sorted(exported(module).__all__) == sorted(PROMISED[module])
    assert all(hasattr(exported(module), name) for name in PROMISED[module])


def test_every_vocoder_has_what_is_promised() -> None:
    assert {"mel", "speakers", "synthesize", "step", "for_mel"} <= {*ATTRIBUTES}
    for name in VOCODERS:
        vocoder = tiny_vocoder(name)
        assert [attribute for attribute in ATTRIBUTES if not hasattr(vocoder, attribute)] == []


def shown(member: object) -> str:
    """Parameters with their defaults; annotations are left out, because Python's versions print them differently."""
    parameters = inspect.signature(member).parameters.values()  # type: ignore[arg-type]
    text = ", ".join(str(parameter.replace(annotation=parameter.empty)) for parameter in parameters)
    return re.sub(r" at 0x\w+", "", text)


def test_the_arguments_of_what_is_promised_stay(messages: Messages) -> None:
    for module, names in PROMISED.items():
        for name in names:
            member = getattr(exported(module), name)
            if inspect.isfunction(member) or (inspect.isclass(member) and "wavegen" in member.__module__):
                messages.check(f"{module}.{name}({shown(member)})")
    for name in ATTRIBUTES:
        member = getattr(VOCODERS["spectral"], name, None)
        if inspect.isfunction(member):
            messages.check(f"Vocoder.{name}({shown(member)})")


def test_everything_promised_has_a_docstring() -> None:
    for module, names in PROMISED.items():
        for name in names:
            member = getattr(exported(module), name)
            if inspect.isfunction(member) or inspect.isclass(member):
                assert (member.__doc__ or "").strip(), name


def test_load_is_load_vocoder_and_takes_what_that_takes() -> None:
    theirs, ours = inspect.signature(load_vocoder), inspect.signature(wavegen.load)
    assert shown(wavegen.load) == shown(load_vocoder)
    assert [str(p.annotation).strip("'") for p in ours.parameters.values()] == [
        re.sub(r"pathlib\.(_local\.)?", "", str(p.annotation)) for p in theirs.parameters.values()
    ]


def test_the_pages_are_built_of_the_promised_modules() -> None:
    (command,) = re.findall(r"^```sh\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE)
    words = shlex.split(command.replace("\\\n", " "))
    assert [word for word in words if word.startswith("wavegen")] == [*PROMISED]


# --- a foreign project ---

PROGRAM = """
import torch
import wavegen
from torch import Tensor, nn
from wavegen.blocks import Context, DilatedConv1d, DilatedStack, GatedResidualBlock, exponential_dilations
from wavegen.errors import WavegenError
from wavegen.mel import LogMel, MelSpec, load_mel, profile


class Decoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.input = DilatedConv1d(192, 128, 1)
        self.stack = DilatedStack(
            GatedResidualBlock(128, kernel_size=3, dilation=d, padding="same", condition_channels=64)
            for d in exponential_dilations(cycles=2, depth=4)
        )

    def context(self) -> Context:
        return self.stack.context


def speak(mel: Tensor) -> Tensor:
    try:
        vocoder = wavegen.load("runs/mine", device=torch.device("cpu"))
    except WavegenError:
        vocoder = wavegen.load()
    spec: MelSpec = vocoder.mel
    assert spec == profile("bigvgan-24k")
    return vocoder.synthesize(mel, seed=0, speaker=None)
"""

# Lines that a type checker must refuse, and what it says of them.
MISTAKES = {
    "wavegen.load(3)": "arg-type",
    "wavegen.lode()": "attr-defined",
    "wavegen.load().synthesize(80)": "arg-type",
    "Decoder().context().left.upper()": "attr-defined",
    'DilatedConv1d(1, 1, 3, padding="valid")': "arg-type",
    'GatedResidualBlock("128")': "arg-type",
    "exponential_dilations(cycles=2.5, depth=4)": "arg-type",
    "profile(80)": "arg-type",
    'LogMel("bigvgan-24k")': "arg-type",
    'load_mel("a.npz").shape': "attr-defined",
}


@pytest.fixture(scope="module")
def foreign_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python in whose environment wavegen's wheel is installed; other packages are those of this one."""
    place = tmp_path_factory.mktemp("foreign")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", str(place)]
    subprocess.run([*command, str(ROOT)], check=True, capture_output=True)
    venv.create(place / "venv", with_pip=False)
    python = place / "venv" / ("Scripts" if os.name == "nt" else "bin") / "python"
    ask = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = Path(subprocess.run([python, "-c", ask], check=True, capture_output=True, text=True).stdout.strip())
    (wheel,) = place.glob("wavegen-*.whl")
    zipfile.ZipFile(wheel).extractall(site)
    (site / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


@pytest.mark.slow
def test_a_foreign_project_is_type_checked(foreign_python: Path, tmp_path: Path) -> None:
    """mypy reads the types of the installed package, which it does only with ``py.typed``, and finds each mistake."""
    start = len(PROGRAM.splitlines()) + 1
    (tmp_path / "program.py").write_text(PROGRAM + "\n".join(MISTAKES) + "\n", encoding="utf-8")
    command = [
        "mypy",
        "--strict",
        "--python-executable",
        foreign_python,
        "--cache-dir",
        tmp_path / "cache",
        "program.py",
    ]
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "MYPYPATH")}
    done = subprocess.run(
        [sys.executable, "-m", *map(str, command)], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    found = {
        int(line): code for line, code in re.findall(r"^program.py:(\d+): error: .*\[([\w-]+)\]$", done.stdout, re.M)
    }
    assert found == dict(enumerate(MISTAKES.values(), start)), done.stdout + done.stderr
