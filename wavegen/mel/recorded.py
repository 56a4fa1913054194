"""Mels of recordings, computed while they are read."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from wavegen.audio import read_audio
from wavegen.errors import MelError
from wavegen.mel.spec import MelSpec, check_compatible
from wavegen.mel.transform import LogMel


@dataclass(frozen=True)
class RecordedMel:
    """The mel of a recording, used like a ``MelFile``: a vocoder that speaks it copies the recording.

    Frames are computed when they are indexed, so a long recording needs memory for its samples alone.

    Attributes:
        path: the audio file.
        definition: the definition of the mel; the recording was resampled to its sample rate.
        samples: float32 ``[samples]`` of the recording, mirrored at both ends as the definition says.
        frames: the length of the mel in frames.
        f0: None; the pitch follows from the mel.
    """

    path: Path
    definition: MelSpec
    samples: np.ndarray = field(compare=False, repr=False)
    frames: int
    f0: None = None

    @property
    def shape(self) -> tuple[int, int]:
        """``(n_mels, frames)``."""
        return self.definition.n_mels, self.frames

    def check(self, spec: MelSpec) -> None:
        """Raise MelError if the definition differs from ``spec``."""
        check_compatible(self.definition, spec, self.path)

    def __getitem__(self, index: tuple[slice, slice]) -> np.ndarray:
        """Compute some frames, indexed like the array ``[n_mels, frames]``."""
        bins, frames = index
        start, stop, step = frames.indices(self.frames)
        hop = self.definition.hop_length
        if start >= stop:
            return np.zeros((self.definition.n_mels, 0), np.float32)[bins]
        samples = self.samples[start * hop : (stop - 1) * hop + self.definition.n_fft]
        with torch.no_grad():
            mel = self._log_mel.padded(torch.from_numpy(samples)[None])[0].numpy()
        return mel[bins, ::step]

    @cached_property
    def _log_mel(self) -> LogMel:
        return LogMel(self.definition)


def recorded_mel(path: Path, definition: MelSpec) -> RecordedMel:
    """The mel of an audio file, mixed to mono and resampled to the definition's sample rate.

    Raises:
        AudioError: the file is not a recording, or is damaged.
        MelError: it is too short for a frame.
    """
    samples = read_audio(path, definition.sample_rate_hz)
    if len(samples) < definition.min_samples:
        raise MelError(
            f"{len(samples)} samples are too short for a mel frame",
            where=path,
            remedy=f"give at least {definition.min_samples} samples",
        )
    mirrored = np.pad(samples, definition.left_padding, mode="reflect")
    return RecordedMel(path, definition, mirrored, definition.frames(len(samples)))
