"""Levels of quantised waveforms: mu-law classes against the formula, and what each class and level stands for."""

import math

import numpy as np
import pytest
import torch

from wavegen.levels import LEVELS_16_BIT, Cells, mu_law_cells, mu_law_decode, mu_law_encode, pcm_cells


@pytest.mark.parametrize("classes", [2, 255, 256, 1024])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_mu_law_class_survives_decoding_and_encoding(classes: int, dtype: torch.dtype) -> None:
    index = torch.arange(classes)
    values = mu_law_decode(index, classes, dtype=dtype)
    assert values.dtype == dtype
    assert torch.equal(mu_law_encode(values, classes), index)
    assert (values.diff() > 0).all()
    assert (values[0].float(), values[-1].float()) == (-1, 1)
    assert torch.equal(values, -values.flip(0))


def test_mu_law_is_monotone_and_clips() -> None:
    x = torch.linspace(-1.5, 1.5, 100_001)
    index = mu_law_encode(x)
    assert (index.diff() >= 0).all()
    assert index.unique().tolist() == list(range(256))
    assert mu_law_encode(torch.tensor([-7.0, 7.0])).tolist() == [0, 255]


def test_mu_law_equals_the_formula_in_numpy() -> None:
    x = np.random.default_rng(0).uniform(-1, 1, 10_000)
    companded = np.copysign(np.log(1 + 255 * np.abs(x)) / np.log(256), x)
    expected = np.abs(companded[:, None] - np.linspace(-1, 1, 256)).argmin(1)  # nearest, by search
    np.testing.assert_array_equal(mu_law_encode(torch.from_numpy(x)).numpy(), expected)

    y = np.linspace(-1, 1, 256)
    expected = np.copysign((256.0 ** np.abs(y) - 1) / 255, y)
    np.testing.assert_allclose(mu_law_decode(torch.arange(256), dtype=torch.float64), expected, rtol=1e-13, atol=1e-16)


def test_mu_law_error_stays_within_half_a_companded_step() -> None:
    x = torch.linspace(-1, 1, 50_001, dtype=torch.float64)
    error = (mu_law_decode(mu_law_encode(x), dtype=torch.float64) - x).abs()
    slope = (1 + 255 * x.abs()) * math.log(256) / 255  # d x / d companded, growing away from 0 ...
    assert (error <= slope * 256 ** (1 / 255) / 255).all()  # ... by this factor within one step of 2/255


def test_silence_has_one_class() -> None:
    silence = torch.tensor([0.0, -0.0])
    assert mu_law_encode(silence).tolist() == [128, 128]
    assert mu_law_decode(mu_law_encode(silence)).abs().max() < 1e-4
    assert mu_law_encode(silence, 255).tolist() == [127, 127]
    assert mu_law_decode(torch.tensor(127), 255) == 0


@pytest.mark.parametrize("name", ["mu-law", "pcm"])
def test_a_cell_holds_the_values_of_one_level_and_no_others(name: str) -> None:
    """Just inside a cell's ends a value has its level, and just outside it has another."""
    x = torch.linspace(-0.999, 0.999, 501, dtype=torch.float64)
    cells = mu_law_cells(x) if name == "mu-law" else pcm_cells(x)

    def level(values: torch.Tensor) -> torch.Tensor:
        return mu_law_encode(values) if name == "mu-law" else (values * (LEVELS_16_BIT // 2)).round()

    inside, outside = (cells.half_width * factor for factor in (1 - 1e-6, 1 + 1e-6))
    for sign, endless in ((-1, cells.lowest), (1, cells.highest)):
        assert torch.equal(level(cells.centre + sign * inside), level(x))
        assert torch.equal(level(cells.centre + sign * outside) == level(x), endless & (name == "mu-law"))


def test_the_outermost_cells_include_what_lies_beyond() -> None:
    cells = mu_law_cells(torch.tensor([-1.0, -0.5, 0.5, 1.0]))
    assert cells.lowest.tolist() == [True, False, False, False]
    assert cells.highest.tolist() == [False, False, False, True]


def test_cells_follow_a_change_of_scale() -> None:
    cells = Cells(torch.tensor([0.5]), torch.tensor([0.1]), torch.tensor([False]), torch.tensor([False]))
    moved = cells.relative_to(torch.tensor(0.3), torch.tensor(0.1))
    torch.testing.assert_close(moved.centre, torch.tensor([2.0]))
    torch.testing.assert_close(moved.half_width, torch.tensor([1.0]))
