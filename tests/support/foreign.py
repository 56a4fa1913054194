"""Folders of weights as other projects write them, small and with random values."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wavegen.mel import MelSpec, profile

Weights = dict[str, Tensor]

VOCOS_MEL = profile("vocos-24k")
PWG_FACTORS = (4, 4, 4, 4)
PWG_BINS, PWG_RESIDUAL, PWG_GATE, PWG_SKIP = 80, 4, 6, 5
PWG_STACKS, PWG_LAYERS = 2, 6


def random(*shape: int, std: float = 0.3, mean: float = 0.0) -> Tensor:
    """Random weights, from torch's own generator."""
    return torch.randn(shape) * std + mean


def vocos_weights(channels: int, layers: int, mel: MelSpec = VOCOS_MEL) -> Weights:
    """A state of Vocos, by its own names."""
    hidden = 3 * channels
    weights = {}

    def add(name: str, *shape: int, mean: float = 0.0) -> None:
        weights[f"{name}.weight"] = random(*shape, mean=mean)
        weights[f"{name}.bias"] = random(shape[0])

    add("backbone.embed", channels, mel.n_mels, 7)
    add("backbone.norm", channels, mean=1.0)
    for index in range(layers):
        block = f"backbone.convnext.{index}"
        add(f"{block}.dwconv", channels, 1, 7)
        add(f"{block}.norm", channels, mean=1.0)
        add(f"{block}.pwconv1", hidden, channels)
        add(f"{block}.pwconv2", channels, hidden)
        weights[f"{block}.gamma"] = random(channels)
    add("backbone.final_layer_norm", channels, mean=1.0)
    add("head.out", mel.n_fft + 2, channels)
    window = torch.hann_window(mel.n_fft)
    filters = torch.from_numpy(mel.filterbank().T.copy()).float()
    return weights | {
        "head.istft.window": window,
        "feature_extractor.mel_spec.spectrogram.window": window.clone(),
        "feature_extractor.mel_spec.mel_scale.fb": filters,
    }


def vocos_config(channels: int, layers: int, mel: MelSpec = VOCOS_MEL) -> dict[str, Any]:
    """The config of these weights."""
    padding = "center" if mel.center else "same"
    frames = {"n_fft": mel.n_fft, "hop_length": mel.hop_length, "padding": padding}
    return {
        "feature_extractor": {
            "class_path": "vocos.feature_extractors.MelSpectrogramFeatures",
            "init_args": {"sample_rate": mel.sample_rate_hz, "n_mels": mel.n_mels, **frames},
        },
        "backbone": {
            "class_path": "vocos.models.VocosBackbone",
            "init_args": {
                "input_channels": mel.n_mels,
                "dim": channels,
                "intermediate_dim": 3 * channels,
                "num_layers": layers,
            },
        },
        "head": {"class_path": "vocos.heads.ISTFTHead", "init_args": {"dim": channels, **frames}},
    }


def write_vocos(
    folder: Path,
    *,
    channels: int = 8,
    layers: int = 2,
    mel: MelSpec = VOCOS_MEL,
    config: dict[str, Any] | None = None,
    weights: Any = None,
) -> Path:
    """A folder as on the Hub; ``config`` and ``weights`` replace those that fit."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    config = vocos_config(channels, layers, mel) if config is None else config
    (folder / "config.yaml").write_text(json.dumps(config))  # JSON is YAML
    torch.save(vocos_weights(channels, layers, mel) if weights is None else weights, folder / "pytorch_model.bin")
    return folder


def pwg_weights(*, causal: bool = False, normalised: bool = True) -> Weights:
    """A state of Parallel WaveGAN's generator, by its own names, with weight normalisation as it is saved there."""
    plain: Weights = {"upsample_net.conv_in.weight": random(PWG_BINS, PWG_BINS, 3 if causal else 5, std=0.05)}
    for index, factor in enumerate(PWG_FACTORS):
        plain[f"upsample_net.upsample.up_layers.{2 * index + 1}.weight"] = random(1, 1, 1, 2 * factor + 1)
    shapes = {"first_conv": (PWG_RESIDUAL, 1, 1)}
    for index in range(PWG_LAYERS):
        shapes[f"conv_layers.{index}.conv"] = (PWG_GATE, PWG_RESIDUAL, 3)
        plain[f"conv_layers.{index}.conv1x1_aux.weight"] = random(PWG_GATE, PWG_BINS, 1)
        shapes[f"conv_layers.{index}.conv1x1_out"] = (PWG_RESIDUAL, PWG_GATE // 2, 1)
        shapes[f"conv_layers.{index}.conv1x1_skip"] = (PWG_SKIP, PWG_GATE // 2, 1)
    shapes |= {"last_conv_layers.1": (PWG_SKIP, PWG_SKIP, 1), "last_conv_layers.3": (1, PWG_SKIP, 1)}
    for name, shape in shapes.items():
        plain |= {f"{name}.weight": random(*shape), f"{name}.bias": random(shape[0])}
    if not normalised:
        return plain
    saved: Weights = {}
    for name, value in plain.items():
        if name.endswith(".weight"):
            norm = value.flatten(1).norm(dim=1).reshape(-1, *[1] * (value.dim() - 1))
            saved |= {f"{name}_g": norm, f"{name}_v": 3 * value}  # the length of the direction does not matter
        else:
            saved[name] = value
    return saved


def pwg_config(*, causal: bool = False) -> dict[str, Any]:
    """The config of these weights, with some of the settings that do not matter here."""
    return {
        "sampling_rate": 22050, "fft_size": 1024, "hop_size": 256, "win_length": None, "window": "hann",
        "num_mels": PWG_BINS, "fmin": 80, "fmax": 7600, "global_gain_scale": 1.0, "format": "npy", "batch_size": 6,
        "generator_params": {
            "in_channels": 1, "out_channels": 1, "kernel_size": 3, "layers": PWG_LAYERS, "stacks": PWG_STACKS,
            "residual_channels": PWG_RESIDUAL, "gate_channels": PWG_GATE, "skip_channels": PWG_SKIP,
            "aux_channels": PWG_BINS, "aux_context_window": 2, "dropout": 0.0, "use_weight_norm": True,
            "use_causal_conv": causal, "upsample_net": "ConvInUpsampleNetwork",
            "upsample_params": {"upsample_scales": list(PWG_FACTORS)},
        },
    }  # fmt: skip


def write_parallel_wavegan(
    folder: Path, *, causal: bool = False, config: dict[str, Any] | None = None, weights: Any = None
) -> Path:
    """A folder as ParallelWaveGAN's training leaves it, with an older checkpoint of other weights."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    (folder / "config.yml").write_text(json.dumps(pwg_config(causal=causal) if config is None else config))
    random_state = np.random.default_rng(0)
    statistics = random_state.normal(-2, 1, PWG_BINS), random_state.uniform(0.5, 1.5, PWG_BINS)
    np.save(folder / "stats.npy", np.stack(statistics).astype(np.float32))
    weights = pwg_weights(causal=causal) if weights is None else weights
    newest = {"model": {"generator": weights, "discriminator": {"x": torch.zeros(1)}}, "steps": 100_000, "epochs": 7}
    torch.save(newest, folder / "checkpoint-100000steps.pkl")
    torch.save({"model": {"generator": {}}}, folder / "checkpoint-95000steps.pkl")
    return folder
