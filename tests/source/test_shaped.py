"""The shaped source: its level, its harmonics, and the same samples however it is cut."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from wavegen.source import Pitch, ShapedSource, hold_last, initial_pulse_state, pulse_train
from wavegen.source.excitation import crossover_filters

RATE, HOP, N_FFT = 24000, 256, 1024
WINDOW = torch.hann_window(N_FFT, dtype=torch.float64)


def source(**options: float) -> ShapedSource:
    return ShapedSource(WINDOW, HOP, RATE, centre=HOP / 2, **options).double()


def white(frames: int, level: float = 0.1) -> Tensor:
    """The magnitude of white noise of this standard deviation."""
    return torch.full((1, N_FFT // 2 + 1, frames), level * float(WINDOW.square().sum().sqrt()), dtype=torch.float64)


def pitch(frames: int, f0_hz: float, voicing: float) -> Pitch:
    return Pitch(*(torch.full((1, 1, frames), value, dtype=torch.float64) for value in (f0_hz, voicing)))


def sources(shaped: ShapedSource, magnitude: Tensor, of: Pitch, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """The periodic and the aperiodic samples."""
    with torch.no_grad():
        samples, _ = shaped(magnitude, of, shaped.initial_state(torch.tensor([seed])))
    periodic, aperiodic = samples[0].numpy()
    return periodic, aperiodic


@pytest.mark.parametrize("voicing", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("f0_hz", [80.0, 250.0])
def test_its_level_is_that_of_the_spectrum_voiced_or_not(f0_hz: float, voicing: float) -> None:
    periodic, aperiodic = sources(source(), white(200, 0.1), pitch(200, f0_hz, voicing))
    assert (periodic + aperiodic).std() == pytest.approx(0.1, rel=0.05)


def test_a_voice_has_the_harmonics_of_its_pitch_up_to_the_crossover_and_noise_above() -> None:
    periodic, aperiodic = sources(source(), white(200), pitch(200, 250.0, 1.0))
    cut = slice(RATE // 4, RATE // 4 + RATE)  # one second, so that a bin is one hertz
    of_periodic, of_aperiodic = (np.abs(np.fft.rfft(x[cut])) ** 2 for x in (periodic, aperiodic))
    harmonics = of_periodic[:4250].reshape(-1, 250)  # from one harmonic to the next
    assert harmonics[1:, 0].min() > 100 * harmonics[1:, 1:].max()
    assert of_periodic[6500:].sum() < 0.01 * of_periodic.sum()
    assert of_aperiodic[:3500].sum() < 0.01 * of_aperiodic.sum()
    assert of_aperiodic[6500:].sum() > 0.7 * of_aperiodic.sum()


@pytest.mark.parametrize("centre", [HOP / 2, 100.5])
def test_the_pulses_of_a_white_voice_are_those_of_the_interpolated_pitch_through_the_crossover(centre: float) -> None:
    """White noise has no formants, so that the filter passes the excitation as it is."""
    shaped = ShapedSource(WINDOW, HOP, RATE, centre=centre).double()
    log_f0 = (100 + 150 * torch.rand(12, dtype=torch.float64)).log()
    of = Pitch(log_f0.exp()[None, None], torch.ones(1, 1, 12, dtype=torch.float64))
    periodic, _ = sources(shaped, white(12), of)

    reach = 64  # samples at 24 kHz
    place = (np.arange(-reach, 12 * HOP + reach) - centre) / HOP
    f0 = np.exp(np.interp(place, np.arange(12), log_f0.numpy()))
    pulses, _ = pulse_train(torch.from_numpy(f0)[None], RATE, initial_pulse_state(1))
    low, _ = crossover_filters(RATE, 5000, 200, reach)
    expected = 0.1 * np.sqrt(1 / (1 + np.exp(-10))) * np.convolve(pulses[0].numpy(), low.numpy(), "valid")
    # F0 is rounded to steps of a millionth, and the taps to float32.
    assert np.abs(periodic - expected).max() < 1e-3 * np.abs(expected).max()


def test_what_is_unvoiced_has_no_harmonics() -> None:
    periodic, aperiodic = sources(source(), white(100), pitch(100, 250.0, 0.0))
    assert periodic.std() < 0.02 * aperiodic.std()
    spectrum = np.abs(np.fft.rfft(aperiodic[:RATE])) ** 2
    assert spectrum[::250].mean() < 2 * spectrum.mean()


def test_noise_depends_on_the_seed_and_pulses_do_not() -> None:
    first, again, other = (sources(source(), white(20), pitch(20, 200.0, 0.7), seed) for seed in (1, 1, 2))
    for part in (0, 1):
        np.testing.assert_array_equal(first[part], again[part])
    np.testing.assert_array_equal(first[0], other[0])
    assert np.abs(first[1] - other[1]).max() > 0.1


def test_it_has_the_resonances_of_the_spectrum() -> None:
    frequency = torch.linspace(0, RATE / 2, N_FFT // 2 + 1, dtype=torch.float64)
    peak = 0.01 + torch.exp(-0.5 * ((frequency - 1500) / 150).square())
    periodic, aperiodic = sources(source(), peak[None, :, None].expand(1, -1, 100), pitch(100, 100.0, 0.5))
    for samples in (periodic, aperiodic):
        spectrum = np.abs(np.fft.rfft(samples[:RATE])) ** 2
        assert spectrum[1200:1800].sum() > 0.9 * spectrum.sum()


def varied(frames: int) -> tuple[Tensor, Pitch]:
    """Two items with changing spectra, pitch and voicing."""
    generator = torch.Generator().manual_seed(0)

    def random(channels: int) -> Tensor:
        return torch.rand(2, channels, frames, generator=generator, dtype=torch.float64)

    magnitude = (random(N_FFT // 2 + 1) - 0.5).cumsum(1).div(4).exp()
    return magnitude, Pitch(80 + 400 * random(1), random(1))


@pytest.mark.parametrize("centre", [HOP / 2, 0.0])
@pytest.mark.parametrize("chunks", [[1] * 12, [5, 7], [2, 1, 8, 1]])
@torch.no_grad()
def test_any_chunks_with_their_context_are_the_whole(chunks: list[int], centre: float) -> None:
    shaped = ShapedSource(WINDOW, HOP, RATE, centre=centre).double()
    magnitude, of = varied(12)
    whole, end = shaped(magnitude, of, shaped.initial_state(torch.tensor([3, 4])))
    context, state, parts, done = shaped.context, shaped.initial_state(torch.tensor([3, 4])), [], 0
    for frames in chunks:
        first, last = max(0, done - context.left), min(12, done + frames + context.right)
        given = slice(first, last)
        part, state = shaped(
            magnitude[..., given], Pitch(*(x[..., given] for x in of)), state, first_frame=first, end=done + frames
        )
        parts.append(part)
        done += frames
    scale = float(whole.abs().max())
    torch.testing.assert_close(torch.cat(parts, -1), whole, rtol=0, atol=1e-12 * scale)
    torch.testing.assert_close(state.memory, end.memory, rtol=0, atol=1e-12 * scale)
    assert torch.equal(state.pulse.phase, end.pulse.phase)
    assert int(state.samples_done) == 12 * HOP


@pytest.mark.parametrize(("rate", "hop"), [(44100, 512), (16000, 200), (8000, 10)])
def test_it_works_at_other_rates_and_hops(rate: int, hop: int) -> None:
    n_fft = 4 * hop
    window = torch.hann_window(n_fft, dtype=torch.float64)
    shaped = ShapedSource(window, hop, rate, centre=hop / 2).double()
    level = 0.1 * float(window.square().sum().sqrt())
    magnitude = torch.full((1, n_fft // 2 + 1, 400), level, dtype=torch.float64)
    periodic, aperiodic = sources(shaped, magnitude, pitch(400, 200.0, 1.0))
    assert len(periodic) == 400 * hop
    assert (periodic + aperiodic)[hop:].std() == pytest.approx(0.1, rel=0.1)


def test_f0_is_that_of_the_voiced_frame_where_voicing_begins() -> None:
    """A guess in a frame without voice does not bend the pitch of the one beside it."""
    f0 = torch.tensor([[[900.0] * 10 + [200.0] * 40]], dtype=torch.float64)
    voicing = torch.tensor([[[0.0] * 10 + [1.0] * 40]], dtype=torch.float64)
    periodic, _ = sources(source(), white(50), Pitch(f0, voicing))
    around = periodic[9 * HOP + HOP // 2 : 12 * HOP]
    spacing = np.diff(np.flatnonzero(around > 0.5 * around.max()))
    assert spacing.max() == pytest.approx(RATE / 200, abs=2)
    assert spacing[spacing > 2].min() == pytest.approx(RATE / 200, abs=2)


def test_frames_after_the_end_repeat_the_last() -> None:
    x = torch.arange(8.0).view(2, 1, 4)
    x[1, :, 2:] = math.nan
    mask = torch.tensor([[[True] * 4], [[True, True, False, False]]])
    assert hold_last(x, mask).tolist() == [[[0, 1, 2, 3]], [[4, 5, 5, 5]]]
    assert hold_last(x, None) is x
