"""The frames of an MP3, found without decoding them: how much sound is in the file, whatever its tables say."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

# Layer III (ISO/IEC 11172-3 and 13818-3): kbit/s by index, for version 1 and for versions 2 and 2.5; Hz by index.
_KBITS_1 = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_KBITS_2 = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_RATES_1 = (44100, 48000, 32000)
_TABLES = (b"Xing", b"Info", b"VBRI")
_PADDING_FRAMES = 4  # of which an encoder's delay and padding, which a table states, are less


@dataclass(frozen=True)
class MpegFrames:
    """What is in an MP3.

    Attributes:
        spans: place and size in bytes of each frame that holds sound.
        samples: the samples per channel of these.
        most_padding: the most samples by which a table may count fewer, because they are delay and padding.
        has_table: whether a table states the length.
        cut_off: whether the last frame is incomplete.
    """

    spans: Sequence[tuple[int, int]]
    samples: int
    most_padding: int
    has_table: bool
    cut_off: bool


def find_frames(path: Path | str) -> MpegFrames:
    """Find the frames of a file; what lies between them, such as tags, is passed over."""
    data = Path(path).read_bytes()
    spans = []
    samples = per_frame = 0
    has_table = cut_off = False
    kind = -1  # version, layer and sample rate of the first frame, which all frames of a file share
    place = expected = 0
    while place + 4 <= len(data):
        if data[place : place + 3] == b"ID3" and place + 10 <= len(data):
            place += 10 + sum(byte << 7 * (3 - index) for index, byte in enumerate(data[place + 6 : place + 10]))
            continue
        head = int.from_bytes(data[place : place + 4], "big")
        size, length = _frame(head)
        is_frame = size > 0 and kind in (-1, head & _KIND)
        if is_frame and (kind == -1 or place != expected):  # any four bytes may look like a frame, but not twice
            following = int.from_bytes(data[place + size : place + size + 4], "big")
            is_frame = _frame(following)[0] > 0 and following & _KIND == head & _KIND
        if not is_frame:
            found = data.find(b"\xff", place + 1)
            tag = data.find(b"ID3", place + 1, found + 1 if found > 0 else len(data))
            place = tag if tag > 0 else found if found > 0 else len(data)
            continue
        kind, per_frame = head & _KIND, length
        cut_off = place + size > len(data)
        is_table = any(table in data[place : place + 48] for table in _TABLES)
        has_table |= is_table
        if not cut_off and not is_table:
            spans.append((place, size))
            samples += length
        place = expected = place + size
    return MpegFrames(spans, samples, _PADDING_FRAMES * per_frame, has_table, cut_off)


_KIND = 0xFFFE0C00  # of a frame's head: the bits of synchronisation, version, layer and sample rate


def _frame(head: int) -> tuple[int, int]:
    """Bytes and samples of the frame with this head; 0 if it is not the head of a frame of layer III.

    ::

        11111111 111VVLLP BBBBRRPx ...    version (3: 1, 2: 2, 0: 2.5), layer (1: III), bit rate, sample rate, padding
    """
    version, layer, bits, rate = head >> 19 & 3, head >> 17 & 3, head >> 12 & 15, head >> 10 & 3
    if head >> 21 != 0x7FF or version == 1 or layer != 1 or bits in (0, 15) or rate == 3:
        return 0, 0
    hz = _RATES_1[rate] >> {3: 0, 2: 1, 0: 2}[version]
    samples = 1152 if version == 3 else 576
    kbits = (_KBITS_1 if version == 3 else _KBITS_2)[bits]
    return samples * kbits * 125 // hz + (head >> 9 & 1), samples
