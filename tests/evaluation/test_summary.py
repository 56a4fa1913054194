"""Means of scores with intervals, and their tables."""

import sys

import numpy as np
import pytest
import scipy.stats

from wavegen.evaluation.metrics import Scores
from wavegen.evaluation.scoring import ScoredClip
from wavegen.evaluation.summary import as_numbers, full_table, interval, short_table, summarize


def test_an_interval_contains_the_true_mean_about_95_times_in_100() -> None:
    random = np.random.default_rng(0)
    intervals = [interval(random.standard_normal(40)) for _ in range(100)]
    assert 88 <= sum(entry.low < 0 < entry.high for entry in intervals) <= 99
    # For normal values: mean ± 1.96 σ / √n.
    values = random.standard_normal(400)
    entry = interval(values)
    assert entry.mean == pytest.approx(values.mean())
    assert (entry.high - entry.low) / 2 == pytest.approx(1.96 * values.std() / 20, rel=0.1)


def test_a_few_clips_have_a_mean_but_no_interval() -> None:
    """Two clips would get one from the least to the greatest, which holds the true mean half of the time."""
    for count in range(1, 6):
        entry = interval([float(value) for value in range(count)])
        assert (entry.mean, entry.low, entry.high, entry.count) == ((count - 1) / 2, None, None, count)
    assert interval([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]).low is not None


@pytest.mark.parametrize("count", [6, 7, 113])
def test_an_interval_is_the_percentile_bootstrap_of_scipy(count: int) -> None:
    values = np.random.default_rng(count).standard_normal(count)
    options = {"n_resamples": 2000, "method": "percentile", "rng": np.random.default_rng(0)}
    wanted = scipy.stats.bootstrap((values,), np.mean, **options).confidence_interval
    entry = interval(values)
    assert (entry.low, entry.high) == pytest.approx((wanted.low, wanted.high), abs=1e-12)


def scored(name: str, **systems: dict[str, float | None]) -> ScoredClip:
    scores = {}
    for system, values in systems.items():
        reasons = {key: "silence" for key, value in values.items() if value is None}
        scores[system] = Scores(values, reasons)
    return ScoredClip(name, scores)


CLIPS = [
    scored(
        "a",
        vocoder={"stoi": 0.9, "pesq": 2.0, "log_mel": 0.25, "m_stft": 1.0},
        other={"stoi": 0.98, "pesq": 3.0, "log_mel": 0.1, "m_stft": 0.75},
    ),
    scored(
        "b",
        vocoder={"stoi": 0.8, "pesq": None, "log_mel": 0.35, "m_stft": 1.5},
        other={"stoi": 0.96, "pesq": 3.5, "log_mel": 0.3, "m_stft": 0.85},
    ),
]


def test_the_summary_does_not_depend_on_the_order_of_clips() -> None:
    clips = [scored(str(index), vocoder={"mcd": index**2 / 7}) for index in range(9)]
    assert summarize(clips) == summarize(clips[::-1]) == summarize(clips[4:] + clips[:4])


def test_the_short_table_has_a_row_per_system() -> None:
    assert short_table(CLIPS).splitlines() == [
        "         STOI ↑  PESQ ↑  log-mel ↓  M-STFT ↓  clips",
        "vocoder   0.850   2.000      0.300     1.250      2",
        "other     0.970   3.250      0.200     0.800      2",
        "PESQ of vocoder covers 1 of 2 clips",
    ]


OPINIONS = [
    scored("a", reference={"distillmos": 4.0}, vocoder={"distillmos": 3.5, "log_mel": 0.1}),
    scored("b", reference={"distillmos": 4.5}, vocoder={"distillmos": 4.25, "log_mel": 0.1}),
    scored("c", reference={"distillmos": None}, vocoder={"distillmos": 2.0, "log_mel": 0.1}),
]


def test_the_difference_to_the_recordings_is_taken_clip_by_clip() -> None:
    entry = summarize(OPINIONS)["vocoder"]["distillmos"]
    assert (entry.mean, entry.count) == (3.25, 3)
    assert entry.to_reference == interval([-0.5, -0.25])
    assert as_numbers(summarize(OPINIONS))["vocoder"]["distillmos"] == {
        "mean": 3.25, "low": None, "high": None, "count": 3,
        "difference": -0.375, "difference_low": None, "difference_high": None,
    }  # fmt: skip
    assert summarize(OPINIONS)["reference"]["distillmos"].to_reference is None
    assert summarize(OPINIONS)["vocoder"]["log_mel"].to_reference is None


def test_tables_show_the_recordings_and_the_difference_to_them() -> None:
    assert short_table(OPINIONS).splitlines() == [
        "           DistillMOS ↑  log-mel ↓  DistillMOS vs. reference  clips",
        "reference         4.250          -                         -      3",
        "vocoder           3.250      0.100                    -0.375      3",
        "DistillMOS of reference covers 2 of 3 clips",
    ]
    assert full_table(summarize(OPINIONS), 3).splitlines() == [
        "                                     reference                vocoder",
        "DistillMOS ↑              4.250 (2 of 3 clips)                  3.250",
        "DistillMOS vs. reference                     -  -0.375 (2 of 3 clips)",
        "log-mel ↓                                    -                  0.100",
    ]


def test_the_short_table_names_missing_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pesq", None)
    clips = []
    for clip in CLIPS:
        scores = {}
        for system, entry in clip.scores.items():
            scores[system] = Scores({key: value for key, value in entry.values.items() if key != "pesq"})
        clips.append(ScoredClip(clip.name, scores))
    lines = short_table(clips).splitlines()
    assert lines[0] == "         STOI ↑  log-mel ↓  M-STFT ↓  clips"
    assert lines[3].startswith("no PESQ")
    assert len(lines) == 4


def test_the_full_table_has_a_row_per_metric() -> None:
    assert full_table(summarize(CLIPS), 2).splitlines() == [
        "                        vocoder  other",
        "PESQ ↑     2.000 (1 of 2 clips)  3.250",
        "STOI ↑                    0.850  0.970",
        "log-mel ↓                 0.300  0.200",
        "M-STFT ↓                  1.250  0.800",
    ]


def test_the_full_table_shows_intervals_of_enough_clips() -> None:
    clips = [scored(str(index), vocoder={"stoi": 0.5 if index else None, "mcd": 2.0}) for index in range(7)]
    assert full_table(summarize(clips), 7).splitlines() == [
        "                                    vocoder",
        "STOI ↑  0.500 [0.500, 0.500] (6 of 7 clips)",
        "MCD ↓                  2.000 [2.000, 2.000]",
    ]


def test_a_note_gives_each_reason_once() -> None:
    clip = scored("a", vocoder={"stoi": None, "pesq": None, "log_mel": 1.0})
    assert clip.notes() == ["vocoder: no STOI, PESQ: silence"]
