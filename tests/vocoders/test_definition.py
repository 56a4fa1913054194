"""The contract of a vocoder, broken on purpose: what a class or a module lacks is named when it is defined."""

import sys
from abc import ABC
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from support.messages import Messages
from support.vocoders import SPEC, new_vocoder, tiny_mel, tiny_vocoder
from torch import Tensor

from wavegen.blocks import Context
from wavegen.errors import ConfigError
from wavegen.vocoders import VOCODERS, AutoregressiveVocoder, Vocoder, VocoderConfig, WaveformVocoder, find_vocoders


class GoodConfig(VocoderConfig):
    name: Literal["good"] = "good"

    @classmethod
    def examples(cls) -> tuple["GoodConfig", ...]:
        return (cls(),)


GOOD: dict[str, Any] = {
    "Config": GoodConfig,
    "__init__": lambda self, mel, config=None, *, speakers=(): None,
    "context": property(lambda self: Context()),
    "generate": lambda self, mel, mask, seeds, first_frame, speakers=None: mel[:, 0],
    "forward": lambda self, mel, mask=None, *, speakers=None: mel[:, 0],
}


def define(base: type = WaveformVocoder, **changes: Any) -> type:
    """Define a vocoder; None leaves a part of it out."""
    parts = {name: part for name, part in (GOOD | changes).items() if part is not None}
    return type("Example", (base,), {"__module__": "somewhere.good", **parts})


def test_a_complete_definition_is_accepted() -> None:
    assert issubclass(define(), Vocoder)
    assert issubclass(define(AutoregressiveVocoder, log_likelihood=GOOD["forward"]), Vocoder)


@pytest.mark.parametrize("part", ["Config", "context", "generate", "forward"])
def test_a_missing_part_is_named(part: str, messages: Messages) -> None:
    with messages.refused(ConfigError):
        define(**{part: None})


def test_all_faults_are_named_at_once(messages: Messages) -> None:
    class Nameless(VocoderConfig):
        pass

    with messages.refused(ConfigError):
        define(Vocoder, Config=Nameless, __init__=lambda self, mel: None, context=None)
    with messages.refused(ConfigError):
        define(AutoregressiveVocoder)


def test_a_kind_of_vocoder_need_not_be_complete() -> None:
    class Kind(WaveformVocoder, ABC):
        pass

    with pytest.raises(ConfigError):
        type("Example", (Kind,), {})


MODULE = """
from typing import Literal
from wavegen.blocks import Context
from wavegen.vocoders import VocoderConfig, WaveformVocoder

class {name}Config(VocoderConfig):
    name: Literal["{recipe_name}"] = "{recipe_name}"

    @classmethod
    def examples(cls):
        return (cls(),)

class {name}(WaveformVocoder):
    Config = {name}Config

    def __init__(self, mel, config=None, *, speakers=()):
        super().__init__(mel)

    context = property(lambda self: Context())

    def generate(self, mel, mask, seeds, first_frame, speakers=None):
        return mel[:, 0]

    def forward(self, mel, mask=None, *, speakers=None):
        return mel[:, 0]
"""


def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **modules: str) -> dict[str, type[Vocoder]]:
    """Discover the vocoders of a package with these modules."""
    folder = tmp_path / "others"
    folder.mkdir()
    for name, text in modules.items():
        (folder / f"{name}.py").write_text(text)
    (folder / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.startswith("others")]:
        monkeypatch.delitem(sys.modules, name)
    return find_vocoders("others", [str(folder)])


def test_the_vocoders_of_a_folder_are_found_by_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = MODULE.format(name="Mine", recipe_name="mine")
    found = package(tmp_path, monkeypatch, mine=mine, _helper="x = 1")
    assert [(name, vocoder.__name__) for name, vocoder in found.items()] == [("mine", "Mine")]


@pytest.mark.parametrize(
    "text",
    [
        MODULE.format(name="Mine", recipe_name="mine") + MODULE.format(name="Other", recipe_name="mine"),
        MODULE.format(name="Mine", recipe_name="other"),
        "x = 1",
    ],
    ids=["two vocoders", "another name than the file's", "no vocoder"],
)
def test_a_module_that_breaks_the_rule_of_one_vocoder_per_file_is_refused(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, messages: Messages
) -> None:
    with messages.refused(ConfigError):
        package(tmp_path, monkeypatch, mine=text)


@pytest.mark.parametrize("name", VOCODERS)
def test_a_vocoder_answers_for_itself(name: str) -> None:
    vocoder = tiny_vocoder(name)
    gpu = torch.device("cuda:1")
    autoregressive = isinstance(vocoder, AutoregressiveVocoder)
    assert vocoder.preferred_device(gpu) == (torch.device("cpu") if autoregressive else gpu)
    assert vocoder.accepts_discriminators == isinstance(vocoder, WaveformVocoder)
    for engine, precisions in vocoder.engines.items():
        for precision in precisions:
            assert isinstance(vocoder.use_engine(engine, precision), str)


@pytest.mark.parametrize("name", VOCODERS)
def test_synthesis_options_change_the_sound_and_others_are_refused(name: str) -> None:
    vocoder = tiny_vocoder(name).prepared_for_synthesis()
    mel = torch.from_numpy(tiny_mel(20))[None]

    def sound(**options: float | None) -> Tensor:
        vocoder.set_synthesis_options(**options)
        return vocoder.synthesize(mel)

    for option in vocoder.synthesis_options:
        before = sound()
        assert torch.equal(sound(**{option: None}), before)
        assert not torch.equal(sound(**{option: 3}), before)
    with pytest.raises(ConfigError, match="loudness"):
        sound(loudness=3)


@pytest.mark.parametrize("name", VOCODERS)
def test_an_engine_that_a_vocoder_does_not_have_is_refused(name: str) -> None:
    vocoder = tiny_vocoder(name)
    for engine, precision in (("nmba", "float32"), ("torch", "int16"), ("auto", "int4")):
        with pytest.raises(ConfigError, match=f"{engine}|{precision}"):
            vocoder.use_engine(engine, precision)


def test_what_a_vocoder_does_not_have_is_named(messages: Messages) -> None:
    for vocoder, options in ((tiny_vocoder("wavenet"), {"iterations": 3}), (tiny_vocoder("parallel"), {"loudness": 3})):
        with messages.refused(ConfigError):
            vocoder.set_synthesis_options(**options)
        for engine, precision in (("nmba", "float32"), ("torch", "int16"), ("auto", "int4")):
            with messages.refused(ConfigError):
                vocoder.use_engine(engine, precision)


def test_a_vocoder_is_built_with_its_config_alone() -> None:
    vocoder = new_vocoder("spectral", SPEC, channels=4, layers=1)
    assert sum(parameter.numel() for parameter in vocoder.parameters()) < sum(
        parameter.numel() for parameter in new_vocoder("spectral", SPEC).parameters()
    )
