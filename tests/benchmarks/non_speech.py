"""How vocoders treat what is not speech, beside Griffin-Lim: ``python tests/benchmarks/non_speech.py [RUN …]``.

Prints the log-mel distance and the multi-resolution STFT distance to each synthetic sound; lower is better.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np

from wavegen.checkpoint import load_vocoder
from wavegen.evaluation.baseline import griffin_lim_baseline, log_mel_of, source_filter_baseline
from wavegen.evaluation.metrics import score
from wavegen.mel import profile
from wavegen.synthesis import synthesize

SPEC = profile("bigvgan-24k")
SECONDS = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, nargs="*", metavar="RUN")
    arguments = parser.parse_args()
    systems: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "griffin-lim": lambda mel: griffin_lim_baseline(mel, SPEC),
        "source-filter": lambda mel: source_filter_baseline(mel, SPEC),
    }
    for run in arguments.runs:
        vocoder = load_vocoder(run)
        systems[str(run)] = lambda mel, vocoder=vocoder: synthesize(vocoder, mel)

    print(f"{'log-mel / M-STFT':18} " + " ".join(f"{name[-24:]:>24}" for name in systems))
    for name, samples in sounds().items():
        cells = []
        for speak in systems.values():
            scores = score(samples, speak(log_mel_of(samples, SPEC)), SPEC, ["log_mel", "m_stft"]).values
            cells.append(f"{scores['log_mel'] or 0:.3f} / {scores['m_stft'] or 0:.3f}")
        print(f"{name:18} " + " ".join(f"{cell:>24}" for cell in cells))


def sounds() -> dict[str, np.ndarray]:
    """Synthetic sounds at the sample rate, float32 within ±1."""
    rate = SPEC.sample_rate_hz
    t = np.arange(SECONDS * rate) / rate
    random = np.random.default_rng(0)
    clicks = np.zeros_like(t)
    clicks[:: rate // 7] = 0.8
    found = {
        "tone, 440 Hz": 0.3 * np.sin(2 * np.pi * 440 * t),
        "tone, 3 kHz": 0.3 * np.sin(2 * np.pi * 3000 * t),
        "chord": 0.1 * sum(np.sin(2 * np.pi * f * t) for f in (261.6, 329.6, 392.0, 523.3)),
        "glide, 100-2000 Hz": 0.3 * np.sin(2 * np.pi * (100 * t + 475 * t**2)),
        "white noise": 0.1 * random.standard_normal(len(t)),
        "faint noise": 0.002 * random.standard_normal(len(t)),
        "clicks": clicks,
        "silence": np.zeros_like(t),
    }
    return {name: samples.clip(-1, 1).astype(np.float32) for name, samples in found.items()}


if __name__ == "__main__":
    main()
