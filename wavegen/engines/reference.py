"""The torch engine: plain torch with cached activations. It is the reference that others are measured against."""

import torch
from torch import Tensor

from wavegen.blocks import DilatedConv1d, GatedResidualBlock
from wavegen.engines.base import Engine, HeldCondition, Network, State
from wavegen.errors import StreamingError


class ReferenceEngine(Engine):
    """Keeps, for each convolution, the inputs its past taps will read, in a ring.

    The state is the number of samples done and a ring ``[steps, batch, channels]`` a convolution.
    """

    def __init__(self, network: Network) -> None:
        self.distribution, self.description = network.distribution, "torch"
        self.skip_scale = network.skip_scale
        blocks = [block for block in network.stack.blocks if isinstance(block, GatedResidualBlock)]
        self.input = _Taps(network.input)
        self.blocks = [_Block(block) for block in blocks]
        self.hidden, self.output = _Taps(network.hidden), _Taps(network.output)
        self._rings = [self.input, *(block.conv for block in self.blocks)]

    def initial_state(self, batch: int) -> State:
        """No samples done, and zeros."""
        rings = (ring.taps[0].new_zeros(ring.steps, batch, len(ring.taps[0])) for ring in self._rings)
        return (torch.zeros(1, dtype=torch.int64), *rings)

    @torch.no_grad()
    def generate(
        self,
        previous: Tensor,
        condition: Tensor | HeldCondition,
        noise: Tensor,
        state: State,
        *,
        temperature: float = 1.0,
    ) -> tuple[Tensor, State]:
        """Generate the next samples; see Engine."""
        condition = HeldCondition.of(condition).per_sample()
        state = self._own(state, len(previous))
        samples = []
        # One contiguous row a sample: the loop reads them hundreds of thousands of times.
        for now, draw in zip(condition.permute(2, 0, 1).contiguous(), noise.permute(2, 0, 1), strict=True):
            parameters = self.advance(previous, now, state)
            previous = self.distribution.sample(parameters[..., None], draw[..., None], temperature=temperature)[:, 0]
            samples.append(previous)
        return torch.stack(samples, dim=1) if samples else condition.new_zeros(len(condition), 0), state

    @torch.no_grad()
    def predict(self, previous: Tensor, condition: Tensor | HeldCondition, state: State) -> tuple[Tensor, State]:
        """Predict samples from given ones; see Engine."""
        condition = HeldCondition.of(condition).per_sample()
        state = self._own(state, len(previous))
        steps = zip(previous.T, condition.permute(2, 0, 1).contiguous(), strict=True)
        parameters = [self.advance(before, now, state) for before, now in steps]
        empty = condition.new_zeros(len(condition), self.distribution.channels, 0)
        return torch.stack(parameters, dim=2) if parameters else empty, state

    def _own(self, state: State, batch: int) -> State:
        """A copy to change. Raises StreamingError where it is no state of this engine."""
        if [part.shape for part in state] != [part.shape for part in self.initial_state(batch)]:
            raise StreamingError(
                "a state of another engine or model",
                where="torch engine",
                remedy="start from initial_state of the engine that goes on with it",
            )
        return tuple(part.clone() for part in state)

    def advance(self, previous: Tensor, condition: Tensor, state: State) -> Tensor:
        """Predict one sample, changing ``state`` in place.

        Args:
            previous: ``[batch]``, the sample before.
            condition: ``[batch, condition_channels]`` for this sample.
            state: a state that nobody else holds.

        Returns:
            parameters of the output distribution, ``[batch, channels]``.
        """
        counter, *rings = state
        now = int(counter)
        counter += 1
        embedded = self.distribution.embed(previous[:, None])[..., 0].to(self.input.taps[0].dtype)
        x = self.input(embedded, rings[0], now)
        skips: Tensor | None = None
        for block, ring in zip(self.blocks, rings[1:], strict=True):
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
    """A causal convolution as one matrix a tap, ``[in, out]``, oldest tap first."""

    def __init__(self, conv: DilatedConv1d) -> None:
        weight = conv.weight.detach()
        self.taps = [weight[..., tap].t().contiguous() for tap in range(weight.shape[-1])]
        self.bias = weight.new_zeros(conv.out_channels) if conv.bias is None else conv.bias.detach().clone()
        self.dilation, self.steps = conv.dilation[0], conv.context.left

    def __call__(self, x: Tensor, ring: Tensor | None = None, now: int = 0) -> Tensor:
        """Convolve one step ``[batch, in]``; the ring gives the past inputs and takes this one."""
        y = torch.addmm(self.bias, x, self.taps[-1])
        if ring is not None and self.steps:
            for back, tap in enumerate(reversed(self.taps[:-1]), start=1):
                y = torch.addmm(y, ring[(now - back * self.dilation) % self.steps], tap)
            ring[now % self.steps] = x
        return y


class _Block:
    """One gated block's weights."""

    def __init__(self, block: GatedResidualBlock) -> None:
        self.conv, self.output = _Taps(block.conv), _Taps(block.output)
        self.condition = None if block.condition is None else _Taps(block.condition).taps[0]
        self.channels, self.residual_scale = block.channels, block.residual_scale
