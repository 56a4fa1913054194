"""Turn YAML and ``key=value`` overrides into frozen, strict models, with errors that a user can act on."""

import contextlib
import datetime
import difflib
import io
import json
import re
import types
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
    """Marks a field whose value may change when a run is resumed."""


@dataclass(frozen=True)
class KeepsWeights:
    """Marks a field of a vocoder's config that does not affect the names and shapes of its weights."""


class Config(BaseModel):
    """Base of every config: frozen and strict (``"3"`` is not a number); it refuses unknown keys."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)

    def differences(self, other: "Config", *, without: type | None = None) -> dict[str, tuple[Any, Any]]:
        """Compare two configs field by field.

        Args:
            other: the config to compare with; it may have another class.
            without: the class of a marker, such as ``MayChangeDuringRun``; fields that carry it are left out.

        Returns:
            the dotted path of each field that differs, with this config's value and the other's in their JSON form. The
            value of a field that a config does not have is None.
        """
        ours = _flat(self, without)
        theirs = _flat(other, without)
        paths = [*ours, *(path for path in theirs if path not in ours)]
        return {path: (ours.get(path), theirs.get(path)) for path in paths if ours.get(path) != theirs.get(path)}

    def without_paths(self) -> dict[str, Any]:
        """The config in its JSON form, with None for each path, which means nothing on another machine."""
        return {name: None if isinstance(value, Path) else _plain_form(self, name) for name, value in self}


def _plain_form(config: "Config", name: str) -> Any:
    """The JSON form of a field, without paths."""
    value = getattr(config, name)
    return value.without_paths() if isinstance(value, Config) else config.model_dump(mode="json", include={name})[name]


def _flat(config: BaseModel, without: type | None, prefix: str = "") -> dict[str, Any]:
    """Map the dotted path of each field to its value, without the fields that carry the marker."""
    values: dict[str, Any] = {}
    as_json = config.model_dump(mode="json")
    for name, field in type(config).model_fields.items():
        if without is not None and any(isinstance(marker, without) for marker in field.metadata):
            continue
        value = getattr(config, name)
        if isinstance(value, BaseModel):
            values |= _flat(value, without, f"{prefix}{name}.")
        else:
            values[prefix + name] = as_json[name]
    return values


T = TypeVar("T", bound=BaseModel)


def load_yaml(path: str | Path) -> dict[str, Any]:
    """Read a mapping from a YAML 1.2 file: ``1e-4`` is a number, ``no`` is a string, duplicate keys are refused.

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
        raise ConfigError(f"found {_show(data)}, expected a mapping of keys to values", where=path)
    return data


def merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Return ``base`` updated with ``over``: mappings merge key by key; other values, lists too, are replaced."""
    merged = {**base, **over}
    for key in base.keys() & over.keys():
        if isinstance(base[key], dict) and isinstance(over[key], dict):
            merged[key] = merge(base[key], over[key])
    return merged


def apply_overrides(
    data: dict[str, Any], overrides: Sequence[str], model: type[BaseModel] | None = None
) -> dict[str, Any]:
    """Return ``data`` with each override ``a.b.c=value`` applied in order; the value replaces the old one.

    Args:
        data: a mapping as ``load_yaml`` returns it.
        overrides: the overrides. A value is YAML, but the value of a field that holds text is taken as it is: ``*.wav``
            and ``#1`` mean something else in YAML.
        model: the model that ``data`` is for, which tells which fields hold text; None to take all values as YAML.

    Raises:
        ConfigError: an override is not of the form ``key=value``, or its value is not YAML.
    """
    data = dict(data)
    for override in overrides:
        path, equals, value = override.partition("=")
        keys = path.strip().split(".")
        if not equals or not all(keys):
            raise ConfigError("not of the form key=value", where=f"override {override!r}")
        place = f"override {override!r}, value"
        kinds = _kinds(model, keys) if model is not None else frozenset()
        data = _set(data, keys, _text(value, kinds) if kinds & {str, Path} else _parse_yaml(value, where=place))
    return data


def _text(value: str, kinds: frozenset[Any]) -> Any:
    """The value of a field that holds text, or one of the other ``kinds``.

    Quotes around the whole are taken off, as YAML and people write them. ``null`` and nothing are None, and a number is
    a number, if the field can be that.
    """
    shown = value.strip()
    is_quoted = len(shown) > 1 and shown[0] == shown[-1] and shown[0] in "\"'"
    with contextlib.suppress(ConfigError):
        parsed = _parse_yaml(value, where="value")
        if is_quoted and isinstance(parsed, str):
            return parsed
        if parsed is None and type(None) in kinds and shown in ("", "null"):
            return None
        if type(parsed) in (int, float) and kinds & {int, float}:
            return parsed
    return value


def _kinds(model: type[BaseModel], keys: Sequence[str]) -> frozenset[Any]:
    """The types that the field at a dotted path may have; empty if the field does not exist."""
    owners = [model]
    kinds: frozenset[Any] = frozenset()
    for key in keys:
        annotations = [owner.model_fields[key].annotation for owner in owners if key in owner.model_fields]
        kinds = frozenset(kind for annotation in annotations for kind in _members(annotation))
        owners = [inner for annotation in annotations for inner in _models(annotation)]
    return kinds


def _members(annotation: Any) -> Iterator[Any]:
    """The members of a union, without the markers of each; an annotation that is not a union is its only member."""
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        yield from _members(typing.get_args(annotation)[0])
    elif origin in (typing.Union, types.UnionType):
        for member in typing.get_args(annotation):
            yield from _members(member)
    else:
        yield annotation


def parse(model: type[T], data: dict[str, Any], *, where: object) -> T:
    """Build ``model`` from plain ``data``: lists become tuples, strings become paths, but ``"3"`` is not a number.

    Args:
        model: the pydantic model to build.
        data: a mapping as ``load_yaml``, ``merge`` and ``apply_overrides`` return it.
        where: the file or argument that ``data`` came from, named by the error.

    Raises:
        ConfigError: ``data`` does not fit the model; one line lists the faults, each with its path, the value found
            and the expected value.
    """
    try:
        text = json.dumps(data, default=_plain)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"cannot be used as a config: {error}", where=where) from error
    try:
        # Validate JSON, because strict validation of Python objects refuses a list for a tuple. YAML has only lists.
        return model.model_validate_json(text, strict=True)
    except ValidationError as error:
        faults = _faults(model, json.loads(text), error)
    hidden = len(faults) - _MAX_FAULTS_SHOWN
    shown = [*faults[:_MAX_FAULTS_SHOWN], *([f"and {hidden} more"] if hidden > 0 else [])]
    raise ConfigError(" | ".join(shown), where=where)


def to_yaml(model: BaseModel, *, only: str | None = None) -> str:
    """Write ``model``, or one of its fields, as YAML that ``load_yaml`` and ``parse`` turn back into equal values."""
    out = io.StringIO()
    yaml = YAML(typ="safe", pure=True)
    yaml.Representer = _Representer
    yaml.default_flow_style = False
    # Keep the order of the fields: related fields stand together.
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.width = 10_000
    yaml.dump(model.model_dump(mode="json", include=None if only is None else {only}), out)
    return out.getvalue()


def nearest(name: str, candidates: Iterable[str]) -> list[str]:
    """Return up to three candidates that look like ``name``, the nearest first."""
    return difflib.get_close_matches(name, sorted(candidates))


def did_you_mean(name: str, candidates: Iterable[str]) -> str:
    """Return the remedy for an unknown name: the nearest candidate or, if none is near, all of them."""
    candidates = sorted(candidates)
    near = nearest(name, candidates)
    return f"did you mean {near[0]!r}?" if near else f"valid names: {', '.join(candidates)}"


def join_names(names: Sequence[str]) -> str:
    """Join names for a message; a long list is cut, with the number of names left out."""
    more = len(names) - _MAX_NAMES_SHOWN
    return ", ".join(names[:_MAX_NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")


class _Representer(SafeRepresenter):
    """Writes lists of plain values on one line, as in ``dilations: [1, 2, 4]``, and everything else in block style."""

    def represent_list(self, data: list[Any]) -> SequenceNode:
        nested = any(isinstance(item, (dict, list)) for item in data)
        return self.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=not nested)


_Representer.add_representer(list, _Representer.represent_list)


def _parse_yaml(text: str, *, where: object) -> Any:
    """Parse a YAML document; an error names the line and column if ruamel knows them."""
    try:
        return YAML(typ="safe", pure=True).load(text)
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        if mark is not None:
            where = f"{where}, line {mark.line + 1}, column {mark.column + 1}"
        raise ConfigError(getattr(error, "problem", None) or str(error), where=where) from error
    except (ValueError, TypeError, LookupError) as error:  # ruamel raises these for "!!int x" and the like
        raise ConfigError(f"not YAML: {error}", where=where) from error


def _set(data: dict[str, Any], keys: Sequence[str], value: Any) -> dict[str, Any]:
    """Return ``data`` with the value at the path ``keys`` replaced; missing sections are created."""
    key, *rest = keys
    if rest:
        section = data.get(key)
        value = _set(section if isinstance(section, dict) else {}, rest, value)
    return {**data, key: value}


def _plain(value: object) -> str:
    """Convert values that YAML or a caller may use, but JSON cannot hold, to text."""
    if isinstance(value, (PurePath, datetime.date)):
        return str(value)
    raise TypeError(f"{value!r} is not text, a number, a list or a mapping")


# Expected values in the words of YAML; pydantic's own messages use the words of JSON.
_EXPECTED = {
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
    """Describe each fault in one clause; faults of the members of a union at one place share a clause.

    A clause reads ``path: what was found, expected what or what``.
    """
    clauses: dict[str, list[str]] = {}  # "path: what was found" -> what each member of the union there expects
    for fault in error.errors(include_url=False):
        kind = fault["type"]
        value = fault["input"]
        context = fault.get("ctx", {})
        path, owners = _locate(model, data, fault["loc"])
        found = f"found {_show(value)}"
        expected = ""

        # Faults of keys.
        if kind == "missing":
            path = [*path, fault["loc"][-1]]
            found = "missing, but required"
        elif kind == "extra_forbidden":
            names = {name for owner in owners for name in owner.model_fields}
            found = f"unknown key, {did_you_mean(str(path[-1]), names)}"

        # Faults of the field that selects the member of a union, such as ``vocoder.name``.
        elif kind == "union_tag_not_found":
            path = [*path, context["discriminator"].strip("'")]
            found = "missing"
            tags = [tag for owner in owners for tag in _choices(owner, str(path[-1]))]
            expected = "one of " + ", ".join(map(repr, tags))
        elif kind == "union_tag_invalid":
            path = [*path, context["discriminator"].strip("'")]
            found = f"found {_show(value[path[-1]])}"
            expected = "one of " + _with_nearest(context["tag"], context["expected_tags"])

        # Faults of values.
        elif kind == "literal_error":
            expected = _with_nearest(value, context["expected"])
        elif "error" in context:  # a validator of a config raised it, and its message is complete
            found = str(context["error"])
        elif kind in _EXPECTED or fault["msg"].startswith("Input should be "):
            expected = _EXPECTED.get(kind) or fault["msg"].removeprefix("Input should be ")
        else:
            found = f"{found}: {fault['msg']}"

        place = ".".join(map(str, path))
        alternatives = clauses.setdefault(f"{place}: {found}" if place else found, [])
        if expected and expected not in alternatives:
            alternatives.append(expected)
    return [
        f"{found}, expected {' or '.join(alternatives)}" if alternatives else found
        for found, alternatives in clauses.items()
    ]


def _locate(
    model: type[BaseModel], data: Any, loc: Sequence[str | int]
) -> tuple[list[str | int], list[type[BaseModel]]]:
    """Follow pydantic's location of a fault; return its path in the data and the models that may own it there."""
    path: list[str | int] = []
    models = [model]
    for key in loc:
        keys = data if isinstance(data, dict) else range(len(data)) if isinstance(data, list) else ()
        if key in keys:
            path.append(key)
            data = data[key]
            fields = [owner.model_fields[key] for owner in models if key in owner.model_fields]
            models = [inner for field in fields for inner in _models(field.annotation)] if fields else models
        else:  # not in the data, so this is the tag or class by which pydantic names a member of a union
            models = [owner for owner in models if key == owner.__name__ or key in _choices(owner)] or models
    return path, models


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield all models in an annotation, also those inside unions and containers."""
    arguments = typing.get_args(annotation)
    if not arguments and isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in arguments:
        yield from _models(argument)


def _choices(model: type[BaseModel], name: str | None = None) -> list[Any]:
    """Return the allowed values of the Literal field ``name``, or of all Literal fields."""
    fields = [field.annotation for key, field in model.model_fields.items() if name in (None, key)]
    literals = [field for field in fields if typing.get_origin(field) is Literal]
    return [value for literal in literals for value in typing.get_args(literal)]


def _with_nearest(value: object, expected: str) -> str:
    """Add the name in ``expected`` that is nearest to ``value``."""
    near = nearest(str(value), re.findall(r"'([^']*)'", expected))
    return f"{expected} (did you mean {near[0]!r}?)" if near else expected


def _show(value: object) -> str:
    """Show a value on one line, shortened if it is long."""
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= _MAX_VALUE_CHARS else f"{text[: _MAX_VALUE_CHARS - 1]}…"
