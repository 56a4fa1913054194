"""Python processes in which packages of other projects cannot be imported, as if they were not installed."""

import json
import subprocess
import sys
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, packages_distributions, requires

from packaging.requirements import Requirement

# Before all else, so that nothing is imported yet. What a finder of this kind refuses is not looked for elsewhere.
_BLOCK = """
import json, sys
absent = frozenset(json.loads(sys.argv.pop(1)))

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in absent:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocker())
"""


def with_dependencies(names: Iterable[str]) -> set[str]:
    """Normalised names of distributions, and of all that they require here."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = _normalised(waiting.pop())
        if name in found:
            continue
        found.add(name)
        try:
            lines = requires(name) or []
        except PackageNotFoundError:  # a package of another build of torch, for example
            continue
        needed = map(Requirement, lines)
        waiting += [one.name for one in needed if one.marker is None or one.marker.evaluate({"extra": ""})]
    return found


def run_with_packages(distributions: Iterable[str], code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run ``code`` in a fresh interpreter in which only these distributions and wavegen can be imported.

    Args:
        distributions: names as in a list of requirements; what they require can be imported too.
        code: the program; its ``sys.argv[1:]`` are the arguments.
        arguments: strings, or values that become strings.
    """
    present = with_dependencies(distributions) | {"wavegen"}
    absent = [
        module
        for module, origins in packages_distributions().items()
        if not present & {_normalised(origin) for origin in origins}
    ]
    command = [sys.executable, "-W", "error", "-c", _BLOCK + code, json.dumps(absent)]
    return subprocess.run([*command, *map(str, arguments)], capture_output=True, text=True, timeout=300)


def _normalised(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")
