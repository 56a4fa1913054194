"""Listening samples of a training: recording, vocoder and baselines of some clips, with pictures and scores."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from wavegen.audio import read_audio, write_audio
from wavegen.corpora.manifest import Clip
from wavegen.evaluation.baseline import griffin_lim_baseline, source_filter_baseline
from wavegen.evaluation.metrics import available, missing_note
from wavegen.evaluation.pictures import save_figure, spectrogram_figure
from wavegen.evaluation.results import write_results
from wavegen.evaluation.scoring import REFERENCE, ScoredClip, ScoringJob, Workers
from wavegen.files import with_ending
from wavegen.mel import MelSpec, load_mel
from wavegen.progress import bar_options

# The systems that are scored.
VOCODER = "vocoder"
RAW = "vocoder-raw"
UNTRAINED = "untrained"
SOURCE_FILTER = "source-filter"
GRIFFIN_LIM = "Griffin-Lim"

Synthesizer = Callable[[np.ndarray, str | None], np.ndarray]
"""Mel ``[n_mels, frames]`` and speaker's name, None if the clip has none -> waveform ``[frames * hop_length]``."""


def write_samples(
    clips: Sequence[Clip],
    synthesizer: Synthesizer,
    spec: MelSpec,
    out: Path,
    *,
    raw: Synthesizer | None = None,
    untrained: Synthesizer | None = None,
    baseline_iterations: int = 32,
    title: str = "samples",
    progress: bool = True,
) -> list[ScoredClip]:
    """Synthesise, draw and score some clips.

    Writes ``NAME.wav``, ``NAME.reference.wav``, ``NAME.source-filter.wav``, ``NAME.griffin-lim.wav`` and ``NAME.png``
    for each clip, where ``NAME`` may contain folders; with ``raw`` and ``untrained`` also ``NAME.vocoder-raw.wav`` and
    ``NAME.untrained.wav``. Writes ``scores.csv`` and the page ``index.html`` for all of them.

    Args:
        clips: the clips; their mel files are what the vocoder speaks.
        synthesizer: the trained vocoder.
        spec: the mel definition that the mel files must have.
        out: folder for the results.
        raw: the trained vocoder without the mel imposed on its sound.
        untrained: the vocoder before training, which shows what training has added.
        baseline_iterations: iterations of Griffin-Lim.
        title: title of the page.
        progress: show progress bars on stderr.

    Raises:
        MelError: a mel file is damaged or has another definition.
        AudioError: a recording cannot be read, or generated samples are NaN or infinite.
        OutputError: a result cannot be written.
    """
    others = {RAW: raw, UNTRAINED: untrained}
    synthesizers = {VOCODER: synthesizer} | {name: other for name, other in others.items() if other is not None}
    synthesizers[SOURCE_FILTER] = lambda mel, speaker: source_filter_baseline(mel, spec)
    synthesizers[GRIFFIN_LIM] = lambda mel, speaker: griffin_lim_baseline(mel, spec, baseline_iterations)

    metrics = available()
    jobs = []
    for clip in tqdm(clips, desc="samples", unit="clip", disable=not progress, **bar_options()):
        mel, _ = load_mel(clip.mel, spec)
        waveforms = {REFERENCE: read_audio(clip.audio, spec.sample_rate_hz)}
        for system, synthesize in synthesizers.items():
            waveforms[system] = synthesize(mel, clip.speaker or None)
        files = {system: with_ending(out / clip.name, f"{_suffix(system)}.wav") for system in waveforms}
        for system, samples in waveforms.items():
            write_audio(files[system], samples, spec.sample_rate_hz)
        figure = spectrogram_figure({system: waveforms[system] for system in (REFERENCE, VOCODER)}, spec)
        save_figure(figure, with_ending(out / clip.name, ".png"))
        jobs.append(ScoringJob(clip.name, files.pop(REFERENCE), files, spec, metrics))

    note = missing_note()
    with Workers(progress=progress) as workers:
        scored, _ = write_results(
            out, jobs, workers, systems=list(synthesizers), metrics=metrics, title=title, notes=[note] if note else []
        )
    return scored


def _suffix(system: str) -> str:
    return "" if system == VOCODER else f".{system.lower()}"
