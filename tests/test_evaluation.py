"""Metrics, the Griffin-Lim baseline, pictures and listening samples."""

import importlib.util
import logging
import math
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from wavegen.audio import audio_info, read_audio, write_audio
from wavegen.errors import AudioError, MelError
from wavegen.evaluation.baseline import griffin_lim_baseline
from wavegen.evaluation.metrics import (
    METRICS,
    log_mel_distance,
    multi_resolution_stft_distance,
    pesq_is_available,
    pesq_wideband,
    score,
    stoi,
)
from wavegen.evaluation.pictures import figure_to_array, save_figure, spectrogram_figure
from wavegen.evaluation.samples import Clip, summary_table, write_samples
from wavegen.mel import PROFILES, LogMel, MelSpec, profile, save_mel

SPEC = profile("bigvgan-24k")
RATE = SPEC.sample_rate_hz

needs_pesq = pytest.mark.skipif(importlib.util.find_spec("pesq") is None, reason="the pesq package is not installed")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """A second thread makes Griffin-Lim many times slower where another process keeps its core busy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def voice(seconds: float = 1.5, *, pitch_hz: float = 120.0, rate: int = RATE, seed: int = 0) -> np.ndarray:
    """Something like speech: syllables of a vibrating pulse-like tone with formants, over a little noise."""
    time = np.arange(int(seconds * rate)) / rate
    phase = 2 * np.pi * np.cumsum(pitch_hz * (1 + 0.03 * np.sin(2 * np.pi * 5 * time))) / rate
    samples = np.zeros_like(time)
    for harmonic in range(1, int(rate / 2.2 / pitch_hz)):
        frequency = harmonic * pitch_hz
        formants = sum(math.exp(-(((frequency - f) / (0.2 * f)) ** 2)) for f in (600, 1500, 2700))
        samples += (0.02 + formants) * np.sin(harmonic * phase)
    syllables = np.clip(np.sin(2 * np.pi * 3 * time), 0.01, None)
    noise = np.random.default_rng(seed).standard_normal(len(time))
    return (0.5 * samples * syllables / np.abs(samples).max() + 1e-3 * noise).astype(np.float32)


def noise_like(samples: np.ndarray) -> np.ndarray:
    noise = np.random.default_rng(1).standard_normal(len(samples))
    return (noise * samples.std()).astype(np.float32)


def mel_of(samples: np.ndarray, spec: MelSpec = SPEC) -> np.ndarray:
    return LogMel(spec)(torch.from_numpy(samples)[None])[0].numpy()


def without_pesq(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pesq", None)  # makes the import fail


# ---- metrics


def test_score_has_every_metric() -> None:
    assert list(score(voice(0.5), voice(0.5), SPEC)) == list(METRICS)


def test_identity_is_perfect() -> None:
    samples = voice()
    scores = score(samples, samples, SPEC)
    assert scores["stoi"] == pytest.approx(1.0, abs=1e-6)
    assert scores["log_mel"] == scores["m_stft"] == 0.0


@needs_pesq
def test_pesq_of_identity_is_its_maximum() -> None:
    assert pesq_wideband(voice(), voice(), RATE) == pytest.approx(4.644, abs=1e-3)


def test_noise_is_bad_by_every_metric() -> None:
    samples = voice()
    near, far = score(samples, samples + 0.01 * noise_like(samples), SPEC), score(samples, noise_like(samples), SPEC)
    assert far["stoi"] < 0.6 < 0.9 < near["stoi"]
    assert far["log_mel"] > 2 > 1 > near["log_mel"]
    assert far["m_stft"] > 2 > near["m_stft"]
    if pesq_is_available():
        assert far["pesq"] < 1.5 < near["pesq"]


@pytest.mark.parametrize("name", ["bigvgan-24k", "pwg-24k", "vocos-24k"])
def test_doubling_is_ln_2_of_log_mel_whatever_the_logarithm(name: str) -> None:
    loud = 0.3 * noise_like(np.random.default_rng(0).standard_normal(RATE))  # far above every floor
    assert log_mel_distance(loud, 2 * loud, PROFILES[name]) == pytest.approx(math.log(2), rel=1e-4)


def test_statistics_do_not_change_log_mel() -> None:
    plain = profile("pwg-24k")
    standardised = plain.replace(mean=(-2.0,) * plain.n_mels, std=(0.5,) * plain.n_mels)
    pair = voice(), voice(pitch_hz=150)
    assert log_mel_distance(*pair, standardised) == log_mel_distance(*pair, plain)


def test_stft_distance_of_a_gain_is_known() -> None:
    loud = noise_like(np.random.default_rng(0).standard_normal(RATE))
    # ‖S - 2S‖ / ‖S‖ + |ln 2|; not exact, because the clamp reaches a few bins.
    assert multi_resolution_stft_distance(loud, 2 * loud) == pytest.approx(1 + math.log(2), rel=1e-3)


def test_different_lengths_are_compared_over_the_common_start() -> None:
    samples, other = voice(), voice(pitch_hz=150)
    longer = np.concatenate([other, noise_like(other)])
    assert score(samples, longer, SPEC) == score(samples, other, SPEC)
    assert score(longer, samples, SPEC) == score(other, samples, SPEC)


@pytest.mark.parametrize("seconds", [0, 0.01, 0.2])
def test_too_short_is_none(seconds: float, caplog: pytest.LogCaptureFixture) -> None:
    short = voice()[: round(seconds * RATE)]
    with caplog.at_level(logging.INFO):
        assert stoi(short, short, RATE) is None
        assert pesq_wideband(short, short, RATE) is None
        if seconds < 0.1:
            assert log_mel_distance(short, short, SPEC) is None
            assert multi_resolution_stft_distance(short, short) is None
    assert f"no STOI: {len(short)} samples, of which it needs 9600" in caplog.text


def test_too_little_speech_is_none(caplog: pytest.LogCaptureFixture) -> None:
    samples = voice(1.0)
    samples[RATE // 5 :] *= 1e-4
    with caplog.at_level(logging.INFO):
        assert stoi(samples, samples, RATE) is None
    assert "no STOI: too little speech once silence is removed" in caplog.text


def test_silent_reference_is_none_for_what_listens() -> None:
    scores = score(np.zeros_like(voice()), voice(), SPEC)
    assert scores["stoi"] is scores["pesq"] is None
    assert scores["log_mel"] > 1


def test_silent_generation_scores_badly_or_not_at_all() -> None:
    scores = score(voice(), np.zeros_like(voice()), SPEC)
    assert scores["stoi"] == pytest.approx(0, abs=1e-6)
    assert scores["pesq"] is None
    assert scores["m_stft"] > 1


def test_nan_is_none() -> None:
    broken = voice()
    broken[100] = np.nan
    assert set(score(voice(), broken, SPEC).values()) == {None}


def test_pesq_is_none_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    without_pesq(monkeypatch)
    assert not pesq_is_available()
    assert pesq_wideband(voice(), voice(), RATE) is None


@needs_pesq
def test_long_clips_do_not_overrun_the_pesq_package() -> None:
    # 30 s of short utterances: more than the 50 that its C code has room for.
    time = np.arange(30 * 16000) / 16000
    samples = (np.sin(2 * np.pi * 440 * time) * (time % 0.45 < 0.22)).astype(np.float32)
    assert pesq_wideband(samples, samples, 16000) == pytest.approx(4.644, abs=1e-3)


# ---- baseline


@pytest.mark.parametrize("name", ["bigvgan-24k", "vocos-24k", "diffwave-22k", "pwg-24k"])
def test_baseline_has_the_mel_it_was_made_from(name: str) -> None:
    spec = profile(name)
    samples = voice(1.0, rate=spec.sample_rate_hz)
    mel = mel_of(samples, spec)
    generated = griffin_lim_baseline(mel, spec)
    assert generated.dtype == np.float32
    assert generated.shape == (mel.shape[1] * spec.hop_length,)
    assert log_mel_distance(samples, generated, spec) < 0.25
    assert generated[: len(samples)].std() == pytest.approx(samples.std(), rel=0.2)


def test_baseline_improves_with_iterations() -> None:
    mel = mel_of(voice())
    distances = [log_mel_distance(voice(), griffin_lim_baseline(mel, SPEC, n), SPEC) for n in (0, 4, 32)]
    assert distances[0] > 1.2 * distances[1] > 1.2 * distances[2]


def test_baseline_keeps_quiet_parts() -> None:
    quiet = 0.05 * voice()
    assert log_mel_distance(quiet, griffin_lim_baseline(mel_of(quiet), SPEC), SPEC) < 0.15


def test_baseline_repeats_and_takes_one_frame() -> None:
    mel = mel_of(voice())[:, 20:21]
    assert griffin_lim_baseline(mel, SPEC).shape == (SPEC.hop_length,)
    assert np.array_equal(griffin_lim_baseline(mel, SPEC), griffin_lim_baseline(mel, SPEC))


def test_baseline_refuses_what_is_no_mel() -> None:
    with pytest.raises(MelError, match=r"transpose it: save mel\.T"):
        griffin_lim_baseline(mel_of(voice()).T, SPEC)


# ---- pictures


def test_picture_shows_reference_generated_and_difference(tmp_path: Path) -> None:
    figure = spectrogram_figure({"reference": voice(), "vocoder": 0.5 * voice()}, SPEC)
    panels = [axis for axis in figure.axes if axis.get_title()]
    assert [panel.get_title() for panel in panels] == ["reference", "vocoder", "vocoder minus reference"]
    left, middle, right = (panel.get_images()[0] for panel in panels)
    assert left.get_clim() == middle.get_clim()
    assert np.median(right.get_array().data) == pytest.approx(-6, abs=0.1)  # half the amplitude, in dB
    assert panels[0].get_xlim() == (0, 1.5)
    pixels = figure_to_array(figure)
    assert pixels.dtype == np.uint8
    assert pixels.ndim == 3
    assert pixels.shape[2] == 3
    save_figure(figure, tmp_path / "new" / "picture.png")
    assert (tmp_path / "new" / "picture.png").read_bytes().startswith(b"\x89PNG")


def test_ticks_lie_where_tones_do() -> None:
    time = np.arange(RATE) / RATE
    for hertz in (500, 2000, 10000):
        figure = spectrogram_figure({"tone": 0.5 * np.sin(2 * np.pi * hertz * time)}, SPEC)
        panel = figure.axes[0]
        labels = {label.get_text(): at for at, label in zip(panel.get_yticks(), panel.get_yticklabels(), strict=True)}
        loudest = panel.get_images()[0].get_array()[:, 40].argmax()
        assert labels["500" if hertz == 500 else f"{hertz // 1000}k"] == pytest.approx(loudest, abs=0.6)


@pytest.mark.parametrize("samples", [0, 1, 100])
def test_picture_of_next_to_nothing(samples: int) -> None:
    assert figure_to_array(spectrogram_figure({"clip": np.zeros(samples)}, SPEC)).size


# ---- listening samples


@pytest.fixture
def clips(tmp_path: Path) -> list[Clip]:
    made = []
    for name, pitch_hz in (("low", 110.0), ("speaker/high", 200.0)):
        clip = Clip(name, tmp_path / "audio" / f"{name}.wav", tmp_path / "mels" / f"{name}.npz")
        write_audio(clip.audio, voice(1.0, pitch_hz=pitch_hz), RATE)
        save_mel(clip.mel, mel_of(read_audio(clip.audio)), SPEC)
        made.append(clip)
    return made


def quick(mel: np.ndarray) -> np.ndarray:
    return griffin_lim_baseline(mel, SPEC, 1)


def test_samples_end_to_end(
    clips: list[Clip], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    without_pesq(monkeypatch)  # so that one column is empty everywhere
    out = tmp_path / "out"
    rows = write_samples(clips, quick, SPEC, out, baseline_iterations=16, progress=True)
    suffixes = (".griffin-lim.wav", ".png", ".reference.wav", ".wav")
    files = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    assert files == {"scores.tsv"} | {f"{clip.name}{suffix}" for clip in clips for suffix in suffixes}
    assert audio_info(out / "speaker/high.wav").samples == RATE // SPEC.hop_length * SPEC.hop_length
    assert np.array_equal(read_audio(out / "low.reference.wav"), read_audio(clips[0].audio))

    assert [(row["clip"], row["system"]) for row in rows] == [
        (name, system) for name in ("low", "speaker/high") for system in ("vocoder", "Griffin-Lim")
    ]
    assert rows[1]["log_mel"] < rows[0]["log_mel"]  # more iterations
    lines = [line.split("\t") for line in (out / "scores.tsv").read_text().splitlines()]
    assert lines[0] == ["clip", "system", "stoi", "pesq", "log_mel", "m_stft"]
    assert lines[1] == ["low", "vocoder", f"{rows[0]['stoi']:.4f}", "", *(f"{rows[0][k]:.4f}" for k in lines[0][4:])]
    assert len(lines) == 5

    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == ""  # no terminal, and quickly done


def test_samples_score_the_same_twice_in_silence(
    clips: list[Clip], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = [write_samples(clips, quick, SPEC, tmp_path / str(run), progress=False) for run in range(2)]
    assert results[0] == results[1]
    assert (tmp_path / "0/scores.tsv").read_bytes() == (tmp_path / "1/scores.tsv").read_bytes()
    assert capsys.readouterr().err == ""


def test_samples_refuse_a_foreign_mel_and_broken_audio(clips: list[Clip], tmp_path: Path) -> None:
    with pytest.raises(MelError, match=r"low\.npz: mel made to another definition"):
        write_samples(clips, quick, profile("vocos-24k"), tmp_path / "out", progress=False)
    with pytest.raises(AudioError, match="NaN"):
        write_samples(clips, lambda mel: quick(mel) * np.nan, SPEC, tmp_path / "out", progress=False)


ROWS = [
    {"clip": "a", "system": "vocoder", "stoi": 0.9, "pesq": 2.0, "log_mel": 0.25, "m_stft": 1.0},
    {"clip": "a", "system": "Griffin-Lim", "stoi": 0.98, "pesq": 3.0, "log_mel": 0.1, "m_stft": 0.75},
    {"clip": "b", "system": "vocoder", "stoi": 0.8, "pesq": None, "log_mel": 0.35, "m_stft": 1.5},
    {"clip": "b", "system": "Griffin-Lim", "stoi": 0.96, "pesq": 3.5, "log_mel": 0.3, "m_stft": 0.85},
]


def test_summary_table() -> None:
    assert summary_table(ROWS).splitlines() == [
        "             STOI ↑  PESQ ↑  log-mel ↓  M-STFT ↓  clips",
        "vocoder       0.850   2.000      0.300     1.250      2",
        "Griffin-Lim   0.970   3.250      0.200     0.800      2",
        "PESQ of vocoder is of 1 of 2 clips",
    ]


def test_summary_table_without_pesq(monkeypatch: pytest.MonkeyPatch) -> None:
    without_pesq(monkeypatch)
    assert summary_table([{**row, "pesq": None} for row in ROWS]).splitlines() == [
        "             STOI ↑  log-mel ↓  M-STFT ↓  clips",
        "vocoder       0.850      0.300     1.250      2",
        "Griffin-Lim   0.970      0.200     0.800      2",
        "no PESQ: pip install 'wavegen[pesq]'",
    ]
    assert "PESQ ↑" in summary_table(ROWS)  # scored where the package was there
