"""wavegen-bench: how fast a vocoder is on this machine."""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from wavegen.commands import run_command, say


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="wavegen-bench",
        description="Measure how fast a vocoder is here, with every engine and precision that works, beside plain "
        "torch in the same run. Each row has its own process, and one thread unless more are asked for; medians.",
    )
    parser.add_argument(
        "model",
        nargs="?",
        help="a run's folder, a model file, a recipe (with random weights), wavenet-small, wavenet-medium or "
        "wavenet-large (default: newest finished run, or wavenet-medium)",
    )
    parser.add_argument("--engine", choices=("auto", "torch", "numba"), default="auto", help="(default: all)")
    parser.add_argument("--precision", choices=("float32", "int16"), help="(default: both)")
    parser.add_argument("--batch", type=int, help="utterances at once (default: 1, and a batch that suits)")
    parser.add_argument("--threads", type=int, default=1, help="that generate at the same time (default: %(default)s)")
    parser.add_argument("--runs", type=int, default=5, help="whose median counts (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows there")
    arguments = parser.parse_args(argv)
    for name in ("batch", "threads", "runs"):
        if getattr(arguments, name) is not None and getattr(arguments, name) < 1:
            parser.error(f"--{name} {getattr(arguments, name)}: give at least 1")
    if arguments.engine == "torch" and arguments.precision == "int16":
        parser.error("--precision int16: the torch engine has float32 alone")
    return run_command("wavegen-bench", lambda: _bench(arguments))


def _bench(arguments: argparse.Namespace) -> int:
    from tqdm import tqdm

    from wavegen.benchmark import REFERENCE, default_settings, measure, table, to_json
    from wavegen.checkpoint import find_model
    from wavegen.errors import CheckpointError, ConfigError
    from wavegen.files import write_beside
    from wavegen.progress import pace

    model = arguments.model
    if model is None:
        try:
            model = str(find_model(None).parent)
        except CheckpointError:
            model = "wavenet-medium"
    settings = [
        replace(setting, threads=arguments.threads, batch=arguments.batch or setting.batch)
        for setting in [REFERENCE, *default_settings(model)]
        if arguments.engine in ("auto", setting.engine) and arguments.precision in (None, setting.precision)
    ]
    if not settings:  # of the engine or precision asked for
        raise ConfigError(f"{model} runs in plain torch alone", where="--engine", remedy="leave it out")
    with tqdm(desc="measuring", unit="run", **pace()) as bar:
        rows = measure(model, settings, runs=arguments.runs, note=bar.write, on_run=bar.update)
    if arguments.json is not None:
        with write_beside(arguments.json) as beside:
            beside.write_text(to_json(rows), encoding="utf-8")
    say(table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
