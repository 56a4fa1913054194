"""Recordings and other sounds of the same: made, scored, summed up, and laid out to be heard."""

import contextlib
import importlib.metadata
import inspect
import json
import math
import platform
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from wavegen.audio import audio_info, read_audio, write_audio
from wavegen.checkpoint import MODEL, find_model, load_vocoder
from wavegen.config import did_you_mean, join_names
from wavegen.errors import ConfigError, DataError, MelError, OutputError
from wavegen.evaluation.baseline import BASELINES, log_mel_of
from wavegen.evaluation.metrics import METRICS, available, missing_note
from wavegen.evaluation.pairing import Pairing, distinct, pair_by_name, system_names
from wavegen.evaluation.scoring import ScoredClip, ScoringJob, Workers, score_clip
from wavegen.evaluation.summary import Summary, full_table, summarize, write_scores, write_summary
from wavegen.files import results_folder
from wavegen.listening.report import Report, ReportClip, write_page
from wavegen.mel import PROFILES, MelSpec, profile
from wavegen.progress import pace
from wavegen.synthesis import synthesize
from wavegen.vocoders import Vocoder

REFERENCE = "reference"
SCORES, SUMMARY = "scores.csv", "summary.json"
RESULTS = ("audio", "index.html", SCORES, SUMMARY)
MADE_BY = "wavegen-evaluate"
_PACKAGES = ("wavegen", "numpy", "scipy", "torch", "torchaudio", "pesq", "pystoi", "pyworld", "pyloudnorm")


Generate = Callable[[np.ndarray, MelSpec], np.ndarray]


@dataclass(frozen=True)
class Evaluation:
    """What was found: also in ``scores.csv``, ``summary.json`` and ``index.html`` of ``folder``."""

    folder: Path
    clips: Sequence[ScoredClip]
    summary: Summary
    notes: Sequence[str]

    def table(self) -> str:
        """Means and intervals as text, and the notes."""
        return "\n".join([full_table(self.summary, len(self.clips)), *self.notes])


def evaluate(
    references: Path,
    outputs: Sequence[Path],
    out: Path,
    *,
    models: Sequence[Path] = (),
    baselines: Sequence[str] = (),
    speaker: str | None = None,
    mel: str | None = None,
    reads: Sequence[str] = (),
    device: torch.device | str = "cpu",
    jobs: int | None = None,
    progress: bool = True,
) -> Evaluation:
    """Score sound files against the recordings of the same names.

    Args:
        references: folder of recordings, or one recording.
        outputs: folders of the systems' outputs (or single files), of any project and at any sample rate.
        out: folder for the results; an earlier evaluation there is replaced, anything else is not.
        models: runs or model files; each speaks the mels of all recordings, and is scored as one more system.
        speaker: who speaks in every output of a model that knows several; by default the one who has the name of the
            folder that a recording lies in.
        baselines: names of :data:`~wavegen.evaluation.baseline.BASELINES`, scored likewise.
        mel: name of the mel profile that says at which rate all is scored, and by which log-mel. By default the
            first model's, else one that suits the lowest rate among the files, so that no band is judged that one of
            them does not have.
        reads: names of the mel profiles that each model speaks from, ``MODEL@PROFILE`` in the results; by default its
            own alone.
        device: for the models.
        jobs: processes for scoring and baselines; by default one a core, or none for a few clips.
        progress: show bars on stderr.

    Raises:
        DataError: nothing to pair, no names agree, or nothing could be made of any recording.
        AudioError: a file is no recording, or damaged.
        ConfigError, MelError, CheckpointError: no such baseline, profile or model.
        OutputError: ``out`` holds something else or cannot be written.
    """
    for name in baselines:
        if name not in BASELINES:
            raise ConfigError(f"unknown baseline {name!r}", remedy=did_you_mean(name, BASELINES))
    model_files = [find_model(model) for model in models]
    vocoders = [load_vocoder(file) for file in model_files]
    runs = [file.parent if file.name == MODEL else file for file in model_files]
    if speaker is not None and not any(vocoder.speakers for vocoder in vocoders):
        raise ConfigError(f"speaker {speaker!r} for no model that knows any", remedy="leave it out")
    _refuse_inside([references, *outputs, *models], out)
    baselines = list(dict.fromkeys(baselines))
    names = system_names([*outputs, *runs], taken=[REFERENCE, *baselines])
    folders = dict(zip(names, outputs, strict=False))
    readers = [_readers(name, v, reads, folders) for name, v in zip(names[len(outputs) :], vocoders, strict=True)]
    pairing = pair_by_name(references, folders, keep_all=bool(models or baselines))
    rates = _rates(pairing)  # reads every header: what is no recording is refused before any work
    spec = _definition(mel, vocoders, rates)
    voices = [_voices(vocoder, pairing.references, speaker) for vocoder in vocoders]
    notes = [_rate_note(spec, rates, {n: v.mel for n, v in zip(names[len(outputs) :], vocoders, strict=True)})]
    notes += pairing.notes
    if note := missing_note():
        notes.append(note)

    with (
        results_folder(out, RESULTS, is_ours=_is_summary) as folder,
        _one_name(folder, Path(out).absolute()),
        Workers(jobs, progress=progress) as workers,
    ):
        made = _Made(folder / "audio", pairing.references)
        for systems, speakers in zip(readers, voices, strict=True):
            for name, vocoder in systems.items():
                made.by_model(name, _prepared(vocoder, device), speakers, progress)
        for name in baselines:
            made.by_baseline(name, spec, workers)
        files = {**pairing.outputs, **made.outputs}
        metrics = available()
        work = [
            ScoringJob(clip, path, {s: f[clip] for s, f in files.items() if clip in f}, spec, metrics)
            for clip, path in pairing.references.items()
        ]
        work = [job for job in work if job.outputs]
        if not work:
            raise DataError(made.notes[0] if made.notes else "there is nothing to score", where=references)
        clips = workers.map(score_clip, work, doing="scoring")
        summary = summarize(clips)
        notes += made.notes
        write_scores(folder / SCORES, clips, metrics)
        report = Report(
            title=Path(references).absolute().stem,
            reference=REFERENCE,
            systems=list(files),
            metrics={key: METRICS[key] for key in metrics},
            clips=[report_clip(clip, job.reference, job.outputs) for clip, job in zip(clips, work, strict=True)],
            summary=summary,
            notes=notes,
        )
        write_page(report, folder)
        write_summary(folder / SUMMARY, summary, **_about(references, clips, spec, metrics, notes))
    return Evaluation(out, clips, summary, notes)


def report_clip(clip: ScoredClip, reference: Path, outputs: Mapping[str, Path]) -> ReportClip:
    """A scored clip as the page shows it."""
    scores = {system: of.values for system, of in clip.scores.items()}
    heard = {system: path for system, path in outputs.items() if system not in clip.unreadable}
    return ReportClip(clip.name, {REFERENCE: reference, **heard}, scores, clip.notes())


def definition_for(sample_rate_hz: int) -> MelSpec:
    """A log-mel that covers all of a rate: BigVGAN's of that rate, else its 24 kHz one with windows as long."""
    base = PROFILES["bigvgan-24k"]
    for spec in (base, PROFILES["bigvgan-22k"], PROFILES["bigvgan-44k"]):
        if spec.sample_rate_hz == sample_rate_hz:
            return spec
    n_fft = 2 ** round(math.log2(base.n_fft * sample_rate_hz / base.sample_rate_hz))
    return base.replace(
        sample_rate_hz=sample_rate_hz, n_fft=n_fft, win_length=n_fft, hop_length=n_fft // 4,
        n_mels=min(base.n_mels, n_fft // 8), f_max_hz=sample_rate_hz / 2,
    )  # fmt: skip


class _Made:
    """Systems whose outputs are made here, of the recordings, as 16-bit files below ``folder``."""

    def __init__(self, folder: Path, references: Mapping[str, Path]) -> None:
        self.folder, self.references = folder, references
        self.outputs: dict[str, dict[str, Path]] = {}
        self.notes: list[str] = []

    def by_model(self, system: str, vocoder: Vocoder, speakers: Mapping[str, str | None], progress: bool) -> None:
        """Copy synthesis: the mel of each recording, made by the model's definition, and the model's sound of it."""
        bar = tqdm(self.references.items(), desc=system, unit="clip", disable=not progress, **pace())
        faults = []
        for name, path in bar:
            generate = partial(_copy_synthesis, vocoder, speakers[name])
            faults.append(_make(generate, vocoder.mel, path, self._place(system, name)))
        self._keep(system, faults)

    def by_baseline(self, system: str, spec: MelSpec, workers: Workers) -> None:
        """A baseline's version of each recording."""
        work = [(system, spec, path, self._place(system, name)) for name, path in self.references.items()]
        self._keep(system, workers.map(_make_baseline, work, doing=system))

    def _place(self, system: str, name: str) -> Path:
        return self.folder / system / f"{name}.wav"

    def _keep(self, system: str, faults: Sequence[str | None]) -> None:
        pairs = list(zip(self.references, faults, strict=True))
        self.outputs[system] = {name: self._place(system, name) for name, fault in pairs if fault is None}
        self.notes += [f"{system} has no output for {name}: {fault}" for name, fault in pairs if fault is not None]


def _make(generate: Generate, spec: MelSpec, source: Path, target: Path) -> str | None:
    """Write what ``generate`` makes of a recording; a clip that is too short gives the reason instead."""
    samples = read_audio(source, spec.sample_rate_hz)
    try:
        generated = generate(samples, spec)
    except MelError as error:
        return error.what
    write_audio(target, generated.astype(np.float32), spec.sample_rate_hz)
    return None


def _make_baseline(work: tuple[str, MelSpec, Path, Path]) -> str | None:
    name, spec, source, target = work
    return _make(BASELINES[name], spec, source, target)


def _copy_synthesis(vocoder: Vocoder, speaker: str | None, samples: np.ndarray, spec: MelSpec) -> np.ndarray:
    return synthesize(vocoder, log_mel_of(samples, spec), speaker=speaker)


def _voices(vocoder: Vocoder, references: Mapping[str, Path], speaker: str | None) -> dict[str, str | None]:
    """Who is to speak each recording; None where the vocoder need not be told."""
    known = vocoder.speakers
    if not known:
        return dict.fromkeys(references)
    if speaker is not None or len(known) == 1:
        vocoder.speaker_condition.indices(speaker, 1)  # refuses a name that it does not know
        return dict.fromkeys(references, speaker)
    voices: dict[str, str | None] = {name: path.absolute().parent.name for name, path in references.items()}
    for name, folder in voices.items():
        if folder not in known:
            raise ConfigError(
                f"{name} lies in {folder}, which is none of the model's speakers",
                where="--speaker",
                remedy=f"give one of {join_names(known)}, or put each recording in a folder of its speaker's name",
            )
    return voices


def _readers(name: str, vocoder: Vocoder, reads: Sequence[str], taken: Collection[str]) -> dict[str, Vocoder]:
    """A model's systems by their names: itself, or one for each profile that it is to read."""
    if not reads:
        return {name: vocoder}
    specs = {mel: profile(mel) for mel in reads}
    return {
        distinct(f"{name}@{mel}", taken): vocoder.for_mel(spec, f"{name} from {mel}") for mel, spec in specs.items()
    }


def _prepared(vocoder: Vocoder, device: torch.device | str) -> Vocoder:
    # Sample by sample, compiled code on a CPU outruns a GPU.
    return vocoder.to(vocoder.preferred_device(torch.device(device)))


def _refuse_inside(places: Sequence[Path], out: Path) -> None:
    for place in places:
        if Path(out).exists() and place.exists() and place.resolve().is_relative_to(Path(out).resolve()):
            raise OutputError(
                f"holds {place}, which is to be scored", where=out, remedy="give another --out: this one is replaced"
            )
        if place.is_dir() and Path(out).resolve().is_relative_to(place.resolve()):
            raise OutputError(
                f"lies in {place}, where its sounds would be taken for recordings the next time",
                where=out,
                remedy="give another --out",
            )


def _rates(pairing: Pairing) -> dict[str, set[int]]:
    """System -> the sample rates of its files, the references first."""
    files = {"the recordings": pairing.references, **pairing.outputs}
    return {system: {audio_info(path).sample_rate_hz for path in of.values()} for system, of in files.items()}


def _definition(name: str | None, vocoders: Sequence[Vocoder], rates: Mapping[str, set[int]]) -> MelSpec:
    if name is not None:
        return profile(name)
    if vocoders:
        return vocoders[0].mel
    return definition_for(min(rate for of in rates.values() for rate in of))


def _rate_note(spec: MelSpec, rates: Mapping[str, set[int]], models: Mapping[str, MelSpec]) -> str:
    rates = {**rates, **{name: {mel.sample_rate_hz} for name, mel in models.items()}}
    resampled = [
        f"{system} ({', '.join(map(str, sorted(others)))} Hz)"
        for system, of in rates.items()
        if (others := of - {spec.sample_rate_hz})
    ]
    note = f"scored at {spec.sample_rate_hz} Hz, clips aligned at their start"
    return f"{note}; resampled to it: {', '.join(resampled)}" if resampled else note


def _about(
    references: Path, clips: Sequence[ScoredClip], spec: MelSpec, metrics: Sequence[str], notes: Sequence[str]
) -> dict[str, Any]:
    definitions = {}
    for key in metrics:
        metric = METRICS[key]
        definitions[key] = {
            **{name: getattr(metric, name) for name in ("label", "unit", "better", "range", "source")},
            "definition": inspect.getdoc(metric.compute),
        }
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return {
        "made_by": MADE_BY,
        "references": str(references),
        "clips": len(clips),
        "notes": list(notes),
        "log_mel": spec.model_dump(mode="json"),
        "metrics": definitions,
        "versions": versions,
    }


def _is_summary(path: Path) -> bool:
    try:
        return bool(json.loads(path.read_text(encoding="utf-8"))["made_by"] == MADE_BY)
    except (OSError, ValueError, KeyError, TypeError):
        return False


@contextlib.contextmanager
def _one_name(folder: Path, out: Path) -> Iterator[None]:
    """Errors about files in the making name the place where they were to be."""
    try:
        yield
    except OutputError as error:
        error.where = str(error.where).replace(str(folder), str(out))
        raise
