"""Scores of labels: which frames have the right class, and how far boundaries are off."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from wavegen.corpora.frame_labels import UNLABELLED
from wavegen.mel import MelSpec
from wavegen.tables import text_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MATCH_WITHIN_S = 0.25


class Boundaries(NamedTuple):
    """How far found boundaries are from true ones.

    A true and a found boundary match if each is the nearest of its kind to the other, and they are within 0.25 s.

    Attributes:
        error_ms: the median distance of those that match; NaN if none does.
        late_ms: the median of the signed distance, above 0 if the found ones are late.
        missed: the share of true boundaries without a match.
        false: the number of found boundaries without a match, as a share of the true ones.
    """

    error_ms: float
    late_ms: float
    missed: float
    false: float


class ClassScores(NamedTuple):
    """Scores of one class.

    Attributes:
        share: the share of labelled frames that have the class.
        precision, recall, f1: scores over all labelled frames; 1 if no frame has the class, and none was found.
        onsets, offsets: the beginnings and ends of the class.
    """

    share: float
    precision: float
    recall: float
    f1: float
    onsets: Boundaries
    offsets: Boundaries


@dataclass(frozen=True)
class LabelScores:
    """Scores of the labels of many recordings.

    Attributes:
        classes: the scores of each class.
        confusion: true and found classes in order, and the number of frames ``[true, found]``, by title. If classes
            exclude each other there is one table, otherwise one for each class.
    """

    classes: Mapping[str, ClassScores]
    confusion: Mapping[str, tuple[Sequence[str], np.ndarray]]


def score_labels(
    pairs: Iterable[tuple[np.ndarray, np.ndarray]], classes: Sequence[str], spec: MelSpec, *, exclusive: bool
) -> LabelScores:
    """Score found labels against true ones. All frames count alike, whatever recording they are from.

    Args:
        pairs: found and true labels of each recording, int8 ``[classes, frames]`` as from ``frame_labels``; frames
            that are unlabelled in the truth are not counted.
        classes: names of the classes.
        spec: the mel definition of the frames.
        exclusive: whether a frame has exactly one class.
    """
    found_marks, true_marks, edges = [], [], [0]
    for found, true in pairs:
        found_marks.append(found)
        true_marks.append(true)
        edges.append(edges[-1] + true.shape[1])
    frame_ms = 1000 * spec.hop_length / spec.sample_rate_hz
    scores = {}
    for index, name in enumerate(classes):
        rows = [(found[index], true[index]) for found, true in zip(found_marks, true_marks, strict=True)]
        scores[name] = _score_class(rows, frame_ms)
    found, true = (np.concatenate(marks, axis=1) for marks in (found_marks, true_marks))
    return LabelScores(scores, _confusion(found, true, classes, exclusive))


def _score_class(rows: Sequence[tuple[np.ndarray, np.ndarray]], frame_ms: float) -> ClassScores:
    found, true = (np.concatenate(marks) for marks in zip(*rows, strict=True))
    labelled = true != UNLABELLED
    has, gets = (true == 1) & labelled, (found == 1) & labelled
    hits = int((has & gets).sum())
    precision, recall = (hits / int(total.sum()) if total.any() else 1.0 for total in (gets, has))
    f1 = 2 * hits / (int(has.sum()) + int(gets.sum())) if (has | gets).any() else 1.0
    onsets, offsets = (_compare(rows, before, after, frame_ms) for before, after in ((0, 1), (1, 0)))
    return ClassScores(int(has.sum()) / max(1, int(labelled.sum())), precision, recall, f1, onsets, offsets)


def _compare(rows: Sequence[tuple[np.ndarray, np.ndarray]], before: int, after: int, frame_ms: float) -> Boundaries:
    """Compare the places where labels change from ``before`` to ``after``."""
    errors: list[float] = []
    true_count = found_count = 0
    for found, true in rows:
        found_at, true_at = (np.flatnonzero((mark[:-1] == before) & (mark[1:] == after)) + 1 for mark in (found, true))
        # What is found next to frames that nobody labelled is neither right nor wrong.
        found_at = found_at[(true[found_at] != UNLABELLED) & (true[found_at - 1] != UNLABELLED)]
        true_count, found_count = true_count + len(true_at), found_count + len(found_at)
        if not len(found_at) or not len(true_at):
            continue
        distance = found_at[None] - true_at[:, None]
        nearest_found = np.abs(distance).argmin(axis=1)
        nearest_true = np.abs(distance).argmin(axis=0)
        for index, other in enumerate(nearest_found):
            late_ms = distance[index, other] * frame_ms
            if nearest_true[other] == index and abs(late_ms) <= 1000 * MATCH_WITHIN_S:
                errors.append(late_ms)
    if true_count == 0:
        return Boundaries(math.nan, math.nan, 0.0, math.inf if found_count else 0.0)
    missed, false = 1 - len(errors) / true_count, (found_count - len(errors)) / true_count
    if not errors:
        return Boundaries(math.nan, math.nan, missed, false)
    return Boundaries(float(np.median(np.abs(errors))), float(np.median(errors)), missed, false)


def _confusion(
    found: np.ndarray, true: np.ndarray, classes: Sequence[str], exclusive: bool
) -> dict[str, tuple[Sequence[str], np.ndarray]]:
    labelled = (true != UNLABELLED).all(axis=0)
    found, true = found[:, labelled] == 1, true[:, labelled] == 1
    if exclusive:
        counts = true.astype(np.int64) @ found.astype(np.int64).T
        return {"classes": (classes, counts)}
    tables: dict[str, tuple[Sequence[str], np.ndarray]] = {}
    for name, has, gets in zip(classes, true, found, strict=True):
        counts = np.array([[int((a & b).sum()) for b in (~gets, gets)] for a in (~has, has)])
        tables[name] = ((f"no {name}", name), counts)
    return tables


def scores_table(systems: Mapping[str, LabelScores]) -> str:
    """A table for the console: a row for each system and class."""
    header = ["", "class", "F1", "precision", "recall", "onset ms", "missed", "false", "offset ms", "missed", "false"]
    rows = [header]
    for system, scores in systems.items():
        for name, score in scores.classes.items():
            ends = [text for edge in (score.onsets, score.offsets) for text in _shown(edge)]
            rows.append([system, name, *(f"{part:.3f}" for part in (score.f1, score.precision, score.recall)), *ends])
    return text_table(rows, left_aligned=2)


def _shown(edge: Boundaries) -> tuple[str, str, str]:
    error = "-" if math.isnan(edge.error_ms) else f"{edge.error_ms:.0f} ({edge.late_ms:+.0f})"
    return error, f"{edge.missed:.2f}", f"{edge.false:.2f}"


def confusion_figure(scores: LabelScores) -> "Figure":
    """The confusion tables as a picture: the share of the frames of each true class, and their number."""
    from matplotlib.figure import Figure

    sizes = [max(2.6, 0.55 * len(names) + 1.4) for names, _ in scores.confusion.values()]
    figure = Figure(figsize=(sum(sizes) + 0.8, max(sizes)), dpi=110, layout="constrained")
    panels = figure.subplots(1, len(sizes), squeeze=False, width_ratios=sizes)[0]
    for panel, (title, (names, counts)) in zip(panels, scores.confusion.items(), strict=True):
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        panel.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        for row, column in np.ndindex(*counts.shape):
            text = f"{shares[row, column]:.1%}\n{counts[row, column]}"
            colour = "white" if shares[row, column] > 0.6 else "black"
            panel.text(column, row, text, ha="center", va="center", fontsize=8, color=colour)
        panel.set_xticks(range(len(names)), names, rotation=30, ha="right")
        panel.set_yticks(range(len(names)), names)
        panel.set_xlabel("found")
        panel.set_ylabel("true")
        panel.set_title(title, fontsize=10)
    return figure
