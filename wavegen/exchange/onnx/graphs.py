"""Vocoders as modules that an exporter can follow: a mel and a seed in, samples out, in real arithmetic."""

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from wavegen.errors import ConfigError
from wavegen.exchange.onnx.transforms import Spectrum
from wavegen.mel import MelSpec

EXAMPLE_FRAMES = 60
MAX_FRAMES = 2**22


class Input(NamedTuple):
    """An input of a graph.

    Attributes:
        example: a value that the exporter follows through the graph.
        varying: the dimensions of several sizes, ``torch.export.Dim`` by index; None for none.
    """

    example: Tensor
    varying: dict[int, Any] | None = None


def varying_size(name: str, largest: int) -> Any:
    """A size that varies; the exporter takes 0 and 1 for constants, but what it writes accepts them too."""
    return torch.export.Dim(name, min=2, max=largest)


def whole_inputs(n_mels: int) -> dict[str, Input]:
    """A mel and a seed."""
    return {
        "mel": Input(torch.full((1, n_mels, EXAMPLE_FRAMES), -5.0), {2: varying_size("frames", MAX_FRAMES)}),
        "seed": Input(torch.zeros(1, dtype=torch.int64)),
    }


class WholeGraph(nn.Module, ABC):
    """A vocoder that computes whole utterances.

    Args:
        vocoder: prepared for synthesis, in float32 on the CPU.
        speaker: index of the speaker, int64 ``[1]``; None for a vocoder without speakers.

    Attributes:
        mel: the definition of the mels that it reads.
        iterations: Griffin-Lim iterations at its end.
        inverts_a_spectrum: whether an inverse STFT makes its samples.
    """

    outputs = ("samples",)
    iterations = 0
    inverts_a_spectrum = True

    def __init__(self, vocoder: Any, speaker: Tensor | None) -> None:
        super().__init__()
        self.mel: MelSpec = vocoder.mel
        self.speaker = speaker
        # The exporter makes a subclass of every module's class, which a vocoder's class does not allow. So the graph
        # owns the vocoder's layers, and the vocoder itself is not a submodule.
        self.layers = nn.ModuleDict(dict(vocoder.named_children()))
        self._vocoder = (vocoder,)

    @property
    def vocoder(self) -> Any:
        """The vocoder."""
        return self._vocoder[0]

    def inputs(self) -> dict[str, Input]:
        """Examples of the inputs, by name, with the dimensions that may vary."""
        return whole_inputs(self.mel.n_mels)

    def weights(self) -> list[Tensor]:
        """The learned weights that may be stored in fewer bits."""
        return list(self.parameters())

    @abstractmethod
    def forward(self, mel: Tensor, seed: Tensor) -> Tensor:
        """Samples ``[1, frames * hop_length]`` of a mel ``[1, n_mels, frames]``; ``seed`` is int64 ``[1]``."""

    @abstractmethod
    def streaming(self) -> "StreamGraph":
        """The same vocoder as a graph that computes the next frames of a stream."""

    def spectrum(self, mel: Tensor, seed: Tensor) -> Spectrum:
        """The spectrum before the iterations, ``[1, frames, bins]``, where ``inverts_a_spectrum`` is true."""
        raise NotImplementedError


class StreamGraph(nn.Module):
    """A vocoder that computes the next frames of a stream, as a window with context on both sides.

    What it puts out beside the samples is the state after every frame, and the caller goes on from the frame where its
    next window begins.

    Args:
        whole: the graph of the vocoder.

    Attributes:
        known: frames of mel before a window that are read too, as the input ``mel_before``; 0 without such an input.
        left: frames of a window before the first one whose samples are right.
        right: frames of a window after the last one whose samples are right, unless the utterance ends there.
        state: the inputs that hold the state before a window, as numpy's dtype and shape before the first frame. The
            output ``next_NAME`` has a row for the state after each frame.
    """

    known = 0

    def __init__(self, whole: WholeGraph) -> None:
        super().__init__()
        self.whole = whole
        self.mel, self.iterations = whole.mel, whole.iterations
        self.left, self.right = whole.vocoder.context.left, whole.vocoder.context.right
        self.state: dict[str, tuple[str, list[int]]] = {}

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs."""
        return "samples", *(f"next_{name}" for name in self.state)

    def inputs(self) -> dict[str, Input]:
        """As in ``WholeGraph``."""
        return self.whole.inputs() | {"first_sample": Input(torch.zeros(1, dtype=torch.int64))}


class SpectraGraph(nn.Module):
    """A vocoder up to the inverse STFT, for programs that have one of their own.

    Args:
        whole: the graph of the vocoder, without iterations.

    Raises:
        ConfigError: the vocoder inverts no spectrum, or not as the last step.
    """

    outputs = ("mag", "x", "y")

    def __init__(self, whole: WholeGraph) -> None:
        super().__init__()
        if not whole.inverts_a_spectrum:
            raise ConfigError(
                f"a {type(whole.vocoder).__name__} makes samples without an inverse STFT",
                remedy="leave out --form vocos",
            )
        if whole.iterations:
            raise ConfigError(
                f"the form vocos ends before the {whole.iterations} iterations of this vocoder",
                remedy="add --iterations 0 to a model that was trained without iterations, or leave out --form",
            )
        self.whole = whole
        self.mel = whole.mel

    def inputs(self) -> dict[str, Input]:
        """As in ``WholeGraph``."""
        return self.whole.inputs()

    def forward(self, mel: Tensor, seed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Magnitude, and cosine and sine of the phase, ``[1, n_fft // 2 + 1, frames]`` each."""
        spectrum = self.whole.spectrum(mel, seed)
        magnitude = spectrum.magnitude()
        real, imaginary = spectrum.scaled(1 / magnitude)
        return magnitude.mT, real.mT, imaginary.mT
