"""Training of a pitch network: labels of frames, disturbed segments, the losses, the scores, and resuming."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from support.corpus import write_corpus
from support.runs import assert_same_checkpoint, checkpoint, rows
from torch import Tensor

from wavegen.blocks import Context
from wavegen.corpora.extraction import extract
from wavegen.corpora.folders import find_recordings
from wavegen.corpora.manifest import Clip
from wavegen.corpora.pitch_labels import LABELS_PER_FRAME, load_labels, pitch_labels
from wavegen.mel import LogMel, MelFamily, MelSpec, profile
from wavegen.source import Pitch, PitchNetwork
from wavegen.source.pitch import soft_labels
from wavegen.training import loop
from wavegen.training.config import TrainingConfig
from wavegen.training.data import Batch, Segments, read_crop
from wavegen.training.objectives import PitchObjective, build_objective
from wavegen.training.pitch import (
    HIGHEST_HZ,
    Condition,
    draw_condition,
    frame_labels,
    other_definitions,
    pitch_losses,
    pitch_scores,
    training_spectrum,
)
from wavegen.training.run_folder import RunFolder
from wavegen.training.shortest import shortest_segment
from wavegen.training.validation import validate
from wavegen.vocoders import PitchVocoder, VocoderConfig
from wavegen.vocoders._speakers import SpeakerCondition

MEL = profile("bigvgan-24k")
pytestmark = pytest.mark.usefixtures("alone")


class StandInConfig(VocoderConfig):
    """The shape of a vocoder that is only a pitch network."""

    name: Literal["test_pitch"] = "test_pitch"

    @property
    def reads_pitch_labels(self) -> bool:
        return True

    @classmethod
    def examples(cls) -> tuple["StandInConfig", ...]:
        return (cls(),)


class StandIn(PitchVocoder):
    """Trains as every source vocoder does, and synthesises silence."""

    Config = StandInConfig

    def __init__(self, mel: MelSpec, config: StandInConfig | None = None, *, speakers: Sequence[str] = ()) -> None:
        super().__init__(mel)
        self.network = PitchNetwork(channels=16, layers=1)
        self.speaker_condition = SpeakerCondition(speakers, 0, 1)

    @property
    def pitch(self) -> PitchNetwork:
        return self.network

    @property
    def context(self) -> Context:
        return self.pitch.context

    def generate(
        self, mel: Tensor, mask: Tensor | None, seeds: Tensor, first_frame: int, speakers: Tensor | None = None
    ) -> Tensor:
        return mel.new_zeros(len(mel), mel.shape[-1] * self.mel.hop_length)


def stand_in(mel: MelSpec = MEL) -> StandIn:
    torch.manual_seed(0)
    return StandIn(mel)


def random_batch(lengths: Sequence[int] = (20, 20), frames: int = 20, *, voiced: bool = True) -> Batch:
    generator = torch.Generator().manual_seed(0)
    audio = 0.1 * torch.randn(len(lengths), frames * MEL.hop_length, generator=generator)
    f0 = (100 + 100 * torch.rand(len(lengths), frames * LABELS_PER_FRAME, generator=generator)) * voiced
    mel = LogMel(MEL)(audio)
    return Batch(audio, mel, torch.tensor(lengths), torch.zeros(len(lengths), dtype=torch.int64), f0=f0)


# --- labels of frames ---


@pytest.mark.parametrize("name", ["bigvgan-24k", "vocos-24k", "pwg-24k"])
def test_a_frame_has_the_label_at_the_centre_of_its_window(name: str) -> None:
    """A pulse is loudest in the frame whose window it is in the middle of; labels mark the pulse."""
    definition, frames = profile(name), 24
    samples = frames * MEL.hop_length
    for at in (2048, 2048 + 150, 3000):
        audio = torch.zeros(1, samples)
        audio[0, at] = 1.0
        labels = torch.zeros(1, frames * LABELS_PER_FRAME)
        labels[0, round(at / (MEL.hop_length / LABELS_PER_FRAME))] = 1.0
        # Mark the labels within half a hop of the frame, as frames lie further apart than labels.
        near = torch.nn.functional.max_pool1d(
            labels, 2 * (definition.hop_length // 128) + 1, 1, definition.hop_length // 128
        )
        energy = LogMel(definition)(audio).exp().sum(1)[0]
        found, mask = frame_labels(near, torch.tensor([frames]), MEL, definition, len(energy))
        assert found.shape == mask.shape == (1, 1, len(energy))
        assert found[0, 0, int(energy.argmax())] == 1
        assert found.sum() <= 3


def test_labels_of_the_own_definition_are_those_of_the_middle_of_each_hop() -> None:
    labels = torch.arange(40.0)[None]
    found, mask = frame_labels(labels, torch.tensor([7]), MEL, MEL, 10)
    assert found.flatten().tolist() == [4.0 * frame + 2 for frame in range(10)]
    assert mask.flatten().tolist() == [True] * 7 + [False] * 3
    centred, mask = frame_labels(labels, torch.tensor([7]), MEL, profile("vocos-24k"), 11)
    assert centred.flatten().tolist()[:10] == [4.0 * frame for frame in range(10)]
    assert mask.flatten().tolist() == [True] * 7 + [False] * 4


def test_a_segment_has_the_labels_of_its_own_samples(tmp_path: Path) -> None:
    clips = labelled_clips(tmp_path)
    clip = max(clips, key=lambda clip: clip.frames)
    assert clip.f0 is not None
    labels = load_labels(clip.f0, clip.frames)
    crop = read_crop(clip, MEL, 5, 10)
    assert crop.f0 is not None
    np.testing.assert_array_equal(crop.f0[0], labels[20:60])
    end = read_crop(clip, MEL, clip.frames - 3, 10).f0
    assert end is not None
    np.testing.assert_array_equal(end[0], [*labels[-12:], *[0.0] * 28])
    batch = next(Segments(clips, MEL, frames=8, seed=0).batches(0, 1, 3, rank=0, world=1, workers=0))
    assert batch.f0 is not None
    assert batch.f0.shape == (3, 8 * LABELS_PER_FRAME)


# --- disturbed segments ---


def test_the_conditions_of_the_steps_differ_and_are_the_same_again() -> None:
    drawn = [draw_condition(MEL, step) for step in range(400)]
    assert drawn == [draw_condition(MEL, step) for step in range(400)]
    own = sum(condition.definition == MEL for condition in drawn) / 400
    other = sum(condition.definition in other_definitions(MEL) for condition in drawn) / 400
    smooth = sum(condition.smooths for condition in drawn) / 400
    at_its_rate = sum(condition.rate_factor == 1 for condition in drawn) / 400
    assert [own, other, smooth, at_its_rate] == pytest.approx([0.3, 0.25, 0.15, 0.4], abs=0.06)
    assert all(0.75 <= condition.rate_factor <= 1.3 for condition in drawn)
    assert {spec for spec in other_definitions(MEL)} <= {condition.definition for condition in drawn}


def test_other_definitions_are_profiles_at_the_rate_of_the_corpus() -> None:
    others = other_definitions(MEL)
    assert {spec.sample_rate_hz for spec in others} == {24000}
    assert profile("pwg-24k") in others
    assert profile("r9y9-22k").replace(sample_rate_hz=24000) in others
    assert MEL not in others
    low = other_definitions(profile("bigvgan-22k"))
    assert max(spec.f_max_hz for spec in low) <= 11025
    assert {spec.n_fft for spec in low} == {
        1024,
        1920,
        2048,
    }  # 1920 is CosyVoice's, 2048 espnet's; those for 44.1 kHz are left out
    assert {spec.hop_length for spec in other_definitions(profile("bigvgan-44k"))} == {512}


def test_a_definition_unlike_those_of_speech_is_trained_on_itself_and_other_profiles() -> None:
    unlike = MEL.replace(n_mels=20)
    with pytest.raises(Exception, match="n_mels"):
        MelFamily(unlike)
    assert {draw_condition(unlike, step).definition for step in range(40)} <= {unlike, *other_definitions(unlike)}


def test_disturbances_depend_on_the_seed_alone() -> None:
    audio = random_batch().audio
    condition = Condition(MEL)
    together = training_spectrum(audio, condition, torch.tensor([3, 4]))
    assert torch.equal(together, training_spectrum(audio, condition, torch.tensor([3, 4])))
    apart = torch.cat([training_spectrum(audio[i : i + 1], condition, torch.tensor([3 + i])) for i in range(2)])
    torch.testing.assert_close(together, apart, rtol=1e-3, atol=1e-6)
    levels = [float(training_spectrum(audio[:1], condition, torch.tensor([i])).mean()) for i in range(50)]
    assert max(levels) / min(levels) > 10  # 26 dB
    silence = torch.zeros_like(audio[:1])
    noise = torch.stack([training_spectrum(silence, condition, torch.tensor([i])) for i in range(50)])
    assert len(noise.mean(dim=(1, 2, 3)).unique()) > 25


def test_smoothing_averages_over_frames() -> None:
    audio = random_batch().audio
    plain, smooth = (
        training_spectrum(audio, Condition(MEL, smooths=smooths), torch.tensor([3, 4])).clamp(min=1e-3).log()
        for smooths in (False, True)
    )
    assert smooth.diff(dim=-1).abs().mean() < 0.7 * plain.diff(dim=-1).abs().mean()


# --- losses and scores ---


def test_the_losses_are_entropies_of_labelled_frames() -> None:
    f0 = torch.tensor([[[0.0, 120.0, 240.0, 120.0]]])
    mask = torch.tensor([[[True, True, True, False]]])
    pitch, voicing = pitch_losses(torch.zeros(1, 240, 4), torch.zeros(1, 1, 4), f0, mask)
    assert float(pitch) == pytest.approx(2 * math.log(240) / 4)
    assert float(voicing) == pytest.approx(3 * math.log(2) / 4)
    right = soft_labels(f0.clamp(min=60)).clamp(min=1e-9).log()
    confident = torch.tensor([[[-20.0, 20.0, 20.0, 20.0]]])
    pitch_right, voicing_right = pitch_losses(right, confident, f0, mask)
    assert pitch_right < 0.6 * pitch
    assert voicing_right < 1e-6
    beyond = torch.full_like(f0, HIGHEST_HZ + 1)  # a voice above the highest class is voiced, without a class
    assert pitch_losses(right, confident, beyond, mask)[0] == 0
    assert pitch_losses(right, confident.abs(), beyond, mask)[1] < 1e-6


def test_scores_of_known_pitches() -> None:
    f0 = torch.tensor([[[100.0, 100, 100, 100, 0, 0, 100, 100]]])
    off = torch.tensor([[[10.0, -40, 60, 1200, 0, 0, 0, 5000]]])
    voicing = torch.tensor([[[0.9, 0.9, 0.9, 0.9, 0.9, 0.1, 0.1, 0.9]]])
    mask = torch.tensor([[[True] * 7 + [False]]])
    scores = pitch_scores(Pitch(100 * 2 ** (off / 1200), voicing), f0, mask)
    assert float(scores["median_cents"]) == pytest.approx(40, abs=0.1)
    assert scores["within_50_cents"] == 0.5
    assert scores["gross_errors"] == 0.25
    assert float(scores["voicing_f1"]) == pytest.approx(8 / 10)  # four right, one false alarm, one missed


def test_the_edges_of_voiced_segments_can_be_left_out() -> None:
    f0 = torch.tensor([[[0.0, 100, 100, 100, 100, 100, 0, 100, 0, 0]]])
    off = torch.tensor([[[0.0, 300, 300, 10, 300, 300, 0, 300, 0, 0]]])
    found = Pitch(100 * 2 ** (off / 1200), (f0 > 0).float())
    mask = torch.ones_like(f0, dtype=torch.bool)
    shares = [pitch_scores(found, f0, mask, edge_frames=edge)["gross_errors"] for edge in (0, 1, 2)]
    assert [round(float(share), 3) for share in shares] == [0.833, 0.667, 0]
    assert pitch_scores(found, f0, mask, edge_frames=2)["voicing_f1"] == 1


def test_scores_without_voiced_frames_are_numbers() -> None:
    shape = (1, 1, 4)
    nothing = Pitch(torch.full(shape, 100.0), torch.zeros(shape))
    for f0, f1 in ((torch.zeros(shape), 1), (torch.full(shape, 100.0), 0)):
        scores = pitch_scores(nothing, f0, torch.ones(shape, dtype=torch.bool))
        assert [float(score) for score in scores.values()] == [0, 1, 0, f1]


# --- the objective ---


@pytest.mark.parametrize("step", range(12))
def test_unvoiced_batches_and_padding_give_finite_losses_and_gradients(step: int) -> None:
    vocoder = stand_in()
    losses = build_objective(vocoder, TrainingConfig(steps=1))(random_batch((20, 3), voiced=False), step=step)
    losses["loss"].backward()
    assert losses["pitch"] == 0
    assert losses["voicing"] > 0
    assert all(p.grad is None or p.grad.isfinite().all() for p in vocoder.parameters())


def test_labels_after_the_end_of_a_clip_are_not_counted() -> None:
    for training in (True, False):
        objective = build_objective(stand_in().train(training), TrainingConfig(steps=1))
        given = random_batch((20, 8))
        assert given.f0 is not None
        other = given.f0.clone()
        other[1, 8 * LABELS_PER_FRAME :] = 0
        for step in range(8):
            a, b = (objective(given._replace(f0=f0), step=step)["loss"] for f0 in (given.f0, other))
            assert torch.equal(a, b)


def test_labels_scale_with_the_sample_rate_that_the_network_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    step = next(step for step in range(99) if draw_condition(MEL, step).rate_factor > 1.2)
    factor = draw_condition(MEL, step).rate_factor
    vocoder, told, scored = stand_in(), [], []
    forward = vocoder.pitch.forward
    monkeypatch.setattr(vocoder.pitch, "forward", lambda m, rate, mask: told.append(rate) or forward(m, rate, mask))
    losses = pitch_losses

    def spy(logits: Tensor, voicing: Tensor, f0: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        scored.append(f0)
        return losses(logits, voicing, f0, mask)

    monkeypatch.setattr("wavegen.training.objectives.pitch_losses", spy)
    given = random_batch()
    build_objective(vocoder, TrainingConfig(steps=1))(given._replace(f0=torch.full_like(given.f0, 100.0)), step=step)
    assert told == [24000 * factor]
    torch.testing.assert_close(scored[0].unique(), torch.tensor([100 * factor]))


def test_segments_shorter_than_a_definition_can_frame_are_refused_by_the_recipe() -> None:
    vocoder = stand_in()
    shortest = shortest_segment(vocoder, TrainingConfig(steps=1))
    assert shortest == 5  # pwg-24k mirrors 1024 samples
    objective = build_objective(vocoder, TrainingConfig(steps=1))
    for step in range(40):
        assert objective(random_batch((shortest,), shortest), step=step)["loss"].isfinite()


def test_no_step_is_replayed_for_another() -> None:
    objective = build_objective(stand_in(), TrainingConfig(steps=1))
    assert len({objective.kind(step) for step in range(9)}) == 9


def labelled_clips(folder: Path) -> list[Clip]:
    recordings = find_recordings(write_corpus(folder / "corpus"), held_out="a[01]")
    return extract(recordings, folder / "features", MEL, labels_pitch=True, progress=False).clips


def config(**changes: object) -> TrainingConfig:
    settings = {
        "steps": 8, "batch_size": 4, "segment_frames": 16, "warmup_steps": 2, "decay": "constant", "log_every": 1,
        "validate_every": 4, "checkpoint_every": 2, "valid_frames": 60, "listen_clips": 0,
    }  # fmt: skip
    return TrainingConfig(**{**settings, **changes})


def train(clips: list[Clip], out: Path, **changes: object) -> None:
    run = RunFolder(out, StandInConfig(), {})
    device = torch.device("cpu")
    loop.train(stand_in(), clips, config(**changes), run, seed=0, device=device, notify=lambda line: None)


def test_a_run_stopped_in_the_middle_continues_bit_for_bit(tmp_path: Path) -> None:
    clips = labelled_clips(tmp_path)
    train(clips, tmp_path / "whole")
    train(clips, tmp_path / "parts", steps=3)
    train(clips, tmp_path / "parts")
    assert_same_checkpoint(checkpoint(tmp_path / "whole", 8), checkpoint(tmp_path / "parts", 8))
    whole, parts = (rows(tmp_path / run, "train") for run in ("whole", "parts"))
    assert [row["loss"] for row in whole] == [row["loss"] for row in parts]


def test_training_improves_pitch_and_voicing_and_validation_reports_them(tmp_path: Path) -> None:
    clips = labelled_clips(tmp_path)
    train(clips, tmp_path / "run", steps=120, learning_rate=1e-2, validate_every=60, checkpoint_every=60)
    first, last = rows(tmp_path / "run", "train")[0], rows(tmp_path / "run", "valid")[-1]
    assert {"loss", "pitch", "voicing", "median_cents", "within_50_cents", "gross_errors", "voicing_f1"} <= last.keys()
    assert last["loss"] < 0.8 * first["loss"]
    assert last["median_cents"] < 100
    assert last["voicing_f1"] > 0.8


def test_validation_reads_the_mels_as_they_are(tmp_path: Path) -> None:
    clips = [clip for clip in labelled_clips(tmp_path) if clip.split == "valid"]
    objective = build_objective(stand_in().eval(), config())
    assert isinstance(objective, PitchObjective)
    scores = [validate(objective, clips, config(), torch.device("cpu"), step=step) for step in (0, 1)]
    assert scores[0] == scores[1]


def test_labels_and_mels_of_a_glide_agree() -> None:
    """A network that knew the pitch of each window would be within a few cents: labels are not a frame late."""
    time = np.arange(24000) / 24000
    glide = 100 * 2 ** (2 * time)
    phase = 2 * np.pi * np.cumsum(glide) / 24000
    samples = (0.05 * sum(np.cos(k * phase) for k in range(1, 20))).astype(np.float32)
    for definition in (MEL, profile("vocos-24k"), profile("pwg-24k")):
        labels = torch.from_numpy(pitch_labels(samples, MEL))[None]
        frames = MEL.frames(len(samples))
        found, mask = frame_labels(labels, torch.tensor([frames]), MEL, definition, definition.frames(len(samples)))
        windows = np.arange(found.shape[-1]) * definition.hop_length + definition.n_fft / 2 - definition.left_padding
        inside = (windows > 2400) & (windows < 21600)
        errors = 1200 * np.log2(found[0, 0].numpy()[inside] / (100 * 2 ** (2 * windows[inside] / 24000)))
        assert mask[0, 0].numpy()[inside].all()
        assert abs(np.median(errors)) < 4  # half the distance of two labels is 3 cents
