"""Long holes: frames that the recording itself has, in place of the blurred ones that the inpainter expects.

The longer a hole, the more sounds it may have had, and what the inpainter expects becomes a mean of them that nobody
has ever spoken. The recording has real frames. Those that come closest to the expectation, and to what is known beside
the hole, sound better, though their mel is further from the lost one. Bahat, Schechner & Elad 2015, Self-content-based
audio inpainting, copy samples in the same way.
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
SEARCHED_S = 30.0  # of the recording, on both sides of a hole
NEIGHBOURS = 3  # known frames on either side of a hole that are compared too
CERTAIN = 0.2  # share of a frame that is known from which on the expectation is sharp


class RecordedFrames(NamedTuple):
    """The frames of a recording with holes.

    Attributes:
        mel: log-mel ``[n_mels, frames]``.
        is_whole: bool ``[frames]``, True where a frame counts as known.
    """

    mel: np.ndarray
    is_whole: np.ndarray


def is_long(hole: Hole, sample_rate_hz: int) -> bool:
    """Whether the inpainter's expectation of a hole is replaced."""
    return hole.stop - hole.start >= LONG_S * sample_rate_hz


def recorded_frames(sound: Tensor, lost: Tensor, mel: MelSpec) -> RecordedFrames:
    """The frames of a sound at the mel's sample rate, ``[1, frames * hop_length]``; ``lost`` is True in its holes."""
    shares = known_shares(lost, mel)[0, 0].numpy()
    found = LogMel(mel)(sound)[0, :, : len(shares)]
    return RecordedFrames(found.numpy(), shares >= KEPT)


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
        ``[1, n_mels, frames]``; where the recording has no run of whole frames that is long enough, as expected.
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
        # At the hole's edges, where a part of the frame is known, the expectation is sharp and stays.
        weight = np.clip(1 - share_of_frame[start:stop] / CERTAIN, 0, 1)
        exemplar = recorded.mel[:, found + start - first : found + stop - first]
        replaced[:, start:stop] += weight * (exemplar - replaced[:, start:stop])
    return torch.from_numpy(replaced)[None]


def _closest(wanted: np.ndarray, recorded: RecordedFrames) -> int | None:
    """The first of the consecutive whole frames that are closest to ``[n_mels, frames]``; None if there are too few."""
    length = wanted.shape[1]
    if length > recorded.is_whole.size:
        return None
    possible = sliding_window_view(recorded.is_whole, length).all(axis=1)
    distances = np.where(possible, 0.0, np.inf)
    for i in range(length):
        distances += np.abs(recorded.mel[:, i : i + possible.size] - wanted[:, i : i + 1]).mean(axis=0)
    return int(distances.argmin()) if possible.any() else None
