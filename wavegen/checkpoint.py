"""Weights on disk: safetensors with a JSON header. Nothing is ever unpickled."""

import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from wavegen.config import did_you_mean, parse
from wavegen.errors import CheckpointError
from wavegen.files import write_beside
from wavegen.mel import MelSpec
from wavegen.vocoders import VOCODERS, Vocoder, build_vocoder

Nested = Tensor | tuple["Nested", ...] | None

FORMAT = 1
MODEL = "model.safetensors"
_KEY, _CHECKSUM = "wavegen", "crc32"


def save_checkpoint(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    """Write tensors and a JSON header to one file, beside first and then renamed.

    Raises:
        OutputError: the folder cannot be written or the disk is full; a file that was there is unchanged.
    """
    # Copies: no two may share memory in a file, and a single element may have any stride and count as contiguous.
    fresh = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()
    }
    # To bytes first: a full disk is then an ordinary OSError from an ordinary write.
    text = json.dumps({"format": FORMAT, **header})
    data = save(fresh, metadata={_KEY: text, _CHECKSUM: _checksum(text, fresh)})
    with write_beside(path) as beside:
        beside.write_bytes(data)


def load_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what ``save_checkpoint`` wrote: tensors on the CPU, and the header.

    Raises:
        CheckpointError: the file is missing, cut short, damaged, of a newer format, or no wavegen checkpoint at all.
    """
    remedy = "give a .safetensors file that wavegen wrote, such as an earlier one of the run"
    if not path.is_file():
        raise CheckpointError("no such file", where=path, remedy="check the path")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a dict)
        header = json.loads(metadata[_KEY])
    except SafetensorError as error:
        with path.open("rb") as file:
            pickled = file.read(2) in (b"PK", b"\x80\x02", b"\x80\x04", b"\x80\x05")
        what = "is a pickle, which wavegen never loads" if pickled else f"is damaged or cut short ({error})"
        raise CheckpointError(what, where=path, remedy=remedy) from error
    except (KeyError, ValueError) as error:
        raise CheckpointError(
            "is a safetensors file without wavegen's header", where=path, remedy="give one that wavegen wrote"
        ) from error
    if header.get("format") != FORMAT:
        raise CheckpointError(
            f"is of format {header.get('format')}, this version reads format {FORMAT}",
            where=path,
            remedy="update wavegen",
        )
    checksum = _checksum(metadata[_KEY], tensors)
    # A flipped bit in its name must not hide the checksum: files without one hold nothing else either.
    if metadata.get(_CHECKSUM, checksum) != checksum or not metadata.keys() <= {_KEY, _CHECKSUM}:
        raise CheckpointError("is damaged (its checksum does not match)", where=path, remedy=remedy)
    return tensors, header


def _checksum(text: str, tensors: Mapping[str, Tensor]) -> str:
    """CRC-32 of a header and of the tensors with their names; safetensors notices only sizes that do not add up."""
    crc = zlib.crc32(text.encode())
    for name in sorted(tensors):
        values = tensors[name].reshape(-1).view(torch.uint8).numpy().data
        crc = zlib.crc32(values, zlib.crc32(name.encode(), crc))
    return f"{crc:08x}"


def vocoder_header(vocoder_config: Mapping[str, Any], mel: MelSpec, speakers: Sequence[str] = ()) -> dict[str, Any]:
    """The part of a header from which ``load_vocoder`` builds the model again."""
    return {"vocoder": dict(vocoder_config), "mel": mel.model_dump(mode="json"), "speakers": list(speakers)}


def load_vocoder(where: Path | str | None = None, device: torch.device | str = "cpu") -> Vocoder:
    """The vocoder saved in a model file or, with its averaged weights, in a training checkpoint.

    Args:
        where: a run's folder, a file, or None for the newest finished run below ``./runs``.
        device: where to put it.

    Returns:
        in evaluation mode, weight normalisation folded, on ``device``.

    Raises:
        CheckpointError: as ``load_checkpoint``, or weights that do not fit the model they say they are of.
    """
    path = find_model(where)
    tensors, header = load_checkpoint(path)
    try:
        name, definition = header["vocoder"]["name"], header["mel"]
        speakers = tuple(header.get("speakers", ()))  # not in files from before there were any
    except (KeyError, TypeError) as error:
        raise CheckpointError("holds no vocoder", where=path, remedy="give a model or checkpoint of a run") from error
    if name not in VOCODERS:
        raise CheckpointError(f"unknown vocoder {name!r}", where=path, remedy=did_you_mean(name, VOCODERS))
    config = parse(VOCODERS[name].Config, header["vocoder"], where=path)
    vocoder = build_vocoder(config, parse(MelSpec, definition, where=path), speakers)
    prefix = "ema." if any(key.startswith("ema.") for key in tensors) else "model."
    weights = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
    load_weights(vocoder, weights, path)
    torch.backends.cudnn.allow_tf32 = False  # on a GPU, pieces of a stream would round otherwise than the whole
    return vocoder.prepared_for_synthesis().to(device)


def load_weights(module: nn.Module, weights: Mapping[str, Tensor], where: object) -> None:
    """Strict ``load_state_dict`` whose complaint is one line. Raises CheckpointError."""
    try:
        module.load_state_dict(dict(weights), strict=True)
    except RuntimeError as error:
        first = [line.strip() for line in str(error).splitlines()][1:2]
        raise CheckpointError(
            f"its weights do not fit the model: {' '.join(first) or error}",
            where=where,
            remedy="use the version of wavegen that wrote it, or the recipe it was trained with",
        ) from error


def _streams_of(vocoder: Vocoder) -> dict[str, Any]:
    """What two vocoders must share for one to go on with the other's stream."""
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


def save_state(path: Path, vocoder: Vocoder, state: Nested) -> None:
    """Write the state of a stream, to go on with it in another process.

    Args:
        path: a ``.safetensors`` file.
        vocoder: whose ``step`` returned the state.
        state: tensors, and tuples of them.

    Raises:
        OutputError: the file cannot be written.
    """
    tensors: dict[str, Tensor] = {}
    layout = _layout(state, tensors)
    save_checkpoint(path, tensors, {"kind": "state", **_streams_of(vocoder), "layout": layout})


def load_state(path: Path, vocoder: Vocoder) -> Nested:
    """Read what :func:`save_state` wrote, for the same vocoder with the same weights, definition and iterations.

    Raises:
        CheckpointError: as ``load_checkpoint``, or no state, or one of another vocoder.
    """
    tensors, header = load_checkpoint(path)
    if header.get("kind") != "state":
        raise CheckpointError("holds no state of a stream", where=path, remedy="give what save_state wrote")
    ours = _streams_of(vocoder)
    speaker = vocoder.speakers[0] if vocoder.speakers else None
    initial = vocoder.initial_state(1, speaker=speaker)
    ours["layout"] = _layout(initial, {})
    differing = {
        "of": "is of another vocoder",
        "mel": "is of a stream of mels of another definition",
        "context": "is of a stream with more or fewer iterations",
        "layout": "is of another version of wavegen, or of another engine",
    }
    for key, what in differing.items():
        if header.get(key) != ours[key]:
            raise CheckpointError(what, where=path, remedy="load what the stream began with, or begin a new one")
    device = next(vocoder.parameters()).device

    def tensor(name: str) -> Tensor:
        # Counters stay where arithmetic needs no GPU.
        return tensors[name] if tensors[name].dim() == 0 else tensors[name].to(device)

    def build(layout: Any, like: Nested) -> Nested:
        if isinstance(layout, str):
            return tensor(layout)
        if like is None:
            return None
        parts = [build(part, like_part) for part, like_part in zip(layout, like, strict=True)]
        return like._make(parts) if hasattr(like, "_make") else tuple(parts)  # a NamedTuple, or a plain one

    return build(header["layout"], initial)


def find_model(where: Path | str | None, runs: Path = Path("runs")) -> Path:
    """The model file that a user means by a run folder, a file, or nothing (the newest finished run).

    Raises:
        CheckpointError: there is none.
    """
    if where is None:
        finished = sorted(runs.glob(f"**/{MODEL}"), key=lambda path: path.stat().st_mtime)
        if not finished:
            raise CheckpointError(
                f"no finished run in {runs.absolute()}",
                remedy="train one, as with wavegen-train demo, or name a run's folder or a model file",
            )
        return finished[-1]
    where = Path(where)
    if where.is_dir():
        if (where / MODEL).exists():
            return where / MODEL
        checkpoints = sorted((where / "checkpoints").glob("step-*.safetensors"))
        if not checkpoints:
            raise CheckpointError("a folder without a model or checkpoint", where=where, remedy="give a run folder")
        return checkpoints[-1]
    return where
