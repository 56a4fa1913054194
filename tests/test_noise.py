"""Noise addressed by position: against splitmix64 on unbounded integers, and by its statistics."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import scipy.signal
import scipy.stats
import torch
from torch import Tensor

from wavegen import noise as module
from wavegen.noise import coloured_noise, high_pass, normal_noise, uniform_noise

Noise = Callable[[Tensor, int, int, int], Tensor]

WORD = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15


def splitmix64(state: int) -> tuple[int, int]:
    """Vigna's reference code, on unbounded integers: the next output and the next state."""
    state = (state + GOLDEN) & WORD
    z = state
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & WORD
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & WORD
    return z ^ (z >> 31), state


def uniform_by_hand(seed: int, index: int, draw: int) -> float:
    key, _ = splitmix64(seed & WORD)
    stream, _ = splitmix64((key + draw * GOLDEN) & WORD)
    bits, _ = splitmix64((stream + index * GOLDEN) & WORD)
    return (2 * (bits >> 41) + 1) / 2**24


SEEDS = torch.tensor([0, 1, 1234567, 2**63 - 1, -1, -(2**63)])


def check_known_answers() -> None:
    for start in (0, 5, 2**40):
        noise = uniform_noise(SEEDS, start, 4, 3)
        expected = [[[uniform_by_hand(int(s), start + t, d) for t in range(4)] for d in range(3)] for s in SEEDS]
        assert noise.double().tolist() == expected


def test_the_reference_generator_gives_the_published_numbers() -> None:
    state = 1234567
    outputs = []
    for _ in range(3):
        output, state = splitmix64(state)
        outputs.append(output)
    assert outputs == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_noise_equals_splitmix64_on_unbounded_integers() -> None:
    check_known_answers()


def test_an_arithmetic_shift_would_be_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_shift_right", lambda z, bits: z >> bits)
    with pytest.raises(AssertionError):
        check_known_answers()


def check_chunks(draw: Callable[[int, int], Tensor]) -> None:
    whole = draw(0, 1024)
    for sizes in ((7, 1017), (0, 1, 1023), (512, 512), (1000, 24)):
        starts = np.cumsum((0, *sizes))
        parts = [draw(int(start), size) for start, size in zip(starts, sizes, strict=False)]
        assert torch.equal(torch.cat(parts, dim=-1), whole)


@pytest.mark.parametrize("noise", [uniform_noise, normal_noise])
def test_noise_does_not_depend_on_chunking(noise: Noise) -> None:
    check_chunks(lambda start, count: noise(SEEDS, start, count, 2))


def test_noise_from_a_stateful_generator_would_be_caught() -> None:
    generator = torch.Generator().manual_seed(0)

    def draw(start: int, count: int) -> Tensor:
        if start == 0:
            generator.manual_seed(0)
        return torch.rand(6, 2, count, generator=generator)

    with pytest.raises(AssertionError):
        check_chunks(draw)


@pytest.mark.parametrize("noise", [uniform_noise, normal_noise])
def test_noise_does_not_depend_on_the_batch_or_on_the_number_of_draws(noise: Noise) -> None:
    together = noise(SEEDS, 3, 100, 3)
    for item, seed in enumerate(SEEDS):
        assert torch.equal(noise(seed[None], 3, 100, 3)[0], together[item])
    assert torch.equal(noise(SEEDS, 3, 100, 2), together[:, :2])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_noise_does_not_depend_on_the_device() -> None:
    on_gpu = uniform_noise(SEEDS, 2**40, 100_000, 2, "cuda")
    assert torch.equal(on_gpu.cpu(), uniform_noise(SEEDS, 2**40, 100_000, 2))
    torch.testing.assert_close(
        normal_noise(SEEDS, 0, 100_000, 2, "cuda").cpu(),
        normal_noise(SEEDS, 0, 100_000, 2),
        rtol=2e-7,
        atol=0,
    )


def test_noise_has_the_promised_shape_type_and_open_range() -> None:
    noise = uniform_noise(SEEDS, 0, 50_000, 2)
    assert (noise.shape, noise.dtype) == ((6, 2, 50_000), torch.float32)
    odd = noise.double() * 2**24
    assert torch.equal(odd % 2, torch.ones_like(odd))  # representable: nothing was rounded
    assert noise.min() > 0
    assert noise.max() < 1
    assert uniform_noise(SEEDS, 0, 0, 2).shape == (6, 2, 0)


def test_the_extreme_words_stay_inside_the_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    for word, expected in ((0, 2.0**-24), (-1, 1 - 2.0**-24)):
        monkeypatch.setattr(module, "_mix", lambda z, word=word: torch.full_like(z, word))
        assert uniform_noise(SEEDS, 0, 1, 1)[0, 0, 0].item() == expected
        assert normal_noise(SEEDS, 0, 1, 1).abs().max() < 5.3


@pytest.mark.parametrize("seed", [0, 1, -1, 2**40])
def test_noise_is_uniform_and_normal(seed: int) -> None:
    n = 200_000
    seeds = torch.tensor([seed])
    uniform = uniform_noise(seeds, 0, n, 1).double().numpy().ravel()
    normal = normal_noise(seeds, 0, n, 1).double().numpy().ravel()
    # Four standard errors of the mean and the variance; 1.95 / sqrt(n) is the 0.1 % point of Kolmogorov's D.
    assert abs(uniform.mean() - 1 / 2) < 4 * math.sqrt(1 / 12 / n)
    assert abs(uniform.var() - 1 / 12) < 4 * math.sqrt(1 / 180 / n)
    assert abs(normal.mean()) < 4 / math.sqrt(n)
    assert abs(normal.var() - 1) < 4 * math.sqrt(2 / n)
    assert scipy.stats.kstest(uniform, "uniform").statistic < 1.95 / math.sqrt(n)
    assert scipy.stats.kstest(normal, "norm").statistic < 1.95 / math.sqrt(n)
    np.testing.assert_allclose(normal, scipy.stats.norm.ppf(uniform), rtol=1e-6)


def test_noise_of_adjacent_seeds_draws_and_samples_is_uncorrelated() -> None:
    n = 100_000
    rows = uniform_noise(torch.arange(8), 0, n + 1, 3).reshape(24, n + 1).double().numpy()
    rows = np.concatenate((rows[:, :-1], rows[:, 1:]))  # with every row delayed by one sample
    correlation = np.corrcoef(rows) - np.eye(48)
    assert np.abs(correlation).max() < 5 / math.sqrt(n)  # 1128 pairs: five standard errors


# ---- noise with a spectrum ---------------------------------------------------------------------------------------


def test_coloured_noise_is_uniform_sample_by_sample() -> None:
    n = 200_000
    drawn = coloured_noise(torch.tensor([1]), 0, n, high_pass(4000, 24000))
    assert (drawn.shape, drawn.dtype) == ((1, n), torch.float32)
    assert drawn.min() > 0
    assert drawn.max() < 1
    values = drawn.double().numpy().ravel()
    assert scipy.stats.kstest(values, "uniform").statistic < 1.95 / math.sqrt(n)
    assert scipy.stats.kstest(values / 2 + 0.25, "uniform").statistic > 0.1  # less noise would be seen


def test_high_passed_noise_has_no_power_below_the_cutoff() -> None:
    drawn = coloured_noise(torch.tensor([1]), 0, 240_000, high_pass(4000, 24000))
    normal = module.normal_quantile(drawn, torch.float64).numpy().ravel()
    frequency_hz, power = scipy.signal.welch(normal, fs=24000, nperseg=1024)
    low, high = power[frequency_hz < 3200].mean(), power[frequency_hz > 4800].mean()
    assert low < 0.01 * high
    assert normal.var() == pytest.approx(1, abs=0.02)


def test_coloured_noise_depends_neither_on_the_chunk_nor_on_the_batch() -> None:
    taps = high_pass(2000, 24000)
    whole = coloured_noise(SEEDS, 0, 500, taps)
    pieces = [coloured_noise(SEEDS, start, count, taps) for start, count in ((0, 1), (1, 7), (8, 480), (488, 12))]
    assert torch.equal(torch.cat(pieces, dim=1), whole)
    assert torch.equal(coloured_noise(SEEDS[2:3], 0, 500, taps)[0], whole[2])
    assert coloured_noise(SEEDS, 0, 0, taps).shape == (len(SEEDS), 0)
