"""Listening samples: recording, vocoder and Griffin-Lim of each clip, with pictures and scores."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from wavegen.audio import read_audio, write_audio
from wavegen.evaluation.baseline import griffin_lim_baseline
from wavegen.evaluation.metrics import METRICS, pesq_is_available, score
from wavegen.evaluation.pictures import save_figure, spectrogram_figure
from wavegen.files import write_beside
from wavegen.mel import MelSpec, load_mel_for
from wavegen.progress import pace

VOCODER, UNTRAINED, GRIFFIN_LIM = "vocoder", "untrained", "Griffin-Lim"
"""The systems that are scored."""


@dataclass(frozen=True)
class Clip:
    """A recording and its mel file; ``name`` names the results and may have folders in it (``speaker/clip``)."""

    name: str
    audio: Path
    mel: Path


def write_samples(
    clips: Sequence[Clip],
    generate: Callable[[np.ndarray], np.ndarray],
    spec: MelSpec,
    out: Path,
    *,
    untrained: Callable[[np.ndarray], np.ndarray] | None = None,
    baseline_iterations: int = 32,
    progress: bool = True,
) -> list[dict[str, Any]]:
    """Generate, score and draw every clip, one after the other: scoring takes less time than drawing.

    Writes for each clip ``NAME.wav``, ``NAME.reference.wav``, ``NAME.griffin-lim.wav`` (and ``NAME.untrained.wav``)
    and ``NAME.png``, and for all of them ``scores.tsv``: a row per clip and system, an empty cell where a metric is
    not defined.

    Args:
        clips: what to generate.
        generate: mel ``[n_mels, frames]`` -> float waveform ``[frames * hop_length]``.
        spec: the definition that the mels must have.
        out: folder to write to.
        untrained: the same before training, to tell what training gave from what was built in.
        baseline_iterations: of Griffin-Lim.
        progress: show a progress bar on stderr.

    Returns:
        the rows: ``clip``, ``system`` and each of :data:`METRICS`.

    Raises:
        MelError: a mel file is damaged or made to another definition.
        AudioError: a recording cannot be read, or generated samples are NaN or infinite.
        OutputError: a result cannot be written.
    """
    rows = []
    for clip in tqdm(clips, desc="samples", unit="clip", disable=not progress, **pace()):
        mel = load_mel_for(clip.mel, spec)
        reference = read_audio(clip.audio, spec.sample_rate_hz)
        systems = {VOCODER: generate(mel)}
        if untrained is not None:
            systems[UNTRAINED] = untrained(mel)
        systems[GRIFFIN_LIM] = griffin_lim_baseline(mel, spec, baseline_iterations)
        for system, samples in {"reference": reference, **systems}.items():
            suffix = "" if system == VOCODER else f".{system.lower()}"
            write_audio(out / f"{clip.name}{suffix}.wav", samples, spec.sample_rate_hz)
        figure = spectrogram_figure({"reference": reference, VOCODER: systems[VOCODER]}, spec)
        save_figure(figure, out / f"{clip.name}.png")
        for system, samples in systems.items():
            rows.append({"clip": clip.name, "system": system, **score(reference, samples, spec)})
    _write_scores(rows, out / "scores.tsv")
    return rows


def summary_table(rows: Iterable[dict[str, Any]]) -> str:
    """The means of each system as an aligned text table; what kept a column or a clip out is said below it.

    Args:
        rows: what :func:`write_samples` returned.
    """
    rows = list(rows)
    shown, notes = dict(METRICS), []
    if not pesq_is_available() and all(row["pesq"] is None for row in rows):
        del shown["pesq"]
        notes.append("no PESQ: pip install 'wavegen[pesq]'")
    table = [["", *(f"{m.label} {'↑' if m.better == 'higher' else '↓'}" for m in shown.values()), "clips"]]
    for system in dict.fromkeys(row["system"] for row in rows):
        own = [row for row in rows if row["system"] == system]
        means = []
        for key, metric in shown.items():
            scored = [row[key] for row in own if row[key] is not None]
            means.append(f"{np.mean(scored):.3f}" if scored else "-")
            if len(scored) < len(own):
                notes.append(f"{metric.label} of {system} is of {len(scored)} of {len(own)} clips")
        table.append([system, *means, str(len(own))])
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = [
        "  ".join(
            [line[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))]
        )
        for line in table
    ]
    return "\n".join([*lines, *notes])


def _write_scores(rows: list[dict[str, Any]], path: Path) -> None:
    columns = ("clip", "system", *METRICS)

    def cell(value: Any) -> str:
        return "" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)

    lines = ["\t".join(columns), *("\t".join(cell(row[column]) for column in columns) for row in rows)]
    with write_beside(path) as beside:
        beside.write_text("\n".join(lines) + "\n", encoding="utf-8")
