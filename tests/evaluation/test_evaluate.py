"""wavegen-evaluate as a user sees it: pairs, scores, files, and one line for every mistake."""

import csv
import json
import math
import os
import pickle
import subprocess
import sys
import unicodedata
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import soundfile
from support.messages import Messages
from support.signals import noise_like, speech
from support.vocoders import SPEC, write_model

from wavegen.commands import evaluate
from wavegen.errors import WavegenError
from wavegen.evaluation import results
from wavegen.evaluation.baseline import BASELINES
from wavegen.evaluation.evaluate import EvaluationRequest, definition_for
from wavegen.evaluation.evaluate import evaluate as evaluate_request
from wavegen.evaluation.metrics import METRICS, available
from wavegen.evaluation.scoring import REFERENCE, Workers
from wavegen.mel import profile

RATE = 16000


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(path: str, samples: np.ndarray, rate: int = RATE) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate)


def write_clips(*names: str, rate: int = RATE, seconds: float = 1.2) -> None:
    """Write recordings to ``real`` and noisy copies to ``noisy``."""
    for seed, name in enumerate(names):
        clean = speech(seconds, pitch_hz=110 + 20 * seed, rate=rate, seed=seed)
        write(f"real/{name}.wav", clean, rate)
        write(f"noisy/{name}.wav", clean + 0.02 * noise_like(clean), rate)


def run(*arguments: str) -> int:
    return evaluate.main([*arguments, "--jobs", "1"])


def all_rows(out: str = "evaluation") -> list[dict[str, str]]:
    return list(csv.DictReader((Path(out) / "scores.csv").read_text(encoding="utf-8").splitlines()))


def rows(out: str = "evaluation") -> list[dict[str, str]]:
    """The rows of the systems, without those of the recordings, which exist if a predictor is installed."""
    return [row for row in all_rows(out) if row["system"] != REFERENCE]


def summary(out: str = "evaluation") -> dict:
    return json.loads((Path(out) / "summary.json").read_text(encoding="utf-8"))


def systems(found: Mapping[str, object]) -> list[str]:
    """The systems of a summary, without the recordings."""
    return [system for system in found if system != REFERENCE]


def contents(out: str) -> dict[str, bytes]:
    return {name: (Path(out) / name).read_bytes() for name in ("scores.csv", "summary.json")}


# ---- the command


def test_a_folder_of_outputs_is_scored(capsys: pytest.CaptureFixture[str]) -> None:
    write_clips("b", "speaker/a")
    assert run("real", "noisy") == 0
    out, err = capsys.readouterr()
    assert err == ""
    lines = out.splitlines()
    assert lines[0].split()[-1] == "noisy"
    assert [line for line in lines if line.startswith("STOI ↑ ")]
    assert lines[-2:] == ["scored at 16000 Hz, clips aligned at their start", "2 clips: evaluation/index.html"]
    assert {path.name for path in Path("evaluation").iterdir()} >= {"scores.csv", "summary.json", "index.html"}

    assert [(row["clip"], row["system"]) for row in rows()] == [("b", "noisy"), ("speaker/a", "noisy")]
    assert list(rows()[0]) == ["clip", "system", *available(), "notes"]
    found = summary()
    scored = {key for row in rows() for key in available() if row[key]}
    assert list(found["systems"]["noisy"]) == [key for key in available() if key in scored]
    stoi = found["systems"]["noisy"]["stoi"]
    assert stoi["mean"] == pytest.approx(np.mean([float(row["stoi"]) for row in rows()]), rel=1e-4)
    assert (stoi["low"], stoi["high"], stoi["count"]) == (None, None, 2)
    assert stoi["count"] == found["clips"] == 2
    assert found["metrics"]["mcd"]["unit"] == "dB"
    assert "10 √2 / ln 10" in found["metrics"]["mcd"]["definition"]
    assert {"wavegen", "torch", "pystoi"} <= set(found["versions"])
    assert found["log_mel"]["sample_rate_hz"] == RATE
    assert found["interval"]["seed"] == 0


def test_the_recordings_own_predicted_opinion_is_reported() -> None:
    pytest.importorskip("distillmos")
    write_clips("a", "b")
    assert run("real", "noisy") == 0
    assert [(row["clip"], row["system"]) for row in all_rows()] == [
        (clip, system) for clip in "ab" for system in (REFERENCE, "noisy")
    ]
    own, noisy = ([float(row["distillmos"]) for row in all_rows() if row["system"] == s] for s in (REFERENCE, "noisy"))
    assert all(row["stoi"] == "" for row in all_rows() if row["system"] == REFERENCE)
    scores = summary()["systems"]
    assert list(scores[REFERENCE]) == [key for key in available() if not METRICS[key].reads_reference]
    assert scores["noisy"]["distillmos"]["difference"] == pytest.approx(np.mean(noisy) - np.mean(own), abs=1e-4)
    assert "difference" not in scores[REFERENCE]["distillmos"]
    page = Path("evaluation/index.html").read_text(encoding="utf-8")
    assert '"difference_low"' in page
    assert "distillmos" in summary()["versions"]


def test_results_do_not_depend_on_the_order_or_the_number_of_processes() -> None:
    write_clips("a", "c")
    write("other/c.wav", speech(1.0, rate=RATE, seed=9), RATE)
    for out, arguments in {
        "1": ["noisy", "other", "--jobs", "1"],
        "2": ["noisy", "other", "--jobs", "1"],
        "3": ["other", "noisy", "--jobs", "2"],
    }.items():
        extra = ["--baseline", "griffin-lim"]
        assert evaluate.main(["real", *arguments, *extra, "--out", out]) == 0
    assert contents("1") == contents("2")
    by_pair = [{(row["clip"], row["system"]): row for row in rows(out)} for out in ("1", "3")]
    assert by_pair[0] == by_pair[1]
    assert summary("1")["systems"] == summary("3")["systems"]


def test_models_speak_with_several_numbers_of_iterations() -> None:
    spec = profile("bigvgan-24k").replace(sample_rate_hz=RATE, f_max_hz=8000)
    write_model(Path("runs/mine/model.safetensors"), "source-filter", spec=spec)
    write_clips("a")
    assert run("real", "--model", "runs/mine", "--iterations", "0", "--iterations", "4") == 0
    found = summary()["systems"]
    assert systems(found) == ["mine+0", "mine+4"]
    assert found["mine+4"]["log_mel"]["mean"] < found["mine+0"]["log_mel"]["mean"]


def test_baselines_and_models_are_scored_as_systems() -> None:
    spec = profile("bigvgan-24k").replace(sample_rate_hz=RATE, f_max_hz=8000)
    write_model(Path("runs/mine/model.safetensors"), spec=spec)
    write_clips("a", "b")
    every = [argument for name in BASELINES for argument in ("--baseline", name)]
    assert run("real", "--model", "runs/mine", *every) == 0
    found = summary()["systems"]
    assert systems(found) == ["mine", *BASELINES]
    assert found["pcm16"]["m_stft"]["mean"] == 0  # the recordings have 16 bits
    assert 0 < found["mu-law"]["m_stft"]["mean"] < found["griffin-lim"]["m_stft"]["mean"]
    assert found["griffin-lim"]["log_mel"]["mean"] < 0.25 < found["mine"]["log_mel"]["mean"]
    levels = np.unique(soundfile.read("evaluation/audio/mu-law/a.wav")[0])
    assert 50 < len(levels) <= 256
    frames = soundfile.info("evaluation/audio/mine/b.wav").frames
    assert frames == spec.frames(soundfile.info("real/b.wav").frames) * spec.hop_length
    assert summary()["log_mel"] == spec.model_dump(mode="json")


def test_an_autoregressive_model_runs_on_its_preferred_device() -> None:
    """Autoregressive models prefer the CPU, so the device given is not even asked for."""
    write("real/a.wav", speech(0.2, rate=SPEC.sample_rate_hz), SPEC.sample_rate_hz)
    model = write_model(Path("wavenet.safetensors"), "wavenet")
    request = EvaluationRequest(Path("real"), models=[model])
    found = evaluate_request(request, Path("out"), device="cuda:99", jobs=1, progress=False)
    assert systems(found.summary) == ["wavenet"]


def test_everything_is_scored_at_the_lowest_rate(capsys: pytest.CaptureFixture[str]) -> None:
    clean = speech(1.2, rate=48000)
    write("real/a.wav", clean, 48000)
    write("fine/a.wav", clean[::2], 24000)  # little lies above 8 kHz
    write("coarse/a.wav", speech(1.2, rate=22050), 22050)
    assert run("real", "fine", "coarse") == 0
    note = "scored at 22050 Hz, clips aligned at their start; resampled: the recordings (48000 Hz), fine (24000 Hz)"
    assert note in capsys.readouterr().out.splitlines()
    assert note in summary()["notes"]
    assert summary()["log_mel"] == profile("bigvgan-22k").model_dump(mode="json")
    assert float(rows()[0]["stoi"]) > 0.98
    assert run("real", "fine", "--profile", "hifigan-22k", "--out", "other") == 0
    assert summary("other")["log_mel"] == profile("hifigan-22k").model_dump(mode="json")


def test_clips_of_different_lengths_are_aligned_at_their_start() -> None:
    clean = speech(1.2, rate=RATE)
    write("real/a.wav", clean)
    write("longer/a.wav", np.concatenate([clean, np.zeros(RATE // 4)]))
    assert run("real", "longer") == 0
    (row,) = rows()
    assert float(row["length"]) == pytest.approx(250)
    assert (float(row["stoi"]), float(row["log_mel"])) == (1, 0)


def test_each_half_of_the_recordings_can_be_scored_alone() -> None:
    """The halves are those of all recordings, whether or not they have an output."""
    write_clips("a", "b", "c", "d", "e", seconds=0.5)
    Path("noisy/b.wav").unlink()
    for which, clips in (("first", ["a", "c", "e"]), ("second", ["d"])):
        assert run("real", "noisy", "--half", which) == 0
        assert [row["clip"] for row in rows()] == clips
        count = 3 if which == "first" else 2
        assert f"the {which} half of the recordings: {count} of 5" in summary()["notes"]
    assert run("real", "--baseline", "pcm16", "--half", "second") == 0
    assert [row["clip"] for row in rows()] == ["b", "d"]


def test_two_single_files_are_a_pair() -> None:
    write_clips("a")
    os.rename("noisy/a.wav", "generated.wav")
    assert run("real/a.wav", "generated.wav") == 0
    assert [(row["clip"], row["system"]) for row in rows()] == [("a", "generated")]


def test_files_without_a_counterpart_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    write_clips("a", "b", "c")
    os.rename("noisy/c.wav", "noisy/d.wav")
    assert run("real", "noisy") == 0
    out = capsys.readouterr().out
    assert "noisy has no output for 1 of 3 recordings\nnoisy has no recording for 1 of 3 outputs\n" in out
    assert [row["clip"] for row in rows()] == ["a", "b"]


def test_clips_of_silence_or_ten_milliseconds_leave_empty_cells_with_reasons() -> None:
    write_clips("a")
    for side in ("real", "noisy"):
        write(f"{side}/short.wav", speech(1.0, rate=RATE)[1000:1160])
        write(f"{side}/silent.wav", np.zeros(RATE))
    assert run("real", "noisy", "--baseline", "griffin-lim") == 0
    by_pair = {(row["clip"], row["system"]): row for row in rows()}
    for clip, empty in (
        ("short", {"stoi", "estoi", "m_stft", "mcd", "loudness"}),
        ("silent", {"stoi", "mcd", "loudness"}),
    ):
        row = by_pair[clip, "noisy"]
        assert {key for key in available() if row[key] == ""} >= empty
        assert all(METRICS[key].label in row["notes"] for key in empty)
        assert not any(cell in ("nan", "inf", "-inf") for cell in row.values())
    assert "no STOI, ESTOI, loudness: 160 samples, but it needs 6400" in by_pair["short", "noisy"]["notes"]
    assert "STOI" not in by_pair["a", "noisy"]["notes"]
    assert summary()["systems"]["noisy"]["stoi"]["count"] == 1
    assert by_pair["short", "griffin-lim"]["notes"] == "no output"
    assert "griffin-lim has no output for short: 160 samples are too short for a mel frame" in summary()["notes"]


def test_a_missing_package_removes_its_columns_and_adds_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "pesq", None)
    monkeypatch.setitem(sys.modules, "pyworld", None)
    write_clips("a")
    assert run("real", "noisy") == 0
    line = "no PESQ, F0 RMSE, voicing F1, periodicity: pip install 'wavegen[evaluation]'"
    out = capsys.readouterr().out
    assert out.count("pip install") == 1
    assert line in out.splitlines()
    assert line in summary()["notes"]
    assert not {"pesq", "f0_rmse", "voicing_f1", "periodicity_rmse"} & set(rows()[0])


def test_an_earlier_evaluation_is_replaced() -> None:
    write_clips("a", "b")
    assert run("real", "noisy", "--baseline", "pcm16") == 0
    assert run("real", "noisy") == 0
    assert not Path("evaluation/audio").exists()
    assert {path.name for path in Path().iterdir()} == {"real", "noisy", "evaluation"}


def test_ratings_are_summarised(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    module = ModuleType("wavegen.listening.ratings")
    module.summarize_ratings = lambda paths: f"of {[path.name for path in paths]}"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    assert evaluate.main(["--ratings", "a.json", "b.json"]) == 0
    assert capsys.readouterr().out == "of ['a.json', 'b.json']\n"


# ---- mistakes


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


# ---- parts


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


# ---- outputs with faults


def test_a_clip_without_an_output_has_an_empty_row() -> None:
    write_clips("a", "b", seconds=0.6)
    Path("noisy/b.wav").unlink()
    Path("other").mkdir()
    for name in "ab":
        Path(f"other/{name}.wav").write_bytes(Path(f"real/{name}.wav").read_bytes())
    assert run("real", "noisy", "other") == 0
    found = {(row["clip"], row["system"]): row for row in rows()}
    assert set(found) == {(clip, system) for clip in "ab" for system in ("noisy", "other")}
    assert found["b", "noisy"]["notes"] == "no output"
    assert {found["b", "noisy"][key] for key in available()} == {""}


def test_an_output_with_nan_loses_only_its_own_scores() -> None:
    write_clips("a", "b")
    broken, _ = soundfile.read("noisy/a.wav")
    broken[100] = math.nan
    soundfile.write("noisy/a.wav", broken, RATE, subtype="FLOAT")
    assert run("real", "noisy") == 0
    a, b = rows()
    assert {a[key] for key in available()} == {""}
    assert "NaN or infinite samples" in a["notes"]
    assert all(b[key] for key in ("stoi", "log_mel"))


def test_clipping_is_not_defined_for_resampled_clips() -> None:
    write_clips("a", rate=24000)
    samples, _ = soundfile.read("real/a.wav")
    write("other/a.wav", np.repeat(samples, 2), 48000)
    assert run("real", "other") == 0
    (row,) = rows()
    assert row["clipping"] == ""
    assert "no clipping: resampled" in row["notes"]
    assert run("real", "noisy") == 0
    assert rows()[0]["clipping"] == "0"


def test_names_pair_in_any_encoding_of_accents() -> None:
    write_clips("a")
    for place, form in (("real", "NFC"), ("noisy", "NFD")):
        Path(place, "a.wav").rename(Path(place, unicodedata.normalize(form, "café") + ".wav"))
    assert run("real", "noisy") == 0
    assert rows()[0]["clip"] == unicodedata.normalize("NFC", "café")


def test_scores_are_finite_numbers() -> None:
    write_clips("a")
    assert run("real", "noisy") == 0
    assert all(math.isfinite(float(row[key])) for row in rows() for key in available() if row[key])


# ---- files and sounds without a score


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: os.truncate(path, 5000),
        lambda path: os.truncate(path, 0),
        lambda path: path.write_text("error 500"),
        lambda path: soundfile.write(path, np.zeros(0), RATE),
    ],
    ids=["cut", "empty", "text", "no samples"],
)
def test_an_output_that_cannot_be_read_has_an_empty_row_with_the_reason(spoil: Callable[[Path], object]) -> None:
    write_clips("a", "b")
    spoil(Path("noisy/b.wav"))
    assert run("real", "noisy") == 0
    good, bad = rows()
    assert good["stoi"]
    assert not any(bad[key] for key in available())
    assert bad["notes"].startswith("no ")
    assert ": " in bad["notes"]
    assert summary()["systems"]["noisy"]["stoi"]["count"] == 1


@pytest.mark.parametrize("level", [0.0, 1e-5])
def test_a_silent_recording_is_named_and_left_out_of_the_means(level: float) -> None:
    """M-STFT divides by the recording: 1e-5 of noise once gave 647."""
    write_clips("a", "b")
    quiet = level * np.random.default_rng(0).standard_normal(RATE)
    soundfile.write("real/b.wav", quiet, RATE, subtype="FLOAT")
    assert run("real", "noisy") == 0
    good, silent = rows()
    assert good["m_stft"]
    assert silent["m_stft"] == silent["mcd"] == ""
    assert "the reference is silence" in silent["notes"]
    assert summary()["systems"]["noisy"]["m_stft"]["count"] == 1
    assert summary()["systems"]["noisy"]["m_stft"]["mean"] < 10


def test_a_script_without_a_main_guard_evaluates() -> None:
    """Spawned processes run the main module again, unless they are told not to."""
    Path("script.py").write_text(
        "from wavegen.evaluation.scoring import Workers\n"
        "print('begun')\n"
        "with Workers(2, progress=False) as workers:\n"
        "    print(workers.map(len, ['a', 'bc'], title='counting'))\n"
    )
    done = subprocess.run([sys.executable, "script.py"], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "begun\n[1, 2]\n", "")
