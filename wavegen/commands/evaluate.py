"""wavegen-evaluate: scores of sounds against the recordings that they should sound like, and a page to hear them."""

import argparse
import sys
from pathlib import Path

from wavegen.commands import pick_device, run_command, say


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="wavegen-evaluate",
        description="Score sounds against the recordings of the same names, of any project and at any sample rate. "
        "Writes scores.csv, summary.json and index.html, a page to listen to them.",
    )
    parser.add_argument("references", type=Path, nargs="?", help="a folder of recordings, or one recording")
    parser.add_argument("outputs", type=Path, nargs="*", help="folders of outputs, one a system, or single files")
    parser.add_argument(
        "--model", type=Path, action="append", default=[], metavar="RUN_OR_FILE",
        help="also let this model speak the recordings' mels; may be given again",
    )  # fmt: skip
    parser.add_argument(
        "--reads", action="append", default=[], metavar="PROFILE",
        help="mel definition that models speak from (default: their own); may be given again, for a model of several",
    )  # fmt: skip
    parser.add_argument(
        "--speaker", metavar="NAME",
        help="who speaks, of models that know several (default: whoever has the name of a recording's folder)",
    )  # fmt: skip
    parser.add_argument(
        "--baseline", action="append", default=[], metavar="NAME",
        help="also score griffin-lim, mu-law (256 levels) or pcm16, made of the recordings; may be given again",
    )  # fmt: skip
    parser.add_argument(
        "--out", type=Path, default=Path("evaluation"), help="folder for results (default: %(default)s)"
    )
    parser.add_argument("--profile", help="mel definition to score by (default: the model's, or by the sample rate)")
    parser.add_argument("--jobs", type=int, help="processes (default: one a core)")
    parser.add_argument(
        "--device", default="auto", help="for --model: cpu, cuda, … (default: a GPU where there is one)"
    )
    parser.add_argument(
        "--ratings", type=Path, nargs="+", metavar="FILE", help="sum up saved listening tests, and do nothing else"
    )
    arguments = parser.parse_args(argv)
    if arguments.ratings is None:
        if arguments.references is None:
            parser.error("give REFERENCES and OUTPUTS, or --ratings")
        if not (arguments.outputs or arguments.model or arguments.baseline):
            parser.error("nothing to compare with: give OUTPUTS, --model or --baseline")
    if arguments.reads and not arguments.model:
        parser.error("--reads is for models: give --model")
    if arguments.jobs is not None and arguments.jobs < 1:
        parser.error(f"--jobs {arguments.jobs}: give at least 1")
    return run_command("wavegen-evaluate", lambda: _evaluate(arguments))


def _evaluate(arguments: argparse.Namespace) -> int:
    if arguments.ratings is not None:
        from wavegen.listening.ratings import summarize_ratings

        say(summarize_ratings(arguments.ratings))
        return 0
    from wavegen.evaluation.evaluate import evaluate

    result = evaluate(
        arguments.references,
        arguments.outputs,
        arguments.out,
        models=arguments.model,
        speaker=arguments.speaker,
        baselines=arguments.baseline,
        mel=arguments.profile,
        reads=arguments.reads,
        device=pick_device(arguments.device) if arguments.model else "cpu",
        jobs=arguments.jobs,
    )
    say(result.table())
    say(f"{len(result.clips)} clips: {arguments.out / 'index.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
