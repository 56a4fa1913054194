"""Scores of labels whose faults are known."""

import math

import numpy as np
import pytest

from wavegen.corpora.frame_labels import UNLABELLED
from wavegen.evaluation.labels import confusion_figure, score_labels, scores_table
from wavegen.evaluation.pictures import figure_to_array
from wavegen.mel import profile

SPEC = profile("bigvgan-24k")
FRAME_MS = 1000 * 256 / 24000


def marks(*spans: tuple[int, int], frames: int = 200) -> np.ndarray:
    mark = np.zeros((1, frames), np.int8)
    for start, stop in spans:
        mark[0, start:stop] = 1
    return mark


def score(*pairs: tuple[np.ndarray, np.ndarray]):  # type: ignore[no-untyped-def]
    return score_labels(pairs, ["a"], SPEC, exclusive=False).classes["a"]


def test_equal_labels_have_the_best_scores() -> None:
    true = marks((20, 60), (100, 150))
    best = score((true, true))
    assert best.f1 == best.precision == best.recall == 1
    assert best.share == 90 / 200
    assert best.onsets == best.offsets == (0, 0, 0, 0)


def test_f1_counts_frames_as_scikit_learn_does() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    random = np.random.default_rng(0)
    pairs = [tuple((random.random((1, n)) < share).astype(np.int8) for share in (0.4, 0.6)) for n in (100, 37)]
    found = score(*pairs)  # type: ignore[arg-type]
    predicted, true = (np.concatenate([pair[side][0] for pair in pairs]) for side in (0, 1))
    reference = metrics.precision_recall_fscore_support(true, predicted, average="binary")
    assert np.allclose(reference[:3], (found.precision, found.recall, found.f1))


def test_boundaries_that_are_late_by_three_frames_say_so() -> None:
    late = score((marks((23, 61), (103, 151)), marks((20, 60), (100, 150))))
    assert late.onsets.error_ms == pytest.approx(3 * FRAME_MS)
    assert late.onsets.late_ms == pytest.approx(3 * FRAME_MS)
    assert late.offsets.late_ms == pytest.approx(FRAME_MS)
    early = score((marks((18, 60)), marks((20, 60))))
    assert early.onsets.late_ms == pytest.approx(-2 * FRAME_MS)
    assert early.onsets.error_ms == pytest.approx(2 * FRAME_MS)


def test_missed_and_false_boundaries_are_counted() -> None:
    true = marks((20, 60), (100, 150))
    one = score((marks((20, 60)), true))
    assert (one.onsets.missed, one.onsets.false) == (0.5, 0)
    split = score((marks((20, 60), (100, 110), (112, 150)), true))
    assert (split.onsets.missed, split.onsets.false) == (0, 0.5)
    far = score((marks((60, 100)), marks((20, 59))))
    assert (far.onsets.missed, far.onsets.false) == (1, 1)
    assert math.isnan(far.onsets.error_ms)


def test_the_ends_of_a_recording_are_not_boundaries() -> None:
    whole = marks((0, 200))
    assert score((whole, whole)).onsets.missed == 0
    assert score((marks((0, 100)), whole)).onsets == pytest.approx((math.nan, math.nan, 0, 0), nan_ok=True)


def test_frames_that_nobody_labelled_do_not_count() -> None:
    true = marks((20, 60))
    true[0, 100:] = UNLABELLED
    found = marks((20, 60), (120, 150))
    assert score((found, true)).f1 == 1
    assert score((found, true)).onsets.false == 0
    assert score((found, true)).share == 0.4


def test_a_class_that_neither_has_is_right() -> None:
    nothing = marks()
    assert score((nothing, nothing)).f1 == 1
    assert score((marks((0, 10)), nothing)).f1 == 0


def test_confusion_counts_true_rows_and_found_columns() -> None:
    true = np.array([[1, 1, 1, 0, UNLABELLED], [0, 0, 0, 1, UNLABELLED]], np.int8)
    found = np.array([[1, 1, 0, 0, 1], [0, 0, 1, 1, 0]], np.int8)
    names, counts = score_labels([(found, true)], "ab", SPEC, exclusive=True).confusion["classes"]
    assert list(names) == ["a", "b"]
    assert counts.tolist() == [[2, 1], [0, 1]]
    tables = score_labels([(found, true)], "ab", SPEC, exclusive=False).confusion
    assert tables["a"][1].tolist() == [[1, 0], [1, 2]]
    assert tables["b"][1].tolist() == [[2, 1], [0, 1]]


def test_scores_are_shown_as_a_table_and_a_picture() -> None:
    true = marks((20, 60))
    scores = score_labels([(marks((23, 60)), true)], ["a"], SPEC, exclusive=False)
    table = scores_table({"level": scores}).splitlines()
    assert len(table) == 2
    assert "0.961" in table[1]
    assert "32 (+32)" in table[1]
    picture = figure_to_array(confusion_figure(scores))
    assert picture.std() > 10
