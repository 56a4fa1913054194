"""One vocoder per file; the file's name is the vocoder's name in a recipe. Helper modules begin with an underscore."""

import importlib
import pkgutil
from abc import ABC
from collections.abc import Sequence

from wavegen.errors import ConfigError
from wavegen.mel import MelSpec
from wavegen.vocoders._base import (
    AutoregressiveVocoder,
    PitchVocoder,
    Vocoder,
    VocoderConfig,
    WaveformVocoder,
    frame_mask,
)


def find_vocoders(package: str, path: Sequence[str]) -> dict[str, type[Vocoder]]:
    """Import the modules of a package and return the vocoder that each defines, by name.

    Args:
        package: the package's name.
        path: its folders.

    Raises:
        ConfigError: a module defines no vocoder or several, or a vocoder lacks a part of the contract.
    """
    found = {}
    for module_info in pkgutil.iter_modules(path):
        if module_info.name.startswith("_"):
            continue
        module = importlib.import_module(f"{package}.{module_info.name}")
        vocoders = [
            member
            for member in vars(module).values()
            if isinstance(member, type) and issubclass(member, Vocoder)
            if member.__module__ == module.__name__ and ABC not in member.__bases__
        ]
        if len(vocoders) != 1:
            names = ", ".join(vocoder.__name__ for vocoder in vocoders) or "none"
            raise ConfigError(
                f"a module defines one vocoder, this one {names}",
                where=module.__name__,
                remedy="move helpers into a module whose name begins with an underscore",
            )
        name = vocoders[0].Config.model_fields["name"].default
        if name.replace("-", "_") != module_info.name:
            raise ConfigError(
                f"the vocoder's name is {name!r}, but its file is {module_info.name}.py",
                where=module.__name__,
                remedy="give both the same name",
            )
        found[name] = vocoders[0]
    return found


VOCODERS = find_vocoders(__name__, __path__)


def build_vocoder(config: VocoderConfig, mel: MelSpec, speakers: Sequence[str] = ()) -> Vocoder:
    """Build a vocoder with random weights.

    Args:
        config: its shape.
        mel: the definition of the mels that it reads.
        speakers: names of its speakers.
    """
    return VOCODERS[config.name](mel, config, speakers=tuple(speakers))  # type: ignore[call-arg]


__all__ = [
    "VOCODERS",
    "AutoregressiveVocoder",
    "PitchVocoder",
    "Vocoder",
    "VocoderConfig",
    "WaveformVocoder",
    "build_vocoder",
    "find_vocoders",
    "frame_mask",
]
