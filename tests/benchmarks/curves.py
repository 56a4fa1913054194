"""Scores over the time of a training: ``python tests/benchmarks/curves.py RUN [RUN …] [--figure curves.png]``.

The scores are those of the validation clips that a run synthesised for TensorBoard, from its log:
``training.listen_clips`` and ``training.listen_frames`` set their number and length. Minutes count training
without validation, from the steps per second in the log.
"""

import argparse
import json
from pathlib import Path
from typing import Any

METRICS = ("pesq", "stoi", "log_mel", "m_stft")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    parser.add_argument("--figure", type=Path, help="also plot the scores over minutes, to this .png")
    arguments = parser.parse_args()
    curves = {run.resolve().name: read_curve(run) for run in arguments.runs}
    for name, rows in curves.items():
        print(name)
        print(f"{'steps':>8} {'minutes':>8} " + " ".join(f"{metric:>8}" for metric in METRICS))
        for row in rows:
            scores = " ".join(f"{row.get(metric, float('nan')):8.3f}" for metric in METRICS)
            print(f"{row['step']:8} {row['minutes']:8.1f} {scores}")
    if arguments.figure:
        draw(curves, arguments.figure)


def read_curve(run: Path) -> list[dict[str, Any]]:
    """The log's rows of kind ``listened``, each with the minutes of training before it."""
    minutes = 0.0
    step = 0
    rows = []
    for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if row["kind"] == "train":
            minutes += (row["step"] - step) / row["steps_per_s"] / 60
            step = row["step"]
        elif row["kind"] == "listened":
            rows.append({**row, "minutes": minutes})
    return rows


def draw(curves: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """Plot one panel per metric, with one line per run."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 6), layout="constrained")
    for axes, metric in zip(figure.subplots(2, 2).flat, METRICS, strict=True):
        for name, rows in curves.items():
            axes.plot([row["minutes"] for row in rows], [row.get(metric) for row in rows], marker=".", label=name)
        axes.set(title=metric, xlabel="minutes of training")
        axes.grid(alpha=0.3)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center")
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
