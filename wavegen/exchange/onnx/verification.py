"""Compares the sound of an ONNX file with torch's."""

import functools
import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from wavegen.blocks import InverseSTFT
from wavegen.mel import LogMel, MelSpec
from wavegen.vocoders import Vocoder

CHUNKS = (3, 50, 1000)  # frames
LENGTHS = (1, 2, 17, 100, 250)  # frames
BOUND, BOUND_WITH_ITERATIONS = 1e-4, 1e-3  # of the peak; iterations amplify rounding
# F0 is rounded differently in its last digit, by chance, and the phase of the pulses adds that up.
LONG, BOUND_LONG = 2000, 1e-2
SEEDS = (0, 2**63 - 1)
Render = Callable[[Tensor, int], Tensor]


class Deviation(NamedTuple):
    """How far a file's sound is from torch's.

    Attributes:
        largest: largest difference of two samples, as a share of the peak of torch's sound.
        bound: the largest one that is accepted.
    """

    largest: float
    bound: float


def verify(path: Path, vocoder: Vocoder, speaker: str | None, bound: float) -> Deviation:
    """Render mels of several lengths with onnxruntime and with torch.

    Args:
        path: the file.
        vocoder: the vocoder that it was made from, on the CPU.
        speaker: that of ``Vocoder.synthesize``.
        bound: the largest deviation that is accepted, but for a long mel.
    """
    longest = probe(vocoder.mel, LONG)
    renderers = _renderers(path, vocoder.mel)

    def deviation(render: Render, frames: int, seed: int) -> float:
        mel = longest[..., :frames]
        expected = vocoder.synthesize(mel, seed=seed, speaker=speaker)
        found = render(mel, seed)
        if found.shape != expected.shape or not found.isfinite().all():
            return math.inf
        return float((found - expected).abs().max() / expected.abs().max().clamp(min=1e-5))

    cases = itertools.product(renderers, LENGTHS, SEEDS)
    largest = max(deviation(render, frames, seed) for render, frames, seed in cases)
    in_long = deviation(renderers[-1], LONG, SEEDS[0])
    return Deviation(in_long, BOUND_LONG) if in_long > BOUND_LONG else Deviation(largest, bound)


def _renderers(path: Path, spec: MelSpec) -> list[Render]:
    """Ways to render a mel ``[1, n_mels, frames]`` and a seed with a file: whole, or in chunks of several lengths."""
    from wavegen.exchange.onnx.reader import Model, open_session

    session = open_session(path)
    if "first_sample" in [given.name for given in session.get_inputs()]:
        model = Model(path)

        def in_chunks(frames: int, mel: Tensor, seed: int) -> Tensor:
            stream = model.stream(seed)
            chunks = [stream.step(chunk.numpy()) for chunk in mel[0].split(frames, dim=-1)]
            return torch.from_numpy(np.concatenate([*chunks, stream.flush()]))[None]

        return [functools.partial(in_chunks, frames) for frames in CHUNKS]

    def whole(mel: Tensor, seed: int) -> Tensor:
        outputs = [
            torch.from_numpy(output) for output in session.run(None, {"mel": mel.numpy(), "seed": np.array([seed])})
        ]
        if len(outputs) == 1:
            return outputs[0]
        magnitude, cosine, sine = outputs
        istft = InverseSTFT(spec.n_fft, spec.hop_length, spec.window(), left_padding=spec.left_padding)
        samples: Tensor = istft(torch.complex(magnitude * cosine, magnitude * sine))
        return samples

    return [whole]


def probe(spec: MelSpec, frames: int) -> Tensor:
    """The mel ``[1, n_mels, frames]`` of a made-up voice: harmonics of a moving pitch, and noise, that come and go."""
    generator = torch.Generator().manual_seed(0)
    count = max(frames * spec.hop_length, spec.min_samples)
    time = 0.2 + torch.arange(count, dtype=torch.float64) / spec.sample_rate_hz  # it begins within a voice
    f0 = 150 * 2 ** (0.7 * torch.sin(2 * math.pi * 0.9 * time))
    phase = 2 * math.pi * torch.cumsum(f0 / spec.sample_rate_hz, dim=0)
    harmonics = range(1, max(2, min(25, int(spec.sample_rate_hz / 2 / 300))))
    voice = torch.stack([torch.sin(k * phase) / k for k in harmonics]).sum(0) * torch.sin(
        2 * math.pi * 1.3 * time
    ).clamp(min=0)
    noise = torch.randn(count, generator=generator, dtype=torch.float64) * torch.sin(2 * math.pi * 2.1 * time).clamp(
        min=0
    )
    samples = (0.1 * voice + 0.03 * noise)[None].float()
    return LogMel(spec)(samples)[..., :frames]
