"""The listening page of an evaluation."""

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from wavegen.evaluation.metrics import Metric
from wavegen.files import write_beside


@dataclass(frozen=True)
class Interval:
    """A mean over clips with the ends of its interval, and how many clips it is of."""

    mean: float
    low: float
    high: float
    count: int


@dataclass(frozen=True)
class ReportClip:
    """One clip: its sound files, and how each system scored on it.

    Attributes:
        name: of the clip.
        audio: system -> sound file; the reference too.
        scores: system -> metric key -> score; not for the reference.
        notes: what could not be scored, and why.
    """

    name: str
    audio: Mapping[str, Path]
    scores: Mapping[str, Mapping[str, float | None]]
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Report:
    """All that a page shows.

    Attributes:
        title: heading.
        reference: name of the reference system.
        systems: the others, in order.
        metrics: by key, those that were scored.
        clips: in order.
        summary: system -> metric key -> interval.
        notes: for the whole page: resampling, missing packages.
    """

    title: str
    reference: str
    systems: Sequence[str]
    metrics: Mapping[str, Metric]
    clips: Sequence[ReportClip]
    summary: Mapping[str, Mapping[str, Interval]]
    notes: Sequence[str] = ()


def write_page(report: Report, folder: Path) -> Path:
    """Write ``folder/index.html`` and return its path."""
    rows = "".join(
        f"<tr><td>{html.escape(clip.name)}<td>{html.escape(system)}"
        + "".join(f"<td>{'' if scores.get(key) is None else scores[key]}" for key in report.metrics)
        for clip in report.clips
        for system, scores in clip.scores.items()
    )
    headings = "".join(f"<th>{html.escape(metric.label)}" for metric in report.metrics.values())
    page = folder / "index.html"
    with write_beside(page) as beside:
        beside.write_text(
            f"<!doctype html><title>{html.escape(report.title)}</title><table><tr><th>clip<th>system{headings}{rows}",
            encoding="utf-8",
        )
    return page
