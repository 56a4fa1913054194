"""Tensors with a JSON header in one safetensors file, checked when it is read. Nothing is ever unpickled."""

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from wavegen.errors import CheckpointError, MissingCheckpointError
from wavegen.files import atomic_write

FORMAT = 1
_KEY, _CHECKSUM = "wavegen", "crc32"
ANOTHER_FILE = "give a .safetensors file that wavegen wrote, such as an earlier one of the run"


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
    data = _in_order(save(fresh, metadata={_KEY: text, _CHECKSUM: checksum(text, fresh)}))
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
    expected = checksum(metadata[_KEY], tensors)
    # A flipped bit in the checksum's own name must not hide it: old files without a checksum hold no other keys either.
    if metadata.get(_CHECKSUM, expected) != expected or not metadata.keys() <= {_KEY, _CHECKSUM}:
        raise CheckpointError("is damaged: its checksum does not match", where=path, remedy=ANOTHER_FILE)
    return tensors, header


def read_header(path: Path | str) -> dict[str, Any]:
    """Read the header alone, without the tensors and without checking them; errors as in ``load_checkpoint``."""
    path = Path(path)
    return _parse_header(_read(path, with_tensors=False)[1], path)


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
        raise CheckpointError(what, where=path, remedy=ANOTHER_FILE) from error


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
            raise CheckpointError(f"{name} is {count!r:.40}, not a count", where=path, remedy=ANOTHER_FILE)
    return header


def checksum(text: str, tensors: Mapping[str, Tensor]) -> str:
    """CRC-32 of a header and of the tensors with their names; safetensors itself checks sizes only."""
    crc = zlib.crc32(text.encode())
    for name in sorted(tensors):
        values = tensors[name].reshape(-1).view(torch.uint8).numpy().data
        crc = zlib.crc32(values, zlib.crc32(name.encode(), crc))
    return f"{crc:08x}"
