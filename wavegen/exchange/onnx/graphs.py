"""Vocoders as modules that an exporter can follow: a mel and a seed in, samples out, in real arithmetic."""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from wavegen.blocks import Context
from wavegen.errors import ConfigError
from wavegen.exchange.onnx.source import FrameStates, RealShapedSource, real_stage
from wavegen.exchange.onnx.transforms import RealProjection, Spectrum
from wavegen.mel import MelSpec
from wavegen.source import Pitch
from wavegen.vocoders import Vocoder
from wavegen.vocoders._source import Features, Spoken
from wavegen.vocoders.parallel import ParallelWaveNet
from wavegen.vocoders.source_filter import SourceFilterVocoder
from wavegen.vocoders.spectral import LARGEST_CORRECTION, Corrections, SpectralVocoder

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


def _size(name: str, largest: int) -> Any:
    """A size that varies; the exporter takes 0 and 1 for constants, but what it writes accepts them too."""
    return torch.export.Dim(name, min=2, max=largest)


def whole_inputs(n_mels: int) -> dict[str, Input]:
    """A mel and a seed."""
    return {
        "mel": Input(torch.full((1, n_mels, EXAMPLE_FRAMES), -5.0), {2: _size("frames", MAX_FRAMES)}),
        "seed": Input(torch.zeros(1, dtype=torch.int64)),
    }


class WholeGraph(nn.Module):
    """A vocoder that computes whole utterances: source stage, what its own network adds, mel imposed, iterations.

    Args:
        vocoder: prepared for synthesis, in float32 on the CPU.
        speaker: index of the speaker, int64 ``[1]``; None for a vocoder without speakers.
    """

    def __init__(self, vocoder: Any, speaker: Tensor | None) -> None:
        super().__init__()
        self.projection = RealProjection(vocoder.projection)
        self.stage = real_stage(vocoder.stage, self.projection)
        self.mel: MelSpec = vocoder.mel
        self.iterations: int = vocoder.iterations
        self.speaker = speaker
        # The exporter makes a subclass of every module's class, which a vocoder's class does not allow. So the graph
        # owns the vocoder's layers, and the vocoder itself is no module of it.
        self.layers = nn.ModuleDict(dict(vocoder.named_children()))
        self._vocoder = (vocoder,)

    outputs = ("samples",)

    def inputs(self) -> dict[str, Input]:
        """Examples of the inputs, by name, with the dimensions that may vary."""
        return whole_inputs(self.mel.n_mels)

    def forward(self, mel: Tensor, seed: Tensor) -> Tensor:
        """Samples ``[1, frames * hop_length]`` of a mel ``[1, n_mels, frames]``; ``seed`` is int64 ``[1]``."""
        return self.rendering(self.stage(mel, None, seed))

    def rendering(self, features: Features) -> Tensor:
        """Samples ``[1, frames * hop_length]`` of features, with silence before and after them."""
        magnitude, spectrum = self.spectrum(features)
        return self.projection.stft.invert(self.projection.iterate(magnitude, spectrum, self.iterations))

    def spectrum(self, features: Features) -> tuple[Tensor, Spectrum]:
        """Magnitude and spectrum before the iterations, ``[1, frames, bins]`` each."""
        linear = self.projection.linear(features.spoken.mel)
        return self.projection.impose(self.projection.stft.analyse(self.mixture(features)), linear)

    def mixture(self, features: Features) -> Tensor:
        """The samples ``[1, frames * hop_length]`` on which the mel is imposed: the sum of both sources."""
        return features.source_samples().sum(1)

    @property
    def rendered(self) -> Context:
        """Frames of features read around the frame whose samples are rendered."""
        return self._vocoder[0].projection.context(self.iterations)


class ParallelGraph(WholeGraph):
    """``ParallelWaveNet``: its network corrects the samples."""

    @property
    def rendered(self) -> Context:
        """As in ``WholeGraph``."""
        return super().rendered + self._vocoder[0].network_context

    def mixture(self, features: Features) -> Tensor:
        """The sources and what the network adds."""
        (network,) = self._vocoder  # its own ``_correct`` chooses an engine, which an exporter cannot follow
        frames = network.speaker_condition(network.frame_conv(network._condition_input(features.spoken)), self.speaker)
        _, skips = network.stack(network.input(network._network_input(features)), network.upsample(frames))
        return super().mixture(features) + network._waveform(skips)


class SpectralGraph(WholeGraph):
    """``SpectralVocoder``: its network corrects the spectra of both sources."""

    def __init__(self, vocoder: SpectralVocoder, speaker: Tensor | None) -> None:
        super().__init__(vocoder, speaker)
        self.largest = math.exp(vocoder.largest_log_magnitude)

    @property
    def rendered(self) -> Context:
        """As in ``WholeGraph``."""
        (vocoder,) = self._vocoder
        own, network = super().rendered, vocoder.network_context + vocoder.corrected_context
        return Context(max(own.left, network.left), max(own.right, network.right))

    def spectrum(self, features: Features) -> tuple[Tensor, Spectrum]:
        """As in ``WholeGraph``, corrected by the network."""
        corrections = self._vocoder[0]._correct(features.spoken, None, self.speaker)
        gains = Corrections(*corrections.mT.chunk(len(Corrections._fields), dim=-1))
        spectra = self.projection.stft.analyse(features.source_samples()[0])
        periodic, aperiodic = _gain(gains.periodic), _gain(gains.aperiodic)
        mixture = Spectrum(*(part[:1] * periodic + part[1:] * aperiodic for part in spectra))
        imposed, spectrum = self.projection.impose(mixture, self.projection.linear(features.spoken.mel))
        correction = _gain(gains.magnitude)
        real, imaginary = spectrum.scaled(correction)
        cosine, sine = gains.phase.cos(), gains.phase.sin()
        turned = Spectrum(real * cosine - imaginary * sine, real * sine + imaginary * cosine)
        return (imposed * correction).clamp(max=self.largest), turned


class StreamGraph(nn.Module):
    """A vocoder that computes the next frames of a stream, as a window with context on both sides.

    The source carries its state: what it puts out names that after every frame, and the caller goes on from the one
    where its next window begins.

    Args:
        whole: the graph of the vocoder.

    Attributes:
        known: frames of mel before a window that pitch and source still read.
        left: frames of a window before the first one whose samples are right.
        right: frames of a window after the last one whose samples are right, unless the utterance ends there.
    """

    outputs = ("samples", *(f"next_{name}" for name in FrameStates._fields))

    def __init__(self, whole: WholeGraph) -> None:
        super().__init__()
        self.whole = whole
        self.mel, self.iterations = whole.mel, whole.iterations
        (vocoder,) = whole._vocoder
        self.known = vocoder.pitch.context.left + vocoder.stage.shaped.context.left
        self.left, self.right = whole.rendered.left, vocoder.context.right
        shaped = vocoder.stage.shaped
        self.reach, self.order = shaped.reach, shaped.prediction.order

    def inputs(self) -> dict[str, Input]:
        """As in ``WholeGraph``."""
        return whole_inputs(self.mel.n_mels) | {
            "mel_before": Input(torch.full((1, self.mel.n_mels, 5), -5.0), {2: _size("known", max(5, self.known))}),
            "first_sample": Input(torch.zeros(1, dtype=torch.int64)),
            "phase": Input(torch.zeros(1, dtype=torch.float64)),
            "pulses": Input(torch.zeros(1, 2 * self.reach), {1: _size("kept", 2 * self.reach)}),
            "memory": Input(torch.zeros(1, 2, self.order)),
        }

    def forward(
        self,
        mel: Tensor,
        seed: Tensor,
        mel_before: Tensor,
        first_sample: Tensor,
        phase: Tensor,
        pulses: Tensor,
        memory: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Samples ``[1, frames * hop_length]`` of a window, and the states of the source after each of its frames.

        Args:
            mel: the window, ``[1, n_mels, frames]``.
            seed: int64 ``[1]``.
            mel_before: the frames before it, ``[1, n_mels, up to known]``; fewer at the start of the utterance.
            first_sample: int64 ``[1]``, index of its first sample in the utterance.
            phase, pulses, memory: state before it, as in ``FrameStates``.
        """
        stage, known = self.whole.stage, mel_before.shape[-1]
        magnitude = stage.mel_inverse(torch.cat((mel_before, mel), dim=-1))
        pitch = stage._shifted(stage.network.pitch(magnitude, self.mel.sample_rate_hz))
        before = FrameStates(phase, pulses, memory)
        assert isinstance(stage.shaped, RealShapedSource)
        sources, states = stage.shaped.stream(magnitude, pitch, before, seed, first_sample, known)
        own = Spoken(mel, magnitude[..., known:], Pitch(*(part[..., known:] for part in pitch)))
        return self.whole.rendering(Features(own, stage._as_frames(sources))), *states


class SpectraGraph(nn.Module):
    """A vocoder up to the inverse STFT, for programs that have one of their own.

    Args:
        whole: the graph of the vocoder, without iterations.
    """

    outputs = ("mag", "x", "y")

    def inputs(self) -> dict[str, Input]:
        """As in ``WholeGraph``."""
        return whole_inputs(self.mel.n_mels)

    def __init__(self, whole: WholeGraph) -> None:
        super().__init__()
        self.whole = whole
        self.mel, self.iterations = whole.mel, whole.iterations

    def forward(self, mel: Tensor, seed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Magnitude, and cosine and sine of the phase, ``[1, n_fft // 2 + 1, frames]`` each."""
        _, spectrum = self.whole.spectrum(self.whole.stage(mel, None, seed))
        magnitude = spectrum.magnitude()
        real, imaginary = spectrum.scaled(1 / magnitude)
        return magnitude.mT, real.mT, imaginary.mT


def _gain(logarithm: Tensor) -> Tensor:
    return logarithm.clamp(-LARGEST_CORRECTION, LARGEST_CORRECTION).exp()


_GRAPHS: dict[type[Vocoder], type[WholeGraph]] = {
    SpectralVocoder: SpectralGraph,
    ParallelWaveNet: ParallelGraph,
    SourceFilterVocoder: WholeGraph,
}


def sourced_graph(vocoder: Vocoder, speaker: str | None = None) -> WholeGraph:
    """The graph of a vocoder.

    Args:
        vocoder: prepared for synthesis, on the CPU.
        speaker: as in ``Vocoder.synthesize``, but fixed in the graph.

    Raises:
        ConfigError: this kind of vocoder, or the speaker, cannot be exported.
    """
    graph = _GRAPHS.get(type(vocoder))
    if graph is None:
        raise ConfigError(
            f"a {type(vocoder).__name__} draws one sample after another, which no ONNX runtime does in useful time",
            remedy="export a spectral, parallel or source-filter vocoder, or use wavegen-synth",
        )
    return graph(vocoder, vocoder.speaker_condition.indices(speaker, 1))
