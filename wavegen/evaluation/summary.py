"""Scores of many clips: means with intervals, tables, and files."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from wavegen.evaluation.metrics import METRICS, SHORT_LIST, Metric, missing_note
from wavegen.evaluation.scoring import REFERENCE, ScoredClip
from wavegen.files import atomic_write
from wavegen.tables import text_table

LEVEL = 0.95
RESAMPLES = 2000
SEED = 0
FEWEST_FOR_INTERVAL = 6
"""Fewer clips do not give a 95 % interval: not even from the least to the greatest score. For a median, by the sign
test, that one is missed with probability 2 · 2^-n, which is below 5 % from six on."""


@dataclass(frozen=True)
class Interval:
    """A mean over ``count`` clips, and its 95 % interval from ``low`` to ``high``; None for too few clips.

    For a predictor, which reads the output alone, ``to_reference`` is the mean difference to the recordings, over the
    clips of which both have a score.
    """

    mean: float
    low: float | None
    high: float | None
    count: int
    to_reference: "Interval | None" = None


Summary = Mapping[str, Mapping[str, Interval]]
"""System -> metric key -> interval."""


def interval(scores: Sequence[float]) -> Interval:
    """Mean of one score per clip, with its 95 % bootstrap interval: percentiles of the means of 2000 resamples.

    The resamples are the same each time (Efron and Tibshirani, 1993, ch. 13). Fewer than ``FEWEST_FOR_INTERVAL`` clips
    have no interval, because they say too little about other clips.
    """
    values = np.asarray(scores, dtype=np.float64)
    if len(values) < FEWEST_FOR_INTERVAL:
        return Interval(float(values.mean()), None, None, len(values))
    random = np.random.default_rng(SEED)
    # Some at once, because NumPy's calls cost more than their arithmetic; not all, because of their memory.
    shape = (RESAMPLES // 20, len(values))
    means = [values[random.integers(len(values), size=shape)].mean(axis=1) for _ in range(20)]
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(values.mean()), float(low), float(high), len(values))


def summarize(clips: Sequence[ScoredClip]) -> dict[str, dict[str, Interval]]:
    """Intervals over the clips that have a score, by system and metric; a metric without any score is omitted.

    The clips are sorted by name first, so that the intervals do not depend on their order.
    """
    clips = sorted(clips, key=lambda clip: clip.name)
    summary: dict[str, dict[str, Interval]] = {}
    for system in dict.fromkeys(system for clip in clips for system in clip.scores):
        summary[system] = {}
        for key in METRICS:
            scores = _scores_by_clip(clips, system, key)
            if not scores:
                continue
            summary[system][key] = interval(list(scores.values()))

            # The differences are taken clip by clip, because clips differ more than systems do.
            recordings = {} if system == REFERENCE else _scores_by_clip(clips, REFERENCE, key)
            differences = [scores[clip] - recordings[clip] for clip in scores if clip in recordings]
            if differences:
                summary[system][key] = replace(summary[system][key], to_reference=interval(differences))
    return summary


def _scores_by_clip(clips: Sequence[ScoredClip], system: str, key: str) -> dict[str, float]:
    """Clip name -> a system's score, for the clips that have one."""
    scores = {clip.name: clip.scores[system].values.get(key) for clip in clips if system in clip.scores}
    return {clip: score for clip, score in scores.items() if score is not None}


def as_numbers(summary: Summary) -> dict[str, dict[str, dict[str, float | None]]]:
    """System -> metric key -> numbers of its interval, for files and the listening page.

    They are ``mean``, ``low``, ``high`` and ``count``; for a predictor also ``difference``, ``difference_low`` and
    ``difference_high``, the mean difference to the recordings and its interval. The ends of an interval are None for
    too few clips.
    """
    return {system: {key: _numbers(entry) for key, entry in columns.items()} for system, columns in summary.items()}


def _numbers(entry: Interval) -> dict[str, float | None]:
    numbers: dict[str, float | None] = {"mean": entry.mean, "low": entry.low, "high": entry.high, "count": entry.count}
    if (difference := entry.to_reference) is not None:
        numbers |= {
            "difference": difference.mean,
            "difference_low": difference.low,
            "difference_high": difference.high,
        }
    return numbers


def write_scores(path: Path, clips: Sequence[ScoredClip], metrics: Sequence[str]) -> None:
    """Write a comma-separated row for each clip and system.

    Scores have six digits; the cell of a missing score is empty, and the last column gives the reason.
    """
    systems = dict.fromkeys(system for clip in clips for system in clip.scores)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["clip", "system", *metrics, "notes"])
    for clip in clips:
        for system in systems:
            values = clip.scores[system].values if system in clip.scores else {}
            cells = ["" if (value := values.get(key)) is None else f"{value:.6g}" for key in metrics]
            writer.writerow([clip.name, system, *cells, clip.note(system) if values else "no output"])
    with atomic_write(path) as beside:
        beside.write_text(text.getvalue(), encoding="utf-8")


def write_summary(path: Path, summary: Summary, **about: Any) -> None:
    """Write means, intervals and counts as JSON, after the values in ``about``."""
    systems = {
        system: {
            key: {
                name: value if name == "count" or value is None else float(f"{value:.6g}")
                for name, value in numbers.items()
            }
            for key, numbers in columns.items()
        }
        for system, columns in as_numbers(summary).items()
    }
    bootstrap = {
        "level": LEVEL, "method": "percentile bootstrap over clips", "resamples": RESAMPLES, "seed": SEED,
        "fewest_clips": FEWEST_FOR_INTERVAL,
    }  # fmt: skip
    with atomic_write(path) as beside:
        text = json.dumps({**about, "interval": bootstrap, "systems": systems}, indent=1, ensure_ascii=False)
        beside.write_text(text + "\n", encoding="utf-8")


def full_table(summary: Summary, clips: int) -> str:
    """A table of all metrics: a row per metric, a column per system, each cell with its interval.

    A predictor has a second row, the difference to the recordings. A cell gives the count of its clips if it does not
    cover all ``clips``.
    """
    table = [["", *summary]]
    for key, metric in METRICS.items():
        entries = [columns.get(key) for columns in summary.values()]
        if any(entries):
            table.append([metric.heading, *(_cell(entry, clips) for entry in entries)])
        differences = [entry and entry.to_reference for entry in entries]
        if any(differences):
            table.append([_difference_heading(metric), *(_cell(difference, clips) for difference in differences)])
    return text_table(table)


def short_table(clips: Sequence[ScoredClip]) -> str:
    """A table of the short list of metrics: a row per system, followed by notes on missing scores."""
    summary = summarize(clips)
    scored = {key for clip in clips for scores in clip.scores.values() for key in scores.values}
    shown = [key for key in SHORT_LIST if key in scored]
    predictors = [key for key in shown if not METRICS[key].reads_reference]
    headings = [METRICS[key].heading for key in shown] + [_difference_heading(METRICS[key]) for key in predictors]
    table = [["", *headings, "clips"]]
    notes = []
    for system, columns in summary.items():
        count = sum(system in clip.scores for clip in clips)
        means = [f"{columns[key].mean:.3f}" if key in columns else "-" for key in shown]
        differences = [_cell(columns[key].to_reference if key in columns else None, 0) for key in predictors]
        table.append([system, *means, *differences, str(count)])
        for key in predictors if system == REFERENCE else shown:
            counted = columns[key].count if key in columns else 0
            if counted < count:
                notes.append(f"{METRICS[key].label} of {system} covers {counted} of {count} clips")
    if len(shown) < len(SHORT_LIST) and (note := missing_note()):
        notes.append(note)
    return "\n".join([text_table(table), *notes])


def _difference_heading(metric: Metric) -> str:
    return f"{metric.label} vs. {REFERENCE}"


def _cell(entry: Interval | None, clips: int) -> str:
    if entry is None:
        return "-"
    count = f" ({entry.count} of {clips} clips)" if entry.count < clips else ""
    ends = "" if entry.low is None else f" [{entry.low:.3f}, {entry.high:.3f}]"
    return f"{entry.mean:.3f}{ends}{count}"
