"""Vocoders of several speakers."""

from typing import Any

from support.vocoders import tiny_vocoder
from wavegen.vocoders import Vocoder

NAMES = ("ann", "bob", "cy")


def speaking(name: str, **changes: Any) -> Vocoder:
    return tiny_vocoder(name, speakers=NAMES, speaker_channels=3, **changes)
