"""wavegen-bench: measure how fast a vocoder is on this machine."""

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import Any

from wavegen.commands import at_least, command_parser, notify, run_command


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = command_parser(
        "wavegen-bench",
        "Measure how fast a vocoder is on this machine, with each of its engines and precisions, and with the torch "
        "engine for reference. Each row runs in a process of its own, with one thread unless --threads says otherwise. "
        "The figures are medians.",
    )
    parser.add_argument(
        "model",
        nargs="?",
        help="a run's folder, a model file, a recipe (with random weights), wavenet-small, wavenet-medium or "
        "wavenet-large (default: the newest finished run, or wavenet-medium)",
    )
    parser.add_argument("--engine", default="auto", help="one of the vocoder's engines (default: all of them)")
    parser.add_argument("--precision", help="precision of the engine's weights, such as float32 (default: all)")
    parser.add_argument(
        "--batch", type=at_least(1), help="utterances generated at once (default: 1 and, for a WaveNet, 16)"
    )
    parser.add_argument(
        "--threads", type=at_least(1), default=1, help="threads that generate at the same time (default: %(default)s)"
    )
    parser.add_argument(
        "--runs", type=at_least(1), default=5, help="number of runs that the medians are over (default: %(default)s)"
    )
    parser.add_argument(
        "--peers",
        action="store_true",
        help="also measure Griffin-Lim with 32 iterations and, where its package is installed, Vocos",
    )
    parser.add_argument(
        "--parts",
        action="store_true",
        help="show instead how the CPU time of a vocoder with a shaped source is shared between the parts of its chain",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows to this file")
    arguments = parser.parse_args(argv)
    if arguments.parts and (arguments.peers or arguments.batch or arguments.threads > 1):
        parser.error("--parts measures one utterance in one thread: leave out --batch, --threads and --peers")
    return run_command("wavegen-bench", lambda: _bench(arguments))


def _bench(arguments: argparse.Namespace) -> int:
    from tqdm import tqdm

    from wavegen.benchmark import choose_settings, measure, table, to_json
    from wavegen.breakdown import measure_parts, parts_table
    from wavegen.checkpoint import find_model
    from wavegen.errors import CheckpointError
    from wavegen.files import atomic_write
    from wavegen.progress import bar_options

    model = arguments.model
    if model is None:
        try:
            model = str(find_model(None).parent)
        except CheckpointError:
            model = "wavenet-medium"
    settings = choose_settings(
        model,
        engine=arguments.engine,
        precision=arguments.precision,
        batch=arguments.batch,
        threads=arguments.threads,
        peers=arguments.peers,
    )
    with tqdm(desc="measuring", unit="run", **bar_options()) as bar:
        options: Any = {
            "runs": arguments.runs,
            "notify": partial(bar.write, file=sys.stderr),
            "on_run": bar.update,
        }
        if arguments.parts:
            breakdowns = measure_parts(model, settings, **options)
            text, card = parts_table(breakdowns), to_json(breakdowns, "parts")
        else:
            rows = measure(model, settings, **options)
            text, card = table(rows), to_json(rows)
    if arguments.json is not None:
        with atomic_write(arguments.json) as beside:
            beside.write_text(card, encoding="utf-8")
    notify(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
