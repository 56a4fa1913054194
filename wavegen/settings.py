"""All settings of a config, each with its meaning and its value, as YAML that can be used as a recipe."""

import inspect
import re
import textwrap
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from wavegen.config import Config, to_yaml

_WIDTH = 110
_ATTRIBUTE = re.compile(r"^ {4}([\w, ]+): (.*(?:\n(?: {8}.*)?)*)", re.MULTILINE)


def describe(config: Config) -> str:
    """Write a config as YAML with a comment above each setting; ``load_yaml`` and ``parse`` read it back."""
    return "\n".join(_lines(config, ""))


def documentation(config: type[BaseModel]) -> dict[str, str]:
    """Map each field of a config to its meaning, from the ``Attributes`` of the class and of its bases."""
    meanings: dict[str, str] = {}
    for owner in reversed(config.__mro__):
        text = inspect.cleandoc(vars(owner).get("__doc__") or "")
        _, _, attributes = text.partition("Attributes:\n")
        for match in _ATTRIBUTE.finditer(attributes):
            names, meaning = match.groups()
            meanings |= {name.strip(): " ".join(meaning.split()) for name in names.split(",")}
    return {name: meanings[name] for name in config.model_fields if name in meanings}


def _lines(config: Config, indent: str) -> Iterator[str]:
    meanings = documentation(type(config))
    for name in type(config).model_fields:
        value: Any = getattr(config, name)
        for line in textwrap.wrap(meanings.get(name, "").replace("``", ""), _WIDTH - len(indent)):
            yield f"{indent}# {line}"
        if isinstance(value, Config):
            yield f"{indent}{name}:"
            yield from _lines(value, f"{indent}  ")
        else:
            yield from textwrap.indent(to_yaml(config, only=name).rstrip("\n"), indent).splitlines()
        if not indent:
            yield ""
