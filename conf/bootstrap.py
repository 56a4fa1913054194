#!/usr/bin/env python3
# ruff: noqa: UP006, UP035 - old Pythons must get far enough into this file to be told that they are too old
"""Set wavegen up on a machine that has only Python, then run one of its commands.

    python3 conf/bootstrap.py COMMAND [ARGS…]

The first call makes ``.venv`` in the checkout and installs the project there, editable, with the versions in
``conf/constraints.txt``. Later calls find the stamp that was written last, and start COMMAND at once. COMMAND is
a program of that environment (``wavegen-train``, ``pytest``, ``python``). It runs **in the checkout's folder**, so
relative paths in ARGS start there, and its exit code is passed on. Without one: 1, set-up failed; 2, wrong usage.
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
    """This machine cannot be set up; the message is one line with the remedy."""


def main(argv: List[str]) -> int:
    """Set up if needed and run ``argv``, which on POSIX takes the place of this process."""
    if not argv:
        say("usage: python3 conf/bootstrap.py COMMAND [ARGS…], such as: wavegen-train demo, or: pytest")
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
        say("set-up failed, see above; check the network and that 10 GB are free, then run this again")
        return 1
    except KeyboardInterrupt:
        say("interrupted; the next call starts the set-up again")
        return 130
    return run(argv)


def say(message: str) -> None:
    """Print to stderr, because stdout belongs to the command."""
    print("bootstrap: " + message, file=sys.stderr, flush=True)


def check_python() -> None:
    """Refuse a Python that is too old or cannot make virtual environments."""
    if sys.version_info[:2] < OLDEST_PYTHON:
        raise SetUpError(
            f"Python {platform.python_version()} is too old, wavegen needs 3.10 or newer;"
            " install one and run this with it: python3.12 conf/bootstrap.py …"
        )
    if importlib.util.find_spec("venv") is None or importlib.util.find_spec("ensurepip") is None:
        package = "python{}.{}-venv".format(*sys.version_info)
        raise SetUpError(f"this Python came without venv; on Debian and Ubuntu: sudo apt install {package}")


def wanted_stamp() -> str:
    """Return what the environment depends on: one line for interpreter and place, one for the versions."""
    inputs = (CHECKOUT / "pyproject.toml").read_bytes() + CONSTRAINTS.read_bytes()
    return f"{platform.python_version()} {CHECKOUT}\n{hashlib.sha256(inputs).hexdigest()}\n"


def recorded_stamp() -> str:
    """Return the stamp that the last set-up left, or "" where there is none."""
    return STAMP.read_text(encoding="utf-8") if STAMP.exists() else ""


def set_up() -> None:
    """Make the environment and install the project; the stamp comes last, so half a set-up is never used."""
    recorded, wanted = recorded_stamp(), wanted_stamp()
    if recorded.partition("\n")[0] != wanted.partition("\n")[0]:
        # Another interpreter or place, or a set-up cut short: start afresh. Without any stamp, though, somebody
        # made .venv by hand, and it is not ours to empty.
        say("creating .venv")
        quietly([sys.executable, "-m", "venv", *(["--clear"] if recorded else []), str(VENV)])
    STAMP.write_text("unfinished\n", encoding="utf-8")
    say("installing wavegen and its dependencies (two to four minutes, 5 GB)")
    pip = [str(BIN / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    pip += ["--constraint", str(CONSTRAINTS), "--editable"]
    quietly([*pip, ".[dev]"])
    try:
        quietly([*pip, ".[evaluation]"])
    except subprocess.CalledProcessError:
        say("could not build pesq and pyworld, which needs a C compiler: evaluations lack PESQ and pitch")
    STAMP.write_text(wanted, encoding="utf-8")


def quietly(command: List[str]) -> None:
    """Run ``command`` in the checkout; what it prints is kept for the error, should it fail."""
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
        say(f"there is no {argv[0]!r} in {BIN}; the project's own commands: {ours}")
        return 2
    say("ready; running " + " ".join(argv))
    os.chdir(str(CHECKOUT))
    # As an activated environment would, so that a command finds its neighbours (torchrun finds wavegen-train).
    os.environ["VIRTUAL_ENV"] = str(VENV)
    os.environ["PATH"] = str(BIN) + os.pathsep + os.environ.get("PATH", "")
    if os.name != "nt":  # there, execv returns to the shell before the command has ended
        os.execv(program, [program, *argv[1:]])
    return subprocess.run([program, *argv[1:]]).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
