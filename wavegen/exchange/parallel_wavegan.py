"""Weights of ParallelWaveGAN's first version (arXiv:1910.11480).

A folder holds ``config.yml``, ``checkpoint-NNNsteps.pkl``, and the statistics of the mels, ``stats.npy`` or ``.h5``.
"""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from wavegen.config import Config, load_yaml, parse
from wavegen.errors import CheckpointError, ConfigError, MissingCheckpointError
from wavegen.exchange.foreign import ForeignWeights, ImportedModel, read_weights, require_files
from wavegen.mel import MelSpec, profile
from wavegen.mel.arrays import UNREADABLE, read_array
from wavegen.vocoders.parallel_wavegan import ParallelWaveGANConfig

CONFIG = "config.yml"
GENERATOR = "ParallelWaveGANGenerator"


class _Upsampling(Config):
    """Arguments of the upsampling network that wavegen's can express; the last three repeat those of the generator."""

    upsample_scales: tuple[PositiveInt, ...]
    nonlinear_activation: None = None
    nonlinear_activation_params: dict[str, Any] | None = None
    interpolate_mode: Literal["nearest"] = "nearest"
    freq_axis_kernel_size: Literal[1] = 1
    aux_channels: PositiveInt | None = None
    aux_context_window: NonNegativeInt | None = None
    use_causal_conv: bool | None = None


class _Generator(Config):
    """Arguments of ``ParallelWaveGANGenerator`` that wavegen's vocoder can express, with their defaults."""

    in_channels: Literal[1] = 1
    out_channels: Literal[1] = 1
    kernel_size: PositiveInt = 3
    layers: PositiveInt = 30
    stacks: PositiveInt = 3
    residual_channels: PositiveInt = 64
    gate_channels: PositiveInt = 128
    skip_channels: PositiveInt = 64
    aux_channels: PositiveInt = 80
    aux_context_window: NonNegativeInt = 2
    dropout: NonNegativeFloat = 0.0
    bias: Literal[True] = True
    use_weight_norm: bool = True
    use_causal_conv: bool = False
    upsample_conditional_features: Literal[True] = True
    upsample_net: Literal["ConvInUpsampleNetwork"] = "ConvInUpsampleNetwork"
    upsample_params: _Upsampling = _Upsampling(upsample_scales=(4, 4, 4, 4))


class _Features(Config):
    """The settings of feature extraction, of which the mel definition follows."""

    sampling_rate: PositiveInt
    fft_size: PositiveInt
    hop_size: PositiveInt
    win_length: PositiveInt | None = None
    window: Literal["hann"] = "hann"
    num_mels: PositiveInt
    fmin: NonNegativeFloat | None = None
    fmax: PositiveFloat | None = None
    global_gain_scale: float = 1.0
    sampling_rate_for_feats: None = None


def read_parallel_wavegan(folder: Path) -> ImportedModel:
    """Read a generator of Parallel WaveGAN's first version, with the newest checkpoint of the folder.

    The statistics by which its mels are normalised become part of the mel definition.

    Args:
        folder: holds the config, a checkpoint and the statistics.

    Raises:
        ConfigError: it is another generator, or has a part that wavegen's vocoder does not.
        CheckpointError: a file is missing or damaged, or the weights do not fit the config.
    """
    require_files(folder, CONFIG)
    where = folder / CONFIG
    config = load_yaml(where)
    kind = config.get("generator_type", GENERATOR)
    if kind != GENERATOR:
        raise ConfigError(
            f"generator_type is {kind!r:.60}, for which wavegen has no counterpart",
            where=where,
            remedy=f"give a {GENERATOR}",
        )
    generator = parse(_Generator, _section(config, "generator_params"), where=f"{where}: generator_params")
    known = {name: config[name] for name in _Features.model_fields if name in config}
    features = parse(_Features, known, where=where)
    _check_together(generator, features, where)
    statistics, mean, std = _statistics(folder, features.num_mels)
    mel = parse(MelSpec, profile("pwg-22k").model_dump() | _definition(features, mean, std), where=where)
    vocoder_config = parse(ParallelWaveGANConfig, _shape(generator), where=where)
    checkpoint = _newest_checkpoint(folder)
    weights = _renamed(read_weights(checkpoint, "model", "generator"), generator, vocoder_config)
    return ImportedModel("ParallelWaveGAN", vocoder_config, mel, weights, [where, statistics, checkpoint])


def _check_together(generator: _Generator, features: _Features, where: Path) -> None:
    """Check what wavegen's vocoder needs of both sections, and that they fit each other.

    Raises:
        ConfigError: they do not.
    """
    if features.global_gain_scale != 1:
        raise ConfigError(
            f"global_gain_scale is {features.global_gain_scale:g}, so its sound is that much louder or quieter",
            where=where,
            remedy="wavegen's parallel-wavegan needs 1",
        )
    if generator.aux_channels != features.num_mels:
        raise ConfigError(
            f"generator_params.aux_channels {generator.aux_channels} is not num_mels {features.num_mels}",
            where=where,
            remedy="wavegen's parallel-wavegan reads mels alone",
        )
    if generator.layers % generator.stacks:
        raise ConfigError(
            f"generator_params.layers {generator.layers} is not a multiple of stacks {generator.stacks}",
            where=where,
            remedy="give the config of a trained model",
        )
    scales = generator.upsample_params.upsample_scales
    if math.prod(scales) != features.hop_size:
        raise ConfigError(
            f"the product of upsample_scales {list(scales)} is not hop_size {features.hop_size}",
            where=where,
            remedy="give the config of a trained model",
        )


def _definition(features: _Features, mean: tuple[float, ...], std: tuple[float, ...]) -> dict[str, Any]:
    """The fields of the mel definition that follow from the config and the statistics."""
    return {
        "sample_rate_hz": features.sampling_rate,
        "n_fft": features.fft_size,
        "win_length": features.win_length or features.fft_size,
        "hop_length": features.hop_size,
        "n_mels": features.num_mels,
        "f_min_hz": features.fmin or 0.0,
        "f_max_hz": features.fmax or features.sampling_rate / 2,
        "mean": mean,
        "std": std,
    }


def _shape(generator: _Generator) -> dict[str, Any]:
    """The generator's shape as the config of wavegen's vocoder."""
    return {
        "name": "parallel-wavegan",
        "padding": "causal" if generator.use_causal_conv else "same",
        "residual_channels": generator.residual_channels,
        "gate_channels": generator.gate_channels,
        "skip_channels": generator.skip_channels,
        "condition_window": generator.aux_context_window,
        "upsample_factors": generator.upsample_params.upsample_scales,
        "cycles": generator.stacks,
        "depth": generator.layers // generator.stacks,
        "kernel_size": generator.kernel_size,
    }


def _section(config: Mapping[str, Any], name: str) -> Any:
    section = config.get(name, {})
    if not isinstance(section, dict):
        return section
    # An old typo in the project's own configs, which its loader corrects too.
    return {key.replace("kernal", "kernel"): value for key, value in section.items()}


def _newest_checkpoint(folder: Path) -> Path:
    """The checkpoint of the most steps."""
    steps = {path: re.fullmatch(r"checkpoint-(\d+)steps", path.stem) for path in folder.glob("checkpoint-*steps.pkl")}
    numbered = {path: int(match[1]) for path, match in steps.items() if match}
    if not numbered:
        raise MissingCheckpointError(
            "has no checkpoint-NNNsteps.pkl", where=folder, remedy="give the folder of a trained model"
        )
    return max(numbered, key=lambda path: numbered[path])


def _statistics(folder: Path, bins: int) -> tuple[Path, tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each mel bin."""
    path = folder / "stats.npy"
    if path.is_file():
        try:
            with path.open("rb") as file:
                table = read_array(file)
        except UNREADABLE as error:
            raise CheckpointError(f"cannot be read: {error}", where=path, remedy="give the model's own") from error
        rows = [*table[:2]] if table.ndim == 2 else []
    elif (path := folder / "stats.h5").is_file():
        rows = _from_hdf5(path)
    else:
        remedy = "give the folder of a trained model: its mels are normalised by these statistics"
        raise MissingCheckpointError("has neither stats.npy nor stats.h5", where=folder, remedy=remedy)
    values = [np.asarray(row).reshape(-1) for row in rows]
    if [(len(row), row.dtype.kind) for row in values] != [(bins, "f")] * 2 or not np.isfinite(values).all():
        raise CheckpointError(
            f"does not hold a mean and a scale of {bins} bins", where=path, remedy="give the statistics of the model"
        )
    mean, std = (tuple(map(float, row)) for row in values)
    if min(std) <= 0:
        raise CheckpointError("a scale is not above 0", where=path, remedy="give the statistics of the model")
    return path, mean, std


def _from_hdf5(path: Path) -> list[np.ndarray]:
    try:
        import h5py
    except ImportError as error:
        remedy = "pip install h5py, or save its mean and scale as the rows of stats.npy"
        raise CheckpointError("needs the package h5py", where=path, remedy=remedy) from error
    try:
        with h5py.File(path, "r") as file:
            return [file[name][()] for name in ("mean", "scale")]
    except (OSError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError("holds no mean and scale", where=path, remedy="give the stats.h5 of the model") from error


def _renamed(found: ForeignWeights, generator: _Generator, config: ParallelWaveGANConfig) -> dict[str, torch.Tensor]:
    """The weights by wavegen's names, with weight normalisation folded."""
    residual, gate, skip, bins = (
        generator.residual_channels, generator.gate_channels, generator.skip_channels, generator.aux_channels,
    )  # fmt: skip
    weights = {}

    def take(name: str, *shape: int) -> dict[str, torch.Tensor]:
        return {"weight": found.take_normalised(f"{name}.weight", *shape), "bias": found.take(f"{name}.bias", shape[0])}

    def put(name: str, parts: Mapping[str, torch.Tensor]) -> None:
        weights.update({f"{name}.{kind}": part for kind, part in parts.items()})

    taps = generator.aux_context_window * (1 if generator.use_causal_conv else 2) + 1
    weights["frame_conv.weight"] = found.take_normalised("upsample_net.conv_in.weight", bins, bins, taps)
    for index, factor in enumerate(generator.upsample_params.upsample_scales):
        name = f"upsample_net.upsample.up_layers.{2 * index + 1}.weight"  # a stretch lies before each convolution
        kernel = found.take_normalised(name, 1, 1, 1, 2 * factor + 1)
        weights[f"upsample.stages.{index}.kernel"] = kernel[0, 0, 0].flip(0)
    put("input", take("first_conv", residual, 1, 1))
    for index in range(config.cycles * config.depth):
        ours, theirs = f"stack.blocks.{index}", f"conv_layers.{index}"
        put(f"{ours}.conv", take(f"{theirs}.conv", gate, residual, generator.kernel_size))
        weights[f"{ours}.condition.weight"] = found.take_normalised(f"{theirs}.conv1x1_aux.weight", gate, bins, 1)
        out, skips = (
            take(f"{theirs}.conv1x1_out", residual, gate // 2, 1),
            take(f"{theirs}.conv1x1_skip", skip, gate // 2, 1),
        )
        put(f"{ours}.output", {kind: torch.cat((out[kind], skips[kind])) for kind in out})
    put("hidden", take("last_conv_layers.1", skip, skip, 1))
    put("output", take("last_conv_layers.3", 1, skip, 1))
    found.finish()
    return weights
