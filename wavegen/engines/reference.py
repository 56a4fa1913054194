"""The torch engine: plain torch with cached activations. All other engines are measured against it."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from wavegen.blocks import DilatedConv1d, GatedResidualBlock
from wavegen.engines.base import (
    LARGEST_INPUT,
    PITCH_TAPS,
    Engine,
    EngineState,
    FrameCondition,
    Network,
    Prediction,
    reads_classes,
)
from wavegen.errors import StreamingError


class ReferenceState(NamedTuple):
    """State of the torch engine.

    Attributes:
        samples_done: int64 ``[1]``.
        waveform: the samples that the linear predictor reads, newest last, ``[batch, order]``.
        errors: the prediction errors that the pitch taps read, newest last, ``[batch, longest period + 1]``.
        expected: float64 ``[batch, 2]``, prediction and scale of the sample before.
        rings: the past inputs of each convolution, ``[steps, batch, channels]``; that of sample n at ``n % steps``.
    """

    samples_done: Tensor
    waveform: Tensor
    errors: Tensor
    expected: Tensor
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
        self.order = network.prediction_order
        self.reads_pitch = network.reads_pitch
        self.reads_classes = reads_classes(network)
        self.errors_kept = network.longest_period + 1 if network.reads_pitch else 1
        blocks = [block for block in network.stack.blocks if isinstance(block, GatedResidualBlock)]
        self.input = _Taps(network.input)
        self.blocks = [_Block(block) for block in blocks]
        self.hidden = _Taps(network.hidden)
        self.output = _Taps(network.output)
        self._with_past = [self.input, *(block.conv for block in self.blocks)]

    def initial_state(self, batch: int) -> ReferenceState:
        """Return the state before the first sample: zeros."""
        like = self.input.taps[0]
        return ReferenceState(
            samples_done=torch.zeros(1, dtype=torch.int64),
            waveform=like.new_zeros(batch, self.order),
            errors=like.new_zeros(batch, self.errors_kept),
            expected=torch.tensor((0.0, 1.0), dtype=torch.float64, device=like.device).repeat(batch, 1),
            rings=tuple(conv.taps[0].new_zeros(conv.steps, batch, len(conv.taps[0])) for conv in self._with_past),
        )

    @torch.no_grad()
    def generate(
        self,
        previous: Tensor,
        condition: Tensor | FrameCondition,
        noise: Tensor,
        state: EngineState,
        *,
        prediction: Prediction | None = None,
        temperature: float = 1.0,
    ) -> tuple[Tensor, ReferenceState]:
        """Generate the next samples; see ``Engine.generate``."""
        condition = FrameCondition.wrap(condition).per_sample()
        state = self._copied(state, len(previous))
        samples = []
        for n, (now, known) in enumerate(_steps(condition, prediction)):
            parameters = self.advance(previous, now, state, known)
            softness = temperature * known.temperature[:, None]
            error = self.distribution.sample(parameters[..., None], noise[..., n : n + 1], temperature=softness)[:, 0]
            mean, scale = state.expected.unbind(1)
            previous = (mean + scale * error).clamp(-1, 1).to(error.dtype)
            samples.append(previous)
        return torch.stack(samples, dim=1) if samples else condition.new_zeros(len(condition), 0), state

    @torch.no_grad()
    def predict(
        self,
        previous: Tensor,
        condition: Tensor | FrameCondition,
        state: EngineState,
        *,
        prediction: Prediction | None = None,
    ) -> tuple[Tensor, ReferenceState]:
        """Predict samples from given ones; see ``Engine.predict``."""
        condition = FrameCondition.wrap(condition).per_sample()
        state = self._copied(state, len(previous))
        steps = zip(previous.T, _steps(condition, prediction), strict=True)
        parameters = [self.advance(before, now, state, known) for before, (now, known) in steps]
        empty = condition.new_zeros(len(condition), self.distribution.channels, 0)
        return torch.stack(parameters, dim=2) if parameters else empty, state

    def _copied(self, state: EngineState, batch: int) -> ReferenceState:
        """Copy a state, so that it can be changed. Raises StreamingError if it is not a state of this engine."""
        if not isinstance(state, ReferenceState) or _shapes(state) != _shapes(self.initial_state(batch)):
            raise StreamingError(
                "the state belongs to another engine, model or batch size",
                where="torch engine",
                remedy="start from the initial_state of the engine that continues",
            )
        done, waveform, errors, expected = (part.clone() for part in state[:-1])
        return ReferenceState(done, waveform, errors, expected, tuple(ring.clone() for ring in state.rings))

    def advance(
        self, previous: Tensor, condition: Tensor, state: ReferenceState, known: Prediction | None = None
    ) -> Tensor:
        """Predict one sample, and change ``state`` in place.

        Args:
            previous: ``[batch]``, the sample before.
            condition: ``[batch, condition_channels]`` for this sample.
            state: a state that nothing else refers to.
            known: the prediction of this sample, without the last dimension; None for a network without predictions.

        Returns:
            parameters of the output distribution, ``[batch, channels]``.
        """
        now = int(state.samples_done)
        state.samples_done.add_(1)
        if known is None:
            known = _of_sample(Prediction.none(len(previous), previous), 0, 0)

        # The sample before is known by now, and with it the error of its prediction.
        mean, scale = state.expected.unbind(1)
        error = ((previous.double() - mean) / scale).to(state.errors.dtype)
        _append(state.waveform, previous)
        _append(state.errors, error)
        mean = (known.coefficients.double() * state.waveform.double().flip(1)).sum(1)
        state.expected.copy_(torch.stack((mean, known.scale[:, 0].double()), dim=1))

        x = self.input(self._inputs(previous, state.errors, known.period), state.rings[0], now)
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

    def _inputs(self, previous: Tensor, errors: Tensor, period: Tensor) -> Tensor:
        """What the network reads for one sample, ``[batch, input channels]``."""
        if self.reads_classes:
            return self.distribution.embed(previous[:, None])[..., 0].to(self.input.taps[0].dtype)
        read = [errors[:, -1]]
        if self.reads_pitch:
            kept = errors.shape[1]
            for tap in PITCH_TAPS:
                at = (kept - period + tap).clamp(0, kept - 1)[:, None]
                read.append(torch.where(period > 0, errors.gather(1, at)[:, 0], 0.0))
        return torch.stack(read, dim=1).clamp(-LARGEST_INPUT, LARGEST_INPUT).to(self.input.taps[0].dtype)


def _append(values: Tensor, newest: Tensor) -> None:
    """Drop the oldest of ``values`` ``[batch, kept]`` and append the newest, in place."""
    if values.shape[1]:
        values.copy_(torch.cat((values[:, 1:], newest[:, None].to(values.dtype)), dim=1))


def _shapes(state: ReferenceState) -> list[torch.Size]:
    return [part.shape for part in (*state[:-1], *state.rings)]


def _steps(condition: Tensor, prediction: Prediction | None) -> Iterator[tuple[Tensor, Prediction]]:
    """The condition ``[batch, channels]`` of every sample, and its prediction."""
    batch, _, samples = condition.shape
    prediction = Prediction.none(batch, condition) if prediction is None else prediction
    sub_frame = max(1, samples // prediction.scale.shape[-1])
    frame = max(1, samples // prediction.period.shape[-1])
    # One contiguous row per sample, because the loop reads hundreds of thousands of them.
    for n, now in enumerate(condition.permute(2, 0, 1).contiguous()):
        yield now, _of_sample(prediction, n // sub_frame, n // frame)


def _of_sample(prediction: Prediction, sub_frame: int, frame: int) -> Prediction:
    return Prediction(
        prediction.coefficients[..., sub_frame],
        prediction.scale[..., sub_frame],
        prediction.period[..., frame],
        prediction.temperature[..., frame],
    )


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
