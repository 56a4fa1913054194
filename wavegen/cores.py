"""The processor: its name, and how many cores this process may use."""

import contextlib
import math
import os
import platform
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
CPU_INFO = Path("/proc/cpuinfo")


def usable_cores() -> int:
    """The number of cores that this process may use, at least 1.

    It respects what ``os.cpu_count()`` ignores: the CPU affinity of ``taskset`` and of job schedulers, and the CPU
    limit of a container (cgroups, version 2 and 1). A limit of 2.5 cores counts as 3.
    """
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # neither macOS nor Windows has it
        cores = os.cpu_count() or 1
    limit = _container_limit(CGROUP)
    return max(1, cores if limit is None else min(cores, math.ceil(limit)))


def _container_limit(cgroup: Path) -> float | None:
    """Cores that a container may use on average; None without a limit."""
    try:
        if (cgroup / "cpu.max").exists():  # "200000 100000" or "max 100000": microseconds of work per period
            quota, period = (cgroup / "cpu.max").read_text().split()
        else:
            quota = (cgroup / "cpu/cpu.cfs_quota_us").read_text()
            period = (cgroup / "cpu/cpu.cfs_period_us").read_text()
        limit = float(quota) / float(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None
    return limit if limit > 0 else None  # version 1 writes -1 for "no limit"


def processor_name() -> str:
    """The processor's name as its maker sells it, or at least its architecture."""
    with contextlib.suppress(OSError):
        for line in CPU_INFO.read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()
