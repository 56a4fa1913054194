"""Random changes of training segments."""

from typing import Any

import numpy as np
import pytest
import torch
from support.corpus import voice, write_corpus
from support.vocoders import new_vocoder

from wavegen.corpora.extraction import extract
from wavegen.corpora.folders import find_recordings
from wavegen.corpora.manifest import Clip
from wavegen.mel import LogMel, profile
from wavegen.training.augmentation import (
    LARGEST_PEAK,
    Disturbance,
    augmented,
    coloured_noise,
    disturbed,
    dithered,
    draw_disturbance,
    resample,
    smoothed,
    synthetic_sound,
)
from wavegen.training.config import AugmentationConfig, TrainingConfig
from wavegen.training.data import Segments, collate
from wavegen.training.objectives import ReconstructionObjective

ALWAYS = 1 - 1e-12
NOTHING = {"levels_db": (0.0, 0.0), "equalisation": 0.0, "noise": 0.0, "reverberation": 0.0, "synthetic": 0.0}
MEL = profile("bigvgan-24k")


def changed(samples: np.ndarray, seed: int = 0, **settings: Any) -> np.ndarray:
    """The samples with the given changes and no others."""
    return augmented(samples, 24000, AugmentationConfig(**{**NOTHING, **settings}), np.random.default_rng(seed))


def rms(samples: np.ndarray) -> float:
    return float(np.sqrt(np.mean(samples.astype(np.float64) ** 2)))


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Clip]:
    folder = tmp_path_factory.mktemp("clips")
    return extract(find_recordings(write_corpus(folder / "corpus")), folder / "features", MEL, progress=False).clips


SPEECH = (0.5 * voice(0.5)).astype(np.float32)


def test_without_a_change_the_segment_is_the_recording() -> None:
    assert np.array_equal(changed(SPEECH), SPEECH)


@pytest.mark.parametrize("kind", ["equalisation", "noise", "reverberation", "synthetic"])
def test_each_change_depends_on_the_random_numbers_alone(kind: str) -> None:
    first, again, other = (changed(SPEECH, seed, **{kind: ALWAYS}) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.allclose(first, SPEECH, atol=1e-3)
    assert not np.allclose(first, other, atol=1e-3)
    assert first.dtype == np.float32
    assert first.shape == SPEECH.shape


def test_a_segment_is_never_amplified_beyond_full_scale() -> None:
    loud = changed(SPEECH, levels_db=(60.0, 60.0))
    assert np.abs(loud).max() == pytest.approx(LARGEST_PEAK)
    assert rms(changed(SPEECH, levels_db=(-20.0, -20.0))) == pytest.approx(0.1 * rms(SPEECH), rel=1e-5)
    silence = np.zeros(100, np.float32)
    assert np.array_equal(changed(silence, noise=ALWAYS, reverberation=ALWAYS, equalisation=ALWAYS), silence)


def test_equalisation_has_no_delay() -> None:
    impulse = np.zeros(4001, np.float32)
    impulse[2000] = 0.5
    for seed in range(10):
        response = changed(impulse, seed, equalisation=ALWAYS)
        assert np.abs(response).argmax() == 2000
        np.testing.assert_allclose(response, response[::-1], atol=1e-5)


def test_reverberation_comes_after_its_sound() -> None:
    impulse = np.zeros(24000, np.float32)
    impulse[1000] = 0.5
    response = changed(impulse, reverberation=ALWAYS)
    assert np.abs(response[:1000]).max() < 1e-7
    assert rms(response[1001:4001]) > 10 * rms(response[20001:])


def test_noise_lies_5_to_40_db_below_the_segment() -> None:
    for seed in range(10):
        noise = changed(SPEECH, seed, noise=ALWAYS) - SPEECH
        assert 5 <= 20 * np.log10(rms(SPEECH) / rms(noise)) <= 40


def test_synthetic_sounds_are_of_several_kinds_and_audible() -> None:
    sounds = [synthetic_sound(24000, 24000, np.random.default_rng(seed)) for seed in range(20)]
    assert all(0.003 < rms(sound) < 0.5 for sound in sounds)
    flatness = [np.exp(np.mean(np.log(p := np.abs(np.fft.rfft(s)) ** 2 + 1e-12))) / np.mean(p) for s in sounds]
    assert min(flatness) < 1e-4  # tones
    assert max(flatness) > 0.1  # noise or clicks


def test_coloured_noise_falls_by_at_most_6_db_per_octave() -> None:
    for seed in range(10):
        power = np.abs(np.fft.rfft(coloured_noise(1 << 15, np.random.default_rng(seed)))) ** 2
        fall_db = 10 * np.log10(power[1000:2000].mean() / power[8000:16000].mean())  # three octaves
        assert -1 < fall_db < 19


def test_resampling_keeps_frequencies_and_removes_what_the_lower_rate_cannot_hold() -> None:
    time = torch.arange(24000) / 24000
    low, high = (torch.sin(2 * np.pi * hz * time)[None] for hz in (1000, 11000))
    slow = resample(low + high, 20, 16)[0].numpy()  # to 19,200 Hz
    assert len(slow) == 19200
    expected = np.sin(2 * np.pi * 1000 * np.arange(19200) / 19200)
    np.testing.assert_allclose(slow[500:-500], expected[500:-500], atol=0.01)


def test_smoothing_and_noise_disturb_a_mel_as_much_as_they_say() -> None:
    mel = LogMel(MEL)(torch.from_numpy(SPEECH)[None])
    seeds = torch.tensor([3])
    assert torch.equal(disturbed(mel, MEL, Disturbance(), seeds), mel)
    smooth = disturbed(mel, MEL, Disturbance(smooths=True), seeds)
    torch.testing.assert_close(smooth[..., 1:-1], mel.unfold(-1, 3, 1).mean(-1))
    noisy = disturbed(mel, MEL, Disturbance(noise=True), seeds)
    assert torch.equal(noisy, disturbed(mel, MEL, Disturbance(noise=True), seeds))
    above_floor = mel > np.log(MEL.floor) + 1
    assert (noisy - mel)[above_floor].exp().std().item() == pytest.approx(0.05, abs=0.01)


def test_a_steps_disturbance_depends_on_the_step_alone() -> None:
    config = AugmentationConfig(smoothing=0.3, mel_noise=0.0)
    drawn = [draw_disturbance(config, step) for step in range(300)]
    assert drawn == [draw_disturbance(config, step) for step in range(300)]
    assert 0.2 < np.mean([disturbance.smooths for disturbance in drawn]) < 0.4
    assert not any(disturbance.noise for disturbance in drawn)


def test_segments_are_changed_by_step_and_place_and_keep_their_padding(clips: list[Clip]) -> None:
    plain = Segments(clips, MEL, frames=200, seed=0)
    tested = Segments(clips, MEL, frames=200, seed=0, augmentation=AugmentationConfig(noise=ALWAYS))
    for key in ((0, 0), (0, 1), (5, 0)):
        batch, original = tested[key], plain[key]
        assert torch.equal(batch.audio, tested[key].audio)
        assert not torch.allclose(batch.audio, original.audio, atol=1e-4)
        real = int(batch.lengths) * MEL.hop_length
        assert not batch.audio[:, real:].any()
        assert torch.equal(batch.mel, original.mel)


def test_a_vocoder_is_asked_for_the_changed_sound_in_training_and_for_the_recording_in_validation(
    clips: list[Clip],
) -> None:
    config = TrainingConfig(steps=1, augmentation=AugmentationConfig(smoothing=0.0, mel_noise=0.0))
    segments = Segments(clips, MEL, frames=64, seed=0, augmentation=config.augmentation)
    batch = collate([segments[0, 0], segments[0, 1]])
    vocoder = new_vocoder("spectral", MEL, channels=4, layers=1)
    objective = ReconstructionObjective(vocoder.train(), config)
    reader, task = objective.task(batch, 0)
    assert reader is vocoder
    torch.testing.assert_close(task.audio, batch.audio, atol=2e-4, rtol=0)  # dither
    torch.testing.assert_close(task.mel, LogMel(MEL)(task.audio))
    vocoder.eval()
    assert objective.task(batch, 0)[1] is batch


def test_smoothing_disturbs_the_mel_and_leaves_the_sound_to_generate(clips: list[Clip]) -> None:
    config = TrainingConfig(steps=1, augmentation=AugmentationConfig(smoothing=ALWAYS, mel_noise=0.0))
    batch = Segments(clips, MEL, frames=64, seed=0)[0, 0]
    objective = ReconstructionObjective(new_vocoder("spectral", MEL, channels=4, layers=1).train(), config)
    _, task = objective.task(batch, 0)
    torch.testing.assert_close(task.mel, smoothed(LogMel(MEL)(task.audio)))
    assert not torch.allclose(task.mel, LogMel(MEL)(task.audio), atol=0.1)


def test_a_vocoder_of_any_mel_is_asked_for_resampled_sound(clips: list[Clip]) -> None:
    config = TrainingConfig(steps=1)
    batch = Segments(clips, MEL, frames=64, seed=0)[0, 0]
    vocoder = new_vocoder("spectral", MEL, channels=4, layers=1, any_mel=True).train()
    objective = ReconstructionObjective(vocoder, config)
    step = next(step for step in range(99) if vocoder.family.draw(step).sample_rate_hz < 20000)
    reader, task = objective.task(batch, step)
    ratio = reader.mel.sample_rate_hz / MEL.sample_rate_hz
    assert task.mel.shape[-1] == int(64 * ratio + 1e-9)
    assert task.audio.shape[-1] == task.mel.shape[-1] * MEL.hop_length
    assert int(task.lengths) == int(int(batch.lengths) * ratio + 1e-9)
    assert objective.generate(reader, task).shape == task.audio.shape


def test_dither_is_faint_and_seeded() -> None:
    silence, seeds = torch.zeros(2, 2400), torch.tensor([0, 1])
    noise = dithered(silence, seeds)
    assert torch.equal(noise, dithered(silence, seeds))
    assert not torch.equal(noise[0], noise[1])
    assert noise.std().item() == pytest.approx(2e-5, rel=0.1)
