"""Running a training in the test's process, and reading what it left."""

import json
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
    return main([str(recipe), "--out", str(out), "--device", "cpu", *overrides])


def rows(run: Path, kind: str) -> list[dict[str, Any]]:
    lines = (json.loads(line) for line in (run / "log.jsonl").read_text().splitlines())
    return [line for line in lines if line["kind"] == kind]


def checkpoint(run: Path, step: int) -> Path:
    return run / "checkpoints" / f"step-{step:08d}.safetensors"


def assert_same_checkpoint(a: Path, b: Path) -> None:
    (tensors_a, header_a), (tensors_b, header_b) = load_checkpoint(a), load_checkpoint(b)
    assert tensors_a.keys() == tensors_b.keys()
    different = [name for name in tensors_a if not torch.equal(tensors_a[name], tensors_b[name])]
    assert not different, f"not bit for bit the same: {different[:5]}"
    for key in ("step", "best", "rollbacks"):
        assert header_a[key] == header_b[key]
