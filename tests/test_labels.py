"""Labels that a labeller finds in a recording, and live in a sound that is still arriving."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from wavegen.audio import write_audio
from wavegen.corpora.frame_labels import labels_of
from wavegen.corpora.label_files import Label
from wavegen.errors import MelError
from wavegen.labels import LiveLabels, label_recording
from wavegen.mel import LogMel, profile
from wavegen.mel.recorded import RecordedMel, recorded_mel
from wavegen.models.labeller import Labeller, LabellerConfig

SPEC = profile("bigvgan-24k")
RATE = SPEC.sample_rate_hz
EXAMPLES = LabellerConfig.examples()


def bursts() -> np.ndarray:
    """Three seconds of noise that comes and goes, in which a random labeller finds many labels."""
    random = np.random.default_rng(0)
    levels = np.repeat(10 ** random.uniform(-4, -1, 30), RATE // 10)
    return (levels * random.standard_normal(3 * RATE)).clip(-1, 1).astype(np.float32)


def random_labeller(config: LabellerConfig) -> Labeller:
    """A labeller that calls half of the frames of ``bursts`` one thing, and half another."""
    torch.manual_seed(3)
    labeller = Labeller(SPEC, config)
    for parameter in labeller.parameters():
        nn.init.normal_(parameter, std=0.3)
    with torch.no_grad():
        logits = labeller(LogMel(SPEC)(torch.from_numpy(bursts())[None]))
        bias = labeller.output.bias
        assert bias is not None
        bias -= logits[0].median(dim=-1).values
    return labeller.prepared_for_synthesis()


def recorded(sound: np.ndarray) -> RecordedMel:
    write_audio(Path("a.wav"), sound, RATE, float32=True)
    return recorded_mel(Path("a.wav"), SPEC)


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_a_recording_in_parts_has_the_probabilities_of_the_whole(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wavegen.labels.FRAMES_AT_ONCE", 50)
    labeller = random_labeller(EXAMPLES[number])
    sound = bursts()
    whole = labeller.label(LogMel(SPEC)(torch.from_numpy(sound)[None]))[0].numpy()
    found = label_recording(labeller, recorded(sound))
    assert found.dtype == np.float32
    assert np.abs(found - whole).max() < 1e-4


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("number", range(len(EXAMPLES)))
@pytest.mark.parametrize("chunk", [512, 10_000])
def test_live_labels_are_those_of_the_recording(number: int, chunk: int) -> None:
    labeller = random_labeller(EXAMPLES[number])
    sound = bursts()
    probabilities = torch.from_numpy(label_recording(labeller, recorded(sound)))
    config, marks = labeller.config, labeller.marks(probabilities[None])[0].numpy()
    whole = labels_of(marks, config.classes, SPEC, len(sound), background=config.background)
    live = LiveLabels(labeller)
    found: list[Label] = []
    for part in torch.from_numpy(sound).split(chunk):
        found += live.feed(part)
    before_the_end = len(found)
    found += live.finish()
    assert len(whole) > 5
    assert before_the_end > len(whole) // 2
    assert [label.name for label in sorted(found)] == [label.name for label in whole]
    assert np.allclose([label[:2] for label in sorted(found)], [label[:2] for label in whole])


def test_a_label_is_known_as_soon_as_it_has_ended() -> None:
    """It waits for the look-ahead of the labeller and for the rest of the window."""
    labeller = random_labeller(EXAMPLES[3])
    sound = torch.from_numpy(bursts())
    live = LiveLabels(labeller)
    waits: list[float] = []
    for place in range(0, len(sound), 64):
        waits += [(place + 64) / RATE - label.end_s for label in live.feed(sound[place : place + 64])]
    window = (SPEC.n_fft - SPEC.left_padding) / RATE
    most = window + (labeller.context.right * SPEC.hop_length + 64) / RATE
    assert waits
    assert min(waits) > 0
    assert max(waits) <= most + 1e-6


def test_a_sound_that_is_too_short_is_refused() -> None:
    live = LiveLabels(random_labeller(EXAMPLES[0]))
    assert live.feed(torch.zeros(5)) == []
    with pytest.raises(MelError):
        live.finish()
