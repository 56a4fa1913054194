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


def varying_size(name: str, largest: int, least: int = 2) -> Any:
    """A size that varies; the exporter takes 0 and 1 for constants, but what it writes accepts them too."""
    return torch.export.Dim(name, min=least, max=largest)


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


class StreamGraph(nn.Module, ABC):
    """A vocoder that computes the next frames of a stream: a window of frames and a state in, samples and a state out.

    A window is computed as if the utterance ended with it, so that the last window needs nothing special, and the first
    one has zeros for its state. The next window begins with the frames that the state does not know yet::

        window          |- again -|- the next frames -|- right -|
        samples                   |-------------------|           the rest would follow if the utterance ended
        next window                                |- again -|- …

    Args:
        whole: the graph of the vocoder.

    Attributes:
        again: frames at the end of a window with which the next one begins.
        right: frames at the end of a window whose samples are not right, unless the utterance ends there.
        causal: whether all layers carry a state, so that little is computed again for frames to come.
        state: the tensors of the state before the first frame, all zeros, by name. The input is ``past_NAME``. The
            output ``next_NAME`` is that for the next window, if this one has more than ``again`` frames.
    """

    again: int
    right: int
    causal = False

    def __init__(self, whole: WholeGraph) -> None:
        super().__init__()
        self.whole = whole
        self.mel, self.iterations = whole.mel, whole.iterations
        self.state: dict[str, Tensor] = {}

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs."""
        return "samples", *(f"next_{name}" for name in self.state)

    def inputs(self) -> dict[str, Input]:
        """As in ``WholeGraph``."""
        return self.whole.inputs() | {"first_sample": Input(torch.zeros(1, dtype=torch.int64))}

    @abstractmethod
    def forward(self, mel: Tensor, seed: Tensor, first_sample: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """Samples of a window, and the next state.

        Args:
            mel: the window, ``[1, n_mels, frames]``.
            seed: int64 ``[1]``.
            first_sample: int64 ``[1]``, index of its first sample in the utterance.
            state: the tensors of the state.

        Returns:
            Samples up to the end of the window, ``[1, samples]``; they may begin before it. Then the next state.
        """


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
