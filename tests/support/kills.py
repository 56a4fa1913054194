"""Kill a training again and again, resume it, and compare what it wrote with a training that nothing disturbed."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from support.corpus import write_corpus, write_recipe
from support.runs import assert_same_checkpoint, checkpoint, rows
from wavegen.checkpoint import load_checkpoint

STEPS = 40
DISCRIMINATORS = (
    "{start_step: 6, periods: [2, 3], period_channels: [4, 6], resolutions: [[256, 128]], resolution_channels: 4, "
    "dilations: [1, 2]}"
)
# Two readers, however many cores the machine has.
TRAIN = """
import sys
from wavegen.training import data
data.usable_cores = lambda: 2
from wavegen.commands.train import main
sys.exit(main(sys.argv[1:]))
"""
HANGS_S = 120


def kill_and_compare(folder: Path, kills: int, *, seed: int = 0, steps: int = STEPS) -> str:
    """Kill a training at random moments until it is done; raises AssertionError if anything differs or is left.

    Args:
        folder: an empty folder for the corpus and two runs.
        kills: how often the training is killed, at most.
        seed: seeds the moments.
        steps: steps of the training.

    Returns:
        a line for a report.
    """
    generator = random.Random(seed)
    recipe = write_recipe(folder / "r.yaml", write_corpus(folder / "corpus"))
    settings = [
        f"training.steps={steps}", "training.workers=2", "training.checkpoint_every=2", "training.validate_every=8",
        f"training.adversarial={DISCRIMINATORS}",
    ]  # fmt: skip

    whole, killed = folder / "whole", folder / "killed"
    code, output = _end_of(_start(recipe, whole, settings))
    assert code == 0, output

    moments = []
    for _ in range(kills):
        process = _start(recipe, killed, settings)
        moments.append(_kill(process, killed, generator))
        assert _members(process.pid) == []
        if moments[-1] == "finished":
            break
    code, output = _end_of(_start(recipe, killed, settings))
    assert code == 0, output

    # Contents, then bytes, then whatever else may be left.
    assert_same_checkpoint(checkpoint(whole, steps), checkpoint(killed, steps))
    names = sorted(path.relative_to(whole).as_posix() for path in whole.glob("**/*.safetensors"))
    assert names == sorted(path.relative_to(killed).as_posix() for path in killed.glob("**/*.safetensors"))
    for name in names:
        load_checkpoint(killed / name)
        assert (whole / name).read_bytes() == (killed / name).read_bytes(), name
    for kind in ("train", "valid"):
        assert [row["step"] for row in rows(whole, kind)] == [row["step"] for row in rows(killed, kind)]
    left = [path.name for path in killed.rglob(".*") if ".part" in path.name]
    assert not left, left
    counts = ", ".join(f"{moments.count(moment)} {moment}" for moment in sorted(set(moments)))
    return f"{len(moments)} kills ({counts}): {len(names)} files equal, bit for bit and byte for byte"


def _start(recipe: Path, out: Path, settings: list[str]) -> subprocess.Popen[str]:
    """A training in a process group of its own, so that all its processes can be found."""
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-c",
        TRAIN,
        str(recipe),
        "--out",
        str(out),
        "--device",
        "cpu",
        *settings,
    ]
    return subprocess.Popen(
        command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    )


def _kill(process: subprocess.Popen[str], out: Path, generator: random.Random) -> str:
    """Kill a training before it begins, between two steps, or while a checkpoint is being written; returns when."""
    moment = generator.choices(("while starting", "after a step", "while saving"), (1, 3, 3))[0]
    started = time.monotonic()
    wanted = _logged(out) + generator.randint(1, 6)
    starting_s = generator.uniform(0.5, 6)
    while process.poll() is None:
        assert time.monotonic() - started < HANGS_S, "the training hangs"
        if moment == "while starting" and time.monotonic() - started > starting_s:
            break
        logged = _logged(out)
        if moment == "after a step" and logged >= wanted:
            time.sleep(generator.uniform(0, 0.1))
            break
        if moment == "while saving" and logged >= wanted and list(out.glob("checkpoints/.*.part*")):
            break
        time.sleep(0.001)
    if process.poll() is not None:
        code, output = _end_of(process)
        assert code == 0, output
        return "finished"
    process.send_signal(signal.SIGKILL)
    _end_of(process)
    return moment


def _logged(out: Path) -> int:
    """Rows of the log so far."""
    log = out / "log.jsonl"
    return log.read_bytes().count(b"\n") if log.exists() else 0


def _end_of(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Wait for a process and, as they hold its pipe, for all that it has started."""
    output, _ = process.communicate(timeout=HANGS_S)
    deadline = time.monotonic() + 30
    while _members(process.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    return process.returncode, output


def _members(group: int) -> list[int]:
    """The running processes of a process group; empty where the system does not list them."""
    members = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended meanwhile
            continue
        if int(fields[2]) == group and fields[0] != "Z":
            members.append(int(status.parent.name))
    return [pid for pid in members if pid != os.getpid()]
