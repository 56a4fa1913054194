"""Imported Parallel WaveGAN weights make of the same noise the same sound; what cannot be imported is refused."""

import copy
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from support.commands import Refused
from support.foreign import (
    PWG_BINS,
    PWG_FACTORS,
    PWG_GATE,
    PWG_LAYERS,
    PWG_STACKS,
    Weights,
    pwg_config,
    pwg_weights,
    write_parallel_wavegan,
)
from torch import Tensor

from wavegen.commands.import_ import main
from wavegen.exchange.parallel_wavegan import read_parallel_wavegan
from wavegen.mel import profile
from wavegen.noise import normal_noise

WINDOW = 2


def published(w: Weights, z: Tensor, mel: Tensor, *, causal: bool) -> Tensor:
    """arXiv:1910.11480: noise ``[1, 1, samples]`` and mel ``[1, bins, frames]``, whose edges are repeated."""
    w = {
        name.removesuffix("_v"): F.normalize(value.flatten(1)).reshape(value.shape) * w[f"{name[:-2]}_g"]
        if name.endswith("_v")
        else value
        for name, value in w.items()
    }
    c = F.conv1d(F.pad(mel, (WINDOW, WINDOW), mode="replicate"), w["upsample_net.conv_in.weight"])
    c = (c[..., :-WINDOW] if causal else c)[:, None]
    for i, factor in enumerate(PWG_FACTORS):
        c = c.repeat_interleave(factor, dim=-1)
        kernel, pad = w[f"upsample_net.upsample.up_layers.{2 * i + 1}.weight"], 2 * factor if causal else factor
        c = F.conv2d(c, kernel, padding=(0, pad))[..., : c.shape[-1]]
    c = c[:, 0]

    x, skips = F.conv1d(z, w["first_conv.weight"], w["first_conv.bias"]), torch.zeros(1)
    for i in range(PWG_LAYERS):
        name, dilation = f"conv_layers.{i}", 2 ** (i % (PWG_LAYERS // PWG_STACKS))
        pad = 2 * dilation if causal else dilation
        h = F.conv1d(x, w[f"{name}.conv.weight"], w[f"{name}.conv.bias"], padding=pad, dilation=dilation)
        h = h[..., : x.shape[-1]] + F.conv1d(c, w[f"{name}.conv1x1_aux.weight"])
        h = torch.tanh(h[:, : PWG_GATE // 2]) * torch.sigmoid(h[:, PWG_GATE // 2 :])
        skips = skips + F.conv1d(h, w[f"{name}.conv1x1_skip.weight"], w[f"{name}.conv1x1_skip.bias"])
        x = (x + F.conv1d(h, w[f"{name}.conv1x1_out.weight"], w[f"{name}.conv1x1_out.bias"])) * math.sqrt(0.5)
    x = F.relu(skips * math.sqrt(1 / PWG_LAYERS))
    x = F.relu(F.conv1d(x, w["last_conv_layers.1.weight"], w["last_conv_layers.1.bias"]))
    return F.conv1d(x, w["last_conv_layers.3.weight"], w["last_conv_layers.3.bias"])[:, 0]


@pytest.mark.parametrize("causal", [False, True], ids=["same", "causal"])
@torch.no_grad()
def test_the_sound_is_that_of_the_published_equations(causal: bool, folder: Path) -> None:
    imported = read_parallel_wavegan(write_parallel_wavegan(folder / "pwg", causal=causal))
    vocoder = imported.vocoder().prepared_for_synthesis()
    torch.manual_seed(0)
    weights = {name: value.double() for name, value in pwg_weights(causal=causal).items()}
    lengths = torch.tensor([11, 8])
    mel = torch.randn(2, PWG_BINS, 11)
    found = {
        engine: (vocoder.use_engine(engine), vocoder.synthesize(mel, lengths=lengths, seed=[3, 4]))
        for engine in ("torch", "tiled")
    }
    for item, frames in enumerate(lengths.tolist()):
        noise = normal_noise(torch.tensor([3 + item]), 0, frames * 256, 1)
        expected = published(weights, noise.double(), mel[item : item + 1, :, :frames].double(), causal=causal)
        for _, samples in found.values():
            deviation = (samples[item : item + 1, : frames * 256] - expected).abs().max() / expected.abs().max()
            assert deviation < 1e-5
    assert found["tiled"][0] == "tiled"


def test_the_statistics_belong_to_the_mel_definition(folder: Path) -> None:
    imported = read_parallel_wavegan(write_parallel_wavegan(folder / "pwg"))
    mean, std = np.load(folder / "pwg/stats.npy")
    assert imported.mel == profile("pwg-22k").replace(mean=tuple(map(float, mean)), std=tuple(map(float, std)))


def test_statistics_in_hdf5_are_read(folder: Path) -> None:
    h5py = pytest.importorskip("h5py")
    expected = read_parallel_wavegan(write_parallel_wavegan(folder / "pwg")).mel
    mean, std = np.load(folder / "pwg/stats.npy")
    (folder / "pwg/stats.npy").unlink()
    with h5py.File(folder / "pwg/stats.h5", "w") as file:
        file["mean"], file["scale"] = mean, std
    assert read_parallel_wavegan(folder / "pwg").mel == expected


def changed(path: str, value: Any) -> dict[str, Any]:
    config = copy.deepcopy(pwg_config())
    *sections, key = path.split(".")
    place = config
    for section in sections:
        place = place[section]
    place[key] = value
    return config


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("generator_type", "MelGANGenerator"),
        ("generator_params.out_channels", 4),
        ("generator_params.upsample_net", "MelGANGenerator"),
        ("generator_params.upsample_params", {"upsample_scales": [4, 4, 4, 4], "nonlinear_activation": "ReLU"}),
        ("generator_params.upsample_params", {"upsample_scales": [4, 4, 4]}),
        ("generator_params.aux_channels", 90),
        ("generator_params.stacks", 4),
        ("generator_params.residual_channels", 8),
        ("generator_params.use_causal_conv", True),
        ("global_gain_scale", 0.5),
        ("window", "hamming"),
        ("hop_size", 2000),
        ("hop_size", 300),
        ("fmax", "high"),
        ("generator_params", 7),
    ],
)
def test_a_config_that_does_not_fit_is_refused(path: str, value: Any, folder: Path, refused: Refused) -> None:
    write_parallel_wavegan(folder / "pwg", config=changed(path, value))
    refused(main, "parallel-wavegan", "pwg")


def test_files_that_are_missing_or_wrong_are_refused(folder: Path, refused: Refused) -> None:
    refused(main, "parallel-wavegan", "nowhere")
    path = write_parallel_wavegan(folder / "pwg")
    statistics = np.load(path / "stats.npy")
    for wrong in (statistics[:1], statistics[:, :9], -statistics, np.array([{}], dtype=object)):
        np.save(path / "stats.npy", wrong)
        refused(main, "parallel-wavegan", "pwg")
    (path / "stats.npy").unlink()
    refused(main, "parallel-wavegan", "pwg")
    np.save(path / "stats.npy", statistics)
    weights = pwg_weights()
    weights["conv_layers.0.conv.weight_v"][0] = 0
    write_parallel_wavegan(path, weights=weights)
    refused(main, "parallel-wavegan", "pwg")
    for checkpoint in path.glob("*.pkl"):
        checkpoint.unlink()
    refused(main, "parallel-wavegan", "pwg")


def test_wavenet_vocoder_is_refused_with_what_prevents_it(folder: Path, refused: Refused) -> None:
    refused(main, "wavenet-vocoder", "anywhere")
    refused(main, "parallel-wavegan", "hf://owner/name")
