"""``wavegen-synth`` of a folder in shards, here or as tasks of a Ray cluster."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from wavegen.commands import pick_device
from wavegen.commands._sharding import run_shards
from wavegen.shards import (
    PART,
    Part,
    Shard,
    digest,
    identity,
    is_finished,
    join_parts,
    move_files,
    remove_parts,
    write_part,
)

if TYPE_CHECKING:
    from wavegen.mel import MelSpec
    from wavegen.synthesis import AnyMelFile
    from wavegen.vocoders import Vocoder

    Groups = Sequence[Sequence[AnyMelFile]]

_OPTIONS = ("temperature", "iterations", "pitch", "impose")


def options(arguments: argparse.Namespace) -> dict[str, float | None]:
    """The arguments that are options of the vocoder at synthesis."""
    return {name: getattr(arguments, name) for name in _OPTIONS}


def with_outputs(mels: "Sequence[AnyMelFile]", source: Path, out: Path) -> "list[tuple[AnyMelFile, Path]]":
    """Each mel with its sound file: ``out``, or in a folder ``out`` the mel's place below ``source``."""
    if not source.is_dir():
        return [(mels[0], out)]
    return [(mel, out / mel.path.relative_to(source).with_suffix(".wav")) for mel in mels]


def synth_part(arguments: argparse.Namespace, vocoder: "Vocoder", mels: "Sequence[AnyMelFile]", model: Path) -> str:
    """Synthesise the shard that the arguments name, of all mels, into its part; returns a line about it."""
    return _synth_groups(arguments, arguments.shard.of(_groups(arguments, vocoder, mels)), vocoder, model)


def synth_in_cluster(
    arguments: argparse.Namespace, vocoder: "Vocoder", mels: "Sequence[AnyMelFile]", model: Path
) -> str:
    """Synthesise all mels in the processes of a Ray cluster; returns a line about it.

    Each task has a CPU, or with ``--device cuda`` a GPU, for itself.
    """
    device = "cpu" if arguments.device == "auto" else pick_device(arguments.device).type
    definition = vocoder.mel

    def task(shard: Shard, own: "Groups") -> _Task:
        return _Task(argparse.Namespace(**{**vars(arguments), "shard": shard}), own, definition, device, model)

    groups = _groups(arguments, vocoder, mels)
    gpus = 1 if device == "cuda" else 0
    run_shards(arguments.ray, arguments.out, groups, _run_task, task, title="synthesising", gpus=gpus)
    return merge(arguments)


def merge(arguments: argparse.Namespace) -> str:
    """Join the parts of all shards; returns a line about it."""
    from wavegen.checkpoint import find_model
    from wavegen.synthesis import open_mels

    mels = open_mels(arguments.mel)
    wanted = {path.as_posix(): identity(mel.path) for mel, path in with_outputs(mels, arguments.mel, Path())}
    parts = join_parts(arguments.out, wanted, _settings(arguments, find_model(arguments.model)))
    move_files(parts, arguments.out)
    remove_parts(arguments.out)
    return f"{arguments.out}: {len(mels)} files of {len(parts)} shards"


class _Task(NamedTuple):
    """What a process of a cluster needs to synthesise one shard."""

    arguments: argparse.Namespace
    groups: "Groups"
    definition: "MelSpec"
    device: str
    model: Path


def _run_task(task: _Task) -> None:
    from wavegen.checkpoint import DEFAULT_VOICE, load_vocoder
    from wavegen.synthesis import prepare

    arguments = task.arguments
    vocoder, _, _ = prepare(
        load_vocoder(task.model),
        [],  # checked below
        definition=task.definition,
        speaker=arguments.speaker,
        device=pick_device(task.device),
        engine=arguments.engine,
        precision=arguments.precision,
        options=options(arguments),
        substitutes=task.model == DEFAULT_VOICE,
    )
    _synth_groups(arguments, task.groups, vocoder, task.model)


def _groups(
    arguments: argparse.Namespace, vocoder: "Vocoder", mels: "Sequence[AnyMelFile]"
) -> "list[list[AnyMelFile]]":
    """What is divided among the shards: single mels, or with ``--batch`` the batches of one run.

    Mels of a batch are padded to one length, which can change the last bit of their sound. Batches that a vocoder
    chooses by itself change nothing, so that each shard can make its own.
    """
    from wavegen.synthesis import plan_batches

    frames = [mel.frames for mel in mels]
    planned = plan_batches(frames, vocoder, batch=arguments.batch or 1, jobs=arguments.jobs or 1)
    return [[mels[index] for index in group] for group in planned]


def _synth_groups(arguments: argparse.Namespace, groups: "Groups", vocoder: "Vocoder", model: Path) -> str:
    """Synthesise the groups of mels of one shard into its part of the results."""
    from tqdm import tqdm

    from wavegen.progress import bar_options
    from wavegen.synthesis import synthesize_files

    mels = [mel for group in groups for mel in group]
    for mel in mels:
        mel.check(vocoder.mel)
    folder = arguments.shard.folder(arguments.out)
    files = with_outputs(mels, arguments.mel, folder)
    names = [path.relative_to(folder).as_posix() for _, path in files]
    items = {name: identity(mel.path) for name, mel in zip(names, mels, strict=True)}
    settings = _settings(arguments, model)
    report = f"{folder}: {len(names)} files, shard {arguments.shard}"
    if is_finished(arguments.shard, arguments.out, items, settings):
        return report
    (folder / PART).unlink(missing_ok=True)
    is_task = arguments.ray is not None
    samples = sum(mel.frames for mel in mels) * vocoder.mel.hop_length
    bar = tqdm(total=samples, desc="synthesising", unit="sample", unit_scale=True, disable=is_task, **bar_options())
    with bar:
        synthesize_files(
            vocoder,
            files,
            batch=vocoder.items_at_once,
            jobs=1 if is_task else arguments.jobs or vocoder.jobs_at_once,
            seed=arguments.seed,
            speaker=arguments.speaker,
            float32=arguments.float,
            groups=_indices(groups) if arguments.batch else None,
            on_progress=bar.update,
        )
    write_part(Part(arguments.shard, folder, items, settings, names))
    return report


def _indices(groups: "Groups") -> list[list[int]]:
    """The groups as indices into the list of all their mels."""
    indices = iter(range(sum(map(len, groups))))
    return [[next(indices) for _ in group] for group in groups]


def _settings(arguments: argparse.Namespace, model: Path) -> dict[str, object]:
    """What the sound depends on besides the mels."""
    names = ("profile", "speaker", "seed", "float", "engine", "precision", "batch", *_OPTIONS)
    return {"model": digest(model), **{name: getattr(arguments, name) for name in names}}
