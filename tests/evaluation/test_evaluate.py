"""wavegen-evaluate as a user sees it: pairs, systems, scores and files."""

import os
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import soundfile
from support.evaluations import RATE, all_rows, contents, rows, run, summary, systems, write, write_clips
from support.metrics import needs
from support.signals import speech
from support.vocoders import SPEC, write_model

from wavegen.commands import evaluate
from wavegen.evaluation.baseline import BASELINES
from wavegen.evaluation.evaluate import EvaluationRequest
from wavegen.evaluation.evaluate import evaluate as evaluate_request
from wavegen.evaluation.metrics import METRICS, available
from wavegen.evaluation.scoring import REFERENCE
from wavegen.mel import profile

pytestmark = pytest.mark.usefixtures("folder")


def test_a_folder_of_outputs_is_scored(capsys: pytest.CaptureFixture[str]) -> None:
    write_clips("b", "speaker/a")
    assert run("real", "noisy") == 0
    out, err = capsys.readouterr()
    assert err == ""
    lines = [line for line in out.splitlines() if not line.startswith("no ")]  # metrics that cannot be computed here
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
    needs("distillmos")
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
    assert line in out
    assert [note for note in summary()["notes"] if line in note]
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
