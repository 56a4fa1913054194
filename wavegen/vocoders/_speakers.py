"""Speakers: their names and indices, and a learned vector for each, added to features at frame rate."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wavegen.config import join_names, nearest
from wavegen.errors import ConfigError


class SpeakerCondition(nn.Module):
    """Adds a speaker's learned vector, projected, to every frame. Without speakers it has no weights and adds nothing.

    Args:
        names: the speakers' names, in the order of their indices.
        channels: channels of the vector that is learned for each speaker.
        out_channels: channels of the features that it is added to.

    Raises:
        ConfigError: there are speakers but no channels, or two speakers share a name.
    """

    def __init__(self, names: Sequence[str], channels: int, out_channels: int) -> None:
        super().__init__()
        self.names = tuple(names)
        if not self.names:
            return
        if not channels or len(set(self.names)) < len(self.names):
            raise ConfigError(
                f"{channels} channels for the speakers {join_names(self.names)}",
                where="vocoder.speaker_channels",
                remedy="speakers need different names and more than 0 channels, such as 32",
            )
        self.embedding = nn.Embedding(len(self.names), channels)
        self.project = nn.Linear(channels, out_channels, bias=False)
        nn.init.normal_(self.project.weight, std=0.1 / math.sqrt(channels))  # all begin as nearly the same voice

    def forward(self, x: Tensor, speakers: Tensor | None = None) -> Tensor:
        """Add each item's speaker.

        Args:
            x: ``[batch, out_channels, frames]``.
            speakers: int64 ``[batch]``, indices of ``names``; None without speakers.

        Raises:
            ConfigError: ``speakers`` is missing, or given to a vocoder without speakers.
        """
        if speakers is None and self.names:
            raise ConfigError(
                f"this vocoder has {len(self.names)} speakers",
                remedy=f"pass speakers=, indices of {join_names(self.names)}",
            )
        if speakers is not None and not self.names:
            raise ConfigError("speakers= given to a vocoder without speakers", remedy="leave it out")
        if speakers is None:
            return x
        # Project the whole table for any batch: a product with other rows would round differently.
        vectors = F.embedding(speakers, self.project(self.embedding.weight))
        return x + vectors[:, :, None]

    def with_rows_of(self, table: Tensor, names: Sequence[str]) -> Tensor:
        """The vectors of this model's speakers, taken from those of another model.

        Args:
            table: ``[len(names), channels]``, the other model's vectors.
            names: its speakers.

        Returns:
            ``[len(self.names), channels]``. A speaker whom the other model does not know has the mean of all it has.
        """
        rows = {name: table[index] for index, name in enumerate(names)}
        mean = table.mean(dim=0)
        return torch.stack([rows.get(name, mean) for name in self.names])

    def indices(self, given: str | Sequence[str] | None, batch: int) -> Tensor | None:
        """Turn names into indices ``[batch]``; None for a vocoder without speakers.

        Args:
            given: one name for all items or one each; may be None if there is only one speaker.
            batch: number of items.

        Raises:
            ConfigError: a name is unknown, missing, or given to a vocoder without speakers, or their number is wrong.
        """
        if not self.names:
            if given is None:
                return None
            raise ConfigError(f"speaker {given!r} given to a model without speakers", remedy="leave it out")
        if given is None:
            if len(self.names) > 1:
                raise ConfigError(
                    f"this model has {len(self.names)} speakers", remedy=f"name one of {join_names(self.names)}"
                )
            given = self.names[0]
        names = [given] * batch if isinstance(given, str) else given
        if not isinstance(names, Sequence) or not all(isinstance(name, str) for name in names):
            raise ConfigError(f"speaker {given!r} is not a name", remedy=f"give one of {join_names(self.names)}")
        if len(names) != batch:
            raise ConfigError(f"{len(names)} speakers for {batch} items", remedy="give one for all items or one each")
        return speaker_indices(names, self.names).to(self.embedding.weight.device)


def refuse_speakers(vocoder: str, names: Sequence[str], channels: int) -> None:
    """Raise ConfigError if there are speakers, or channels for them, for a vocoder that has no use for them."""
    if channels or names:
        given = f"speaker_channels={channels}" if channels else f"the speakers {join_names(names)}"
        raise ConfigError(
            f"{given} given to a {vocoder} vocoder, which takes the voice from the mel", remedy="leave speakers out"
        )


def speaker_indices(names: Sequence[str], known: Sequence[str]) -> Tensor:
    """Positions of names among ``known``, int64 ``[len(names)]``. Raises ConfigError for an unknown name."""
    for name in names:
        if name not in known:
            near = nearest(name, known)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise ConfigError(f"unknown speaker {name!r}", remedy=f"{hint}this model has {join_names(known)}")
    return torch.tensor([known.index(name) for name in names], dtype=torch.int64)
