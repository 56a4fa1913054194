"""Compare runs over the minutes of training: curves of every metric, speeds, and a listening page for each corpus.

    python recipes/speech24k/compare_runs.py /path/to/speech24k /path/to/voices24k \
        --run spectral=runs/speech24k-spectral --run vocos=runs/vocos --minutes 5 15 30 --out runs/comparison

A run is one of ``wavegen-train``, with ``training.keep_checkpoints`` high enough, or of ``train_vocos.py``. Its newest
checkpoint that had taken no more minutes stands for it. Minutes are those of the clock, without validation. The clips
are the validation clips that a corpus lists in its MANIFEST.tsv.
"""

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn
from tqdm import tqdm
from train_vocos import MARKS, STATE, Spent, below, build_vocos

from wavegen.audio import read_audio, write_audio
from wavegen.checkpoint import list_checkpoints, load_checkpoint, load_vocoder, load_weights, read_header
from wavegen.commands import at_least, notify, run_command
from wavegen.corpora.lists import write_table
from wavegen.corpora.manifest import listed_recordings
from wavegen.errors import CheckpointError, ConfigError
from wavegen.evaluation.baseline import BASELINES, log_mel_of
from wavegen.evaluation.metrics import METRICS, available, missing_note
from wavegen.evaluation.pictures import save_figure
from wavegen.evaluation.results import write_results
from wavegen.evaluation.scoring import ScoringJob, Workers
from wavegen.evaluation.summary import Interval, Summary
from wavegen.evaluation.systems import with_iterations
from wavegen.files import results_folder
from wavegen.mel import profile
from wavegen.progress import bar_options, one_torch_thread
from wavegen.synthesis import synthesize
from wavegen.vocoders import Vocoder

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAME = "compare_runs"
MEL = "bigvgan-24k"  # of the baselines and of the log-mel metric
RATE_HZ = profile(MEL).sample_rate_hz
RULERS = ("pesq", "distillmos", "log_mel", "m_stft", "voicing_f1")
CURVES = ("corpus", "system", "minutes", "steps", "ruler", "mean", "low", "high", "clips")

Speaker = Callable[[np.ndarray], np.ndarray]
"""A recording ``[samples]`` -> a system's version of it, both at ``RATE_HZ``."""


@dataclass(frozen=True)
class System:
    """A system after some minutes of training; a baseline has none.

    Attributes:
        name: name of the system.
        folder: name of the folder of its sounds, ``NAME@MINUTES``.
        spent: what its training cost.
        parameters: the number of its weights.
        speaker: speaks a recording.
    """

    name: str
    folder: str
    spent: Spent
    parameters: int
    speaker: Speaker


def compare(arguments: argparse.Namespace) -> int:
    """Score the runs and the baselines; write tables, curves and listening pages."""
    systems = [_baseline(name) for name in arguments.baseline]
    for name, run in arguments.run:
        systems += systems_of_run(name, run, arguments.minutes, arguments.iterations)
    corpora = {corpus.absolute().name: validation_clips(corpus, arguments.clips) for corpus in arguments.corpora}
    rulers = [key for key in RULERS if key in available()]
    notes = [note for note in [missing_note()] if note]

    out = arguments.out
    entries = [*corpora, "curves.png", "systems.tsv", "curves.tsv"]
    with (
        results_folder(
            out, entries, is_ours=lambda marker: marker.read_text().startswith("\t".join(CURVES))
        ) as results,
        Workers(arguments.jobs) as workers,
    ):
        rows = []
        sounds = results / "sounds"  # not a result: the pages hold copies
        for corpus, recordings in corpora.items():
            for system in systems:
                speak(system.speaker, recordings, sounds / corpus / system.folder)
            jobs = [
                ScoringJob(
                    clip,
                    path,
                    {s.folder: sounds / corpus / s.folder / f"{clip}.wav" for s in systems},
                    profile(MEL),
                    rulers,
                )
                for clip, path in recordings.items()
            ]
            (results / corpus).mkdir()
            _, summary = write_results(
                results / corpus, jobs, workers,
                systems=[s.folder for s in systems], metrics=rulers, title=f"{corpus}: runs", notes=notes,
            )  # fmt: skip
            rows += curve_rows(corpus, systems, summary)
        write_table(results / "systems.tsv", ("system", "parameters", "real_time"), speeds(systems, corpora))
        save_figure(curves(rows), results / "curves.png")
        write_table(results / "curves.tsv", CURVES, rows)
    notify((out / "systems.tsv").read_text().rstrip())
    notify(f"curves: {out / 'curves.tsv'}, {out / 'curves.png'}; sounds: {out}/*/index.html")
    return 0


# --- what is compared ---


def validation_clips(corpus: Path, count: int | None) -> dict[str, Path]:
    """``count`` of a corpus's validation clips at even distances, because neighbours share a speaker; None for all."""
    clips = {r.name: r.path for r in listed_recordings(corpus) if r.split == "valid"}
    if not clips:
        raise ConfigError("lists no validation clips", where=corpus, remedy="give a corpus with the split 'valid'")
    names = sorted(clips)
    count = min(count or len(names), len(names))
    chosen = [names[index * len(names) // count] for index in range(count)]
    return {name: clips[name] for name in chosen}


def systems_of_run(name: str, run: Path, marks: Sequence[float], iterations: Sequence[int]) -> list[System]:
    """A run at each mark: its newest checkpoint that had no more minutes, at several numbers of iterations.

    Raises:
        CheckpointError: no checkpoint is that early.
    """
    is_vocos = (run / STATE).exists()
    spent = vocos_checkpoints(run) if is_vocos else wavegen_checkpoints(run)
    chosen = {}
    for mark in marks:
        early = [path for path, cost in spent.items() if cost.minutes <= mark]
        if early:
            chosen[max(early, key=lambda path: spent[path].steps)] = mark  # one for two marks: at the later one
    if not chosen:
        what = f"no checkpoint has at most {max(marks):g} minutes"
        remedy = "train with training.checkpoint_every=100 training.keep_checkpoints=1000"
        raise CheckpointError(what, where=run, remedy=remedy)
    systems = []
    for path, mark in chosen.items():
        versions = {name: load_vocos(path)} if is_vocos else wavegen_versions(name, path, iterations)
        for system, (model, speaker) in versions.items():
            parameters = sum(weight.numel() for weight in model.parameters())
            systems.append(System(system, f"{system}@{mark:g}", spent[path], parameters, speaker))
    return sorted(systems, key=lambda system: system.name)


def wavegen_checkpoints(run: Path) -> dict[Path, Spent]:
    """The checkpoints of a run of ``wavegen-train``, and what they had cost."""
    return {path: minutes_of(run, int(read_header(path)["step"])) for path in list_checkpoints(run)}


def minutes_of(run: Path, step: int) -> Spent:
    """What a run of ``wavegen-train`` has cost at a step, without validation, from the steps per second in its log."""
    spent = Spent()
    for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if row["kind"] == "train" and row["step"] <= step:
            minutes = spent.minutes + (row["step"] - spent.steps) / row["steps_per_s"] / 60
            spent = Spent(row["step"], minutes, math.nan)
    return spent._replace(steps=step)


def wavegen_versions(name: str, path: Path, iterations: Sequence[int]) -> dict[str, tuple[nn.Module, Speaker]]:
    """A vocoder of wavegen and how it speaks: at several numbers of iterations, if it has any."""
    vocoder = load_vocoder(path)
    several: Mapping[str, Vocoder] = {name: vocoder}
    if "iterations" in vocoder.synthesis_options:
        several = with_iterations(several, iterations)
    return {system: (version, partial(_copy_synthesis, version)) for system, version in several.items()}


def _copy_synthesis(vocoder: Vocoder, samples: np.ndarray) -> np.ndarray:
    return synthesize(vocoder, log_mel_of(samples, vocoder.mel))


def vocos_checkpoints(run: Path) -> dict[Path, Spent]:
    """The checkpoints of a run of ``train_vocos.py``, and what they had cost."""
    return {path: Spent(*read_header(path)["spent"]) for path in sorted(run.glob("checkpoints/minutes-*"))}


def load_vocos(path: Path) -> tuple[nn.Module, Speaker]:
    """Vocos and how it speaks: it computes its own mel of a recording."""
    model = build_vocos().eval()
    load_weights(model, below("model", load_checkpoint(path)[0]), path)

    @torch.no_grad()
    def copy(samples: np.ndarray) -> np.ndarray:
        sound: np.ndarray = model(torch.from_numpy(samples)[None])[0].numpy()
        return sound

    return model, copy


def _baseline(name: str) -> System:
    return System(name, name, Spent(), 0, lambda samples: BASELINES[name](samples, profile(MEL)))


def speak(speaker: Speaker, recordings: Mapping[str, Path], folder: Path) -> None:
    """Write a system's version of each recording to ``FOLDER/NAME.wav``."""
    for name, path in tqdm(recordings.items(), desc=folder.name, unit="clip", **bar_options()):
        write_audio(folder / f"{name}.wav", speaker(read_audio(path, RATE_HZ)).astype(np.float32), RATE_HZ)


# --- results ---


def curve_rows(corpus: str, systems: Sequence[System], summary: Summary) -> list[list[object]]:
    """Rows of ``curves.tsv``: a score by corpus, system, minutes and ruler. Predictors: differences to recordings."""
    rows: list[list[object]] = []
    for system in systems:
        for key, found in summary[system.folder].items():
            score: Interval = found.to_reference or found
            ruler = METRICS[key].label + (" minus recordings" if found.to_reference else "")
            ends = ["" if end is None else f"{end:.5g}" for end in (score.low, score.high)]
            minutes = f"{system.spent.minutes:.2f}"
            rows.append(
                [corpus, system.name, minutes, system.spent.steps, ruler, f"{score.mean:.5g}", *ends, score.count]
            )
    return rows


def speeds(systems: Sequence[System], corpora: Mapping[str, Mapping[str, Path]], runs: int = 5) -> list[list[object]]:
    """Parameters and × real time of each system, mel included: medians of several runs, all in turn, on one thread."""
    newest = {system.name: system for system in systems}
    longest = max((path for clips in corpora.values() for path in clips.values()), key=lambda path: path.stat().st_size)
    samples = read_audio(longest, RATE_HZ)
    times: dict[str, list[float]] = {name: [] for name in newest}
    with one_torch_thread():
        for run in range(runs + 1):
            for name, system in newest.items():
                started = time.perf_counter()
                system.speaker(samples)
                if run:  # the first one warms up
                    times[name].append(time.perf_counter() - started)
    seconds = len(samples) / RATE_HZ
    return [[n, newest[n].parameters, f"{seconds / statistics.median(measured):.1f}"] for n, measured in times.items()]


def curves(rows: Sequence[Sequence[object]]) -> "Figure":
    """A panel for each corpus and ruler: a line for each system, its intervals shaded; baselines as level lines."""
    from matplotlib.figure import Figure

    table = [dict(zip(CURVES, map(str, row), strict=True)) for row in rows]
    corpora, rulers, names = (list(dict.fromkeys(row[key] for row in table)) for key in ("corpus", "ruler", "system"))
    figure = Figure(figsize=(3.4 * len(rulers), 3.2 * len(corpora)), layout="constrained")
    panels = figure.subplots(len(corpora), len(rulers), squeeze=False)
    for corpus, line_of_panels in zip(corpora, panels, strict=True):
        for ruler, axes in zip(rulers, line_of_panels, strict=True):
            axes.set(title=f"{corpus}: {ruler}", xlabel="minutes of training")
            axes.grid(alpha=0.3)
            for index, name in enumerate(names):
                own = [r for r in table if (r["corpus"], r["ruler"], r["system"]) == (corpus, ruler, name)]
                means = [float(row["mean"]) for row in own]
                if own and own[0]["steps"] == "0":  # a baseline
                    axes.axhline(means[0], color=f"C{index}", linestyle="--", label=name)
                    continue
                minutes = [float(row["minutes"]) for row in own]
                axes.plot(minutes, means, marker=".", color=f"C{index}", label=name)
                if all(row["low"] for row in own):
                    ends = [[float(row[end]) for row in own] for end in ("low", "high")]
                    axes.fill_between(minutes, *ends, color=f"C{index}", alpha=0.15)
    figure.legend(*panels[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=len(names))
    return figure


# --- the command line ---


def _named_run(text: str) -> tuple[str, Path]:
    name, separator, path = text.partition("=")
    if not separator or not name or "/" in name or "@" in name:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=FOLDER, such as spectral=runs/speech24k-spectral")
    return name, Path(path)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script; returns its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpora", type=Path, nargs="+", metavar="CORPUS", help="folder with a MANIFEST.tsv")
    parser.add_argument("--run", type=_named_run, action="append", default=[], metavar="NAME=FOLDER",
                        help="a run that kept its checkpoints; can be repeated")  # fmt: skip
    parser.add_argument("--minutes", type=at_least(0, float), nargs="+", default=MARKS, metavar="MINUTES",
                        help="when runs are compared (5 10 15 20 30)")  # fmt: skip
    parser.add_argument("--iterations", type=at_least(0), nargs="+", default=[0, 6],
                        help="iterations after those that were trained through (0 6)")  # fmt: skip
    parser.add_argument("--baseline", choices=list(BASELINES), nargs="*", default=["griffin-lim", "source-filter"])
    parser.add_argument("--clips", type=at_least(1), help="validation clips of each corpus (all)")
    parser.add_argument("--out", type=Path, default=Path("runs/comparison"), help="folder to write (%(default)s)")
    parser.add_argument("--jobs", type=at_least(1), help="processes that score (one per core)")
    arguments = parser.parse_args(argv)
    return run_command(NAME, lambda: compare(arguments))


if __name__ == "__main__":
    sys.exit(main())
