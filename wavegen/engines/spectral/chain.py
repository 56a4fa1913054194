"""The compiled parts of a vocoder with a source stage, each with the interface of what it replaces."""

import torch
from torch import Tensor

from wavegen.blocks import DilatedConv1d
from wavegen.engines import simd
from wavegen.engines.base import SourcedNetwork
from wavegen.engines.packed import int8
from wavegen.engines.spectral.bands import Bands, Room, Rows
from wavegen.engines.spectral.filters import LARGEST_ORDER
from wavegen.engines.spectral.functions import FUNCTIONS, Functions
from wavegen.engines.spectral.products import BFLOAT16_RUNS, RowLayer, RowPrecision, few_rows
from wavegen.engines.spectral.projection import CompiledProjection, LogGains
from wavegen.engines.spectral.source import CompiledSource
from wavegen.engines.spectral.stack import CompiledStack
from wavegen.errors import ConfigError
from wavegen.mel import MelInverse
from wavegen.source import Pitch


class CompiledChain:
    """Runs the frames of a vocoder with a source stage on one core: a row per frame, and tiles that fit the cache.

    The states of a stream are those of the vocoder's own layers, so it can go on with another engine.

    Args:
        network: a float32 vocoder on the CPU; its weights are copied.
        precision: precision of the products of the vocoder's own network; the rest is float32. bfloat16 and int8 need
            a processor that multiplies them; on others float32 replaces them, which ``description`` says.

    Raises:
        ConfigError: this engine cannot run the network.

    Attributes:
        description: the engine in a few words.
        invert: computes what a ``MelInverse`` does.
        shaped: computes what a ``ShapedSource`` does.
        projection: imposes a mel and iterates.
        pitch_stack: the stack of the pitch network.
        stack, output: the stack and the output layer of the vocoder's own network; None if it has none.
    """

    def __init__(self, network: SourcedNetwork, precision: RowPrecision = "float32") -> None:
        weight = next(network.parameters())
        if weight.device.type != "cpu" or weight.dtype != torch.float32:
            model = f"{str(weight.dtype).removeprefix('torch.')} on {weight.device.type}"
            _refuse(f"the numba engine runs float32 models on a CPU, and this one is {model}")
        stacks = [network.pitch.stack, *([] if network.frame_stack is None else [network.frame_stack])]
        if network.shaped.prediction.order > LARGEST_ORDER:
            _refuse(f"the numba engine has filters of order {LARGEST_ORDER} at most")
        for stack in stacks:
            if obstacle := CompiledStack.obstacle(stack):
                _refuse(obstacle)
        self._network = network
        reason = ""
        if not {"bfloat16": BFLOAT16_RUNS, "int8": int8.AVAILABLE}.get(precision, True):
            precision, reason = "float32", f", because this processor cannot multiply {precision}"
        self.description = f"numba {precision}, vectors of {simd.LANES}{reason}"
        self._precision = precision
        self._build(FUNCTIONS.get(self._try_out))

    def _build(self, functions: Functions) -> None:
        network = self._network
        self.invert = CompiledInverse(network.projection.inverse, functions)
        self.shaped = CompiledSource.of(network.shaped, functions)
        self.projection = CompiledProjection(network.projection, functions)
        self.pitch_stack = CompiledStack(network.pitch.stack, functions)
        stack, output = network.frame_stack, network.frame_output
        self.stack = None if stack is None else CompiledStack(stack, functions, self._precision)
        self.output = None if output is None else _row_layer(output, functions, self._precision)

    def _try_out(self, functions: Functions) -> None:
        """Compute one frame in every way, which compiles the functions. Further types would be an error."""
        self._build(functions)
        projection = self._network.projection
        mel = torch.zeros(1, projection.inverse.filters.shape[0], 1)
        hop, bins = projection.istft.hop_length, projection.istft.n_fft // 2 + 1
        self.invert(mel)
        stack, output = self._network.pitch.stack, self._network.pitch.output
        precisions: list[RowPrecision] = ["float32", "int8"] if int8.AVAILABLE else ["float32"]
        for precision in precisions:
            for frames in (1, few_rows(precision) + 1):
                rows = torch.zeros(1, stack.channels, frames)
                CompiledStack(stack, functions, precision)(rows)
                _row_layer(output, functions, precision)(rows.mT)
        self.projection.render(torch.zeros(2, hop), mel[0], LogGains(torch.zeros(1, 4 * bins), 1.0, 1.0), 1)
        one = torch.ones(1, 1, 1)
        self.shaped.whole(torch.zeros(1, bins, 1), Pitch(one, one), torch.zeros(1, dtype=torch.int64))
        for function in functions:
            function.disable_compile()

    def corrections(self, h: Tensor) -> Tensor:
        """The output layer, ``[batch, channels, frames]`` to ``[batch, 4 * bins, frames]``."""
        assert self.output is not None
        return self.output(h.mT).to(h.dtype).mT


def _row_layer(layer: DilatedConv1d, functions: Functions, precision: RowPrecision) -> RowLayer:
    assert layer.bias is not None
    return RowLayer(layer.weight[..., 0], layer.bias, functions.run_layer, precision)


class CompiledInverse:
    """Computes what a ``MelInverse`` does."""

    def __init__(self, inverse: MelInverse, functions: Functions) -> None:
        self._inverse, self._functions = inverse, functions
        blocks = inverse.filter_blocks(torch.float32)
        self._bands = Bands(Rows.pack(blocks.filters), Rows.pack(blocks.weights.t()))

    def __call__(self, mel: Tensor) -> Tensor:
        """``[batch, n_mels, frames]`` to ``[batch, n_fft // 2 + 1, frames]``."""
        linear = self._inverse.linear(mel).contiguous().numpy()
        magnitude = torch.empty(len(mel), mel.shape[-1], len(self._bands.weights.first))
        for of_item, result in zip(linear, magnitude, strict=True):
            room = Room.make(self._bands)
            self._functions.invert(self._bands, room, of_item, self._inverse.updates, result.numpy())
        return magnitude.mT


def _refuse(reason: str) -> None:
    raise ConfigError(reason, where="engine", remedy="use the torch engine")
