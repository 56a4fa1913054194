"""Long holes: frames that the recording itself has, in place of the blurred ones that the inpainter expects.

The longer a hole, the more sounds it may have had, and what the inpainter expects becomes a mean that matches none of
them. The recording has real frames. Those that come closest to the expectation, and to what is known beside the hole,
sound better, though their mel is further from the lost one. Bahat, Schechner & Elad 2015, Self-content-based audio
inpainting, copy samples in the same way.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from torch import Tensor

from wavegen.audio.runs import runs
from wavegen.inpainting.holes import Hole
from wavegen.mel import LogMel, MelSpec
from wavegen.models._damage import known_shares
from wavegen.models.inpainter import KEPT

LONG_S = 0.1  # the expectation of shorter holes is sharp enough
SEARCHED_S = 10.0  # searched on each side of a hole, and in a stream before it
NEIGHBOURS = 3  # known frames on each side of a hole that are compared too
CERTAIN = 0.2  # the expectation of a frame is sharp if at least this share of it is known

# A stream does not say how long its hole will be.
FIRST_REPLACED = 2  # the first uncertain frame stays as expected, because the hole may end with it
MOST_COMPARED = 12  # more frames would be similar in fewer places
AFTER = 6  # whole frames that follow the chosen one, to fill the rest of the hole


class RecordedFrames(NamedTuple):
    """The frames of a recording with holes.

    Attributes:
        mel: log-mel ``[n_mels, frames]``.
        is_whole: bool ``[frames]``, True where a frame counts as known.
    """

    mel: np.ndarray
    is_whole: np.ndarray


def is_long(hole: Hole, sample_rate_hz: int) -> bool:
    """Whether a hole lasts 100 ms or more, so that its frames are replaced."""
    return hole.stop - hole.start >= LONG_S * sample_rate_hz


def recorded_frames(sound: Tensor, lost: Tensor, mel: MelSpec) -> RecordedFrames:
    """The frames of a sound at the mel's sample rate, ``[1, frames * hop_length]``; ``lost`` is True in its holes."""
    shares = known_shares(lost, mel)[0, 0].numpy()
    found = LogMel(mel)(sound)[0, :, : len(shares)].numpy()
    # The windows of the frames at both ends reach beyond the sound.
    at_end = mel.n_fft // mel.hop_length
    inside = (np.arange(len(shares)) >= at_end) & (np.arange(len(shares))[::-1] >= at_end)
    return RecordedFrames(found, (shares >= KEPT) & inside & np.isfinite(found).all(axis=0))


def with_exemplars(
    expected: Tensor, shares: Tensor, holes: list[Hole], recorded: RecordedFrames, mel: MelSpec
) -> Tensor:
    """Replace the frames of long holes, each by the consecutive frames of the recording that come closest to them.

    Args:
        expected: the completed log-mel, ``[1, n_mels, frames]``.
        shares: the share of each frame that is known, ``[1, 1, frames]``.
        holes: the holes, in samples from the first frame on.
        recorded: frames of the recording nearby.
        mel: the mel definition.

    Returns:
        ``[1, n_mels, frames]``. A hole stays as expected if the recording has no run of whole frames of its length.
    """
    replaced, share_of_frame = expected[0].numpy().copy(), shares[0, 0].numpy()
    long = [hole for hole in holes if is_long(hole, mel.sample_rate_hz)]
    centres = [(hole.start + hole.stop) // 2 // mel.hop_length for hole in long]
    for start, stop in runs(share_of_frame < KEPT):
        if not any(start <= centre < stop for centre in centres):
            continue
        first, last = max(0, start - NEIGHBOURS), min(len(share_of_frame), stop + NEIGHBOURS)
        found = _closest(replaced[:, first:last], recorded)
        if found is None:
            continue
        # At the hole's edges a part of each frame is known, so the expectation is sharp there and stays.
        certain = np.clip(share_of_frame[start:stop] / CERTAIN, 0, 1)
        exemplar = recorded.mel[:, found + start - first : found + stop - first]
        replaced[:, start:stop] = (1 - certain) * exemplar + certain * replaced[:, start:stop]
    return torch.from_numpy(replaced)[None]


class LiveExemplars:
    """Replaces frames of a stream as ``with_exemplars`` does, by frames that have passed.

    The frames before a hole, and the first that are expected in it, are compared with those that have passed. From the
    closest ones on, the hole goes on as the stream did then.

    Args:
        mel: the mel definition.
    """

    def __init__(self, mel: MelSpec) -> None:
        kept = round(SEARCHED_S * mel.sample_rate_hz / mel.hop_length)
        self._past = RecordedFrames(np.zeros((mel.n_mels, kept), np.float32), np.zeros(kept, dtype=bool))
        self._missing = 0  # frames of the hole so far
        self._chosen: int | None = None  # the past frame that takes the place of the next one

    def step(self, expected: Tensor, share: float) -> Tensor:
        """Replace the next frame, if it is deep in a hole.

        Args:
            expected: the completed log-mel, ``[1, n_mels, 1]``.
            share: the share of the frame that is known.

        Returns:
            ``[1, n_mels, 1]``.
        """
        frame = expected[0, :, 0].numpy()
        self._missing = self._missing + 1 if share < CERTAIN else 0
        self._chosen = self._found(frame) if self._missing >= FIRST_REPLACED else None
        if self._chosen is not None:
            certain = np.float32(share / CERTAIN)
            frame = (1 - certain) * self._past.mel[:, self._chosen] + certain * frame

        # All frames move by one place, so the frame after the chosen one is now where that one was.
        mel, is_whole = self._past
        self._past = RecordedFrames(
            np.concatenate((mel[:, 1:], frame[:, None]), axis=1), np.append(is_whole[1:], share >= KEPT)
        )
        return torch.from_numpy(frame)[None, :, None]

    def _found(self, frame: np.ndarray) -> int | None:
        """The place of the past frame that follows the last chosen one, or else that matches the last frames best."""
        if self._chosen is not None and self._past.is_whole[self._chosen]:
            return self._chosen
        count = min(self._missing + NEIGHBOURS, MOST_COMPARED)
        wanted = np.concatenate((self._past.mel[:, 1 - count :], frame[:, None]), axis=1)
        first = _closest(wanted, self._past, after=AFTER)
        return None if first is None else first + count - 1


def _closest(wanted: np.ndarray, recorded: RecordedFrames, after: int = 0) -> int | None:
    """The first of the consecutive whole frames that are closest to ``[n_mels, frames]``; None if there are too few.

    At least ``after`` further whole frames follow them.
    """
    length = wanted.shape[1]
    if length + after > recorded.is_whole.size:
        return None
    possible = np.flatnonzero(sliding_window_view(recorded.is_whole, length + after).all(axis=1))
    if not possible.size:
        return None
    distances = sum(np.abs(recorded.mel[:, possible + i] - wanted[:, i : i + 1]).mean(axis=0) for i in range(length))
    return int(possible[np.argmin(distances)])
