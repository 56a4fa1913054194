"""The labeller: what its losses count, and the task that it learns from. ``test_contracts.py`` runs the laws."""

import pytest
import torch
from pydantic import ValidationError
from support.mels import TINIEST as MEL
from support.messages import Messages
from support.subjects import randomised
from torch import Tensor

from wavegen.config import parse
from wavegen.corpora.frame_labels import UNLABELLED
from wavegen.errors import ConfigError
from wavegen.models import ModelBatch
from wavegen.models.labeller import Labeller, LabellerConfig

EXAMPLES = LabellerConfig.examples()
MASK = torch.ones(2, 1, 40, dtype=torch.bool)


def labeller(config: LabellerConfig) -> Labeller:
    torch.manual_seed(0)
    return randomised(Labeller(MEL, config))  # type: ignore[return-value]


def test_the_context_is_that_of_its_layers() -> None:
    same, _, causal, ahead = (labeller(config).context for config in EXAMPLES)
    assert (same.left, same.right) == (5, 5)
    assert (causal.left, causal.right) == (10, 0)
    assert (ahead.left, ahead.right) == (8, 2)


def test_probabilities_of_exclusive_classes_sum_to_one() -> None:
    model = labeller(EXAMPLES[1])
    found = model.label(torch.randn(2, MEL.n_mels, 7, dtype=torch.float64))
    assert torch.allclose(found.sum(1), torch.ones(2, 7, dtype=torch.float64))
    marks = model.marks(found)
    assert (marks.sum(1) == 1).all()
    assert (marks.argmax(1) == found.argmax(1)).all()
    independent = labeller(EXAMPLES[0])
    some = independent.label(torch.randn(2, MEL.n_mels, 7, dtype=torch.float64))
    assert ((some > 0.5) == (independent.marks(some) == 1)).all()


def quiet(config: LabellerConfig, **changes: object) -> Labeller:
    """A labeller in training without pauses and with hardly any noise."""
    update = {"pauses": 0.0, "noise_below_db": (60.0, 60.0), **changes}
    return labeller(config.model_copy(update=update)).train()


def batch(classes: int = 2) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    torch.manual_seed(2)
    labels = (torch.rand(2, classes, 40) < 0.5).to(torch.int8)
    audio = 0.1 * torch.randn(2, 40 * MEL.hop_length, dtype=torch.float64)
    return torch.randn(2, MEL.n_mels, 40, dtype=torch.float64), audio, torch.tensor([5, 6]), labels


def test_frames_without_a_label_do_not_count() -> None:
    model = quiet(EXAMPLES[0])
    mel, audio, seeds, labels = batch()
    whole = model.losses(ModelBatch(mel, MASK, audio, seeds, labels))["loss"]
    half, other = labels.clone(), labels.clone()
    half[..., 20:], other[..., :20] = UNLABELLED, UNLABELLED
    parts = [model.losses(ModelBatch(mel, MASK, audio, seeds, some))["loss"] for some in (half, other)]
    assert torch.allclose(sum(parts), whole)
    assert all(0 < part < whole for part in parts)
    assert model.losses(ModelBatch(mel, MASK, audio, seeds, torch.full_like(labels, UNLABELLED)))["loss"] == 0


def test_frames_after_the_end_of_a_clip_do_not_count() -> None:
    model = quiet(EXAMPLES[0])
    mel, audio, seeds, labels = batch()
    mask = MASK.clone()
    mask[..., 20:] = False
    changed = labels.clone()
    changed[..., 20:] = 1 - changed[..., 20:]
    batches = [ModelBatch(mel, mask, audio, seeds, some) for some in (labels, changed)]
    assert model.losses(batches[0]) == model.losses(batches[1])


@pytest.mark.parametrize("number", [0, 1])
def test_weights_multiply_the_loss_of_frames_that_have_the_class(number: int) -> None:
    mel, audio, seeds, labels = batch(len(EXAMPLES[number].classes))
    labels[:] = 0
    labels[:, 0] = 1
    plain, weighted = (
        quiet(EXAMPLES[number], class_weights=weights).losses(ModelBatch(mel, MASK, audio, seeds, labels))["loss"]
        for weights in ((), (3.0,) + (1.0,) * (labels.shape[1] - 1))
    )
    if EXAMPLES[number].exclusive:
        assert torch.allclose(weighted, 3 * plain)
    else:
        assert plain < weighted < 3 * plain


def test_validation_scores_are_the_f1_of_the_frames() -> None:
    model = quiet(EXAMPLES[0]).eval()
    mel, audio, seeds, labels = batch()
    marks = model.marks(model.probabilities(model(model.log_mel(model.task(audio, labels, seeds)[0]))))
    scores = model.losses(ModelBatch(mel, MASK, audio, seeds, labels))
    for index, name in enumerate(model.config.classes):
        found, true = marks[:, index] == 1, labels[:, index] == 1
        expected = 2 * (found & true).sum() / (found.sum() + true.sum())
        assert torch.allclose(scores[f"f1_{name}"].double(), expected.double())


def test_the_task_of_a_segment_follows_from_its_seed_alone() -> None:
    model = labeller(EXAMPLES[0])
    _, audio, seeds, labels = batch()
    noisy, marks = model.task(audio, labels, seeds)
    again, _ = model.task(audio, labels, seeds)
    assert torch.equal(noisy, again)
    alone, its_marks = model.task(audio[1:], labels[1:], seeds[1:])
    assert torch.equal(alone, noisy[1:])
    assert torch.equal(its_marks, marks[1:])
    other, _ = model.task(audio, labels, seeds + 2)
    assert not torch.allclose(other[0] / other[0].std(), noisy[0] / noisy[0].std(), atol=1e-3)


@pytest.mark.parametrize(("number", "silence"), [(0, (0, 0)), (1, (0, 0, 1))])
def test_a_pause_is_silent_and_has_the_labels_of_silence(number: int, silence: tuple[int, ...]) -> None:
    model = quiet(EXAMPLES[number], pauses=1.0, noise_below_db=(90.0, 90.0))
    _, audio, seeds, labels = batch(len(silence))
    labels[:] = 0
    labels[:, 0] = 1
    noisy, marks = model.task(audio, labels, seeds)
    is_silent = (marks == torch.tensor(silence, dtype=torch.int8)[:, None]).all(1)
    assert ((is_silent.sum(1) >= 5) & (is_silent.sum(1) <= 24)).all()
    levels = noisy.view(2, 40, MEL.hop_length).std(-1)
    assert levels[is_silent].max() < 0.01 * levels[~is_silent].min()


def test_noise_has_the_level_that_was_drawn() -> None:
    for babble in (0.0, 1.0):
        model = quiet(EXAMPLES[0], noise_below_db=(6.0, 6.0), babble=babble)
        _, audio, seeds, labels = batch()
        noisy, _ = model.task(audio, labels, seeds, torch.randn(2, 6, audio.shape[-1], dtype=torch.float64))
        gain = (noisy * audio).sum(-1, keepdim=True) / audio.square().sum(-1, keepdim=True)
        noise = noisy / gain - audio
        ratio_db = 10 * (audio.square().mean(-1) / noise.square().mean(-1)).log10()
        assert torch.allclose(ratio_db, torch.tensor(6.0, dtype=torch.float64), atol=1.5)


def test_babble_is_made_of_the_other_recordings_each_as_loud_as_the_others() -> None:
    model = quiet(EXAMPLES[0], noise_below_db=(-40.0, -40.0), babble=1.0)
    assert model.others == 6
    assert quiet(EXAMPLES[0], babble=0.0).others == 0
    _, audio, seeds, labels = batch()
    others = torch.randn(2, 6, audio.shape[-1], dtype=torch.float64)
    others[:, 0] *= 100
    noisy, _ = model.task(audio, labels, seeds, others)
    for noise, voices in zip(noisy, others, strict=True):
        likeness = [float((noise @ voice) / (noise.norm() * voice.norm())) for voice in voices]
        assert likeness == pytest.approx([6**-0.5] * 6, abs=0.05)


def test_what_is_shown_has_the_labels_under_the_spectrogram() -> None:
    model = labeller(EXAMPLES[0]).float()
    mel, audio, _, labels = batch()
    shown = model.show(mel[0].float(), audio[0].float(), labels[0])
    assert [picture.shape for picture in shown.pictures.values()] == [(MEL.n_mels, 40), (2, 40), (2, 40)]
    assert shown.sounds["in noise"].shape == audio[0].shape


FAULTS = {
    "twice": {"classes": ["a", "a"]},
    "weights": {"class_weights": [1.0]},
    "one exclusive class": {"classes": ["a"], "exclusive": True},
    "background that is not a class": {"exclusive": True, "background": "c"},
    "background of independent classes": {"background": "voiced"},
    "no classes": {"classes": []},
}


@pytest.mark.parametrize("fault", FAULTS)
def test_an_impossible_config_is_refused(fault: str, messages: Messages) -> None:
    with messages.refused(ConfigError):
        parse(LabellerConfig, FAULTS[fault], where="recipe.yaml")


def test_look_ahead_beyond_the_first_layer_is_refused(messages: Messages) -> None:
    with messages.refused(ConfigError):
        Labeller(MEL, LabellerConfig(padding="causal", look_ahead=5, kernel_size=5))
    with pytest.raises(ValidationError):
        LabellerConfig(look_ahead=-1)
