"""YAML and ``key=value`` overrides to frozen, strict models, with errors that a user can act on."""

import datetime
import difflib
import io
import json
import re
import typing
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import SequenceNode
from ruamel.yaml.representer import SafeRepresenter

from wavegen.errors import ConfigError

_MAX_FAULTS_SHOWN = 5
_MAX_VALUE_CHARS = 60
_MAX_NAMES_SHOWN = 20


@dataclass(frozen=True)
class MayChangeDuringRun:
    """Marks a field that a resumed run may have with another value than the run began with."""


@dataclass(frozen=True)
class KeepsWeights:
    """Marks a field of a vocoder that leaves the names and shapes of its weights as they are."""


class Config(BaseModel):
    """Base of every config object: frozen, strict (``"3"`` is not a number), unknown keys refused."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)

    def differences(self, other: "Config", *, without: type | None = None) -> dict[str, tuple[Any, Any]]:
        """Compare two configs field by field.

        Args:
            other: the config to compare with, of any class.
            without: a marker, such as ``MayChangeDuringRun``; the fields that carry it are left out.

        Returns:
            for each field that differs, by its dotted path, this config's value and the other's, as JSON has them; None
            for a field that one of them does not have.
        """
        ours = _flat(self, without)
        theirs = _flat(other, without)
        paths = [*ours, *(path for path in theirs if path not in ours)]
        return {path: (ours.get(path), theirs.get(path)) for path in paths if ours.get(path) != theirs.get(path)}


def _flat(config: BaseModel, without: type | None, prefix: str = "") -> dict[str, Any]:
    """The values of a config by dotted path, without the fields that carry a marker."""
    values: dict[str, Any] = {}
    plain = config.model_dump(mode="json")
    for name, field in type(config).model_fields.items():
        value = getattr(config, name)
        if without is not None and any(isinstance(marker, without) for marker in field.metadata):
            continue
        if isinstance(value, BaseModel):
            values |= _flat(value, without, f"{prefix}{name}.")
        else:
            values[prefix + name] = plain[name]
    return values


T = TypeVar("T", bound=BaseModel)


def load_yaml(path: str | Path) -> dict[str, Any]:
    """Read one mapping from a YAML 1.2 file: ``1e-4`` is a number, ``no`` is a string, a key occurs once.

    Raises:
        ConfigError: the file cannot be read, is not YAML (with line and column), or is not a mapping.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigError(f"cannot read: {error.strerror or error}", where=path) from error
    except UnicodeDecodeError as error:
        raise ConfigError("not UTF-8 text", where=path, remedy="save it as UTF-8") from error
    data = _parse_yaml(text, where=path)
    if not isinstance(data, dict):
        raise ConfigError(f"found {_show(data)}, want a mapping of keys to values", where=path)
    return data


def merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Return ``base`` with ``over`` on top: mappings merge by key, the rest (lists too) is replaced."""
    merged = {**base, **over}
    for key in base.keys() & over.keys():
        if isinstance(base[key], dict) and isinstance(over[key], dict):
            merged[key] = merge(base[key], over[key])
    return merged


def apply_overrides(data: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Return ``data`` with every ``a.b.c=value`` set, in order; the value is YAML and replaces the old one.

    Raises:
        ConfigError: an override that is not ``key=value``, or whose value is not YAML.
    """
    data = dict(data)
    for override in overrides:
        path, equals, value = override.partition("=")
        keys = path.strip().split(".")
        if not equals or not all(keys):
            raise ConfigError("not of the form key=value", where=f"override {override!r}")
        data = _set(data, keys, _parse_yaml(value, where=f"override {override!r}, value"))
    return data


def parse(model: type[T], data: dict[str, Any], *, where: object) -> T:
    """Build ``model`` from plain ``data``: lists become tuples and strings paths, but ``"3"`` is no number.

    Args:
        model: the pydantic model to build.
        data: what `load_yaml`, `merge` and `apply_overrides` return.
        where: the file or argument that ``data`` came from, for the error.

    Raises:
        ConfigError: every fault in one line, each with its path, the value found and what is wanted there.
    """
    try:
        text = json.dumps(data, default=_plain)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"cannot be used as a config: {error}", where=where) from error
    try:
        # Strict Python input refuses a list for a tuple; strict JSON takes it, as YAML means it.
        return model.model_validate_json(text, strict=True)
    except ValidationError as error:
        faults = _faults(model, json.loads(text), error)
    hidden = len(faults) - _MAX_FAULTS_SHOWN
    shown = [*faults[:_MAX_FAULTS_SHOWN], *([f"and {hidden} more"] if hidden > 0 else [])]
    raise ConfigError(" | ".join(shown), where=where)


def to_yaml(model: BaseModel) -> str:
    """Write ``model`` as YAML that `load_yaml` and `parse` turn back into an equal object."""
    out = io.StringIO()
    yaml = YAML(typ="safe", pure=True)
    yaml.Representer = _Representer
    yaml.default_flow_style = False
    # The order of the fields says more than the alphabet does.
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.width = 10_000
    yaml.dump(model.model_dump(mode="json"), out)
    return out.getvalue()


def nearest(name: str, candidates: Iterable[str]) -> list[str]:
    """Return up to three of ``candidates`` that look like ``name``, the nearest first."""
    return difflib.get_close_matches(name, sorted(candidates))


def did_you_mean(name: str, candidates: Iterable[str]) -> str:
    """Return a remedy for an unknown ``name``: the nearest candidate or, if none is near, all of them."""
    candidates = sorted(candidates)
    near = nearest(name, candidates)
    return f"did you mean {near[0]!r}?" if near else f"valid names: {', '.join(candidates)}"


def join_names(names: Sequence[str]) -> str:
    """Join names for a message; of a long list only the first ones, with the number of the others."""
    more = len(names) - _MAX_NAMES_SHOWN
    return ", ".join(names[:_MAX_NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")


class _Representer(SafeRepresenter):
    """Block style, except lists of plain values, which read better on one line: ``dilations: [1, 2, 4]``."""

    def represent_list(self, data: list[Any]) -> SequenceNode:
        nested = any(isinstance(item, (dict, list)) for item in data)
        return self.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=not nested)


_Representer.add_representer(list, _Representer.represent_list)


def _parse_yaml(text: str, *, where: object) -> Any:
    try:
        return YAML(typ="safe", pure=True).load(text)
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        if mark is not None:
            where = f"{where}, line {mark.line + 1}, column {mark.column + 1}"
        raise ConfigError(getattr(error, "problem", None) or str(error), where=where) from error
    except (ValueError, TypeError, LookupError) as error:  # what ruamel lets out for "!!int x" and the like
        raise ConfigError(f"not YAML: {error}", where=where) from error


def _set(data: dict[str, Any], keys: Sequence[str], value: Any) -> dict[str, Any]:
    key, *rest = keys
    if rest:
        section = data.get(key)
        value = _set(section if isinstance(section, dict) else {}, rest, value)
    return {**data, key: value}


def _plain(value: object) -> str:
    """Turn what YAML or a caller may hold but JSON cannot into text."""
    if isinstance(value, (PurePath, datetime.date)):
        return str(value)
    raise TypeError(f"{value!r} is neither text, number, list nor mapping")


# pydantic speaks of JSON here, the user wrote YAML.
_WANTED = {
    "bool_type": "true or false",
    "dict_type": "a mapping",
    "float_type": "a number",
    "int_type": "an integer",
    "list_type": "a list",
    "model_type": "a mapping",
    "string_type": "a string",
    "tuple_type": "a list",
}


def _faults(model: type[BaseModel], data: Any, error: ValidationError) -> list[str]:
    """Say each fault in one clause; what the members of a union want instead shares one."""
    wanted: dict[str, list[str]] = {}  # "path: what was found" -> what each member of the union there wants
    for fault in error.errors(include_url=False):
        kind, value, context = fault["type"], fault["input"], fault.get("ctx", {})
        path, owners = _locate(model, data, fault["loc"])
        found, want = f"found {_show(value)}", ""
        if kind == "missing":
            path, found = [*path, fault["loc"][-1]], "missing, but required"
        elif kind == "extra_forbidden":
            names = {name for owner in owners for name in owner.model_fields}
            found = f"unknown key, {did_you_mean(str(path[-1]), names)}"
        elif kind == "union_tag_not_found":
            path, found = [*path, context["discriminator"].strip("'")], "missing"
            tags = [tag for owner in owners for tag in _choices(owner, str(path[-1]))]
            want = "one of " + ", ".join(map(repr, tags))
        elif kind == "union_tag_invalid":
            path = [*path, context["discriminator"].strip("'")]
            found = f"found {_show(value[path[-1]])}"
            want = "one of " + _hint(context["tag"], context["expected_tags"])
        elif kind == "literal_error":
            want = _hint(value, context["expected"])
        elif "error" in context:  # raised by a validator of ours, which has said all there is to say
            found = str(context["error"])
        elif kind in _WANTED or fault["msg"].startswith("Input should be "):
            want = _WANTED.get(kind) or fault["msg"].removeprefix("Input should be ")
        else:
            found = f"{found}: {fault['msg']}"
        wants = wanted.setdefault(": ".join(filter(None, [".".join(map(str, path)), found])), [])
        if want and want not in wants:
            wants.append(want)
    return [f"{found}, want {' or '.join(wants)}" if wants else found for found, wants in wanted.items()]


def _locate(
    model: type[BaseModel], data: Any, loc: Sequence[str | int]
) -> tuple[list[str | int], list[type[BaseModel]]]:
    """Follow ``loc`` to a fault: its path in the data (names of union members dropped), and its models."""
    path: list[str | int] = []
    models = [model]
    for key in loc:
        keys = data if isinstance(data, dict) else range(len(data)) if isinstance(data, list) else ()
        if key in keys:
            path.append(key)
            data = data[key]
            fields = [owner.model_fields[key] for owner in models if key in owner.model_fields]
            models = [inner for field in fields for inner in _models(field.annotation)] if fields else models
        else:  # not in the data, so it is the tag or class by which pydantic names the member of a union
            models = [m for m in models if key == m.__name__ or key in _choices(m)] or models
    return path, models


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield the models in an annotation, however deep in Optional, unions and containers."""
    arguments = typing.get_args(annotation)
    if not arguments and isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in arguments:
        yield from _models(argument)


def _choices(model: type[BaseModel], name: str | None = None) -> list[Any]:
    """Return the values of the Literal field ``name``, or of all Literal fields."""
    fields = [field.annotation for key, field in model.model_fields.items() if name in (None, key)]
    literals = [field for field in fields if typing.get_origin(field) is Literal]
    return [value for literal in literals for value in typing.get_args(literal)]


def _hint(value: object, expected: str) -> str:
    near = nearest(str(value), re.findall(r"'([^']*)'", expected))
    return f"{expected} (did you mean {near[0]!r}?)" if near else expected


def _show(value: object) -> str:
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= _MAX_VALUE_CHARS else f"{text[: _MAX_VALUE_CHARS - 1]}…"
