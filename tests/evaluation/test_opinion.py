"""Predictors of opinion: known orders, independent implementations, and cases without a score."""

import importlib
import math
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch
from support.degraded import DEGRADED
from support.metrics import needs
from support.signals import speech

from wavegen.audio import read_audio, write_audio
from wavegen.evaluation import scoring
from wavegen.evaluation.metrics import METRICS, Pair, opinion, score
from wavegen.evaluation.scoring import REFERENCE, ScoringJob, score_clip
from wavegen.evaluation.summary import summarize
from wavegen.mel import profile

SPEC = profile("bigvgan-24k")
RATE = SPEC.sample_rate_hz
AT_16_KHZ = profile("wavegen-16k")
pytestmark = pytest.mark.usefixtures("one_thread")
PREDICTORS = [key for key, metric in METRICS.items() if not metric.reads_reference]


@pytest.fixture(params=PREDICTORS)
def predictor(request: pytest.FixtureRequest) -> str:
    """Each predictor whose packages are installed."""
    needs(request.param)
    return str(request.param)


@lru_cache
def recording() -> np.ndarray:
    """Four seconds of real speech."""
    path = sorted((Path(__file__).parents[2] / "recipes/demo/audio/valid").glob("*.flac"))[0]
    return read_audio(path, RATE)[: 4 * RATE]


@lru_cache
def degraded(name: str) -> np.ndarray:
    return DEGRADED[name](recording(), SPEC)


def predict(key: str, samples: np.ndarray, spec: object = SPEC) -> float:
    return METRICS[key].compute(Pair(samples, samples, spec))


def test_more_noise_scores_lower(predictor: str) -> None:
    names = ("recording", "noise at 20 dB", "noise at 10 dB", "noise at 0 dB")
    scores = [predict(predictor, degraded(name)) for name in names]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] > scores[-1] + 0.5
    assert all(1 <= value <= 5 for value in scores)


def test_other_faults_score_lower(predictor: str) -> None:
    assert predict(predictor, degraded("Griffin-Lim")) < predict(predictor, recording()) - 0.05
    if predictor != "dnsmos":  # which does not hear it
        assert predict(predictor, degraded("MP3 at 32 kbit/s")) < predict(predictor, recording()) - 0.05


def test_the_recording_does_not_change_the_score_of_an_output(predictor: str) -> None:
    alone = predict(predictor, recording())
    for other in (np.zeros_like(recording()), degraded("noise at 0 dB")):
        assert METRICS[predictor].compute(Pair(other, recording(), SPEC)) == alone


def test_a_score_is_deterministic_and_leaves_the_generators_unchanged(
    predictor: str, capfd: pytest.CaptureFixture[str]
) -> None:
    np.random.seed(5)  # noqa: NPY002
    before = torch.random.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    scores = []
    for threads in (1, 2):
        opinion._distillmos_network.cache_clear()  # so that the network is loaded again
        opinion._dnsmos_session.cache_clear()
        torch.set_num_threads(threads)
        scores.append(predict(predictor, recording()))
        assert torch.get_num_threads() == threads
    assert scores[0] == scores[1] == predict(predictor, recording())
    assert torch.equal(torch.random.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002
    assert capfd.readouterr() == ("", "")


def test_silence_and_short_sounds_have_reasons_instead_of_scores(predictor: str) -> None:
    silent = score(recording(), np.zeros(2 * RATE), SPEC, [predictor])
    assert (silent.values[predictor], silent.reasons[predictor]) == (None, "the output is silence")
    for samples in (0, 1, 1000, RATE - 1):
        short = score(recording(), recording()[:samples], SPEC, [predictor])
        assert (short.values[predictor], short.reasons[predictor]) == (None, f"{samples} samples, but it needs {RATE}")
    assert math.isfinite(predict(predictor, recording()[:RATE]))


def test_nan_has_no_score(predictor: str) -> None:
    broken = recording().copy()
    broken[100] = np.nan
    assert score(recording(), broken, SPEC, [predictor]).reasons == {predictor: "NaN or infinite samples"}


@pytest.mark.parametrize("seconds", [1.5, 122880 / 16000, 122881 / 16000, 9.9])
def test_distillmos_equals_its_package(seconds: float) -> None:
    needs("distillmos")
    network = importlib.import_module("distillmos").ConvTransformerSQAModel().eval()
    samples = np.concatenate([speech(4, rate=16000), 0.1 * speech(6, pitch_hz=200, rate=16000)])
    samples = samples[: round(seconds * 16000)]
    with torch.inference_mode():
        wanted = float(network(torch.from_numpy(samples)[None]))
    assert predict("distillmos", samples, AT_16_KHZ) == pytest.approx(wanted, abs=1e-4)


@pytest.mark.filterwarnings("ignore")  # librosa's: empty mel filters, and what it imports
@pytest.mark.parametrize("seconds", [1.5, 9.5, 12.0])
def test_dnsmos_equals_its_package(seconds: float) -> None:
    needs("dnsmos")
    dnsmos = importlib.import_module("speechmos.dnsmos")
    samples = np.concatenate([speech(4, rate=16000), 0.1 * speech(9, pitch_hz=200, rate=16000)])
    samples = samples[: round(seconds * 16000)]
    wanted = float(dnsmos.run(samples, 16000)["p808_mos"])
    assert predict("dnsmos", samples, AT_16_KHZ) == pytest.approx(wanted, abs=1e-4)


# ---- the recordings' own scores


@pytest.fixture
def job(tmp_path: Path) -> ScoringJob:
    """Two outputs of one clip, one of them shorter than the recording."""
    sounds = {"real": recording(), "good": recording()[:-500], "bad": degraded("noise at 0 dB")}
    files = {name: tmp_path / f"{name}.wav" for name in sounds}
    for name, samples in sounds.items():
        write_audio(files[name], samples, RATE)
    return ScoringJob("clip", files.pop("real"), files, SPEC, ["stoi", "distillmos"])


def test_the_recording_is_scored_once_and_only_by_predictors(job: ScoringJob, monkeypatch: pytest.MonkeyPatch) -> None:
    needs("distillmos")
    calls = []
    original = scoring.score

    def count(*arguments: object, **options: object) -> object:
        calls.append(arguments[3])
        return original(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(scoring, "score", count)
    clip = score_clip(job)
    assert calls == [["distillmos"], job.metrics, job.metrics]
    assert list(clip.scores) == [REFERENCE, "good", "bad"]
    assert list(clip.scores[REFERENCE].values) == ["distillmos"]
    assert clip.scores[REFERENCE].values["distillmos"] == pytest.approx(predict("distillmos", recording()), abs=1e-3)
    summary = summarize([clip])
    bad = summary["bad"]["distillmos"]
    assert bad.to_reference is not None
    assert bad.to_reference.mean == pytest.approx(bad.mean - summary[REFERENCE]["distillmos"].mean)
    assert bad.to_reference.mean < -1


def test_without_predictors_the_recording_is_not_scored(job: ScoringJob) -> None:
    without = ScoringJob(job.name, job.reference, job.outputs, job.spec, ["stoi"])
    assert list(score_clip(without).scores) == ["good", "bad"]
