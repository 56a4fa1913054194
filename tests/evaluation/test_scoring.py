"""The Griffin-Lim baseline, pictures and listening samples."""

import csv
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from support.messages import Messages
from support.signals import speech

from wavegen.audio import audio_info, read_audio, write_audio
from wavegen.corpora.manifest import Clip
from wavegen.errors import AudioError, MelError
from wavegen.evaluation.baseline import griffin_lim_baseline
from wavegen.evaluation.metrics import METRICS, Pair, available
from wavegen.evaluation.pictures import figure_to_array, save_figure, spectrogram_figure
from wavegen.evaluation.samples import write_samples
from wavegen.evaluation.scoring import REFERENCE
from wavegen.mel import LogMel, MelSpec, profile, save_mel

SPEC = profile("bigvgan-24k")
RATE = SPEC.sample_rate_hz


# A second thread makes Griffin-Lim many times slower if another process keeps its core busy.
pytestmark = pytest.mark.usefixtures("one_thread")


def mel_of(samples: np.ndarray, spec: MelSpec = SPEC) -> np.ndarray:
    return LogMel(spec)(torch.from_numpy(samples)[None])[0].numpy()


def log_mel_distance(reference: np.ndarray, generated: np.ndarray, spec: MelSpec) -> float:
    return METRICS["log_mel"].compute(Pair(reference, generated, spec))


def without_pesq(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pesq", None)  # makes the import fail


# ---- baseline


@pytest.mark.parametrize("name", ["bigvgan-24k", "vocos-24k", "diffwave-22k", "pwg-24k"])
def test_the_baseline_has_the_mel_that_it_was_made_from(name: str) -> None:
    spec = profile(name)
    samples = speech(1.0, rate=spec.sample_rate_hz)
    mel = mel_of(samples, spec)
    generated = griffin_lim_baseline(mel, spec)
    assert generated.dtype == np.float32
    assert generated.shape == (mel.shape[1] * spec.hop_length,)
    assert log_mel_distance(samples, generated, spec) < 0.25
    assert generated[: len(samples)].std() == pytest.approx(samples.std(), rel=0.2)


def test_the_baseline_improves_with_iterations() -> None:
    mel = mel_of(speech())
    distances = [log_mel_distance(speech(), griffin_lim_baseline(mel, SPEC, n), SPEC) for n in (0, 4, 32)]
    assert distances[0] > 1.2 * distances[1] > 1.2 * distances[2]


def test_the_baseline_keeps_quiet_parts() -> None:
    quiet = 0.05 * speech()
    assert log_mel_distance(quiet, griffin_lim_baseline(mel_of(quiet), SPEC), SPEC) < 0.15


def test_the_baseline_is_deterministic_and_takes_a_single_frame() -> None:
    mel = mel_of(speech())[:, 20:21]
    assert griffin_lim_baseline(mel, SPEC).shape == (SPEC.hop_length,)
    assert np.array_equal(griffin_lim_baseline(mel, SPEC), griffin_lim_baseline(mel, SPEC))


def test_the_baseline_refuses_a_transposed_mel(messages: Messages) -> None:
    with messages.refused(MelError):
        griffin_lim_baseline(mel_of(speech()).T, SPEC)


# ---- pictures


def test_a_picture_shows_reference_output_and_difference(tmp_path: Path) -> None:
    figure = spectrogram_figure({"reference": speech(), "vocoder": 0.5 * speech()}, SPEC)
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


def test_ticks_lie_at_the_bins_of_tones() -> None:
    time = np.arange(RATE) / RATE
    for hertz in (500, 2000, 10000):
        figure = spectrogram_figure({"tone": 0.5 * np.sin(2 * np.pi * hertz * time)}, SPEC)
        panel = figure.axes[0]
        labels = {label.get_text(): at for at, label in zip(panel.get_yticks(), panel.get_yticklabels(), strict=True)}
        loudest = panel.get_images()[0].get_array()[:, 40].argmax()
        assert labels["500" if hertz == 500 else f"{hertz // 1000}k"] == pytest.approx(loudest, abs=0.6)


@pytest.mark.parametrize("samples", [0, 1, 100])
def test_very_short_clips_have_a_picture(samples: int) -> None:
    assert figure_to_array(spectrogram_figure({"clip": np.zeros(samples)}, SPEC)).size


# ---- listening samples


@pytest.fixture
def clips(tmp_path: Path) -> list[Clip]:
    clips = []
    for name, pitch_hz in (("low", 110.0), ("speaker/high", 200.0)):
        audio, path = tmp_path / "audio" / f"{name}.wav", tmp_path / "mels" / f"{name}.npz"
        write_audio(audio, speech(1.0, pitch_hz=pitch_hz), RATE)
        mel = mel_of(read_audio(audio))
        save_mel(path, mel, SPEC)
        clips.append(Clip(name, "valid", RATE, mel.shape[1], audio, path))
    return clips


def quick(mel: np.ndarray, speaker: str | None) -> np.ndarray:
    assert speaker is None
    return griffin_lim_baseline(mel, SPEC, 1)


def test_samples_have_sounds_pictures_scores_and_a_page(
    clips: list[Clip], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    without_pesq(monkeypatch)
    out = tmp_path / "out"
    scored = write_samples(clips, quick, SPEC, out, baseline_iterations=16, progress=True)
    suffixes = (".griffin-lim.wav", ".source-filter.wav", ".png", ".reference.wav", ".wav")
    files = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    assert files >= {"scores.csv", "index.html"} | {f"{clip.name}{suffix}" for clip in clips for suffix in suffixes}
    assert audio_info(out / "speaker/high.wav").samples == RATE // SPEC.hop_length * SPEC.hop_length
    assert np.array_equal(read_audio(out / "low.reference.wav"), read_audio(clips[0].audio))

    assert [clip.name for clip in scored] == ["low", "speaker/high"]
    assert [system for system in scored[0].scores if system != REFERENCE] == ["vocoder", "source-filter", "Griffin-Lim"]
    few, many = (scored[0].scores[system].values["log_mel"] for system in ("vocoder", "Griffin-Lim"))
    assert many < few  # iterations
    rows = [row for row in csv.DictReader((out / "scores.csv").read_text().splitlines()) if row["system"] != REFERENCE]
    assert list(rows[0]) == ["clip", "system", *available(), "notes"]
    assert "pesq" not in rows[0]
    assert (rows[0]["clip"], rows[0]["system"], rows[0]["log_mel"]) == ("low", "vocoder", f"{few:.6g}")
    assert len(rows) == 6

    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == ""  # no progress bar: not a terminal, and done soon


def test_samples_are_deterministic_and_can_be_silent(
    clips: list[Clip], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = [write_samples(clips, quick, SPEC, tmp_path / str(run), progress=False) for run in range(2)]
    assert results[0] == results[1]
    assert (tmp_path / "0/scores.csv").read_bytes() == (tmp_path / "1/scores.csv").read_bytes()
    assert capsys.readouterr().err == ""


def test_samples_refuse_mels_of_another_definition_and_broken_audio(
    clips: list[Clip], tmp_path: Path, messages: Messages
) -> None:
    with messages.refused(MelError):
        write_samples(clips, quick, profile("vocos-24k"), tmp_path / "out", progress=False)
    with messages.refused(AudioError):
        write_samples(clips, lambda mel, speaker: quick(mel, speaker) * np.nan, SPEC, tmp_path / "out", progress=False)
