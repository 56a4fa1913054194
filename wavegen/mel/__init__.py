"""Mel spectrograms: their definitions, how they are made and inverted, and their files."""

from wavegen.mel.family import MelFamily
from wavegen.mel.files import load_mel, load_mel_for, mel_definition, open_mel, save_mel
from wavegen.mel.profiles import DEFAULT_PROFILE, PROFILES, profile
from wavegen.mel.spec import MelSpec, check_compatible, check_mel, convert, ln_ceilings
from wavegen.mel.transform import LogMel, MelInverse, reflect_pad

__all__ = [
    "DEFAULT_PROFILE",
    "PROFILES",
    "LogMel",
    "MelFamily",
    "MelInverse",
    "MelSpec",
    "check_compatible",
    "check_mel",
    "convert",
    "ln_ceilings",
    "load_mel",
    "load_mel_for",
    "mel_definition",
    "open_mel",
    "profile",
    "reflect_pad",
    "save_mel",
]
