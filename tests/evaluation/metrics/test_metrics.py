"""What every metric promises: identity is perfect, worse scores worse, and its description."""

from dataclasses import replace

import numpy as np
import pytest
from support.metrics import RATE, SPEC, compute, needs, needs_all, recording
from support.signals import noise_like, speech

from wavegen.evaluation.metrics import METRICS, SHORT_LIST, Metric, score
from wavegen.mel import profile

PERFECT = {
    "pesq": 4.644, "visqol": 5, "stoi": 1, "estoi": 1, "voicing_f1": 1, "si_sdr": 100,
}  # fmt: skip


@pytest.mark.parametrize("key", [key for key, metric in METRICS.items() if metric.reads_reference])
def test_identity_is_perfect(key: str) -> None:
    samples = speech(2.0)
    assert compute(key, samples, samples) == pytest.approx(PERFECT.get(key, 0), abs=1e-3 if key == "pesq" else 1e-9)


@pytest.mark.parametrize("key", METRICS)
def test_noise_instead_of_speech_is_far_worse_than_a_little_noise(key: str) -> None:
    if key in ("dc_offset", "clipping", "length", "tonal_line", "loudness", "f0_rmse"):
        pytest.skip("noise of the same level has no fault of this kind, or no pitch")
    samples = recording()
    outputs = samples + 1e-2 * noise_like(samples), noise_like(samples)
    near, far = (METRICS[key].badness(compute(key, samples, output)) for output in outputs)
    assert far > near + 0.2 * abs(near)


@needs_all
def test_noise_instead_of_speech_scores_near_the_floor() -> None:
    scores = score(recording(), noise_like(recording()), SPEC).values
    assert 1.0 < scores["pesq"] < 1.1
    assert abs(scores["stoi"]) < 0.4
    assert abs(scores["estoi"]) < 0.05
    assert scores["voicing_f1"] < 0.1
    assert scores["si_sdr"] < -30


def test_different_lengths_are_compared_over_the_common_start() -> None:
    samples, other = speech(), speech(pitch_hz=150)
    longer = np.concatenate([other, noise_like(other)])
    for a, b, c, d in ((samples, longer, samples, other), (longer, samples, other, samples)):
        found, wanted = dict(score(a, b, SPEC).values), dict(score(c, d, SPEC).values)
        assert found.pop("length") == pytest.approx(1500 if len(b) > len(a) else -1500)
        assert wanted.pop("length") == 0
        assert found == wanted


def test_scores_are_deterministic_and_leave_numpys_generator_unchanged() -> None:
    samples, broken = speech(), speech(pitch_hz=140)
    broken[: RATE // 2] = 0  # here the score depends on the noise that pystoi adds
    np.random.seed(5)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    first = score(samples, broken, SPEC)
    assert np.array_equal(np.random.get_state()[1], before)  # noqa: NPY002
    np.random.seed(6)  # noqa: NPY002
    assert score(samples, broken, SPEC) == first


def test_each_metric_is_described() -> None:
    assert set(SHORT_LIST) <= set(METRICS)
    for metric in METRICS.values():
        assert all((metric.label, metric.unit, metric.source, metric.range))
        assert metric.better in ("higher", "lower", "zero")
        assert len(metric.compute.__doc__) > 60


@pytest.mark.parametrize(("better", "best"), [("higher", 3.0), ("lower", -2.0), ("zero", -1.0)])
def test_badness_is_lowest_for_the_best(better: str, best: float) -> None:
    metric = Metric("label", "unit", better, "source", "any", compute=lambda pair: 0.0)
    assert min([3.0, -2.0, -1.0], key=metric.badness) == best


def test_an_output_with_a_long_gap_has_no_pesq() -> None:
    """The mean of its other chunks would not show the gap."""
    needs("pesq")
    long = np.concatenate([speech(1.2, rate=16000, seed=seed) for seed in range(18)])
    dropped = np.where(np.arange(len(long)) < len(long) // 2, long, 0)
    spec = profile("wavegen-16k")
    reasons = score(long, dropped, spec, ["pesq"]).reasons
    assert reasons["pesq"].startswith("the output is silent for 11 s")
    assert score(dropped, dropped, spec, ["pesq"]).values["pesq"] == pytest.approx(4.64, abs=0.01)


def test_a_value_error_of_a_package_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(pair: object) -> float:
        raise ValueError("Audio must have length greater than the block size.")

    monkeypatch.setitem(METRICS, "loudness", replace(METRICS["loudness"], compute=refuse))  # type: ignore[arg-type]
    samples = speech(1.0, rate=16000)
    scores = score(samples, samples, profile("wavegen-16k"), ["loudness", "dc_offset"])
    assert scores.values == {"loudness": None, "dc_offset": 0}
    assert "block size" in scores.reasons["loudness"]
