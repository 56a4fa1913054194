"""The contract of the networks that are not vocoders: what a recipe trains beside them, with losses of its own."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from wavegen.mel import LogMel, MelSpec
from wavegen.network import Network, NetworkConfig, check_definition

LN_OFFSET, LN_SCALE, LARGEST_LN = 5.0, 2.5, 10.0  # of natural-log mels, as models read and write them


class ModelConfig(NetworkConfig):
    """The ``model`` section of a recipe: a model's shape."""

    section: ClassVar[str] = "model"


class Shown(NamedTuple):
    """What TensorBoard shows of a clip.

    Attributes:
        pictures: title -> ``[rows, frames]``, drawn one below another; log-mels and other values that rise upwards.
        sounds: title -> samples ``[samples]`` in -1…1.
        lost: bool ``[samples]``: the samples that the model's mel completes, for a vocoder to render; None for none.
    """

    pictures: Mapping[str, Tensor]
    sounds: Mapping[str, Tensor] = {}
    lost: Tensor | None = None


class ModelBatch(NamedTuple):
    """Segments that a model learns from, or is validated on.

    Attributes:
        mel: ``[batch, n_mels, frames]``, zeros outside the mask.
        mask: ``[batch, 1, frames]``, True where a frame is real.
        audio: ``[batch, frames * hop_length]``, zeros after a clip's end.
        seeds: int64 ``[batch]``: in training, one of its own for each step and place in the batch; in validation, one
            of its own for each clip.
        labels: int8 ``[batch, classes, frames]``, for a model whose config has ``labels``: 1 if a frame has the class,
            0 if not, -1 if nobody knows; else None.
        others: ``[batch, others, frames * hop_length]``, segments of other recordings, as many as the model's
            ``others``; None if that is 0.
    """

    mel: Tensor
    mask: Tensor
    audio: Tensor
    seeds: Tensor
    labels: Tensor | None = None
    others: Tensor | None = None


class Model(Network, ABC):
    """Base of all models. A subclass defines ``Config``, ``context``, ``losses`` and ``show``.

    Args:
        mel: the definition of the mel spectrograms that the model reads.

    Raises:
        ConfigError: when a class is defined that lacks a part of this contract.
    """

    Config: ClassVar[type[ModelConfig]]

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if ABC not in cls.__bases__:  # otherwise it is a kind of model, not a model
            check_definition(cls, ModelConfig, "self, mel, config=None", kind="model")

    @abstractmethod
    def losses(self, batch: ModelBatch) -> dict[str, Tensor]:
        """The losses of a batch of segments, in training and in validation.

        All that is drawn at random must follow from the seeds (``wavegen.noise``): a resumed training then equals an
        uninterrupted one, and a clip gets the same task in every validation.

        Returns:
            scalars by name: ``loss``, which is minimised, detached parts of it, and scores.
        """

    @abstractmethod
    def show(self, mel: Tensor, audio: Tensor, labels: Tensor | None = None) -> Shown:
        """What TensorBoard shows of a validation clip.

        Args:
            mel: ``[n_mels, frames]``.
            audio: ``[frames * hop_length]``.
            labels: int8 ``[classes, frames]``, for a model whose config has ``labels``; else None.
        """

    def log_mel(self, audio: Tensor) -> Tensor:
        """The mel ``[batch, n_mels, frames]`` of sounds ``[batch, samples]``, by the model's definition."""
        return _log_mel(self.mel, audio.device)(audio)

    def normalised(self, mel: Tensor) -> Tensor:
        """Natural-log mel scaled to about -2…2 for speech, whatever the definition's own log and statistics are."""
        return (self.mel.to_linear(mel).clamp(min=self.mel.floor).log() + LN_OFFSET) / LN_SCALE

    def mel_of(self, normalised: Tensor) -> Tensor:
        """The mel of which ``normalised`` is the scaled natural logarithm."""
        ln = (normalised * LN_SCALE - LN_OFFSET).clamp(min=math.log(self.mel.floor), max=LARGEST_LN)
        return self.mel.from_linear(ln.exp())


@lru_cache(maxsize=4)
def _log_mel(spec: MelSpec, device: torch.device) -> LogMel:
    return LogMel(spec).to(device)
