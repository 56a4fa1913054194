"""Figures that the README quotes, measured on this machine. Prints a table; asserts nothing.

    python tests/benchmarks/measure.py [extraction] [imports] [streaming] [synthesis]

Each figure is the median of several runs in this one process (whole processes for start-up), on one torch thread.
"""

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from wavegen.audio import read_audio
from wavegen.mel import LogMel, profile
from wavegen.recipe import SHIPPED, build, find_recipe, load_recipe, shipped_recipes
from wavegen.vocoders import AutoregressiveVocoder, Vocoder

RUNS = 5


def median_s(work: Callable[[], object], runs: int = RUNS) -> float:
    """Median wall time of ``work`` after one unmeasured run."""
    work()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def extraction() -> None:
    """Recordings to mels, decoding included, one core."""
    paths = sorted((SHIPPED / "recipes/demo/audio").glob("*/*.flac"))
    for name in ("bigvgan-24k", "vocos-24k"):
        spec = profile(name)
        log_mel = LogMel(spec)

        def work(log_mel: LogMel = log_mel, spec: object = spec) -> float:
            return sum(_extract(path, log_mel) for path in paths)

        audio_s = work()
        print(f"extraction {name:12} {audio_s / median_s(work):7.0f} x real time ({len(paths)} clips, {audio_s:.0f} s)")


def _extract(path: Path, log_mel: LogMel) -> float:
    audio = read_audio(path, log_mel.spec.sample_rate_hz)
    log_mel(torch.from_numpy(audio)[None])
    return len(audio) / log_mel.spec.sample_rate_hz


def imports() -> None:
    """Start-up of whole processes."""

    def process(*arguments: str) -> float:
        return median_s(lambda: subprocess.run([sys.executable, *arguments], check=True, capture_output=True))

    torch_s, blocks_s = process("-c", "import torch"), process("-c", "import wavegen.blocks")
    print(f"import torch {torch_s:.2f} s; import wavegen.blocks {blocks_s - torch_s:+.2f} s over it")
    for command in ("synth", "train", "extract", "bench"):
        print(f"wavegen-{command} --help {process('-m', f'wavegen.commands.{command}', '--help'):.2f} s")


def _vocoders() -> list[tuple[str, Vocoder]]:
    """Every shipped recipe's vocoder with random weights."""
    found = []
    for name in shipped_recipes():
        torch.manual_seed(0)
        vocoder = build(load_recipe(find_recipe(name), ["data.corpus=."]))
        for parameter in vocoder.parameters():
            if not parameter.any():  # what starts at zero would hide the network behind it
                torch.nn.init.normal_(parameter, std=0.02)
        found.append((name, vocoder.prepared_for_synthesis()))
    return found


@torch.no_grad()
def streaming() -> None:
    """The streaming law in float32: worst difference over 20 random chunkings, relative to the largest sample."""
    for name, vocoder in _vocoders():
        frames = 20 if isinstance(vocoder, AutoregressiveVocoder) else 600
        piece = _demo_mel(vocoder, frames)
        whole = vocoder.synthesize(piece)
        generator, worst = torch.Generator().manual_seed(0), 0.0
        for _ in range(20):
            marks = torch.randint(0, frames + 1, (5,), generator=generator).sort().values.tolist()
            state, pieces = vocoder.initial_state(1), []
            for start, stop in zip([0, *marks], [*marks, frames], strict=True):
                samples, state = vocoder.step(piece[..., start:stop], state)
                pieces.append(samples)
            streamed = torch.cat([*pieces, vocoder.flush(state)], dim=-1)
            worst = max(worst, float((streamed - whole).abs().max() / whole.abs().max()))
        print(f"streaming {name:20} worst relative difference {worst:.1e} ({frames} frames)")


@torch.no_grad()
def synthesis() -> None:
    """Samples per second of each shipped shape, with random weights, one thread."""
    for name, vocoder in _vocoders():
        frames = 4 if isinstance(vocoder, AutoregressiveVocoder) else 376
        mel = _demo_mel(vocoder, frames)
        audio_s = frames * vocoder.mel.hop_length / vocoder.mel.sample_rate_hz
        seconds = median_s(lambda v=vocoder, mel=mel: v.synthesize(mel))
        print(f"synthesis {name:20} {audio_s / seconds:8.3f} x real time, {audio_s / seconds * 24000:9.0f} samples/s")


def _demo_mel(vocoder: Vocoder, frames: int) -> torch.Tensor:
    """Speech as a mel of the vocoder's definition, ``[1, n_mels, frames]``."""
    path = sorted((SHIPPED / "recipes/demo/audio/valid").glob("*.flac"))[0]
    mel = LogMel(vocoder.mel)(torch.from_numpy(read_audio(path, vocoder.mel.sample_rate_hz))[None])
    return mel.repeat(1, 1, frames // mel.shape[-1] + 1)[..., :frames]


if __name__ == "__main__":
    torch.set_num_threads(1)
    known = {measure.__name__: measure for measure in (extraction, imports, streaming, synthesis)}
    for chosen in sys.argv[1:] or known:
        known[chosen]()
