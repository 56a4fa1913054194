"""Mel files and a vocoder that is ready to speak them, checked before any sound is synthesised."""

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from wavegen.errors import ConfigError, MelError, MissingMelError
from wavegen.mel import MelFile, MelSpec, open_mel
from wavegen.mel.recorded import RecordedMel
from wavegen.source.compiled import without_compiling
from wavegen.vocoders import Vocoder, build_vocoder
from wavegen.vocoders.source_filter import SourceFilterConfig

AnyMelFile = MelFile | RecordedMel

MEL_SUFFIXES = (".npy", ".npz")
# Seconds of sound from which on compiling, which is done once on a machine, takes less time than it saves.
SOURCE_PAYS_FROM_S = 30
ENGINE_PAYS_FROM_S = 600


def open_mels(path: Path) -> list[MelFile]:
    """Open a mel file, or all mel files below a folder, sorted by path. Their values are not read yet.

    Raises:
        MelError: ``path`` does not exist, contains no mel files, or contains two whose names differ in the suffix only
            (they would become one sound file); or a file is not a mel file.
    """
    if not path.exists():
        raise MissingMelError("no such file or folder", where=path)
    if not path.is_dir():
        if path.suffix not in MEL_SUFFIXES:
            raise MelError(f"a mel file ends in {' or '.join(MEL_SUFFIXES)}", where=path, remedy="rename or convert it")
        return [open_mel(path)]
    # Hidden files are what a killed extraction leaves behind; hidden folders have shards that are not merged.
    paths = sorted(p for p in path.rglob("*") if p.suffix in MEL_SUFFIXES and not _is_hidden(p.relative_to(path)))
    if not paths:
        raise MelError(
            "contains no .npy or .npz files", where=path, remedy="give the folder that wavegen-extract wrote"
        )
    named: dict[Path, Path] = {}
    for mel_path in paths:
        other = named.setdefault(mel_path.with_suffix(""), mel_path)
        if other != mel_path:
            raise MelError(
                f"{other.name} and {mel_path.name} would become one sound file",
                where=mel_path.parent,
                remedy="rename one",
            )
    return [open_mel(mel_path) for mel_path in paths]


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


class Prepared(NamedTuple):
    """A vocoder that is ready to speak some mels.

    Attributes:
        vocoder: the vocoder, as a reader of the mels' definition.
        engine: the description of its engine.
        notes: lines for the user, such as which vocoder speaks instead.
    """

    vocoder: Vocoder
    engine: str
    notes: list[str]


def prepare(
    vocoder: Vocoder,
    mels: Sequence[AnyMelFile],
    *,
    definition: MelSpec | None = None,
    speaker: str | None = None,
    device: torch.device | None = None,
    engine: str = "auto",
    precision: str = "float32",
    options: Mapping[str, float | None] | None = None,
    substitutes: bool = False,
    checked: Sequence[AnyMelFile] | None = None,
) -> Prepared:
    """Make a vocoder ready for some mels, and check these against it, before any sound is synthesised.

    Args:
        vocoder: a loaded vocoder.
        mels: the mels that it will read.
        definition: the definition of mels that state none; by default the vocoder's own.
        speaker: the speaker that will be asked for.
        device: the device to synthesise on; by default the vocoder's preferred one.
        engine, precision: those of ``Vocoder.use_engine``.
        options: those of ``Vocoder.set_synthesis_options``.
        substitutes: whether the source-filter vocoder, which needs no training, speaks mels of a definition that the
            vocoder does not read; a note says so.
        checked: those of the mels whose values are read and checked; by default all.

    Raises:
        MelError: the mels have several definitions, one that the vocoder does not read, or impossible values.
        ConfigError: an option, the speaker or the engine is refused.
    """
    notes = []
    vocoder.speaker_condition.indices(speaker, 1)
    if definition is not None:
        vocoder, note = _reader(vocoder, definition, "--profile", substitutes)
        notes += note
    elif vocoder.reads_other_mels:
        vocoder, note = _reader(vocoder, *_stated_definition(mels, vocoder.mel), substitutes)
        notes += note
    if device is None:
        device = vocoder.preferred_device(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    vocoder = vocoder.to(device)
    vocoder.set_synthesis_options(**(options or {}))
    description = _use_engine(vocoder, engine, precision, mels)
    for mel in mels if checked is None else checked:
        try:
            mel.check(vocoder.mel)
        except MelError as error:
            if vocoder.reads_other_mels and definition is None and mel.definition is None:
                error.remedy = f"name its definition with --profile, or {error.remedy}"
            raise
    if not vocoder.takes_f0 and any(mel.f0 is not None for mel in mels):
        notes.append("the mels' F0 is not used, because this vocoder has no source")
    return Prepared(vocoder, description, notes)


def _use_engine(vocoder: Vocoder, name: str, precision: str, mels: Sequence[AnyMelFile]) -> str:
    """As ``Vocoder.use_engine``; for a long job ``"auto"`` also compiles an engine that it would not wait for."""
    if name == "auto" and "numba" in vocoder.engines and _duration_s(vocoder, mels) >= ENGINE_PAYS_FROM_S:
        with contextlib.suppress(ConfigError):  # it cannot run here
            return vocoder.use_engine("numba", precision)
    return vocoder.use_engine(name, precision)


def compiling_if_it_pays(vocoder: Vocoder, mels: Sequence[AnyMelFile]) -> contextlib.AbstractContextManager[None]:
    """Inside the block, compile the source's code only if the mels are long enough to gain from it."""
    return contextlib.nullcontext() if _duration_s(vocoder, mels) >= SOURCE_PAYS_FROM_S else without_compiling()


def _duration_s(vocoder: Vocoder, mels: Sequence[AnyMelFile]) -> float:
    return sum(mel.frames for mel in mels) * vocoder.mel.hop_length / vocoder.mel.sample_rate_hz


def _reader(vocoder: Vocoder, definition: MelSpec, where: object, substitutes: bool) -> tuple[Vocoder, list[str]]:
    """The vocoder as a reader of a definition, or its substitute, with a note."""
    try:
        return vocoder.for_mel(definition, where), []
    except MelError as error:
        if not substitutes:
            raise
        substitute = build_vocoder(SourceFilterConfig(), definition).prepared_for_synthesis()
        return substitute, [f"the source-filter vocoder speaks instead: {error.what}"]


def _stated_definition(mels: Sequence[AnyMelFile], default: MelSpec) -> tuple[MelSpec, Path]:
    """The one definition that all mels state, ``default`` for those that state none, and a file that has it."""
    stated = {mel.definition or default: mel.path for mel in mels}
    (definition, path), *others = stated.items()
    if others:
        other, other_path = others[0]
        differing = ", ".join(other.differences(definition))
        raise MelError(
            f"differs from {path.name} in {differing}", where=other_path, remedy="give mels of one definition at a time"
        )
    return definition, path
