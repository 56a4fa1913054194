"""wavegen-evaluate refuses in one line what it cannot do, and loses no earlier results."""

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support.evaluations import run, write, write_clips
from support.messages import Messages
from support.vocoders import write_model

from wavegen.commands import evaluate
from wavegen.errors import WavegenError
from wavegen.evaluation import results
from wavegen.evaluation.evaluate import definition_for
from wavegen.evaluation.scoring import Workers

pytestmark = pytest.mark.usefixtures("folder")


def no_audio() -> None:
    Path("real/b.wav").write_text("a text")


def cut_short() -> None:
    os.truncate("real/b.wav", 5000)


def other_names() -> None:
    for name in "abcd":
        write(f"other/{name}_gen.wav", np.zeros(100))


def occupied() -> None:
    Path("taken").mkdir()
    Path("taken/thesis.txt").touch()


def earlier() -> None:
    run("real", "--baseline", "pcm16", "--out", "earlier")


MISTAKES: dict[str, tuple[Callable[[], object] | None, list[str]]] = {
    "no pairs": (other_names, ["real", "other"]),
    "no audio": (no_audio, ["real", "noisy"]),
    "cut short": (cut_short, ["real", "noisy"]),
    "no references": (None, ["none", "noisy"]),
    "no outputs": (None, ["real", "none"]),
    "empty": (lambda: Path("empty").mkdir(), ["real", "empty"]),
    "baseline": (None, ["real", "--baseline", "grifin-lim"]),
    "profile": (None, ["real", "noisy", "--profile", "bigvgan-24"]),
    "model": (None, ["real", "--model", "none"]),
    "speaker without a model": (None, ["real", "noisy", "--speaker", "ann"]),
    "occupied": (occupied, ["real", "noisy", "--out", "taken"]),
    "own output": (earlier, ["real", "earlier/audio/pcm16", "--out", "earlier"]),
    "out among the recordings": (None, ["real", "noisy", "--out", "real/evaluation"]),
    "too short for all": (
        lambda: write("brief/a.wav", np.zeros(100)),
        ["brief", "--baseline", "griffin-lim"],
    ),
    "out is a file": (lambda: Path("file").touch(), ["real", "noisy", "--out", "file"]),
    "out below a file": (lambda: Path("file").touch(), ["real", "noisy", "--out", "file/out"]),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line_and_changes_no_file(
    name: str, capsys: pytest.CaptureFixture[str], messages: Messages
) -> None:
    make, arguments = MISTAKES[name]
    write_clips("a", "b", seconds=0.5)
    if make is not None:
        make()
    before = sorted(Path().rglob("*"))
    capsys.readouterr()
    assert run(*arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    messages.check(err.rstrip("\n"))
    assert sorted(Path().rglob("*")) == before


@pytest.mark.parametrize(
    "arguments", [[], ["real"], ["real", "noisy", "--jobs", "0"], ["real", "noisy", "--reads", "vocos-24k"]]
)
def test_wrong_usage_is_one_line(arguments: list[str], capsys: pytest.CaptureFixture[str], messages: Messages) -> None:
    with pytest.raises(SystemExit) as stop:
        evaluate.main(arguments)
    assert stop.value.code == 2
    messages.check(capsys.readouterr().err.splitlines()[-1])


def test_an_interruption_leaves_the_earlier_evaluation(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_clips("a", seconds=0.5)
    assert run("real", "noisy") == 0
    before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(results, "write_page", interrupted)
    assert run("real", "noisy", "--baseline", "pcm16") == 130
    assert capsys.readouterr().err == "wavegen-evaluate: interrupted\n"
    assert {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()} == before


def test_a_killed_process_is_one_line(messages: Messages) -> None:
    with Workers(2, progress=False) as workers, messages.refused(WavegenError):
        workers.map(os._exit, [1, 1], title="working")


def test_an_error_survives_the_way_from_another_process() -> None:
    error = WavegenError("what", where="where", remedy="remedy")
    assert str(pickle.loads(pickle.dumps(error))) == "where: what; remedy"


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 24000, 44100, 48000])
def test_every_sample_rate_has_a_definition_that_covers_it(rate: int) -> None:
    spec = definition_for(rate)
    assert (spec.sample_rate_hz, spec.f_max_hz) == (rate, rate / 2)
    assert 0.02 < spec.win_length / rate < 0.05
    assert spec.filterbank().sum(axis=1).astype(bool).mean() > 0.9


def test_a_foreign_summary_is_not_replaced(capsys: pytest.CaptureFixture[str]) -> None:
    write_clips("a")
    Path("evaluation").mkdir()
    Path("evaluation/summary.json").write_text('{"made_by": "me"}')
    assert run("real", "noisy") == 2
    assert "evaluation: holds other files (summary.json)" in capsys.readouterr().err
    assert [path.name for path in Path("evaluation").iterdir()] == ["summary.json"]


def test_a_model_among_the_results_is_not_replaced(capsys: pytest.CaptureFixture[str]) -> None:
    write_clips("a")
    assert run("real", "noisy") == 0
    model = write_model(Path("evaluation/audio/m.safetensors"))
    assert run("real", "--model", str(model)) == 2
    assert "evaluation/audio/m.safetensors" in capsys.readouterr().err
    assert model.exists()
