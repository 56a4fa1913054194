"""Every command and every program in the READMEs runs, and every file they name is there."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
import soundfile
from support.corpus import RATE, voice

from wavegen.commands import bench, evaluate, extract, synth, train
from wavegen.evaluation.metrics import METRICS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "wavegen-train": train.main,
    "wavegen-extract": extract.main,
    "wavegen-synth": synth.main,
    "wavegen-bench": bench.main,
    "wavegen-evaluate": evaluate.main,
}
RESULTS = ("scores.csv", "summary.json", "index.html")
# A training in a README is run as it stands there, with these on top.
TINY = [
    "training.steps=2", "training.batch_size=2", "training.segment_frames=16", "training.workers=0",
    "training.listen_clips=0", "samples.clips=1", "vocoder.channels=8", "vocoder.layers=2",
]  # fmt: skip
# What stands in a README and is run elsewhere, by whom.
ELSEWHERE = {
    "python3 conf/bootstrap.py wavegen-train demo": ".ci/run",
    "python3 conf/bootstrap.py pytest": ".ci/run",
    "pip install . -c conf/constraints.txt": "test_wheel.py",
    "torchrun --no-python --nproc-per-node 2 wavegen-train folder/spectral data.corpus=recordings --out runs/two": (
        "test_training.py: two processes against one"
    ),
}


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the README's commands have been run one after the other."""
    place = tmp_path_factory.mktemp("readme")
    (place / "recordings").mkdir()
    for i, name in enumerate(("hello", "one", "two")):
        soundfile.write(place / "recordings" / f"{name}.wav", voice(0.6, seed=i), RATE)
        for speaker, pitch_hz in (("ann", 200.0), ("bob", 100.0)):
            (place / "speakers" / speaker).mkdir(parents=True, exist_ok=True)
            path = place / "speakers" / speaker / f"{name}.wav"
            soundfile.write(path, voice(0.6, pitch_hz=pitch_hz, seed=i), RATE)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        for line in "".join(blocks("sh")).splitlines():
            if line in ELSEWHERE:
                continue
            program, *arguments = shlex.split(line)
            extra = TINY if program == "wavegen-train" else []
            assert COMMANDS[program]([*arguments, *extra]) == 0, line
    return place


def test_the_commands_leave_what_they_say(place: Path) -> None:
    made = {path.relative_to(place).as_posix() for path in place.rglob("*") if path.is_file()}
    assert {
        "hello.wav",
        "hello.flac",
        "as-ann.wav",
        "runs/speakers/model.safetensors",
        "spoken/one.wav",
        "runs/folder-spectral/model.safetensors",
    } <= made
    assert "card.json" in made
    assert {f"{place}/{name}" for place in ("evaluation", "compared") for name in RESULTS} <= made


def test_the_programs_run(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    programs = blocks("python")
    assert len(programs) == 3
    for program in programs:
        exec(compile(program, "README.md", "exec"), {"__name__": "readme"})


def test_the_table_of_metrics_is_the_registry() -> None:
    rows = [line.strip("| ").split(" | ") for line in README.splitlines() if re.match(r"\| .* \(`\w+`\) \|", line)]
    arrows = {"higher": "↑", "lower": "↓", "zero": "→0"}
    assert rows == [
        [f"{m.label} (`{key}`)", m.unit.replace("|", "\\|"), arrows[m.better], m.range, m.source]
        for key, m in METRICS.items()
    ]


def test_what_is_run_elsewhere_is() -> None:
    ci = (ROOT / ".ci" / "run").read_text()
    assert all(line in "".join(blocks("sh")) for line in ELSEWHERE), "no longer in the README"
    assert "check pytest" in ci
    assert "wavegen-train demo" in ci


@pytest.mark.parametrize("page", [ROOT / "README.md", *sorted(ROOT.glob("recipes/*/README.md"))], ids=str)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


def test_the_tree_in_the_readme_is_the_tree() -> None:
    named = set(re.findall(r"`wavegen/(\w+)(?:\.py|/)`|`(\w+)\.py`", README.split("## How it is made")[1]))
    flat = {name for pair in named for name in pair if name}
    modules = {p.stem for p in (ROOT / "wavegen").iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()}
    assert modules - {
        "__init__",
        "config",
        "errors",
        "files",
        "checkpoint",
        "synthesis",
        "progress",
        "threads",
    } <= flat | {"commands"}
    assert flat - {"spectral", "wavenet", "contracts"} <= modules


def test_no_part_is_left_over(place: Path) -> None:
    assert not [path for path in place.rglob("*") if ".part" in path.name]
