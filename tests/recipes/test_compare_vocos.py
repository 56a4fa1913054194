"""The comparison with Vocos: a training that resumes, sounds at each mark, and the curves of all systems."""

import json
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from support.corpus import write_corpus, write_recipe
from support.messages import PROJECT, Messages
from support.runs import train

from wavegen.checkpoint import load_checkpoint
from wavegen.errors import CheckpointError, ConfigError
from wavegen.evaluation.summary import Interval

SCRIPT = PROJECT / "recipes/speech24k/compare_vocos.py"


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    """The names that the script defines."""
    return runpy.run_path(str(SCRIPT))


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """A corpus, and beside it a recipe that lists it and a manifest that another script reads."""
    folder = write_corpus(tmp_path / "corpus", clips=4, seconds=0.8)
    write_recipe(tmp_path / "tiny.yaml", folder)
    rows = [f"a{index}.wav\t{'valid' if index < 2 else 'train'}" for index in range(4)]
    (folder / "MANIFEST.tsv").write_text("\n".join(["file\tsplit", *rows]) + "\n")
    return folder


# --- without the package ---


def test_a_missing_package_is_named_with_the_command_that_installs_it(
    script: dict[str, Any], monkeypatch: pytest.MonkeyPatch, messages: Messages
) -> None:
    monkeypatch.setitem(sys.modules, "vocos", None)
    with messages.refused(ConfigError):
        script["vocos_module"]("models")


def test_without_the_package_the_script_ends_with_one_line_and_writes_nothing(
    script: dict[str, Any],
    corpus: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "vocos", None)
    assert script["main"](["train", str(corpus), "--out", str(tmp_path / "vocos")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not (tmp_path / "vocos").exists()


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
    systems = script["wavegen_systems"]("ours", run, [3.5, 6.0, 60.0], [1, 3])
    found = [(system.folder, system.spent.steps) for system in systems]
    assert found == [
        ("ours+1@3.5", 2), ("ours+1@6", 6), ("ours+1@60", 8), ("ours+3@3.5", 2), ("ours+3@6", 6), ("ours+3@60", 8),
    ]  # fmt: skip
    with pytest.raises(CheckpointError, match="at most 1 minutes"):
        script["wavegen_systems"]("ours", run, [0.5, 1.0], [1])


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


# --- with it ---


class StopsAfterOneStep:
    """In place of ``Interruption``: as if the user pressed Ctrl-C during the first step."""

    checks = 0

    def __enter__(self) -> "StopsAfterOneStep":
        return self

    def __exit__(self, *error: object) -> None:
        pass

    @property
    def requested(self) -> bool:
        self.checks += 1
        return self.checks > 1


@pytest.mark.slow  # Vocos has one size
@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
def test_vocos_resumes_exactly_and_is_scored_beside_a_run(
    script: dict[str, Any], corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("vocos", reason="needs the package vocos", exc_type=ImportError)
    monkeypatch.chdir(tmp_path)
    corpus.with_name("others").symlink_to(corpus)
    options = ["--recipe", "tiny.yaml", "--batch", "1", "--steps", "2", "--device", "cpu"]
    main = script["main"]
    assert main(["train", "corpus", *options, "--unseen", "others", "--marks", "1e-6", "--out", "whole"]) == 0

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(script["train"].__globals__, "Interruption", StopsAfterOneStep)
        assert main(["train", "corpus", *options, "--out", "halved"]) == 0
    assert not list(Path("halved").glob("checkpoints/*"))
    assert main(["train", "corpus", *options, "--out", "halved"]) == 0
    states = [load_checkpoint(Path(out) / "state.safetensors") for out in ("whole", "halved")]
    assert states[0][1]["spent"][0] == states[1][1]["spent"][0] == 2
    assert all(torch.equal(tensor, states[1][0][name]) for name, tensor in states[0][0].items())

    first, last = sorted(float(path.stem.removeprefix("minutes-")) for path in Path("whole/checkpoints").iterdir())
    assert first == 1e-6
    assert train(Path("tiny.yaml"), Path("run"), "training.keep_checkpoints=9") == 0
    log = Path("run/log.jsonl")
    log.write_text(json.dumps({"step": 8, "kind": "train", "steps_per_s": 1e6}) + "\n")  # early enough for a mark
    assert main(["evaluate", "whole", "--run", "ours=run", "--iterations", "1", "--jobs", "1"]) == 0
    _, *rows = [line.split("\t") for line in Path("whole/comparison/curves.tsv").read_text().splitlines()]
    assert {(row[0], row[1]) for row in rows} == {
        (corpus_name, system)
        for corpus_name in ("corpus", "others")
        for system in ("vocos", "ours+1", "griffin-lim", "source-filter")
    }
    assert {row[3] for row in rows if row[1] == "vocos"} == {"1", "2"}
    sounds = {path.relative_to("whole/sounds/corpus").as_posix() for path in Path("whole/sounds/corpus").rglob("*.wav")}
    assert {"recordings/a0.wav", "vocos@1e-06/a1.wav", f"vocos@{last:g}/a0.wav"} <= sounds
    speeds = dict(line.split("\t")[:2] for line in Path("whole/comparison/systems.tsv").read_text().splitlines()[1:])
    assert int(speeds["vocos"]) == 13_531_650
    assert Path("whole/comparison/curves.png").stat().st_size > 10_000
    assert Path("whole/comparison/others/index.html").is_file()
