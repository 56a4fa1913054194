"""The lists of versions agree: what the project requires is pinned, and the lock has a hash for every pin."""

import re
from collections.abc import Mapping
from pathlib import Path

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
LOCK = (ROOT / "conf/lock.txt").read_text(encoding="utf-8")
CONSTRAINTS = (ROOT / "conf/constraints.txt").read_text(encoding="utf-8")
# Of these systems the constraints do not speak.
ELSEWHERE = {"httpx2-jsfetch", "pyreadline3"}


def pins(text: str) -> list[Requirement]:
    """The requirements of a list, without comments and hashes."""
    lines = re.sub(r"\\\n", "", text).splitlines()
    return [Requirement(line.split("--hash")[0]) for line in lines if line and not line.startswith("#")]


def versions(text: str, python: str) -> Mapping[str, str]:
    """Package -> its version for a Python on Linux."""
    system = {
        **default_environment(), "python_version": python, "python_full_version": f"{python}.4",
        "sys_platform": "linux", "platform_system": "Linux",
    }  # fmt: skip
    fitting = [pin for pin in pins(text) if pin.marker is None or pin.marker.evaluate(system)]
    return {canonicalize_name(pin.name): str(pin.specifier) for pin in fitting}


def test_the_lock_has_the_versions_of_the_constraints() -> None:
    for python in ("3.10", "3.11", "3.13"):
        locked, constrained = versions(LOCK, python), versions(CONSTRAINTS, python)
        assert {name: constrained.get(name) for name in locked if name not in ELSEWHERE} == {
            name: version for name, version in locked.items() if name not in ELSEWHERE
        }


def test_everything_in_the_lock_has_a_hash_and_no_address() -> None:
    entries = [entry for entry in re.split(r"\n(?=[A-Za-z])", LOCK.partition("\nabsl")[2])]
    assert len(entries) > 100
    assert all(re.search(r"--hash=sha256:[0-9a-f]{64}", entry) for entry in entries)
    assert "://" not in LOCK


def test_what_the_project_requires_is_pinned_within_its_range() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    required = [Requirement(text) for text in re.findall(r'"([a-z][\w.-]*>=[^"]*)"', project)]
    assert {"torch", "librosa", "pdoc", "sounddevice"} <= {one.name for one in required}
    constrained = versions(CONSTRAINTS, "3.12")
    for one in required:
        assert one.specifier.contains(constrained[canonicalize_name(one.name)].removeprefix("==")), one
