"""The number of cores: the affinity and the container's limit count, not the machine."""

import os
from pathlib import Path

import pytest

from wavegen import cores


@pytest.fixture
def cgroup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of eight cores, of which this process may use six."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(6)), raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(cores, "CGROUP", tmp_path)
    return tmp_path


def test_the_affinity_limits_the_cores(cgroup: Path) -> None:
    assert cores.usable_cores() == 6


def test_a_system_without_affinity_counts_all_cores(cgroup: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    assert cores.usable_cores() == 8


@pytest.mark.parametrize(
    ("text", "expected"),
    [("max 100000", 6), ("200000 100000", 2), ("250000 100000", 3), ("900000 100000", 6), ("1000 100000", 1), ("?", 6)],
)
def test_a_container_limits_the_cores(cgroup: Path, text: str, expected: int) -> None:
    (cgroup / "cpu.max").write_text(f"{text}\n")
    assert cores.usable_cores() == expected


@pytest.mark.parametrize(("quota", "expected"), [("-1", 6), ("200000", 2)])
def test_a_container_of_the_first_version_limits_the_cores(cgroup: Path, quota: str, expected: int) -> None:
    (cgroup / "cpu").mkdir()
    (cgroup / "cpu/cpu.cfs_quota_us").write_text(quota)
    (cgroup / "cpu/cpu.cfs_period_us").write_text("100000")
    assert cores.usable_cores() == expected


def test_nothing_else_counts_cores() -> None:
    for path in Path(cores.__file__).parent.rglob("*.py"):
        assert path.name == "cores.py" or "cpu_count" not in path.read_text(encoding="utf-8"), path
