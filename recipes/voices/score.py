"""Print the scores of a voice by kind of mel: every definition that it reads, and mels as a TTS predicts them.

    python recipes/voices/score.py default --unseen /path/to/voices24k --seen /path/to/speech24k

A corpus is a folder with a ``MANIFEST.tsv``; its validation clips are scored. A cell holds DistillMOS minus that of the
recordings, with a 95 % interval, and PESQ.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from wavegen.audio import read_audio
from wavegen.checkpoint import load_vocoder
from wavegen.commands import at_least, run_command
from wavegen.corpora.manifest import listed_recordings
from wavegen.errors import ConfigError
from wavegen.evaluation.baseline import griffin_lim_baseline, log_mel_of, source_filter_baseline
from wavegen.evaluation.metrics import available, missing_note, score
from wavegen.mel import MelSpec, profile
from wavegen.progress import bar_options
from wavegen.synthesis import synthesize
from wavegen.training.augmentation import Disturbance, disturbed

PROFILES = (
    "bigvgan-24k", "vocos-24k", "bigvgan-22k", "hifigan-22k", "pwg-22k", "diffwave-22k", "r9y9-22k", "wavegen-16k",
)  # fmt: skip
RULERS = ("distillmos", "pesq")
Speaker = Callable[[np.ndarray, MelSpec], np.ndarray]
"""A mel ``[n_mels, frames]`` of a definition -> samples."""


class Row(NamedTuple):
    """A kind of mel.

    Attributes:
        mel: the definition's name.
        corpus: ``"unseen"`` or ``"seen"``.
        disturbance: what the mel has of those that a TTS predicts.
        iterations: iterations after those that the voice was trained through; None for its own choice.
    """

    mel: str
    corpus: str = "unseen"
    disturbance: Disturbance = Disturbance()
    iterations: int | None = None

    @property
    def name(self) -> str:
        """The first cells of the row."""
        kind = "".join(
            (
                ", smoothed over 3 frames" if self.disturbance.smooths else "",
                ", 5 % noise" if self.disturbance.noise else "",
                "" if self.iterations is None else f", {self.iterations} more iterations",
            )
        )
        return f"`{self.mel}`{kind} | {self.corpus}"


ROWS = (
    *(Row(name) for name in PROFILES),
    Row("bigvgan-24k", iterations=0),
    Row("bigvgan-24k", disturbance=Disturbance(smooths=True)),
    Row("bigvgan-24k", disturbance=Disturbance(noise=True)),
    Row("hifigan-22k", disturbance=Disturbance(smooths=True)),
    Row("bigvgan-24k", "seen"),
    Row("bigvgan-24k", "seen", iterations=0),
)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("voices", nargs="+", help="runs or model files of spectral vocoders, or default")
    parser.add_argument("--unseen", type=Path, required=True, help="corpus of speakers who were never trained on")
    parser.add_argument("--seen", type=Path, required=True, help="corpus of speakers who were")
    parser.add_argument("--clips", type=at_least(1), help="score only so many clips of each corpus, evenly chosen")
    parser.add_argument("--baselines", action="store_true", help="score source-filter and Griffin-Lim too")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    return run_command("score", lambda: print_scores(arguments))


def print_scores(arguments: argparse.Namespace) -> int:
    """Print the table, a row as soon as it is computed.

    Raises:
        ConfigError: a metric's package is missing.
        CheckpointError, DataError: a voice or a corpus does not exist.
    """
    if not set(RULERS) <= set(available()):
        raise ConfigError(str(missing_note()))
    corpora = {name: validation_clips(getattr(arguments, name), arguments.clips) for name in ("unseen", "seen")}
    names = [*arguments.voices, *(["source-filter", "griffin-lim"] if arguments.baselines else [])]
    print("| mel | clips | recordings | " + " | ".join(f"{name} | PESQ" for name in names) + " |")
    print("|" + "---|" * (3 + 2 * len(names)))
    for row in tqdm(ROWS, desc="rows", **bar_options()):
        speakers = [voice_of(name, row) for name in arguments.voices]
        if arguments.baselines:
            speakers += [source_filter_baseline, griffin_lim_baseline]
        cells = cells_of(row, corpora[row.corpus], speakers)
        print(f"| {row.name} | " + " | ".join(cells) + " |", flush=True)
    return 0


def validation_clips(corpus: Path, count: int | None) -> list[Path]:
    """The validation clips of a corpus, or some of them, evenly chosen."""
    paths = [recording.path for recording in listed_recordings(corpus) if recording.split == "valid"]
    return paths if count is None else paths[:: max(1, len(paths) // count)][:count]


def voice_of(name: str, row: Row) -> Speaker:
    """A model that speaks the mels of a row."""
    vocoder = load_vocoder(name).for_mel(profile(row.mel))
    if row.iterations is not None:
        vocoder.set_synthesis_options(iterations=row.iterations)
    vocoder = vocoder.prepared_for_synthesis()
    return lambda mel, spec: synthesize(vocoder, mel)


def cells_of(row: Row, clips: Sequence[Path], speakers: Sequence[Speaker]) -> list[str]:
    """The recordings' DistillMOS and, for each system, its distance and PESQ; what is too short to rate is left out."""
    spec = profile(row.mel)
    recordings: list[float] = []
    opinion: list[list[float]] = [[] for _ in speakers]
    pesq: list[list[float]] = [[] for _ in speakers]
    for index, path in enumerate(clips):
        real = read_audio(path, spec.sample_rate_hz)
        clean = torch.from_numpy(log_mel_of(real, spec))[None]
        mel = disturbed(clean, spec, row.disturbance, torch.tensor([index]))[0].numpy()
        own = score(real, real, spec, ["distillmos"]).values["distillmos"]
        if own is None:
            continue
        recordings.append(own)
        for system, speak in enumerate(speakers):
            values = score(real, speak(mel, spec)[: len(real)], spec, RULERS).values
            opinion[system].append((values["distillmos"] or float("nan")) - recordings[-1])
            pesq[system].append(values["pesq"] or float("nan"))
    cells = [f"{np.mean(recordings):.2f}"]
    for distances, qualities in zip(opinion, pesq, strict=True):
        half = 1.96 * np.std(distances, ddof=1) / np.sqrt(len(distances))
        cells += [f"{np.mean(distances):+.2f} ± {half:.2f}", f"{np.mean(qualities):.2f}"]
    return cells


if __name__ == "__main__":
    sys.exit(main())
