"""Graphs of the vocoders that other projects published: frames in, samples out, with a finite context and no state."""

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from wavegen.exchange.onnx.graphs import StreamGraph, WholeGraph
from wavegen.exchange.onnx.transforms import RealSTFT, Spectrum
from wavegen.noise import uniform_noise
from wavegen.vocoders.vocos import Vocos


class PublishedGraph(WholeGraph):
    """A vocoder whose samples depend on a window of frames and on their place in the utterance."""

    @abstractmethod
    def window(self, mel: Tensor, seed: Tensor, first_sample: int | Tensor) -> Tensor:
        """Samples ``[1, frames * hop_length]`` of frames, the first of which has the index ``first_sample``."""

    def forward(self, mel: Tensor, seed: Tensor) -> Tensor:
        """As in ``WholeGraph``."""
        return self.window(mel, seed, 0)

    def streaming(self) -> "WindowGraph":
        """As in ``WholeGraph``."""
        return WindowGraph(self)


class WindowGraph(StreamGraph):
    """Streams a vocoder that carries no state: it computes the context of every window again."""

    whole: PublishedGraph

    def __init__(self, whole: PublishedGraph) -> None:
        super().__init__(whole)
        context = whole.vocoder.context
        self.right, self.again = context.right, context.left + context.right

    def forward(self, mel: Tensor, seed: Tensor, first_sample: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """As in ``StreamGraph``; the samples are those of the window."""
        return (self.whole.window(mel, seed, first_sample),)


class VocosGraph(PublishedGraph):
    """``Vocos``, which draws no noise."""

    def __init__(self, vocoder: Vocos, speaker: Tensor | None) -> None:
        super().__init__(vocoder, speaker)
        self.stft = RealSTFT(vocoder.istft)

    def spectrum(self, mel: Tensor, seed: Tensor) -> Spectrum:
        """As in ``WholeGraph``."""
        magnitude, phase = (part.mT for part in self.vocoder.predicted(mel, None, self.speaker))
        return Spectrum(magnitude * phase.cos(), magnitude * phase.sin())

    def window(self, mel: Tensor, seed: Tensor, first_sample: int | Tensor) -> Tensor:
        """As in ``PublishedGraph``."""
        return self.stft.invert(self.spectrum(mel, seed))


class ParallelWaveGANGraph(PublishedGraph):
    """``ParallelWaveGAN``, which makes samples of noise."""

    inverts_a_spectrum = False

    def window(self, mel: Tensor, seed: Tensor, first_sample: int | Tensor) -> Tensor:
        """As in ``PublishedGraph``."""
        noise = normal_quantile(uniform_noise(seed, first_sample, mel.shape[-1] * self.mel.hop_length, 1))
        network = self.vocoder
        return network._network(noise, network._condition(mel, None, self.speaker), None)


# Coefficients of two rational functions, from the constant to the seventh power (Wichura 1988, algorithm AS 241,
# PPND16): for uniform numbers near one half, and for the tails.
_MIDDLE = (
    (3.3871328727963666080e0, 1.3314166789178437745e2, 1.9715909503065514427e3, 1.3731693765509461125e4,
     4.5921953931549871457e4, 6.7265770927008700853e4, 3.3430575583588128105e4, 2.5090809287301226727e3),
    (1.0, 4.2313330701600911252e1, 6.8718700749205790830e2, 5.3941960214247511077e3,
     2.1213794301586595867e4, 3.9307895800092710610e4, 2.8729085735721942674e4, 5.2264952788528545610e3),
)  # fmt: skip
_TAILS = (
    (1.42343711074968357734e0, 4.63033784615654529590e0, 5.76949722146069140550e0, 3.64784832476320460504e0,
     1.27045825245236838258e0, 2.41780725177450611770e-1, 2.27238449892691845833e-2, 7.74545014278341407640e-4),
    (1.0, 2.05319162663775882187e0, 1.67638483018380384940e0, 6.89767334985100004550e-1,
     1.48103976427480074590e-1, 1.51986665636164571966e-2, 5.47593808499534494600e-4, 1.05075007164441684324e-9),
)  # fmt: skip


def normal_quantile(u: Tensor) -> Tensor:
    """Standard normal numbers, float32, for those of ``uniform_noise``, as in ``wavegen.noise``.

    ONNX has no such operator. AS 241 has 16 digits; its third part, for numbers below 1e-11, is not needed here.
    """
    u = u.double()
    centred = u - 0.5
    middle = centred * _ratio(_MIDDLE, 0.425**2 - centred.square())
    tail = _ratio(_TAILS, (-torch.minimum(u, 1 - u).log()).sqrt() - 1.6)
    return torch.where(centred.abs() <= 0.425, middle, torch.where(centred < 0, -tail, tail)).float()


def _ratio(coefficients: tuple[Sequence[float], Sequence[float]], x: Tensor) -> Tensor:
    above, below = (torch.zeros_like(x) + part[-1] for part in coefficients)
    for of_above, of_below in zip(*(reversed(part[:-1]) for part in coefficients), strict=True):
        above, below = above * x + of_above, below * x + of_below
    return above / below
