"""The stages of a recipe: features, training, samples. Each is skipped where it is finished and nothing changed."""

import contextlib
import importlib.util
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Any

import torch

from wavegen.checkpoint import MODEL, load_checkpoint, load_vocoder
from wavegen.corpora.extraction import Extraction, extract, is_complete
from wavegen.corpora.manifest import (
    Clip,
    Recording,
    find_recordings,
    read_recordings,
    speaker_table,
    spread,
    write_manifest,
)
from wavegen.errors import CheckpointError, ConfigError, DataError
from wavegen.evaluation.samples import Clip as SampleClip
from wavegen.evaluation.samples import Generate, write_samples
from wavegen.evaluation.summary import short_table
from wavegen.files import held, require_folder, write_beside
from wavegen.recipe import Recipe, build, load_recipe, save_recipe
from wavegen.synthesis import synthesize
from wavegen.training import distributed
from wavegen.training.loop import train
from wavegen.training.state import RunFolder

Say = Callable[[str], None]

RECIPE, RECORDINGS = "recipe.yaml", "recordings.tsv"
# What may change between the parts of one run: how it is watched, and how long it goes on.
_FREE = {
    "description", "samples.clips", "samples.baseline_iterations", "data.features", "training.steps",
    "training.log_every", "training.validate_every", "training.checkpoint_every", "training.keep_checkpoints",
    "training.valid_clips", "training.valid_frames", "training.listen_clips", "training.listen_frames",
    "training.workers", "training.cuda_graphs",
}  # fmt: skip


def run(recipe: Recipe, recipe_path: Path, out: Path, *, device: torch.device, say: Say, progress: bool) -> bool:
    """Take a recipe from recordings to scored samples, doing what is not done yet.

    Args:
        recipe: resolved.
        recipe_path: its file; a ``prepare.py`` beside it knows the corpus.
        out: the run's folder.
        device: to train and synthesise on.
        say: prints a line for the user.
        progress: show bars.

    Returns:
        False where training was interrupted.
    """
    rank, _ = distributed.rank_from_environment()
    if rank > 0:
        say, progress = (lambda line: None), False
    require_folder(out)
    _refuse_changes(recipe, out)
    if (done := _steps_of(out / MODEL)) > recipe.training.steps:
        raise ConfigError(
            f"this run has {done} steps already, more than training.steps={recipe.training.steps}",
            where=out,
            remedy="give another --out, or as many steps",
        )
    recordings = list_recordings(recipe, recipe_path)
    if recipe.init is not None and not (_run_folder(recipe, out).all() or (out / MODEL).exists()):
        # Before hours of extraction.
        _run_folder(recipe, out).read_init(recipe.init, recipe.mel, _speakers(recipe, recordings))
    features = recipe.data.features or out / "features"
    if rank > 0:  # no collective: extraction may take longer than their time-out
        while not is_complete(recordings, features, recipe.mel):
            time.sleep(0.5)
    with held(out, "wait for it, or give another --out") if rank == 0 else contextlib.nullcontext():
        extraction = extract(recordings, features, recipe.mel, progress=progress)
        _tell(extraction, features, recipe.mel.hop_length / recipe.mel.sample_rate_hz, say)

        if rank == 0:
            if recipe.data.prepare:
                write_manifest(out / RECORDINGS, recordings)
            save_recipe(_resolved(recipe, out), out / RECIPE)
        distributed.start(device)
        try:
            if not _train(recipe, extraction.clips, out, device, say):
                return False
        finally:
            distributed.stop()
        if rank == 0:
            _samples(recipe, extraction.clips, out, device, say, progress)
        return True


def list_recordings(recipe: Recipe, recipe_path: Path) -> list[Recording]:
    """The corpus's recordings, by the recipe's manifest, the ``prepare.py`` beside it, or its glob.

    Code is found by its place beside the recipe that the user named, and run where that asks for it; no YAML names any.

    Raises:
        ConfigError: the recipe leaves the corpus open, or asks for a ``prepare.py`` that is not there.
        DataError: the folder is not that corpus, or has nothing to train or to validate on.
    """
    if recipe.data.manifest is not None:
        recordings = read_recordings(recipe.data.manifest, held_out=recipe.data.held_out)
    elif recipe.data.corpus is None:
        raise ConfigError("not given", where="data.corpus", remedy="add data.corpus=FOLDER to the command")
    elif recipe.data.prepare:
        recordings = _prepared(recipe_path.parent / "prepare.py", recipe.data.corpus, recipe.data.held_out)
    else:
        found = find_recordings(recipe.data.corpus, pattern=recipe.data.recordings, held_out=recipe.data.held_out)
        recordings = [replace(recording, speaker=PurePath(recording.name).parent.name) for recording in found]
    if {recording.split for recording in recordings} != {"train", "valid"}:
        raise DataError(
            f"{len(recordings)} recordings, all in one split",
            where=recipe.data.manifest or recipe.data.corpus,
            remedy="there must be some to train on and some held back: two recordings at least",
        )
    if recipe.vocoder.draws_mel_definitions and any(recording.mel is not None for recording in recordings):
        raise ConfigError(
            "trains on mels of drawn definitions, made of the recordings, and these come with predicted ones",
            where="vocoder.any_mel",
            remedy="set vocoder.any_mel=false to train on the predicted mels, or leave out the column mel",
        )
    if not recipe.data.speakers:
        return [replace(recording, speaker="") for recording in recordings]
    speaker_table(recordings)  # refuses what cannot be meant
    return recordings


def _prepared(script: Path, corpus: Path, held_out: float | str) -> list[Recording]:
    if not script.is_file():
        raise ConfigError("no such file, which data.prepare asks for", where=script, remedy="set data.prepare=false")
    spec = importlib.util.spec_from_file_location("prepare", script)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    recordings: list[Recording] = module.prepare(corpus, held_out)
    return recordings


def _speakers(recipe: Recipe, rows: Sequence[Recording] | Sequence[Clip]) -> tuple[str, ...]:
    """The vocoder's table of names, by those who speak in ``rows``."""
    return speaker_table(rows) if recipe.data.speakers else ()


def _resolved(recipe: Recipe, out: Path) -> Recipe:
    """The recipe as it reproduces the run alone: with the list that its ``prepare.py`` gave instead of that script."""
    if not recipe.data.prepare:
        return recipe
    changes = {"prepare": False, "manifest": out.absolute() / RECORDINGS}
    return recipe.model_copy(update={"data": recipe.data.model_copy(update=changes)})


def _tell(extraction: Extraction, features: Path, hop_seconds: float, say: Say) -> None:
    seconds = hop_seconds * sum(clip.frames for clip in extraction.clips)
    held_back = sum(clip.split == "valid" for clip in extraction.clips)
    how = "are finished" if extraction.was_complete else "extracted"
    count = len(extraction.clips)
    about = f"{count} clips ({seconds / 60:.1f} minutes, {held_back} clips held back)"
    say(f"features of {about} {how} in {features}{extraction.remark()}")
    if complaint := extraction.complaint():
        say(complaint)


def _train(recipe: Recipe, clips: list[Clip], out: Path, device: torch.device, say: Say) -> bool:
    """Train, unless the model is there with all its steps; False where training was interrupted."""
    model = out / MODEL
    if _steps_of(model) >= recipe.training.steps:
        say(f"training is finished: {model}")
        return True
    torch.manual_seed(recipe.seed)
    vocoder = build(recipe, speakers=_speakers(recipe, clips))
    run_folder = _run_folder(recipe, out)
    millions = sum(parameter.numel() for parameter in vocoder.parameters()) / 1e6
    field, rate = vocoder.receptive_field_samples, vocoder.mel.sample_rate_hz
    voices = f"{len(vocoder.speakers)} speakers, " if vocoder.speakers else ""
    say(
        f"training {recipe.vocoder.name} ({millions:.2f} M parameters, {voices}receptive field {field} samples, "
        f"{1000 * field / rate:.0f} ms at {rate} Hz) to step {recipe.training.steps} on {device}"
    )
    finished = train(
        vocoder, clips, recipe.training, run_folder, seed=recipe.seed, device=device, say=say, init=recipe.init
    )
    if finished:
        say(f"model: {finished}")
    return finished is not None


def _run_folder(recipe: Recipe, out: Path) -> RunFolder:
    return RunFolder(out, recipe.vocoder.model_dump(mode="json"), recipe.model_dump(mode="json"))


def _steps_of(model: Path) -> int:
    try:
        return int(load_checkpoint(model)[1]["step"]) if model.exists() else 0
    except CheckpointError:  # damaged: the newest checkpoint writes it again
        return 0


def _samples(recipe: Recipe, clips: list[Clip], out: Path, device: torch.device, say: Say, progress: bool) -> None:
    """Synthesise held-back clips from their mel files and score them beside Griffin-Lim."""
    chosen = spread([clip for clip in clips if clip.split == "valid"], recipe.samples.clips)
    if not chosen:
        return
    folder, model = out / "samples", out / MODEL
    # The marker holds what the samples were made of, and is written last.
    made_of = json.dumps([model.stat().st_mtime_ns, [clip.name for clip in chosen], recipe.samples.model_dump()])
    marker = folder / ".complete"
    if marker.exists() and marker.read_text() == made_of:
        say(f"samples are finished: {folder}")
        say((folder / "scores.txt").read_text().rstrip())
        return
    vocoder = load_vocoder(model)
    device = vocoder.preferred_device(device)
    vocoder = vocoder.to(device)
    scored = write_samples(
        [SampleClip(clip.name, clip.audio, clip.mel, clip.speaker) for clip in chosen],
        lambda mel, speaker: synthesize(vocoder, mel, speaker=speaker or None),
        vocoder.mel,
        folder,
        untrained=_untrained(recipe, vocoder.speakers, device),
        baseline_iterations=recipe.samples.baseline_iterations,
        title=f"{out.absolute().name}: held-back clips",
        progress=progress,
    )
    table = short_table(scored)
    for path, text in ((folder / "scores.txt", table + "\n"), (marker, made_of)):
        with write_beside(path) as beside:
            beside.write_text(text, encoding="utf-8")
    say(f"samples of {len(chosen)} held-back clips: {folder / 'index.html'}")
    say(table)


def _untrained(recipe: Recipe, speakers: Sequence[str], device: torch.device) -> Generate | None:
    """The vocoder as training found it; None for one that is noise then, and slow at it."""
    torch.manual_seed(recipe.seed)
    vocoder = build(recipe, speakers=speakers)
    if not vocoder.speaks_untrained:
        return None
    if recipe.init is not None:
        try:
            vocoder = load_vocoder(recipe.init)
        except CheckpointError:  # it has gone since
            return None
    vocoder = vocoder.prepared_for_synthesis().to(device)
    return lambda mel, speaker: synthesize(vocoder, mel, speaker=speaker or None)


def _refuse_changes(recipe: Recipe, out: Path) -> None:
    """A run has one definition. Raise ConfigError where the recipe differs from the one ``out`` was begun with."""
    path = out / RECIPE
    if not path.exists():
        return
    before, now = (_flat(r.model_dump(mode="json")) for r in (load_recipe(path), _resolved(recipe, out)))
    changed = [key for key in sorted({*before, *now}) if before.get(key) != now.get(key) and key not in _FREE]
    if changed:
        shown = ", ".join(f"{key}: {before.get(key)} -> {now.get(key)}" for key in changed[:4])
        raise ConfigError(
            f"this run was begun with other settings ({shown})",
            where=out,
            remedy="give another --out, or take the change back",
        )


def _flat(data: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in data.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat
