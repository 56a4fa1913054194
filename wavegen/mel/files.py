"""Mel files: a mel with its definition (``.npz``), or a bare array (``.npy``)."""

import contextlib
import os
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from pydantic import ValidationError

from wavegen.errors import MelError, MissingMelError
from wavegen.files import atomic_write
from wavegen.mel.arrays import (
    UNREADABLE,
    ArrayHeader,
    HoldsObjectsError,
    bytes_behind,
    find_member,
    native,
    read_array,
    read_header,
    read_member,
)
from wavegen.mel.spec import MelSpec, check_compatible, check_mel

_NOT_A_MEL = "give an .npz made by wavegen-extract, or a .npy with one float mel [n_mels, frames]"


@dataclass(frozen=True)
class MelFile:
    """A mel file whose headers have been read; its numbers stay on disk until they are indexed.

    ``file[:, 100:200]`` reads these frames and no others. A ``MelFile`` is a plain value without a file descriptor:
    thousands can be open at once, and it can be pickled and shared by threads.

    Attributes:
        path: the file.
        definition: the definition that the file states; None for a bare ``.npy``.
        shape: ``(n_mels, frames)``; a bare ``.npy`` may have any shape until it is checked.
        dtype, offset, order: the layout of the numbers in the file, as ``np.memmap`` takes it; the offset is None in a
            compressed file, of which a slice can only be read by unpacking all of it.
        f0: fundamental frequency of each frame in Hz, float32 ``[frames]``, 0 where not voiced; None if the file does
            not state it.
    """

    path: Path
    definition: MelSpec | None
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    offset: int | None
    order: Literal["C", "F"]
    f0: np.ndarray | None = field(default=None, compare=False, repr=False)

    @property
    def frames(self) -> int:
        """The length of the mel in frames."""
        return self.shape[1]

    def check(self, spec: MelSpec) -> None:
        """Check the stated definition, then all values, in constant memory.

        Raises:
            MelError: the definition differs from ``spec``, or the values cannot be a mel of ``spec``.
        """
        _check(self.mapped(), self.definition, spec, self.path)

    def mapped(self) -> np.ndarray:
        """The mel as a read-only memory map, which holds a file descriptor until it is garbage-collected.

        A compressed mel is unpacked into memory instead; the last two stay there.

        Raises:
            MelError: the file is gone, or too short.
        """
        with _errors_name(self.path):
            # A string, because numpy would resolve the links of a path, which takes longer than mapping it.
            path = str(self.path)
            if self.offset is not None:
                return np.memmap(path, self.dtype, "r", self.offset, self.shape, self.order)
            status = os.stat(path)
            return _unpacked(path, status.st_mtime_ns, status.st_size)

    def __getitem__(self, index: tuple[slice, slice]) -> np.ndarray:
        """Read a part of the mel, indexed like the array ``[n_mels, frames]``."""
        return native(np.array(self.mapped()[index]))


@lru_cache(maxsize=2)
def _unpacked(path: str, written_ns: int, size: int) -> np.ndarray:
    """The compressed mel of an ``.npz``, cached until the file changes."""
    with zipfile.ZipFile(path) as archive:
        mel = read_member(archive, "mel")
    mel.setflags(write=False)
    return mel


def open_mel(path: Path | str, spec: MelSpec | None = None) -> MelFile:
    """Open a mel file without reading the mel, which may be very long.

    Args:
        path: an ``.npz`` with the arrays of ``save_mel``, or any ``.npy``. Nothing is ever unpickled.
        spec: the definition that the file must state; None accepts any file. The values are not read: see
            ``MelFile.check``.

    Raises:
        MelError: the file is missing, damaged or not a mel file, or it does not state ``spec``.
    """
    path = Path(path)
    definition = f0 = None
    with _opened(path) as (file, is_npz):
        if is_npz:
            with zipfile.ZipFile(file) as archive:
                definition = _definition(archive)
                f0 = _f0(archive, path)
                header, offset = _locate_mel(archive, file)
            if header.dtype.kind != "f" or len(header.shape) != 2:
                raise MelError(f"holds {header.dtype} {header.shape}", where=path, remedy="write it with save_mel")
        else:
            header = read_header(file)
            offset = header.offset
        if header.dtype.hasobject:
            raise HoldsObjectsError("it holds Python objects")
        if not is_npz and bytes_behind(file, header) < header.nbytes:
            found = max(0, bytes_behind(file, header))
            raise ValueError(f"it has {found} of the {header.nbytes} bytes that its header promises")
    mel = MelFile(path, definition, header.shape, header.dtype, offset, header.order, f0)
    if f0 is not None and f0.shape != mel.shape[1:]:
        raise MelError(
            f"has {len(f0)} values of F0 for {mel.frames} frames", where=path, remedy="give one for each frame"
        )
    if spec is not None:
        if definition is None:
            raise MelError("states no mel definition", where=path, remedy="give an .npz written by save_mel")
        check_compatible(definition, spec, path)
    return mel


def load_mel(path: Path | str, spec: MelSpec | None = None) -> tuple[np.ndarray, MelSpec | None]:
    """Read a whole mel file, which may be compressed; ``open_mel`` suits long ones.

    Args:
        path: an ``.npz`` with the arrays of ``save_mel``, or a ``.npy``. Nothing is ever unpickled.
        spec: the definition to check the mel against; None checks nothing.

    Returns:
        The mel ``[n_mels, frames]``, in float32 if ``spec`` is given, and the definition that the file states (None for
        a bare ``.npy``).

    Raises:
        MelError: the file is missing, damaged or not a mel file, its definition differs from ``spec``, or its values
            cannot be a mel of ``spec``.
    """
    with _opened(path) as (file, is_npz):
        if is_npz:
            with zipfile.ZipFile(file) as archive:
                mel, definition = read_member(archive, "mel"), _definition(archive)
        else:
            mel, definition = read_array(file), None
    if spec is not None:
        _check(mel, definition, spec, path)
        mel = mel.astype(np.float32, copy=False)
    return mel, definition


def save_mel(path: Path | str, mel: np.ndarray, spec: MelSpec, *, f0: np.ndarray | None = None) -> None:
    """Write ``mel`` ``[n_mels, frames]`` and its definition as an uncompressed ``.npz``.

    The arrays are ``mel``, float32 with the bins of a frame side by side (so that a slice of frames is one run of
    bytes), and ``spec``, the definition as JSON; also ``f0``, float32 ``[frames]``, if it is given: the fundamental
    frequency in Hz at the centre of each frame, 0 where not voiced, which vocoders with a source follow.

    Raises:
        MelError: the suffix is not .npz, or the values cannot be a mel of ``spec``.
        OutputError: the file cannot be written.
    """
    path = Path(path)
    if path.suffix != ".npz":
        raise MelError(f"cannot store a mel definition in {path.suffix or 'this file'}", where=path, remedy="use .npz")
    check_mel(mel, spec, path)
    arrays: dict[str, Any] = {"mel": np.asfortranarray(mel, dtype=np.float32), "spec": np.array(spec.model_dump_json())}
    if f0 is not None:
        arrays["f0"] = np.asarray(f0, dtype=np.float32)
        _check_f0(arrays["f0"], path)
    with atomic_write(path) as beside:
        np.savez(beside, **arrays)


def _check(mel: np.ndarray, definition: MelSpec | None, spec: MelSpec, path: Path | str) -> None:
    if definition is not None:
        check_compatible(definition, spec, path)
    check_mel(mel, spec, path)


@contextlib.contextmanager
def _opened(path: Path | str) -> Iterator[tuple[BinaryIO, bool]]:
    """A mel file and whether it is an ``.npz``, by its first bytes; errors inside become MelErrors."""
    with _errors_name(path), open(path, "rb") as file:
        magic = file.read(6)
        is_npz = magic[:4] == b"PK\x03\x04"
        if not is_npz and magic != b"\x93NUMPY":  # numpy would take anything else for a pickle
            what = "is neither an .npy nor an .npz file" if magic else "is empty"
            raise MelError(what, where=path, remedy=_NOT_A_MEL)
        file.seek(0)
        yield file, is_npz


@contextlib.contextmanager
def _errors_name(path: Path | str) -> Iterator[None]:
    """Turn each error that reading a mel file can raise into a MelError that names the file."""
    try:
        yield
    except FileNotFoundError:
        raise MissingMelError(where=path) from None
    except ValidationError as error:
        problem = error.errors()[0]
        fault = f"{'.'.join(map(str, problem['loc']))} {problem['msg']}".strip()
        raise MelError(f"its mel definition is not valid: {fault}", where=path, remedy=_NOT_A_MEL) from error
    except KeyError as error:
        raise MelError("is an .npz without the arrays mel and spec", where=path, remedy=_NOT_A_MEL) from error
    except HoldsObjectsError as error:
        what = "holds Python objects, which are never unpickled"
        raise MelError(what, where=path, remedy=_NOT_A_MEL) from error
    except MelError:
        raise
    except UNREADABLE as error:
        raise MelError(f"cannot be read: {error}", where=path, remedy=_NOT_A_MEL) from error


def _definition(archive: zipfile.ZipFile) -> MelSpec:
    return MelSpec.model_validate_json(str(read_member(archive, "spec")))


def _f0(archive: zipfile.ZipFile, path: Path) -> np.ndarray | None:
    if "f0.npy" not in archive.namelist():
        return None
    f0 = read_member(archive, "f0")
    _check_f0(f0, path)
    return f0.astype(np.float32)


def _check_f0(f0: np.ndarray, path: Path) -> None:
    if f0.ndim != 1 or f0.dtype.kind != "f" or not (np.isfinite(f0) & (f0 >= 0)).all():
        what = "its F0 is not one number of Hz, 0 or more, for each frame"
        raise MelError(what, where=path, remedy="write it with save_mel; 0 stands for a frame that is not voiced")


def _locate_mel(archive: zipfile.ZipFile, file: BinaryIO) -> tuple[ArrayHeader, int | None]:
    """The header of an archive's mel, and where its numbers begin in the file; None if they are compressed."""
    member = find_member(archive, "mel")
    with archive.open(member) as packed:  # checks the member's own header too
        header = read_header(packed)
    if header.nbytes > member.file_size - header.offset:
        found = max(0, member.file_size - header.offset)
        raise ValueError(f"it has {found} of the {header.nbytes} bytes that its header promises")
    if member.compress_type != zipfile.ZIP_STORED:
        return header, None
    # A member begins with a header of 30 bytes, a name and an extra field. The lengths of these two are at 26 and 28
    # (PKWARE APPNOTE 4.3.7); those in the central directory may differ.
    file.seek(member.header_offset + 26)
    lengths = np.frombuffer(file.read(4), dtype="<u2")
    start = member.header_offset + 30 + int(lengths.sum()) + header.offset
    if start + header.nbytes > os.fstat(file.fileno()).st_size:
        raise ValueError("it ends before its last number")
    return header, start
