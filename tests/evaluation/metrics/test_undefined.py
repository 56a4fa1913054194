"""Scores that are not defined, or whose package cannot compute them: a reason in their place."""

import importlib
import math
import subprocess
import sys
from fractions import Fraction
from types import ModuleType, SimpleNamespace

import numba
import numpy as np
import pytest
from support.metrics import PACKAGES, RATE, SPEC, compute, needs_all, recording
from support.signals import noise_like, speech

from wavegen.evaluation.metrics import METRICS, available, missing_note, score
from wavegen.mel import profile


@pytest.mark.parametrize("seconds", [Fraction(1, RATE), 0.01, 0.05, 0.2])
def test_short_clips_have_reasons_instead_of_scores(seconds: float) -> None:
    short = speech()[1000:][: round(seconds * RATE)]
    scores = score(short, short, SPEC)
    assert list(scores.values) == available()
    assert {key for key, value in scores.values.items() if value is None} == set(scores.reasons)
    assert scores.reasons["stoi"] == f"{len(short)} samples, but it needs 9600"
    assert {"loudness", "estoi"} <= set(scores.reasons)
    if seconds <= 0.01:
        assert set(available()) - set(scores.reasons) <= {"dc_offset", "clipping", "length", "si_sdr"}


def test_clips_without_samples_only_have_a_length() -> None:
    scores = score(np.zeros(0), speech(), SPEC)
    assert {key for key, value in scores.values.items() if value is not None} == {"length"}


@pytest.mark.parametrize("which", ["both", "reference", "output"])
def test_silence_has_reasons_instead_of_scores(which: str) -> None:
    silence, samples = np.zeros(2 * RATE), speech(2.0)
    scores = score(silence if which != "output" else samples, silence if which != "reference" else samples, SPEC)
    assert all(value is None or math.isfinite(value) for value in scores.values.values())
    assert {"loudness", "si_sdr", "estoi"} <= set(scores.reasons)
    assert "silence" in scores.reasons["estoi"]
    if which != "output":
        assert {"stoi", "mcd", "silence_level"} <= set(scores.reasons)
    else:
        assert scores.values["stoi"] == pytest.approx(0, abs=1e-6)
    if "pesq" in scores.values:
        assert "silence" in scores.reasons["pesq"]
    if "f0_rmse" in scores.values:
        assert scores.reasons["f0_rmse"] == "0 frames are clearly voiced in both, but it needs 10"
        assert ("voicing_f1" in scores.reasons) == (which == "both")


def test_too_little_speech_has_no_stoi() -> None:
    samples = speech(1.0)
    samples[RATE // 5 :] *= 1e-4
    assert score(samples, samples, SPEC).reasons["stoi"] == "too little speech once silence is removed"


def test_nan_has_no_scores() -> None:
    broken = speech()
    broken[100] = np.nan
    scores = score(speech(), broken, SPEC)
    assert set(scores.values.values()) == {None}
    assert set(scores.reasons.values()) == {"NaN or infinite samples"}


@needs_all
@pytest.mark.parametrize("package", PACKAGES)
def test_a_missing_package_removes_its_metrics_and_is_named(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert missing_note() is None
    monkeypatch.setitem(sys.modules, package, None)  # makes the import fail
    missing = [key for key, metric in METRICS.items() if package in metric.packages]
    assert available() == [key for key in METRICS if key not in missing]
    assert not set(missing) & set(score(speech(0.5), speech(0.5), SPEC).values)
    labels = ", ".join(METRICS[key].label for key in missing)
    assert missing_note() == f"no {labels}: pip install 'wavegen[evaluation]'"


def test_a_package_that_cannot_be_loaded_is_named_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def import_broken(package: str) -> ModuleType:
        if package == "distillmos":  # as beside a torchaudio for CUDA and a torch for CPUs
            raise OSError("Could not load this library: _torchaudio.abi3.so\nand more lines")
        return importlib.import_module(package)

    monkeypatch.setattr("wavegen.evaluation.metrics.import_quietly", import_broken)
    assert "distillmos" not in available()
    assert "stoi" in available()
    assert (
        "no DistillMOS: distillmos cannot be imported (Could not load this library: _torchaudio.abi3.so), "
        "install torch and torchaudio from one place"
    ) in str(missing_note())


@needs_all
def test_imports_of_packages_are_quiet() -> None:
    code = "from wavegen.evaluation.metrics import METRICS, available; assert available() == list(METRICS)"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")


def test_without_a_resampler_only_metrics_that_resample_are_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wavegen.audio.resampling.installed_resampler", lambda: None)
    scores = score(speech(), speech(), SPEC)
    assert "needs torchaudio or soxr" in scores.reasons["mcd"]
    assert scores.values["stoi"] == pytest.approx(1)


@pytest.mark.skipif("pesq" not in available(), reason="the pesq package is not installed")
def test_long_clips_do_not_overflow_the_pesq_package() -> None:
    # 30 s of short utterances: more than the 50 that its C code has room for.
    time = np.arange(30 * 16000) / 16000
    samples = (np.sin(2 * np.pi * 440 * time) * (time % 0.45 < 0.22)).astype(np.float32)
    spec = SPEC.replace(sample_rate_hz=16000, f_max_hz=8000)
    assert compute("pesq", samples, samples, spec) == pytest.approx(4.644, abs=1e-3)


def test_visqol_equals_its_package_and_leaves_numbas_threads_unchanged() -> None:
    package = pytest.importorskip("visqol")
    api = package.VisqolApi()
    api.create(mode="speech", use_lattice_model=False)
    samples = speech(2.0, rate=16000)
    noisy = samples + 0.1 * noise_like(samples)
    threads = numba.get_num_threads()
    found = compute("visqol", samples, noisy, profile("wavegen-16k"))
    assert numba.get_num_threads() == threads
    wanted = api.measure_from_arrays(samples.astype(float), noisy.astype(float), 16000).moslqo
    assert found == pytest.approx(wanted, abs=1e-9)


def test_more_noise_scores_lower_in_visqol() -> None:
    samples = recording()
    scores = [compute("visqol", samples, samples + level * noise_like(samples)) for level in (0, 0.1, 0.3, 1)]
    assert scores[0] == 5
    assert scores == sorted(scores, reverse=True)
    assert scores[-1] < 2


@pytest.mark.parametrize(
    ("fault", "reason"), [(IndexError(), "too little speech"), (math.nan, "ViSQOL is not a number")]
)
def test_clips_that_the_visqol_package_cannot_score_have_reasons(
    fault: float | Exception, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = pytest.importorskip("visqol")

    def measure(*arguments: object) -> SimpleNamespace:
        if isinstance(fault, Exception):
            raise fault
        return SimpleNamespace(moslqo=fault)

    monkeypatch.setattr(package.VisqolApi, "measure_from_arrays", measure)
    assert score(speech(), speech(), SPEC, ["visqol"]).reasons == {"visqol": reason}
