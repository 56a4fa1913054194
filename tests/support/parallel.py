"""Parallel WaveNets with random weights, and what their networks add to the sources."""

import torch
from torch import Tensor, nn

from support.vocoders import SPEC
from wavegen.mel import MelProjection
from wavegen.vocoders import Vocoder
from wavegen.vocoders._frames import cut
from wavegen.vocoders._spoken import Features
from wavegen.vocoders.parallel import ParallelWaveNet

HOP, BINS = SPEC.hop_length, SPEC.n_mels


def randomised(vocoder: Vocoder) -> ParallelWaveNet:
    """In float64, with random weights in all layers but those of the pitch network."""
    assert isinstance(vocoder, ParallelWaveNet)
    torch.manual_seed(0)
    for name, parameter in vocoder.named_parameters():
        if not name.startswith("stage."):
            nn.init.normal_(parameter, std=0.4)
    return vocoder.double().eval()


def speech_like(frames: int, batch: int = 1) -> Tensor:
    """Random mels ``[batch, bins, frames]`` with the level of speech: loud sources would saturate the gates."""
    return torch.randn(batch, BINS, frames, dtype=torch.float64) - 4


def features_of(model: ParallelWaveNet, frames: int, batch: int = 1) -> Features:
    """Features with an F0 that changes from frame to frame, and with frames that are not voiced."""
    f0 = torch.empty(batch, frames).uniform_(-50, 300).clamp(min=0)
    mel = speech_like(frames, batch).to(model.output.weight)
    return model.stage(mel, None, torch.arange(batch), f0.to(mel))


class NothingImposed(MelProjection):
    """Returns the samples as they are."""

    def forward(self, samples: Tensor, mel: Tensor, mask: Tensor | None = None, *, iterations: int = 0) -> Tensor:
        return samples


def correction(model: ParallelWaveNet, features: Features, engine: str = "torch") -> Tensor:
    """What the network adds to the sources, ``[batch, samples]``."""
    model.use_engine(engine)
    imposed, model.projection = model.projection, NothingImposed(model.mel)
    samples = model.render(features, None, None, model.iterations)
    model.projection = imposed
    return samples - features.source_samples().sum(1)


def streamed_correction(model: ParallelWaveNet, features: Features, pieces: list[int], engine: str) -> Tensor:
    """The same by a causal network, some frames at a time."""
    model.use_engine(engine)
    _, state = model.initial_network_state(cut(features, 0, 0), torch.zeros(len(features.spoken.mel)))
    corrections, start = [], 0
    for frames in pieces:
        piece, state = model.step_network(cut(features, start, start + frames), state, None, ended=False)
        assert piece.corrections is not None
        corrections.append(piece.corrections)
        start += frames
    return torch.cat(corrections, dim=-1).transpose(1, 2).flatten(1)
