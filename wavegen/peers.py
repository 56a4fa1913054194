"""Vocoders of others that ``wavegen-bench`` measures beside a model, on mels of the same definition."""

import importlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from wavegen.errors import ConfigError
from wavegen.evaluation.baseline import griffin_lim_baseline
from wavegen.mel import MelSpec

Speak = Callable[[Tensor], object]
"""A mel ``[batch, n_mels, frames]`` -> its sound."""


def griffin_lim(mel: MelSpec) -> Speak:
    """Griffin-Lim with the 32 iterations of the baseline."""

    def speak(mels: Tensor) -> object:
        return [griffin_lim_baseline(item.numpy(), mel) for item in mels]

    return speak


def vocos(mel: MelSpec) -> Speak:
    """Vocos from its own package (arXiv:2306.00814), with the shape of its published model and random weights.

    Raises:
        ConfigError: the package is not installed.
    """
    try:
        models, heads = (importlib.import_module(f"vocos.{name}") for name in ("models", "heads"))
    except ImportError as error:
        package = (error.name or "vocos").partition(".")[0]
        raise ConfigError(f"the package {package} is missing", where="vocos", remedy="pip install vocos") from error
    backbone: Any = models.VocosBackbone(input_channels=mel.n_mels, dim=512, intermediate_dim=1536, num_layers=8)
    head: Any = heads.ISTFTHead(dim=512, n_fft=mel.n_fft, hop_length=mel.hop_length, padding="center")

    @torch.inference_mode()
    def speak(mels: Tensor) -> object:
        return head(backbone(mels))

    backbone.eval()
    head.eval()
    return speak


PEERS: dict[str, Callable[[MelSpec], Speak]] = {"vocos": vocos, "griffin-lim": griffin_lim}
"""Builds each peer for a mel definition, by name."""
