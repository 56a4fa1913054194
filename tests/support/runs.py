"""Running a training, in the test's process or in two processes, and reading the files that it wrote."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from wavegen.checkpoint import load_checkpoint
from wavegen.commands.train import main
from wavegen.training.config import AdversarialConfig

SMALL = AdversarialConfig(
    periods=(2, 3), period_channels=(4, 6), resolutions=((256, 128),), resolution_channels=4, dilations=(1, 2)
)


def train(recipe: Path, out: Path, *overrides: str) -> int:
    """Run ``wavegen-train``; returns its exit code."""
    return main([str(recipe), "--out", str(out), "--device", "cpu", *overrides])


def train_in_two_processes(
    recipe: Path, out: Path, *overrides: str, script: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run ``wavegen-train``, or a script in its place, in two processes started by torchrun."""
    program = ["-m", "wavegen.commands.train"] if script is None else [str(script)]
    return in_two_processes(*program, str(recipe), "--out", str(out), "--device", "cpu", *overrides)


def in_two_processes(*program: str) -> subprocess.CompletedProcess[str]:
    """Run a script or module with its arguments in two processes started by torchrun."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", *program]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, env=environment, text=True, capture_output=True, timeout=300, check=False)


def rows(run: Path, kind: str) -> list[dict[str, Any]]:
    """The rows of one kind in a run's log file."""
    lines = (json.loads(line) for line in (run / "log.jsonl").read_text().splitlines())
    return [line for line in lines if line["kind"] == kind]


def checkpoint(run: Path, step: int) -> Path:
    """The file of a checkpoint."""
    return run / "checkpoints" / f"step-{step:08d}.safetensors"


def assert_same_checkpoint(a: Path, b: Path) -> None:
    """All tensors are equal bit for bit, and so are step, best score and rollbacks."""
    (tensors_a, header_a), (tensors_b, header_b) = load_checkpoint(a), load_checkpoint(b)
    assert tensors_a.keys() == tensors_b.keys()
    different = [name for name in tensors_a if not torch.equal(tensors_a[name], tensors_b[name])]
    assert not different, f"not bit for bit the same: {different[:5]}"
    for key in ("step", "best", "rollbacks"):
        assert header_a[key] == header_b[key]
