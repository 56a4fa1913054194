"""Where a spectral vocoder's time goes on one core, beside a network of the shape of Vocos:

    python tests/benchmarks/chain.py [--seconds 10] [--runs 5]

Prints milliseconds per second of sound with each engine, the median of several runs, and how many times as fast as
Vocos (13.5 M parameters, arXiv:2306.00814) that is. All have random weights: time does not depend on them.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from wavegen.mel import profile
from wavegen.vocoders.spectral import SpectralConfig, SpectralVocoder


class VocosShape(nn.Module):
    """Vocos for mels at 24 kHz: eight ConvNeXt blocks of 512 channels and an inverse STFT."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv1d(100, 512, 7, padding=3)
        self.norm = nn.LayerNorm(512)
        self.blocks = nn.ModuleList(
            nn.ModuleList(
                (
                    nn.Conv1d(512, 512, 7, padding=3, groups=512),
                    nn.LayerNorm(512),
                    nn.Linear(512, 1536),
                    nn.Linear(1536, 512),
                )
            )
            for _ in range(8)
        )
        self.final_norm = nn.LayerNorm(512)
        self.head = nn.Linear(512, 1026)
        self.register_buffer("window", torch.hann_window(1024))
        self.window: Tensor

    def forward(self, mel: Tensor) -> Tensor:
        h = self.norm(self.embed(mel).transpose(1, 2)).transpose(1, 2)
        for depthwise, norm, widen, narrow in self.blocks:
            update = norm(depthwise(h).transpose(1, 2))
            h = h + 0.1 * narrow(nn.functional.gelu(widen(update))).transpose(1, 2)
        magnitude, phase = self.head(self.final_norm(h.transpose(1, 2))).transpose(1, 2).chunk(2, dim=1)
        magnitude = magnitude.exp().clamp(max=100)
        spectrum = torch.complex(magnitude * phase.cos(), magnitude * phase.sin())
        return torch.istft(spectrum, 1024, 256, window=self.window)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    spec = profile("bigvgan-24k")
    frames = round(arguments.seconds * spec.sample_rate_hz / spec.hop_length)
    mel = torch.randn(1, spec.n_mels, frames) - 5
    peer = VocosShape().eval()
    steps: dict[str, Callable[[], object]] = {"Vocos, 13.5 M": lambda: peer(mel)}
    for engine in SpectralVocoder.engines:
        vocoder = SpectralVocoder(spec, SpectralConfig(channels=256, layers=8)).prepared_for_synthesis()
        vocoder.use_engine(engine)
        for iterations in (2, 8):
            steps[f"{engine}, 4.2 M, {iterations} iterations"] = chain(vocoder, mel, iterations)
        steps |= {f"  {engine}: {name}": step for name, step in parts(vocoder, mel).items()}

    # All in turn, several times: whatever else the machine does meets all of them.
    times: dict[str, list[float]] = {name: [] for name in steps}
    with torch.no_grad():
        for run in range(arguments.runs + 1):
            for name, step in steps.items():
                started = time.perf_counter()
                step()
                if run:  # the first one warms up
                    times[name].append(1000 * (time.perf_counter() - started) / arguments.seconds)
    peer_ms = statistics.median(times["Vocos, 13.5 M"])
    print(f"{'':48} {'ms per s':>9} {'x Vocos':>9}")
    for name, measured in times.items():
        median = statistics.median(measured)
        print(f"{name:48} {median:9.2f} {peer_ms / median:9.2f}")


def chain(vocoder: SpectralVocoder, mel: Tensor, iterations: int) -> Callable[[], Tensor]:
    """The whole chain with a number of iterations in all."""

    def run() -> Tensor:
        vocoder.synthesis_iterations = iterations - vocoder.refinement_iterations
        return vocoder.synthesize(mel)

    return run


def parts(vocoder: SpectralVocoder, mel: Tensor) -> dict[str, Callable[[], object]]:
    """The parts of the chain, each on what the part before computes."""
    stage, seeds = vocoder.stage, torch.tensor([0])
    with torch.no_grad():
        compiled = vocoder.compiled()
        invert, stack = (stage.mel_inverse, None) if compiled is None else (compiled.invert, compiled.pitch_stack)
        features = stage(mel, None, seeds)
        spoken = features.spoken
        corrections = vocoder._correct(spoken, None, None)

    def render(iterations: int) -> Callable[[], Tensor]:
        with_corrections = features._replace(corrections=corrections)
        return lambda: vocoder.render(with_corrections, None, None, iterations, compiled)

    return {
        "inverse of the mel": lambda: invert(mel),
        "pitch": lambda: stage.network.pitch(spoken.magnitude, vocoder.mel.sample_rate_hz, None, stack),
        "source: excitation, prediction, filter": lambda: stage.shaped.whole(spoken.magnitude, spoken.pitch, seeds),
        "network": lambda: vocoder._hidden(spoken, None, None, compiled),
        "spectra, mel imposed, inverse STFT": render(0),
        "the same with 2 iterations": render(2),
    }


if __name__ == "__main__":
    main()
