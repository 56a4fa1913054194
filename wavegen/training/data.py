"""Random training segments; each is a function of the seed, the step and the position in the batch."""

import contextlib
import itertools
import signal
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from wavegen.audio import read_segment
from wavegen.cores import usable_cores
from wavegen.corpora.frame_labels import UNLABELLED
from wavegen.corpora.labelling import load_frame_labels
from wavegen.corpora.manifest import Clip
from wavegen.corpora.pitch_labels import LABELS_PER_FRAME, load_labels
from wavegen.errors import MelError, MissingMelError, TrainingError, WavegenError
from wavegen.mel import MelFile, MelSpec, open_mel
from wavegen.training.augmentation import augmented
from wavegen.training.config import AugmentationConfig
from wavegen.training.decoded import LARGEST_BYTES, DecodedRecordings
from wavegen.vocoders._speakers import speaker_indices

SegmentKey = tuple[int, int]  # step, position in the global batch
ReadSegment = Callable[[Path, int, int], np.ndarray]  # path, first sample, number of samples: as ``read_segment``


class Batch(NamedTuple):
    """Segments of clips, padded with zeros to one length.

    Attributes:
        audio: ``[batch, frames * hop_length]``.
        mel: ``[batch, n_mels, frames]``.
        lengths: int64 ``[batch]``, number of real frames.
        starts: int64 ``[batch]``, index in the clip of the segment's first frame.
        speakers: int64 ``[batch]``, indices of the vocoder's speakers; None for a vocoder without speakers.
        f0: ``[batch, frames * 4]``, pitch labels in Hz as from ``pitch_labels``, the first one at the segment's first
            sample; 0 where the recording is not voiced; None for a vocoder that does not read them.
        labels: int8 ``[batch, classes, frames]``, as from ``frame_labels``, and unlabelled after the clip's end; None
            for a network that does not learn from them.
        others: ``[batch, others, frames * hop_length]``, segments of other recordings; None for a network that needs
            none.
    """

    audio: Tensor
    mel: Tensor
    lengths: Tensor
    starts: Tensor
    speakers: Tensor | None = None
    f0: Tensor | None = None
    labels: Tensor | None = None
    others: Tensor | None = None

    def to(self, device: torch.device) -> "Batch":
        """Copy the batch to a device."""
        return Batch._make(part if part is None else part.to(device, non_blocking=True) for part in self)


class Segments(Dataset[Batch]):
    """Random segments of clips; the probability of a clip is proportional to its length.

    The sampler has no state to save: item ``i`` of step ``n`` is always the same segment, whatever was read before, in
    whichever process, and however many processes share the batch. So a resumed run reads the same segments as an
    uninterrupted one, and two processes read the same segments as one. A clip shorter than a segment is padded, never
    dropped.

    Args:
        clips: training clips.
        spec: the mel definition of the clips' mel files.
        frames: length of a segment.
        seed: seeds the choice of segments.
        speakers: the vocoder's speakers.
        augmentation: random changes of the audio; the mels of the batches are those of the unchanged audio.
        others: the number of segments of other clips beside each segment.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        spec: MelSpec,
        *,
        frames: int,
        seed: int,
        speakers: Sequence[str] = (),
        augmentation: AugmentationConfig | None = None,
        others: int = 0,
    ) -> None:
        self.clips, self.spec, self.frames, self.seed, self.speakers = clips, spec, frames, seed, speakers
        self.augmentation, self.others = augmentation, others
        self._ends = np.cumsum([clip.frames for clip in clips])
        self._read: ReadSegment = read_segment

    def __getitem__(self, key: SegmentKey) -> Batch:
        """The segment for (step, position in the batch), as a batch of one."""
        clip, start = self._choose(key)
        batch = read_crop(clip, self.spec, start, self.frames, self.speakers, read=self._read)
        # The generators are that of the choice, far beyond what the choice has drawn from it.
        if self.others:
            random = np.random.Generator(np.random.Philox(key=self._key(key), counter=2 << 64))
            others = read_others(self.clips, self.spec, self.frames, self.others, random, read=self._read)
            batch = batch._replace(others=others)
        if self.augmentation is None:
            return batch
        random = np.random.Generator(np.random.Philox(key=self._key(key), counter=1 << 64))
        real = int(batch.lengths) * self.spec.hop_length
        changed = augmented(batch.audio[0, :real].numpy(), self.spec.sample_rate_hz, self.augmentation, random)
        audio = torch.zeros_like(batch.audio)
        audio[0, :real] = torch.from_numpy(changed)
        return batch._replace(audio=audio)

    def names(self, step: int, batch_size: int) -> list[str]:
        """Names of the clips in the global batch of a step."""
        return [self._choose((step, position))[0].name for position in range(batch_size)]

    def _choose(self, key: SegmentKey) -> tuple[Clip, int]:
        """The clip for (step, position in the batch), and the frame to start at."""
        # A counter-based generator, keyed by step and position: no draw depends on any other draw.
        random = np.random.Generator(np.random.Philox(key=self._key(key)))
        clip = self.clips[int(np.searchsorted(self._ends, random.integers(self._ends[-1]), side="right"))]
        return clip, int(random.integers(max(1, clip.frames - self.frames + 1)))

    def _key(self, key: SegmentKey) -> np.ndarray:
        step, position = key
        return np.array([self.seed, step << 24 | position], dtype=np.uint64)

    def batches(
        self, first_step: int, steps: int, batch_size: int, *, rank: int, world: int, workers: int
    ) -> Generator[Batch, None, None]:
        """Batches of one process for the steps from ``first_step`` to ``steps - 1``.

        Closing the generator ends the worker processes; so does any error that it raises.

        Args:
            first_step: the step of the first batch.
            steps: the number of steps in all.
            batch_size: segments per step over all processes.
            rank: the rank of this process.
            world: the number of processes.
            workers: the number of worker processes that read segments; 0 to read in this one.

        Raises:
            AudioError, MelError: a file was removed or damaged.
            RuntimeError: a worker was killed; torch raises it at any point of the training.
        """
        positions = range(rank, batch_size, world)
        workers = min(workers, usable_cores())
        # Keep decoded recordings only without workers, which read while this process computes, each with a copy.
        small = 4 * sum(clip.samples for clip in self.clips) <= LARGEST_BYTES
        self._read = DecodedRecordings() if small and not workers else read_segment
        loader = DataLoader(
            _ErrorsAsItems(self),
            batch_sampler=_Steps(range(first_step, steps), positions),
            collate_fn=_collate_or_error,
            num_workers=workers,
            worker_init_fn=_leave_signals_to_the_parent,
            # An unused generator: without it, the loader draws from the global one, which a resumed run restores.
            generator=torch.Generator(),
            pin_memory=torch.cuda.is_available(),
        )
        items = iter(loader)
        try:
            for batch in items:
                if isinstance(batch, WavegenError):
                    raise batch
                yield batch
        except (ConnectionError, EOFError):  # a worker was killed
            time.sleep(1.0)  # for torch's own error, which names the worker, to arrive
            raise
        finally:
            _end_workers(items)


def _end_workers(items: Iterator[object]) -> None:
    """End a loader's worker processes.

    Not left to the garbage collector: an error's traceback keeps the loader alive until the interpreter exits, which
    then waits for ever for workers that survive a first SIGTERM. torch has no public name for this.
    """
    if hasattr(items, "_shutdown_workers"):  # not if this process reads the segments itself
        items._shutdown_workers()


class _ErrorsAsItems(Dataset["Batch | WavegenError"]):
    """Segments, with errors returned as items: the loader would wrap a raised error's traceback into another error."""

    def __init__(self, segments: Segments) -> None:
        self.segments = segments

    def __getitem__(self, key: SegmentKey) -> "Batch | WavegenError":
        try:
            return self.segments[key]
        except WavegenError as error:
            return error


def _collate_or_error(items: Sequence["Batch | WavegenError"]) -> "Batch | WavegenError":
    errors = [item for item in items if isinstance(item, WavegenError)]
    return errors[0] if errors else collate([item for item in items if isinstance(item, Batch)])


@contextlib.contextmanager
def explain_lost_workers() -> Iterator[None]:
    """Within the block, raise TrainingError instead of torch's RuntimeError if a worker process is killed."""
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker (pid" not in str(error):
            raise
        raise TrainingError(
            f"a worker process was killed: {error}",
            where="training.workers",
            remedy="run the same command to resume from the last checkpoint; if memory ran out, use fewer",
        ) from error


def _leave_signals_to_the_parent(worker: int) -> None:
    # Ctrl-C and the SIGTERM of a cluster or of ``timeout`` reach every process. The training process finishes its step
    # and saves, for which it needs its workers. At a second SIGTERM, which torch sends to end them, they stop.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, frame: signal.signal(number, signal.SIG_DFL))


class _Steps(Sampler[list[SegmentKey]]):
    """Lists the keys of each step's segments."""

    def __init__(self, steps: range, positions: range) -> None:
        self.steps, self.positions = steps, positions

    def __iter__(self) -> Iterator[list[SegmentKey]]:
        return (list(itertools.product((step,), self.positions)) for step in self.steps)

    def __len__(self) -> int:
        return len(self.steps)


def read_crop(
    clip: Clip,
    spec: MelSpec,
    start: int,
    frames: int,
    speakers: Sequence[str] = (),
    *,
    read: ReadSegment = read_segment,
) -> Batch:
    """Read a part of a clip; returns a batch of one.

    Args:
        clip: the clip.
        spec: the mel definition of its mel file.
        start: the first frame.
        frames: the number of frames; after the clip's end they are zeros.
        speakers: the vocoder's speakers.
        read: reads the samples; by default ``read_segment``, which decodes only these.

    Raises:
        ConfigError: there are ``speakers``, and the clip's speaker is not one of them.
        AudioError, MelError: the recording or the mel is missing, damaged or shorter than the clip.
        DataError: the clip's labels are missing or damaged.
    """
    real = min(frames, clip.frames - start)
    mel = np.zeros((1, spec.n_mels, frames), dtype=np.float32)
    mel[0, :, :real] = _read_mel(clip, spec, start, start + real)
    hop = spec.hop_length
    audio = np.zeros((1, frames * hop), dtype=np.float32)
    # With centred framing the last frame reaches beyond the last sample, so there may be fewer samples.
    samples = read(clip.audio, start * hop, min(real * hop, clip.samples - start * hop))
    audio[0, : len(samples)] = samples
    indices = speaker_indices([clip.speaker], speakers) if speakers else None
    lengths, starts = torch.tensor([real]), torch.tensor([start])
    f0 = None if clip.f0 is None else torch.from_numpy(_read_labels(clip.f0, clip.frames, start, frames))
    labels = None
    if clip.labels is not None:
        labels = torch.from_numpy(_read_frame_labels(clip.labels, clip.frames, start, frames))
    return Batch(torch.from_numpy(audio), torch.from_numpy(mel), lengths, starts, indices, f0, labels)


def read_others(
    clips: Sequence[Clip],
    spec: MelSpec,
    frames: int,
    count: int,
    random: np.random.Generator,
    *,
    read: ReadSegment = read_segment,
) -> Tensor:
    """Read segments ``[1, count, frames * hop_length]`` of clips drawn at random; shorter clips are repeated.

    Raises:
        AudioError: a recording is missing or damaged.
    """
    length = frames * spec.hop_length
    others = np.zeros((1, count, length), dtype=np.float32)
    for index in range(count):
        clip = clips[int(random.integers(len(clips)))]
        start = int(random.integers(max(1, clip.samples - length + 1)))
        others[0, index] = np.resize(read(clip.audio, start, min(length, clip.samples)), length)
    return torch.from_numpy(others)


def _read_frame_labels(path: Path, clip_frames: int, start: int, frames: int) -> np.ndarray:
    """Labels ``[1, classes, frames]`` of a segment; unlabelled after the clip's end."""
    part = load_frame_labels(path, clip_frames)[:, start : start + frames]
    labels = np.full((1, len(part), frames), UNLABELLED, dtype=np.int8)
    labels[0, :, : part.shape[1]] = part
    return labels


def _read_labels(path: Path, clip_frames: int, start: int, frames: int) -> np.ndarray:
    """Labels ``[1, frames * 4]`` of a segment; zeros after the clip's end."""
    part = load_labels(path, clip_frames)[start * LABELS_PER_FRAME :][: frames * LABELS_PER_FRAME]
    labels = np.zeros((1, frames * LABELS_PER_FRAME), dtype=np.float32)
    labels[0, : len(part)] = part
    return labels


def _read_mel(clip: Clip, spec: MelSpec, start: int, stop: int) -> np.ndarray:
    """Frames ``start`` to ``stop`` of a clip's mel."""
    try:
        written_ns = clip.mel.stat().st_mtime_ns
    except OSError as error:
        raise MissingMelError(where=clip.mel, remedy="extract the features again") from error
    part = _open(clip.mel, written_ns, spec)[:, start:stop]
    if part.shape[1] < stop - start:
        raise MelError(
            f"is shorter than the {clip.frames} frames of its clip",
            where=clip.mel,
            remedy="if the file has changed, extract the features again",
        )
    return part


@lru_cache(maxsize=1024)
def _open(path: Path, written_ns: int, spec: MelSpec) -> MelFile:
    """``open_mel``, cached until the file changes: reading its headers takes longer than reading a segment."""
    return open_mel(path, spec)


def collate(items: Sequence[Batch]) -> Batch:
    """Join batches along the batch dimension."""
    return Batch._make(None if parts[0] is None else torch.cat(parts) for parts in zip(*items, strict=True))
