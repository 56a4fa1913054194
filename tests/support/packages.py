"""Python processes in which packages of other projects cannot be imported, as if they were not installed."""

import json
import subprocess
import sys
from collections.abc import Iterable
from importlib.metadata import Distribution, PackageNotFoundError, distributions, requires

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


def run_with_packages(packages: Iterable[str], code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run ``code`` in a fresh interpreter in which only these distributions and wavegen can be imported.

    Args:
        packages: names of distributions, as in a list of requirements; what they require can be imported too.
        code: the program; its ``sys.argv[1:]`` are the arguments.
        arguments: strings, or values that become strings.
    """
    present = with_dependencies(packages) | {"wavegen"}
    origins: dict[str, set[str]] = {}
    for installed in distributions():
        for module in _modules(installed):
            origins.setdefault(module, set()).add(_normalised(installed.metadata["Name"]))
    absent = [module for module, names in origins.items() if not present & names]
    command = [sys.executable, "-W", "error", "-c", _BLOCK + code, json.dumps(absent)]
    return subprocess.run([*command, *map(str, arguments)], capture_output=True, text=True, timeout=300)


def _normalised(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")


def _modules(installed: Distribution) -> set[str]:
    """What a distribution lets a program import; ``packages_distributions`` of Python 3.10 does not know all."""
    code = [file for file in installed.files or () if file.suffix in (".py", ".so", ".pyd")]
    return {file.parts[0] if len(file.parts) > 1 else file.name.partition(".")[0] for file in code}
