"""Mel files: a mel with its definition (``.npz``), or a bare array (``.npy``)."""

import contextlib
import threading
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
from pydantic import ValidationError

from wavegen.errors import MelError
from wavegen.files import write_beside
from wavegen.mel.spec import MelSpec, check_compatible, check_mel

# numpy reads an array's header with Python's own parser, which in CPython 3.11 fails now and then ("AST constructor
# recursion depth mismatch") when several threads use it at once.
_ONE_AT_A_TIME = threading.Lock()
_NOT_A_MEL = "give an .npz made by wavegen-extract, or a .npy with one float mel [n_mels, frames]"


def save_mel(path: Path | str, mel: np.ndarray, spec: MelSpec) -> None:
    """Write ``mel`` ``[n_mels, frames]`` and its definition as an uncompressed ``.npz``.

    The arrays are ``mel``, float32 with the bins of a frame side by side (so that a slice of frames is one
    run of bytes in :func:`open_mel`), and ``spec``, the definition as JSON.

    Raises:
        MelError: the suffix is not .npz, or the mel is not one of ``spec``.
        OutputError: the file cannot be written.
    """
    path = Path(path)
    if path.suffix != ".npz":
        raise MelError("a mel with its definition is an .npz file", where=path, remedy="name it with .npz")
    check_mel(mel, spec, path)
    with write_beside(path) as beside:
        np.savez(beside, mel=np.asfortranarray(mel, dtype=np.float32), spec=np.array(spec.model_dump_json()))


@contextlib.contextmanager
def _opened(path: Path | str) -> Iterator[tuple[BinaryIO, bool]]:
    """A mel file and whether it is an ``.npz``; whatever goes wrong inside is one MelError naming the file."""
    try:
        with _ONE_AT_A_TIME, open(path, "rb") as file:
            magic = file.read(6)
            is_npz = magic[:4] == b"PK\x03\x04"
            if not is_npz and magic != b"\x93NUMPY":  # numpy would take anything else for a pickle
                what = "is neither an .npy nor an .npz file" if magic else "is empty"
                raise MelError(what, where=path, remedy=_NOT_A_MEL)
            file.seek(0)
            yield file, is_npz
    except FileNotFoundError:
        raise MelError("no such file", where=path, remedy="check the path") from None
    except ValidationError as error:
        problem = error.errors()[0]
        fault = f"{'.'.join(map(str, problem['loc']))} {problem['msg']}".strip()
        what = f"its mel definition is not valid: {fault}"
        raise MelError(what, where=path, remedy=_NOT_A_MEL) from error
    except KeyError as error:
        raise MelError("is an .npz without the arrays mel and spec", where=path, remedy=_NOT_A_MEL) from error
    except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
        objects = "allow_pickle" in str(error)
        what = "holds Python objects, which are never unpickled" if objects else f"cannot be read: {error}"
        raise MelError(what, where=path, remedy=_NOT_A_MEL) from error


def _definition(arrays: Mapping[str, np.ndarray]) -> MelSpec:
    return MelSpec.model_validate_json(str(arrays["spec"]))


def load_mel(path: Path | str) -> tuple[np.ndarray, MelSpec | None]:
    """The array of a mel file and its definition; a bare ``.npy`` has none. Nothing is ever unpickled.

    Raises:
        MelError: the file is missing, damaged, or no mel file.
    """
    with _opened(path) as (file, is_npz):
        if not is_npz:
            return np.load(file, allow_pickle=False), None
        with np.load(file, allow_pickle=False) as arrays:
            return arrays["mel"], _definition(arrays)


def mel_definition(path: Path | str) -> MelSpec | None:
    """The definition that a mel file states, without reading the mel; a bare ``.npy`` states none.

    Raises:
        MelError: the file is missing, damaged, or no mel file.
    """
    with _opened(path) as (file, is_npz):
        if not is_npz:
            return None
        with np.load(file, allow_pickle=False) as arrays:  # reads a member when it is asked for
            return _definition(arrays)


def load_mel_for(path: Path | str, spec: MelSpec) -> np.ndarray:
    """The mel ``[n_mels, frames]``, float32, of a file that must have been made to ``spec``.

    Raises:
        MelError: the file cannot be read, its definition differs, or its values cannot be of ``spec``.
    """
    mel, found = load_mel(path)
    if found is not None:
        check_compatible(found, spec, path)
    check_mel(mel, spec, path)
    return mel.astype(np.float32, copy=False)


def open_mel(path: Path | str, spec: MelSpec | None = None) -> np.ndarray:
    """The mel ``[n_mels, frames]`` of an ``.npz`` of :func:`save_mel`, memory-mapped: only slices are read.

    Args:
        path: the file.
        spec: the definition it must have been made to; None takes any.

    Raises:
        MelError: the file is not one of :func:`save_mel`, or made to another definition.
    """
    with _opened(path) as (file, is_npz):
        if not is_npz:
            raise MelError("only an .npz can be opened without reading it", where=path, remedy=_NOT_A_MEL)
        with np.load(file, allow_pickle=False) as arrays:  # reads a member when it is asked for
            found = _definition(arrays)
        with zipfile.ZipFile(file) as archive:
            member = archive.getinfo("mel.npy")
        # A member's own header is 30 bytes, with the lengths of the name and extra field that follow it
        # at 26 and 28 (PKWARE APPNOTE 4.3.7); the central directory's copies may have other lengths.
        file.seek(member.header_offset + 26)
        file.seek(int(np.frombuffer(file.read(4), dtype="<u2").sum()), 1)
        is_stored = member.compress_type == zipfile.ZIP_STORED
        if not is_stored or np.lib.format.read_magic(file) != (1, 0):
            raise MelError("is not laid out for slicing", where=path, remedy="write it with save_mel")
        shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(file)
        if dtype != np.float32 or len(shape) != 2:
            raise MelError(f"holds {dtype} {shape}", where=path, remedy="write it with save_mel")
        order: Literal["F", "C"] = "F" if is_fortran else "C"
        mel = np.memmap(file, dtype, mode="r", offset=file.tell(), shape=shape, order=order)
    if spec is not None:
        check_compatible(found, spec, path)
    return mel
