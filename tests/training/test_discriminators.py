"""Discriminators: their pictures of a sound, the published shapes, and how much sound they need."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from support.runs import SMALL
from torch import Tensor, nn

from wavegen.blocks import effective_kernel_size, output_size
from wavegen.training.config import AdversarialConfig
from wavegen.training.discriminators import (
    Discriminator,
    Discriminators,
    PeriodDiscriminator,
    ResolutionDiscriminator,
)

BOTH = {
    "period": lambda: PeriodDiscriminator(3, channels=(4, 6, 8)),
    "resolution": lambda: ResolutionDiscriminator(64, 16, channels=4, dilations=(1, 2, 4)),
}


def noise(*shape: int) -> Tensor:
    return 0.3 * torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def convolutions(discriminator: Discriminator) -> list[nn.Conv2d]:
    layers = [*discriminator.layers, discriminator.output]
    assert all(isinstance(layer, nn.Conv2d) for layer in layers)
    return layers  # type: ignore[return-value]


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("extra", [0, 1, 2, 13, 1000])
def test_every_layer_pads_sounds_of_any_length_to_the_same_size(name: str, extra: int) -> None:
    discriminator = BOTH[name]()
    samples = noise(2, discriminator.shortest_segment + extra)
    output = discriminator(samples)
    size = discriminator.picture(samples).shape[-2:]
    for layer, feature in zip(convolutions(discriminator), [*output.features, output.logits], strict=True):
        assert feature.shape == (2, layer.out_channels, *(-(-n // s) for n, s in zip(size, layer.stride, strict=True)))
        assert tuple(feature.shape[2:]) == output_size(
            tuple(size), layer.kernel_size, stride=layer.stride, padding=layer.padding, dilation=layer.dilation
        )
        size = feature.shape[-2:]
    assert output.logits.shape[1] == 1


def test_the_pictures_hold_the_sound() -> None:
    samples = noise(2, 32)
    folded = PeriodDiscriminator(5, channels=(2,)).picture(samples)
    assert folded.shape == (2, 1, 7, 5)
    assert torch.equal(folded.reshape(2, -1)[:, :32], samples)
    assert torch.equal(folded.reshape(2, -1)[:, 32:], samples[:, [30, 29, 28]])
    assert torch.equal(PeriodDiscriminator(4, channels=(2,)).picture(samples).reshape(2, -1), samples)

    spectrogram = ResolutionDiscriminator(16, 4, channels=2, dilations=(1,)).picture(samples)
    assert spectrogram.shape == (2, 2, 5, 9)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(16) / 16)
    for frame in range(5):
        part = samples[:, 4 * frame : 4 * frame + 16].double().numpy() * window / np.sqrt((window**2).sum())
        expected = np.fft.rfft(part)
        np.testing.assert_allclose(spectrogram[:, 0, frame], expected.real, atol=1e-5)
        np.testing.assert_allclose(spectrogram[:, 1, frame], expected.imag, atol=1e-5)


def test_a_period_discriminator_is_that_of_hifi_gan() -> None:
    discriminator = PeriodDiscriminator(3, channels=(4, 6))
    samples = noise(2, 3 * 40 + 1)
    x = F.pad(samples, (0, 2), mode="reflect").view(2, 1, -1, 3)
    features = []
    weights = dict(discriminator.named_parameters())
    for index, stride in enumerate((3, 3, 1)):
        w, b = weights[f"layers.{index}.weight"], weights[f"layers.{index}.bias"]
        x = F.leaky_relu(F.conv2d(x, w, b, stride=(stride, 1), padding=(2, 0)), 0.1)
        features.append(x)
    x = F.conv2d(x, weights["output.weight"], weights["output.bias"], padding=(1, 0))
    output = discriminator(samples)
    torch.testing.assert_close(output.logits, x)
    for ours, theirs in zip(output.features, features, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_a_resolution_discriminator_is_that_of_encodec() -> None:
    discriminator = ResolutionDiscriminator(64, 16, channels=4, dilations=(1, 2, 4))
    samples = noise(2, 500)
    weights = dict(discriminator.named_parameters())
    x = discriminator.picture(samples)
    layers = [((1, 1), 1), ((1, 2), 1), ((1, 2), 2), ((1, 2), 4), ((1, 1), 1)]
    for index, (stride, dilation) in enumerate(layers):
        w, b = weights[f"layers.{index}.weight"], weights[f"layers.{index}.bias"]
        wide = 4 if index < 4 else 1
        x = F.conv2d(x, w, b, stride=stride, padding=(dilation, wide), dilation=(dilation, 1))
        x = F.leaky_relu(x, 0.2)
    x = F.conv2d(x, weights["output.weight"], weights["output.bias"], padding=(1, 1))
    torch.testing.assert_close(discriminator(samples).logits, x)


def test_the_published_sizes_can_be_expressed() -> None:
    """HiFi-GAN's period discriminators have 41.1 M parameters; EnCodec's have 32 channels in every layer."""
    config = AdversarialConfig(
        period_channels=(32, 128, 512, 1024),
        resolutions=((2048, 512), (1024, 256), (512, 128), (256, 64), (128, 32)),
        resolution_channels=32,
        weight_norm=False,
    )
    with torch.device("meta"):
        members = Discriminators(config).members
    sizes = [sum(parameter.numel() for parameter in member.parameters()) for member in members]
    assert sizes[:5] == [8_218_433] * 5
    first, strided, square, last = (n_in * n_out * taps + n_out for n_in, n_out, taps in
                                    ((2, 32, 27), (32, 32, 27), (32, 32, 9), (32, 1, 9)))  # fmt: skip
    assert sizes[5:] == [first + 3 * strided + square + last] * 5


def test_dilations_widen_the_view_along_time() -> None:
    discriminator = ResolutionDiscriminator(64, 16, channels=4, dilations=(1, 2, 4))
    picture = noise(1, 2, 41, 33).requires_grad_()
    discriminator.picture = lambda samples: picture  # type: ignore[method-assign]
    discriminator(noise(1, 9)).logits[:, :, 20].sum().backward()
    assert picture.grad is not None
    reached = picture.grad.abs().sum((0, 1, 3)).nonzero().flatten()
    reach = 1 + (1 + 2 + 4) + 1 + 1  # each kernel of 3 adds its dilation
    assert reached.tolist() == list(range(20 - reach, 20 + reach + 1))


@pytest.mark.parametrize("name", BOTH)
def test_the_shortest_segment_is_the_first_into_which_every_kernel_fits(name: str) -> None:
    discriminator = BOTH[name]()

    def fits(samples: int) -> bool:
        if isinstance(discriminator, ResolutionDiscriminator) and samples < 64:
            return False
        size = tuple(discriminator.picture(noise(1, samples)).shape[-2:])
        for layer in convolutions(discriminator):
            span = effective_kernel_size(layer.kernel_size, layer.dilation)
            if any(k > n for k, n in zip(span, size, strict=True)):
                return False
            size = tuple(discriminator_layer_size(layer, size))
        return True

    def discriminator_layer_size(layer: nn.Conv2d, size: tuple[int, ...]) -> Sequence[int]:
        return layer(torch.zeros(1, layer.in_channels, *size)).shape[-2:]

    shortest = discriminator.shortest_segment
    assert fits(shortest)
    assert not any(fits(n) for n in range(16, shortest))


def test_weight_normalisation_is_a_choice() -> None:
    with_it, without = (Discriminators(SMALL.model_copy(update={"weight_norm": w})) for w in (True, False))
    assert any("parametrizations" in name for name, _ in with_it.named_parameters())
    assert not any("parametrizations" in name for name, _ in without.named_parameters())


@pytest.mark.parametrize("name", sorted(BOTH))
def test_the_last_layer_has_the_amplitude_of_the_first(name: str) -> None:
    torch.manual_seed(0)
    wide = {
        "period": PeriodDiscriminator(2, channels=(32, 64, 64, 64)),
        "resolution": ResolutionDiscriminator(256, 64, channels=32, dilations=(1, 2, 4)),
    }
    with torch.no_grad():
        features = wide[name](noise(2, 8192)).features
    first, last = (features[i].square().mean().sqrt() for i in (0, -1))
    assert 0.5 < last / first < 2  # torch's own initialisation gives a quarter or less
