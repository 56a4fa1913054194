"""Mel spectrograms: definitions, computation and inversion, and files."""

from wavegen.mel.family import MelFamily
from wavegen.mel.files import MelFile, load_mel, open_mel, save_mel
from wavegen.mel.profiles import DEFAULT_PROFILE, PROFILES, profile
from wavegen.mel.spec import MelSpec, check_compatible, check_mel, convert, ln_ceilings
from wavegen.mel.transform import LogMel, MelInverse, MelProjection

__all__ = [
    "DEFAULT_PROFILE",
    "PROFILES",
    "LogMel",
    "MelFamily",
    "MelFile",
    "MelInverse",
    "MelProjection",
    "MelSpec",
    "check_compatible",
    "check_mel",
    "convert",
    "ln_ceilings",
    "load_mel",
    "open_mel",
    "profile",
    "save_mel",
]
