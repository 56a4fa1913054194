"""The state of a training: EMA weights, and weights that are not finite."""

import torch
from support.vocoders import new_vocoder

from wavegen.mel import profile
from wavegen.training.config import TrainingConfig
from wavegen.training.state import TrainingState

MEL = profile("bigvgan-24k")


def test_ema_weights_follow_at_the_decay() -> None:
    state = TrainingState(new_vocoder("spectral", MEL, channels=4, layers=1), TrainingConfig(steps=1, ema_decay=0.9))
    before = state.ema.output_norm.weight.clone()
    with torch.no_grad():
        state.vocoder.output_norm.weight.add_(1)
    state.step = 10_000  # past the first steps, when they follow faster
    state.update_ema()
    torch.testing.assert_close(state.ema.output_norm.weight, before + 0.1)


def test_nan_in_a_discriminator_makes_the_weights_not_finite() -> None:
    config = TrainingConfig(steps=9, adversarial={"periods": (2,), "period_channels": (4,), "resolutions": ()})
    state = TrainingState(new_vocoder("spectral", MEL, channels=4, layers=1), config)
    assert state.weights_are_finite()
    assert state.discriminators is not None
    with torch.no_grad():
        next(state.discriminators.parameters()).flatten()[0] = float("nan")
    assert not state.weights_are_finite()
