"""Systems whose outputs are made during an evaluation from the recordings: models and baselines."""

import copy
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from wavegen.audio import read_audio, write_audio
from wavegen.config import join_names
from wavegen.errors import ConfigError, MelError
from wavegen.evaluation.baseline import BASELINES, Resynthesizer, log_mel_of
from wavegen.evaluation.pairing import distinct
from wavegen.evaluation.scoring import Workers
from wavegen.mel import MelSpec, profile
from wavegen.progress import bar_options
from wavegen.synthesis import synthesize
from wavegen.vocoders import Vocoder


@dataclass(frozen=True)
class ModelSystem:
    """A model that is scored as a system.

    Attributes:
        name: name of the system.
        vocoder: the model, for the mel definition that it speaks from.
        speakers: clip name -> speaker's name, None if the model needs none.
    """

    name: str
    vocoder: Vocoder
    speakers: Mapping[str, str | None]


def vocoders_by_profile(
    name: str, vocoder: Vocoder, profiles: Sequence[str], taken: Collection[str]
) -> dict[str, Vocoder]:
    """A model's systems: the model itself, or ``NAME@PROFILE`` for each mel profile that it is to speak from.

    Args:
        name: name of the model.
        vocoder: the model.
        profiles: names of mel profiles; none for the model's own mel definition.
        taken: names of other systems.

    Raises:
        MelError: the profile is unknown, or the model does not understand its mels.
    """
    if not profiles:
        return {name: vocoder}
    specs = {profile_name: profile(profile_name) for profile_name in profiles}
    return {
        distinct(f"{name}@{profile_name}", taken): vocoder.for_mel(spec, f"{name} from {profile_name}")
        for profile_name, spec in specs.items()
    }


def with_iterations(systems: Mapping[str, Vocoder], iterations: Sequence[int]) -> dict[str, Vocoder]:
    """Each system at several numbers of synthesis iterations, as ``SYSTEM+N``; unchanged if there are none.

    Raises:
        ConfigError: a vocoder has no iterations.
    """
    if not iterations:
        return dict(systems)
    several = {}
    for name, vocoder in systems.items():
        for count in iterations:
            several[f"{name}+{count}"] = other = copy.copy(vocoder)  # shares the weights
            other.set_synthesis_options(iterations=count)
    return several


def with_raw(systems: Mapping[str, Vocoder]) -> dict[str, Vocoder]:
    """The systems and, for each whose mel is imposed at choice, its sound without that as ``SYSTEM-raw``."""
    both = dict(systems)
    for name, vocoder in systems.items():
        if (other := without_imposing(vocoder)) is not None:
            both[f"{name}-raw"] = other
    return both


def without_imposing(vocoder: Vocoder) -> Vocoder | None:
    """The vocoder without the mel imposed on its sound, with the same weights; None if it has no such choice."""
    attribute = vocoder.synthesis_options.get("impose")
    if attribute is None or not getattr(vocoder, attribute):
        return None
    other = copy.copy(vocoder)
    other.set_synthesis_options(impose=False)
    return other


def speakers_of(references: Mapping[str, Path], vocoder: Vocoder, speaker: str | None) -> dict[str, str | None]:
    """The speaker's name that a vocoder gets for each recording; None if it needs none.

    Args:
        references: clip name -> recording.
        vocoder: the model.
        speaker: the speaker of all outputs; None to use the names of the recordings' folders.

    Raises:
        ConfigError: the vocoder does not know the speaker or the name of a recording's folder.
    """
    known = vocoder.speakers
    if not known:
        return dict.fromkeys(references)
    if speaker is not None or len(known) == 1:
        vocoder.speaker_condition.indices(speaker, 1)  # refuses an unknown name
        return dict.fromkeys(references, speaker)
    names: dict[str, str | None] = {clip: path.absolute().parent.name for clip, path in references.items()}
    for clip, folder in names.items():
        if folder not in known:
            raise ConfigError(
                f"recording {clip} lies in folder {folder}, but no speaker of the model has that name",
                where="--speaker",
                remedy=f"give one of {join_names(known)}, or put each recording in a folder with its speaker's name",
            )
    return names


class GeneratedOutputs:
    """Outputs that are generated from the recordings, as 16-bit files ``FOLDER/SYSTEM/CLIP.wav``.

    Args:
        folder: folder for the files.
        references: clip name -> recording.

    Attributes:
        outputs: system -> clip name -> file.
        faults: system -> clip name -> why the clip has no output.
    """

    def __init__(self, folder: Path, references: Mapping[str, Path]) -> None:
        self.folder = folder
        self.references = references
        self.outputs: dict[str, dict[str, Path]] = {}
        self.faults: dict[str, dict[str, str]] = {}

    @property
    def notes(self) -> list[str]:
        """The clips without an output, and why, as text."""
        return [
            f"{system} has no output for {clip}: {fault}"
            for system, by_clip in self.faults.items()
            for clip, fault in by_clip.items()
        ]

    def add_model(self, system: ModelSystem, device: torch.device | str, *, progress: bool) -> None:
        """Copy synthesis: compute the mel of each recording by the model's definition, and let the model speak it."""
        vocoder = system.vocoder.to(system.vocoder.preferred_device(torch.device(device)))
        faults = []
        for clip, path in tqdm(
            self.references.items(), desc=system.name, unit="clip", disable=not progress, **bar_options()
        ):
            copy = partial(_copy_synthesis, vocoder, system.speakers[clip])
            faults.append(_resynthesize(copy, vocoder.mel, path, self._file(system.name, clip)))
        self._collect(system.name, faults)

    def add_baseline(self, system: str, spec: MelSpec, workers: Workers) -> None:
        """Compute a baseline's version of each recording."""
        work = [(system, spec, path, self._file(system, clip)) for clip, path in self.references.items()]
        self._collect(system, workers.map(_run_baseline, work, title=system))

    def _file(self, system: str, clip: str) -> Path:
        return self.folder / system / f"{clip}.wav"

    def _collect(self, system: str, faults: Sequence[str | None]) -> None:
        self.outputs[system] = {}
        self.faults[system] = {}
        for clip, fault in zip(self.references, faults, strict=True):
            if fault is None:
                self.outputs[system][clip] = self._file(system, clip)
            else:
                self.faults[system][clip] = fault


def _resynthesize(resynthesizer: Resynthesizer, spec: MelSpec, source: Path, target: Path) -> str | None:
    """Write a new version of a recording; if it is too short, return the reason instead."""
    samples = read_audio(source, spec.sample_rate_hz)
    try:
        generated = resynthesizer(samples, spec)
    except MelError as error:
        return error.what
    write_audio(target, generated.astype(np.float32), spec.sample_rate_hz)
    return None


def _run_baseline(work: tuple[str, MelSpec, Path, Path]) -> str | None:
    name, spec, source, target = work
    return _resynthesize(BASELINES[name], spec, source, target)


def _copy_synthesis(vocoder: Vocoder, speaker: str | None, samples: np.ndarray, spec: MelSpec) -> np.ndarray:
    return synthesize(vocoder, log_mel_of(samples, spec), speaker=speaker)
