"""The torch engine: plain torch with cached activations. All other engines are measured against it."""

from typing import NamedTuple

import torch
from torch import Tensor

from wavegen.blocks import DilatedConv1d, GatedResidualBlock
from wavegen.engines.base import Engine, EngineState, FrameCondition, Network
from wavegen.errors import StreamingError


class ReferenceState(NamedTuple):
    """State of the torch engine.

    Attributes:
        samples_done: int64 ``[1]``.
        rings: the past inputs of each convolution, ``[steps, batch, channels]``; that of sample n at ``n % steps``.
    """

    samples_done: Tensor
    rings: tuple[Tensor, ...]


class ReferenceEngine(Engine):
    """Runs one sample at a time; for each convolution, a ring keeps the inputs that its past taps will read.

    Args:
        network: a WaveNet; its weights are copied.
    """

    def __init__(self, network: Network) -> None:
        self.distribution = network.distribution
        self.description = "torch"
        self.skip_scale = network.skip_scale
        blocks = [block for block in network.stack.blocks if isinstance(block, GatedResidualBlock)]
        self.input = _Taps(network.input)
        self.blocks = [_Block(block) for block in blocks]
        self.hidden = _Taps(network.hidden)
        self.output = _Taps(network.output)
        self._with_past = [self.input, *(block.conv for block in self.blocks)]

    def initial_state(self, batch: int) -> ReferenceState:
        """Return the state before the first sample: rings of zeros."""
        rings = (conv.taps[0].new_zeros(conv.steps, batch, len(conv.taps[0])) for conv in self._with_past)
        return ReferenceState(torch.zeros(1, dtype=torch.int64), tuple(rings))

    @torch.no_grad()
    def generate(
        self,
        previous: Tensor,
        condition: Tensor | FrameCondition,
        noise: Tensor,
        state: EngineState,
        *,
        temperature: float = 1.0,
    ) -> tuple[Tensor, ReferenceState]:
        """Generate the next samples; see ``Engine.generate``."""
        condition = FrameCondition.wrap(condition).per_sample()
        state = self._copied(state, len(previous))
        samples = []
        # One contiguous row per sample, because the loop reads hundreds of thousands of them.
        for now, draw in zip(condition.permute(2, 0, 1).contiguous(), noise.permute(2, 0, 1), strict=True):
            parameters = self.advance(previous, now, state)
            previous = self.distribution.sample(parameters[..., None], draw[..., None], temperature=temperature)[:, 0]
            samples.append(previous)
        return torch.stack(samples, dim=1) if samples else condition.new_zeros(len(condition), 0), state

    @torch.no_grad()
    def predict(
        self, previous: Tensor, condition: Tensor | FrameCondition, state: EngineState
    ) -> tuple[Tensor, ReferenceState]:
        """Predict samples from given ones; see ``Engine.predict``."""
        condition = FrameCondition.wrap(condition).per_sample()
        state = self._copied(state, len(previous))
        steps = zip(previous.T, condition.permute(2, 0, 1).contiguous(), strict=True)
        parameters = [self.advance(before, now, state) for before, now in steps]
        empty = condition.new_zeros(len(condition), self.distribution.channels, 0)
        return torch.stack(parameters, dim=2) if parameters else empty, state

    def _copied(self, state: EngineState, batch: int) -> ReferenceState:
        """Copy a state, so that it can be changed. Raises StreamingError if it is not a state of this engine."""
        shapes = [ring.shape for ring in self.initial_state(batch).rings]
        if not isinstance(state, ReferenceState) or [ring.shape for ring in state.rings] != shapes:
            raise StreamingError(
                "the state belongs to another engine, model or batch size",
                where="torch engine",
                remedy="start from the initial_state of the engine that continues",
            )
        return ReferenceState(state.samples_done.clone(), tuple(ring.clone() for ring in state.rings))

    def advance(self, previous: Tensor, condition: Tensor, state: ReferenceState) -> Tensor:
        """Predict one sample, and change ``state`` in place.

        Args:
            previous: ``[batch]``, the sample before.
            condition: ``[batch, condition_channels]`` for this sample.
            state: a state that nothing else refers to.

        Returns:
            parameters of the output distribution, ``[batch, channels]``.
        """
        now = int(state.samples_done)
        state.samples_done.add_(1)
        embedded = self.distribution.embed(previous[:, None])[..., 0].to(self.input.taps[0].dtype)
        x = self.input(embedded, state.rings[0], now)
        skips: Tensor | None = None
        for block, ring in zip(self.blocks, state.rings[1:], strict=True):
            gate = block.conv(x, ring, now)
            if block.condition is not None:
                gate = torch.addmm(gate, condition, block.condition)
            filtered, gate = gate.chunk(2, dim=1)
            mixed = block.output(torch.tanh(filtered) * torch.sigmoid(gate))
            x = (x + mixed[:, : block.channels]) * block.residual_scale
            skip = mixed[:, block.channels :]
            skips = skip if skips is None else skips + skip
        assert skips is not None
        h = self.hidden(torch.relu(skips * self.skip_scale))
        return self.output(torch.relu(h))


class _Taps:
    """A causal convolution as one matrix per tap, ``[in, out]``, oldest tap first."""

    def __init__(self, conv: DilatedConv1d) -> None:
        weight = conv.weight.detach()
        copied = weight.permute(2, 1, 0).clone(memory_format=torch.contiguous_format)
        self.taps = list(copied.unbind())
        self.bias = weight.new_zeros(conv.out_channels) if conv.bias is None else conv.bias.detach().clone()
        self.dilation = conv.dilation[0]
        self.steps = conv.context.left

    def __call__(self, x: Tensor, ring: Tensor | None = None, now: int = 0) -> Tensor:
        """Convolve one step ``[batch, in]``; read the past inputs from the ring, and write this one to it."""
        y = torch.addmm(self.bias, x, self.taps[-1])
        if ring is not None and self.steps:
            for back, tap in enumerate(reversed(self.taps[:-1]), start=1):
                y = torch.addmm(y, ring[(now - back * self.dilation) % self.steps], tap)
            ring[now % self.steps] = x
        return y


class _Block:
    """The weights of one gated block."""

    def __init__(self, block: GatedResidualBlock) -> None:
        self.conv = _Taps(block.conv)
        self.output = _Taps(block.output)
        self.condition = None if block.condition is None else _Taps(block.condition).taps[0]
        self.channels = block.channels
        self.residual_scale = block.residual_scale
