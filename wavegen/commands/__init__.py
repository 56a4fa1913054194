"""The console commands: arguments in, exit codes out, no logic.

Heavy libraries are imported after the arguments are parsed, so that ``--help`` and a typing error answer at once.
"""

import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from wavegen.errors import WavegenError

if TYPE_CHECKING:
    import torch

# Threads of the OpenMP runtime under torch wait for each other by spinning. As soon as anything else runs on one of
# the cores, that makes small steps over ten times slower (measured: 0.1 s to 2-7 s); a short spin costs at most 10 %.
# Read when torch is loaded, so it must be set before; whoever has set it knows better.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

USAGE_ERROR = 2
INTERRUPTED = 130


def run_command(name: str, command: Callable[[], int]) -> int:
    """Run a command's body; a mistake of the user becomes one line on stderr and exit code 2."""
    try:
        return command()
    except WavegenError as error:
        print(f"{name}: error: {error}", file=sys.stderr)
        return USAGE_ERROR
    except KeyboardInterrupt:
        print(f"{name}: interrupted", file=sys.stderr)
        return INTERRUPTED


def say(line: str) -> None:
    """Print a line now, also where stdout is a file."""
    print(line, flush=True)


def pick_device(name: str) -> "torch.device":
    """The device that a user names; for ``"auto"`` this process's own GPU where there is one.

    Raises:
        WavegenError: this machine has no such device.
    """
    import torch

    if name == "auto":
        name = f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros((), device=device).item()  # a tensor can be made there, and read back
    except (RuntimeError, AssertionError) as error:
        has = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
        raise WavegenError(f"no device {name!r} here", where="--device", remedy=f"give {' or '.join(has)}") from error
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)  # where collectives and random states look when they are not told
    return device
