"""Mel files to sound files: one, a folder of them, or very long ones, in constant memory."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from wavegen.audio import AudioWriter
from wavegen.errors import MelError
from wavegen.mel import check_compatible, check_mel, load_mel, open_mel
from wavegen.vocoders import Vocoder

MEL_SUFFIXES = (".npy", ".npz")
# Frames synthesised at once: where each piece repeats its context, long enough that this costs little; else short
# enough for progress to be seen.
PIECE_FRAMES, NATIVE_PIECE_FRAMES = 2000, 50


@dataclass(frozen=True)
class Timing:
    """How much sound was made and how long it took."""

    audio_s: float = 0.0
    wall_s: float = 0.0
    clipped: int = 0  # samples beyond full scale

    def __add__(self, other: "Timing") -> "Timing":
        return Timing(self.audio_s + other.audio_s, self.wall_s + other.wall_s, self.clipped + other.clipped)

    @property
    def times_real_time(self) -> float:
        """Seconds of sound made per second."""
        return self.audio_s / self.wall_s


def stream(
    vocoder: Vocoder, mel: np.ndarray, *, seed: int = 0, piece_frames: int | None = None
) -> Iterator[np.ndarray]:
    """Synthesise piece by piece; the pieces together are what the whole would be.

    Args:
        vocoder: prepared for synthesis, on its device.
        mel: ``[n_mels, frames]``; a memory map is read piece by piece.
        seed: of the noise.
        piece_frames: frames at a time; by default what suits the vocoder.

    Yields:
        ``[samples]`` in the vocoder's own precision, in all ``frames * hop_length``.
    """
    piece_frames = piece_frames or (NATIVE_PIECE_FRAMES if vocoder.steps_natively else PIECE_FRAMES)
    like = next(vocoder.parameters())
    state = vocoder.initial_state(1, seed=seed)
    for start in range(0, mel.shape[1], piece_frames):
        # Copied, because a mapped file is read-only and its bins may lie side by side.
        piece = torch.tensor(mel[:, start : start + piece_frames], dtype=like.dtype, device=like.device)[None]
        samples, state = vocoder.step(piece, state)
        yield samples[0].cpu().numpy()
    yield vocoder.flush(state)[0].cpu().numpy()


def synthesize(vocoder: Vocoder, mel: np.ndarray, *, seed: int = 0) -> np.ndarray:
    """The whole sound of a mel ``[n_mels, frames]``, ``[frames * hop_length]`` in the vocoder's own precision."""
    return np.concatenate(list(stream(vocoder, mel, seed=seed)))


def synthesize_file(
    vocoder: Vocoder,
    mel_path: Path,
    out: Path,
    *,
    seed: int = 0,
    float32: bool = False,
    on_piece: Callable[[int], None] = lambda frames: None,
) -> Timing:
    """Read a mel file, check it against the vocoder's contract, write its sound.

    Args:
        vocoder: prepared for synthesis.
        mel_path: ``.npy``, or ``.npz`` of wavegen-extract.
        out: ``.wav`` or ``.flac``; it appears when it is complete.
        seed: of the noise.
        float32: 32-bit float instead of 16-bit samples, in a ``.wav``.
        on_piece: called with the frames of each piece when it is written.

    Raises:
        MelError: the file is no mel that this vocoder understands.
        OutputError, AudioError: ``out`` cannot be written.
    """
    mel = open_for(vocoder, mel_path)
    started, samples, clipped = time.perf_counter(), 0, 0
    with AudioWriter(out, vocoder.mel.sample_rate_hz, float32=float32) as writer:
        for piece in stream(vocoder, mel, seed=seed):
            writer.write(piece)
            samples += len(piece)
            clipped += int((np.abs(piece) > 1).sum())
            on_piece(len(piece) // vocoder.mel.hop_length)
    return Timing(samples / vocoder.mel.sample_rate_hz, time.perf_counter() - started, clipped)


def open_for(vocoder: Vocoder, path: Path) -> np.ndarray:
    """The mel in a file, checked: its definition field by field, or, where it states none, all that can be seen.

    Raises:
        MelError: what is wrong, where, and what to do.
    """
    if path.suffix not in MEL_SUFFIXES:
        raise MelError(f"a mel file ends in {' or '.join(MEL_SUFFIXES)}", where=path, remedy="give one of those")
    if path.suffix == ".npz":
        mel = open_mel(path, vocoder.mel)
    else:
        mel, found = load_mel(path)
        if found is not None:
            check_compatible(found, vocoder.mel, path)
    check_mel(mel, vocoder.mel, path)
    return mel


def find_mels(folder: Path) -> list[Path]:
    """The mel files below a folder, sorted; hidden ones are what a killed extraction left behind.

    Raises:
        MelError: there are none, or two have the same name but for the suffix, and would be one sound file.
    """
    paths = sorted(p for p in folder.rglob("*") if p.suffix in MEL_SUFFIXES and not p.name.startswith("."))
    if not paths:
        raise MelError("no .npy or .npz files", where=folder, remedy="give the folder wavegen-extract wrote")
    named: dict[Path, Path] = {}
    for path in paths:
        other = named.setdefault(path.with_suffix(""), path)
        if other != path:
            raise MelError(f"{other.name} and {path.name} share a name", where=path.parent, remedy="rename one")
    return paths
