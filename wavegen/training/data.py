"""Random training segments, each a pure function of (seed, step, place in the batch)."""

import contextlib
import itertools
import os
import signal
import time
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from wavegen.audio import read_segment
from wavegen.corpora.manifest import Clip
from wavegen.errors import TrainingError, WavegenError
from wavegen.mel import MelSpec, open_mel
from wavegen.vocoders._speakers import speaker_indices

Key = tuple[int, int]  # step, place in the global batch


class Batch(NamedTuple):
    """Segments of clips, padded with zeros to one length.

    Attributes:
        audio: ``[batch, frames * hop_length]``.
        mel: ``[batch, n_mels, frames]``.
        lengths: int64 ``[batch]``, real frames.
        starts: int64 ``[batch]``, frame of the clip at which the segment starts.
        speakers: int64 ``[batch]``, who speaks, as places in the vocoder's table; None where it has none.
    """

    audio: Tensor
    mel: Tensor
    lengths: Tensor
    starts: Tensor
    speakers: Tensor | None = None

    def to(self, device: torch.device) -> "Batch":
        """The batch on a device."""
        return Batch._make(part if part is None else part.to(device, non_blocking=True) for part in self)


class Segments(Dataset[Batch]):
    """Random segments of clips, a clip being chosen as often as its length says.

    There is no sampler state to save: item ``i`` of step ``n`` is always the same segment, whatever was read before,
    in which process, and however many processes share the batch. So a resumed run reads what the uninterrupted one
    would have, and two processes read what one would. A clip shorter than a segment is padded, never dropped.

    Args:
        clips: the clips of the training split.
        spec: definition that the clips' mel files must have been made to.
        frames: length of a segment.
        seed: of the choices.
        speakers: the vocoder's table of names.
    """

    def __init__(
        self, clips: Sequence[Clip], spec: MelSpec, *, frames: int, seed: int, speakers: Sequence[str] = ()
    ) -> None:
        self.clips, self.spec, self.frames, self.seed, self.speakers = clips, spec, frames, seed, speakers
        self._ends = np.cumsum([clip.frames for clip in clips])

    def __getitem__(self, key: Key) -> Batch:
        """The segment for (step, place in the batch), as a batch of one."""
        clip, start = self._choose(key)
        return read_crop(clip, self.spec, start, self.frames, self.speakers)

    def names(self, step: int, batch_size: int) -> list[str]:
        """Names of the clips in the global batch of a step."""
        return [self._choose((step, place))[0].name for place in range(batch_size)]

    def _choose(self, key: Key) -> tuple[Clip, int]:
        """The clip for (step, place in the batch), and the frame to start at."""
        step, place = key
        # A counter-based generator: its key is the position, so no draw depends on any other.
        random = np.random.Generator(np.random.Philox(key=np.array([self.seed, step << 24 | place], dtype=np.uint64)))
        clip = self.clips[int(np.searchsorted(self._ends, random.integers(self._ends[-1]), side="right"))]
        return clip, int(random.integers(max(1, clip.frames - self.frames + 1)))

    def batches(
        self, first_step: int, steps: int, batch_size: int, *, rank: int, world: int, workers: int
    ) -> Iterator[Batch]:
        """Batches of this process for steps ``first_step`` to ``steps - 1``; ``batch_size`` is global.

        Raises:
            AudioError, MelError: a file is gone or damaged.
            RuntimeError: a process that reads was killed; torch raises it, wherever the training happens to be.
        """
        places = range(rank, batch_size, world)
        workers = min(workers, os.cpu_count() or 1)
        loader = DataLoader(
            _Told(self),
            batch_sampler=_Steps(range(first_step, steps), places),
            collate_fn=_collate_told,
            num_workers=workers,
            worker_init_fn=_leave_signals_to_the_parent,
            persistent_workers=workers > 0,
            # Its own, unused: else making the loader would draw from the generator that a resumed run restores.
            generator=torch.Generator(),
            pin_memory=torch.cuda.is_available(),
        )
        try:
            for batch in loader:
                if isinstance(batch, WavegenError):
                    raise batch
                yield batch
        except (ConnectionError, EOFError):  # to a process that is gone: the system tells torch so in a moment
            time.sleep(1.0)
            raise


class _Told(Dataset["Batch | WavegenError"]):
    """Segments whose errors are told as items: raised in another process, one would end up in the text of another."""

    def __init__(self, segments: Segments) -> None:
        self.segments = segments

    def __getitem__(self, key: Key) -> "Batch | WavegenError":
        try:
            return self.segments[key]
        except WavegenError as error:
            return error


def _collate_told(items: Sequence["Batch | WavegenError"]) -> "Batch | WavegenError":
    errors = [item for item in items if isinstance(item, WavegenError)]
    return errors[0] if errors else collate([item for item in items if isinstance(item, Batch)])


@contextlib.contextmanager
def lost_readers_named() -> Iterator[None]:
    """While it lasts, a process that reads segments and is killed ends in one line.

    Raises:
        TrainingError: in place of torch's RuntimeError.
    """
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker (pid" not in str(error):
            raise
        raise TrainingError(
            f"a process that reads segments is gone: {error}",
            where="training.workers",
            remedy="the same command goes on from the last checkpoint; if memory was short, give fewer, or 0",
        ) from error


def _leave_signals_to_the_parent(worker: int) -> None:
    # A Ctrl-C, and a cluster's or timeout's polite kill, reach every process. The training one saves and stops; were a
    # reader gone before that, it could do neither. Asked a second time, as torch does to be rid of one, a reader goes.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, frame: signal.signal(number, signal.SIG_DFL))


class _Steps(Sampler[list[Key]]):
    def __init__(self, steps: range, places: range) -> None:
        self.steps, self.places = steps, places

    def __iter__(self) -> Iterator[list[Key]]:
        return (list(itertools.product((step,), self.places)) for step in self.steps)

    def __len__(self) -> int:
        return len(self.steps)


def read_crop(clip: Clip, spec: MelSpec, start: int, frames: int, speakers: Sequence[str] = ()) -> Batch:
    """``frames`` frames of a clip from ``start`` on, padded with zeros; a batch of one. Reads nothing else.

    Raises ConfigError where there are ``speakers``, and the clip's is none of them.
    """
    real = min(frames, clip.frames - start)
    mel = np.zeros((1, spec.n_mels, frames), dtype=np.float32)
    mel[0, :, :real] = _open(clip.mel, clip.mel.stat().st_mtime_ns, spec)[:, start : start + real]
    hop = spec.hop_length
    audio = np.zeros((1, frames * hop), dtype=np.float32)
    # Centred framing has a last frame that reaches beyond the last sample.
    samples = read_segment(clip.audio, start * hop, min(real * hop, clip.samples - start * hop))
    audio[0, : len(samples)] = samples
    who = speaker_indices([clip.speaker], speakers) if speakers else None
    return Batch(torch.from_numpy(audio), torch.from_numpy(mel), torch.tensor([real]), torch.tensor([start]), who)


@lru_cache(maxsize=1024)
def _open(path: Path, written_ns: int, spec: MelSpec) -> np.ndarray:
    """``open_mel``, once for each file as it is: reading its headers takes longer than reading a segment."""
    return open_mel(path, spec)


def collate(items: Sequence[Batch]) -> Batch:
    """Batches of one as one batch."""
    return Batch._make(None if parts[0] is None else torch.cat(parts) for parts in zip(*items, strict=True))
