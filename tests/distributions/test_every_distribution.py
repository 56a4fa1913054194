"""Every output distribution: probabilities and gradients against physics, samples against probabilities."""

import math
from typing import Any

import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch
from support.distributions import (
    mode_of,
    probabilities,
    random_parameters,
    symbols,
    uniform,
)
from support.messages import Messages

from wavegen.distributions import Gaussian, LogisticMixture, MuLaw, OutputDistribution, output_distribution
from wavegen.errors import ConfigError
from wavegen.levels import LEVELS_16_BIT, Cells, mu_law_cells, mu_law_decode, mu_law_encode
from wavegen.noise import normal_noise

ALL = [MuLaw(), LogisticMixture(), Gaussian()]
every_distribution = pytest.mark.parametrize("distribution", ALL, ids=lambda d: d.name)


@pytest.mark.parametrize("limit", [1.0, 32.0])
@pytest.mark.parametrize("kind", [MuLaw, LogisticMixture, Gaussian])
def test_the_masses_of_all_mu_law_classes_sum_to_one(kind: type[OutputDistribution], limit: float) -> None:
    """For samples, and for errors of predictions whose scale is far smaller and larger than a class."""
    distribution = kind(limit=limit)
    x = mu_law_decode(torch.arange(256), dtype=torch.float64)[None]
    for scale in (1e-5, 1e-3, 1.0) if limit > 1 else (1.0,):
        mean = 0.1 if limit > 1 else 0.0
        column = (
            random_parameters(distribution, batch=1, time=1) if limit == 1 else distribution.standard()[None, :, None]
        )
        cells = mu_law_cells(x).relative_to(torch.tensor(mean), torch.tensor(scale))
        mass = distribution.log_mass(column.double().expand(1, -1, 256), cells).exp()
        assert float(mass.sum()) == pytest.approx(1, abs=1e-9)


def test_a_mass_equals_scipys_difference_of_the_distribution_function() -> None:
    """Wide and narrow cells, in the middle and in both tails, where a plain difference would cancel in float32."""
    centre = torch.tensor([[-30.0, -3.0, -0.2, 0.0, 0.5, 4.0, 30.0]], dtype=torch.float64)
    for half_width in (1e-4, 0.04, 0.5, 3.0):
        half = torch.full_like(centre, half_width)
        nowhere = torch.zeros_like(centre, dtype=torch.bool)
        edges = (centre - half).numpy(), (centre + half).numpy()
        low, high = (np.where(centre.numpy() > 0, -edge, edge) for edge in edges)
        low, high = np.minimum(low, high), np.maximum(low, high)
        for distribution, scipys in ((Gaussian(), scipy.stats.norm), (LogisticMixture(1), scipy.stats.logistic)):
            expected = scipys.logcdf(high) + np.log1p(-np.exp(scipys.logcdf(low) - scipys.logcdf(high)))
            for dtype, tolerance in ((torch.float64, 1e-6), (torch.float32, 1e-3)):
                parameters = torch.zeros(1, distribution.channels, 7, dtype=dtype)
                mass = distribution.log_mass(parameters, Cells(centre, half, nowhere, nowhere))
                np.testing.assert_allclose(mass.double().numpy(), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("kind", [MuLaw, LogisticMixture, Gaussian])
def test_the_standard_parameters_have_mean_0_and_standard_deviation_1(kind: type[OutputDistribution]) -> None:
    distribution = kind(limit=32.0)
    noise = uniform(torch.tensor([1]), 200_000)
    samples = distribution.sample(distribution.standard()[None, :, None].expand(1, -1, 200_000), noise)
    assert abs(float(samples.mean())) < 0.02
    assert float(samples.std()) == pytest.approx(1, abs=0.03)


@every_distribution
def test_each_sample_can_have_its_own_temperature(distribution: OutputDistribution) -> None:
    parameters = random_parameters(distribution, batch=1, time=3)
    noise = torch.rand(1, 3, generator=torch.Generator().manual_seed(3))
    temperatures = (0.0, 0.5, 1.0)
    together = distribution.sample(parameters, noise, temperature=torch.tensor([temperatures]))
    for i, temperature in enumerate(temperatures):
        alone = distribution.sample(parameters, noise, temperature=temperature)
        assert torch.equal(together[:, i], alone[:, i])


@every_distribution
def test_probabilities_sum_to_one(distribution: OutputDistribution) -> None:
    # The Gaussian is integrated numerically, to 1e-8 at its finest scale.
    tolerance = 1e-8 if isinstance(distribution, Gaussian) else 1e-11
    for column in random_parameters(distribution, batch=1, time=3)[0].T:
        assert abs(probabilities(distribution, column).sum().item() - 1) < tolerance


@pytest.mark.parametrize("mean", [0.0, 0.3, -1.0, 0.99999, 1.0, 3.0])
@pytest.mark.parametrize("log_scale", [-50.0, -9.0, -7.0, -3.0, 0.0, 5.0, 60.0])
def test_probabilities_sum_to_one_at_the_edges_and_at_any_scale(mean: float, log_scale: float) -> None:
    mixture = probabilities(LogisticMixture(1), torch.tensor([0.0, mean, log_scale], dtype=torch.float64))
    assert abs(mixture.sum().item() - 1) < 1e-11
    gaussian = probabilities(Gaussian(), torch.tensor([mean, log_scale], dtype=torch.float64))
    assert abs(gaussian.sum().item() - 1) < 1e-8


@every_distribution
def test_samples_follow_the_probabilities(distribution: OutputDistribution) -> None:
    n = 100_000
    column = random_parameters(distribution)[0, :, 0]
    noise = uniform(torch.tensor([11]), n)
    samples = distribution.sample(column[None, :, None].expand(1, -1, n), noise)[0]
    nearest = mu_law_encode(samples) if isinstance(distribution, MuLaw) else (samples * 32768).round() + 32768
    index = nearest.long().clamp(max=len(symbols(distribution)) - 1)
    observed = torch.bincount(index, minlength=len(symbols(distribution))).double().cumsum(0) / n
    distance = (observed - probabilities(distribution, column).cumsum(0)).abs().max().item()
    assert distance < 1.95 / math.sqrt(n)  # the 0.1 % point of Kolmogorov's D
    # The bound can tell: the same samples against a distribution with other parameters.
    other = probabilities(distribution, random_parameters(distribution)[0, :, 1]).cumsum(0)
    assert (observed - other).abs().max() > 10 * 1.95 / math.sqrt(n)


@every_distribution
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_sampling_is_deterministic_in_range_and_never_in_half_precision(
    distribution: OutputDistribution, dtype: torch.dtype
) -> None:
    parameters = (3 * random_parameters(distribution, time=200)).to(dtype)
    noise = uniform(torch.tensor([1, 2]), 200)
    for temperature in (0.0, 0.5, 1.0, 2.0):
        samples = distribution.sample(parameters, noise, temperature=temperature)
        assert samples.shape == (2, 200)
        assert samples.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        assert samples.abs().max() <= 1
        assert torch.equal(samples, distribution.sample(parameters, noise, temperature=temperature))
        by_step = [
            distribution.sample(parameters[1:, :, t : t + 1], noise[1:, t : t + 1], temperature=temperature)
            for t in range(3)
        ]
        torch.testing.assert_close(torch.cat(by_step, dim=1), samples[1:, :3])


@every_distribution
def test_temperature_0_is_the_mode_and_ignores_the_noise(distribution: OutputDistribution) -> None:
    parameters = random_parameters(distribution)
    if isinstance(distribution, LogisticMixture):  # narrow components, which lie apart
        parameters[:, 20:] -= 3
    noise = uniform(torch.tensor([1, 2]), 5)
    mode = distribution.sample(parameters, noise, temperature=0)
    assert torch.equal(mode, distribution.sample(parameters, 1 - noise, temperature=0))
    expected = [[mode_of(distribution, column) for column in item.T] for item in parameters]
    tolerance = 0 if isinstance(distribution, MuLaw) else 2 / LEVELS_16_BIT
    torch.testing.assert_close(mode, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=tolerance)


@every_distribution
def test_a_small_temperature_approaches_the_mode(distribution: OutputDistribution) -> None:
    parameters = random_parameters(distribution)
    noise = uniform(torch.tensor([1, 2]), 5)
    mode = distribution.sample(parameters, noise, temperature=0)
    almost = distribution.sample(parameters, noise, temperature=1e-4)
    torch.testing.assert_close(almost, mode, rtol=0, atol=1e-3)


@every_distribution
def test_float32_stays_near_float64(distribution: OutputDistribution) -> None:
    parameters = random_parameters(distribution, time=2000, dtype=torch.float32)
    x = torch.linspace(-1, 1, 2000).expand(2, -1)
    exact = distribution.log_prob(parameters.double(), x.double())
    single = distribution.log_prob(parameters, x)
    assert single.dtype == torch.float32
    # Stated bound: 1e-4 nats near the mean (6e-8 of full scale over scales down to 1e-3), 1e-5 of it far out.
    torch.testing.assert_close(single.double(), exact, atol=1e-4, rtol=1e-5)

    noise = uniform(torch.tensor([1, 2]), 2000)
    difference = (distribution.sample(parameters, noise) - distribution.sample(parameters.double(), noise)).abs()
    # Where a class boundary falls between the two precisions the choice differs, hence "nearly all".
    assert (difference < 1e-5).double().mean() > 0.999


@every_distribution
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [0.0, 1.0, 100.0, 1e4, 1e6])
def test_values_and_gradients_are_finite_for_extreme_parameters(
    distribution: OutputDistribution, dtype: torch.dtype, size: float
) -> None:
    generator = torch.Generator().manual_seed(3)
    signs = torch.randint(-1, 2, (4, distribution.channels, 64), generator=generator)
    parameters = (size * signs).to(dtype).requires_grad_()
    edges = torch.tensor([-1.0, 1.0, 0.0, -0.0, 32767 / 32768, 1e-5, -0.5, 0.7], dtype=dtype)
    log_prob = distribution.log_prob(parameters, edges.repeat(4, 8))
    log_prob.sum().backward()
    assert log_prob.isfinite().all()
    assert (log_prob <= 1e-6).all()
    assert parameters.grad.isfinite().all()
    noise = uniform(torch.arange(4), 64)
    for temperature in (0, 0.1, 1):
        samples = distribution.sample(parameters.detach(), noise, temperature=temperature)
        assert (samples.abs() <= 1).all()  # also refuses NaN


@every_distribution
def test_gradients_equal_finite_differences(distribution: OutputDistribution) -> None:
    parameters = random_parameters(distribution, batch=1, time=3).requires_grad_()
    x = torch.tensor([[-1.0, 0.125, 1.0]], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda p: distribution.log_prob(p, x), parameters, eps=1e-7, atol=1e-3)


@pytest.mark.parametrize("distribution", ALL[1:], ids=lambda d: d.name)
def test_a_far_too_wide_scale_still_learns(distribution: OutputDistribution) -> None:
    parameters = torch.zeros(1, distribution.channels, 1)
    parameters[:, -distribution.channels // 3 :] = 200.0  # a clamp above would stop the gradient here
    parameters.requires_grad_()
    distribution.log_prob(parameters, torch.zeros(1, 1)).sum().backward()
    assert parameters.grad[0, -1, 0] < 0


@every_distribution
def test_half_precision_parameters_are_taken_to_float32_under_autocast(distribution: OutputDistribution) -> None:
    parameters = random_parameters(distribution).bfloat16()
    x = torch.linspace(-1, 1, 5).expand(2, -1)
    expected = distribution.log_prob(parameters.float(), x)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(distribution.log_prob(parameters, x), expected)
        assert torch.equal(distribution.log_prob(parameters.float(), x), expected)


@every_distribution
def test_embedding_has_the_declared_channels(distribution: OutputDistribution) -> None:
    x = torch.linspace(-1, 1, 7).expand(2, -1)
    embedded = distribution.embed(x)
    assert embedded.shape == (2, distribution.input_channels, 7)
    assert embedded.dtype == x.dtype
    if isinstance(distribution, MuLaw):
        assert torch.equal(embedded.argmax(1), mu_law_encode(x))
        assert torch.equal(embedded.sum(1), torch.ones(2, 7))
        assert embedded.unique().tolist() == [0, 1]
    else:
        assert torch.equal(embedded[:, 0], x)


@every_distribution
def test_wrong_shapes_are_refused_instead_of_broadcast(distribution: OutputDistribution) -> None:
    parameters = random_parameters(distribution)
    with pytest.raises(ValueError, match="parameters have shape"):
        distribution.log_prob(parameters[:, :-1], torch.zeros(2, 5))
    with pytest.raises(ValueError, match="parameters have shape"):
        distribution.log_prob(parameters, torch.zeros(2, 1))
    with pytest.raises(ValueError, match="noise have shape"):
        distribution.sample(parameters, torch.full((1, 5), 0.5))
    with pytest.raises(ValueError, match="noise have shape"):
        distribution.sample(parameters, torch.full((2, 1, 5), 0.5))
    with pytest.raises(ConfigError, match="negative"):
        distribution.sample(parameters, torch.full((2, 5), 0.5), temperature=-1)


def test_x_counts_as_its_nearest_level() -> None:
    x = torch.tensor([[0.25, 0.25 + 0.4 / 32768, 1.0, 32767 / 32768]], dtype=torch.float64)
    for distribution in (LogisticMixture(), Gaussian()):
        parameters = random_parameters(distribution)[:1, :, :1].expand(1, -1, 4)
        first, same, top, last = distribution.log_prob(parameters, x)[0]
        assert (first, top) == (same, last)


def test_mixture_and_gaussian_bits_are_on_one_scale() -> None:
    """A logistic and a Gaussian of one variance, on samples of that Gaussian: the true one costs less."""
    n, std = 20_000, 0.05
    x = normal_noise(torch.tensor([4]), 0, n, 1)[0] * std
    gaussian = torch.tensor([0.0, math.log(std)])[None, :, None].expand(1, 2, n)
    logistic = torch.tensor([0.0, 0.0, math.log(std * math.sqrt(3) / math.pi)])[None, :, None].expand(1, 3, n)
    cost = -Gaussian().log_prob(gaussian, x).mean().item()
    assert abs(cost - (0.5 * math.log(2 * math.pi * math.e) + math.log(std * 32768))) < 0.02
    assert 0 < -LogisticMixture(1).log_prob(logistic, x).mean().item() - cost < 0.05


def test_scales_below_the_minimum_are_clamped() -> None:
    for distribution, columns in (
        (LogisticMixture(1), ([0.0, 0.1, -7.0], [0.0, 0.1, -70.0])),
        (Gaussian(), ([0.1, -9.0], [0.1, -90.0])),
    ):
        at, below = (torch.tensor(column)[None, :, None] for column in columns)
        x, noise = torch.full((1, 1), 0.1), torch.full((1, 1), 0.9)
        assert torch.equal(distribution.log_prob(at, x), distribution.log_prob(below, x))
        assert torch.equal(distribution.sample(at, noise), distribution.sample(below, noise))


def test_distributions_by_name() -> None:
    for distribution in ALL:
        assert type(output_distribution(distribution.name)) is type(distribution)
    assert output_distribution("logistic-mixture", components=4, log_scale_min=-8.0).channels == 12
    assert output_distribution("mu-law", classes=64).input_channels == 64
    assert [(d.channels, d.input_channels) for d in ALL] == [(256, 256), (30, 1), (2, 1)]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("mulaw", {}),
        ("gaussian", {"sclae": 1}),
        ("gaussian", {"log_scale_min": -12}),
        ("mu-law", {"classes": 1}),
        ("logistic-mixture", {"components": 0}),
        ("logistic-mixture", {"levels": 255}),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else value,
)
def test_an_impossible_choice_is_refused(name: str, options: dict[str, Any], messages: Messages) -> None:
    with messages.refused(ConfigError):
        output_distribution(name, **options)
