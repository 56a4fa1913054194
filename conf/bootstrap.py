#!/usr/bin/env python3
# ruff: noqa: UP006, UP035 - Pythons that are too old must be able to run this file, which tells them so
"""Set up wavegen on a machine that has only Python, then run one of its commands.

    python3 conf/bootstrap.py COMMAND [ARGS…]

The first call creates ``.venv`` in the checkout and installs the project there, editable, with the versions in
``conf/constraints.txt``, by uv where that is present. It writes a stamp last; later calls find the stamp and start
COMMAND at once. COMMAND is a program of that environment (``wavegen-train``, ``pytest``, ``python``). It runs **in the
checkout's folder**, so relative paths in ARGS start there. The exit code is COMMAND's, or 1 if set-up failed, or 2 for
wrong usage.
"""

import hashlib
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import List

OLDEST_PYTHON = (3, 10)
CHECKOUT = Path(__file__).resolve().parent.parent
CONSTRAINTS = CHECKOUT / "conf" / "constraints.txt"
VENV = CHECKOUT / ".venv"
BIN = VENV / ("Scripts" if os.name == "nt" else "bin")
STAMP = VENV / "bootstrap.stamp"


class SetUpError(Exception):
    """The set-up cannot run on this machine; the message is one line with the remedy."""


def main(argv: List[str]) -> int:
    """Set up if needed and run ``argv``, which replaces this process on POSIX."""
    if not argv:
        say("usage: python3 conf/bootstrap.py COMMAND [ARGS…], for example wavegen-train demo, or pytest")
        return 2
    try:
        check_python()
        if recorded_stamp() != wanted_stamp():
            set_up()
    except SetUpError as error:
        say(str(error))
        return 1
    except subprocess.CalledProcessError as error:
        sys.stderr.write(error.output)
        say("set-up failed, see the output above; check the network and that 10 GB are free, then run this again")
        return 1
    except KeyboardInterrupt:
        say("interrupted; the next call restarts the set-up")
        return 130
    return run(argv)


def say(message: str) -> None:
    """Print to stderr; stdout belongs to the command."""
    print("bootstrap: " + message, file=sys.stderr, flush=True)


def check_python() -> None:
    """Refuse a Python that is too old or cannot create virtual environments."""
    if sys.version_info[:2] < OLDEST_PYTHON:
        raise SetUpError(
            f"Python {platform.python_version()} is too old, wavegen needs 3.10 or newer;"
            " install a newer one and use it, for example: python3.12 conf/bootstrap.py …"
        )
    if importlib.util.find_spec("venv") is None or importlib.util.find_spec("ensurepip") is None:
        package = "python{}.{}-venv".format(*sys.version_info)
        raise SetUpError(f"this Python has no venv; on Debian and Ubuntu, install it with: sudo apt install {package}")


def wanted_stamp() -> str:
    """Return what the environment depends on: a line for the interpreter and the folder, one for the versions."""
    inputs = (CHECKOUT / "pyproject.toml").read_bytes() + CONSTRAINTS.read_bytes()
    return f"{platform.python_version()} {CHECKOUT}\n{hashlib.sha256(inputs).hexdigest()}\n"


def recorded_stamp() -> str:
    """Return the stamp of the last set-up, or "" if there is none."""
    return STAMP.read_text(encoding="utf-8") if STAMP.exists() else ""


def set_up() -> None:
    """Create the environment and install the project; the stamp is written last, so half a set-up is never used."""
    recorded = recorded_stamp()
    wanted = wanted_stamp()
    if recorded.partition("\n")[0] != wanted.partition("\n")[0]:
        # The interpreter or the folder has changed, or a set-up was interrupted: start from an empty environment. But
        # without a stamp somebody made .venv by hand, so keep its contents.
        say("creating .venv")
        quietly([sys.executable, "-m", "venv", *(["--clear"] if recorded else []), str(VENV)])
    STAMP.write_text("unfinished\n", encoding="utf-8")
    say("installing wavegen and its dependencies (two to four minutes, 5 GB)")
    pip = installer()
    pip += ["--constraint", str(CONSTRAINTS), "--editable"]
    quietly([*pip, ".[dev]"])
    try:
        quietly([*pip, ".[evaluation]"])
    except subprocess.CalledProcessError:
        say("could not build pesq and libsvm-official, which need a C compiler; evaluations will lack PESQ and ViSQOL")
        quietly([*pip, ".[evaluation-wheels]"])
    STAMP.write_text(wanted, encoding="utf-8")


def installer() -> List[str]:
    """Return the start of a command that installs into ``.venv``: uv's if it is present, because it is faster."""
    python = str(BIN / "python")
    uv = shutil.which("uv")
    if uv:
        return [uv, "pip", "install", "--quiet", "--python", python]
    return [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]


def quietly(command: List[str]) -> None:
    """Run ``command`` in the checkout; its output is shown only if it fails."""
    subprocess.run(
        command,
        cwd=str(CHECKOUT),
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run(argv: List[str]) -> int:
    """Run a program of the environment in the checkout's folder and return its exit code."""
    program = shutil.which(argv[0], path=str(BIN))
    if program is None:
        ours = ", ".join(sorted(path.stem for path in BIN.glob("wavegen-*")))
        say(f"{argv[0]!r} is not in {BIN}; wavegen's commands are {ours}")
        return 2
    say("ready; running " + " ".join(argv))
    os.chdir(str(CHECKOUT))
    # Set what activating the environment sets, so that a command finds other programs (torchrun finds wavegen-train).
    os.environ["VIRTUAL_ENV"] = str(VENV)
    os.environ["PATH"] = str(BIN) + os.pathsep + os.environ.get("PATH", "")
    if os.name != "nt":  # on Windows, execv returns to the shell before the command has ended
        os.execv(program, [program, *argv[1:]])
    return subprocess.run([program, *argv[1:]]).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
