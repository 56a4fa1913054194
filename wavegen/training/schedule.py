"""Learning rates as functions of the step alone."""

import math

from wavegen.training.config import TrainingConfig


def learning_rate(config: TrainingConfig, step: int) -> float:
    """The vocoder's learning rate: linear warm-up, then cosine decay or a constant rate."""
    return config.learning_rate * _warm_up(config, step) * _decay(config, step)


def discriminator_learning_rate(config: TrainingConfig, step: int) -> float:
    """The discriminators' learning rate: the vocoder's decay, with a warm-up from ``adversarial.start_step`` on."""
    assert config.adversarial is not None
    highest = config.adversarial.learning_rate or config.learning_rate
    return highest * _warm_up(config, max(0, step - config.adversarial.start_step)) * _decay(config, step)


def _warm_up(config: TrainingConfig, step: int) -> float:
    return min(1.0, (step + 1) / max(1, config.warmup_steps))


def _decay(config: TrainingConfig, step: int) -> float:
    if config.decay == "constant":
        return 1.0
    floor = config.final_learning_rate
    return floor + (1 - floor) * (1 + math.cos(math.pi * step / config.steps)) / 2
