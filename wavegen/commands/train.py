"""wavegen-train: train a vocoder from recordings."""

import argparse
import sys
from pathlib import Path

from wavegen.commands import INTERRUPTED, command_parser, notify, pick_device, run_command


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = command_parser(
        "wavegen-train",
        "Extract features, train a vocoder, and synthesise validation clips. Finished stages are skipped, and a "
        "stopped run resumes. On several GPUs: torchrun --no-python --nproc-per-node N wavegen-train …",
    )
    parser.add_argument("recipe", nargs="?", help="a recipe's name, such as demo or folder/spectral, or a YAML file")
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="settings of the recipe, such as training.steps=5000"
    )
    parser.add_argument("--out", type=Path, help="the run's folder (default: runs/RECIPE)")
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, … (default: a GPU if there is one)")
    parser.add_argument("--list", action="store_true", help="list the recipes, and do nothing else")
    parser.add_argument(
        "--show",
        action="store_true",
        help="print all settings of the recipe, each with its meaning and its value, and do nothing else; the output "
        "is a recipe too",
    )
    arguments = parser.parse_intermixed_args(argv)
    if arguments.recipe is None and not arguments.list:
        parser.error("give a RECIPE, or --list")
    return run_command("wavegen-train", lambda: _train(arguments))


def _train(arguments: argparse.Namespace) -> int:
    from wavegen.recipe import default_run_name, find_recipe, list_recipes, load_recipe
    from wavegen.settings import describe

    if arguments.list:
        notify(list_recipes())
        return 0
    path = find_recipe(arguments.recipe)
    recipe = load_recipe(path, arguments.overrides)
    if arguments.show:
        notify(describe(recipe))
        return 0
    from wavegen.pipeline import run

    out = arguments.out or Path("runs") / default_run_name(arguments.recipe)
    finished = run(recipe, path, out, device=pick_device(arguments.device), notify=notify, progress=True)
    return 0 if finished else INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
