"""Sound files as they are found: with other headers, cut, joined, and without the tables that they should have."""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

RATE = 24000

Make = Callable[[], bytes]


def tone(seconds: float = 2.0, rate: int = RATE) -> np.ndarray:
    """A tone with noise, which no encoder makes small, float32 in ±0.4."""
    time = np.arange(round(seconds * rate)) / rate
    noise = np.random.default_rng(0).uniform(-0.1, 0.1, len(time))
    return (0.3 * np.sin(2 * np.pi * 440 * time) + noise).astype(np.float32)


def encoded(suffix: str, samples: np.ndarray | None = None, rate: int = RATE, **options: Any) -> bytes:
    """The bytes of a file that libsndfile writes."""
    path = Path(f"encoded{suffix}")
    soundfile.write(path, tone() if samples is None else samples, rate, **options)
    data = path.read_bytes()
    path.unlink()
    return data


def riff(
    data: bytes, *, size: int | None = None, form: int | None = None, before: bytes = b"", after: bytes = b"",
    order: str = "<",
) -> bytes:  # fmt: skip
    """A WAV of 16 bits with the sizes that its header should state; big-endian, RIFX, with ``order=">"``."""
    layout = struct.pack(f"{order}HHIIHH", 1, 1, RATE, RATE * 2, 2, 16)
    head = b"WAVEfmt " + struct.pack(f"{order}I", len(layout)) + layout + before
    body = head + b"data" + struct.pack(f"{order}I", len(data) if size is None else size) + data + after
    name = b"RIFF" if order == "<" else b"RIFX"
    return name + struct.pack(f"{order}I", len(body) if form is None else form) + body


def pcm(samples: np.ndarray | None = None) -> bytes:
    """16-bit samples, little-endian."""
    return np.rint((tone() if samples is None else samples) * 32768).astype("<i2").tobytes()


def without_table(mp3: bytes) -> bytes:
    """An MP3 without its first frame, which holds nothing but the table."""
    return mp3[mp3.find(b"\xff\xfb", 4) :]
