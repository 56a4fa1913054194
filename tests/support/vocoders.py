"""Tiny vocoders with random weights, model files of them, and mels that they understand."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

from support.mels import TINY as SPEC
from wavegen.checkpoint import load_vocoder, save_checkpoint, vocoder_header
from wavegen.mel import LogMel, MelSpec
from wavegen.source import PitchNetwork
from wavegen.vocoders import VOCODERS, Vocoder, build_vocoder

SHAPES = {name: vocoder.Config.examples()[0] for name, vocoder in VOCODERS.items()}
WITH_SPEAKERS = sorted(name for name, vocoder in VOCODERS.items() if vocoder.has_speakers)


@contextlib.contextmanager
def small_pitch_network() -> Iterator[None]:
    """Build vocoders with a pitch network of few weights and a short context, so that it takes no time."""
    small = classmethod(lambda cls: cls(channels=4, layers=1, kernel_size=2).requires_grad_(False))
    with mock.patch.object(PitchNetwork, "shipped", small):
        yield


def vocoder_config(name: str, **changes: Any) -> dict[str, Any]:
    """The first example of a vocoder's config, with changes, as a model file has it."""
    return VOCODERS[name].Config(**(SHAPES[name].model_dump() | changes)).model_dump(mode="json")


def new_vocoder(name: str, mel: MelSpec = SPEC, speakers: Sequence[str] = (), **options: Any) -> Vocoder:
    """A vocoder as it is built for training, with some options of its config."""
    return build_vocoder(VOCODERS[name].Config(**options), mel, speakers)


def tiny_vocoder(name: str, *, spec: MelSpec = SPEC, speakers: Sequence[str] = (), **changes: Any) -> Vocoder:
    """In training mode, every parameter random: zeros would hide what a weight does."""
    torch.manual_seed(0)
    vocoder = build_vocoder(VOCODERS[name].Config(**(SHAPES[name].model_dump() | changes)), spec, speakers)
    random = np.random.default_rng(0)
    for key, parameter in vocoder.named_parameters():
        torch.nn.init.normal_(parameter, std=3.0 if key == "speaker_condition.embedding.weight" else 0.3)
        if key.startswith("stage."):  # F0 must not depend on the version of torch, because rounding grows with it
            parameter.data.copy_(torch.from_numpy(0.3 * random.standard_normal(parameter.shape)))
    return vocoder


def write_model(
    path: Path, name: str = "spectral", *, spec: MelSpec = SPEC, speakers: Sequence[str] = (), **changes: Any
) -> Path:
    """A model file as a finished run has it."""
    weights = tiny_vocoder(name, spec=spec, speakers=speakers, **changes).state_dict()
    header = vocoder_header(vocoder_config(name, **changes), spec, speakers) | {
        "kind": "model",
        "recipe": {},
        "step": 8,
    }
    save_checkpoint(path, {f"ema.{key}": value for key, value in weights.items()}, header)
    return path


def torch_vocoder(path: Path | str) -> Vocoder:
    """A model that torch computes: compiled engines round differently, and whether they run depends on the machine."""
    vocoder = load_vocoder(path)
    vocoder.use_engine("torch")
    return vocoder


def tiny_mel(frames: int, *, seed: int = 0, spec: MelSpec = SPEC) -> np.ndarray:
    """The mel ``[n_mels, frames]`` of noise that swells from silence."""
    samples = np.random.default_rng(seed).uniform(-0.3, 0.3, frames * spec.hop_length)
    swelling = (samples * np.linspace(0, 1, len(samples)) ** 2).astype(np.float32)
    return LogMel(spec)(torch.from_numpy(swelling)[None])[0].numpy()
