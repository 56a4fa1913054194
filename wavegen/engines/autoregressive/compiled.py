"""The numba engine: a WaveNet's sample loop, compiled from Python to machine code for this processor.

Import this module only when a WaveNet is about to generate, because numba takes about half a second to load.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, get_args

import numpy as np
import torch
import torch.nn.functional as F
from numba import njit
from torch import Tensor

from wavegen.distributions import Gaussian, MuLaw
from wavegen.engines import base, simd
from wavegen.engines.autoregressive import drawing, packing, sample_loop
from wavegen.engines.base import Engine, EngineState, FrameCondition, Network, Prediction
from wavegen.engines.compilation import CompiledOnce
from wavegen.engines.packed import arena, int8, products
from wavegen.errors import ConfigError, StreamingError
from wavegen.levels import mu_law_decode, mu_law_encode

COMPILED = (base, simd, arena, int8, products, packing, drawing, sample_loop)
"""The modules whose functions and constants are compiled into the loop; its cache is keyed by their source."""


class NumbaState(NamedTuple):
    """State of the numba engine.

    Attributes:
        samples_done: int64 ``[1]``.
        history, rings, ahead: the arrays of ``sample_loop.Memory``, with a row per item.
        waveform, errors, expected: likewise, the first two without room for the next samples.
    """

    samples_done: Tensor
    history: Tensor
    rings: Tensor
    ahead: Tensor
    waveform: Tensor
    errors: Tensor
    expected: Tensor


class NumbaEngine(Engine):
    """Generates on one processor core.

    Args:
        network: a float32 WaveNet on the CPU; its weights are copied.
        precision: precision of the weights. int16, whose arithmetic is float32, is faster than float32 if the weights
            exceed the cache. int8 codes the vectors that the weights multiply, too. It needs a processor with products
            of bytes; on others it is replaced by int16, which ``description`` says.

    Raises:
        ConfigError: this engine cannot run the network.
    """

    def __init__(self, network: Network, precision: arena.Precision = "float32") -> None:
        weight = network.output.weight
        if weight.device.type != "cpu" or weight.dtype != torch.float32:
            model = f"{str(weight.dtype).removeprefix('torch.')} on {weight.device.type}"
            raise ConfigError(
                f"the numba engine runs float32 models on a CPU, and this one is {model}",
                where="engine",
                remedy="use the torch engine",
            )
        self.distribution = network.distribution
        self.description = f"numba {precision}, vectors of {simd.LANES}"
        if precision == "int8" and not int8.AVAILABLE:
            precision = "int16"
            self.description = f"numba int16, vectors of {simd.LANES}, because this processor has no products of bytes"
        self.items_at_once = simd.LOCK_STEP
        self._precision = precision
        self._model = packing.pack(network, precision, simd.LANES)
        self._operand = torch.uint8 if precision == "int8" else torch.float32  # what products read
        self._condition_channels = packing.condition_channels(network)
        self._loop = _LOOPS[precision].get(self._try_out)

    def _no_prediction(self) -> Prediction:
        """That of no samples."""
        none = torch.zeros(1, self._model.order, 1)
        return Prediction.none(1, none)._replace(coefficients=none)

    def initial_state(self, batch: int) -> NumbaState:
        """Return the state before the first sample: zeros."""
        model = self._model
        blocks, ring_steps = len(model.layers.now), int(model.layers.ring_steps.sum())
        return NumbaState(
            samples_done=torch.zeros(1, dtype=torch.int64),
            history=torch.zeros(batch, (int(model.lags.max()) + 1) * model.reads),
            rings=torch.zeros(batch, ring_steps * (model.channels + model.tail), dtype=self._operand),
            ahead=torch.zeros(batch, blocks * packing.MAX_BLOCK_STEPS * 2 * model.gates),
            waveform=torch.zeros(batch, model.order),
            errors=torch.zeros(batch, model.errors_kept),
            expected=torch.tensor((0.0, 1.0), dtype=torch.float64).repeat(batch, 1),
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
    ) -> tuple[Tensor, NumbaState]:
        """Generate the next samples; see ``Engine.generate``."""
        if temperature < 0:
            raise ConfigError(f"{temperature} is negative", where="temperature", remedy="use 0 to 1")
        condition = FrameCondition.wrap(condition)
        expected = (len(previous), condition.samples)
        if noise.shape != expected:
            raise ValueError(f"noise has shape {tuple(noise.shape)}, expected {expected}")
        prediction = prediction or Prediction.none(len(previous), previous)
        prediction = prediction._replace(temperature=temperature * prediction.temperature)
        drawn, _, state = self._run(previous[:, None], condition, self._loop_noise(noise), state, prediction)
        return self._waveform(drawn), state

    @torch.no_grad()
    def predict(
        self,
        previous: Tensor,
        condition: Tensor | FrameCondition,
        state: EngineState,
        *,
        prediction: Prediction | None = None,
    ) -> tuple[Tensor, NumbaState]:
        """Predict samples from given ones; see ``Engine.predict``."""
        condition = FrameCondition.wrap(condition)
        if previous.shape[1] != condition.samples:
            raise ValueError(f"{previous.shape[1]} previous samples, but a condition for {condition.samples}")
        noise = torch.full((len(previous), condition.samples), 0.5, dtype=torch.float64)
        prediction = prediction or Prediction.none(len(previous), previous)
        _, parameters, state = self._run(previous, condition, noise, state, prediction, keep_parameters=True)
        return parameters[..., : self.distribution.channels].transpose(1, 2), state

    def _try_out(self, loop: Callable[..., Any]) -> None:
        """Generate no samples, which compiles the loop."""
        self._loop = loop
        condition = FrameCondition.wrap(torch.zeros(1, self._condition_channels, 0))
        noise = torch.zeros(1, 0, dtype=torch.float64)
        self._run(torch.zeros(1, 1), condition, noise, self.initial_state(1), self._no_prediction())

    def _run(
        self,
        given: Tensor,
        condition: FrameCondition,
        noise: Tensor,
        state: EngineState,
        prediction: Prediction,
        *,
        keep_parameters: bool = False,
    ) -> tuple[Tensor, Tensor, NumbaState]:
        """Run the loop for all items; return the drawn values ``[batch, samples]``, parameters, and the next state."""
        state = self._checked(given, condition, state, prediction)
        batch, samples, model = len(given), condition.samples, self._model
        padding = (0, model.condition - self._condition_channels)
        frames = F.pad(condition.frames.transpose(1, 2), padding).contiguous().numpy()
        weights = condition.weights.contiguous().numpy()
        given_values, noise_values = self._loop_values(given).numpy(), noise.contiguous().numpy()
        coefficients = prediction.coefficients.transpose(1, 2).float().contiguous().numpy()
        scale = prediction.scale[:, 0].float().numpy()
        within = prediction.period.long().clamp(2, max(2, model.errors_kept - 1))
        period = torch.where(prediction.period > 0, within, 0).numpy()
        softness = prediction.temperature.double().numpy()
        results = []
        for items in _groups(batch):
            past = NumbaState(state.samples_done, *(part[items] for part in state[1:]))  # indexing by a list copies
            memory = sample_loop.Memory(
                history=past.history.numpy(),
                rings=past.rings.numpy(),
                ahead=past.ahead.numpy(),
                waveform=F.pad(past.waveform, (0, samples)).numpy(),
                errors=F.pad(past.errors, (0, samples)).numpy(),
                expected=past.expected.numpy(),
            )
            inputs = sample_loop.Inputs(
                start=int(state.samples_done),
                frames=frames[items],
                frame_weights=weights,
                noise=noise_values[items],
                given=given_values[items],
                coefficients=coefficients[items],
                scale=scale[items],
                period=period[items],
                temperature=softness[items],
                sub_frame=max(1, samples // scale.shape[1]),
                frame=max(1, samples // period.shape[1]),
            )
            outputs = sample_loop.Outputs(
                samples=np.zeros((len(items), samples), dtype=np.float32),
                parameters=np.zeros((len(items), samples if keep_parameters else 0, model.outputs), dtype=np.float32),
            )
            room = sample_loop.workspace(model, len(weights), len(items))
            self._loop(model, memory, room, inputs, outputs)
            memory = memory._replace(waveform=memory.waveform[:, samples:], errors=memory.errors[:, samples:])
            results.append((*outputs, *memory))
        drawn, parameters, *memories = (
            torch.from_numpy(np.concatenate(parts)[:batch]) for parts in zip(*results, strict=True)
        )
        return drawn, parameters, NumbaState(state.samples_done + samples, *memories)

    def _checked(
        self, given: Tensor, condition: FrameCondition, state: EngineState, prediction: Prediction
    ) -> NumbaState:
        """Refuse arguments with which the loop would read or write outside its arrays: it checks nothing itself."""
        expected = [(part.shape, part.dtype) for part in self.initial_state(len(given))]
        if not isinstance(state, NumbaState) or [(part.shape, part.dtype) for part in state] != expected:
            raise StreamingError(
                "the state belongs to another engine, model, batch size or kind of processor",
                where="numba engine",
                remedy="start from the initial_state of the engine that continues",
            )
        if condition.frames.shape[:2] != (len(given), self._condition_channels):
            expected_shape = f"[{len(given)}, {self._condition_channels}, …]"
            raise ValueError(f"the condition has shape {list(condition.frames.shape)}, expected {expected_shape}")
        coefficients, scale, period, temperature = (list(part.shape) for part in prediction)
        expected_order = [len(given), self._model.order]
        if (
            coefficients[:2] != expected_order
            or scale != [len(given), 1, coefficients[2]]
            or period != temperature
            or condition.samples % scale[2]
            or condition.samples % period[1]
        ):
            raise ValueError(
                f"the prediction has shapes {coefficients}, {scale}, {period} and {temperature}, expected "
                f"{[*expected_order, '…']}, of parts that divide {condition.samples} samples"
            )
        return state

    def _loop_values(self, waveform: Tensor) -> Tensor:
        """Convert samples to the loop's: float32 classes if the network takes one-hot input, otherwise values."""
        if self._model.reads_classes:
            assert isinstance(self.distribution, MuLaw)
            classes = self.distribution.classes
            waveform = mu_law_encode(waveform, classes).clamp(0, classes - 1)  # NaN has no class; it becomes the first
        return waveform.float().contiguous()

    def _waveform(self, values: Tensor) -> Tensor:
        """The inverse of ``_loop_values``."""
        if self._model.reads_classes:
            assert isinstance(self.distribution, MuLaw)
            return mu_law_decode(values.long(), self.distribution.classes)
        return values

    def _loop_noise(self, uniform: Tensor) -> Tensor:
        """Convert uniform noise to the loop's: for a Gaussian, normal quantiles, rounded to float32 as in torch."""
        if isinstance(self.distribution, Gaussian):
            return torch.special.ndtri(uniform.double()).float().double()
        return uniform.double()


def _groups(batch: int) -> list[list[int]]:
    """Indices of the items that run in lock step, or alone if they are too few; the last group may repeat an item."""
    whole = batch - batch % simd.LOCK_STEP
    rest = list(range(whole, batch))
    groups = [list(range(first, first + simd.LOCK_STEP)) for first in range(0, whole, simd.LOCK_STEP)]
    if len(rest) > simd.LOCK_STEP // 2:
        return [*groups, rest + rest[-1:] * (simd.LOCK_STEP - len(rest))]
    return groups + [[item] for item in rest]


# ---- compilation ------------------------------------------------------------------------------------------------


def _define_loop(fingerprint: int, cached: bool) -> Any:
    """Define the sample loop, which is compiled when it is first called.

    The loop creates no arrays, so numba need not count references to its arguments (``_nrt``); counting them took a
    quarter of the time.
    """

    @njit(nogil=True, cache=cached, error_model="numpy", _nrt=False)
    def loop(model: Any, memory: Any, work: Any, inputs: Any, outputs: Any) -> Any:
        sample_loop.sample_loop(model, memory, work, inputs, outputs)
        return fingerprint

    return loop


_LOOPS: dict[arena.Precision, CompiledOnce[Callable[..., Any]]] = {
    precision: CompiledOnce(_define_loop, COMPILED) for precision in get_args(arena.Precision)
}
