"""The console commands: they parse arguments, call the library and return an exit code.

Heavy libraries are imported after the arguments are parsed, so that ``--help`` and mistakes are answered at once.
"""

import argparse
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from wavegen.commands import _output as output
from wavegen.errors import WavegenError

if TYPE_CHECKING:
    import torch

# The threads of torch's OpenMP runtime wait for each other by spinning. As soon as another program runs on one of the
# cores, that makes small steps over ten times slower (measured: 0.1 s became 2 to 7 s). A short spin costs at most
# 10 %. torch reads this variable when it is loaded. A value that the user has set is kept.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

USAGE_ERROR = 2
INTERRUPTED = 130
# Packages that are imported by another name than they are installed by.
_DISTRIBUTIONS = {"PIL": "pillow", "ruamel": "ruamel.yaml"}


class _PrintVersion(argparse.Action):
    """Prints the version and exits; it is looked up only now, because that takes longer than ``--help`` may."""

    def __call__(self, parser: argparse.ArgumentParser, *unused: object) -> None:
        import wavegen

        print(f"{parser.prog} {wavegen.__version__}")
        parser.exit()


def command_parser(name: str, description: str) -> argparse.ArgumentParser:
    """Return the parser of a command, with the option ``--version``."""
    parser = argparse.ArgumentParser(prog=name, description=description)
    parser.add_argument("--version", action=_PrintVersion, nargs=0, help="print the version and exit")
    return parser


def at_least(minimum: int, kind: Callable[[str], Any] = int) -> Callable[[str], Any]:
    """Return an argparse ``type`` that refuses numbers below ``minimum``.

    Args:
        minimum: the smallest number allowed.
        kind: converts the text, such as ``int`` or ``float``.
    """

    def convert(text: str) -> Any:
        number = kind(text)
        if not number >= minimum:  # NaN is refused too
            raise argparse.ArgumentTypeError(f"must be at least {minimum}")
        return number

    convert.__name__ = getattr(kind, "__name__", "number")  # argparse names it: "invalid int value"
    return convert


def run_command(name: str, command: Callable[[], int]) -> int:
    """Run a command's body and return its exit code.

    A WavegenError, and a package that is not installed, become one line on stderr and exit code 2.
    """
    output.accept_all_characters()
    try:
        code = command()
    except WavegenError as error:
        output.complain(f"{name}: error: {error}")
        return USAGE_ERROR
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("", "wavegen"):  # not a package of another project, but a mistake here
            raise
        missing = _DISTRIBUTIONS.get(package, package)
        output.complain(
            f"{name}: error: the package {missing} is not installed; run pip install {missing}, or "
            "pip install . for all that wavegen requires"
        )
        return USAGE_ERROR
    except KeyboardInterrupt:
        output.complain(f"{name}: interrupted")
        return INTERRUPTED
    lost = output.take_failure()
    if lost is not None:
        output.complain(f"{name}: error: standard output: cannot write: {lost}; the work itself is finished")
        return USAGE_ERROR
    return code


def notify(line: str) -> None:
    """Print a line and flush it, so that it appears at once also in a file."""
    output.print_line(line)


def pick_device(name: str) -> "torch.device":
    """Return the device with this name; ``"auto"`` is this process's GPU if there is one, otherwise the CPU.

    Raises:
        WavegenError: this machine has no such device.
    """
    import torch

    if name == "auto":
        name = f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros((), device=device).item()  # checks that tensors can be created and read back
    except (RuntimeError, AssertionError) as error:
        devices = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
        raise WavegenError(
            f"this machine has no device {name!r}", where="--device", remedy=f"use {' or '.join(devices)}"
        ) from error
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)  # collectives and random states use the current device by default
    return device
