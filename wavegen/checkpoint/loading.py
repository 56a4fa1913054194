"""Vocoders and other models from checkpoints: built as the header says, and no larger than the file."""

import contextlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from wavegen.checkpoint.finding import find_model, finished_runs, holds_another_model
from wavegen.checkpoint.tensor_files import ANOTHER_FILE, load_checkpoint
from wavegen.config import did_you_mean, parse
from wavegen.errors import CheckpointError, WavegenError
from wavegen.mel import MelSpec
from wavegen.models import MODELS, Model, ModelConfig, build_model
from wavegen.network import Network, NetworkConfig
from wavegen.vocoders import VOCODERS, Vocoder, VocoderConfig, build_vocoder

AnyModel = TypeVar("AnyModel", bound=Model)
EMA, WEIGHTS = "ema.", "model."  # prefixes of the names of a training checkpoint's tensors


def vocoder_header(vocoder_config: Mapping[str, Any], mel: MelSpec, speakers: Sequence[str] = ()) -> dict[str, Any]:
    """The part of a header from which ``load_vocoder`` builds the vocoder."""
    return {"vocoder": dict(vocoder_config), "mel": mel.model_dump(mode="json"), "speakers": list(speakers)}


def network_header(config: NetworkConfig, mel: MelSpec, speakers: Sequence[str] = ()) -> dict[str, Any]:
    """The part of a header from which ``load_vocoder`` or ``load_model`` builds the network."""
    header = vocoder_header(config.model_dump(mode="json"), mel, speakers)
    return {config.section: header.pop("vocoder"), **header}


def build_network(config: NetworkConfig, mel: MelSpec, speakers: Sequence[str] = ()) -> Network:
    """Build a vocoder or another model with random weights; only a vocoder may have speakers."""
    if isinstance(config, VocoderConfig):
        return build_vocoder(config, mel, speakers)
    assert isinstance(config, ModelConfig)
    return build_model(config, mel)


def load_vocoder(where: Path | str | None = None, device: torch.device | str = "cpu") -> Vocoder:
    """Load the vocoder of a model file, or with its EMA weights of a training checkpoint.

    Args:
        where: that of ``find_model``.
        device: the device to put it on.

    Returns:
        The vocoder in evaluation mode, with its weight normalisation folded.

    Raises:
        CheckpointError: see ``load_checkpoint``; or the weights do not fit the model that the header describes.
    """
    vocoder = _load(find_model(where), "vocoder", VOCODERS)
    assert isinstance(vocoder, Vocoder)
    return vocoder.to(device)


def load_model(kind: type[AnyModel], where: Path | str | None = None, device: torch.device | str = "cpu") -> AnyModel:
    """Load a model that is not a vocoder, from a model file or with its EMA weights from a training checkpoint.

    Args:
        kind: the class of the model.
        where: that of ``find_model``, or None for the newest finished run below ``./runs`` of this class.
        device: the device to put it on.

    Returns:
        The model in evaluation mode.

    Raises:
        CheckpointError: see ``load_vocoder``; or the model does not exist.
    """
    name = kind.Config.model_fields["name"].default
    if where is None:
        where = next((path for path in finished_runs(Path("runs")) if holds_another_model(path, name)), None)
        if where is None:
            remedy = f"train one with wavegen-train, or give the folder of a run of {name}"
            raise CheckpointError(f"holds no finished run of {name}", where="runs", remedy=remedy)
    model = _load(find_model(where), ModelConfig.section, {name: MODELS[name]})
    assert isinstance(model, kind)
    return model.to(device)


def _load(path: Path, section: str, known: Mapping[str, type[Network]]) -> Network:
    """The network of a file, ready for synthesis.

    Args:
        path: the file.
        section: the part of its header that describes the network.
        known: the networks that it may hold, by name.
    """
    tensors, header = load_checkpoint(path)
    config, mel, speakers = _described(header, path, section, known)
    prefix = EMA if any(key.startswith(EMA) for key in tensors) else WEIGHTS
    weights = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

    with _no_more_than(weights, path):
        network = build_network(config, mel, speakers)
    load_weights(network, weights, path)
    return network.prepared_for_synthesis()


def _described(
    header: Mapping[str, Any], path: Path, section: str, known: Mapping[str, type[Network]]
) -> tuple[NetworkConfig, MelSpec, tuple[str, ...]]:
    """The config, mel definition and speakers that a header states."""
    try:
        name, definition = header[section]["name"], header["mel"]
        speakers = header.get("speakers", [])  # older files have none
    except (KeyError, TypeError) as error:
        what = "no vocoder" if section == "vocoder" else f"no {' or '.join(known)}"
        raise CheckpointError(f"holds {what}", where=path, remedy="give a model or checkpoint of a run") from error
    if not isinstance(name, str) or name not in known:
        raise CheckpointError(f"unknown {section} {name!r:.40}", where=path, remedy=did_you_mean(str(name), known))
    if not isinstance(speakers, list) or not all(isinstance(speaker, str) for speaker in speakers):
        raise CheckpointError("its speakers are not a list of names", where=path, remedy=ANOTHER_FILE)
    config = parse(known[name].Config, header[section], where=path)
    return config, parse(MelSpec, definition, where=path), tuple(speakers)


@contextlib.contextmanager
def _no_more_than(weights: Mapping[str, Tensor], path: Path) -> Iterator[None]:
    """Within the block, build a vocoder that a header describes; errors become CheckpointErrors.

    A header may ask for any size. So building stops at the first weight whose shape no weight of the file has, before
    its memory is touched, and as soon as there are more weights than in the file.
    """
    shapes = {weight.shape for weight in weights.values()}
    thread = threading.get_ident()
    left = 3 * len(weights)  # weight normalisation registers three in place of one

    def check(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        nonlocal left
        if parameter is None or threading.get_ident() != thread:  # the hook sees the modules of all threads
            return
        left -= 1
        if parameter.shape not in shapes or left < 0:
            what = "more weights than it holds"
            if left >= 0:
                what = f"a {name} of shape {list(parameter.shape)}, which it does not hold"
            raise CheckpointError(f"describes a model with {what}", where=path, remedy=ANOTHER_FILE)

    hook = register_module_parameter_registration_hook(check)
    try:
        yield
    except WavegenError as error:
        if error.where != path:
            error.where = path if error.where is None else f"{path}: {error.where}"
        raise
    except Exception as error:  # whatever an impossible shape leads to
        raise CheckpointError(
            f"describes a model that cannot be built ({type(error).__name__})", where=path, remedy=ANOTHER_FILE
        ) from error
    finally:
        hook.remove()


def load_weights(module: nn.Module, weights: Mapping[str, Tensor], where: object) -> None:
    """Strict ``load_state_dict`` whose error is one line.

    Args:
        module: the module to load into.
        weights: its state.
        where: the file, which an error names.

    Raises:
        CheckpointError: a weight is missing or unknown, or has another shape or kind of numbers.
    """
    remedy = "use the version of wavegen that wrote it, or the recipe it was trained with"
    own = module.state_dict()
    for name, weight in weights.items():
        if name in own and own[name].is_floating_point() != weight.is_floating_point():
            what = f"its weights do not fit the model: {name} holds {weight.dtype}, not {own[name].dtype}"
            raise CheckpointError(what, where=where, remedy=remedy)
    try:
        module.load_state_dict(dict(weights), strict=True)
    except RuntimeError as error:
        first = [line.strip() for line in str(error).splitlines()][1:2]
        raise CheckpointError(
            f"its weights do not fit the model: {' '.join(first) or error}", where=where, remedy=remedy
        ) from error
