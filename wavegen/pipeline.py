"""The stages of a run: features, training, samples. A stage that is finished is skipped unless its inputs changed."""

import contextlib
import importlib.util
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Any

import torch

from wavegen.checkpoint import MODEL, load_model, load_vocoder, read_header
from wavegen.config import MayChangeDuringRun
from wavegen.corpora.extraction import Extraction, extract, is_complete
from wavegen.corpora.folders import find_recordings
from wavegen.corpora.formats import OURS, list_format
from wavegen.corpora.labelling import label_clips
from wavegen.corpora.manifest import (
    Clip,
    Recording,
    read_recordings,
    speaker_table,
    take_evenly,
    write_manifest,
)
from wavegen.corpora.marker import has_same_content
from wavegen.errors import CheckpointError, ConfigError, DataError
from wavegen.evaluation.model_samples import write_model_samples
from wavegen.evaluation.samples import Synthesizer, write_samples
from wavegen.evaluation.summary import short_table
from wavegen.evaluation.systems import without_imposing
from wavegen.files import atomic_write, lock_folder, require_folder
from wavegen.models import MODELS
from wavegen.recipe import Recipe, build, load_recipe, save_recipe
from wavegen.synthesis import synthesize
from wavegen.training import distributed
from wavegen.training.loggers import require_logger
from wavegen.training.loop import train
from wavegen.training.run_folder import RunFolder
from wavegen.training.validation import clips_for
from wavegen.vocoders import Vocoder

Notify = Callable[[str], None]

RECIPE = "recipe.yaml"
RECORDINGS = "recordings.tsv"
LABELS = "labels"
_MAX_CHANGES_SHOWN = 4
_PLACES = ("data.corpus", "data.manifest")  # may change if the recordings are the same


def run(recipe: Recipe, recipe_path: Path, out: Path, *, device: torch.device, notify: Notify, progress: bool) -> bool:
    """Take a recipe from recordings to scored samples, skipping what is finished.

    Args:
        recipe: the recipe, as ``load_recipe`` returns it.
        recipe_path: the recipe's file; a ``prepare.py`` beside it may list the recordings.
        out: the run's folder.
        device: the device to train and synthesise on.
        notify: prints a line for the user.
        progress: whether to show progress bars.

    Returns:
        False if training was interrupted.
    """
    rank, world = distributed.rank_from_environment()
    if rank > 0:  # only the first process reports
        notify = _discard
        progress = False

    # Refuse what cannot work before any file is written and before hours of extraction.
    require_folder(out)
    distributed.check_batch_size(recipe.training.batch_size, world)
    require_logger(recipe.training.logger)
    features = recipe.data.features or out / "features"
    recordings = _recordings_of_run(recipe, recipe_path, out, features, notify, compare=rank == 0)
    if recipe.init is not None and not (_run_folder(recipe, out).checkpoint_files() or (out / MODEL).exists()):
        _run_folder(recipe, out).read_init(recipe.init, recipe.mel, _speakers(recipe, recordings))

    # The first process extracts. The others poll, because extraction may take longer than the time-out of collectives.
    if rank > 0:
        while not is_complete(recordings, features, recipe.mel, labels_pitch=recipe.network.reads_pitch_labels):
            time.sleep(0.5)
    with lock_folder(out, "wait for it, or use another --out") if rank == 0 else contextlib.nullcontext():
        extraction = extract(
            recordings, features, recipe.mel, labels_pitch=recipe.network.reads_pitch_labels, progress=progress
        )
        _report_extraction(extraction, features, recipe.mel.hop_length / recipe.mel.sample_rate_hz, notify)
        clips = _with_labels(recipe, extraction.clips, recordings, out, notify, progress=progress, waits=rank > 0)
        if rank == 0:
            if recipe.data.prepare:
                write_manifest(out / RECORDINGS, recordings)
            save_recipe(_resolved(recipe, out), out / RECIPE)

        # Train on all processes, then synthesise on the first.
        distributed.start(device)
        try:
            if not _train(recipe, clips, out, device, notify):
                return False
        finally:
            distributed.stop()
        if rank == 0:
            _write_samples(recipe, clips, out, device, notify, progress)
        return True


def _recordings_of_run(
    recipe: Recipe, recipe_path: Path, out: Path, features: Path, notify: Notify, *, compare: bool
) -> list[Recording]:
    """The recordings of a run; refuses a recipe that does not continue the run that its folder holds.

    Args:
        compare: whether to compare the recordings with those that the run began with, if they are in another place.
    """
    changes = _changes(recipe, out)
    if not changes.keys() <= set(_PLACES):
        raise _begun_with(changes, out)
    done = _finished_steps(out / MODEL)
    if done > recipe.training.steps:
        raise ConfigError(
            f"this run already has {done} steps, more than training.steps={recipe.training.steps}",
            where=out,
            remedy=f"use another --out, or training.steps={done} or more",
        )
    recordings = list_recordings(recipe, recipe_path, outputs=(out, features), notify=notify)
    if changes and compare:
        notify("comparing the recordings with those that the run began with")
        if not has_same_content(recordings, features, recipe.mel):
            raise _begun_with(changes, out)
        notify("the recordings are in another place, and the same as before")
    return recordings


def _with_labels(
    recipe: Recipe,
    clips: list[Clip],
    recordings: Sequence[Recording],
    out: Path,
    notify: Notify,
    *,
    progress: bool,
    waits: bool,
) -> list[Clip]:
    """The clips with the labels that the recipe's network learns, if it learns labels."""
    if recipe.network.labels is None:
        return clips
    sources = {recording.name: recording.path for recording in recordings}
    labelled = label_clips(
        clips, sources, recipe.network.labels, recipe.data.labels, recipe.mel, out / LABELS,
        progress=progress, waits=waits,
    )  # fmt: skip
    notify(labelled.notes())
    return labelled.clips


def _discard(line: str) -> None:
    """Print nothing, in place of ``notify``."""


def list_recordings(
    recipe: Recipe, recipe_path: Path, *, outputs: Sequence[Path] = (), notify: Notify | None = None
) -> list[Recording]:
    """List the recordings by the recipe's manifest, by the ``prepare.py`` beside the recipe, or by its glob.

    ``prepare.py`` is code. Only its place beside the recipe that the user names selects it; a recipe's text cannot name
    code to run.

    Args:
        recipe: the recipe.
        recipe_path: its file.
        outputs: folders that the run writes to, which hold no recordings.
        notify: takes a line about a list of another project, or about files that were passed over.

    Raises:
        ConfigError: the recipe names no corpus, or needs a ``prepare.py`` that does not exist.
        DataError: the corpus has another layout, or the training or validation set is empty.
    """
    if recipe.data.manifest is not None:
        listed_as = list_format(recipe.data.manifest)
        if notify is not None and listed_as != OURS:
            notify(f"{recipe.data.manifest} is {listed_as}")
        recordings = read_recordings(recipe.data.manifest, held_out=recipe.data.held_out)
    elif recipe.data.corpus is None:
        raise ConfigError("not given", where="data.corpus", remedy="add data.corpus=FOLDER to the command")
    elif recipe.data.prepare:
        recordings = _prepared(recipe_path.parent / "prepare.py", recipe.data.corpus, recipe.data.held_out)
    else:
        found = find_recordings(
            recipe.data.corpus,
            pattern=recipe.data.recordings,
            held_out=recipe.data.held_out,
            outputs=outputs,
            notify=notify,
        )
        recordings = [replace(recording, speaker=PurePath(recording.name).parent.name.strip()) for recording in found]

    if {recording.split for recording in recordings} != {"train", "valid"}:
        raise DataError(
            f"the {len(recordings)} recordings are all in one split",
            where=recipe.data.manifest or recipe.data.corpus,
            remedy="provide at least one to train on and one for the validation set",
        )
    computing = {
        "vocoder.any_mel": recipe.network.draws_mel_definitions,
        "training.augmentation": recipe.training.augmentation is not None,
    }
    for setting, computes_mels in computing.items():
        if computes_mels and any(recording.mel is not None for recording in recordings):
            raise ConfigError(
                "cannot be combined with predicted mels, because it computes its mels from the recordings",
                where=setting,
                remedy="leave it out to train on the predicted mels, or remove the column mel",
            )
    computes_mels = recipe.network.reads_pitch_labels or recipe.network.labels is not None
    if computes_mels and any(recording.mel is not None for recording in recordings):
        raise ConfigError(
            f"the {recipe.network.name} {recipe.network.section} computes its training mels from the recordings, so "
            "predicted mels cannot train it",
            where=recipe.data.manifest or f"{recipe.network.section}.name",
            remedy="remove the column mel",
        )
    if not recipe.data.speakers:
        return [replace(recording, speaker="") for recording in recordings]
    speaker_table(recordings)  # refuses names that cannot be told apart, or are missing
    return recordings


def _prepared(script: Path, corpus: Path, held_out: float | str) -> list[Recording]:
    """List the recordings by calling ``prepare(corpus, held_out)`` of a script."""
    if not script.is_file():
        raise ConfigError("no such file, but data.prepare=true needs it", where=script, remedy="set data.prepare=false")
    spec = importlib.util.spec_from_file_location("prepare", script)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    recordings: list[Recording] = module.prepare(corpus, held_out)
    return recordings


def _speakers(recipe: Recipe, rows: Sequence[Recording] | Sequence[Clip]) -> tuple[str, ...]:
    """Names of the vocoder's speakers; empty for a vocoder without speakers."""
    return speaker_table(rows) if recipe.data.speakers else ()


def _resolved(recipe: Recipe, out: Path) -> Recipe:
    """The recipe that reproduces the run alone: it names the list that ``prepare.py`` made instead of the script."""
    if not recipe.data.prepare:
        return recipe
    changes = {"prepare": False, "manifest": out.absolute() / RECORDINGS}
    return recipe.model_copy(update={"data": recipe.data.model_copy(update=changes)})


def _report_extraction(extraction: Extraction, features: Path, hop_seconds: float, notify: Notify) -> None:
    seconds = hop_seconds * sum(clip.frames for clip in extraction.clips)
    valid = sum(clip.split == "valid" for clip in extraction.clips)
    about = f"{len(extraction.clips)} clips ({seconds / 60:.1f} minutes, {valid} validation clips)"
    how = "are finished" if extraction.was_complete else "extracted"
    notify(f"features of {about} {how} in {features}{extraction.notes()}")
    if complaint := extraction.left_out_report():
        notify(complaint)


def _train(recipe: Recipe, clips: list[Clip], out: Path, device: torch.device, notify: Notify) -> bool:
    """Train, unless the model has all its steps already; False if training was interrupted."""
    model = out / MODEL
    if _finished_steps(model) >= recipe.training.steps:
        notify(f"training is finished: {model}")
        return True

    torch.manual_seed(recipe.seed)
    network = build(recipe, speakers=_speakers(recipe, clips))
    millions = sum(parameter.numel() for parameter in network.parameters()) / 1e6
    speakers = f"{len(network.speakers)} speakers, " if network.speakers else ""
    field = network.receptive_field_samples
    rate = network.mel.sample_rate_hz
    notify(
        f"training {recipe.network.name} ({millions:.2f} M parameters, {speakers}receptive field {field} samples, "
        f"{1000 * field / rate:.0f} ms at {rate} Hz) to step {recipe.training.steps} on {device}"
    )
    finished = train(
        network,
        clips,
        recipe.training,
        _run_folder(recipe, out),
        seed=recipe.seed,
        device=device,
        notify=notify,
        init=recipe.init,
    )
    if finished:
        notify(f"model: {finished}")
    return finished is not None


def _run_folder(recipe: Recipe, out: Path) -> RunFolder:
    return RunFolder(out, recipe.network, recipe.without_paths())


def _finished_steps(model: Path) -> int:
    """Number of steps that the finished model was trained for; 0 if there is none."""
    try:
        return int(read_header(model).get("step", 0)) if model.exists() else 0
    except CheckpointError:  # damaged; training writes it again from the newest checkpoint
        return 0


def _write_samples(
    recipe: Recipe, clips: list[Clip], out: Path, device: torch.device, notify: Notify, progress: bool
) -> None:
    """Synthesise validation clips from their mel files, and score them beside the baselines.

    Of a model that is not a vocoder, write what it makes of the clips.
    """
    chosen = take_evenly(clips_for("report", clips, recipe.training.best_by), recipe.samples.clips)
    if not chosen:
        return
    folder = out / "samples"
    model = out / MODEL

    # Skip the stage if the marker, which is written last, records the same inputs.
    inputs = json.dumps([model.stat().st_mtime_ns, [clip.name for clip in chosen], recipe.samples.model_dump()])
    marker = folder / ".complete"
    if marker.exists() and marker.read_text() == inputs:
        notify(f"samples are finished: {folder}")
        if recipe.vocoder is not None:
            notify((folder / "scores.txt").read_text().rstrip())
        return

    title = f"{out.absolute().name}: validation clips"
    page = f"samples of {len(chosen)} validation clips: {folder / 'index.html'}"
    if recipe.vocoder is None:
        trained = load_model(MODELS[recipe.network.name], model, device)
        write_model_samples(
            chosen, trained, folder, frames=recipe.training.listen_frames, title=title, progress=progress
        )
        _write_text(marker, inputs)
        notify(page)
        return

    vocoder = load_vocoder(model)
    device = vocoder.preferred_device(device)
    vocoder = vocoder.to(device)
    raw = without_imposing(vocoder)
    scored = write_samples(
        chosen,
        _synthesizer(vocoder),
        vocoder.mel,
        folder,
        raw=None if raw is None else _synthesizer(raw),
        untrained=_untrained(recipe, vocoder.speakers, device),
        baseline_iterations=recipe.samples.baseline_iterations,
        title=title,
        progress=progress,
    )
    table = short_table(scored)
    _write_text(folder / "scores.txt", table + "\n")
    _write_text(marker, inputs)
    notify(page)
    notify(table)


def _write_text(path: Path, text: str) -> None:
    with atomic_write(path) as beside:
        beside.write_text(text, encoding="utf-8")


def _untrained(recipe: Recipe, speakers: Sequence[str], device: torch.device) -> Synthesizer | None:
    """The vocoder as training started from it; None if its sound is not worth comparing with."""
    torch.manual_seed(recipe.seed)
    vocoder = build(recipe, speakers=speakers)
    assert isinstance(vocoder, Vocoder)
    if recipe.init is None and not vocoder.speaks_untrained:
        return None
    if recipe.init is not None:
        try:
            vocoder = load_vocoder(recipe.init)
        except CheckpointError:  # it was deleted since
            return None
    return _synthesizer(vocoder.prepared_for_synthesis().to(device))


def _synthesizer(vocoder: Vocoder) -> Synthesizer:
    return lambda mel, speaker: synthesize(vocoder, mel, speaker=speaker or None)


def _changes(recipe: Recipe, out: Path) -> dict[str, tuple[Any, Any]]:
    """The settings in which the run in ``out`` differs from the recipe, with both values.

    Settings that are marked ``MayChangeDuringRun`` may differ.
    """
    path = out / RECIPE
    return load_recipe(path).differences(_resolved(recipe, out), without=MayChangeDuringRun) if path.exists() else {}


def _begun_with(changes: Mapping[str, tuple[Any, Any]], out: Path) -> ConfigError:
    shown = [f"{field}: {before} -> {now}" for field, (before, now) in changes.items()][:_MAX_CHANGES_SHOWN]
    what = f"this run began with other settings ({', '.join(shown)})"
    return ConfigError(what, where=out, remedy="use another --out, or undo the change")
