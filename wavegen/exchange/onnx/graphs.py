"""Vocoders as modules that an exporter can follow: a mel and a seed in, samples out, in real arithmetic."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from wavegen.errors import ConfigError
from wavegen.exchange.onnx.source import real_stage
from wavegen.exchange.onnx.transforms import RealProjection, Spectrum
from wavegen.mel import MelSpec
from wavegen.vocoders import Vocoder
from wavegen.vocoders._source import Features
from wavegen.vocoders._sourced import SourcedVocoder
from wavegen.vocoders.parallel import ParallelWaveNet
from wavegen.vocoders.source_filter import SourceFilterVocoder
from wavegen.vocoders.spectral import LARGEST_CORRECTION, Corrections, SpectralVocoder


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

    def forward(self, mel: Tensor, seed: Tensor) -> Tensor:
        """Samples ``[1, frames * hop_length]`` of a mel ``[1, n_mels, frames]``; ``seed`` is int64 ``[1]``."""
        magnitude, spectrum = self.spectrum(self.stage(mel, None, seed))
        return self.projection.stft.invert(self.projection.iterate(magnitude, spectrum, self.iterations))

    def spectrum(self, features: Features) -> tuple[Tensor, Spectrum]:
        """Magnitude and spectrum before the iterations, ``[1, frames, bins]`` each."""
        linear = self.projection.linear(features.spoken.mel)
        return self.projection.impose(self.projection.stft.analyse(self.mixture(features)), linear)

    def mixture(self, features: Features) -> Tensor:
        """The samples ``[1, frames * hop_length]`` on which the mel is imposed: the sum of both sources."""
        return features.source_samples().sum(1)


class ParallelGraph(WholeGraph):
    """``ParallelWaveNet``: its network corrects the samples."""

    def __init__(self, vocoder: ParallelWaveNet, speaker: Tensor | None) -> None:
        super().__init__(vocoder, speaker)
        vocoder.use_engine("torch")

    def mixture(self, features: Features) -> Tensor:
        """The sources and what the network adds."""
        return super().mixture(features) + self._vocoder[0]._correct(features, None, self.speaker)


class SpectralGraph(WholeGraph):
    """``SpectralVocoder``: its network corrects the spectra of both sources."""

    def __init__(self, vocoder: SpectralVocoder, speaker: Tensor | None) -> None:
        super().__init__(vocoder, speaker)
        self.largest = math.exp(vocoder.largest_log_magnitude)

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


class SpectraGraph(nn.Module):
    """A vocoder up to the inverse STFT, for programs that have one of their own.

    Args:
        whole: the graph of the vocoder, without iterations.
    """

    outputs = ("mag", "x", "y")

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
    return graph(vocoder, vocoder.speaker_condition.indices(speaker, 1))  # type: ignore[arg-type]
