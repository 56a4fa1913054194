"""wavegen-evaluate: scores outputs against recordings, and writes a page to listen to them."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from wavegen.commands import at_least, command_parser, notify, pick_device, run_command
from wavegen.commands._sharding import add_sharding, run_shards

if TYPE_CHECKING:
    from wavegen.evaluation.evaluate import Evaluation, EvaluationRequest
    from wavegen.shards import Shard


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = command_parser(
        "wavegen-evaluate",
        "Score outputs against the recordings of the same names, from any project and at any sample rate. "
        "Writes scores.csv, summary.json and index.html, a page to listen to them.",
    )
    parser.add_argument("references", type=Path, nargs="?", help="a folder of recordings, or a single recording")
    parser.add_argument("outputs", type=Path, nargs="*", help="a folder of outputs per system, or single files")
    parser.add_argument(
        "--model", type=Path, action="append", default=[], metavar="RUN_OR_FILE",
        help="also score this model, which speaks the recordings' mels; can be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--reads", action="append", default=[], metavar="PROFILE",
        help="mel profile that models speak from (default: their own); can be repeated, for models of any mel",
    )  # fmt: skip
    parser.add_argument(
        "--iterations", type=at_least(0), action="append", default=[], metavar="N",
        help="Griffin-Lim iterations of the models' synthesis (default: as in their recipes); can be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--speaker", metavar="NAME",
        help="speaker for models with several speakers (default: the speaker named like a recording's folder)",
    )  # fmt: skip
    parser.add_argument(
        "--baseline", action="append", default=[], metavar="NAME",
        help="also score griffin-lim, source-filter, mu-law (256 levels) or pcm16, computed from the recordings; "
        "can be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--out", type=Path, default=Path("evaluation"), help="folder for the results (default: %(default)s)"
    )
    parser.add_argument(
        "--profile", help="mel profile to score by (default: that of the model with the lowest sample rate)"
    )
    parser.add_argument(
        "--half", choices=("first", "second"),
        help="score every other recording: settings are chosen on the first half and reported on the second",
    )  # fmt: skip
    parser.add_argument("--jobs", type=at_least(1), help="number of processes (default: one per core)")
    parser.add_argument("--device", default="auto", help="device for --model: cpu, cuda, … (default: a GPU if present)")
    parser.add_argument(
        "--ratings", type=Path, nargs="+", metavar="FILE", help="summarise saved listening tests, and do nothing else"
    )
    add_sharding(parser)
    arguments = parser.parse_args(argv)
    if arguments.ratings is None:
        if arguments.references is None:
            parser.error("nothing to evaluate: give REFERENCES and OUTPUTS, or --ratings")
        if not (arguments.outputs or arguments.model or arguments.baseline):
            parser.error("nothing to compare with: give OUTPUTS, --model or --baseline")
    for option in ("reads", "iterations"):
        if getattr(arguments, option) and not arguments.model:
            parser.error(f"--{option} applies only to models: give --model")
    return run_command("wavegen-evaluate", lambda: _evaluate(arguments))


def _evaluate(arguments: argparse.Namespace) -> int:
    if arguments.ratings is not None:
        from wavegen.listening.ratings import summarize_ratings

        notify(summarize_ratings(arguments.ratings))
        return 0
    from wavegen.evaluation.evaluate import EvaluationRequest
    from wavegen.evaluation.sharded import evaluate_part

    request = EvaluationRequest(
        references=arguments.references,
        outputs=arguments.outputs,
        models=arguments.model,
        baselines=arguments.baseline,
        speaker=arguments.speaker,
        scoring_profile=arguments.profile,
        model_profiles=arguments.reads,
        iterations=arguments.iterations,
        only=arguments.half,
    )
    if arguments.shard is not None:
        device = pick_device(arguments.device) if arguments.model else "cpu"
        clips = evaluate_part(request, arguments.out, arguments.shard, device=device, jobs=arguments.jobs)
        notify(f"{clips} clips: {arguments.shard.folder(arguments.out)}")
        return 0
    result = _run(arguments, request)
    notify(result.table())
    notify(f"{len(result.clips)} clips: {arguments.out / 'index.html'}")
    return 0


def _run(arguments: argparse.Namespace, request: "EvaluationRequest") -> "Evaluation":
    """Evaluate everything here or by a cluster, or merge what shards have evaluated."""
    from wavegen.evaluation.evaluate import evaluate
    from wavegen.evaluation.sharded import clips_to_share, merge_evaluation

    if arguments.ray is not None:
        is_cpu = arguments.device == "auto" or not arguments.model
        name = "cpu" if is_cpu else pick_device(arguments.device).type
        run_shards(
            arguments.ray,
            arguments.out,
            clips_to_share(request, arguments.out),
            _evaluate_part,
            lambda shard, own: (request, arguments.out, shard, name),
            title="evaluating",
            gpus=1 if name == "cuda" else 0,
        )
    if arguments.ray is not None or arguments.merge:
        return merge_evaluation(request, arguments.out)
    device = pick_device(arguments.device) if arguments.model else "cpu"
    return evaluate(request, arguments.out, device=device, jobs=arguments.jobs)


def _evaluate_part(task: "tuple[EvaluationRequest, Path, Shard, str]") -> None:
    """Evaluate the part of one shard in a process of a cluster."""
    from wavegen.evaluation.sharded import evaluate_part

    request, out, shard, device = task
    evaluate_part(request, out, shard, device=pick_device(device), jobs=1, progress=False)


if __name__ == "__main__":
    sys.exit(main())
