"""Evaluates sounds against recordings: generates the outputs of models and baselines, scores them, and reports."""

import contextlib
import importlib.metadata
import inspect
import json
import math
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from wavegen.audio import audio_info
from wavegen.checkpoint import MODEL, find_model, load_vocoder
from wavegen.config import did_you_mean
from wavegen.errors import AudioError, ConfigError, DataError, OutputError
from wavegen.evaluation.baseline import BASELINES
from wavegen.evaluation.halves import Half
from wavegen.evaluation.metrics import METRICS, available, missing_note
from wavegen.evaluation.pairing import Pairing, pair_by_name, system_names
from wavegen.evaluation.results import SCORES, score_all, write_scored
from wavegen.evaluation.scoring import REFERENCE, ScoredClip, ScoringJob, Workers
from wavegen.evaluation.summary import Summary, full_table, write_summary
from wavegen.evaluation.systems import (
    GeneratedOutputs,
    ModelSystem,
    speakers_of,
    vocoders_by_profile,
    with_iterations,
    with_raw,
)
from wavegen.files import results_folder
from wavegen.mel import PROFILES, MelSpec, profile

SUMMARY = "summary.json"
AUDIO = "audio"
RESULTS = (AUDIO, "index.html", SCORES, SUMMARY)
MADE_BY = "wavegen-evaluate"
_PACKAGES = (
    "wavegen", "numpy", "scipy", "torch", "torchaudio", "soxr", "pesq", "visqol-python", "pystoi", "pyworld-prebuilt",
    "pyloudnorm", "distillmos", "xls-r-sqa", "speechmos", "onnxruntime",
)  # fmt: skip


@dataclass(frozen=True)
class EvaluationRequest:
    """What to evaluate.

    Attributes:
        references: folder of recordings, or a single recording.
        outputs: folders of the systems' outputs, or single files, of any project and at any sample rate; they are
            paired with the recordings by name.
        models: run folders or model files. Each model speaks the mels of all recordings and is scored as a system.
        baselines: names of ``BASELINES``, scored as systems too.
        speaker: the speaker of all outputs of models with several speakers; by default, the speaker who has the name
            of the folder that a recording lies in.
        scoring_profile: mel profile whose sample rate and log-mel are used for scoring. By default that of the first
            model with the lowest sample rate; without models, one that suits the lowest rate among the files. So no
            system is scored in a band that it lacks.
        model_profiles: mel profiles that every model speaks from, as systems ``MODEL@PROFILE``; by default only the
            model's own mel definition.
        iterations: numbers of synthesis iterations of every model, as systems ``MODEL+N``; by default what the model
            was built with.
        only: the half of the recordings to score, ``"first"`` or ``"second"``; by default all of them.
    """

    references: Path
    outputs: Sequence[Path] = ()
    models: Sequence[Path] = ()
    baselines: Sequence[str] = ()
    speaker: str | None = None
    scoring_profile: str | None = None
    model_profiles: Sequence[str] = ()
    iterations: Sequence[int] = ()
    only: Half | None = None


@dataclass(frozen=True)
class Evaluation:
    """The results, which are also in ``scores.csv``, ``summary.json`` and ``index.html`` of ``folder``."""

    folder: Path
    clips: Sequence[ScoredClip]
    summary: Summary
    notes: Sequence[str]

    def table(self) -> str:
        """Means and intervals as text, followed by the notes."""
        return "\n".join([full_table(self.summary, len(self.clips)), *self.notes])


def evaluate(
    request: EvaluationRequest,
    out: Path,
    *,
    device: torch.device | str = "cpu",
    jobs: int | None = None,
    progress: bool = True,
) -> Evaluation:
    """Score sound files, models and baselines against recordings.

    Args:
        request: the models and sounds to evaluate.
        out: folder for the results. An earlier evaluation there is replaced; anything else is refused.
        device: the device that models run on.
        jobs: number of processes for scoring and baselines; by default one per core, or none for a few clips.
        progress: show progress bars on stderr.

    Raises:
        DataError: nothing to pair, no names agree, or nothing could be generated from any recording.
        AudioError: a recording cannot be read. An output that cannot be read has an empty row with the reason.
        ConfigError, MelError, CheckpointError: the baseline, speaker, profile or model is unknown.
        OutputError: ``out`` holds something else or cannot be written.
    """
    plan = plan_evaluation(request, out)
    with new_results(out) as folder, Workers(jobs, progress=progress) as workers:
        generated = generate(plan, plan.pairing.references, folder / AUDIO, workers, device)
        scoring_jobs = scoring_jobs_of(plan, plan.pairing.references, generated.outputs)
        clips = score_all(scoring_jobs, workers) if scoring_jobs else []
        return write_evaluation(request, plan, out, folder, scoring_jobs, clips, generated.notes)


def generate(
    plan: "Plan", references: Mapping[str, Path], folder: Path, workers: Workers, device: torch.device | str
) -> GeneratedOutputs:
    """Generate the outputs of the plan's models and baselines for some of its recordings, into ``folder``."""
    generated = GeneratedOutputs(folder, references)
    for system in plan.models:
        generated.add_model(system, device, progress=workers.progress)
    for name in plan.baselines:
        generated.add_baseline(name, plan.spec, workers)
    return generated


def scoring_jobs_of(
    plan: "Plan", references: Mapping[str, Path], generated: Mapping[str, Mapping[str, Path]]
) -> list[ScoringJob]:
    """A job for each of some recordings that has an output, in any system.

    Args:
        plan: the plan.
        references: clip name -> recording.
        generated: system -> clip name -> file, of the models and baselines.
    """
    files = {**plan.pairing.outputs, **generated}
    metrics = available()
    jobs = []
    for clip, reference in references.items():
        outputs = {system: by_clip[clip] for system, by_clip in files.items() if clip in by_clip}
        if outputs:
            jobs.append(ScoringJob(clip, reference, outputs, plan.spec, metrics))
    return jobs


def write_evaluation(
    request: EvaluationRequest,
    plan: "Plan",
    out: Path,
    folder: Path,
    jobs: Sequence[ScoringJob],
    clips: Sequence[ScoredClip],
    missing: Sequence[str],
) -> Evaluation:
    """Write the results of a whole evaluation.

    Args:
        request, plan: those of the evaluation.
        out: the final folder of the results.
        folder: the folder that they are written to.
        jobs: the scoring jobs of all clips.
        clips: the scored clips.
        missing: notes on what could not be generated.

    Raises:
        DataError: no clips were found.
        OutputError: a result cannot be written.
    """
    if not jobs:
        reason = missing[0] if missing else "there is nothing to score"
        raise DataError(reason, where=request.references)
    notes = [*plan.notes, *missing]
    metrics = jobs[0].metrics
    title = Path(request.references).absolute().stem
    summary = write_scored(folder, jobs, clips, systems=plan.systems, metrics=metrics, title=title, notes=notes)
    # The summary is last, because it marks the folder as a complete evaluation.
    write_summary(folder / SUMMARY, summary, **_about(request.references, clips, plan.spec, metrics, notes))
    return Evaluation(out, clips, summary, notes)


@contextlib.contextmanager
def new_results(out: Path) -> Iterator[Path]:
    """The folder in which results are written before they appear in ``out``; errors name their place there."""
    with (
        results_folder(out, RESULTS, is_ours=_is_summary) as folder,
        _final_paths_in_errors(folder, Path(out).absolute()),
    ):
        yield folder


@dataclass(frozen=True)
class Plan:
    """A request after all checks: which files, models and baselines are scored, and by which mel definition."""

    pairing: Pairing
    models: Sequence[ModelSystem]
    baselines: Sequence[str]
    spec: MelSpec
    notes: Sequence[str]

    @property
    def systems(self) -> list[str]:
        """Names of all systems, in the order of the page."""
        return [*self.pairing.outputs, *(model.name for model in self.models), *self.baselines]


def plan_evaluation(request: EvaluationRequest, out: Path) -> Plan:
    """Check everything that can be checked before any work."""
    for name in request.baselines:
        if name not in BASELINES:
            raise ConfigError(f"unknown baseline {name!r}", remedy=did_you_mean(name, BASELINES))
    baselines = list(dict.fromkeys(request.baselines))
    model_files = [find_model(model) for model in request.models]
    vocoders = [load_vocoder(file) for file in model_files]
    if request.speaker is not None and not any(vocoder.speakers for vocoder in vocoders):
        raise ConfigError(f"speaker {request.speaker!r}, but no model has speakers", remedy="leave the speaker out")
    _refuse_overlap([request.references, *request.outputs, *request.models], out)

    # Name the systems by their paths, and pair their files with the recordings.
    runs = [file.parent if file.name == MODEL else file for file in model_files]
    names = system_names([*request.outputs, *runs], taken=[REFERENCE, *baselines])
    folders = dict(zip(names, request.outputs, strict=False))
    models = dict(zip(names[len(request.outputs) :], vocoders, strict=True))
    readers = {}
    for name, vocoder in models.items():
        by_profile = vocoders_by_profile(name, vocoder, request.model_profiles, folders)
        readers[name] = with_raw(with_iterations(by_profile, request.iterations))
    pairing = pair_by_name(request.references, folders, keep_all=bool(models or baselines), only=request.only)

    # Choose the mel definition. Its sample rate is that of the evaluation; files of other rates are resampled.
    rates = _sample_rates(pairing)
    spoken = {system: reader.mel for by_system in readers.values() for system, reader in by_system.items()}
    spec = _scoring_definition(request.scoring_profile, list(spoken.values()), rates)

    systems = []
    for name, vocoder in models.items():
        speakers = speakers_of(pairing.references, vocoder, request.speaker)
        systems += [ModelSystem(system, reader, speakers) for system, reader in readers[name].items()]
    notes = [_rate_note(spec, rates, spoken), *pairing.notes]
    if note := missing_note():
        notes.append(note)
    return Plan(pairing, systems, baselines, spec, notes)


def definition_for(sample_rate_hz: int) -> MelSpec:
    """A log-mel that covers the whole band of a sample rate.

    It is BigVGAN's profile of that rate if there is one, otherwise BigVGAN's 24 kHz profile with windows of the same
    duration.
    """
    base = PROFILES["bigvgan-24k"]
    for spec in (base, PROFILES["bigvgan-22k"], PROFILES["bigvgan-44k"]):
        if spec.sample_rate_hz == sample_rate_hz:
            return spec
    n_fft = 2 ** round(math.log2(base.n_fft * sample_rate_hz / base.sample_rate_hz))
    return base.replace(
        sample_rate_hz=sample_rate_hz, n_fft=n_fft, win_length=n_fft, hop_length=n_fft // 4,
        n_mels=min(base.n_mels, n_fft // 8), f_max_hz=sample_rate_hz / 2,
    )  # fmt: skip


def _refuse_overlap(inputs: Sequence[Path], out: Path) -> None:
    """Raise OutputError if the results would replace an input, or would be taken for recordings the next time."""
    for path in inputs:
        if Path(out).exists() and path.exists() and path.resolve().is_relative_to(Path(out).resolve()):
            raise OutputError(
                f"holds {path}, which is to be scored, and would be replaced",
                where=out,
                remedy="give another --out",
            )
        if path.is_dir() and Path(out).resolve().is_relative_to(path.resolve()):
            raise OutputError(
                f"lies inside {path}, whose next evaluation would take the results for recordings",
                where=out,
                remedy="give another --out",
            )


def _sample_rates(pairing: Pairing) -> dict[str, set[int]]:
    """System -> the sample rates of its files, the recordings first; reads all headers, so damage is found early.

    An output that cannot be read gets a row without scores later, and has no say in the rate.
    """
    rates = {"the recordings": {audio_info(path).sample_rate_hz for path in pairing.references.values()}}
    for system, by_clip in pairing.outputs.items():
        rates[system] = set()
        for path in by_clip.values():
            with contextlib.suppress(AudioError):
                rates[system].add(audio_info(path).sample_rate_hz)
    return rates


def _scoring_definition(name: str | None, spoken: Sequence[MelSpec], rates: Mapping[str, set[int]]) -> MelSpec:
    if name is not None:
        return profile(name)
    if spoken:
        return min(spoken, key=lambda spec: spec.sample_rate_hz)  # the first one of that rate
    return definition_for(min(set().union(*rates.values())))


def _rate_note(spec: MelSpec, rates: Mapping[str, set[int]], spoken: Mapping[str, MelSpec]) -> str:
    rates = {**rates, **{system: {own.sample_rate_hz} for system, own in spoken.items()}}
    resampled = [
        f"{system} ({', '.join(map(str, sorted(others)))} Hz)"
        for system, own in rates.items()
        if (others := own - {spec.sample_rate_hz})
    ]
    note = f"scored at {spec.sample_rate_hz} Hz, clips aligned at their start"
    return f"{note}; resampled: {', '.join(resampled)}" if resampled else note


def _about(
    references: Path, clips: Sequence[ScoredClip], spec: MelSpec, metrics: Sequence[str], notes: Sequence[str]
) -> dict[str, Any]:
    """What ``summary.json`` says besides the scores: definitions of the metrics, and versions of the packages."""
    definitions = {}
    for key in metrics:
        metric = METRICS[key]
        definitions[key] = {**asdict(metric.description), "definition": inspect.getdoc(metric.compute)}
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
def _final_paths_in_errors(folder: Path, out: Path) -> Iterator[None]:
    """Let errors about files in the temporary ``folder`` name their final place in ``out``."""
    try:
        yield
    except OutputError as error:
        error.where = str(error.where).replace(str(folder), str(out))
        raise
