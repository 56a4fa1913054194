"""The numba engine: a WaveNet's sample loop as machine code for this processor, from Python alone.

Import it only where a WaveNet is about to speak: numba takes about half a second to load.
"""

import hashlib
import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numba import njit
from torch import Tensor

from wavegen.distributions import Gaussian, MuLaw, mu_law_decode, mu_law_encode
from wavegen.engines.autoregressive import drawing, packing, products, sample_loop, simd
from wavegen.engines.base import Engine, HeldCondition, Network, State
from wavegen.errors import ConfigError, StreamingError

COMPILED = (simd, products, packing, drawing, sample_loop)
"""All that the loop is compiled from, constants included: in a cache, it is known by their source."""


def _fingerprint(modules: tuple[ModuleType, ...]) -> int:
    """A number that changes with the source of any of ``modules``."""
    source = "".join(inspect.getsource(module) for module in modules)
    return int.from_bytes(hashlib.sha256(source.encode()).digest()[:7], "big")


def _loop(fingerprint: int, *, cached: bool) -> Any:
    """The sample loop, to be compiled when it is first called.

    numba's cache tells entries apart by its own version, the processor, the types of the arguments and the source of
    the one function it is asked to keep. It does not see a change in the functions which that one calls. But it does
    see the values that a function encloses: ``fingerprint`` stands for the source of all the others.

    The loop makes no arrays, so numba need not count references to those it is given (``_nrt``): that counting was a
    quarter of the time.
    """

    @njit(nogil=True, cache=cached, error_model="numpy", _nrt=False)
    def run(
        model: Any, memory: Any, work: Any, start: Any, frames: Any, frame_weights: Any, noise: Any, temperature: Any,
        given: Any, samples: Any, parameters: Any,
    ) -> Any:  # fmt: skip
        sample_loop.sample_loop(
            model, memory, work, start, frames, frame_weights, noise, temperature, given, samples, parameters
        )
        return fingerprint

    return run


_loops: dict[str, Callable[..., None]] = {}


def _call(precision: packing.Precision, arguments: tuple[Any, ...]) -> None:
    """Run the loop; the first time in a process it is compiled or taken from the cache on disk.

    A cache that cannot be used costs only the cache: not to be written, damaged, of classes that are no more. Whatever
    it fails with, it fails before anything has run.
    """
    if precision in _loops:
        _loops[precision](*arguments)
        return
    try:
        run = _loop(_fingerprint(COMPILED), cached=True)
        run(*arguments)
    except Exception:
        run = _loop(0, cached=False)
        run(*arguments)
    _loops[precision] = run


def _groups(batch: int) -> list[list[int]]:
    """Items that go in lock step, or alone where they are too few for that; the last group may repeat the last item."""
    whole = batch - batch % simd.LOCK_STEP
    rest = list(range(whole, batch))
    groups = [list(range(first, first + simd.LOCK_STEP)) for first in range(0, whole, simd.LOCK_STEP)]
    if len(rest) > simd.LOCK_STEP // 2:
        return [*groups, rest + rest[-1:] * (simd.LOCK_STEP - len(rest))]
    return groups + [[item] for item in rest]


class NumbaEngine(Engine):
    """Generates on one processor core, in float32 or, faster where weights exceed the cache, with int16 weights.

    The state is the number of samples done and, an item a row, the arrays of ``sample_loop.Memory``.

    Args:
        network: a float32 WaveNet on the CPU; its weights are copied.
        precision: of the weights; all arithmetic is float32.

    Raises:
        ConfigError: a network that this engine cannot run.
    """

    def __init__(self, network: Network, precision: packing.Precision = "float32") -> None:
        weight = network.output.weight
        if weight.device.type != "cpu" or weight.dtype != torch.float32:
            kind = f"{str(weight.dtype).removeprefix('torch.')} model on {weight.device.type}"
            raise ConfigError(f"runs float32 models on the CPU, not a {kind}", where="numba engine")
        self.distribution = network.distribution
        self.description = f"numba {precision}, vectors of {simd.LANES}"
        self.items_at_once = simd.LOCK_STEP
        self._precision = precision
        self._model = packing.pack(network, precision, simd.LANES)
        self._condition_channels = packing.condition_channels(network)
        state = self.initial_state(1)
        condition = HeldCondition.of(torch.zeros(1, self._condition_channels, 0))
        self._advance(torch.zeros(1, 1), condition, torch.zeros(1, 2, 0, dtype=torch.float64), state)  # compiles

    def initial_state(self, batch: int) -> State:
        """No samples done, and zeros."""
        model = self._model
        blocks, ring_steps = len(model.layers.now), int(model.layers.ring_steps.sum())
        return (
            torch.zeros(1, dtype=torch.int64),
            torch.zeros(batch, int(model.lags.max()) + 1),
            torch.zeros(batch, ring_steps * model.channels),
            torch.zeros(batch, blocks * packing.MOST_BLOCK_STEPS * 2 * model.gates),
        )

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
        if temperature < 0:
            raise ConfigError(f"{temperature} is negative", where="temperature", remedy="use 0 to 1")
        held = HeldCondition.of(condition)
        expected = (len(previous), self.distribution.draws, held.samples)
        if noise.shape != expected:
            raise ValueError(f"noise has shape {tuple(noise.shape)}, expected {expected}")
        drawn, _, state = self._advance(previous[:, None], held, self._noise(noise), state, temperature)
        return self._waveform(drawn), state

    @torch.no_grad()
    def predict(self, previous: Tensor, condition: Tensor | HeldCondition, state: State) -> tuple[Tensor, State]:
        """Predict samples from given ones; see Engine."""
        held = HeldCondition.of(condition)
        if previous.shape[1] != held.samples:
            raise ValueError(f"{previous.shape[1]} previous samples, and a condition for {held.samples}")
        noise = torch.full((len(previous), 2, held.samples), 0.5, dtype=torch.float64)
        _, parameters, state = self._advance(previous, held, noise, state, keep_parameters=True)
        return parameters[..., : self.distribution.channels].transpose(1, 2), state

    def _advance(
        self,
        given: Tensor,
        condition: HeldCondition,
        noise: Tensor,
        state: State,
        temperature: float = 1.0,
        *,
        keep_parameters: bool = False,
    ) -> tuple[Tensor, Tensor, State]:
        """Run the loop for all items: what they drew ``[batch, samples]``, parameters, and the next state."""
        batch, samples, model = len(given), condition.samples, self._model
        self._check(given, condition, state)
        before, *memories = state
        start = int(before)
        padding = (0, model.condition - self._condition_channels)
        frames = F.pad(condition.frames.transpose(1, 2), padding).contiguous().numpy()
        weights = condition.weights.contiguous().numpy()
        numbers, uniforms = self._numbers(given).numpy(), noise.contiguous().numpy()
        made = []
        for items in _groups(batch):
            memory = sample_loop.Memory(*(part[items].numpy() for part in memories))  # indexing copies
            work = sample_loop.workspace(model, len(weights), len(items))
            drawn = np.zeros((len(items), samples), dtype=np.float32)
            parameters = np.zeros((len(items), samples if keep_parameters else 0, model.outputs), dtype=np.float32)
            arguments = (
                model, memory, work, start, frames[items], weights, uniforms[items], float(temperature), numbers[items],
                drawn, parameters,
            )  # fmt: skip
            _call(self._precision, arguments)
            made.append((drawn, parameters, *memory))
        whole = [torch.from_numpy(np.concatenate(parts)[:batch]) for parts in zip(*made, strict=True)]
        return whole[0], whole[1], (before + samples, *whole[2:])

    def _check(self, given: Tensor, condition: HeldCondition, state: State) -> None:
        """Refuse what would make the loop read or write beyond its arrays: it checks nothing itself."""
        expected = [part.shape for part in self.initial_state(len(given))]
        if [part.shape for part in state] != expected:
            raise StreamingError(
                "a state of another engine, model or kind of processor",
                where="numba engine",
                remedy="start from initial_state of the engine that goes on with it",
            )
        if condition.frames.shape[:2] != (len(given), self._condition_channels):
            expected_text = f"[{len(given)}, {self._condition_channels}, …]"
            raise ValueError(f"a condition of {list(condition.frames.shape)}, expected {expected_text}")

    def _numbers(self, waveform: Tensor) -> Tensor:
        """What the loop takes samples as: float32 classes where they are one-hot, or the values themselves."""
        if isinstance(self.distribution, MuLaw):
            classes = self.distribution.classes
            waveform = mu_law_encode(waveform, classes).clamp(0, classes - 1)  # NaN has no class; it gets the first
        return waveform.float().contiguous()

    def _waveform(self, numbers: Tensor) -> Tensor:
        """The inverse of ``_numbers``."""
        if isinstance(self.distribution, MuLaw):
            return mu_law_decode(numbers.long(), self.distribution.classes)
        return numbers

    def _noise(self, uniform: Tensor) -> Tensor:
        """The loop's noise: for a Gaussian, rounded to float32 as in the reference, the normal quantile."""
        if isinstance(self.distribution, Gaussian):
            return torch.special.ndtri(uniform.double()).float().double()
        return uniform.double()
