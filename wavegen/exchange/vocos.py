"""Weights of Vocos (arXiv:2306.00814): a folder with ``config.yaml`` and ``pytorch_model.bin``, as on the Hub."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from pydantic import PositiveInt

from wavegen.config import Config, load_yaml, parse
from wavegen.errors import ConfigError
from wavegen.exchange.foreign import ForeignWeights, ImportedModel, read_weights, require_files
from wavegen.mel import MelSpec, profile
from wavegen.vocoders.vocos import VocosConfig

CONFIG, WEIGHTS = "config.yaml", "pytorch_model.bin"
KERNEL_SIZE = 7  # of all convolutions there

T = TypeVar("T", bound=Config)


class _Features(Config):
    """Arguments of ``MelSpectrogramFeatures`` with their defaults."""

    sample_rate: PositiveInt = 24000
    n_fft: PositiveInt = 1024
    hop_length: PositiveInt = 256
    n_mels: PositiveInt = 100
    padding: Literal["center", "same"] = "center"


class _Backbone(Config):
    """Arguments of ``VocosBackbone``; the initial scale does not matter to trained weights."""

    input_channels: PositiveInt
    dim: PositiveInt
    intermediate_dim: PositiveInt
    num_layers: PositiveInt
    layer_scale_init_value: float | None = None
    adanorm_num_embeddings: None = None


class _Head(Config):
    """Arguments of ``ISTFTHead`` with their defaults."""

    dim: PositiveInt
    n_fft: PositiveInt
    hop_length: PositiveInt
    padding: Literal["center", "same"] = "same"


def read_vocos(folder: Path) -> ImportedModel:
    """Read a Vocos that speaks mels. The class names in its config are only compared; none is imported.

    Args:
        folder: holds ``config.yaml`` and ``pytorch_model.bin``.

    Raises:
        ConfigError: its parts are not those that wavegen knows, such as one that reads the codes of Encodec.
        CheckpointError: a file is missing or damaged, or the weights do not fit the config.
    """
    require_files(folder, CONFIG, WEIGHTS)
    where = folder / CONFIG
    config = load_yaml(where)
    features = _arguments(
        config, "feature_extractor", "vocos.feature_extractors.MelSpectrogramFeatures", _Features, where
    )
    backbone = _arguments(config, "backbone", "vocos.models.VocosBackbone", _Backbone, where)
    head = _arguments(config, "head", "vocos.heads.ISTFTHead", _Head, where)
    _check_agreement(features, backbone, head, where)

    definition = {
        "sample_rate_hz": features.sample_rate,
        "n_fft": features.n_fft,
        "win_length": features.n_fft,
        "hop_length": features.hop_length,
        "n_mels": features.n_mels,
        "f_max_hz": features.sample_rate // 2,
        "center": features.padding == "center",
    }
    mel = parse(MelSpec, profile("vocos-24k").model_dump() | definition, where=where)
    shape = {
        "name": "vocos",
        "channels": backbone.dim,
        "layers": backbone.num_layers,
        "kernel_size": KERNEL_SIZE,
        "expansion": backbone.intermediate_dim // backbone.dim,
    }
    weights = _renamed(read_weights(folder / WEIGHTS), backbone, mel)
    return ImportedModel("vocos", parse(VocosConfig, shape, where=where), mel, weights, [where, folder / WEIGHTS])


def _arguments(config: Mapping[str, Any], part: str, class_path: str, model: type[T], where: Path) -> T:
    """The arguments of a part of the config."""
    section = config.get(part)
    if not isinstance(section, dict) or "class_path" not in section:
        raise ConfigError(f"{part} has no class_path", where=where, remedy=f"give the {CONFIG} of a Vocos")
    if section["class_path"] != class_path:
        raise ConfigError(
            f"{part} is {section['class_path']!r:.80}, for which wavegen has no counterpart",
            where=where,
            remedy=f"give a Vocos whose {part} is {class_path}",
        )
    arguments = section.get("init_args")
    return parse(model, {} if arguments is None else arguments, where=f"{where}: {part}.init_args")


def _check_agreement(features: _Features, backbone: _Backbone, head: _Head, where: Path) -> None:
    """Refuse parts that do not fit together, or that the vocoder's options cannot express."""
    pairs = {
        "backbone.input_channels": (backbone.input_channels, features.n_mels),
        "head.dim": (head.dim, backbone.dim),
        "head.n_fft": (head.n_fft, features.n_fft),
        "head.hop_length": (head.hop_length, features.hop_length),
        "head.padding": (head.padding, features.padding),
    }
    for name, (found, expected) in pairs.items():
        if found != expected:
            raise ConfigError(
                f"{name} is {found}, but the part before it has {expected}",
                where=where,
                remedy="wavegen's vocos needs both to be equal",
            )
    if features.padding == "center" and 2 * features.hop_length > features.n_fft:
        raise ConfigError(
            f"hop_length {features.hop_length} is more than half of n_fft {features.n_fft}",
            where=where,
            remedy="wavegen's vocos needs centred frames to overlap by half",
        )
    if backbone.intermediate_dim % backbone.dim:
        raise ConfigError(
            f"backbone.intermediate_dim {backbone.intermediate_dim} is not a multiple of dim {backbone.dim}",
            where=where,
            remedy="wavegen's vocos needs a multiple",
        )


def _renamed(found: ForeignWeights, backbone: _Backbone, mel: MelSpec) -> dict[str, torch.Tensor]:
    """The weights by wavegen's names."""
    channels, hidden = backbone.dim, backbone.intermediate_dim
    weights = {}

    def take(ours: str, theirs: str, *shape: int) -> None:
        weights[f"{ours}.weight"] = found.take(f"{theirs}.weight", *shape)
        weights[f"{ours}.bias"] = found.take(f"{theirs}.bias", shape[0])

    take("input", "backbone.embed", channels, mel.n_mels, KERNEL_SIZE)
    take("input_norm", "backbone.norm", channels)
    for index in range(backbone.num_layers):
        ours, theirs = f"stack.blocks.{index}", f"backbone.convnext.{index}"
        take(f"{ours}.conv", f"{theirs}.dwconv", channels, 1, KERNEL_SIZE)
        take(f"{ours}.norm", f"{theirs}.norm", channels)
        take(f"{ours}.expand", f"{theirs}.pwconv1", hidden, channels)
        take(f"{ours}.project", f"{theirs}.pwconv2", channels, hidden)
        weights[f"{ours}.scale"] = found.take(f"{theirs}.gamma", channels)
    take("output_norm", "backbone.final_layer_norm", channels)
    take("output", "head.out", mel.n_fft + 2, channels)
    weights["output.weight"] = weights["output.weight"][:, :, None]  # a convolution of one tap

    # Not trained, but saved there: a chance to see that the mel definition is the one that the config states.
    found.check_constant("head.istft.window", mel.window(), "the Hann window of its n_fft")
    found.check_constant("feature_extractor.mel_spec.spectrogram.window", mel.window(), "the Hann window of its n_fft")
    filters = torch.from_numpy(mel.filterbank().T.copy()).float()
    found.check_constant("feature_extractor.mel_spec.mel_scale.fb", filters, "the filter bank of its config")
    found.finish()
    return weights
