"""Labels of frames: where a frame belongs, what gaps are, and the way back to seconds."""

import numpy as np
import pytest
from support.messages import Messages

from wavegen.audio.runs import runs
from wavegen.corpora.frame_labels import UNLABELLED, frame_labels, labels_of
from wavegen.corpora.label_files import Label
from wavegen.errors import DataError
from wavegen.mel import LogMel, MelSpec, profile

SPEC, CENTRED = profile("bigvgan-24k"), profile("vocos-24k")
RATE = SPEC.sample_rate_hz


def marked(*labels: Label, spec: MelSpec = SPEC, samples: int = RATE, **options: object) -> np.ndarray:
    return frame_labels(labels, ("a", "b"), spec, samples, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("spec", [SPEC, CENTRED])
def test_a_label_covers_the_frames_whose_energy_lies_in_it(spec: MelSpec) -> None:
    """A click is loudest in one frame; a label around the click covers that frame, and none that is far from it."""
    import torch

    for place in (3000, 3128, 10000):
        samples = np.zeros(RATE, np.float32)
        samples[place] = 1
        loudest = int(LogMel(spec)(torch.from_numpy(samples)[None])[0].mean(0).argmax())
        around = Label((place - 130) / RATE, (place + 130) / RATE, "a")
        found = np.flatnonzero(marked(around, spec=spec)[0] == 1)
        assert loudest in found
        assert len(found) <= 2


def test_gaps_are_unlabelled_or_the_background_or_none_of_the_classes() -> None:
    label = Label(0.2, 0.4, "a")
    inside = marked(label)[0] == 1
    assert 18 <= inside.sum() <= 19
    assert (marked(label)[:, ~inside] == UNLABELLED).all()
    assert (marked(label)[1, inside] == 0).all()
    with_background = marked(label, background="b")
    assert (with_background[1] == ~inside).all()
    assert (with_background.sum(axis=0) == 1).all()
    assert (marked(label, exclusive=False) == np.stack([inside, np.zeros_like(inside)])).all()


def test_independent_classes_overlap() -> None:
    both = marked(Label(0, 0.6, "a"), Label(0.4, 1.0, "b"), exclusive=False)
    assert (both.sum(axis=0) == 2).any()
    assert both.shape == (2, SPEC.frames(RATE))


def test_a_label_that_is_not_a_class_or_not_of_this_recording_is_refused(messages: Messages) -> None:
    with messages.refused(DataError):
        marked(Label(0, 1, "aa"))
    with messages.refused(DataError):
        marked(Label(1.0, 1.5, "a"))


@pytest.mark.parametrize("spec", [SPEC, CENTRED])
def test_frames_of_labels_are_the_same_after_the_way_back(spec: MelSpec) -> None:
    random = np.random.default_rng(0)
    for samples in (RATE, RATE + 100, spec.min_samples):
        marks = (random.random((2, spec.frames(samples))) < 0.5).astype(np.int8)
        labels = labels_of(marks, ("a", "b"), spec, samples)
        assert (marked(*labels, spec=spec, samples=samples, exclusive=False) == marks).all()
        assert all(0 <= label.start_s < label.end_s <= samples / RATE for label in labels)


def test_labels_end_half_way_between_frames_and_at_the_ends_of_the_recording() -> None:
    marks = np.zeros((2, SPEC.frames(RATE)), np.int8)
    marks[0, :10] = 1
    marks[1, -10:] = 1
    first, last = labels_of(marks, ("a", "b"), SPEC, RATE)
    assert first == Label(0.0, 10 * 256 / RATE, "a")  # frame 10 of these frames begins at its own hop
    assert last.end_s == 1.0
    assert labels_of(marks, ("a", "b"), SPEC, RATE, background="b") == [first]


def test_runs_have_their_first_index_and_the_one_after_the_last() -> None:
    assert runs(np.array([True, True, False, True])) == [(0, 2), (3, 4)]
    assert runs(np.array([False])) == []
    assert runs(np.zeros(0, bool)) == []
