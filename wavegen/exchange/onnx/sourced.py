"""Graphs of the vocoders with a shaped source."""

import math

import torch
from torch import Tensor

from wavegen.blocks import Context
from wavegen.exchange.onnx.graphs import Input, StreamGraph, WholeGraph, varying_size
from wavegen.exchange.onnx.source import FrameStates, RealShapedSource, real_stage
from wavegen.exchange.onnx.transforms import RealProjection, Spectrum
from wavegen.source import Pitch
from wavegen.vocoders._source import SourceStage
from wavegen.vocoders._sourced import SourcedVocoder
from wavegen.vocoders._spoken import Features, Spoken
from wavegen.vocoders.spectral import LARGEST_CORRECTION, Corrections, SpectralVocoder


class SourcedGraph(WholeGraph):
    """A vocoder with a shaped source: source stage, what its own network adds, mel imposed, iterations.

    Args:
        vocoder, speaker: as in ``WholeGraph``.
    """

    def __init__(self, vocoder: SourcedVocoder, speaker: Tensor | None) -> None:
        super().__init__(vocoder, speaker)
        self.projection = RealProjection(vocoder.projection)
        self.stage: SourceStage = real_stage(vocoder.stage, self.projection)
        self.iterations = vocoder.iterations

    def weights(self) -> list[Tensor]:
        """As in ``WholeGraph``, without the pitch network's: a small change of F0 moves all pulses that follow."""
        kept = {id(weight) for weight in self.vocoder.pitch.parameters()}
        return [weight for weight in self.parameters() if id(weight) not in kept]

    def forward(self, mel: Tensor, seed: Tensor) -> Tensor:
        """As in ``WholeGraph``."""
        return self.rendering(self.stage(mel, None, seed))

    def streaming(self) -> "SourcedStreamGraph":
        """As in ``WholeGraph``."""
        return SourcedStreamGraph(self)

    def spectrum(self, mel: Tensor, seed: Tensor) -> Spectrum:
        """As in ``WholeGraph``."""
        return self.imposed(self.stage(mel, None, seed))[1]

    def rendering(self, features: Features) -> Tensor:
        """Samples ``[1, frames * hop_length]`` of features, with silence before and after them."""
        magnitude, spectrum = self.imposed(features)
        return self.projection.stft.invert(self.projection.iterate(magnitude, spectrum, self.iterations))

    def imposed(self, features: Features) -> tuple[Tensor, Spectrum]:
        """Magnitude and spectrum before the iterations, ``[1, frames, bins]`` each."""
        linear = self.projection.linear(features.spoken.mel)
        return self.projection.impose(self.projection.stft.analyse(self.mixture(features)), linear)

    def mixture(self, features: Features) -> Tensor:
        """The samples ``[1, frames * hop_length]`` on which the mel is imposed: the sum of both sources."""
        return features.source_samples().sum(1)

    @property
    def rendered(self) -> Context:
        """Frames of features read around the frame whose samples are rendered."""
        return self.vocoder.projection.context(self.iterations)


class ParallelGraph(SourcedGraph):
    """``ParallelWaveNet``: its network corrects the samples."""

    @property
    def rendered(self) -> Context:
        """As in ``SourcedGraph``."""
        return super().rendered + self.vocoder.network_context

    def mixture(self, features: Features) -> Tensor:
        """The sources and what the network adds."""
        network = self.vocoder  # its own ``_correct`` chooses an engine, which an exporter cannot follow
        frames = network.speaker_condition(network.frame_conv(network._condition_input(features.spoken)), self.speaker)
        _, skips = network.stack(network.input(network._network_input(features)), network.upsample(frames))
        return super().mixture(features) + network._waveform(skips)


class SpectralGraph(SourcedGraph):
    """``SpectralVocoder``: its network corrects the spectra of both sources."""

    def __init__(self, vocoder: SpectralVocoder, speaker: Tensor | None) -> None:
        super().__init__(vocoder, speaker)
        self.largest = math.exp(vocoder.largest_log_magnitude)

    @property
    def rendered(self) -> Context:
        """As in ``SourcedGraph``."""
        vocoder = self.vocoder
        own, network = super().rendered, vocoder.network_context + vocoder.corrected_context
        return Context(max(own.left, network.left), max(own.right, network.right))

    def imposed(self, features: Features) -> tuple[Tensor, Spectrum]:
        """As in ``SourcedGraph``, corrected by the network."""
        corrections = self.vocoder._correct(features.spoken, None, self.speaker)
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


class SourcedStreamGraph(StreamGraph):
    """Streams a vocoder with a shaped source, which carries a state.

    Args:
        whole: the graph of the vocoder.
    """

    whole: SourcedGraph

    def __init__(self, whole: SourcedGraph) -> None:
        super().__init__(whole)
        pitch, shaped = whole.vocoder.pitch, whole.vocoder.stage.shaped
        self.known = pitch.context.left + shaped.context.left
        self.left = whole.rendered.left
        self.kept = 2 * shaped.reach
        memory = ("float32", [1, 2, shaped.prediction.order])
        self.state = {"phase": ("float64", [1]), "pulses": ("float32", [1, 0]), "memory": memory}

    def inputs(self) -> dict[str, Input]:
        """As in ``WholeGraph``."""
        memory = self.state["memory"][1]
        return super().inputs() | {
            "mel_before": Input(
                torch.full((1, self.mel.n_mels, 5), -5.0), {2: varying_size("known", max(5, self.known))}
            ),
            "phase": Input(torch.zeros(1, dtype=torch.float64)),
            "pulses": Input(torch.zeros(1, self.kept), {1: varying_size("kept", self.kept)}),
            "memory": Input(torch.zeros(memory)),
        }

    def forward(
        self,
        mel: Tensor,
        seed: Tensor,
        first_sample: Tensor,
        mel_before: Tensor,
        phase: Tensor,
        pulses: Tensor,
        memory: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Samples ``[1, frames * hop_length]`` of a window, and the states of the source after each of its frames.

        Args:
            mel: the window, ``[1, n_mels, frames]``.
            seed: int64 ``[1]``.
            first_sample: int64 ``[1]``, index of its first sample in the utterance.
            mel_before: the frames before it, ``[1, n_mels, up to known]``; fewer at the start of the utterance.
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


def _gain(logarithm: Tensor) -> Tensor:
    return logarithm.clamp(-LARGEST_CORRECTION, LARGEST_CORRECTION).exp()
