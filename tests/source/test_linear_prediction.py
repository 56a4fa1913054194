"""Linear prediction against scipy and physics, and its filters whole and in chunks."""

import math
import sys
from typing import Any

import numba
import numpy as np
import pytest
import scipy.linalg
import scipy.signal
import torch
from torch import Tensor

from wavegen.source import compiled
from wavegen.source.linear_prediction import (
    LinearPrediction,
    Predictor,
    interpolate_frames,
    levinson,
    prediction_error,
    sub_frame_positions,
    synthesise_from_error,
)

ORDER, HOP, RATE = 8, 64, 8000
WINDOW = torch.hann_window(256, dtype=torch.float64)


def layer(order: int = ORDER, centre: float = HOP / 2) -> LinearPrediction:
    return LinearPrediction(WINDOW, HOP, RATE, centre=centre, order=order)


def magnitudes(batch: int, frames: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    smooth = torch.randn(batch, 129, frames, generator=generator, dtype=torch.float64).cumsum(1) / 4
    return smooth.exp()


@pytest.mark.parametrize("gradients", [True, False], ids=["torch", "compiled"])
@pytest.mark.parametrize("order", [1, 2, ORDER, 31])
def test_levinson_solves_the_normal_equations(order: int, gradients: bool) -> None:
    steps = 65  # one more than compiled code takes at once
    spectrum = np.abs(np.random.default_rng(0).standard_normal((3, steps, 129))) + 0.1
    r = torch.from_numpy(np.fft.irfft(spectrum**2)[..., : order + 1]).mT
    with torch.set_grad_enabled(gradients):
        coefficients, error = levinson(r)
    for item in range(3):
        for step in range(steps):
            row = r[item, :, step].numpy()
            expected = scipy.linalg.solve_toeplitz(row[:order], row[1:])
            np.testing.assert_allclose(coefficients[item, :, step], expected, rtol=1e-9, atol=1e-12)
            np.testing.assert_allclose(error[item, 0, step], row[0] - expected @ row[1:], rtol=1e-9)


def test_a_resonance_is_found_where_it_is() -> None:
    frequencies = torch.linspace(0, RATE / 2, 129, dtype=torch.float64)
    magnitude = 0.01 + torch.exp(-0.5 * ((frequencies - 1500) / 100).square())
    predictor = layer(order=2)(magnitude[None, :, None].expand(1, -1, 3))
    denominator = np.concatenate(([1.0], -predictor.coefficients[0, :, 5].numpy()))
    at, response = scipy.signal.freqz([1.0], denominator, worN=4096, fs=RATE)
    assert at[np.abs(response).argmax()] == pytest.approx(1500, abs=20)


def test_every_filter_is_stable_between_frames_too() -> None:
    predictor = layer(order=24)(magnitudes(2, 40))
    for coefficients in predictor.coefficients.permute(0, 2, 1).reshape(-1, 24):
        assert np.abs(np.roots([1.0, *(-coefficients.numpy())])).max() < 1


def test_the_scale_is_the_standard_deviation_of_the_error() -> None:
    """White noise of a known level has this level as its prediction error."""
    samples = 0.1 * torch.randn(1, 400 * HOP, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    stft = torch.stft(samples, 256, HOP, window=WINDOW, center=False, return_complex=True)
    power = stft.abs().square().mean(-1, keepdim=True).sqrt().expand(-1, -1, 3)
    assert float(layer()(power).scale.mean()) == pytest.approx(0.1, rel=0.05)


@pytest.mark.parametrize("chunks", [[6], [1] * 6, [2, 0, 3, 1]])
def test_both_filters_are_inverse_and_the_same_in_chunks(chunks: list[int]) -> None:
    predictor = layer()(magnitudes(2, 6))
    samples = torch.randn(2, 6 * HOP, dtype=torch.float64)
    before = torch.randn(2, ORDER, dtype=torch.float64)
    whole, _ = prediction_error(samples, predictor, before)
    errors, sounds, start = [], [], 0
    history = heard = before
    for frames in chunks:
        part = slice(4 * start, 4 * (start + frames))
        piece = Predictor(predictor.coefficients[..., part], predictor.scale[..., part])
        error, history = prediction_error(samples[:, start * HOP : (start + frames) * HOP], piece, history)
        sound, heard = synthesise_from_error(error, piece, heard)
        errors.append(error)
        sounds.append(sound)
        start += frames
    torch.testing.assert_close(torch.cat(errors, 1), whole, rtol=0, atol=1e-12 * float(whole.abs().max()))
    torch.testing.assert_close(torch.cat(sounds, 1), samples, rtol=0, atol=1e-9)


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-12), (torch.float32, 1e-4)])
@pytest.mark.parametrize("order", [1, 8, 24])  # a sub-frame has 16 samples
def test_the_compiled_filter_is_the_one_that_gradients_pass(order: int, dtype: torch.dtype, bound: float) -> None:
    predictor = Predictor(*(part.to(dtype) for part in layer(order=order)(magnitudes(3, 7))))
    error, before = torch.randn(3, 7 * HOP, dtype=dtype), torch.randn(3, order, dtype=dtype)
    given = error.clone(), before.clone()
    expected, expected_history = synthesise_from_error(error, predictor, before)
    with torch.no_grad():
        samples, history = synthesise_from_error(error, predictor, before)
    assert torch.equal(error, given[0])
    assert torch.equal(before, given[1])
    scale = float(expected.abs().max())
    torch.testing.assert_close(samples, expected, rtol=0, atol=bound * scale)
    torch.testing.assert_close(history, expected_history, rtol=0, atol=bound * scale)


def test_the_compiled_filter_works_without_a_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that cannot be written, or a damaged cache, costs the time to compile."""
    real = compiled._compiled

    def without_cache(kernel: Any, *, cache: bool) -> Any:
        if cache:
            raise RuntimeError("cannot cache function 'all_pole': no locator available for file")
        return real(kernel, cache=False)

    monkeypatch.setattr(compiled, "_READY", {})
    monkeypatch.setattr(compiled, "_compiled", without_cache)
    samples = torch.tensor([[0.0, 1.0, 0.0, 0.0]])
    compiled.all_pole(samples, torch.tensor([[[0.5]]]), 1)
    assert torch.equal(samples, torch.tensor([[0.0, 1.0, 0.5, 0.25]]))


def test_the_error_is_that_of_a_loop() -> None:
    predictor = layer()(magnitudes(1, 2))
    samples = torch.randn(1, 2 * HOP, dtype=torch.float64)
    error, _ = prediction_error(samples, predictor, torch.zeros(1, ORDER, dtype=torch.float64))
    padded = np.concatenate((np.zeros(ORDER), samples[0].numpy()))
    for t in (0, 5, 17, 100):
        coefficients = predictor.coefficients[0, :, t // 16].numpy()
        predicted = coefficients @ padded[t : t + ORDER][::-1]
        expected = (padded[t + ORDER] - predicted) / float(predictor.scale[0, 0, t // 16])
        assert float(error[0, t]) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("gradients", [True, False], ids=["torch", "compiled"])
@pytest.mark.parametrize("centre", [HOP / 2, 0.0])
def test_interpolation_is_linear_between_the_centres(centre: float, gradients: bool) -> None:
    frames = torch.arange(5, dtype=torch.float64)[None, None]
    positions = sub_frame_positions(HOP, 4, centre)
    with torch.set_grad_enabled(gradients):
        values = interpolate_frames(frames, positions)[0, 0]
    times = (torch.arange(20) + 0.5) * HOP / 4
    expected = ((times - centre) / HOP).clamp(0, 4)
    torch.testing.assert_close(values, expected.double())


@pytest.mark.parametrize("centre", [HOP / 2, 0.0])
def test_the_declared_context_is_the_one_measured(centre: float) -> None:
    subject = layer(centre=centre)
    x = magnitudes(1, 9).requires_grad_()
    predictor = subject(x)
    (gradient,) = torch.autograd.grad(predictor.coefficients[..., 16:20].square().sum(), x)
    touched = gradient[0].abs().sum(0).nonzero().flatten()
    assert (4 - int(touched.min()), int(touched.max()) - 4) == (subject.context.left, subject.context.right)


def test_gain_changes_the_scale_alone() -> None:
    quiet, loud = layer()(magnitudes(1, 3) + 10), layer()(4 * (magnitudes(1, 3) + 10))
    torch.testing.assert_close(loud.coefficients, quiet.coefficients, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(loud.scale, 4 * quiet.scale, rtol=1e-6, atol=0)
    assert math.isfinite(float(loud.scale.sum()))


@pytest.mark.parametrize("fault", ["no numba", "no compilation"])
def test_without_compiled_code_torch_filters(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    error, history = torch.randn(2, 6 * HOP).double(), torch.zeros(2, ORDER).double()
    predictor = Predictor(0.1 * torch.randn(2, ORDER, 6).double(), torch.ones(2, 1, 6).double())
    with torch.no_grad():
        expected, state = synthesise_from_error(error, predictor, history)
    if fault == "no numba":
        monkeypatch.setitem(sys.modules, "numba", None)
    else:
        monkeypatch.setattr(numba.config, "DISABLE_JIT", 1)
    monkeypatch.setattr(compiled, "all_pole", lambda *arguments: pytest.fail("compiled code runs"))
    compiled.numba_compiles.cache_clear()
    try:
        with torch.no_grad():
            samples, other_state = synthesise_from_error(error, predictor, history)
    finally:
        compiled.numba_compiles.cache_clear()
    torch.testing.assert_close(samples, expected, rtol=0, atol=1e-11)
    torch.testing.assert_close(other_state, state, rtol=0, atol=1e-11)
