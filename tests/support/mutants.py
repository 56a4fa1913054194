"""Mutation campaigns: files with a few changes, which a reader must read or refuse, in little time and memory."""

import contextlib
import random
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from wavegen.errors import WavegenError

SIZES = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 2**40, 2**63 - 1, 2**64 - 1)
MARKS = b"()[]{}'\",:<>|=-+.0123456789eL \n\0"


def mutants(data: bytes, count: int, *, seed: int = 0, edge: int = 400) -> Iterator[bytes]:
    """Yield ``count`` mutants: one to three changes each, three quarters of them in the first or last ``edge`` bytes.

    A change flips bits, writes a byte or a size that breaks arithmetic, writes a mark of a text header, or removes,
    repeats or moves a few bytes.
    """
    generator = random.Random(seed)

    def place(length: int) -> int:
        kind = generator.randrange(4)
        if kind == 0:
            return generator.randrange(length)
        if kind == 1:
            return max(0, length - 1 - generator.randrange(min(edge, length)))
        return generator.randrange(min(edge, length))

    for _ in range(count):
        mutant = bytearray(data)
        for _ in range(generator.randint(1, 3)):
            if not mutant:
                break
            at = place(len(mutant))
            kind = generator.randrange(7)
            span = generator.choice((1, 2, 4, 8, 30))
            if kind == 0:
                mutant[at] ^= 1 << generator.randrange(8)
            elif kind == 1:
                mutant[at] = generator.randrange(256)
            elif kind == 2:
                width = generator.choice((2, 4, 8))
                mutant[at : at + width] = (generator.choice(SIZES) & (256**width - 1)).to_bytes(width, "little")
            elif kind == 3:
                mutant[at] = generator.choice(MARKS)
            elif kind == 4:
                del mutant[at : at + span]
            elif kind == 5:
                mutant[at:at] = mutant[at : at + span] * generator.randint(1, 40)
            else:
                del mutant[max(at, 1) :]
        yield bytes(mutant)


class Campaign:
    """Reads many files and keeps the figures that a report states.

    Attributes:
        files: number of files tried.
        read: number of files that were read, because their changes do no harm.
        longest_s: the longest time for one file.
        memory_mb: what the peak of this process's memory rose by; 0 where the system does not tell.
    """

    def __init__(self) -> None:
        self.files = self.read = 0
        self.longest_s = self.memory_mb = 0.0

    def run(self, files: Sequence[Callable[[], object]] | Iterator[Callable[[], object]]) -> None:
        """Call each reader; any error but a WavegenError, or one of several lines, is raised."""
        before = _reset_peak_mb()
        for read in files:
            started = time.perf_counter()
            self.files += 1
            try:
                read()
                self.read += 1
            except WavegenError as error:
                if "\n" in str(error):
                    raise AssertionError(f"several lines: {error}") from error
            self.longest_s = max(self.longest_s, time.perf_counter() - started)
        self.memory_mb = max(self.memory_mb, _peak_mb() - before)

    def __str__(self) -> str:
        return (
            f"{self.files} files tried, {self.read} of them read, 0 crashes, "
            f"longest {1000 * self.longest_s:.0f} ms, {self.memory_mb:.0f} MB"
        )


def _reset_peak_mb() -> float:
    """Let the system forget the peak so far, and return the memory in use in MB."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return _peak_mb()


def _peak_mb() -> float:
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
