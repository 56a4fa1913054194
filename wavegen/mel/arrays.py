"""Read ``.npy`` arrays, alone or inside an ``.npz``, without trust: every size is checked before memory is asked for.

numpy's own reader evaluates a header as Python and allocates what it promises, so a few changed bytes end in a
traceback or in gigabytes. The layout is that of numpy.lib.format: the magic string, a version, the length of a header,
and the header, which is the text of a dictionary::

    {'descr': '<f4', 'fortran_order': False, 'shape': (100, 250), }
"""

import lzma
import os
import re
import struct
import zipfile
import zlib
from dataclasses import dataclass
from math import prod
from typing import IO, Any, BinaryIO, Literal

import numpy as np

MAX_UNPACKED_BYTES = 2**28
"""Largest compressed array that is read: a file of 260 kB can promise as much. It holds a mel of two hours."""
UNREADABLE = (
    OSError, EOFError, ValueError, NotImplementedError, RuntimeError, OverflowError, struct.error, zipfile.BadZipFile,
    zlib.error, lzma.LZMAError,
)  # fmt: skip
"""What the functions of this module, and ``zipfile`` below them, raise for a damaged or hostile file."""


class HoldsObjectsError(ValueError):
    """An array holds Python objects, which would have to be unpickled."""


_MAGIC = b"\x93NUMPY"
_MAX_HEADER_BYTES = 10_000  # as numpy's own limit
_MAX_AXES = 32
_MAX_DIGITS = 18  # of a size; keeps products of Python's integers short
_PIECE_BYTES = 2**20
_TYPE = re.compile(r"""['"]descr['"]\s*:\s*['"]([<>|=]?[biufcmMOSUV]\d{0,9})['"]""")
_ORDER = re.compile(r"""['"]fortran_order['"]\s*:\s*(True|False)\b""")
_SHAPE = re.compile(r"""['"]shape['"]\s*:\s*\(([\d\s,L]*)\)""")


@dataclass(frozen=True)
class ArrayHeader:
    """What the header of an array states.

    Attributes:
        dtype: type of the numbers, in the byte order of the file.
        shape: sizes of the axes.
        order: ``"F"`` if the first axis varies fastest.
        offset: bytes from the start of the array's file to its numbers.
    """

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    order: Literal["C", "F"]
    offset: int

    @property
    def nbytes(self) -> int:
        """Bytes of the numbers."""
        return prod(self.shape) * self.dtype.itemsize


def read_header(file: IO[bytes]) -> ArrayHeader:
    """Read an array's header; the file is left at the first number.

    Raises:
        ValueError: an array is missing, its header is damaged, or its type is not a plain one.
    """
    start = file.read(8)
    if len(start) < 8 or start[:6] != _MAGIC or start[6:] not in (b"\1\0", b"\2\0", b"\3\0"):
        raise ValueError("the file is not an array of a known version")
    width = 2 if start[6] == 1 else 4
    length = int.from_bytes(file.read(width), "little")
    if length > _MAX_HEADER_BYTES:
        raise ValueError(f"the header of its array has {length} bytes")
    raw = file.read(length)
    text = raw.decode("latin-1").strip()

    # Look for the three entries instead of evaluating the text: it may nest without end.
    matches = [pattern.findall(text) for pattern in (_TYPE, _ORDER, _SHAPE)]
    is_whole = len(raw) == length and text.startswith("{") and text.endswith("}")
    if not is_whole or any(len(found) != 1 for found in matches):
        raise ValueError("the header of its array is damaged, or describes records")
    (descr,), (is_fortran,), (sizes,) = matches
    digits = [size.strip().removesuffix("L") for size in sizes.split(",") if size.strip()]
    if len(digits) > _MAX_AXES or any(not size.isdigit() or len(size) > _MAX_DIGITS for size in digits):
        raise ValueError(f"the shape of its array, ({sizes[:40]}), is impossible")
    try:
        dtype = np.dtype(descr)
    except TypeError as error:
        raise ValueError(f"its array has an unknown type, {descr}") from error
    if dtype.itemsize == 0:
        raise ValueError(f"its array has the type {descr}, of no size")
    shape = tuple(int(size) for size in digits)
    return ArrayHeader(dtype, shape, "F" if is_fortran == "True" else "C", 8 + width + length)


def read_array(file: BinaryIO) -> np.ndarray:
    """Read a whole ``.npy``; raises one of ``UNREADABLE``."""
    header = read_header(file)
    return _read_numbers(file, header, bytes_behind(file, header))


def bytes_behind(file: BinaryIO, header: ArrayHeader) -> int:
    """Bytes of a file from the numbers of an array to its end."""
    return os.fstat(file.fileno()).st_size - header.offset


def read_member(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """Read a whole array of an ``.npz``, compressed or not, and compare its checksum.

    Raises:
        KeyError: the archive lacks the array.
        UNREADABLE: one of these; the array is damaged, too large, or holds Python objects.
    """
    member = find_member(archive, name)
    with archive.open(member) as file:
        header = read_header(file)
        return _read_numbers(file, header, member.file_size - header.offset)


def find_member(archive: zipfile.ZipFile, name: str) -> zipfile.ZipInfo:
    """An array of an ``.npz``, after a check of the size that it has when it is unpacked; raises as ``read_member``."""
    member = archive.getinfo(f"{name}.npy")
    if member.flag_bits & 1:
        raise ValueError(f"its array {name} is encrypted")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"its array {name} is compressed in a way that numpy does not use")
    assert archive.fp is not None
    archive_bytes = os.fstat(archive.fp.fileno()).st_size
    if member.compress_size > archive_bytes:
        raise ValueError(f"its array {name} would have {member.compress_size} bytes, more than the whole file")
    if member.compress_type == zipfile.ZIP_STORED and member.file_size != member.compress_size:
        raise ValueError(f"its array {name} has two sizes, {member.file_size} and {member.compress_size} bytes")
    if member.compress_type == zipfile.ZIP_DEFLATED and member.file_size > MAX_UNPACKED_BYTES:
        raise ValueError(f"its array {name} unpacks to {member.file_size} bytes, more than {MAX_UNPACKED_BYTES}")
    return member


def _read_numbers(file: IO[bytes], header: ArrayHeader, available: int) -> np.ndarray:
    """Read the numbers that follow a header, piece by piece, and convert them to this machine's byte order."""
    if header.dtype.hasobject:
        raise HoldsObjectsError("it holds Python objects")
    if header.nbytes > available:
        raise ValueError(f"it has {max(0, available)} of the {header.nbytes} bytes that its header promises")
    numbers = np.empty(header.nbytes, dtype=np.uint8)
    memory = numbers.data
    done = 0
    while done < header.nbytes:
        piece = file.read(min(_PIECE_BYTES, header.nbytes - done))
        if not piece:
            raise ValueError(f"it has {done} of the {header.nbytes} bytes that its header promises")
        memory[done : done + len(piece)] = piece
        done += len(piece)
    file.read(1)  # a zip's checksum is compared where its member ends
    return native(numbers.view(header.dtype).reshape(header.shape, order=header.order))


def native(array: np.ndarray) -> np.ndarray:
    """An array in this machine's byte order; floats of more than 64 bits, which torch does not know, become float64."""
    dtype = array.dtype.newbyteorder("=")
    if dtype.kind == "f" and dtype.itemsize > 8:
        dtype = np.dtype(np.float64)
    return array.astype(dtype, copy=False)
