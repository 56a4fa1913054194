"""Who speaks: names to indices, and a learned vector for each that is added to what the mel has become."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wavegen.config import nearest
from wavegen.errors import ConfigError

_MOST_SHOWN = 20


class SpeakerCondition(nn.Module):
    """A constant over time, added to features at frame rate; nothing, and no weights, where there are no speakers.

    Args:
        names: of the speakers, in the order of their indices.
        channels: of the vector that is learned for each.
        out_channels: of the features that it is projected to.

    Raises:
        ConfigError: speakers without channels, or two of one name.
    """

    def __init__(self, names: Sequence[str], channels: int, out_channels: int) -> None:
        super().__init__()
        self.names = tuple(names)
        if not self.names:
            return
        if not channels or len(set(self.names)) < len(self.names):
            raise ConfigError(
                f"speakers {listed(self.names)} with {channels} channels",
                where="vocoder.speaker_channels",
                remedy="give each a name of its own, and channels such as 32",
            )
        self.embedding = nn.Embedding(len(self.names), channels)
        self.project = nn.Linear(channels, out_channels, bias=False)
        nn.init.normal_(self.project.weight, std=0.1 / math.sqrt(channels))  # all begin as nearly the same voice

    def forward(self, x: Tensor, speakers: Tensor | None = None) -> Tensor:
        """Add each item's speaker.

        Args:
            x: ``[batch, out_channels, frames]``.
            speakers: int64 ``[batch]``, indices of ``names``; None where there are none.

        Raises:
            ConfigError: one is missing or superfluous.
        """
        if (speakers is None) != (not self.names):
            raise ConfigError(
                "speakers= given to a vocoder without any" if speakers is not None else "a vocoder of several speakers",
                remedy="leave them out" if speakers is not None else f"give speakers=, indices of {listed(self.names)}",
            )
        if speakers is None:
            return x
        # Of the whole table, whatever the batch: a product of other rows would round otherwise.
        vectors = F.embedding(speakers, self.project(self.embedding.weight))
        return x + vectors[:, :, None]

    def indices(self, given: str | Sequence[str] | None, batch: int) -> tuple[Tensor, ...]:
        """The part of a state that says who speaks: indices ``[batch]`` in a tuple, or an empty one without speakers.

        Args:
            given: one name for all items, or one each; it may be left out where only one speaker is known.
            batch: items.

        Raises:
            ConfigError: a name that is not known, none where several are, one where none is, or too few.
        """
        if not self.names:
            if given is None:
                return ()
            raise ConfigError(f"speaker {given!r} given to a model without speakers", remedy="leave it out")
        if given is None:
            if len(self.names) > 1:
                raise ConfigError(f"a model of {len(self.names)} speakers", remedy=f"name one of {listed(self.names)}")
            given = self.names[0]
        names = [given] * batch if isinstance(given, str) else list(given)
        if len(names) != batch:
            raise ConfigError(f"{len(names)} speakers for {batch} items", remedy="give one for all, or one each")
        return (speaker_indices(names, self.names).to(self.embedding.weight.device),)


def speaker_indices(names: Sequence[str], known: Sequence[str]) -> Tensor:
    """Names to their places among ``known``, int64 ``[len(names)]``. Raises ConfigError for one that is not there."""
    for name in names:
        if name not in known:
            near = nearest(name, known)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise ConfigError(f"unknown speaker {name!r}", remedy=f"{hint}known are {listed(known)}")
    return torch.tensor([known.index(name) for name in names], dtype=torch.int64)


def listed(names: Sequence[str]) -> str:
    """Names in a message; of very many the first."""
    more = len(names) - _MOST_SHOWN
    return ", ".join(names[:_MOST_SHOWN]) + (f" and {more} more" if more > 0 else "")
