"""Long holes get frames that the recording has: the closest ones, whole ones, and only where nothing is known."""

import numpy as np
import pytest
import torch

from wavegen.inpainting import Hole
from wavegen.inpainting.exemplars import AFTER, CERTAIN, LiveExemplars, RecordedFrames, recorded_frames, with_exemplars
from wavegen.mel import profile
from wavegen.models._damage import known_shares

MEL = profile("bigvgan-24k")
HOP, FRAMES = MEL.hop_length, 40
LONG, SHORT = Hole(15 * HOP, 25 * HOP), Hole(15 * HOP, 24 * HOP)  # 107 and 96 ms


def shares_of(hole: Hole) -> torch.Tensor:
    lost = torch.zeros(1, FRAMES * HOP, dtype=torch.bool)
    lost[:, hole.start : hole.stop] = True
    return known_shares(lost, MEL)


@pytest.fixture
def true() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(MEL.n_mels, FRAMES)).astype(np.float32)


@pytest.fixture
def blurred(true: np.ndarray) -> torch.Tensor:
    """What an inpainter expects: a fifth of the truth."""
    return torch.from_numpy(0.2 * true)[None]


def recording_of(true: np.ndarray, at: int, *, whole: bool = True) -> RecordedFrames:
    """A recording that has the true frames from frame ``at`` on, among others."""
    mel = np.random.default_rng(1).normal(size=(MEL.n_mels, 200)).astype(np.float32)
    mel[:, at : at + FRAMES] = true
    is_whole = np.ones(200, dtype=bool)
    is_whole[at + 20] = whole
    return RecordedFrames(mel, is_whole)


def replaced(expected: torch.Tensor, hole: Hole, recorded: RecordedFrames) -> np.ndarray:
    return with_exemplars(expected, shares_of(hole), [hole], recorded, MEL)[0].numpy()


@pytest.mark.parametrize("at", [0, 77, 160])
def test_the_closest_frames_replace_unknown_ones(true: np.ndarray, blurred: torch.Tensor, at: int) -> None:
    share = shares_of(LONG)[0, 0].numpy()
    found = replaced(blurred, LONG, recording_of(true, at))
    unknown, known = share == 0, share >= CERTAIN
    partly = ~unknown & ~known
    assert unknown.sum() == 6
    assert partly.sum() == 4
    assert np.array_equal(found[:, unknown], true[:, unknown])
    assert np.array_equal(found[:, known], blurred[0].numpy()[:, known])
    certain = share[partly] / CERTAIN
    assert np.allclose(found[:, partly], (1 - certain + 0.2 * certain) * true[:, partly], atol=1e-6)


def test_frames_with_something_missing_are_not_taken(true: np.ndarray, blurred: torch.Tensor) -> None:
    found = replaced(blurred, LONG, recording_of(true, 77, whole=False))
    unknown = shares_of(LONG)[0, 0].numpy() == 0
    assert np.abs(found - true)[:, unknown].mean() > 0.5


def test_shorter_holes_stay_as_expected(true: np.ndarray, blurred: torch.Tensor) -> None:
    assert np.array_equal(replaced(blurred, SHORT, recording_of(true, 77)), blurred[0])


@pytest.mark.parametrize("length", [0, 10, 16])
def test_a_recording_without_enough_whole_frames_leaves_what_is_expected(blurred: torch.Tensor, length: int) -> None:
    few = RecordedFrames(np.zeros((MEL.n_mels, length), np.float32), np.ones(length, dtype=bool))
    assert np.array_equal(replaced(blurred, LONG, few), blurred[0])
    none = RecordedFrames(np.zeros((MEL.n_mels, 200), np.float32), np.arange(200) % 10 > 0)
    assert np.array_equal(replaced(blurred, LONG, none), blurred[0])


def test_frames_that_lost_samples_change_are_not_whole() -> None:
    sound, lost = torch.randn(1, 20 * HOP), torch.zeros(1, 20 * HOP, dtype=torch.bool)
    lost[:, 10 * HOP : 11 * HOP] = True
    frames, changed = (recorded_frames(x, lost, MEL) for x in (sound, torch.where(lost, -sound, sound)))
    difference = np.abs(changed.mel - frames.mel).mean(axis=0)
    assert frames.mel.shape == (MEL.n_mels, 20)
    assert frames.is_whole.sum() == 7
    assert not frames.is_whole[[0, 1, 2, 3, -4, -3, -2, -1]].any()  # their windows reach beyond the sound
    assert difference[frames.is_whole].max() < 0.02 < 0.1 < difference.max()


def test_frames_that_are_not_finite_are_not_whole() -> None:
    sound = torch.randn(1, 20 * HOP)
    sound[:, 8 * HOP] = float("nan")
    frames = recorded_frames(sound, torch.zeros(1, 20 * HOP, dtype=torch.bool), MEL)
    assert np.isfinite(frames.mel[:, frames.is_whole]).all()
    assert frames.is_whole.any()


def live(frames: np.ndarray, expected: np.ndarray, lost: slice) -> np.ndarray:
    """A stream of frames ``[n_mels, frames]``, of which nothing is known in ``lost``; the frames that come out."""
    exemplars = LiveExemplars(MEL)
    missing = range(frames.shape[1])[lost]
    return np.stack(
        [
            exemplars.step(
                torch.from_numpy(expected[:, i] if i in missing else frames[:, i])[None, :, None],
                share=0.0 if i in missing else 1.0,
            )[0, :, 0].numpy()
            for i in range(frames.shape[1])
        ],
        axis=1,
    )


def test_frames_of_a_stream_are_replaced_by_those_that_followed_before(true: np.ndarray) -> None:
    frames = np.concatenate((true, true), axis=1)
    lost = slice(FRAMES + 10, FRAMES + 25)
    expected = 0.2 * frames
    expected[:, lost.start + 3 : lost.stop] = true[:, 25 : 25 + 12]  # which does not count any more
    found = live(frames, expected, lost)
    assert np.array_equal(found[:, lost.start + 1 : lost.stop], frames[:, lost.start + 1 : lost.stop])
    assert np.array_equal(found[:, lost.start], 0.2 * frames[:, lost.start])  # a shorter hole may end here
    for known in (slice(0, lost.start), slice(lost.stop, None)):
        assert np.array_equal(found[:, known], frames[:, known])


def test_a_frame_of_which_a_little_is_known_is_replaced_in_part(true: np.ndarray) -> None:
    frames = torch.from_numpy(np.concatenate((true, true[:, :10], 0.2 * true[:, 10:12]), axis=1))[None]
    shares = [*[1.0] * (FRAMES + 9), 0.5, 0.1, CERTAIN / 4]
    exemplars = LiveExemplars(MEL)
    found = [exemplars.step(frames[..., i : i + 1], share) for i, share in enumerate(shares)]
    assert torch.equal(found[-2], frames[..., -2:-1])  # the first that is not certain
    assert np.allclose(found[-1][0, :, 0], (0.75 + 0.25 * 0.2) * true[:, 11], atol=1e-6)


def test_nothing_is_replaced_before_enough_frames_have_passed(true: np.ndarray) -> None:
    lost = slice(AFTER, 2 * AFTER)
    assert np.array_equal(live(true, 0.2 * true, lost)[:, lost], 0.2 * true[:, lost])


def test_a_hole_that_outlasts_what_followed_before_goes_on_elsewhere(true: np.ndarray) -> None:
    """The second hole begins like the first pass, and reaches the place at which that has a hole."""
    frames = np.concatenate((true, true), axis=1)
    exemplars = LiveExemplars(MEL)
    out = []
    for i in range(2 * FRAMES):
        share = 0.0 if 20 <= i < 24 or i >= FRAMES + 10 else 1.0
        frame = 0.2 * frames[:, i] if share == 0 else frames[:, i]
        out.append(exemplars.step(torch.from_numpy(frame)[None, :, None], share)[0, :, 0].numpy())
    second = np.stack(out, axis=1)[:, FRAMES + 11 : FRAMES + 30]
    known = np.concatenate((true[:, :20], true[:, 24:]), axis=1)
    for column in second.T:
        assert np.abs(known - column[:, None]).max(axis=0).min() == 0
