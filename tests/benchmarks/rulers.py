"""Scores of speech with known faults, by every ruler: ``python tests/benchmarks/rulers.py [FOLDER] [--clips 8]``.

The speech is that of the demo's validation clips, or of the recordings in FOLDER. Prints the means as a table.
"""

import argparse
import sys
from functools import partial
from pathlib import Path

import numpy as np

from wavegen.audio import read_audio
from wavegen.corpora.folders import find_recordings
from wavegen.evaluation.metrics import METRICS, available, score
from wavegen.evaluation.scoring import Workers
from wavegen.mel import profile
from wavegen.recipe import SHIPPED
from wavegen.tables import text_table

sys.path.append(str(Path(__file__).parents[1]))
from support.degraded import DEGRADED

SPEC = profile("bigvgan-24k")
SHOWN = ("distillmos", "dnsmos", "visqol", "pesq", "estoi", "log_mel", "m_stft")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=SHIPPED / "recipes/demo/audio/valid")
    parser.add_argument("--clips", type=int, default=8)
    parser.add_argument("--jobs", type=int)
    arguments = parser.parse_args()
    found = find_recordings(arguments.folder, held_out=0.0)
    paths = [recording.path for recording in found[:: max(1, len(found) // arguments.clips)]][: arguments.clips]
    shown = [key for key in SHOWN if key in available()]
    with Workers(arguments.jobs) as workers:
        by_clip = workers.map(partial(score_degraded, metrics=shown), paths, title="scoring")
    table = [["", *(METRICS[key].heading for key in shown)]]
    table += [
        [name, *(f"{np.nanmean([clip[name][key] for clip in by_clip]):.3f}" for key in shown)] for name in DEGRADED
    ]
    print(text_table(table))


def score_degraded(path: Path, metrics: list[str]) -> dict[str, dict[str, float]]:
    """Degradation -> metric key -> score of a recording that was degraded; NaN where it is not defined."""
    samples = read_audio(path, SPEC.sample_rate_hz)
    scores = {name: score(samples, degrade(samples, SPEC), SPEC, metrics).values for name, degrade in DEGRADED.items()}
    return {
        name: {key: np.nan if value is None else value for key, value in values.items()}
        for name, values in scores.items()
    }


if __name__ == "__main__":
    main()
