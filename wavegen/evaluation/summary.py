"""Scores of many clips: means with intervals, tables, and files."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wavegen.evaluation.metrics import METRICS, SHORT_LIST, missing_note
from wavegen.evaluation.scoring import ScoredClip
from wavegen.files import atomic_write
from wavegen.tables import text_table

LEVEL = 0.95
RESAMPLES = 2000
SEED = 0


@dataclass(frozen=True)
class Interval:
    """A mean over ``count`` clips, and its 95 % interval from ``low`` to ``high``."""

    mean: float
    low: float
    high: float
    count: int


Summary = Mapping[str, Mapping[str, Interval]]
"""System -> metric key -> interval."""


def interval(scores: Sequence[float]) -> Interval:
    """Mean of one score per clip, with its 95 % bootstrap interval: percentiles of the means of 2000 resamples.

    The resamples are the same each time (Efron and Tibshirani, 1993, ch. 13). For a single clip, both ends are its
    score, which says nothing about other clips.
    """
    values = np.asarray(scores, dtype=np.float64)
    random = np.random.default_rng(SEED)
    means = [values[random.integers(len(values), size=len(values))].mean() for _ in range(RESAMPLES)]
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(values.mean()), float(low), float(high), len(values))


def summarize(clips: Sequence[ScoredClip]) -> dict[str, dict[str, Interval]]:
    """Intervals over the clips that have a score, by system and metric; a metric without any score is omitted.

    The clips are sorted by name first, so that the intervals do not depend on their order.
    """
    collected: dict[str, dict[str, list[float]]] = {}
    for system in dict.fromkeys(system for clip in clips for system in clip.scores):
        collected[system] = {}
    for clip in sorted(clips, key=lambda clip: clip.name):
        for system, scores in clip.scores.items():
            for key, value in scores.values.items():
                if value is not None:
                    collected[system].setdefault(key, []).append(value)
    return {
        system: {key: interval(columns[key]) for key in METRICS if key in columns}
        for system, columns in collected.items()
    }


def as_numbers(summary: Summary) -> dict[str, dict[str, dict[str, float]]]:
    """System -> metric key -> ``mean``, ``low``, ``high`` and ``count``, for files and the listening page."""
    return {system: {key: asdict(entry) for key, entry in columns.items()} for system, columns in summary.items()}


def write_scores(path: Path, clips: Sequence[ScoredClip], metrics: Sequence[str]) -> None:
    """Write a comma-separated row for each clip and system.

    Scores have six digits; a cell is empty where there is no score, and the last column gives the reason.
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
            key: {name: value if name == "count" else float(f"{value:.6g}") for name, value in numbers.items()}
            for key, numbers in columns.items()
        }
        for system, columns in as_numbers(summary).items()
    }
    bootstrap = {"level": LEVEL, "method": "percentile bootstrap over clips", "resamples": RESAMPLES, "seed": SEED}
    with atomic_write(path) as beside:
        text = json.dumps({**about, "interval": bootstrap, "systems": systems}, indent=1, ensure_ascii=False)
        beside.write_text(text + "\n", encoding="utf-8")


def full_table(summary: Summary, clips: int) -> str:
    """A table of all metrics: a row per metric, a column per system, each cell with its interval.

    A cell gives the count of its clips if it does not cover all ``clips``.
    """
    systems = list(summary)
    table = [["", *systems]]
    for key, metric in METRICS.items():
        if any(key in columns for columns in summary.values()):
            table.append([metric.heading, *(_cell(summary[system].get(key), clips) for system in systems)])
    return text_table(table)


def short_table(clips: Sequence[ScoredClip]) -> str:
    """A table of the short list of metrics: a row per system, followed by notes on missing scores."""
    summary = summarize(clips)
    scored = {key for clip in clips for scores in clip.scores.values() for key in scores.values}
    shown = [key for key in SHORT_LIST if key in scored]
    table = [["", *(METRICS[key].heading for key in shown), "clips"]]
    notes = []
    for system, columns in summary.items():
        count = sum(system in clip.scores for clip in clips)
        table.append([system, *(f"{columns[key].mean:.3f}" if key in columns else "-" for key in shown), str(count)])
        for key in shown:
            counted = columns[key].count if key in columns else 0
            if counted < count:
                notes.append(f"{METRICS[key].label} of {system} covers {counted} of {count} clips")
    if len(shown) < len(SHORT_LIST) and (note := missing_note()):
        notes.append(note)
    return "\n".join([text_table(table), *notes])


def _cell(entry: Interval | None, clips: int) -> str:
    if entry is None:
        return "-"
    count = f" ({entry.count} of {clips} clips)" if entry.count < clips else ""
    return f"{entry.mean:.3f} [{entry.low:.3f}, {entry.high:.3f}]{count}"
