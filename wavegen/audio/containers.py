"""Sound files as they are on disk: what can be decoded of each, whatever its header claims.

libsndfile decodes. But it takes a file that was cut for a whole one that is shorter, and a header that was never filled
in at its word. So the containers are walked here, chunk by chunk or page by page, without decoding them.
"""

import contextlib
import io
import mmap
import os
import string
import struct
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

import soundfile

from wavegen.audio.mpeg import find_frames
from wavegen.errors import AudioError, MissingAudioError
from wavegen.files import native_path

REMEDY_DAMAGED = "copy or download it again, or leave it out"
_REMEDY_CONVERT = "convert it, for example with: ffmpeg -i FILE new.flac"
_UNKNOWN = 2**62  # libsndfile returns more than this for a length that it does not know
# Subtypes of WAV in which every sample has its own place.
_IN_PLACE = frozenset({"PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW"})


@dataclass(frozen=True)
class OpenSound:
    """A sound file that is open, and in which nothing is missing as far as that shows without decoding.

    Attributes:
        file: the decoder, at the first sample.
        frames: the number of samples per channel; None if only decoding all of them tells.
        in_place: whether any part can be decoded without what lies before it.
    """

    file: soundfile.SoundFile
    frames: int | None
    in_place: bool


@contextlib.contextmanager
def open_sound(path: Path | str) -> Iterator[OpenSound]:
    """Open a sound file.

    Raises:
        AudioError: the file is missing, empty, cut short, several files in one, or not a sound file.
    """
    if not os.path.isfile(path):
        raise MissingAudioError(where=path)
    if os.path.getsize(path) == 0:
        raise AudioError("is empty", where=path, remedy=REMEDY_DAMAGED)
    try:
        with contextlib.ExitStack() as stack:
            patch = _check_chunks(path)
            source = native_path(path) if patch is None else io.BytesIO(patch.applied_to(path))
            file = stack.enter_context(soundfile.SoundFile(source))
            frames: int | None = None if file.frames > _UNKNOWN else file.frames
            if frames == 0:
                raise AudioError("has no samples", where=path, remedy=REMEDY_DAMAGED)
            if file.format == "OGG":
                _check_ogg(path)
            if file.format in ("MP3", "MPEG"):
                found = find_frames(path)
                if found.cut_off:
                    raise AudioError("is cut short within its last frame", where=path, remedy=REMEDY_DAMAGED)
                is_joined = frames is not None and found.samples > frames + found.most_padding
                if found.spans and (is_joined or not found.has_table):
                    # Without a table the decoder guesses the length by the first bit rate, and in files that were
                    # joined it believes the first table. Without tables, and in a pipe, it reads to the end.
                    file = stack.enter_context(_through_a_pipe(path, found.spans))
                    frames = None
            elif frames is None:  # a FLAC that was encoded into a pipe, which libsndfile cannot read to its end
                raise AudioError("does not state its length", where=path, remedy="encode it again to a file")
            is_wav = file.format in ("WAV", "WAVEX", "RF64") and file.subtype in _IN_PLACE
            in_place = patch is None and frames is not None and (is_wav or file.format == "FLAC")
            yield OpenSound(file, frames, in_place)
    except (soundfile.SoundFileError, TypeError) as error:  # TypeError: a .raw file, which has no header
        reason = getattr(error, "error_string", error)
        raise AudioError(f"cannot be decoded ({reason})", where=path, remedy=REMEDY_DAMAGED) from error


# --- chunks ---


class _Chunk(NamedTuple):
    """The chunk that holds the sound.

    Attributes:
        start: the place of its first byte.
        size: the bytes that the header promises.
        size_at: the place of that number in the file.
        layout: the format of the number, as ``struct`` takes it.
        form_end: the end of all chunks, as the header promises it.
    """

    start: int
    size: int
    size_at: int
    layout: str
    form_end: int


class _Patch(NamedTuple):
    """The size that a header should have stated."""

    chunk: _Chunk
    size: int

    def applied_to(self, path: Path | str) -> bytes:
        data = bytearray(Path(path).read_bytes())
        struct.pack_into(self.chunk.layout, data, self.chunk.size_at, self.size)
        return bytes(data)


def _check_chunks(path: Path | str) -> _Patch | None:
    """Compare the size that a header states with that of the file.

    Returns:
        a patch for a header that libsndfile takes for that of a file without samples; None for any other file.

    Raises:
        AudioError: the file is shorter than its header says, or has more sound than that.
    """
    end = os.path.getsize(path)
    with open(path, "rb") as file:
        chunk = _sound_chunk(file)
        if chunk is None or _is_placeholder(chunk.size):
            return None
        rest = end - chunk.start - chunk.size
        if rest < 0:
            raise AudioError("is shorter than its header says", where=path, remedy=REMEDY_DAMAGED)
        if chunk.size == 0 and chunk.form_end <= chunk.start < end and chunk.layout in ("<I", ">I"):
            # A recorder that stops without closing the file leaves zeros, as does a program that writes into a pipe.
            return _Patch(chunk, rest - rest % 2)
        if rest > 1024 and not _is_known_ending(file, chunk, end):
            what = f"has {rest} bytes after the sound that its header states, which may be sound too"
            raise AudioError(what, where=path, remedy=_REMEDY_CONVERT)
    return None


def _is_placeholder(size: int) -> bool:
    """Whether a size stands for "unknown". Programs that write into a pipe choose the largest number, or a round one.

    0xFFFFFFFF: ffmpeg. 0x7FFFF000: SoX and eSpeak. 0x7FFFFFFF and 0x80000000: speech services. Some subtract the size
    of the header.
    """
    return 0x7FFF_F000 <= size <= 0x8000_0000 or 0xFFFF_F000 <= size <= 0xFFFF_FFFF or size >= 2**63 - 2**16


def _sound_chunk(file: BinaryIO) -> _Chunk | None:
    """Find the chunk with the sound; None if the file has another structure.

    RIFF (WAV): "RIFF" size "WAVE", then chunks of id (4 bytes), size (4, little-endian) and a body of even length. RIFX
    and AIFF ("FORM") are the same with big-endian sizes; RF64 has the true size in the chunk "ds64". AU: ".snd",
    offset, size. CAF: "caff", 4 bytes, then chunks of id (4), size (8, big-endian) and body. W64: ids of 16 bytes,
    sizes of 8 that include the header of 24, and bodies in multiples of 8.
    """
    begin = _skip_id3(file)
    magic = file.read(4)
    if magic == b".snd":
        offset, size = _number(file, ">I"), _number(file, ">I")
        return _Chunk(begin + offset, size, begin + 8, ">I", begin + offset + size)
    if magic == b"caff":
        return _wide_chunk(file, begin + 8, ">4sq", header_counts=False)
    if magic == b"riff":  # W64: the GUID and size of the form, then the GUID "wave"
        return _wide_chunk(file, begin + 40, "<16sq", header_counts=True)
    order = {b"RIFF": "<", b"RF64": "<", b"RIFX": ">", b"FORM": ">"}.get(magic)
    if order is None:
        return None
    form_size, wide_size = _number(file, f"{order}I"), None
    file.seek(4, os.SEEK_CUR)
    while len(head := file.read(8)) == 8:
        identifier, size = struct.unpack(f"{order}4sI", head)
        start = file.tell()
        if identifier == b"ds64":
            file.seek(8, os.SEEK_CUR)
            wide_size = _number(file, "<Q")
        if identifier in (b"data", b"SSND"):
            if magic == b"RF64" and wide_size is not None and size == 0xFFFFFFFF:
                size = wide_size
            return _Chunk(start, size, start - 4, f"{order}I", begin + 8 + form_size)
        file.seek(start + size + size % 2)
    return None


def _wide_chunk(file: BinaryIO, begin: int, layout: str, *, header_counts: bool) -> _Chunk | None:
    """The chunk "data" of a file with sizes of 8 bytes; W64 counts the header in the size, and pads to 8 bytes."""
    file.seek(begin)
    length = struct.calcsize(layout)
    while len(head := file.read(length)) == length:
        identifier, size = struct.unpack(layout, head)
        start = file.tell()
        size -= length if header_counts else 0
        if identifier[:4] == b"data":
            size = size if size >= 0 else 2**64 + size
            return _Chunk(start, size, start - 8, f"{layout[0]}q", start + size)
        if size < 0:
            return None
        file.seek(start + (size + 7) // 8 * 8 if header_counts else start + size)
    return None


def _number(file: BinaryIO, layout: str) -> int:
    data = file.read(struct.calcsize(layout))
    return int(struct.unpack(layout, data)[0]) if len(data) == struct.calcsize(layout) else 0


def _skip_id3(file: BinaryIO) -> int:
    """Go past an ID3v2 tag, whose size is in four bytes of 7 bits; returns the place."""
    head = file.read(10)
    begin = 0
    if head[:3] == b"ID3" and len(head) == 10:
        begin = 10 + sum(byte << 7 * (3 - index) for index, byte in enumerate(head[6:]))
    file.seek(begin)
    return begin


def _is_known_ending(file: BinaryIO, chunk: _Chunk, end: int) -> bool:
    """Whether what follows the sound is chunks, a tag, or padding."""
    place = chunk.start + chunk.size + chunk.size % 2
    order = chunk.layout[0]
    while place < end:
        file.seek(place)
        head = file.read(8)
        if head[:3] in (b"TAG", b"ID3", b"APE") or not any(head):
            return True
        if len(head) < 8 or chunk.layout != f"{order}I":
            return False
        identifier, size = struct.unpack(f"{order}4sI", head)
        if any(chr(byte) not in string.printable for byte in identifier) or place + 8 + size > end + 1:
            return False
        place += 8 + size + size % 2
    return True


# --- Ogg ---


def _check_ogg(path: Path | str) -> None:
    """Refuse an Ogg file whose last page is missing, or that is several files in one.

    A page (RFC 3533): "OggS", version, flags, 20 bytes, the number of segments, their sizes, and their content. Flag 2
    marks the first page of a stream, flag 4 its last one.
    """
    begins = ends = 0
    with open(path, "rb") as file:
        while len(head := file.read(27)) == 27 and head[:4] == b"OggS":
            begins += bool(head[5] & 2)
            ends += bool(head[5] & 4)
            sizes = file.read(head[26])
            place = file.seek(sum(sizes), os.SEEK_CUR)
            if len(sizes) < head[26] or place > os.path.getsize(path):
                raise AudioError("is cut short within a page", where=path, remedy=REMEDY_DAMAGED)
    if ends == 0:
        raise AudioError("is cut short: its last page is missing", where=path, remedy=REMEDY_DAMAGED)
    if begins > 1:
        what = f"has {begins} streams, one after the other, of which only the first can be read"
        raise AudioError(what, where=path, remedy=_REMEDY_CONVERT)


# --- FLAC ---


def refuse_joined_flac(path: Path | str) -> None:
    """Refuse a file in which another FLAC follows the first one: a decoder stops where the first ends."""
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if data.find(b"fLaC\0\0\0\x22", 8) > 0:  # the magic number, and the head of the first block of metadata
            what = "has several streams, one after the other, of which only the first can be read"
            raise AudioError(what, where=path, remedy=_REMEDY_CONVERT)


# --- MP3 ---


@contextlib.contextmanager
def _through_a_pipe(path: Path | str, spans: Sequence[tuple[int, int]]) -> Iterator[soundfile.SoundFile]:
    """Decode parts of a file, each given by its place and size, from a pipe: to the end, wherever that is."""
    reader, writer = os.pipe()

    def send() -> None:
        with contextlib.suppress(OSError), open(writer, "wb") as pipe, open(path, "rb") as file:  # OSError: all is read
            for start, size in spans:
                file.seek(start)
                pipe.write(file.read(size))

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    try:
        with soundfile.SoundFile(reader, closefd=False) as file:
            yield file
    finally:
        os.close(reader)
        thread.join()
