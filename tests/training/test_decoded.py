"""Recordings that are decoded once: what follows when their files change."""

import os
from pathlib import Path

import numpy as np
import pytest

from wavegen.audio import write_audio
from wavegen.errors import AudioError
from wavegen.training.decoded import DecodedRecordings


def test_decoded_recordings_follow_their_files(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    read = DecodedRecordings()
    for level in (0.25, 0.5):
        write_audio(path, np.full(100, level, dtype=np.float32), 24000)
        os.utime(path, ns=(0, int(level * 1e9)))
        assert read(path, 10, 20).tolist() == [level] * 20
    with pytest.raises(AudioError, match="has 100 samples"):
        read(path, 90, 11)
    path.unlink()
    with pytest.raises(AudioError):
        read(path, 10, 20)
