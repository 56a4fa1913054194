"""The documents: commands and programs run or are accepted, links lead somewhere, tables agree with the code."""

import argparse
import re
import runpy
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from support.commands import command_main
from support.contracts import (
    check_batching,
    check_causality,
    check_context,
    check_length,
    check_purity,
    check_streaming,
)
from support.corpus import RATE, voice
from support.foreign import write_parallel_wavegan, write_vocos
from support.subjects import MEL, SPEAKERS, randomised, vocoder_subject
from torch.distributed.run import get_args_parser as torchrun_parser

from wavegen.config import load_yaml, parse
from wavegen.errors import ConfigError
from wavegen.evaluation.baseline import log_mel_of
from wavegen.evaluation.metrics import METRICS
from wavegen.mel import profile
from wavegen.recipe import find_recipe, load_recipe
from wavegen.training.shortest import shortest_segment
from wavegen.vocoders import find_vocoders

ROOT = Path(__file__).parent.parent
MAIN = ROOT / "README.md"
MANUAL = ROOT / "recipes/README.md"
DESIGN = ROOT / "wavegen/README.md"
GUIDE = ROOT / ".github/CONTRIBUTING.md"
CORPORA = sorted(ROOT.glob("recipes/*/README.md"))
CARD = ROOT / "wavegen/voice/README.md"
EXCHANGE = ROOT / "wavegen/exchange/README.md"
CLUSTERS = ROOT / "recipes/CLUSTERS.md"
DOCUMENTS = [MAIN, MANUAL, CLUSTERS, *CORPORA, DESIGN, CARD, EXCHANGE, ROOT / "tests/README.md",
             ROOT / "conf/README.md", ROOT / "conf/SYSTEMS.md", ROOT / "wavegen/API.md", GUIDE]  # fmt: skip
RESULTS = ("scores.csv", "summary.json", "index.html")

# The commands of these are run in this order; those of the other documents need a corpus, a GPU or minutes.
RUN = (MAIN, MANUAL, EXCHANGE)
# A training is run as the document has it, with these settings on top.
TINY = [
    "training.steps=2", "training.batch_size=2", "training.segment_frames=16", "training.workers=0",
    "training.listen_clips=0", "samples.clips=1", "vocoder.channels=8", "vocoder.layers=2",
]  # fmt: skip
# Commands that run elsewhere, and where; here they are only checked.
ELSEWHERE = {
    "wavegen-bench runs/folder-spectral": "with --json, in the manual",
    "wavegen-train folder/spectral data.manifest=pairs.tsv --out runs/predicted": "corpora/test_teacher_forced.py",
    "wavegen-train folder/voice data.corpus=recordings": "test_default_voice.py",
    "wavegen-extract pairs.tsv checked": "corpora/test_teacher_forced.py",
    # A vocoder of this size takes minutes to export.
    "wavegen-export default voice.onnx --reader": "exchange/onnx/test_export.py",
    "wavegen-export default stream.onnx --streaming": "exchange/onnx/test_export.py",
    "wavegen-export default small.onnx --precision float16": "exchange/onnx/test_export.py",
    "wavegen-synth recordings/hello.wav copy.wav --model voice.onnx": "exchange/onnx/test_export.py",
    "wavegen-export default page/ --browser": "exchange/onnx/test_browser.py",
    "wavegen-export default hifigan.onnx --profile hifigan-22k": "exchange/onnx/test_export.py",
    "wavegen-train speech24k/label data.corpus=recordings data.prepare=false --out runs/vowels "
    "'data.labels={suffix: .TextGrid, tier: phones}' model.exclusive=true model.background=pause "
    "'model.classes=[a, e, i, pause]' 'model.class_weights=[]'": "commands/test_label.py",
}


def name_of(document: Path) -> str:
    return document.relative_to(ROOT).as_posix()


def blocks(document: Path, language: str) -> list[str]:
    """The fenced blocks of a language."""
    text = document.read_text(encoding="utf-8")
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)
    return [block for its_language, block in found if its_language == language]


def commands(document: Path) -> list[str]:
    """The commands of a document, one a line, with continued lines joined."""
    text = "".join(blocks(document, "sh"))
    return [" ".join(line.split()) for line in text.replace("\\\n", " ").splitlines() if line]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the commands of ``RUN`` have been run one after the other."""
    place = tmp_path_factory.mktemp("documents")
    for i, name in enumerate(("hello", "one", "two")):
        for folder, pitch_hz in (("recordings", 120.0), ("speakers/ann", 200.0), ("speakers/bob", 100.0)):
            (place / folder).mkdir(parents=True, exist_ok=True)
            soundfile.write(place / folder / f"{name}.wav", voice(0.6, pitch_hz=pitch_hz, seed=i), RATE)
    np.save(place / "tts.npy", log_mel_of(voice(0.6, rate=22050).astype(np.float32), profile("hifigan-22k")))
    write_vocos(place / "vocos-mel-24khz", channels=8, layers=2)  # the shape in TINY
    write_parallel_wavegan(place / "ljspeech_parallel_wavegan.v1")
    lines = [line for document in RUN for line in commands(document) if line.startswith("wavegen-")]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        for line in dict.fromkeys(lines):  # each once, in order
            if line in ELSEWHERE:
                continue
            program, *arguments = shlex.split(line)
            extra = TINY if program == "wavegen-train" else []
            assert command_main(program.removeprefix("wavegen-"))([*arguments, *extra]) == 0, line
    return place


# --- commands and programs ---


def test_the_commands_leave_what_they_say(place: Path) -> None:
    made = {path.relative_to(place).as_posix() for path in place.rglob("*") if path.is_file()}
    assert {
        "copy.wav",
        "speech.wav",
        "hello.wav",
        "hello.flac",
        "as-ann.wav",
        "spoken/one.wav",
        "from-vocos.wav",
        "card.json",
        "with-vocos.wav",
        "vocos-for-the-hub/README.md",
    } <= made
    runs = ("folder-spectral", "speakers", "tuned", "any", "vocos", "pwg", "tuned-vocos")
    assert {f"runs/{run}/model.safetensors" for run in runs} <= made
    assert {
        f"{folder}/{name}"
        for folder in ("evaluation", "compared", "by-definition", "scores-of-vocos")
        for name in RESULTS
    } <= made
    assert not [name for name in made if ".part" in name]


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_the_programs_run(document: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    for program in blocks(document, "python"):
        exec(compile(program, name_of(document), "exec"), {"__name__": "document"})


class _Accepted(Exception):  # noqa: N818  (no error: it ends a program whose arguments are accepted)
    """The arguments that a program's parser has accepted."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        super().__init__()
        self.arguments = arguments


def accepted(program: Callable[[], object]) -> argparse.Namespace:
    """What a program's own parser makes of its arguments; the program ends there."""

    def only_parse(parse: Callable[..., argparse.Namespace]) -> Callable[..., Any]:
        def parse_and_end(*arguments: Any, **options: Any) -> None:
            raise _Accepted(parse(*arguments, **options))

        return parse_and_end

    with pytest.MonkeyPatch.context() as patch:
        for name in ("parse_args", "parse_intermixed_args"):
            patch.setattr(argparse.ArgumentParser, name, only_parse(getattr(argparse.ArgumentParser, name)))
        with pytest.raises(_Accepted) as ended:
            program()
    return ended.value.arguments


def check_command(words: list[str]) -> None:
    """Check that a command would be accepted: its program exists, its arguments parse, its recipe loads."""
    program, *arguments = words
    if program == "torchrun":
        torchrun = torchrun_parser().parse_args(arguments)
        check_command([torchrun.training_script, *torchrun.training_script_args])
    elif program.startswith("wavegen-"):
        parsed = accepted(lambda: command_main(program.removeprefix("wavegen-"))(arguments))
        if program == "wavegen-train" and not parsed.list:
            load_recipe(find_recipe(parsed.recipe), parsed.overrides)
    elif program in ("python", "python3"):
        script, *arguments = arguments
        assert (ROOT / script).is_file(), script
        if script == "conf/bootstrap.py":
            check_command(arguments)
        elif arguments or script.endswith(("training.py", "metrics.py")):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(sys, "argv", [script, *arguments])
                patch.syspath_prepend((ROOT / script).parent)  # as Python does
                accepted(lambda: runpy.run_path(str(ROOT / script), run_name="__main__"))
    elif program == "pip":
        assert arguments[0] == "install"
        assert "-r" in arguments or any(argument.startswith(".") for argument in arguments)
        assert all((ROOT / argument).is_file() for argument in arguments if argument.startswith("conf/"))
    else:
        assert program in ("pytest", "ruff", "mypy", "lint-imports", "pdoc", "curl", "tar"), f"no check for {program}"


def test_the_jobs_for_clusters_are_accepted() -> None:
    jobs = "".join(blocks(CLUSTERS, "bash")).replace("$SLURM_ARRAY_TASK_ID", "1")
    jobs = re.sub(r'--wrap "(.*)"$', r"-- \1", jobs, flags=re.MULTILINE)
    lines = [re.sub(r"^(srun|.* --) (?=wavegen-)", "", line) for line in jobs.splitlines() if "wavegen-" in line]
    assert len(lines) == 3
    for line in lines:
        check_command(shlex.split(line))


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_the_commands_are_accepted(document: Path) -> None:
    for line in commands(document):
        check_command(shlex.split(line))


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("wavegen-train folder/spectral data.corpus=recordings --ouch runs/mine", SystemExit),
        ("wavegen-train folder/spectral data.corpus=recordings training.setps=3", ConfigError),
        ("wavegen-train folder/spektral data.corpus=recordings", ConfigError),
        ("torchrun --no-python --procs 2 wavegen-train demo", SystemExit),
        ("python tests/benchmarks/missing.py", AssertionError),
        ("python tests/benchmarks/training.py demo --stops 20", SystemExit),
        ("python3 conf/bootstrap.py pysets", AssertionError),
    ],
)
def test_a_command_with_a_mistake_is_caught(line: str, error: type[BaseException]) -> None:
    with pytest.raises(error):
        check_command(shlex.split(line))


def test_commands_that_run_elsewhere_are_in_the_documents() -> None:
    assert ELSEWHERE.keys() <= {line for document in RUN for line in commands(document)}


def test_a_contributor_is_told_the_checks_of_the_ci_script() -> None:
    ci = (ROOT / ".ci/run").read_text(encoding="utf-8")
    checks = [line.removeprefix("check ") for line in ci.splitlines() if line.startswith("check ")]
    told = [line.removeprefix("python3 conf/bootstrap.py ") for line in commands(GUIDE)]
    assert [check for check in checks if check in told or check.startswith(("pytest", "wavegen-train demo"))] == checks
    assert set(told) - set(checks) == {"pytest -n 2"}


# --- the guide ---


def test_the_vocoder_in_the_guide_keeps_every_law(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "guide"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "direct.py").write_text(*blocks(GUIDE, "python"), encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    direct = find_vocoders("guide", [str(package)])["direct"]

    for example in direct.Config.examples():
        for speakers in ((), SPEAKERS):
            config = example.model_copy(update={"speaker_channels": 2 if speakers else 0})
            vocoder = randomised(direct(MEL, config, speakers=speakers))  # type: ignore[call-arg]
            given = vocoder_subject("direct", vocoder, teacher_forced=True)
            check_context(given)
            check_causality(given)
            used = vocoder_subject("direct", vocoder)
            for law in (check_length, check_batching, check_streaming, check_purity):
                law(used)

    path = tmp_path / "direct.yaml"
    path.write_text(*blocks(GUIDE, "yaml"), encoding="utf-8")
    config = parse(direct.Config, load_yaml(path)["vocoder"], where=path)
    recipe = load_recipe(path, ["vocoder={name: spectral}"])  # for the rest of it: no recipe knows this vocoder
    vocoder = direct(recipe.mel, config)  # type: ignore[call-arg]
    assert shortest_segment(vocoder, recipe.training) <= recipe.training.segment_frames


# --- what the documents say ---


def prose(document: Path) -> str:
    """A document without its blocks of code."""
    return re.sub(r"^```.*?^```", "", document.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def anchors(document: Path) -> set[str]:
    """The anchors that GitHub gives to a document's headings."""
    headings = re.findall(r"^#+ (.*)$", prose(document), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", prose(document)):
        path, _, anchor = target.partition("#")
        page = document.parent / path if path else document
        assert page.exists(), target
        if anchor:
            assert anchor in anchors(page), target


def test_the_readme_is_for_a_reader_with_two_minutes() -> None:
    text = MAIN.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 150
    assert len(text.split()) <= 1000


def test_the_readme_and_the_demo_have_the_same_scores() -> None:
    (scores,) = [block for block in blocks(MAIN, "") if "STOI" in block]
    assert scores in blocks(ROOT / "recipes/demo/README.md", "")


def test_every_recipe_folder_has_a_page_and_the_manual_links_to_it() -> None:
    folders = {path.parent.name for path in ROOT.glob("recipes/*/*.yaml")}
    assert {page.parent.name for page in CORPORA} == folders
    linked = set(re.findall(r"^\| \[\w+\]\((\w+)/README\.md\) \|", MANUAL.read_text(encoding="utf-8"), re.MULTILINE))
    assert linked == folders


def test_the_table_of_metrics_is_the_registry() -> None:
    text = MANUAL.read_text(encoding="utf-8")
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if re.match(r"\| .* \(`\w+`\) \|", line)]
    arrows = {"higher": "↑", "lower": "↓", "zero": "→0"}
    assert rows == [
        [f"{m.label} (`{key}`)", m.unit.replace("|", "\\|"), arrows[m.better], m.range, m.source]
        for key, m in METRICS.items()
    ]


def test_the_design_names_every_package_and_nothing_that_is_not_there() -> None:
    package = ROOT / "wavegen"
    rows = [line for line in DESIGN.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    named = {name for row in rows for name in re.findall(r"`([\w/]+/|\w+\.py)`", row.split(" | ")[0])}
    packages = {path.parent.relative_to(package).as_posix() + "/" for path in package.rglob("__init__.py")} - {"./"}
    assert packages <= named
    assert not [name for name in named if not (package / name).exists()]


def test_the_design_draws_the_layers_that_the_linter_checks() -> None:
    settings = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (layers,) = re.findall(r"^layers = \[\n(.*?)^\]", settings, flags=re.DOTALL | re.MULTILINE)
    checked = [re.findall(r"\w+", row.partition("#")[0]) for row in layers.splitlines()]
    row_of = {name: index for index, row in enumerate(checked) for name in row}
    text = DESIGN.read_text(encoding="utf-8")
    (drawn,) = re.findall(r"\n\n((?:    [a-z ]+\n)+)", text.partition("Imports point downwards")[2])
    rows = [[row_of[name] for name in line.split()] for line in drawn.splitlines()]
    assert all(len(set(row)) == 1 for row in rows), "modules of one row are of one layer"
    assert rows == sorted(rows), "the rows are in the order of the layers"
