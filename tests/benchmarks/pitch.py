"""Measures the pitch that a source vocoder finds in mels, against WORLD on the recordings. Prints a table.

    python tests/benchmarks/pitch.py RUN CORPUS... [--profile NAME ...] [--split valid] [--smooth] [--edges 2]

RUN is a run's folder or a model file; a CORPUS is a folder with a MANIFEST.tsv. All frames of a corpus count alike.
Recordings are resampled to the rate of each profile.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from wavegen.audio import read_audio
from wavegen.checkpoint import load_vocoder
from wavegen.corpora.manifest import listed_recordings
from wavegen.corpora.pitch_labels import pitch_labels, require_tracker
from wavegen.mel import PROFILES, LogMel, MelSpec, profile
from wavegen.source import Pitch, PitchNetwork
from wavegen.training.pitch import frame_labels, pitch_scores, spectrum
from wavegen.vocoders import PitchVocoder

COLUMNS = {
    "median_cents": "{:.1f}",
    "within_50_cents": "{:.3f}",
    "gross_errors": "{:.4f}",
    "voicing_f1": "{:.3f}",
}


@torch.inference_mode()
def clip_frames(
    network: PitchNetwork, samples: np.ndarray, spec: MelSpec, smooth: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """F0 and voicing that the network finds in one recording, and the labels, each ``[frames]``."""
    labels = torch.from_numpy(pitch_labels(samples, spec, require_tracker()))[None]
    mel = LogMel(spec)(torch.from_numpy(samples)[None])
    if smooth:
        mel = F.avg_pool1d(F.pad(mel, (1, 1), mode="replicate"), 3, 1)
    found = network.pitch(spectrum(mel, spec), spec.sample_rate_hz)
    f0_hz, _ = frame_labels(labels, torch.tensor([mel.shape[-1]]), spec, spec, mel.shape[-1])
    return found.f0_hz.flatten(), found.voicing.flatten(), f0_hz.flatten()


def measure(network: PitchNetwork, paths: list[Path], spec: MelSpec, smooth: bool, edges: int) -> dict[str, float]:
    """The scores over all frames of some recordings."""
    clips = [clip_frames(network, read_audio(path, spec.sample_rate_hz), spec, smooth) for path in paths]
    f0_hz, voicing, labels = (torch.cat(parts)[None, None] for parts in zip(*clips, strict=True))
    everywhere = torch.ones_like(labels, dtype=torch.bool)
    scores = pitch_scores(Pitch(f0_hz, voicing), labels, everywhere, edge_frames=edges)
    return {name: float(score) for name, score in scores.items()} | {"frames": labels.numel()}


def main() -> None:
    """Measure each corpus with each profile."""
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("corpora", type=Path, nargs="+", metavar="CORPUS")
    parser.add_argument("--profile", action="append", choices=sorted(PROFILES), help="may be repeated (default: all)")
    parser.add_argument("--split", default="valid", choices=["train", "valid"])
    parser.add_argument("--smooth", action="store_true", help="average the mels over three frames")
    parser.add_argument(
        "--edges", type=int, default=0, help="frames at either end of voiced segments whose pitch is not counted"
    )
    arguments = parser.parse_args()
    path = arguments.run / "model.safetensors" if arguments.run.is_dir() else arguments.run
    vocoder = load_vocoder(path).eval()
    if not isinstance(vocoder, PitchVocoder):
        parser.error(f"{path}: its vocoder has no pitch network")

    print(f"| mel | corpus | clips | frames | {' | '.join(name.replace('_', ' ') for name in COLUMNS)} |")
    print("|---" * (4 + len(COLUMNS)) + "|")
    for name in arguments.profile or PROFILES:
        for corpus in arguments.corpora:
            paths = [recording.path for recording in listed_recordings(corpus) if recording.split == arguments.split]
            scores = measure(vocoder.pitch, paths, profile(name), arguments.smooth, arguments.edges)
            cells = [text.format(scores[key]) for key, text in COLUMNS.items()]
            row = (f"`{name}`", corpus.absolute().name, len(paths), f"{scores['frames']:,}", *cells)
            print(f"| {' | '.join(map(str, row))} |", flush=True)


if __name__ == "__main__":
    main()
