"""Graphs of the vocoders with a shaped source."""

import math
from abc import abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor

from wavegen.blocks import masked, sample_mask
from wavegen.exchange.onnx.carried import Carried
from wavegen.exchange.onnx.graphs import MAX_FRAMES, Input, StreamGraph, WholeGraph, varying_size
from wavegen.exchange.onnx.source import RealShapedSource, TabledPitch, real_stage
from wavegen.exchange.onnx.transforms import RealProjection, Spectrum, Target
from wavegen.source import Pitch
from wavegen.vocoders._frames import cut
from wavegen.vocoders._source import SourceStage
from wavegen.vocoders._sourced import SourcedVocoder
from wavegen.vocoders._spoken import Features, Spoken
from wavegen.vocoders.spectral import LARGEST_CORRECTION, Corrections, SpectralVocoder


class SourcedGraph(WholeGraph):
    """A vocoder with a shaped source: source stage, corrections of its own network, mel imposed, iterations.

    Args:
        vocoder, speaker: those of ``WholeGraph``.
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
        magnitude, spectrum = self._before_iterations(mel, seed)
        return self.projection.stft.invert(self.projection.iterate(magnitude, spectrum, self.iterations))

    def streaming(self) -> "SourcedStreamGraph":
        """As in ``WholeGraph``."""
        return SourcedStreamGraph(self)

    def spectrum(self, mel: Tensor, seed: Tensor) -> Spectrum:
        """As in ``WholeGraph``."""
        return self._before_iterations(mel, seed)[1]

    def _before_iterations(self, mel: Tensor, seed: Tensor) -> tuple[Tensor, Spectrum]:
        features = self.stage(mel, None, seed)
        features = features._replace(corrections=self.corrections(features))
        return self.imposed(self.projection.stft.analyse(self.sound(features)), self.projection.linear(mel), features)

    @property
    def look_ahead(self) -> int:
        """Frames that a network which carries a state in a stream reads ahead."""
        return 0

    def corrections(self, features: Features, mask: Tensor | None = None) -> Tensor | None:
        """What the network says of every frame, ``[1, channels, frames]``; None for a vocoder without a network.

        Args:
            features: the features of the frames.
            mask: ``[1, 1, frames]``, True where a frame belongs to the utterance; None if all do.
        """
        return None

    def corrected(self, features: Features, provisional: int, carried: Carried) -> tuple[Features, int]:
        """The next features with their corrections; also those before them that became provisional by a look-ahead.

        Args:
            features: the features of a window.
            provisional: number of provisional frames at its end.
            carried: the state.

        Returns:
            The features, and how many of their frames are provisional.
        """
        return features, provisional

    def sound(self, features: Features) -> Tensor:
        """The samples ``[rows, frames * hop_length]`` whose spectra ``imposed`` reads."""
        return features.source_samples().sum(1)

    def imposed(self, spectra: Spectrum, linear: Tensor, features: Features) -> tuple[Tensor, Spectrum]:
        """Magnitude and spectrum before the iterations, ``[1, frames, bins]`` each.

        Args:
            spectra: those of ``sound``, ``[rows, frames, bins]``.
            linear: the filters' outputs for a magnitude that has the mel, ``[1, frames, n_mels]``.
            features: the features of the same frames; only their corrections are read.
        """
        return self.projection.impose(spectra, linear)


class NetworkGraph(SourcedGraph):
    """A vocoder whose network corrects the sources. A causal one carries its state in a stream, another its context."""

    @abstractmethod
    def corrections(self, features: Features, mask: Tensor | None = None) -> Tensor:
        """As in ``SourcedGraph``."""

    @abstractmethod
    def carried_corrections(self, features: Features, provisional: int, carried: Carried) -> Tensor:
        """As ``corrections``, of the next features, by a causal network; arguments as in ``corrected``."""

    def corrected(self, features: Features, provisional: int, carried: Carried) -> tuple[Features, int]:
        """As in ``SourcedGraph``."""
        if self.vocoder.streams_natively:
            return features._replace(corrections=self.carried_corrections(features, provisional, carried)), provisional
        context = self.vocoder.network_context
        seen = carried.seen_all("network", features, provisional, context.left + context.right)
        mask = carried.real(seen.spoken.mel.shape[-1])[None, None] > 0
        seen = seen._replace(corrections=masked(self.corrections(seen, mask), mask))
        return cut(seen, context.left, None), provisional + context.right


class ParallelGraph(NetworkGraph):
    """``ParallelWaveNet``: its network adds samples, ``hop_length`` channels of every frame."""

    def corrections(self, features: Features, mask: Tensor | None = None) -> Tensor:
        """As in ``SourcedGraph``."""
        network = self.vocoder  # its own ``_correct`` chooses an engine, which an exporter cannot follow
        frames = network.frame_conv(network._condition_input(features.spoken), mask)
        condition = network.upsample(network.speaker_condition(frames, self.speaker), mask)
        sources = network.input(network._network_input(features))
        _, skips = network.stack(sources, condition, sample_mask(mask, self.mel.hop_length))
        return self._as_frames(skips)

    def carried_corrections(self, features: Features, provisional: int, carried: Carried) -> Tensor:
        """As in ``NetworkGraph``."""
        network, hop = self.vocoder, self.mel.hop_length
        x, left = network._condition_input(features.spoken), network.upsample.context.left
        h, _ = network.frame_conv.step(x, carried.past("frames", x, provisional, network.frame_conv.context.left))
        frames = carried.seen("condition", network.speaker_condition(h, self.speaker), provisional, left)
        condition = network.upsample(frames)[..., left * hop :]
        sources = network.input(network._network_input(features))
        _, skips = carried.through(network.stack, sources, "stack", provisional * hop, condition)
        return self._as_frames(skips)

    def sound(self, features: Features) -> Tensor:
        """The sum of both sources and what the network adds."""
        assert features.corrections is not None
        return super().sound(features) + features.corrections.mT.flatten(1)

    def _as_frames(self, skips: Tensor) -> Tensor:
        samples: Tensor = self.vocoder._waveform(skips)
        return samples.unflatten(1, (-1, self.mel.hop_length)).mT


class SpectralGraph(NetworkGraph):
    """``SpectralVocoder``: its network corrects the spectra of both sources."""

    def __init__(self, vocoder: SpectralVocoder, speaker: Tensor | None) -> None:
        super().__init__(vocoder, speaker)
        self.largest = math.exp(vocoder.largest_log_magnitude)

    @property
    def look_ahead(self) -> int:
        """As in ``SourcedGraph``."""
        return int(self.vocoder.look_ahead)

    def corrections(self, features: Features, mask: Tensor | None = None) -> Tensor:
        """As in ``SourcedGraph``."""
        corrections: Tensor = self.vocoder._correct(features.spoken, mask, self.speaker)
        return corrections

    def carried_corrections(self, features: Features, provisional: int, carried: Carried) -> Tensor:
        """As in ``NetworkGraph``."""
        network = self.vocoder
        x = network._network_input(features.spoken)
        past = carried.past("input", x, provisional, network.input.context.left)
        h, _ = network.input.step(F.pad(x, (0, self.look_ahead)), past)
        h = network._stack_input(h[..., self.look_ahead :], self.speaker)
        h, _ = carried.through(network.stack, h, "stack", provisional)
        corrections: Tensor = network.corrections(network._stack_output(h))
        return corrections

    def sound(self, features: Features) -> Tensor:
        """Both sources."""
        return features.source_samples()[0]

    def imposed(self, spectra: Spectrum, linear: Tensor, features: Features) -> tuple[Tensor, Spectrum]:
        """As in ``SourcedGraph``, corrected by the network."""
        assert features.corrections is not None
        gains = Corrections(*features.corrections.mT.chunk(len(Corrections._fields), dim=-1))
        periodic, aperiodic = _gain(gains.periodic), _gain(gains.aperiodic)
        mixture = Spectrum(*(part[:1] * periodic + part[1:] * aperiodic for part in spectra))
        imposed, spectrum = self.projection.impose(mixture, linear)
        correction = _gain(gains.magnitude)
        real, imaginary = spectrum.scaled(correction)
        cosine, sine = gains.phase.cos(), gains.phase.sin()
        turned = Spectrum(real * cosine - imaginary * sine, real * sine + imaginary * cosine)
        return (imposed * correction).clamp(max=self.largest), turned


class SourcedStreamGraph(StreamGraph):
    """Streams a vocoder with a shaped source. All that it computes carries a state, but for same-padded networks.

    Args:
        whole: the graph of the vocoder.
    """

    whole: SourcedGraph

    def __init__(self, whole: SourcedGraph) -> None:
        super().__init__(whole)
        self.again = max(whole.stage.look_ahead, whole.look_ahead)
        self.causal = whole.vocoder.streams_natively or not isinstance(whole, NetworkGraph)
        self.known = whole.stage.shaped.context.left
        # What is carried shows in a first window. Gradients keep compiled code away, as in the export.
        mel, seed, first_sample = (given.example for given in super().inputs().values())
        carried = Carried(None, mel.shape[-1], first_sample)
        with torch.enable_grad():
            self.right = self._advanced(mel, seed, first_sample, carried)[1]
        self.state, self._after = carried.initial, carried.after

    def inputs(self) -> dict[str, Input]:
        """As in ``WholeGraph``. Of some tensors of the state, the first window has fewer steps than later ones."""
        given = super().inputs()
        # More than is needed: constants cut every window, so shorter ones work too, but the exporter asks for a bound.
        given["mel"] = given["mel"]._replace(
            varying={2: varying_size("frames", MAX_FRAMES, 2 + self.known + self.again)}
        )
        for name, initial in self.state.items():
            shape, varying = list(self._after[name].shape), {}
            for axis, (first, later) in enumerate(zip(initial.shape, shape, strict=True)):
                if first != later:
                    shape[axis] = max(later, 5)
                    varying[axis] = varying_size(name, shape[axis])
            given[f"past_{name}"] = Input(initial.new_zeros(shape), varying or None)
        return given

    def forward(self, mel: Tensor, seed: Tensor, first_sample: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """As in ``StreamGraph``."""
        before = dict(zip(self.state, state, strict=True))
        carried = Carried(before, mel.shape[-1], first_sample // self.mel.hop_length)
        samples, _ = self._advanced(mel, seed, first_sample, carried)
        return samples, *(carried.after[name] for name in self.state)

    def _advanced(self, mel: Tensor, seed: Tensor, first_sample: Tensor, carried: Carried) -> tuple[Tensor, int]:
        """Samples up to the end of a window, and how many of their frames are provisional."""
        whole, projection, hop = self.whole, self.whole.projection, self.mel.hop_length
        stft, again = projection.stft, self.again
        features, provisional = whole.corrected(self._features(mel, seed, first_sample, carried), again, carried)

        reads = stft.analysis_context
        kept = reads.left + reads.right
        samples = carried.seen("sound", whole.sound(features), provisional * hop, kept * hop)
        if features.corrections is not None:
            corrections = carried.seen("corrections", features.corrections, provisional, reads.right)
            features = features._replace(corrections=corrections)
        spectra = Spectrum(*(part[:, reads.left :] for part in stft.analyse(samples)))
        provisional += reads.right
        linear = carried.seen("linear", projection.linear(mel), again, provisional - again, axis=1)
        magnitude, spectrum = whole.imposed(spectra, linear, features)
        spectrum, provisional = self._iterated(magnitude, spectrum, provisional, carried)

        reads = stft.context
        seen = _seen("spectrum", spectrum, provisional, reads.left + reads.right, carried)
        samples = stft.invert(seen, carried.real(seen.real.shape[1]))
        return samples[:, reads.left * hop :], provisional + reads.right

    def _features(self, mel: Tensor, seed: Tensor, first_sample: Tensor, carried: Carried) -> Features:
        """The features of a window's frames, of which ``again`` are provisional."""
        stage, again = self.whole.stage, self.again
        assert isinstance(stage.network, TabledPitch)
        assert isinstance(stage.shaped, RealShapedSource)
        magnitude = stage.mel_inverse(mel)
        pitch = stage._shifted(stage.network.next_pitch(magnitude, self.mel.sample_rate_hz, carried, again))
        own = torch.cat((magnitude, *pitch), dim=1)
        seen = carried.seen("spoken", own, again, self.known, at_first=0)
        known_magnitude, *known_pitch = seen.split((magnitude.shape[1], 1, 1), dim=1)
        sources = stage.shaped.next_samples(
            known_magnitude,
            Pitch(*known_pitch),
            seed,
            first_sample,
            known=seen.shape[-1] - mel.shape[-1],
            provisional=again,
            carried=carried,
        )
        return Features(Spoken(mel, magnitude, pitch), stage._as_frames(sources))

    def _iterated(
        self, magnitude: Tensor, spectrum: Spectrum, provisional: int, carried: Carried
    ) -> tuple[Spectrum, int]:
        """The spectrum after the iterations, each of which carries a state of its own, and its provisional frames."""
        projection, iterations = self.whole.projection, self.whole.iterations
        stft, reach = projection.stft, projection.stft.reach
        all_frames = carried.seen("magnitude", magnitude, provisional, iterations * reach, axis=1)
        target = projection.target(all_frames)
        previous: Spectrum | None = None
        for iteration in range(iterations):
            seen = _seen(f"spectrum_{iteration}", spectrum, provisional, 2 * reach, carried)
            sound = stft.invert(seen, carried.real(seen.real.shape[1]))
            consistent = Spectrum(*(part[:, reach:] for part in stft.analyse(sound)))
            if previous is not None:
                previous = _seen(f"consistent_{iteration}", previous, provisional, reach, carried)
            later = (iterations - 1 - iteration) * reach  # frames that only later iterations read
            spectrum = projection.iterated(consistent, previous, Target(*(part[:, later:] for part in target)))
            previous, provisional = consistent, provisional + reach
        return spectrum, provisional


def _seen(name: str, spectrum: Spectrum, provisional: int, kept: int, carried: Carried) -> Spectrum:
    """A spectrum with the frames that were kept of it."""
    return Spectrum(*carried.seen(name, torch.cat(spectrum), provisional, kept, axis=1).chunk(2))


def _gain(logarithm: Tensor) -> Tensor:
    return logarithm.clamp(-LARGEST_CORRECTION, LARGEST_CORRECTION).exp()
