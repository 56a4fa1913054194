"""Learning rates of the vocoder and of the discriminators."""

import pytest

from wavegen.training.config import AdversarialConfig, TrainingConfig
from wavegen.training.schedule import discriminator_learning_rate, learning_rate


def test_the_learning_rate_warms_up_and_decays() -> None:
    config = TrainingConfig(steps=1000, learning_rate=1e-2, warmup_steps=10, final_learning_rate=0.01)
    rates = [learning_rate(config, step) for step in range(1001)]
    assert rates[0] == pytest.approx(1e-3)
    assert max(rates) == pytest.approx(1e-2, rel=1e-3)
    assert rates[1000] == pytest.approx(1e-4)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    flat = TrainingConfig(steps=1000, learning_rate=1e-2, warmup_steps=10, decay="constant")
    assert learning_rate(flat, 999) == 1e-2


def test_the_discriminators_warm_up_when_they_begin_and_decay_with_the_vocoder() -> None:
    adversarial = AdversarialConfig(start_step=500, learning_rate=1e-3)
    config = TrainingConfig(steps=1000, learning_rate=1e-2, warmup_steps=10, adversarial=adversarial)
    assert discriminator_learning_rate(config, 500) == pytest.approx(
        0.1 * discriminator_learning_rate(config, 509), 0.05
    )
    for step in (509, 700, 999):
        assert discriminator_learning_rate(config, step) == pytest.approx(0.1 * learning_rate(config, step))
    same = config.model_copy(update={"adversarial": AdversarialConfig()})
    assert discriminator_learning_rate(same, 300) == learning_rate(same, 300)
