"""Evaluation in shards: each generates and scores some of the clips, and a merge writes what one evaluation writes."""

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from wavegen.checkpoint import find_model
from wavegen.errors import OutputError
from wavegen.evaluation.evaluate import (
    AUDIO,
    Evaluation,
    EvaluationRequest,
    Plan,
    generate,
    new_results,
    plan_evaluation,
    scoring_jobs_of,
    write_evaluation,
)
from wavegen.evaluation.metrics import Scores, available
from wavegen.evaluation.results import score_all
from wavegen.evaluation.scoring import ScoredClip, Workers
from wavegen.shards import PART, Part, Shard, digest, identity, is_finished, join_parts, remove_parts, write_part


def clips_to_share(request: EvaluationRequest, out: Path) -> list[str]:
    """Names of the clips that the shards of an evaluation share; checks everything before any work."""
    return list(plan_evaluation(request, out).pairing.references)


def evaluate_part(
    request: EvaluationRequest,
    out: Path,
    shard: Shard,
    *,
    device: torch.device | str = "cpu",
    jobs: int | None = None,
    progress: bool = True,
) -> int:
    """Generate and score the clips of one shard into its part of ``out``; returns the number of clips.

    A part that is complete already, from the same files and settings, is kept.

    Args:
        request: the whole evaluation.
        out: the folder for its results.
        shard: the shard.
        device, jobs, progress: those of ``evaluate``.

    Raises:
        WavegenError: see ``evaluate``.
    """
    plan = plan_evaluation(request, out)
    names = shard.of(list(plan.pairing.references))
    references = {name: plan.pairing.references[name] for name in names}
    folder, items, settings = shard.folder(out), _items(plan, references), _settings(request, plan)
    if is_finished(shard, out, items, settings):
        return len(names)
    (folder / PART).unlink(missing_ok=True)
    with Workers(jobs, progress=progress) as workers:
        generated = generate(plan, references, folder / AUDIO, workers, device)
        scoring_jobs = scoring_jobs_of(plan, references, generated.outputs)
        clips = score_all(scoring_jobs, workers) if scoring_jobs else []
    made = [path for by_clip in generated.outputs.values() for path in by_clip.values()]
    write_part(
        Part(
            shard,
            folder,
            items=items,
            settings=settings,
            files=[path.relative_to(folder).as_posix() for path in made],
            results={"clips": {clip.name: _to_json(clip) for clip in clips}, "faults": generated.faults},
        )
    )
    return len(names)


def merge_evaluation(request: EvaluationRequest, out: Path) -> Evaluation:
    """Join the parts of all shards to what one ``evaluate`` writes, byte for byte.

    Args:
        request: the whole evaluation, as the shards were given it.
        out: the folder for its results.

    Raises:
        DataError: the parts have gaps, overlaps or different settings, or there is nothing to score.
        WavegenError: see ``evaluate``.
    """
    plan = plan_evaluation(request, out)
    references = plan.pairing.references
    parts = join_parts(out, _items(plan, references), _settings(request, plan))
    with new_results(out) as folder:
        _link_files(parts, folder)

        # Everything in the order of the plan, as one evaluation writes it.
        found = {name: clip for part in parts for name, clip in part.results["clips"].items()}
        clips = [_from_json(name, found[name]) for name in references if name in found]
        generated: dict[str, dict[str, Path]] = {}
        missing = []
        for system in plan.systems:
            if system in plan.pairing.outputs:
                continue
            faults = {clip: fault for part in parts for clip, fault in part.results["faults"][system].items()}
            generated[system] = {clip: _sound(folder, system, clip) for clip in references if clip not in faults}
            missing += [f"{system} has no output for {clip}: {faults[clip]}" for clip in references if clip in faults]
        jobs = scoring_jobs_of(plan, references, generated)
        evaluation = write_evaluation(request, plan, out, folder, jobs, clips, missing)
    remove_parts(out)
    return evaluation


def _sound(folder: Path, system: str, clip: str) -> Path:
    return folder / AUDIO / system / f"{clip}.wav"


def _items(plan: Plan, references: Mapping[str, Path]) -> dict[str, Any]:
    """Clip name -> identities of the recording and of its outputs that were there before."""
    return {
        clip: [identity(path), *(identity(files[clip]) for files in plan.pairing.outputs.values() if clip in files)]
        for clip, path in references.items()
    }


def _settings(request: EvaluationRequest, plan: Plan) -> dict[str, Any]:
    """What the results depend on besides the sounds."""
    return {
        "systems": plan.systems,
        "models": [digest(find_model(model)) for model in request.models],
        "speaker": request.speaker,
        "log-mel": plan.spec.model_dump(mode="json"),
        "list of metrics": available(),
    }


def _to_json(clip: ScoredClip) -> dict[str, Any]:
    scores = {system: {"values": s.values, "reasons": s.reasons} for system, s in clip.scores.items()}
    return {"scores": scores, "unreadable": sorted(clip.unreadable)}


def _from_json(name: str, clip: Mapping[str, Any]) -> ScoredClip:
    scores = {system: Scores(**values) for system, values in clip["scores"].items()}
    return ScoredClip(name, scores, frozenset(clip["unreadable"]))


def _link_files(parts: Sequence[Part], folder: Path) -> None:
    """Put the sounds of all parts into ``folder``; the parts keep theirs until the merge is finished."""
    for part in parts:
        for name in part.files:
            source, target = part.folder / name, folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(source, target)
            except FileNotFoundError as error:
                remedy = f"run the command with --shard {part.shard} again"
                raise OutputError("is gone", where=source, remedy=remedy) from error
            except OSError:  # a file system without hard links
                shutil.copyfile(source, target)
