"""wavegen-import: make a model of another project's weights."""

import argparse
import sys
from pathlib import Path

from wavegen.commands import command_parser, notify, run_command

SOURCES = ("vocos", "parallel-wavegan", "wavenet-vocoder")


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = command_parser(
        "wavegen-import",
        "Make a model of another project's weights, with the same sound. It is the one command that reads a pickle: "
        "plain weights alone, in a process of its own.",
    )
    parser.add_argument("source", choices=SOURCES, help="the project that wrote the weights")
    parser.add_argument(
        "folder", help="its config and weights: a folder or, for Vocos, a repository on the Hub, hf://OWNER/NAME"
    )
    parser.add_argument("--out", type=Path, help="the folder of the model (default: runs/SOURCE)")
    arguments = parser.parse_args(argv)
    return run_command("wavegen-import", lambda: _import(arguments))


def _import(arguments: argparse.Namespace) -> int:
    from wavegen.exchange.sources import read_foreign
    from wavegen.mel import PROFILES

    out = arguments.out or Path("runs") / arguments.source
    imported = read_foreign(arguments.source, arguments.folder)
    model = imported.save(out)
    known = next((name for name, spec in PROFILES.items() if spec == imported.mel), "a definition of its own")
    notify(f"mel: {known}, {imported.mel.sample_rate_hz} Hz, {imported.mel.n_mels} bins")
    notify(f"model: {model}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
