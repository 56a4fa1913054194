"""The listening page: one HTML file with the sounds, pictures and scores of every system, and blind tests.

What the browser runs lies beside this file in ``page/`` as plain HTML, CSS and JavaScript. All of it is embedded in the
page, with the data as JSON. The page loads nothing from a network: its own security policy forbids that, and allows
only these scripts, by their hash, to run.
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
from typing import TYPE_CHECKING, Any, Literal

from wavegen.files import atomic_write, require_folder

if TYPE_CHECKING:
    from wavegen.listening.sounds import ClipMedia

LARGEST_INSIDE_BYTES = 24_000_000
"""Total size of the base64 sounds above which they are written to ``audio/`` beside the page."""

STYLES = ("page.css", "clips.css", "blind.css")
SCRIPTS = (
    "dom.js", "sounds.js", "deck.js", "transport.js", "tables.js", "compare.js",
    "blind.js", "abx.js", "rating.js", "page.js",
)  # fmt: skip
"""In the order in which they are embedded: each uses what those before it define."""


@dataclass(frozen=True)
class MetricDescription:
    """What a column of scores means, as the page explains it.

    Attributes:
        label: heading of the column.
        unit: unit of the scores.
        better: which scores are better; ``"zero"`` for a signed deviation.
        range: range of the scores, as text.
        source: the metric's author.
    """

    label: str
    unit: str
    better: Literal["higher", "lower", "zero"]
    range: str
    source: str


@dataclass(frozen=True)
class ReportClip:
    """One clip in every system.

    Attributes:
        name: name that the page shows.
        audio: system -> sound file, of any sample rate; including the reference. Systems without a file are omitted.
        scores: system -> metric key -> score, None where it is not defined; of the reference only those of predictors,
            which rate a sound alone.
        notes: which scores are missing, and why.
        picture: a PNG that the page shows below the sounds; None for none.
        picture_text: a description of it, for people who do not see it.
    """

    name: str
    audio: Mapping[str, Path]
    scores: Mapping[str, Mapping[str, float | None]]
    notes: Sequence[str] = ()
    picture: Path | None = None
    picture_text: str = ""


@dataclass(frozen=True)
class Report:
    """Everything that a listening page shows.

    Attributes:
        title: heading of the page.
        reference: the system that the others are compared with.
        systems: the other systems, in the order of the page.
        metrics: metric key -> its description, in the order of the columns.
        clips: the clips, in the order of the page.
        summary: system -> metric key -> ``mean``, its interval from ``low`` to ``high``, and the ``count`` of clips.
            The ends of an interval are None for too few clips.
            Predictors also have ``difference``, ``difference_low`` and ``difference_high``, to the reference.
        notes: notes on the whole page, such as which files were resampled.
    """

    title: str
    reference: str
    systems: Sequence[str]
    metrics: Mapping[str, MetricDescription]
    clips: Sequence[ReportClip]
    summary: Mapping[str, Mapping[str, Mapping[str, float | None]]]
    notes: Sequence[str] = ()


def write_page(report: Report, folder: Path, *, largest_inside_bytes: int = LARGEST_INSIDE_BYTES) -> Path:
    """Write ``folder/index.html``, a page that opens from a disk, a mail or a server, and return its path.

    The page holds the sounds as 16-bit FLAC at their own sample rates. If they exceed ``largest_inside_bytes``, they
    are written to ``folder/audio``, one file per clip, and that folder must stay beside the page. (Those files are
    scripts, because a page opened from a disk may not read other files.) The same report gives the same bytes.

    Raises:
        AudioError: a sound file cannot be read.
        OutputError: the page cannot be written; an older page there is unchanged.
    """
    from wavegen.listening.sounds import clip_media  # imports torch and the picture libraries

    folder = Path(folder)
    require_folder(folder)
    order = [report.reference, *report.systems]
    identity = hashlib.sha256()
    clips: list[dict[str, Any]] = []

    # Keep the sounds until their total size is known. Once it exceeds the limit, write them as they come.
    inside: list[str] = []
    total_bytes = 0
    for index, clip in enumerate(report.clips):
        audio = {system: clip.audio[system] for system in order if system in clip.audio}
        media = clip_media(audio, report.reference)
        clips.append(_clip_data(clip, order, media))
        sounds = json.dumps(media.flacs)
        identity.update(json.dumps(clip.name).encode() + sounds.encode())
        inside.append(sounds)
        total_bytes += len(sounds)
        if total_bytes > largest_inside_bytes:
            for number, text in enumerate(inside, start=index + 1 - len(inside)):
                _write(folder / "audio" / _audio_name(number), f"receiveSounds({number}, {text});\n")
            inside.clear()
    audio_names = [_audio_name(index) for index in range(len(clips))] if total_bytes > largest_inside_bytes else []

    # The identity tells rating files of different pages apart.
    identity.update(json.dumps([report.title, order]).encode())
    data = _page_data(report, order, clips)
    data["id"] = identity.hexdigest()[:12]
    data["soundFiles"] = [f"audio/{name}" for name in audio_names] or None
    page = folder / "index.html"
    _write(page, _html(report.title, data, inside))

    # Remove what an earlier page left behind, now that the new page is in place.
    for stale in set((folder / "audio").glob("clip-*.js")):
        if stale.name not in audio_names:
            stale.unlink()
    return page


def _audio_name(index: int) -> str:
    """File name of a clip's sounds; without names of systems, which would give them away in a blind test."""
    return f"clip-{index + 1:04d}.js"


def _page_data(report: Report, order: list[str], clips: list[dict[str, Any]]) -> dict[str, Any]:
    from wavegen.listening import thumbnails

    return {
        "title": report.title,
        "systems": order,
        "metrics": [{"key": key, **asdict(metric)} for key, metric in report.metrics.items()],
        "summary": [
            {key: _finite(interval) for key, interval in report.summary.get(system, {}).items()} for system in order
        ],
        "notes": list(report.notes),
        "clips": clips,
        "levelColours": thumbnails.level_colours(),
        "levelRangeDb": thumbnails.LEVEL_RANGE_DB,
        "differenceColours": thumbnails.difference_colours(),
        "differenceRangeDb": thumbnails.DIFFERENCE_RANGE_DB,
    }


def _clip_data(clip: ReportClip, order: list[str], media: "ClipMedia") -> dict[str, Any]:
    return {
        "name": clip.name,
        "notes": list(clip.notes),
        "ticks": media.ticks,
        "durationS": round(media.duration_s, 6),
        "sounds": [{"system": order.index(name), **sound} for name, sound in media.sounds.items()],
        "scores": [_finite(clip.scores.get(system, {})) for system in order],
        "picture": None if clip.picture is None else base64.b64encode(clip.picture.read_bytes()).decode("ascii"),
        "pictureText": clip.picture_text,
    }


def _finite(values: Mapping[str, float | None]) -> dict[str, float | None]:
    """Values for JSON: None in place of NaN, and six digits, which is more than any metric resolves."""
    return {
        key: None if value is None or not math.isfinite(value) else float(f"{value:.6g}")
        for key, value in values.items()
    }


def _html(title: str, data: dict[str, Any], sounds: Sequence[str]) -> str:
    script = _joined(SCRIPTS)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return string.Template(_joined(["page.html"])).substitute(
        title=html.escape(title),
        style=_joined(STYLES),
        # Sounds beside the page are scripts too, loaded from its own folder or server.
        scripts_allowed=f"'sha256-{digest}'" + (" 'self' file:" if data["soundFiles"] else ""),
        data=_inert(json.dumps(data, ensure_ascii=False, allow_nan=False)),
        sounds="\n".join(f'<script type="application/json" class="sounds">{_inert(text)}</script>' for text in sounds),
        script=script,
    )


def _inert(text: str) -> str:
    """Escape JSON so that it can neither end its script element nor open a comment in it."""
    return text.replace("<", "\\u003c")


def _joined(names: Sequence[str]) -> str:
    folder = files("wavegen.listening") / "page"
    return "\n".join((folder / name).read_text(encoding="utf-8").replace("\r\n", "\n") for name in names)


def _write(path: Path, text: str) -> None:
    with atomic_write(path) as part:
        part.write_bytes(text.encode("utf-8", "replace"))
