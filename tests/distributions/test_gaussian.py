"""Gaussians: probabilities and gradients against scipy, far out too."""

import math

import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch
from support.distributions import (
    levels_near_the_means,
    mass_by_scipy,
    probabilities,
)

from wavegen.distributions import Gaussian


def test_the_gaussian_sums_to_one_at_the_finest_scale_it_accepts() -> None:
    column = torch.tensor([0.1234567, -20.0], dtype=torch.float64)
    assert abs(probabilities(Gaussian(log_scale_min=-9.99), column).sum().item() - 1) < 1e-6


@pytest.mark.parametrize("scale", [2e-4, 0.01, 0.3])
def test_gaussian_log_prob_equals_scipy(scale: float) -> None:
    x, mean = levels_near_the_means(), 0.25
    x = x[(np.abs(x - mean) < 8 * scale) | (np.abs(x) > 0.9999)]
    x = np.concatenate((x, 0.25 + np.arange(-20, 20) / 32768))
    parameters = torch.tensor([mean, math.log(scale)], dtype=torch.float64)[None, :, None]
    log_prob = Gaussian().log_prob(parameters.expand(1, -1, len(x)), torch.from_numpy(x)[None])[0].numpy()
    mass = mass_by_scipy(scipy.stats.norm, x, mean, scale)
    body = mass > 0  # the edge levels of a narrow Gaussian underflow
    assert body.sum() > 30
    np.testing.assert_allclose(log_prob[body], np.log(mass[body]), rtol=0, atol=1e-6)
    upper_tail = scipy.stats.norm.logsf((32767 / 32768 - 1 / 65536 - mean) / scale)
    lower_tail = scipy.stats.norm.logcdf((-1 + 1 / 65536 - mean) / scale)
    np.testing.assert_allclose(log_prob[x == 32767 / 32768], upper_tail, rtol=1e-12)
    np.testing.assert_allclose(log_prob[x == -1], lower_tail, rtol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_tail_of_a_gaussian_and_its_gradient_hold_far_out(dtype: torch.dtype) -> None:
    """With a scale of 1, the last level's log-probability is ln Φ(x), x counted from that level's lower edge."""
    lower_edge = 1 - 1.5 / 32768
    x = torch.tensor([-1e10, -1e6, -1e3, -30, -5, -1, -1e-3, 0, 1e-3, 1, 5, 30, 1e10], dtype=torch.float64)
    mean = (x + lower_edge).to(dtype).requires_grad_()
    parameters = torch.stack((mean, torch.zeros_like(mean)))[None]
    value = Gaussian().log_prob(parameters, torch.ones(1, len(x)))[0]
    value.sum().backward()
    rtol = 1e-5 if dtype == torch.float32 else 1e-12
    at = mean.detach().double().numpy() - lower_edge
    np.testing.assert_allclose(value.detach(), scipy.special.log_ndtr(at), rtol=rtol, atol=1e-8)
    slope = np.exp(scipy.stats.norm.logpdf(at[3:]) - scipy.special.log_ndtr(at[3:]))
    assert mean.grad is not None
    np.testing.assert_allclose(mean.grad[3:], slope, rtol=max(rtol, 1e-10), atol=1e-30)
    np.testing.assert_allclose(mean.grad[:3], -at[:3], rtol=2e-6)  # Mills: φ/Φ is -x (1 + 1/x² ...)
