"""Decoded recordings, kept in memory while a small corpus is trained on."""

from pathlib import Path

import numpy as np

from wavegen.audio import read_audio, read_segment

LARGEST_BYTES = 2**28  # 46 minutes at 24 kHz


class DecodedRecordings:
    """Reads segments as ``read_segment`` does, but decodes each recording once, and so refuses damage anywhere in it.

    Opening a FLAC file and seeking in it takes longer than copying a decoded segment: a twentieth of a step of the
    demo. A recording that has changed is decoded again.
    """

    def __init__(self) -> None:
        self._decoded: dict[Path, tuple[int, np.ndarray]] = {}

    def __call__(self, path: Path, start: int, length: int) -> np.ndarray:
        """Samples ``start`` to ``start + length``, a view of the kept ones.

        Raises:
            AudioError: see ``read_audio`` and ``read_segment``.
        """
        try:
            written_ns = path.stat().st_mtime_ns
        except OSError:
            return read_segment(path, start, length)  # which says what is wrong
        known = self._decoded.get(path)
        if known is None or known[0] != written_ns:
            known = self._decoded[path] = written_ns, _decode(path)
        samples = known[1]
        if start < 0 or start + length > len(samples):
            return read_segment(path, start, length)
        return samples[start : start + length]


def _decode(path: Path) -> np.ndarray:
    samples = read_audio(path)
    read_segment(path, len(samples) - 1, 1)  # refuses a file without seeking, as it would with worker processes
    return samples
