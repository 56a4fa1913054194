"""Ten minutes on one GPU: train the adversarial recipe at full size and score it, beside both baselines.

    python tests/benchmarks/gpu_training.py /path/to/speech24k [--steps 6000] [--out gpu]

Discriminators have their published sizes. Steps are recorded as CUDA graphs. The corpus needs about 60 MB. With
``--steps 20`` on a CPU it shows that everything works. The table, ``summary.json`` and the listening page are in
``OUT/evaluation``.
"""

import argparse
import csv
import shutil
import subprocess
import sys
from pathlib import Path

DISCRIMINATORS = (
    "training.adversarial.period_channels=[32, 128, 512, 1024]",
    "training.adversarial.resolutions=[[2048, 512], [1024, 256], [512, 128], [256, 64], [128, 32]]",
    "training.adversarial.resolution_channels=32",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--out", type=Path, default=Path("gpu"))
    arguments = parser.parse_args()
    run = arguments.out / "run"
    wavegen(
        "train", "speech24k/spectral-adversarial", f"data.corpus={arguments.corpus}", "--out", run,
        f"training.steps={arguments.steps}", f"training.adversarial.start_step={arguments.steps // 12}",
        "training.batch_size=16", "training.segment_frames=64", "training.workers=4", "samples.clips=0",
        f"training.validate_every={max(1, arguments.steps // 6)}", *DISCRIMINATORS,
    )  # fmt: skip
    wavegen(
        "evaluate", validation_clips(arguments.corpus, arguments.out / "valid"), "--model", run,
        "--iterations", 0, "--iterations", 6, "--baseline", "griffin-lim", "--baseline", "source-filter",
        "--out", arguments.out / "evaluation",
    )  # fmt: skip


def wavegen(*arguments: object) -> None:
    subprocess.run([sys.executable, "-m", "wavegen", *map(str, arguments)], check=True)


def validation_clips(corpus: Path, folder: Path) -> Path:
    """Copy the corpus's validation clips to a folder of their own."""
    with (corpus / "MANIFEST.tsv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            if row["split"] == "valid":
                target = folder / row["file"]
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(corpus / row["file"], target)
    return folder


if __name__ == "__main__":
    main()
