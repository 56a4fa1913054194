"""Weights and stream states on disk: safetensors with a JSON header. Nothing is ever unpickled."""

import contextlib
import json
import threading
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from wavegen.config import did_you_mean, parse
from wavegen.errors import CheckpointError, MissingCheckpointError, WavegenError
from wavegen.files import atomic_write
from wavegen.mel import MelSpec
from wavegen.models import MODELS, Model, ModelConfig, build_model
from wavegen.network import Network, NetworkConfig
from wavegen.remote import download, is_remote
from wavegen.vocoders import VOCODERS, Vocoder, VocoderConfig, build_vocoder

Nested = Tensor | tuple["Nested", ...] | None
AnyModel = TypeVar("AnyModel", bound=Model)

FORMAT = 1
MODEL = "model.safetensors"
DEFAULT = "default"
DEFAULT_VOICE = Path(__file__).parent / "voice" / "default.safetensors"
CHECKPOINTS, CHECKPOINT = "checkpoints", "step-*.safetensors"
EMA, WEIGHTS = "ema.", "model."  # prefixes of the names of a training checkpoint's tensors
_KEY, _CHECKSUM = "wavegen", "crc32"


# --- files -------------------------------------------------------


def save_checkpoint(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    """Write tensors and a JSON header to one file, beside its place first and then renamed.

    Raises:
        OutputError: the folder cannot be written or the disk is full; an earlier file is unchanged then.
    """
    # Clone, because two tensors of a file must not share memory, and contiguous, because a single element may have any
    # stride and still count as contiguous.
    fresh = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()
    }
    # Make the bytes first: a full disk is then an ordinary OSError of an ordinary write.
    text = json.dumps({"format": FORMAT, **header})
    data = _in_order(save(fresh, metadata={_KEY: text, _CHECKSUM: _checksum(text, fresh)}))
    with atomic_write(path) as beside:
        beside.write_bytes(data)


def _in_order(data: bytes) -> bytes:
    """A safetensors file with the keys of its metadata sorted: the library writes them in a random order.

    The file is the length of a table (8 bytes), the table as JSON, padded by spaces to a multiple of 8, and the
    tensors, whose places in the table count from its end.
    """
    end = 8 + int.from_bytes(data[:8], "little")
    table = json.loads(data[8:end])
    table["__metadata__"] = dict(sorted(table["__metadata__"].items()))
    text = json.dumps(table, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return b"".join((len(text).to_bytes(8, "little"), text, memoryview(data)[end:]))


def load_checkpoint(path: Path | str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read the tensors, on the CPU, and the header that ``save_checkpoint`` wrote.

    Raises:
        CheckpointError: the file is missing, cut short, damaged, of a newer format, or not a wavegen checkpoint.
    """
    path = Path(path)
    tensors, metadata = _read(path, with_tensors=True)
    header = _parse_header(metadata, path)
    checksum = _checksum(metadata[_KEY], tensors)
    # A flipped bit in the checksum's own name must not hide it: old files without a checksum hold no other keys either.
    if metadata.get(_CHECKSUM, checksum) != checksum or not metadata.keys() <= {_KEY, _CHECKSUM}:
        raise CheckpointError("is damaged: its checksum does not match", where=path, remedy=_REMEDY)
    return tensors, header


def read_header(path: Path | str) -> dict[str, Any]:
    """Read the header alone, without the tensors and without checking them; errors as in ``load_checkpoint``."""
    path = Path(path)
    return _parse_header(_read(path, with_tensors=False)[1], path)


_REMEDY = "give a .safetensors file that wavegen wrote, such as an earlier one of the run"


def _read(path: Path, *, with_tensors: bool) -> tuple[dict[str, Tensor], dict[str, str]]:
    if not path.is_file():
        raise MissingCheckpointError(where=path)
    try:
        with safe_open(path, framework="pt") as file:
            names = file.keys() if with_tensors else ()
            return {name: file.get_tensor(name) for name in names}, file.metadata() or {}
    except PermissionError as error:
        raise CheckpointError(
            f"cannot be read: {error.strerror}", where=path, remedy="check its permissions"
        ) from error
    # Of these, all but the first are about types of numbers that torch does not have.
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        with path.open("rb") as file:
            pickled = file.read(2) in (b"PK", b"\x80\x02", b"\x80\x04", b"\x80\x05")
        what = "is a pickle, which wavegen never loads" if pickled else f"is damaged or cut short ({error})"
        raise CheckpointError(what, where=path, remedy=_REMEDY) from error


def _parse_header(metadata: Mapping[str, str], path: Path) -> dict[str, Any]:
    try:
        header = json.loads(metadata[_KEY])
        if not isinstance(header, dict):
            raise ValueError("not a mapping")
    except (KeyError, ValueError, RecursionError) as error:
        raise CheckpointError(
            "is a safetensors file without wavegen's header", where=path, remedy="give one that wavegen wrote"
        ) from error
    if header.get("format") != FORMAT:
        raise CheckpointError(
            f"is written in format {header.get('format')}; this version of wavegen reads format {FORMAT}",
            where=path,
            remedy="update wavegen",
        )
    for name in ("step", "rollbacks"):
        count = header.get(name, 0)
        if type(count) is not int or not 0 <= count < 2**53:
            raise CheckpointError(f"{name} is {count!r:.40}, not a count", where=path, remedy=_REMEDY)
    return header


def _checksum(text: str, tensors: Mapping[str, Tensor]) -> str:
    """CRC-32 of a header and of the tensors with their names; safetensors itself checks sizes only."""
    crc = zlib.crc32(text.encode())
    for name in sorted(tensors):
        values = tensors[name].reshape(-1).view(torch.uint8).numpy().data
        crc = zlib.crc32(values, zlib.crc32(name.encode(), crc))
    return f"{crc:08x}"


# --- vocoders and other models ------------------------------------


def find_model(where: Path | str | None, runs: Path = Path("runs")) -> Path:
    """Find the model file of a run, or of the voice that wavegen ships.

    Args:
        where: a run's folder, which may still be training; a file; ``"default"`` for the voice that wavegen ships;
            ``hf://OWNER/NAME`` for a repository on the Hugging Face Hub; or None for the newest finished run, or that
            voice if there is no run.
        runs: the folder below which finished runs are looked for.

    Raises:
        CheckpointError: the folder or repository contains no model.
    """
    if where is None:
        finished = (path for path in _finished(runs) if not _holds_another_model(path))
        return next(finished, DEFAULT_VOICE)
    if str(where) == DEFAULT:  # ./default is a folder of that name
        return DEFAULT_VOICE
    if is_remote(where):
        return download(where, MODEL) / MODEL
    where = Path(where)
    if not where.is_dir():
        return where
    if (where / MODEL).exists():
        return where / MODEL
    checkpoints = list_checkpoints(where)
    if not checkpoints:
        raise CheckpointError("contains neither a model nor checkpoints", where=where, remedy="give a run's folder")
    return checkpoints[-1]


def _finished(runs: Path) -> list[Path]:
    """The model files of the finished runs below a folder, newest first."""
    return sorted(runs.glob(f"**/{MODEL}"), key=lambda path: path.stat().st_mtime, reverse=True)


def _holds_another_model(path: Path, name: str | None = None) -> bool:
    """Whether a file holds a network that is not a vocoder, with a name; False if the file is damaged."""
    try:
        section = read_header(path).get(ModelConfig.section)
    except CheckpointError:
        return False
    return isinstance(section, dict) and name in (None, section.get("name"))


def list_checkpoints(run: Path) -> list[Path]:
    """The training checkpoints of a run, oldest first."""
    return sorted((run / CHECKPOINTS).glob(CHECKPOINT))


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
        where: as in ``find_model``.
        device: the device to put it on.

    Returns:
        The vocoder in evaluation mode, with its weight normalisation folded.

    Raises:
        CheckpointError: as in ``load_checkpoint``, or the weights do not fit the model that the header describes.
    """
    vocoder = _load(find_model(where), "vocoder", VOCODERS)
    assert isinstance(vocoder, Vocoder)
    return vocoder.to(device)


def load_model(kind: type[AnyModel], where: Path | str | None = None, device: torch.device | str = "cpu") -> AnyModel:
    """Load a model that is not a vocoder, from a model file or with its EMA weights from a training checkpoint.

    Args:
        kind: the class of the model.
        where: as in ``find_model``, or None for the newest finished run below ``./runs`` of this class.
        device: the device to put it on.

    Returns:
        The model in evaluation mode.

    Raises:
        CheckpointError: as in ``load_vocoder``, or there is no such model.
    """
    name = kind.Config.model_fields["name"].default
    if where is None:
        where = next((path for path in _finished(Path("runs")) if _holds_another_model(path, name)), None)
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
        raise CheckpointError("its speakers are not a list of names", where=path, remedy=_REMEDY)
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
            raise CheckpointError(f"describes a model with {what}", where=path, remedy=_REMEDY)

    hook = register_module_parameter_registration_hook(check)
    try:
        yield
    except WavegenError as error:
        if error.where != path:
            error.where = path if error.where is None else f"{path}: {error.where}"
        raise
    except Exception as error:  # whatever an impossible shape leads to
        raise CheckpointError(
            f"describes a model that cannot be built ({type(error).__name__})", where=path, remedy=_REMEDY
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


# --- states of streams -------------------------------------------


def save_state(path: Path | str, vocoder: Vocoder, state: Nested) -> None:
    """Write the state of a stream, so that another process can continue it.

    Args:
        path: a ``.safetensors`` file.
        vocoder: the vocoder whose ``step`` returned the state.
        state: the state.

    Raises:
        OutputError: the file cannot be written.
    """
    tensors: dict[str, Tensor] = {}
    layout = _layout(state, tensors)
    save_checkpoint(Path(path), tensors, {"kind": "state", **_stream_identity(vocoder), "layout": layout})


def load_state(path: Path | str, vocoder: Vocoder) -> Nested:
    """Read a state that ``save_state`` wrote, for the same weights, mel definition and number of iterations.

    Raises:
        CheckpointError: as in ``load_checkpoint``, or the file holds no state, or that of another vocoder.
    """
    path = Path(path)
    tensors, header = load_checkpoint(path)
    if header.get("kind") != "state":
        raise CheckpointError("holds no state of a stream", where=path, remedy="give a file that save_state wrote")
    initial = vocoder.initial_state(1, speaker=vocoder.speakers[0] if vocoder.speakers else None)
    like: dict[str, Tensor] = {}
    ours = _stream_identity(vocoder) | {"layout": _layout(initial, like)}
    differences = {
        "of": "belongs to another vocoder",
        "mel": "belongs to a stream of mels of another definition",
        "context": "belongs to a stream with another number of iterations",
        "layout": "was written by another version of wavegen or with another engine",
    }
    for key, difference in differences.items():
        if header.get(key) != ours[key]:
            remedy = "load the vocoder and options that the stream began with, or begin a new stream"
            raise CheckpointError(difference, where=path, remedy=remedy)
    for name, tensor in like.items():
        if name not in tensors or (tensors[name].dtype, tensors[name].dim()) != (tensor.dtype, tensor.dim()):
            raise CheckpointError(f"its tensor {name} is missing, or of another type", where=path, remedy=_REMEDY)
    device = next(vocoder.parameters()).device

    def rebuild(layout: Any, like: Nested) -> Nested:
        if layout is None:
            return None
        if isinstance(layout, str):
            # Counters stay on the CPU, where their arithmetic does not wait for a GPU.
            return tensors[layout] if tensors[layout].dim() == 0 else tensors[layout].to(device)
        assert isinstance(like, tuple)
        parts = [rebuild(part, like_part) for part, like_part in zip(layout, like, strict=True)]
        return like._make(parts) if hasattr(like, "_make") else tuple(parts)  # a NamedTuple or a plain tuple

    return rebuild(header["layout"], initial)


def _stream_identity(vocoder: Vocoder) -> dict[str, Any]:
    """What two vocoders must have in common for one to continue the other's stream."""
    weights = {name: tensor.cpu() for name, tensor in vocoder.state_dict().items()}
    context = [vocoder.context.left, vocoder.context.right]
    return {"of": _checksum("", weights), "mel": vocoder.mel.model_dump(mode="json"), "context": context}


def _layout(state: Nested, tensors: dict[str, Tensor]) -> Any:
    """The nesting of a state, with names in place of its tensors; adds the tensors to ``tensors`` by these names."""
    if state is None:
        return None
    if isinstance(state, Tensor):
        name = str(len(tensors))
        tensors[name] = state
        return name
    return [_layout(part, tensors) for part in state]
