"""Pitch classes and their decoding, and a spectrum that looks the same at every rate."""

import pytest
import torch

from wavegen.source.pitch import CLASSES, GRID_SPACING_HZ, PitchNetwork, cents, decode, on_grid, soft_labels


def test_labels_decode_to_the_frequency_they_are_made_of() -> None:
    f0 = torch.tensor([55.0, 100.0, 123.4, 440.0, 1500.0])[None, None]
    labels = soft_labels(f0)
    torch.testing.assert_close(labels.sum(1), torch.ones(1, 5))
    assert cents(decode(labels.log()), f0).abs().max() < 2  # the mean is over the seven nearest classes only


@pytest.mark.parametrize(("rate", "n_fft"), [(24000, 1024), (22050, 1024), (44100, 2048), (16000, 1024)])
def test_a_spectrum_looks_the_same_at_every_rate(rate: int, n_fft: int) -> None:
    """A spectrum that is linear in frequency is interpolated without error."""
    frequencies = torch.linspace(0, rate / 2, n_fft // 2 + 1)[None, :, None]
    grid = on_grid(frequencies / 1000, rate)
    torch.testing.assert_close(grid[0, :, 0], torch.arange(192) * GRID_SPACING_HZ / 1000)


def test_the_level_of_the_sound_does_not_matter() -> None:
    network = PitchNetwork(channels=8, layers=1).eval()
    magnitude = torch.rand(1, 513, 7) + 0.1
    for quiet, loud in zip(network(magnitude, 24000), network(10 * magnitude, 24000), strict=True):
        torch.testing.assert_close(loud, quiet, rtol=1e-4, atol=1e-5)


def test_the_declared_context_is_the_one_measured() -> None:
    network = PitchNetwork(channels=8, layers=2).double()
    magnitude = (torch.rand(1, 513, 25, dtype=torch.float64) + 0.1).requires_grad_()
    logits, voicing = network(magnitude, 24000)
    assert logits.shape == (1, CLASSES, 25)
    assert voicing.shape == (1, 1, 25)
    (gradient,) = torch.autograd.grad((logits[..., 12] * torch.randn(CLASSES)).sum(), magnitude)
    touched = gradient[0].abs().sum(0).nonzero().flatten()
    assert (12 - int(touched.min()), int(touched.max()) - 12) == (network.context.left, network.context.right)


def test_the_export_of_a_graph_leaves_nothing_behind() -> None:
    class Grid(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return on_grid(x, 24000.0)

    spectra = torch.rand(1, 61, 4)  # a size that nothing else has met
    torch.export.export(Grid(), (spectra,), strict=False)
    assert type(on_grid(spectra, 24000.0)) is torch.Tensor
