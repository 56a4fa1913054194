"""Mixtures of logistics: probabilities against scipy, drawn values against the distribution function."""

import math

import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch
from support.distributions import (
    levels_near_the_means,
    mass_by_scipy,
    mode_of,
    probabilities,
    random_parameters,
    uniform,
)

from wavegen.distributions import LogisticMixture
from wavegen.levels import LEVELS_16_BIT


@pytest.mark.parametrize("levels", [2, 256])
def test_a_mixture_over_few_levels_sums_to_one(levels: int) -> None:
    mixture = LogisticMixture(3, levels=levels)
    for column in random_parameters(mixture, batch=1)[0].T:
        assert abs(probabilities(mixture, column).sum().item() - 1) < 1e-12


def test_the_mode_of_a_mixture_is_its_highest_peak_not_its_heaviest_component() -> None:
    mixture = LogisticMixture(2)
    column = torch.tensor([math.log(0.6), math.log(0.4), -0.5, 0.5, -4.0, -7.0], dtype=torch.float64)
    mode = mixture.sample(column[None, :, None], torch.full((1, 1), 0.3), temperature=0)
    assert mode.item() == 0.5
    assert abs(mode_of(mixture, column) - 0.5) <= 2 / LEVELS_16_BIT


def test_mixture_log_prob_equals_scipy() -> None:
    x = levels_near_the_means()
    column = random_parameters(LogisticMixture())[0, :, 0]
    column[20:] += 2  # wide enough for the plain difference in float64
    weights, means, scales = column[:10].softmax(0), column[10:20], column[20:].exp()
    mass = sum(
        weight * mass_by_scipy(scipy.stats.logistic, x, mean, scale)
        for weight, mean, scale in zip(weights.numpy(), means.numpy(), scales.numpy(), strict=True)
    )
    parameters = column[None, :, None].expand(1, -1, len(x))
    log_prob = LogisticMixture().log_prob(parameters, torch.from_numpy(x)[None])[0]
    np.testing.assert_allclose(log_prob, np.log(mass), rtol=0, atol=1e-9)


@pytest.mark.parametrize("spread", [0.0, 0.3, 30.0])
@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_a_mixture_is_drawn_by_its_quantile(spread: float, temperature: float) -> None:
    """The share of the mixture below a drawn value is the number that it was drawn with, also between far peaks."""
    mixture, count = LogisticMixture(limit=100.0), 2000
    logits, means, log_scales = random_parameters(mixture, batch=1, time=count).chunk(3, dim=1)
    noise = uniform(torch.tensor([5]), count)
    noise[0, :4] = torch.tensor([2.0**-24, 1 - 2.0**-24, 0.5, 1e-3])
    means, log_scales = means * spread, log_scales.clamp(min=mixture.log_scale_min)
    drawn = mixture.sample(torch.cat((logits, means, log_scales), dim=1), noise, temperature=temperature)
    tempered = (logits / temperature + log_scales * (1 - 1 / temperature)).softmax(1)
    below = (tempered * torch.sigmoid((drawn[:, None] - means) / (log_scales.exp() * temperature))).sum(1)
    torch.testing.assert_close(torch.logit(below), torch.logit(noise.double()), rtol=0, atol=1e-5)


def test_a_drawn_value_rises_with_its_number() -> None:
    mixture = LogisticMixture()
    column = random_parameters(mixture)[:1, :, :1].expand(1, -1, 500)
    noise = torch.linspace(1e-6, 1 - 1e-6, 500, dtype=torch.float64)[None]
    assert (mixture.sample(column, noise).diff() > 0).all()


def test_tiny_probabilities_keep_their_slope() -> None:
    """Far out the logistic falls by 1/scale per unit; a difference of CDFs is 0 there, its logarithm -inf."""
    parameters = torch.tensor([0.0, -0.9, -7.0])[None, :, None].expand(1, 3, 2)
    log_prob = LogisticMixture(1).log_prob(parameters, torch.tensor([[0.5, 0.75]]))[0]
    assert math.isclose(log_prob[0] - log_prob[1], 0.25 * math.exp(7), rel_tol=1e-5)
