"""YAML, overrides and strict models: what is read, and the exact words in which a mistake is refused."""

from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field, field_validator, model_validator

from wavegen.config import Config, apply_overrides, did_you_mean, load_yaml, merge, nearest, parse, to_yaml
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
    ("text", "message"),
    [
        (
            "a: 1\nb: 2\na: 3\n",
            ', line 3, column 1: found duplicate key "a" with value "3" (original value: "1")',
        ),
        ("a:\n  b: [1,\nc: 2", ", line 3, column 5: expected ',' or ']', but got '<stream end>'"),
        ("a: 1\n\tb: 2\n", ", line 2, column 1: found character '\\t' that cannot start any token"),
        ("a: *b\n", ", line 1, column 4: found undefined alias 'b'"),
        (
            "a: !!python/name:os.system x\n",
            ", line 1, column 4: could not determine a constructor for the tag"
            " 'tag:yaml.org,2002:python/name:os.system'",
        ),
        ("a: !!int x\n", ": not YAML: invalid literal for int() with base 10: 'x'"),
        ("", ": found null, want a mapping of keys to values"),
        ("- 1\n- 2\n", ": found [1, 2], want a mapping of keys to values"),
    ],
)
def test_a_bad_file_is_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load_yaml(path)
    assert str(caught.value) == f"{path}{message}"


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot read: No such file or directory$"):
        load_yaml(tmp_path / "none.yaml")
    latin = tmp_path / "latin.yaml"
    latin.write_bytes("name: Zoë".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"latin\.yaml: not UTF-8 text; save it as UTF-8$"):
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


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.lr", "override 'training.lr': not of the form key=value"),
        ("=3", "override '=3': not of the form key=value"),
        ("a..b=3", "override 'a..b=3': not of the form key=value"),
        (
            "a=[1",
            "override 'a=[1', value, line 1, column 3: expected ',' or ']', but got '<stream end>'",
        ),
    ],
)
def test_a_malformed_override_is_named(override: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        apply_overrides({}, [override])
    assert str(caught.value) == message


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
    ("change", "message"),
    [
        ({"training": {"lr": "3"}}, 'training.lr: found "3", want a number'),
        ({"training": {"lr": True}}, "training.lr: found true, want a number"),
        ({"training": {"lr": float("nan")}}, "training.lr: found NaN, want a finite number"),
        ({"training": {"steps": 1.0}}, "training.steps: found 1.0, want an integer"),
        ({"training": {"amp": 1}}, "training.amp: found 1, want true or false"),
        ({"training": {"amp": "yes"}}, 'training.amp: found "yes", want true or false'),
        ({"training": []}, "training: found [], want a mapping"),
        (
            {"training": {"warmup": "atuo"}},
            "training.warmup: found \"atuo\", want an integer or 'auto' (did you mean 'auto'?)",
        ),
        ({"training": {"warmup": 11}}, "training: warmup is longer than the training"),
        (
            {"vocoder": {"name": "spectral", "kernel_size": 4}},
            "vocoder.kernel_size: 4 is even; a same-padded kernel is odd",
        ),
        ({"vocoder": {"name": "wavenet", "channels": 0}}, "vocoder.channels: found 0, want greater than 0"),
        ({"vocoder": {"name": "wavenet", "dilations": 3}}, "vocoder.dilations: found 3, want a list"),
        ({"vocoder": "wavenet"}, 'vocoder: found "wavenet", want a mapping'),
        ({"vocoder": {}}, "vocoder.name: missing, want one of 'wavenet', 'spectral'"),
        (
            {"vocoder": {"name": "wavent"}},
            "vocoder.name: found \"wavent\", want one of 'wavenet', 'spectral' (did you mean 'wavenet'?)",
        ),
        ({"vocoder": {"name": 7}}, "vocoder.name: found 7, want one of 'wavenet', 'spectral'"),
        (
            {"ensemble": [{"name": "spectral"}, {"name": "wavenet", "dilations": [1, "x"]}]},
            'ensemble.1.dilations.1: found "x", want an integer',
        ),
        (
            {"padding": "cuasal"},
            "padding: found \"cuasal\", want 'causal' or 'same' (did you mean 'causal'?)",
        ),
        ({"rates_hz": {"a": "x"}}, 'rates_hz.a: found "x", want an integer'),
        ({"crop": [1]}, "crop.1: missing, but required"),
        (
            {"crop": [1, 2, 3]},
            "crop: found [1, 2, 3]: Tuple should have at most 2 items after validation, not 3",
        ),
        ({"corpus": 3}, "corpus: found 3, want a string"),
        (
            {"corpus": list(range(10, 99))},
            "corpus: found [10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24…, want a string",
        ),
    ],
)
def test_a_wrong_value_is_refused_with_its_path_and_what_is_wanted(change: dict[str, Any], message: str) -> None:
    assert refusal({"corpus": "x", **change}) == message


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vocodr": {}}, "vocodr: unknown key, did you mean 'vocoder'?"),
        ({"training": {"stesp": 3}}, "training.stesp: unknown key, did you mean 'steps'?"),
        ({"training": {"zzz": 3}}, "training.zzz: unknown key, valid names: amp, lr, steps, warmup"),
        (
            {"vocoder": {"name": "wavenet", "chanels": 3}},
            "vocoder.chanels: unknown key, did you mean 'channels'?",
        ),
        # The other member's key is not offered: it would be wrong here.
        (
            {"vocoder": {"name": "wavenet", "kernel_size": 3}},
            "vocoder.kernel_size: unknown key, valid names: channels, dilations, name",
        ),
        (
            {"ensemble": [{"name": "wavenet"}, {"name": "spectral", "kernel": 3}]},
            "ensemble.1.kernel: unknown key, did you mean 'kernel_size'?",
        ),
        (
            {3: 4},
            "3: unknown key, valid names: corpus, crop, ensemble, note, padding, rates_hz, training, vocoder",
        ),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_valid_name(change: dict[Any, Any], message: str) -> None:
    assert refusal({"corpus": "x", **change}) == message


def test_several_faults_share_one_line_and_the_sixth_is_counted() -> None:
    training = {"lr": "a", "steps": "b", "amp": "c"}
    assert refusal({"training": training}) == (
        "corpus: missing, but required"
        ' | training.lr: found "a", want a number'
        ' | training.steps: found "b", want an integer'
        ' | training.amp: found "c", want true or false'
    )
    assert refusal({"training": training, "note": 1, "a1": 1, "a2": 2}).endswith(
        " | note: found 1, want a string | and 2 more"
    )
    assert refusal({"training": training, "note": 1}).endswith(" | note: found 1, want a string")


def test_what_no_json_can_hold_is_refused() -> None:
    assert refusal({"corpus": {1, 2}}) == (
        "cannot be used as a config: {1, 2} is neither text, number, list nor mapping"
    )
    loop: dict[str, Any] = {}
    loop["corpus"] = loop
    assert refusal(loop) == "cannot be used as a config: Circular reference detected"


def test_a_fault_at_the_top_needs_no_path() -> None:
    assert refusal({"warmup": 11}, Training) == "warmup is longer than the training"


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
def test_yaml_written_is_read_back_equal(tmp_path: Path, recipe: Recipe) -> None:
    assert parse(Recipe, load_yaml(write(tmp_path, to_yaml(recipe))), where="r.yaml") == recipe


def test_yaml_written_reads_well() -> None:
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


def test_nearest_names() -> None:
    assert nearest("chanels", ["kernel", "channels", "channel"]) == ["channels", "channel"]
    assert nearest("zzz", ["channels"]) == []
    assert did_you_mean("chanels", ["kernel", "channels"]) == "did you mean 'channels'?"
    assert did_you_mean("zzz", ["b", "a"]) == "valid names: a, b"
