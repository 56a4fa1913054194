"""The mel of a sound that is still arriving is the mel of the whole sound."""

import numpy as np
import pytest
import torch
from support.messages import Messages

from wavegen.errors import MelError
from wavegen.mel import LogMel, MelSpec, profile
from wavegen.mel.live import LiveMel

SPECS = [profile("bigvgan-24k"), profile("vocos-24k"), profile("vocos-24k").replace(hop_length=512)]


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("chunk", [1000, 37, 100_000])
def test_frames_that_come_one_by_one_are_those_of_the_whole(spec: MelSpec, chunk: int) -> None:
    for count in (12_345, spec.min_samples, 1024):
        samples = torch.from_numpy(np.random.default_rng(0).uniform(-0.5, 0.5, count).astype(np.float32))
        live = LiveMel(spec)
        parts = [live.feed(part) for part in samples.split(chunk)]
        parts.append(live.finish())
        assert torch.allclose(torch.cat(parts, dim=-1), LogMel(spec)(samples[None])[0], atol=1e-5)


def test_a_frame_comes_with_the_last_sample_of_its_window() -> None:
    spec = SPECS[0]
    live = LiveMel(spec)
    window = spec.n_fft - spec.left_padding
    assert live.feed(torch.zeros(window - 1)).shape[-1] == 0
    assert live.feed(torch.zeros(1)).shape[-1] == 1
    assert live.feed(torch.zeros(spec.hop_length)).shape[-1] == 1


def test_a_sound_without_a_frame_is_refused(messages: Messages) -> None:
    live = LiveMel(SPECS[0])
    live.feed(torch.zeros(10))
    with messages.refused(MelError):
        live.finish()
