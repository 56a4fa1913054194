"""The listening page: one HTML file with the sounds, pictures and scores of every system, and blind tests.

What the browser runs lies beside this file in ``page/``, as plain HTML, CSS and JavaScript; it is put into the page
whole, with the data as JSON. Nothing is loaded from a network: the page's own security policy forbids it, and names
only these scripts, by their hash, as allowed to run.
"""

import base64
import hashlib
import html
import json
import math
import string
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from wavegen.evaluation.metrics import Metric
from wavegen.files import require_folder, write_beside

LARGEST_INSIDE_BYTES = 24_000_000
"""Sounds above this, together and in base64, go into ``audio/`` beside the page."""

STYLES = ("page.css", "clips.css", "blind.css")
SCRIPTS = (
    "dom.js", "sounds.js", "deck.js", "transport.js", "tables.js", "compare.js",
    "blind.js", "abx.js", "rating.js", "page.js",
)  # fmt: skip
"""In the order in which they are put into the page: each uses what those before it define."""

SHOWN_OF_METRICS = ("label", "unit", "better", "range", "source")
"""What the page says of a :class:`Metric`; one without a range says nothing of it."""


@dataclass(frozen=True)
class Interval:
    """A mean over ``count`` clips and its 95 % interval."""

    mean: float
    low: float
    high: float
    count: int


@dataclass(frozen=True)
class ReportClip:
    """One clip in every system.

    Attributes:
        name: shown as it is.
        audio: system -> sound file, of any rate and project; the reference too. One that is missing is left out.
        scores: system -> key of a metric -> score, None where it is not defined; not for the reference.
        notes: what could not be scored, and why.
    """

    name: str
    audio: Mapping[str, Path]
    scores: Mapping[str, Mapping[str, float | None]]
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Report:
    """All that a listening page shows.

    Attributes:
        title: its heading.
        reference: name of the system that the others are compared to.
        systems: the others, in the order of the page.
        metrics: key -> what the score means, in the order of the columns.
        clips: in the order of the page.
        summary: system -> key of a metric -> mean and interval over the clips.
        notes: for the whole page: what was resampled, which packages are missing.
    """

    title: str
    reference: str
    systems: Sequence[str]
    metrics: Mapping[str, Metric]
    clips: Sequence[ReportClip]
    summary: Mapping[str, Mapping[str, Interval]]
    notes: Sequence[str] = ()


def write_page(report: Report, folder: Path, *, largest_inside_bytes: int = LARGEST_INSIDE_BYTES) -> Path:
    """Write ``folder/index.html``, which opens from the disk, from a mail or from a server alike.

    The sounds are inside, as 16-bit FLAC at their own rates; above ``largest_inside_bytes`` they are written to
    ``folder/audio``, a file for each clip, which must travel with the page. (They are scripts, not sound files,
    because a page that is opened from the disk may not read other files.) The same report gives the same bytes.

    Raises:
        AudioError: a sound file cannot be read.
        OutputError: the page cannot be written; an older one there is left as it was.
    """
    from wavegen.listening.sounds import ClipMedia, clip_media  # takes torch and the pictures with it

    folder = Path(folder)
    require_folder(folder)
    order = [report.reference, *report.systems]
    identity = hashlib.sha256()
    clips: list[dict[str, Any]] = []
    held: list[str] = []  # until it is known that not all fit inside
    held_bytes, beside = 0, False
    for clip in report.clips:
        media: ClipMedia = clip_media(
            {name: clip.audio[name] for name in order if name in clip.audio}, report.reference
        )
        clips.append(_clip_data(clip, order, media))
        sounds = json.dumps(media.flacs)
        identity.update(json.dumps(clip.name).encode() + sounds.encode())
        held.append(sounds)
        held_bytes += len(sounds)
        beside = beside or held_bytes > largest_inside_bytes
        if beside:
            for later, text in enumerate(held, start=len(clips) - len(held)):
                _write(folder / "audio" / _audio_name(later), f"receiveSounds({later}, {text});\n")
            held.clear()
    data = _page_data(report, order, clips)
    identity.update(json.dumps([report.title, order]).encode())
    data["id"] = identity.hexdigest()[:12]
    data["soundFiles"] = [f"audio/{_audio_name(index)}" for index in range(len(clips))] if beside else None
    page = folder / "index.html"
    _write(page, _html(report.title, data, [] if beside else held))
    for stale in set((folder / "audio").glob("clip-*.js")):
        if not beside or stale.name not in {_audio_name(index) for index in range(len(clips))}:
            stale.unlink()
    return page


def _audio_name(index: int) -> str:
    """Of the clip alone: a name of a system would give it away in a blind test."""
    return f"clip-{index + 1:04d}.js"


def _page_data(report: Report, order: list[str], clips: list[dict[str, Any]]) -> dict[str, Any]:
    from wavegen.listening import thumbnails

    return {
        "title": report.title,
        "systems": order,
        "metrics": [
            {"key": key, **{part: getattr(metric, part, "") for part in SHOWN_OF_METRICS}}
            for key, metric in report.metrics.items()
        ],
        "summary": [
            {key: _finite(asdict(interval)) for key, interval in report.summary.get(system, {}).items()}
            for system in order
        ],
        "notes": list(report.notes),
        "clips": clips,
        "levelColours": thumbnails.level_colours(),
        "levelRangeDb": thumbnails.LEVEL_RANGE_DB,
        "differenceColours": thumbnails.difference_colours(),
        "differenceRangeDb": thumbnails.DIFFERENCE_RANGE_DB,
    }


def _clip_data(clip: ReportClip, order: list[str], media: Any) -> dict[str, Any]:
    return {
        "name": clip.name,
        "notes": list(clip.notes),
        "ticks": media.ticks,
        "durationS": round(media.duration_s, 6),
        "sounds": [{"system": order.index(name), **sound} for name, sound in media.sounds.items()],
        "scores": [_finite(clip.scores.get(system, {})) for system in order],
    }


def _finite(values: Mapping[str, float | None]) -> dict[str, float | None]:
    """JSON has no NaN; six digits are more than any metric means."""
    return {key: None if v is None or not math.isfinite(v) else float(f"{v:.6g}") for key, v in values.items()}


def _html(title: str, data: dict[str, Any], sounds: Sequence[str]) -> str:
    script = _joined(SCRIPTS)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return string.Template(_joined(["page.html"])).substitute(
        title=html.escape(title),
        style=_joined(STYLES),
        # Sounds beside the page come as scripts of their own, from its own folder or server.
        scripts_allowed=f"'sha256-{digest}'" + (" 'self' file:" if data["soundFiles"] else ""),
        data=_inert(json.dumps(data, ensure_ascii=False, allow_nan=False)),
        sounds="\n".join(f'<script type="application/json" class="sounds">{_inert(text)}</script>' for text in sounds),
        script=script,
    )


def _inert(text: str) -> str:
    """JSON that cannot end the script element it stands in, nor open a comment in it."""
    return text.replace("<", "\\u003c")


def _joined(names: Sequence[str]) -> str:
    folder = files("wavegen.listening") / "page"
    return "\n".join((folder / name).read_text(encoding="utf-8").replace("\r\n", "\n") for name in names)


def _write(path: Path, text: str) -> None:
    with write_beside(path) as part:
        part.write_bytes(text.encode("utf-8", "replace"))
