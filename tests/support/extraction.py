"""A small corpus in the current folder, and its extraction."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import wavegen.corpora.extraction
from wavegen.audio import write_audio
from wavegen.corpora.extraction import Extraction, extract
from wavegen.corpora.folders import find_recordings
from wavegen.mel import profile

SPEC = profile("bigvgan-24k")
OTHER_SPEC = profile("vocos-24k")
CORPUS, OUT = Path("corpus"), Path("out")


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the mels written so far: shows what was made again without looking at the clock."""
    names: list[str] = []
    save_mel = wavegen.corpora.extraction.save_mel

    def spy(path: Path, *rest: Any) -> None:
        save_mel(path, *rest)
        names.append(path.stem)

    monkeypatch.setattr(wavegen.corpora.extraction, "save_mel", spy)
    return names


def sweep(seconds: float, rate: int, *, from_hz: float = 100.0) -> np.ndarray:
    """A rising tone, float32 in ±0.5."""
    time = np.arange(int(seconds * rate)) / rate
    return (0.5 * np.sin(2 * np.pi * (from_hz * time + 1000 * time**2))).astype(np.float32)


def record(*names: str, from_hz: float = 100.0, modified_s: float | None = None) -> None:
    """Write good recordings, which SPEC uses as they are."""
    for name in names:
        path = CORPUS / f"{name}.wav"
        write_audio(path, sweep(0.2, 24000, from_hz=from_hz), 24000)
        if modified_s is not None:
            os.utime(path, (modified_s, modified_s))


def run(corpus: Path = CORPUS, **options: Any) -> Extraction:
    """Extract the corpus in one thread."""
    return extract(find_recordings(corpus), OUT, **{"spec": SPEC, "jobs": 1, "progress": False, **options})


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def interrupt_after(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the mel after the next ``count`` be interrupted by the user."""
    save_mel = wavegen.corpora.extraction.save_mel
    left = iter(range(count))

    def save_or_stop(*arguments: Any) -> None:
        if next(left, None) is None:
            raise KeyboardInterrupt
        save_mel(*arguments)

    monkeypatch.setattr(wavegen.corpora.extraction, "save_mel", save_or_stop)
