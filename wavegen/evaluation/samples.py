"""Listening samples: recording, vocoder and Griffin-Lim of each clip, with pictures and scores."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from wavegen.audio import read_audio, write_audio
from wavegen.evaluation.baseline import griffin_lim_baseline
from wavegen.evaluation.evaluate import REFERENCE, SCORES, report_clip
from wavegen.evaluation.metrics import METRICS, available, missing_note
from wavegen.evaluation.pictures import save_figure, spectrogram_figure
from wavegen.evaluation.scoring import ScoredClip, ScoringJob, Workers, score_clip
from wavegen.evaluation.summary import summarize, write_scores
from wavegen.listening.report import Report, write_page
from wavegen.mel import MelSpec, load_mel_for
from wavegen.progress import pace

VOCODER, UNTRAINED, GRIFFIN_LIM = "vocoder", "untrained", "Griffin-Lim"
"""The systems that are scored."""


@dataclass(frozen=True)
class Clip:
    """A recording and its mel file; ``name`` names the results and may have folders in it (``folder/clip``)."""

    name: str
    audio: Path
    mel: Path
    speaker: str = ""


Generate = Callable[[np.ndarray, str], np.ndarray]
"""Mel ``[n_mels, frames]`` and speaker's name, empty for none -> float waveform ``[frames * hop_length]``."""


def write_samples(
    clips: Sequence[Clip],
    generate: Generate,
    spec: MelSpec,
    out: Path,
    *,
    untrained: Generate | None = None,
    baseline_iterations: int = 32,
    title: str = "samples",
    progress: bool = True,
) -> list[ScoredClip]:
    """Generate, draw and score every clip.

    Writes for each clip ``NAME.wav``, ``NAME.reference.wav``, ``NAME.griffin-lim.wav`` (and ``NAME.untrained.wav``)
    and ``NAME.png``, and for all of them ``scores.csv`` and the page ``index.html``.

    Args:
        clips: what to generate.
        generate: what is scored.
        spec: the definition that the mels must have.
        out: folder to write to.
        untrained: the same before training, to tell what training gave from what was built in.
        baseline_iterations: of Griffin-Lim.
        title: of the page.
        progress: show progress bars on stderr.

    Raises:
        MelError: a mel file is damaged or made to another definition.
        AudioError: a recording cannot be read, or generated samples are NaN or infinite.
        OutputError: a result cannot be written.
    """
    metrics, work = available(), []
    for clip in tqdm(clips, desc="samples", unit="clip", disable=not progress, **pace()):
        mel = load_mel_for(clip.mel, spec)
        reference = read_audio(clip.audio, spec.sample_rate_hz)
        systems = {VOCODER: generate(mel, clip.speaker)}
        if untrained is not None:
            systems[UNTRAINED] = untrained(mel, clip.speaker)
        systems[GRIFFIN_LIM] = griffin_lim_baseline(mel, spec, baseline_iterations)
        files = {
            system: out / f"{clip.name}{'' if system == VOCODER else f'.{system.lower()}'}.wav"
            for system in (REFERENCE, *systems)
        }
        for system, samples in {REFERENCE: reference, **systems}.items():
            write_audio(files[system], samples, spec.sample_rate_hz)
        figure = spectrogram_figure({REFERENCE: reference, VOCODER: systems[VOCODER]}, spec)
        save_figure(figure, out / f"{clip.name}.png")
        work.append(ScoringJob(clip.name, files.pop(REFERENCE), files, spec, metrics))
    with Workers(progress=progress) as workers:
        scored = workers.map(score_clip, work, doing="scoring")
    write_scores(out / SCORES, scored, metrics)
    note = missing_note()
    report = Report(
        title=title,
        reference=REFERENCE,
        systems=list(scored[0].scores) if scored else [],
        metrics={key: METRICS[key] for key in metrics},
        clips=[report_clip(clip, job.reference, job.outputs) for clip, job in zip(scored, work, strict=True)],
        summary=summarize(scored),
        notes=[note] if note else [],
    )
    write_page(report, out)
    return scored
