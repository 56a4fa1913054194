"""YAML, overrides and strict models: the values that are read, compared and written."""

from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import Field
from support.configs import Recipe, Spectral, Training, Wavenet, write

from wavegen.config import Config, MayChangeDuringRun, apply_overrides, load_yaml, merge, parse, to_yaml
from wavegen.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("-2E+3", -2e3),
        ("1.5", 1.5),
        ("12", 12),
        ("no", "no"),
        ("yes", "yes"),
        ("off", "off"),
        ("true", True),
        ("~", None),
        ("12:30:45", "12:30:45"),
        ("[1, two]", [1, "two"]),
    ],
)
def test_a_scalar_is_read_as_yaml_1_2(tmp_path: Path, text: str, value: object) -> None:
    read = load_yaml(write(tmp_path, f"key: {text}\n"))["key"]
    assert read == value
    assert type(read) is type(value)


def test_merge_goes_deep_replaces_lists_and_changes_neither() -> None:
    base = {"a": {"b": 1, "c": [1, 2]}, "d": 3, "e": {"f": 1}}
    over = {"a": {"c": [9], "x": None}, "d": {"y": 1}, "e": None}
    assert merge(base, over) == {"a": {"b": 1, "c": [9], "x": None}, "d": {"y": 1}, "e": None}
    assert base == {"a": {"b": 1, "c": [1, 2]}, "d": 3, "e": {"f": 1}}
    assert over == {"a": {"c": [9], "x": None}, "d": {"y": 1}, "e": None}


def test_overrides_set_yaml_values_in_order_on_a_copy() -> None:
    data = {"training": {"lr": 1.0, "amp": False}, "vocoder": {"name": "wavenet", "channels": 3}}
    overrides = [
        "training.lr=1e-4",
        "training.amp=true",
        "vocoder={name: spectral}",
        "new.deep.key=[1, a]",
        "note=a=b",
        "none=",
        "training.lr=2e-4",
    ]
    assert apply_overrides(data, overrides) == {
        "training": {"lr": 2e-4, "amp": True},
        "vocoder": {"name": "spectral"},
        "new": {"deep": {"key": [1, "a"]}},
        "note": "a=b",
        "none": None,
    }
    assert data == {"training": {"lr": 1.0, "amp": False}, "vocoder": {"name": "wavenet", "channels": 3}}
    assert apply_overrides(data, []) is not data


class Inner(Config):
    text: str = ""
    place: Path | None = None
    share: Annotated[float, Field(gt=0)] | str = 0.5
    count: int = 0
    kind: Literal["a", "b"] = "a"
    names: tuple[str, ...] = ()


class Other(Config):
    text: str = ""


class Outer(Config):
    inner: Inner | Other = Inner()


TEXTS = [
    "**/*.wav", "*.wav", "1234", "1e5", "true", "@x", "#x", "a #b", "[old] voice", "{x}", "a: b", "no", "!x", "%x",
    "`x`", "- x", "? x", "| x", "> x", "&a", "x, y", "'", '"', "it's", "2020-01-01", "日本", "a=b", "C:\\x", "~x",
    "null and void",
]  # fmt: skip


@pytest.mark.parametrize("text", TEXTS)
def test_the_value_of_a_field_that_holds_text_is_taken_as_it_is(text: str) -> None:
    for field in ("text", "place"):
        assert apply_overrides({}, [f"inner.{field}={text}"], Outer) == {"inner": {field: text}}


def test_quotes_around_a_text_and_the_absence_of_a_path_are_understood() -> None:
    def value(field: str, text: str) -> object:
        return apply_overrides({}, [f"inner.{field}={text}"], Outer)["inner"][field]

    assert value("text", "'*.wav'") == value("text", '"*.wav"') == "*.wav"
    assert value("place", "null") is value("place", "") is None
    assert (value("text", "null"), value("text", "")) == ("null", "")
    assert (value("share", "0.25"), value("share", "1"), value("share", "1e-3")) == (0.25, 1, 0.001)
    assert [value("share", text) for text in ("b/*", "*", "'7'", "true", "b #1")] == ["b/*", "*", "7", "true", "b #1"]
    # Other fields are YAML.
    assert (value("count", "3"), value("kind", "b"), value("names", "[a, '*']")) == (3, "b", ["a", "*"])
    assert apply_overrides({}, ["inner={text: 'a'}"], Outer) == {"inner": {"text": "a"}}
    with pytest.raises(ConfigError):
        apply_overrides({}, ["inner.names=*a"], Outer)


def test_parse_takes_lists_for_tuples_text_for_paths_and_integers_for_floats() -> None:
    recipe = parse(
        Recipe,
        {
            "corpus": "data/lj",
            "vocoder": {"name": "wavenet", "dilations": [1, 2]},
            "training": {"lr": 1},
            "crop": [2, 1],
        },
        where="r.yaml",
    )
    assert recipe == Recipe(
        corpus=Path("data/lj"),
        vocoder=Wavenet(dilations=(1, 2)),
        training=Training(lr=1.0),
        crop=(2, 1.0),
    )
    assert type(recipe.crop[1]) is float


class Marked(Config):
    name: str = "a"
    watched: Annotated[int, MayChangeDuringRun()] = 1
    inner: Training = Training()
    optional: Training | None = None


def test_differences_are_found_field_by_field() -> None:
    ours = Marked(inner=Training(lr=1.0))
    theirs = Marked(name="b", watched=2, inner=Training(lr=2.0))
    assert ours.differences(ours) == {}
    assert ours.differences(theirs) == {"name": ("a", "b"), "watched": (1, 2), "inner.lr": (1.0, 2.0)}
    assert ours.differences(theirs, without=MayChangeDuringRun) == {"name": ("a", "b"), "inner.lr": (1.0, 2.0)}


def test_a_field_that_one_config_lacks_is_a_difference() -> None:
    assert Wavenet().differences(Spectral()) == {
        "name": ("wavenet", "spectral"),
        "channels": (64, None),
        "dilations": ([1, 2, 4], None),
        "kernel_size": (None, 7),
    }
    assert Marked().differences(Marked(optional=Training()))["optional.steps"] == (None, 10)


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(corpus=Path("a/b")),
        Recipe(
            corpus=Path("no"),
            vocoder=Spectral(kernel_size=9),
            ensemble=(Wavenet(dilations=()), Spectral()),
            training=Training(lr=1e-05, warmup=3),
            rates_hz={"no": 1, "1e3": 2, "null": 3},
            crop=(3, 1 / 3),
            note="1e-4",
        ),
        *(Recipe(corpus=Path("x"), crop=(0, value)) for value in (0.0, 1e16, 5e-324, -2.5e300)),
        *(
            Recipe(corpus=Path("x"), note=note)
            for note in (
                "",
                "null",
                "true",
                "~",
                "08",
                "2020-01-01",
                "a: b # c",
                " x ",
                "tab\tline\n",
                "漢",
                "w " * 200,
            )
        ),
    ],
)
def test_written_yaml_is_read_back_equal(tmp_path: Path, recipe: Recipe) -> None:
    assert parse(Recipe, load_yaml(write(tmp_path, to_yaml(recipe))), where="r.yaml") == recipe


def test_written_yaml_reads_well() -> None:
    recipe = Recipe(corpus=Path("a/b"), ensemble=(Wavenet(),), training=Training())
    assert to_yaml(recipe) == (
        "corpus: a/b\n"
        "vocoder:\n"
        "  name: wavenet\n"
        "  channels: 64\n"
        "  dilations: [1, 2, 4]\n"
        "ensemble:\n"
        "- name: wavenet\n"
        "  channels: 64\n"
        "  dilations: [1, 2, 4]\n"
        "training:\n"
        "  lr: 0.0001\n"
        "  steps: 10\n"
        "  warmup: auto\n"
        "  amp: false\n"
        "padding: same\n"
        "rates_hz: {}\n"
        "crop: [1, 0.5]\n"
        "note: ''\n"
    )
