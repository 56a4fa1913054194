"""Train Vocos in a loop of ours, and compare it with wavegen's runs over the minutes of training.

    pip install vocos
    python recipes/speech24k/compare_vocos.py train /path/to/speech24k --unseen /path/to/voices24k --out runs/vocos
    python recipes/speech24k/compare_vocos.py evaluate runs/vocos --run spectral=runs/speech24k-spectral-adversarial

Model, discriminators, losses and mel are those of the package ``vocos`` (arXiv:2306.00814), with its published
settings. Clips, split and the choice of segments are those of wavegen's recipe. Two things are ours: the learning rate
falls along a cosine over the budget, as it does over Vocos' published million steps, and segments keep the level of the
recordings, at which the sounds are scored.

``train`` writes a checkpoint and the synthesised validation clips at several minutes of training. ``evaluate``
synthesises the same clips with wavegen's checkpoints, each the newest one that had no more minutes than Vocos, and
scores all of them. Minutes are those of the clock on the wall, without the time that validation takes; ``log.jsonl``
also has the minutes of the processor.
"""

import argparse
import importlib
import json
import math
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from wavegen.audio import read_audio, write_audio
from wavegen.checkpoint import (
    list_checkpoints,
    load_checkpoint,
    load_vocoder,
    load_weights,
    read_header,
    save_checkpoint,
)
from wavegen.commands import at_least, notify, pick_device, run_command
from wavegen.corpora.extraction import extract
from wavegen.corpora.lists import write_table
from wavegen.corpora.manifest import listed_recordings
from wavegen.errors import CheckpointError, ConfigError
from wavegen.evaluation.baseline import BASELINES, log_mel_of
from wavegen.evaluation.metrics import METRICS, available, missing_note
from wavegen.evaluation.pairing import list_sounds
from wavegen.evaluation.pictures import save_figure
from wavegen.evaluation.results import write_results
from wavegen.evaluation.scoring import ScoringJob, Workers
from wavegen.evaluation.summary import Interval, Summary
from wavegen.evaluation.systems import with_iterations
from wavegen.files import lock_folder, results_folder
from wavegen.mel import profile
from wavegen.pipeline import list_recordings
from wavegen.progress import LinePacer, bar_options, one_torch_thread
from wavegen.recipe import find_recipe, load_recipe
from wavegen.synthesis import synthesize
from wavegen.training.data import Segments
from wavegen.training.interruption import Interruption
from wavegen.training.progress import Window
from wavegen.training.run_folder import RunFolder
from wavegen.vocoders import Vocoder

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Vocos' published settings for mels at 24 kHz (configs/vocos.yaml of its repository).
RATE_HZ = 24000
HOP = 256
SEGMENT_FRAMES = 64  # 16384 samples
BATCH = 16
LEARNING_RATE = 5e-4
BETAS = (0.8, 0.9)
MEL_WEIGHT = 45.0
PERIOD_WEIGHT = 1.0
RESOLUTION_WEIGHT = 0.1

NAME = "compare_vocos"
VOCOS = "vocos"
MARKS = (5.0, 10.0, 15.0, 20.0, 30.0)  # minutes
RECORDINGS = "recordings"
LOG_EVERY = 10  # steps
RULERS = ("pesq", "distillmos", "log_mel", "m_stft", "voicing_f1")
CURVES = ("corpus", "system", "minutes", "steps", "ruler", "mean", "low", "high", "clips")

Speaker = Callable[[np.ndarray], np.ndarray]
"""A recording ``[samples]`` at 24 kHz -> a system's version of it."""


def vocos_module(name: str) -> Any:
    """A module of the installed package.

    Raises:
        ConfigError: the package, or one that it needs, is not installed.
    """
    try:
        return importlib.import_module(f"{VOCOS}.{name}")
    except ImportError as error:
        package = (error.name or VOCOS).partition(".")[0]
        what = f"cannot be imported, because the package {package} is missing"
        raise ConfigError(what, where=VOCOS, remedy="pip install vocos") from error


def build_vocos() -> nn.Module:
    """Vocos with new weights. Called with audio ``[batch, samples]``, it returns its version of it."""
    features = vocos_module("feature_extractors").MelSpectrogramFeatures(
        sample_rate=RATE_HZ, n_fft=1024, hop_length=HOP, n_mels=100, padding="center"
    )
    backbone = vocos_module("models").VocosBackbone(input_channels=100, dim=512, intermediate_dim=1536, num_layers=8)
    head = vocos_module("heads").ISTFTHead(dim=512, n_fft=1024, hop_length=HOP, padding="center")
    model: nn.Module = vocos_module("pretrained").Vocos(features, backbone, head)
    return model


# --- training ---


class Spent(NamedTuple):
    """What a training has cost so far: steps, and minutes of the clock and of the processor."""

    steps: int = 0
    minutes: float = 0.0
    cpu_minutes: float = 0.0


class VocosTraining:
    """Vocos in training with its two discriminators, as ``vocos.experiment`` trains it.

    Args:
        device: the device to train on.

    Attributes:
        spent: what the steps so far have cost.
    """

    def __init__(self, device: torch.device) -> None:
        discriminators, losses = vocos_module("discriminators"), vocos_module("loss")
        self.model: Any = build_vocos().to(device)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # torch's former weight_norm
            both = [discriminators.MultiPeriodDiscriminator(), discriminators.MultiResolutionDiscriminator()]
        self.discriminators = nn.ModuleList(both).to(device)
        self.discriminator_loss = losses.DiscriminatorLoss()
        self.generator_loss = losses.GeneratorLoss()
        self.feature_loss = losses.FeatureMatchingLoss()
        self.mel_loss = losses.MelSpecReconstructionLoss(sample_rate=RATE_HZ).to(device)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), betas=BETAS)
        self.discriminator_optimizer = torch.optim.AdamW(self.discriminators.parameters(), betas=BETAS)
        self.spent = Spent()

    def take_step(self, audio: Tensor, learning_rate: float) -> dict[str, Tensor]:
        """Train the discriminators, then the generator, on a batch ``[batch, samples]``; returns the losses."""
        for optimizer in (self.optimizer, self.discriminator_optimizer):
            optimizer.zero_grad()
            for group in optimizer.param_groups:
                group["lr"] = learning_rate

        with torch.no_grad():
            fake = self._generate(audio)
        losses = {"discriminator_loss": self._discriminator_loss(audio, fake)}
        losses["discriminator_loss"].backward()
        self.discriminator_optimizer.step()

        self.discriminators.requires_grad_(False)
        losses |= self._generator_losses(audio, self._generate(audio))
        losses["loss"].backward()
        self.optimizer.step()
        self.discriminators.requires_grad_(True)
        return losses

    def _generate(self, audio: Tensor) -> Tensor:
        features = self.model.feature_extractor(audio)
        sound: Tensor = self.model.head(self.model.backbone(features))
        return sound

    def _weighted(self) -> Iterator[tuple[float, nn.Module]]:
        return zip((PERIOD_WEIGHT, RESOLUTION_WEIGHT), self.discriminators, strict=True)

    def _discriminator_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        loss = real.new_zeros(1)
        for weight, discriminator in self._weighted():
            of_real, of_fake, _, _ = discriminator(y=real, y_hat=fake)
            total, parts, _ = self.discriminator_loss(of_real, of_fake)
            loss = loss + weight * total / len(parts)
        return loss

    def _generator_losses(self, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        adversarial = features = real.new_zeros(1)
        for weight, discriminator in self._weighted():
            _, of_fake, real_features, fake_features = discriminator(y=real, y_hat=fake)
            total, parts = self.generator_loss(of_fake)
            adversarial = adversarial + weight * total / len(parts)
            distance = self.feature_loss(real_features, fake_features)
            features = features + weight * distance / len(real_features)
        mel = self.mel_loss(fake, real)
        loss = adversarial + features + MEL_WEIGHT * mel
        return {"loss": loss, "mel_loss": mel, "adversarial": adversarial, "feature_matching": features}

    def tensors(self) -> dict[str, Tensor]:
        """All that a resumed training needs, by name."""
        named = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        named |= {f"discriminators.{name}": value for name, value in self.discriminators.state_dict().items()}
        for prefix, optimizer in self._optimizers():
            for index, values in optimizer.state_dict()["state"].items():
                named |= {f"{prefix}.{index}.{key}": value for key, value in values.items()}
        return named

    def restore(self, path: Path) -> dict[str, Any]:
        """Load a file of ``tensors()``; returns its header.

        Raises:
            CheckpointError: the file is damaged or holds something else.
        """
        tensors, header = load_checkpoint(path)
        load_weights(self.model, _below("model", tensors), path)
        load_weights(self.discriminators, _below("discriminators", tensors), path)
        for prefix, optimizer in self._optimizers():
            state: dict[int, dict[str, Tensor]] = {}
            for name, value in _below(prefix, tensors).items():
                index, key = name.split(".")
                state.setdefault(int(index), {})[key] = value
            optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
        self.spent = Spent(*header["spent"])
        return header

    def _optimizers(self) -> Iterator[tuple[str, torch.optim.Optimizer]]:
        yield "optimizer", self.optimizer
        yield "discriminator_optimizer", self.discriminator_optimizer


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    prefix = f"{prefix}."
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


class VocosFolder:
    """The files of a training of Vocos.

    Args:
        path: its folder.

    Attributes:
        state: the newest training state, to resume from.
        sounds: ``CORPUS/recordings`` and ``CORPUS/SYSTEM@MINUTES``, folders of the validation clips.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.state = path / "state.safetensors"
        self.sounds = path / "sounds"

    def checkpoint(self, mark: float) -> Path:
        """The model after so many minutes."""
        return self.path / "checkpoints" / f"minutes-{mark:g}.safetensors"

    def checkpoints(self) -> dict[float, tuple[Path, Spent]]:
        """Minutes -> the model's file, and what it cost; by minutes.

        Raises:
            CheckpointError: there are none.
        """
        files = {float(path.stem.removeprefix("minutes-")): path for path in self.path.glob("checkpoints/minutes-*")}
        if not files:
            raise CheckpointError("has no checkpoints", where=self.path, remedy=f"run {NAME} train first")
        return {mark: (files[mark], Spent(*read_header(files[mark])["spent"])) for mark in sorted(files)}

    def recordings(self) -> dict[str, dict[str, Path]]:
        """Corpus -> clip name -> recording."""
        folders = sorted(self.sounds.glob(f"*/{RECORDINGS}"))
        return {folder.parent.name: list_sounds(folder) for folder in folders}


def train(arguments: argparse.Namespace) -> int:
    """Train Vocos until the budget is spent, or the user stops it; the same command resumes."""
    device = pick_device(arguments.device)
    torch.manual_seed(arguments.seed)
    training = VocosTraining(device)
    folder = VocosFolder(arguments.out)

    # The clips are those of the recipe; its features are computed if they are not there yet.
    path = find_recipe(arguments.recipe)
    recipe = load_recipe(path, [f"data.corpus={arguments.corpus}"])
    if (recipe.mel.sample_rate_hz, recipe.mel.hop_length) != (RATE_HZ, HOP):
        what = f"its mel has {recipe.mel.sample_rate_hz} Hz and a hop of {recipe.mel.hop_length}"
        raise ConfigError(what, where=arguments.recipe, remedy=f"Vocos needs {RATE_HZ} Hz and {HOP}")
    features = recipe.data.features or arguments.out / "features"
    clips = extract(list_recordings(recipe, path), features, recipe.mel).clips
    corpora = {arguments.corpus.absolute().name: {clip.name: clip.audio for clip in clips if clip.split == "valid"}}
    for corpus in arguments.unseen:
        if corpus.absolute().name in corpora:
            what = "another corpus has the same name"
            raise ConfigError(what, where=corpus, remedy="give a folder or link with another name")
        corpora[corpus.absolute().name] = {r.name: r.path for r in listed_recordings(corpus) if r.split == "valid"}

    run = RunFolder(arguments.out, recipe.network, {})  # for its log
    with lock_folder(arguments.out, "wait for it, or give another --out"):
        settings = {"batch": arguments.batch, "seed": arguments.seed, "corpus": arguments.corpus.absolute().name}
        if folder.state.exists():
            _refuse_others(settings, training.restore(folder.state)["settings"], folder.state)
            notify(f"resuming at step {training.spent.steps}, {training.spent.minutes:.2f} minutes")
        run.truncate_log(training.spent.steps)
        for corpus_name, recordings in corpora.items():
            copies = folder.sounds / corpus_name / RECORDINGS
            if not copies.exists():
                speak(lambda samples: samples, _evenly(recordings, arguments.clips), copies)

        segments = Segments(
            [clip for clip in clips if clip.split == "train"], recipe.mel, frames=SEGMENT_FRAMES, seed=arguments.seed
        )

        def save_state() -> None:
            header = {"settings": settings, "spent": training.spent}
            save_checkpoint(folder.state, training.tensors(), header)

        def pass_mark(mark: float) -> None:
            tensors = {f"model.{name}": value for name, value in training.model.state_dict().items()}
            save_checkpoint(folder.checkpoint(mark), tensors, {"spent": training.spent})
            for corpus_name, recordings in folder.recordings().items():
                speak(speaker_of(training.model), recordings, folder.sounds / corpus_name / f"{VOCOS}@{mark:g}")
            save_state()  # last: a training that is killed before it passes the mark again
            spent = training.spent
            notify(f"{mark:g} minutes: {spent.steps} steps, {spent.cpu_minutes:.2f} minutes of the processor")

        with Interruption() as interruption:
            _spend(training, segments, arguments, run, interruption, pass_mark)
            if interruption.requested:
                save_state()
                notify(f"stopped at step {training.spent.steps}; the same command resumes from there")
    return 0


def _refuse_others(settings: Mapping[str, object], before: Mapping[str, object], path: Path) -> None:
    if settings != before:
        raise ConfigError(
            f"this training began with other settings ({before}, not {settings})",
            where=path,
            remedy="give another --out, or undo the change",
        )


def _spend(
    training: VocosTraining,
    segments: Segments,
    arguments: argparse.Namespace,
    run: RunFolder,
    interruption: Interruption,
    pass_mark: Callable[[float], None],
) -> None:
    """Take steps until the minutes or the steps are spent; call ``pass_mark`` with each mark that is reached."""
    budget, most_steps = arguments.minutes, arguments.steps or sys.maxsize
    device = next(training.model.parameters()).device
    marks = [mark for mark in sorted({*arguments.marks}) if training.spent.minutes < mark < budget]
    batches = segments.batches(training.spent.steps, most_steps, arguments.batch, rank=0, world=1, workers=0)
    window, pacer = Window(), LinePacer()

    def done() -> float:
        """The share of the budget that is spent."""
        return max(training.spent.minutes / budget, training.spent.steps / most_steps)

    while done() < 1 and not interruption.requested:
        clocks = time.perf_counter(), time.process_time()
        batch = next(batches).to(device)
        window.add(training.take_step(batch.audio, LEARNING_RATE * 0.5 * (1 + math.cos(math.pi * done()))))
        if device.type == "cuda":
            torch.cuda.synchronize(device)  # the clock must not run ahead of the work
        steps, minutes, cpu_minutes = training.spent
        minutes += (time.perf_counter() - clocks[0]) / 60
        cpu_minutes += (time.process_time() - clocks[1]) / 60
        training.spent = Spent(steps + 1, minutes, cpu_minutes)

        if training.spent.steps % LOG_EVERY == 0 or done() >= 1:
            means = window.means(device)
            window = Window()
            run.append_to_log({"step": steps + 1, "minutes": minutes, "cpu_minutes": cpu_minutes, **means})
            if pacer.is_due():
                losses = "  ".join(f"{name} {means[name]:.3f}" for name in ("loss", "mel_loss", "discriminator_loss"))
                notify(f"step {steps + 1}  {minutes:.1f} of {budget:g} minutes  {losses}")
        while marks and minutes >= marks[0]:
            pass_mark(marks.pop(0))
            window = Window()  # time spent there is not training time
    if done() >= 1:
        pass_mark(budget if training.spent.minutes >= budget else round(training.spent.minutes, 2))


def _evenly(recordings: Mapping[str, Path], count: int | None) -> dict[str, Path]:
    """``count`` of the recordings at even distances, because neighbours share a speaker; None for all."""
    names = sorted(recordings)
    count = min(count or len(names), len(names))
    return {
        names[index * len(names) // count]: recordings[names[index * len(names) // count]] for index in range(count)
    }


def speak(speaker: Speaker, recordings: Mapping[str, Path], folder: Path) -> None:
    """Write a system's version of each recording to ``FOLDER/NAME.wav``."""
    for name, path in tqdm(recordings.items(), desc=folder.name, unit="clip", **bar_options()):
        write_audio(folder / f"{name}.wav", speaker(read_audio(path, RATE_HZ)).astype(np.float32), RATE_HZ)


def speaker_of(model: nn.Module) -> Speaker:
    """Vocos as a system: it computes its own mel of a recording."""
    device = next(model.parameters()).device

    def copy(samples: np.ndarray) -> np.ndarray:
        sound: np.ndarray = model(torch.from_numpy(samples).to(device)[None])[0].cpu().numpy()
        return sound

    return copy


# --- evaluation ---


@dataclass(frozen=True)
class System:
    """A system after some minutes of training; a baseline has none.

    Attributes:
        name: name of the system.
        folder: name of the folder of its sounds, ``NAME@MINUTES``.
        spent: what its training cost.
        parameters: the number of its weights.
        speaker: speaks a recording; made when it is called.
    """

    name: str
    folder: str
    spent: Spent
    parameters: int
    speaker: Speaker


def evaluate(arguments: argparse.Namespace) -> int:
    """Score Vocos, wavegen's runs and the baselines; write tables, curves and listening pages."""
    folder = VocosFolder(arguments.vocos)
    systems = vocos_systems(folder)
    for name, run in arguments.run:
        systems += wavegen_systems(name, run, list(folder.checkpoints()), arguments.iterations)
    systems += [_baseline(name) for name in arguments.baseline]
    corpora = folder.recordings()
    rulers = [key for key in RULERS if key in available()]
    notes = [note for note in [missing_note()] if note]

    out = arguments.vocos / "comparison"
    entries = [*corpora, "curves.png", "systems.tsv", "curves.tsv"]
    with (
        results_folder(
            out, entries, is_ours=lambda marker: marker.read_text().startswith("\t".join(CURVES))
        ) as results,
        Workers(arguments.jobs) as workers,
    ):
        rows = []
        for corpus, recordings in corpora.items():
            for system in systems:
                if system.name != VOCOS:  # its sounds were written while it trained
                    speak(system.speaker, recordings, folder.sounds / corpus / system.folder)
            jobs = [
                ScoringJob(
                    clip,
                    path,
                    {s.folder: folder.sounds / corpus / s.folder / f"{clip}.wav" for s in systems},
                    profile("bigvgan-24k"),
                    rulers,
                )
                for clip, path in recordings.items()
            ]
            (results / corpus).mkdir()
            _, summary = write_results(
                results / corpus, jobs, workers,
                systems=[s.folder for s in systems], metrics=rulers, title=f"{corpus}: Vocos and wavegen", notes=notes,
            )  # fmt: skip
            rows += curve_rows(corpus, systems, summary)
        write_table(results / "systems.tsv", ("system", "parameters", "real_time"), speeds(systems, corpora))
        save_figure(curves(rows), results / "curves.png")
        write_table(results / "curves.tsv", CURVES, rows)
    notify((out / "systems.tsv").read_text().rstrip())
    notify(f"curves: {out / 'curves.tsv'}, {out / 'curves.png'}; sounds: {out}/*/index.html")
    return 0


def vocos_systems(folder: VocosFolder) -> list[System]:
    """Vocos at each mark."""
    systems = []
    for mark, (path, spent) in folder.checkpoints().items():
        model = build_vocos().eval()
        load_weights(model, _below("model", load_checkpoint(path)[0]), path)
        systems.append(System(VOCOS, f"{VOCOS}@{mark:g}", spent, _parameters(model), speaker_of(model)))
    return systems


def wavegen_systems(name: str, run: Path, marks: Sequence[float], iterations: Sequence[int]) -> list[System]:
    """A wavegen run at each mark: its newest checkpoint that had no more minutes, at several numbers of iterations.

    Raises:
        CheckpointError: no checkpoint is that early.
    """
    spent = {path: minutes_of(run, int(read_header(path)["step"])) for path in list_checkpoints(run)}
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
        vocoder = load_vocoder(path)
        several = {name: vocoder}
        if "iterations" in vocoder.synthesis_options:
            several = with_iterations(several, iterations)
        for system, version in several.items():
            speaker = partial(_copy_synthesis, version)
            systems.append(System(system, f"{system}@{mark:g}", spent[path], _parameters(vocoder), speaker))
    return sorted(systems, key=lambda system: system.name)


def minutes_of(run: Path, step: int) -> Spent:
    """What a run of ``wavegen-train`` has cost at a step, without validation, from the steps per second in its log."""
    spent = Spent()
    for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if row["kind"] == "train" and row["step"] <= step:
            minutes = spent.minutes + (row["step"] - spent.steps) / row["steps_per_s"] / 60
            spent = Spent(row["step"], minutes, math.nan)
    return spent._replace(steps=step)


def _copy_synthesis(vocoder: Vocoder, samples: np.ndarray) -> np.ndarray:
    return synthesize(vocoder, log_mel_of(samples, vocoder.mel))


def _baseline(name: str) -> System:
    return System(name, name, Spent(), 0, lambda samples: BASELINES[name](samples, profile("bigvgan-24k")))


def _parameters(model: nn.Module) -> int:
    return sum(weight.numel() for weight in model.parameters())


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
    if not separator or not name or "/" in name or "@" in name or name == VOCOS:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=FOLDER, such as spectral=runs/speech24k-spectral")
    return name, Path(path)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script; returns its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)

    training = commands.add_parser("train", help="train Vocos, and write the validation clips at each mark")
    training.set_defaults(command=train)
    training.add_argument("corpus", type=Path, help="the corpus of the recipe")
    training.add_argument("--recipe", default="speech24k/spectral-adversarial", help="lists the clips (%(default)s)")
    training.add_argument("--unseen", type=Path, action="append", default=[], metavar="CORPUS",
                          help="also synthesise the validation clips of this corpus; can be repeated")  # fmt: skip
    training.add_argument("--out", type=Path, default=Path("runs/vocos"), help="folder to write (%(default)s)")
    training.add_argument("--minutes", type=at_least(0, float), default=30.0, help="the budget (%(default)g)")
    training.add_argument("--steps", type=at_least(1), help="end after so many steps, if that is earlier")
    training.add_argument("--marks", type=at_least(0, float), nargs="+", default=MARKS, metavar="MINUTES",
                          help="when to write the clips, besides the end (5 10 15 20 30)")  # fmt: skip
    training.add_argument("--batch", type=at_least(1), default=BATCH, help="segments per step (%(default)s)")
    training.add_argument("--clips", type=at_least(1), help="validation clips of each corpus (all)")
    training.add_argument("--seed", type=at_least(0), default=0)
    training.add_argument("--device", default="auto")

    evaluation = commands.add_parser("evaluate", help="score the clips of Vocos, and those of wavegen's runs")
    evaluation.set_defaults(command=evaluate)
    evaluation.add_argument("vocos", type=Path, help="the folder that train wrote; results go to its comparison/")
    evaluation.add_argument("--run", type=_named_run, action="append", default=[], metavar="NAME=FOLDER",
                            help="a run of wavegen-train that kept its checkpoints; can be repeated")  # fmt: skip
    evaluation.add_argument(
        "--iterations",
        type=at_least(0),
        nargs="+",
        default=[0, 6],
        help="iterations after those that were trained through (0 6)",
    )
    evaluation.add_argument("--baseline", choices=list(BASELINES), nargs="*", default=["griffin-lim", "source-filter"])
    evaluation.add_argument("--jobs", type=at_least(1), help="processes that score (one per core)")

    arguments = parser.parse_args(argv)
    return run_command(NAME, lambda: int(arguments.command(arguments)))


if __name__ == "__main__":
    sys.exit(main())
