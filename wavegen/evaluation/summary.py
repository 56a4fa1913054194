"""Scores of many clips as means with intervals, tables, and files."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wavegen.evaluation.metrics import METRICS, SHORT_LIST, missing_note
from wavegen.evaluation.scoring import ScoredClip
from wavegen.files import write_beside
from wavegen.listening.report import Interval

LEVEL, RESAMPLES, SEED = 0.95, 2000, 0
Summary = Mapping[str, Mapping[str, Interval]]


def interval(scores: Sequence[float]) -> Interval:
    """Mean of one score a clip, with its 95 % interval: percentiles of the means of 2000 resamples of the clips.

    The resamples are the same each time (Efron and Tibshirani, 1993, ch. 13). Of a single clip, both ends are its
    score: it says nothing about others.
    """
    values = np.asarray(scores, dtype=np.float64)
    random = np.random.default_rng(SEED)
    means = [values[random.integers(len(values), size=len(values))].mean() for _ in range(RESAMPLES)]
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(values.mean()), float(low), float(high), len(values))


def summarize(clips: Sequence[ScoredClip]) -> dict[str, dict[str, Interval]]:
    """System -> metric key -> interval, over the clips that have a score; a metric without any is left out.

    The clips are taken in the order of their names, so that the intervals do not depend on the order they came in.
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


def write_scores(path: Path, clips: Sequence[ScoredClip], metrics: Sequence[str]) -> None:
    """A comma-separated row for each clip and system: six digits, an empty cell where there is no score, and why."""
    systems = dict.fromkeys(system for clip in clips for system in clip.scores)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["clip", "system", *metrics, "notes"])
    for clip in clips:
        for system in systems:
            values = clip.scores[system].values if system in clip.scores else {}
            cells = ["" if (value := values.get(key)) is None else f"{value:.6g}" for key in metrics]
            writer.writerow([clip.name, system, *cells, clip.note(system) if values else "no output"])
    with write_beside(path) as beside:
        beside.write_text(text.getvalue(), encoding="utf-8")


def write_summary(path: Path, summary: Summary, **about: Any) -> None:
    """Means, intervals and counts as JSON, after what they are ``about``."""
    systems = {
        system: {
            key: {"mean": _digits(of.mean), "low": _digits(of.low), "high": _digits(of.high), "count": of.count}
            for key, of in columns.items()
        }
        for system, columns in summary.items()
    }
    bootstrap = {"level": LEVEL, "method": "percentile bootstrap over clips", "resamples": RESAMPLES, "seed": SEED}
    with write_beside(path) as beside:
        text = json.dumps({**about, "interval": bootstrap, "systems": systems}, indent=1, ensure_ascii=False)
        beside.write_text(text + "\n", encoding="utf-8")


def full_table(summary: Summary, clips: int) -> str:
    """All metrics, a row each, with the interval and, where it is not of all clips, the count below each mean."""
    systems = list(summary)
    table = [["", *systems]]
    for key in METRICS:
        if not any(key in columns for columns in summary.values()):
            continue
        row = [METRICS[key].heading]
        for system in systems:
            of = summary[system].get(key)
            row.append(_cell(of, clips) if of else "-")
        table.append(row)
    return _aligned(table)


def short_table(clips: Sequence[ScoredClip]) -> str:
    """The short list of metrics, a row for each system; what kept a column or a clip out is said below."""
    summary = summarize(clips)
    scored = {key for clip in clips for scores in clip.scores.values() for key in scores.values}
    shown = [key for key in SHORT_LIST if key in scored]
    table, notes = [["", *(METRICS[key].heading for key in shown), "clips"]], []
    for system, columns in summary.items():
        count = sum(system in clip.scores for clip in clips)
        table.append([system, *(f"{columns[key].mean:.3f}" if key in columns else "-" for key in shown), str(count)])
        for key in shown:
            counted = columns[key].count if key in columns else 0
            if counted < count:
                notes.append(f"{METRICS[key].label} of {system} is of {counted} of {count} clips")
    note = missing_note() if len(shown) < len(SHORT_LIST) else None
    return "\n".join([_aligned(table), *notes, *([note] if note else [])])


def _cell(of: Interval, clips: int) -> str:
    count = f" ({of.count} clips)" if of.count < clips else ""
    return f"{of.mean:.3f} [{of.low:.3f}, {of.high:.3f}]{count}"


def _digits(value: float) -> float:
    return float(f"{value:.6g}")


def _aligned(table: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))])
        for row in table
    )
