"""The comparison of runs: which checkpoints stand for them, tables, curves and pages."""

import json
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.corpus import write_corpus, write_recipe
from support.messages import PROJECT, Messages
from support.runs import train

from wavegen.checkpoint import save_checkpoint
from wavegen.errors import CheckpointError, ConfigError
from wavegen.evaluation.summary import Interval

SCRIPT = PROJECT / "recipes/speech24k/compare_runs.py"


@pytest.fixture(scope="module")
def script() -> Iterator[dict[str, Any]]:
    """The names that the script defines, which finds its neighbour as it does when it is called."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(SCRIPT.parent)
        yield runpy.run_path(str(SCRIPT))


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """A corpus with a manifest, and beside it a recipe."""
    folder = write_corpus(tmp_path / "corpus", clips=4, seconds=0.8)
    write_recipe(tmp_path / "tiny.yaml", folder)
    rows = [f"a{index}.wav\t{'valid' if index < 2 else 'train'}" for index in range(4)]
    (folder / "MANIFEST.tsv").write_text("\n".join(["file\tsplit", *rows]) + "\n")
    return folder


def test_minutes_of_a_run_leave_validation_out(script: dict[str, Any], tmp_path: Path) -> None:
    rows = [
        {"step": 60, "kind": "train", "steps_per_s": 1.0},
        {"step": 60, "kind": "valid", "elapsed_s": 999},
        {"step": 120, "kind": "train", "steps_per_s": 0.5},
        {"step": 180, "kind": "train", "steps_per_s": 1.0},
    ]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert script["minutes_of"](tmp_path, 60)[:2] == (60, 1.0)
    assert script["minutes_of"](tmp_path, 120)[:2] == (120, 3.0)


def test_a_run_is_compared_by_its_newest_checkpoint_that_had_no_more_minutes(
    script: dict[str, Any], corpus: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    assert train(tmp_path / "tiny.yaml", run, "training.keep_checkpoints=9") == 0
    rows = [{"step": step, "kind": "train", "steps_per_s": 1 / 60} for step in range(1, 9)]  # a minute each
    (run / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    systems = script["systems_of_run"]("ours", run, [3.5, 6.0, 60.0], [1, 3])
    found = [(system.folder, system.spent.steps) for system in systems]
    assert found == [
        ("ours+1@3.5", 2), ("ours+1@6", 6), ("ours+1@60", 8), ("ours+3@3.5", 2), ("ours+3@6", 6), ("ours+3@60", 8),
    ]  # fmt: skip
    with pytest.raises(CheckpointError, match="at most 1 minutes"):
        script["systems_of_run"]("ours", run, [0.5, 1.0], [1])


def test_predictors_are_drawn_as_the_difference_to_the_recordings(script: dict[str, Any]) -> None:
    system = script["System"]("vocos", "vocos@5", script["Spent"](7, 5.0, 4.0), 1, lambda samples: samples)
    opinion = Interval(4.0, 3.9, 4.1, 6, to_reference=Interval(-0.25, None, None, 3))
    summary = {"vocos@5": {"pesq": Interval(3.5, 3.25, 3.75, 6), "distillmos": opinion}}
    rows = script["curve_rows"]("corpus", [system], summary)
    assert rows == [
        ["corpus", "vocos", "5.00", 7, "PESQ", "3.5", "3.25", "3.75", 6],
        ["corpus", "vocos", "5.00", 7, "DistillMOS minus recordings", "-0.25", "", "", 3],
    ]
    assert [axes.get_title() for axes in script["curves"](rows).axes] == [
        "corpus: PESQ",
        "corpus: DistillMOS minus recordings",
    ]


def test_vocos_is_compared_by_its_checkpoints(script: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "state.safetensors").touch()  # what tells its folder from a run of wavegen-train
    for mark in (5, 30):
        save_checkpoint(
            tmp_path / "checkpoints" / f"minutes-{mark}.safetensors", {}, {"spent": (10 * mark, float(mark), 1.0)}
        )
    found = {path.name: spent[:2] for path, spent in script["vocos_checkpoints"](tmp_path).items()}
    assert found == {"minutes-5.safetensors": (50, 5.0), "minutes-30.safetensors": (300, 30.0)}


def test_runs_and_baselines_are_scored_on_every_corpus(script: dict[str, Any], corpus: Path, tmp_path: Path) -> None:
    other, run, out = corpus.with_name("other"), tmp_path / "run", tmp_path / "comparison"
    other.symlink_to(corpus)
    assert train(tmp_path / "tiny.yaml", run, "training.keep_checkpoints=9") == 0
    arguments = [str(corpus), str(other), "--run", f"ours={run}", "--minutes", "1e3", "--iterations", "1"]
    assert script["main"]([*arguments, "--out", str(out), "--jobs", "1"]) == 0
    _, *rows = [line.split("\t") for line in (out / "curves.tsv").read_text().splitlines()]
    assert {(row[0], row[1]) for row in rows} == {
        (name, system) for name in ("corpus", "other") for system in ("ours+1", "griffin-lim", "source-filter")
    }
    speeds = dict(line.split("\t")[:2] for line in (out / "systems.tsv").read_text().splitlines()[1:])
    assert int(speeds["ours+1"]) > 0
    assert (out / "curves.png").stat().st_size > 10_000
    assert (out / "other" / "index.html").is_file()
    assert not (out / "sounds").exists()


def test_a_corpus_without_validation_clips_is_refused(script: dict[str, Any], corpus: Path, messages: Messages) -> None:
    (corpus / "MANIFEST.tsv").write_text("file\tsplit\na0.wav\ttrain\n")
    with messages.refused(ConfigError):
        script["validation_clips"](corpus, None)
