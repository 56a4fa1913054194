"""Functions that numba compiles when an engine is first used, and keeps on disk.

Import this module only when an engine is about to be built, because numba takes about half a second to load.
"""

import hashlib
import inspect
import textwrap
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Generic, TypeVar

from wavegen.errors import ConfigError
from wavegen.source.compiled import is_on_disk

Functions = TypeVar("Functions")


class CompiledOnce(Generic[Functions]):
    """Compiled functions, or the reason why they could not be compiled; a process tries once.

    numba's cache distinguishes its version, the processor, the types of the arguments, and the source of the one
    function that it stores, but not the source of the functions that this one calls. It also distinguishes the values
    that a function encloses: ``define`` gets a number that stands for all other source, and its functions return it.

    If the cache cannot be used, because it cannot be written, is damaged, or refers to classes that no longer exist,
    the functions are compiled without it.

    Args:
        define: defines the functions, given the number and whether to use the cache. numba compiles them when they are
            first called.
        sources: the modules whose functions and constants are compiled into them.
    """

    def __init__(self, define: Callable[[int, bool], Functions], sources: Iterable[ModuleType]) -> None:
        self._define = define
        self._sources = tuple(sources)
        self._functions: Functions | None = None
        self._fault: str | None = None
        self._on_disk: bool | None = None

    def is_ready(self) -> bool:
        """Whether ``get`` need not compile. A process decides once, unless it compiles; the functions are a tuple."""
        if self._on_disk is None:
            self._on_disk = all(map(is_on_disk, self._define(fingerprint(self._sources), True)))  # type: ignore[call-overload]
        return self._functions is not None or self._on_disk

    def get(self, try_out: Callable[[Functions], None]) -> Functions:
        """The functions.

        Args:
            try_out: calls each function, which compiles it or loads it from the cache.

        Raises:
            ConfigError: they cannot be compiled.
        """
        if self._functions is None and self._fault is None:
            self._functions = self._first(try_out)
        if self._functions is None:
            raise ConfigError(
                f"the numba engine cannot be compiled ({self._fault})",
                where="engine",
                remedy="use the torch engine, or the version of numba that wavegen is tested with",
            )
        return self._functions

    def _first(self, try_out: Callable[[Functions], None]) -> Functions | None:
        try:
            functions = self._define(fingerprint(self._sources), True)
            try_out(functions)
        except Exception:  # raised by the cache or by the compiler, both before anything has run
            try:
                functions = self._define(0, False)
                try_out(functions)
            except Exception as error:
                self._fault = textwrap.shorten(f"{type(error).__name__}: {error}", 160, placeholder=" …")
                return None
        return functions


def fingerprint(sources: Iterable[ModuleType]) -> int:
    """A number that changes with the source of any of the modules."""
    source = "".join(inspect.getsource(module) for module in sources)
    return int.from_bytes(hashlib.sha256(source.encode()).digest()[:7], "big")
