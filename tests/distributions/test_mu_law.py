"""Mu-law classes: what is drawn, against a search in cumulative sums."""

import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch
from support.distributions import random_parameters, uniform
from torch import Tensor

from wavegen.distributions import MuLaw
from wavegen.levels import mu_law_encode


def test_mu_law_samples_embed_to_exactly_the_class_drawn() -> None:
    logits = torch.full((256, 256, 1), -1e4)
    logits[torch.arange(256), torch.arange(256)] = 0
    noise = uniform(torch.arange(256), 1)
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        samples = MuLaw().sample(logits.to(dtype), noise)
        assert torch.equal(MuLaw().embed(samples).argmax(1)[:, 0], torch.arange(256))


def classes_sampled(logits: Tensor, u: Tensor) -> Tensor:
    """The mu-law class that ``u`` ``[batch, time]`` draws: decoding and encoding it again gives the same class."""
    return mu_law_encode(MuLaw().sample(logits, u))


@pytest.mark.parametrize("u", [0.0, 2.0**-24, 0.5, 1 - 2.0**-24, 1.0])
def test_a_class_without_probability_is_never_drawn(u: float) -> None:
    """Not even by numbers that break the contract: 0 or 1."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(1, 256, 300, generator=generator)
    logits[:, torch.randperm(256, generator=generator)[:100]] = -torch.inf
    logits[:, :3] = logits[:, -3:] = -torch.inf
    index = classes_sampled(logits, torch.full((1, 300), u))
    assert logits.gather(1, index[:, None]).isfinite().all()
    present = logits[0, :, 0].isfinite().nonzero()
    if u < 1e-6:
        assert (index == present[0]).all()
    if u == 1.0:
        assert (index <= present[-1]).all()


def test_the_class_drawn_is_found_by_a_search_in_the_cumulative_sums() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(1, 256, 1000))
    u = rng.uniform(size=(1, 1000))
    sums = scipy.special.softmax(logits, axis=1).cumsum(1)
    expected = [np.searchsorted(sums[0, :, t], u[0, t], side="right") for t in range(1000)]
    index = classes_sampled(torch.from_numpy(logits), torch.from_numpy(u))
    assert index[0].tolist() == expected


def test_mu_law_log_prob_is_the_log_softmax() -> None:
    parameters, x = random_parameters(MuLaw()), torch.linspace(-1, 1, 10, dtype=torch.float64).view(2, 5)
    expected = np.take_along_axis(
        scipy.special.log_softmax(parameters.numpy(), axis=1), mu_law_encode(x).numpy()[:, None], 1
    )
    np.testing.assert_allclose(MuLaw().log_prob(parameters, x), expected[:, 0], rtol=1e-12)
