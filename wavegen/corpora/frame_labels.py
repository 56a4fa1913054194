"""Labels of the frames of a mel, from the labels of a recording and back."""

from collections.abc import Sequence

import numpy as np

from wavegen.audio.runs import runs
from wavegen.config import did_you_mean
from wavegen.corpora.label_files import Label
from wavegen.errors import DataError
from wavegen.mel import MelSpec

UNLABELLED = -1


def frame_centres(spec: MelSpec, frames: int) -> np.ndarray:
    """The sample in the middle of each frame's window, float64 ``[frames]``."""
    return np.arange(frames) * spec.hop_length + (spec.n_fft / 2 - spec.left_padding)


def frame_labels(
    labels: Sequence[Label],
    classes: Sequence[str],
    spec: MelSpec,
    samples: int,
    *,
    background: str | None = None,
    exclusive: bool = True,
) -> np.ndarray:
    """Which classes each frame of a recording has, by the label at the centre of its window.

    ::

        labels       |----- a -----|         |------ b ------|
        frames     |  0  |  1  |  2  |  3  |  4  |  5  |  6  |      the centre of frame 2 lies after the end of a
        a             1     1     ?     ?     0     0     0         ? = unlabelled, or the background class
        b             0     0     ?     ?     1     1     1

    Args:
        labels: the recording's labels, of which no two overlap.
        classes: the names of the classes.
        spec: the mel definition.
        samples: the length of the recording.
        background: the class of the frames between labels; None leaves them unlabelled. Only with ``exclusive``.
        exclusive: whether a frame has exactly one class. Otherwise each class is there or not, whatever the others
            are, and a frame between labels has none of them.

    Returns:
        int8 ``[classes, frames]``: 1 if the frame has the class, 0 if it does not, ``UNLABELLED`` if nobody knows.

    Raises:
        DataError: a label is not one of the classes, or starts after the recording's end.
    """
    times = frame_centres(spec, spec.frames(samples)) / spec.sample_rate_hz
    marks = np.zeros((len(classes), len(times)), dtype=np.int8)
    for label in labels:
        if label.name not in classes:
            raise DataError(f"the label {label.name!r} is not a class", remedy=did_you_mean(label.name, classes))
        if label.start_s >= samples / spec.sample_rate_hz:
            seconds = samples / spec.sample_rate_hz
            what = f"a label starts at {label.start_s:g} s, but the recording ends at {seconds:g} s"
            raise DataError(what, remedy="check that the labels belong to this recording")
        first, stop = np.searchsorted(times, (label.start_s, label.end_s))
        marks[classes.index(label.name), first:stop] = 1
    if exclusive:
        gaps = ~marks.any(axis=0)
        if background is None:
            marks[:, gaps] = UNLABELLED
        else:
            marks[classes.index(background), gaps] = 1
    return marks


def labels_of(
    marks: np.ndarray, classes: Sequence[str], spec: MelSpec, samples: int, *, background: str | None = None
) -> list[Label]:
    """The labels of a recording whose frames have these classes, by their start.

    A frame stands for the samples up to half a hop around the centre of its window, so labels begin and end half-way
    between frames; the first frame also for what lies before it, and the last one for what follows.

    Args:
        marks: ``[classes, frames]``, 1 where a frame has the class.
        classes: the names of the classes.
        spec: the mel definition.
        samples: the length of the recording.
        background: a class that gets no labels.
    """
    edges = (frame_centres(spec, marks.shape[1] + 1) - spec.hop_length / 2) / spec.sample_rate_hz
    edges[0], edges[-1] = 0.0, samples / spec.sample_rate_hz
    found = []
    for name, mark in zip(classes, marks == 1, strict=True):
        if name != background:
            found += [Label(float(edges[first]), float(edges[stop]), name) for first, stop in runs(mark)]
    return sorted(found)
