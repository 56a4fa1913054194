"""wavegen-export: write a model in a form that others load."""

import argparse
import sys
from pathlib import Path

from wavegen.commands import command_parser, notify, run_command


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = command_parser("wavegen-export", "Write a model in a form that others load.")
    parser.add_argument("model", help="a run's folder, a model file, or 'default', the voice that wavegen ships")
    parser.add_argument("out", type=Path, help="what to write")
    parser.add_argument(
        "--hub", action="store_true", help="write a folder for the Hugging Face Hub: weights, config and a card"
    )
    parser.add_argument("--licence", metavar="ID", help="the licence on the card, such as mit (default: unknown)")
    parser.add_argument("--data", metavar="TEXT", help="what the card says about the training data")
    parser.add_argument(
        "--scores",
        type=Path,
        metavar="FOLDER",
        help="results of wavegen-evaluate for the card (default: the samples of the run)",
    )
    arguments = parser.parse_args(argv)
    if not arguments.hub:
        parser.error("give --hub")
    return run_command("wavegen-export", lambda: _export(arguments))


def _export(arguments: argparse.Namespace) -> int:
    from wavegen.exchange.hub import write_hub_folder

    model = write_hub_folder(
        arguments.model, arguments.out, licence=arguments.licence, data=arguments.data, scores=arguments.scores
    )
    notify(f"written: {model.parent}; upload it with: hf upload OWNER/NAME {model.parent}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
