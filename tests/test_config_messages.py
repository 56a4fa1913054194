"""YAML, overrides and strict models: the messages that refuse a mistake, with its place."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from support.configs import Recipe, Training, write
from support.messages import Messages

from wavegen.config import apply_overrides, did_you_mean, join_names, load_yaml, nearest, parse
from wavegen.errors import ConfigError


def refusal(data: dict[str, Any], model: type[BaseModel] = Recipe) -> str:
    """The message with which ``parse`` refuses the data, without the file's name."""
    with pytest.raises(ConfigError) as caught:
        parse(model, data, where="r.yaml")
    message = str(caught.value)
    assert message.startswith("r.yaml: ")
    return message.removeprefix("r.yaml: ")


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("a: 1\nb: 2\na: 3\n", "line 3, column 1"),
        ("a:\n  b: [1,\nc: 2", "line 3, column 5"),
        ("a: 1\n\tb: 2\n", "line 2, column 1"),
        ("a: *b\n", "line 1, column 4"),
        ("a: !!python/name:os.system x\n", "line 1, column 4"),
        ("a: !!int x\n", ""),
        ("", ""),
        ("- 1\n- 2\n", ""),
    ],
)
def test_a_file_that_is_not_a_yaml_mapping_is_refused_with_the_place_of_the_fault(
    tmp_path: Path, messages: Messages, text: str, place: str
) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load_yaml(path)
    messages.check(caught.value)
    assert str(caught.value).startswith(f"{path}, {place}: " if place else f"{path}: ")


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, messages: Messages) -> None:
    with messages.refused(ConfigError):
        load_yaml(tmp_path / "none.yaml")
    latin = tmp_path / "latin.yaml"
    latin.write_bytes("name: Zoë".encode("latin-1"))
    with messages.refused(ConfigError):
        load_yaml(latin)


@pytest.mark.parametrize("override", ["training.lr", "=3", "a..b=3", "a=[1"])
def test_a_malformed_override_is_named(override: str, messages: Messages) -> None:
    with pytest.raises(ConfigError) as caught:
        apply_overrides({}, [override])
    messages.check(caught.value)
    assert repr(override) in str(caught.value)


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"training": {"lr": "3"}}, "training.lr"),
        ({"training": {"lr": True}}, "training.lr"),
        ({"training": {"lr": float("nan")}}, "training.lr"),
        ({"training": {"steps": 1.0}}, "training.steps"),
        ({"training": {"amp": 1}}, "training.amp"),
        ({"training": {"amp": "yes"}}, "training.amp"),
        ({"training": []}, "training"),
        ({"training": {"warmup": "atuo"}}, "training.warmup"),
        ({"training": {"warmup": 11}}, "training"),
        ({"vocoder": {"name": "spectral", "kernel_size": 4}}, "vocoder.kernel_size"),
        ({"vocoder": {"name": "wavenet", "channels": 0}}, "vocoder.channels"),
        ({"vocoder": {"name": "wavenet", "dilations": 3}}, "vocoder.dilations"),
        ({"vocoder": "wavenet"}, "vocoder"),
        ({"vocoder": {}}, "vocoder.name"),
        ({"vocoder": {"name": "wavent"}}, "vocoder.name"),
        ({"vocoder": {"name": 7}}, "vocoder.name"),
        ({"ensemble": [{"name": "spectral"}, {"name": "wavenet", "dilations": [1, "x"]}]}, "ensemble.1.dilations.1"),
        ({"padding": "cuasal"}, "padding"),
        ({"rates_hz": {"a": "x"}}, "rates_hz.a"),
        ({"crop": [1]}, "crop.1"),
        ({"crop": [1, 2, 3]}, "crop"),
        ({"corpus": 3}, "corpus"),
        ({"corpus": list(range(10, 99))}, "corpus"),
    ],
)
def test_a_wrong_value_is_refused_with_its_path_and_the_expected_value(
    change: dict[str, Any], path: str, messages: Messages
) -> None:
    message = refusal({"corpus": "x", **change})
    assert message.startswith(f"{path}: ")
    messages.check(message)


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"vocodr": {}}, "vocodr"),
        ({"training": {"stesp": 3}}, "training.stesp"),
        ({"training": {"zzz": 3}}, "training.zzz"),
        ({"vocoder": {"name": "wavenet", "chanels": 3}}, "vocoder.chanels"),
        # The other member's key is not offered: it would be wrong here.
        ({"vocoder": {"name": "wavenet", "kernel_size": 3}}, "vocoder.kernel_size"),
        ({"ensemble": [{"name": "wavenet"}, {"name": "spectral", "kernel": 3}]}, "ensemble.1.kernel"),
        ({3: 4}, "3"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_valid_name(
    change: dict[Any, Any], path: str, messages: Messages
) -> None:
    message = refusal({"corpus": "x", **change})
    assert message.startswith(f"{path}: unknown key, ")
    messages.check(message)


def test_five_faults_share_a_line_and_the_others_are_counted(messages: Messages) -> None:
    training = {"lr": "a", "steps": "b", "amp": "c"}
    messages.check(refusal({"training": training}))
    messages.check(refusal({"training": training, "note": 1}))
    assert refusal({"training": training, "note": 1, "a1": 1, "a2": 2}).endswith(" | and 2 more")


def test_values_that_json_cannot_hold_are_refused(messages: Messages) -> None:
    messages.check(refusal({"corpus": {1, 2}}))
    loop: dict[str, Any] = {}
    loop["corpus"] = loop
    messages.check(refusal(loop))


def test_a_fault_at_the_top_level_has_no_path() -> None:
    assert refusal({"warmup": 11}, Training) == "warmup is longer than the training"


def test_the_nearest_names_are_offered() -> None:
    assert nearest("chanels", ["kernel", "channels", "channel"]) == ["channels", "channel"]
    assert nearest("zzz", ["channels"]) == []
    assert did_you_mean("chanels", ["kernel", "channels"]) == "did you mean 'channels'?"
    assert did_you_mean("zzz", ["b", "a"]) == "valid names: a, b"


def test_a_long_list_of_names_is_cut() -> None:
    names = [f"clip{number}" for number in range(22)]
    assert join_names(names[:2]) == "clip0, clip1"
    assert join_names(names).endswith(", clip19 and 2 more")
