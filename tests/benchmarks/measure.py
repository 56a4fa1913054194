"""Measure the figures that the documents quote, and print them.

    python tests/benchmarks/measure.py [extraction] [imports] [streaming] [synthesis]

Each figure is the median of several runs, on one torch thread. The runs share a process, except those of ``imports``.
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
    """Return the median wall time of ``work`` in seconds, after one run that is not counted."""
    work()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def extraction() -> None:
    """Measure the extraction of mels from recordings, decoding included."""
    paths = sorted((SHIPPED / "recipes/demo/audio").glob("*/*.flac"))
    for name in ("bigvgan-24k", "vocos-24k"):
        spec = profile(name)
        log_mel = LogMel(spec)

        def work(log_mel: LogMel = log_mel, spec: object = spec) -> float:
            return sum(_extract(path, log_mel) for path in paths)

        audio_s = work()
        speed = audio_s / median_s(work)
        print(f"extraction {name:12} {speed:7.0f} x real time ({len(paths)} clips, {audio_s:.0f} s)")


def _extract(path: Path, log_mel: LogMel) -> float:
    audio = read_audio(path, log_mel.spec.sample_rate_hz)
    log_mel(torch.from_numpy(audio)[None])
    return len(audio) / log_mel.spec.sample_rate_hz


def imports() -> None:
    """Measure the start-up time of processes."""

    def process(*arguments: str) -> float:
        return median_s(lambda: subprocess.run([sys.executable, *arguments], check=True, capture_output=True))

    torch_s = process("-c", "import torch")
    blocks_s = process("-c", "import wavegen.blocks")
    print(f"import torch {torch_s:.2f} s; import wavegen.blocks {blocks_s - torch_s:+.2f} s on top")
    for command in ("synth", "train", "extract", "bench"):
        print(f"wavegen-{command} --help {process('-m', f'wavegen.commands.{command}', '--help'):.2f} s")


def _vocoders() -> list[tuple[str, Vocoder]]:
    """Build the vocoder of every shipped recipe with random weights."""
    found = []
    for name in shipped_recipes():
        torch.manual_seed(0)
        vocoder = build(load_recipe(find_recipe(name), ["data.corpus=."]))
        for parameter in vocoder.parameters():
            if not parameter.any():  # a layer that starts at zero would hide the network before it
                torch.nn.init.normal_(parameter, std=0.02)
        found.append((name, vocoder.prepared_for_synthesis()))
    return found


@torch.no_grad()
def streaming() -> None:
    """Measure the worst error of streaming in float32 over 20 random chunkings, relative to the largest sample."""
    for name, vocoder in _vocoders():
        frames = 20 if isinstance(vocoder, AutoregressiveVocoder) else 600
        mel = _demo_mel(vocoder, frames)
        whole = vocoder.synthesize(mel)
        generator = torch.Generator().manual_seed(0)
        worst = 0.0
        for _ in range(20):
            marks = torch.randint(0, frames + 1, (5,), generator=generator).sort().values.tolist()
            state = vocoder.initial_state(1)
            chunks = []
            for start, stop in zip([0, *marks], [*marks, frames], strict=True):
                samples, state = vocoder.step(mel[..., start:stop], state)
                chunks.append(samples)
            streamed = torch.cat([*chunks, vocoder.flush(state)], dim=-1)
            worst = max(worst, float((streamed - whole).abs().max() / whole.abs().max()))
        print(f"streaming {name:20} worst relative difference {worst:.1e} ({frames} frames)")


@torch.no_grad()
def synthesis() -> None:
    """Measure the speed of synthesis with the vocoder of every shipped recipe."""
    for name, vocoder in _vocoders():
        frames = 4 if isinstance(vocoder, AutoregressiveVocoder) else 376
        mel = _demo_mel(vocoder, frames)
        audio_s = frames * vocoder.mel.hop_length / vocoder.mel.sample_rate_hz
        seconds = median_s(lambda vocoder=vocoder, mel=mel: vocoder.synthesize(mel))
        print(f"synthesis {name:20} {audio_s / seconds:8.3f} x real time, {audio_s / seconds * 24000:9.0f} samples/s")


def _demo_mel(vocoder: Vocoder, frames: int) -> torch.Tensor:
    """Return speech as a mel ``[1, n_mels, frames]`` of the vocoder's definition."""
    path = sorted((SHIPPED / "recipes/demo/audio/valid").glob("*.flac"))[0]
    mel = LogMel(vocoder.mel)(torch.from_numpy(read_audio(path, vocoder.mel.sample_rate_hz))[None])
    return mel.repeat(1, 1, frames // mel.shape[-1] + 1)[..., :frames]


if __name__ == "__main__":
    torch.set_num_threads(1)
    known = {measure.__name__: measure for measure in (extraction, imports, streaming, synthesis)}
    for chosen in sys.argv[1:] or known:
        known[chosen]()
