"""YAML, overrides and strict models: the values that are read, and the messages that refuse a mistake."""

from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field, field_validator, model_validator
from support.messages import Messages

from wavegen.config import (
    Config,
    MayChangeDuringRun,
    apply_overrides,
    did_you_mean,
    join_names,
    load_yaml,
    merge,
    nearest,
    parse,
    to_yaml,
)
from wavegen.errors import ConfigError


class Wavenet(Config):
    name: Literal["wavenet"] = "wavenet"
    channels: int = Field(default=64, gt=0)
    dilations: tuple[int, ...] = (1, 2, 4)


class Spectral(Config):
    name: Literal["spectral"] = "spectral"
    kernel_size: int = 7

    @field_validator("kernel_size")
    @classmethod
    def _odd(cls, value: int) -> int:
        if value % 2 == 0:
            raise ValueError(f"{value} is even; a same-padded kernel is odd")
        return value


class Training(Config):
    lr: float = 1e-4
    steps: int = 10
    warmup: int | Literal["auto"] = "auto"
    amp: bool = False

    @model_validator(mode="after")
    def _warmup_fits(self) -> "Training":
        if isinstance(self.warmup, int) and self.warmup > self.steps:
            raise ValueError("warmup is longer than the training")
        return self


AnyVocoder = Annotated[Wavenet | Spectral, Field(discriminator="name")]


class Recipe(Config):
    corpus: Path
    vocoder: AnyVocoder = Wavenet()
    ensemble: tuple[AnyVocoder, ...] = ()
    training: Training | None = None
    padding: Literal["causal", "same"] = "same"
    rates_hz: dict[str, int] = Field(default_factory=dict)
    crop: tuple[int, float] = (1, 0.5)
    note: str = ""


def write(folder: Path, text: str) -> Path:
    path = folder / "r.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def refusal(data: dict[str, Any], model: type[BaseModel] = Recipe) -> str:
    """The message with which ``parse`` refuses the data, without the file's name."""
    with pytest.raises(ConfigError) as caught:
        parse(model, data, where="r.yaml")
    message = str(caught.value)
    assert message.startswith("r.yaml: ")
    return message.removeprefix("r.yaml: ")


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


@pytest.mark.parametrize("override", ["training.lr", "=3", "a..b=3", "a=[1"])
def test_a_malformed_override_is_named(override: str, messages: Messages) -> None:
    with pytest.raises(ConfigError) as caught:
        apply_overrides({}, [override])
    messages.check(caught.value)
    assert repr(override) in str(caught.value)


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


def test_the_nearest_names_are_offered() -> None:
    assert nearest("chanels", ["kernel", "channels", "channel"]) == ["channels", "channel"]
    assert nearest("zzz", ["channels"]) == []
    assert did_you_mean("chanels", ["kernel", "channels"]) == "did you mean 'channels'?"
    assert did_you_mean("zzz", ["b", "a"]) == "valid names: a, b"


def test_a_long_list_of_names_is_cut() -> None:
    names = [f"clip{number}" for number in range(22)]
    assert join_names(names[:2]) == "clip0, clip1"
    assert join_names(names).endswith(", clip19 and 2 more")
