"""One vocoder per file; the file's name is the vocoder's name in a recipe. Helper modules begin with an underscore."""

from collections.abc import Sequence

from wavegen.mel import MelSpec
from wavegen.network import find_networks
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
    return find_networks(package, path, Vocoder, "vocoder")  # type: ignore[type-abstract]


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
