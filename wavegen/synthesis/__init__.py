"""Mels to sound: one, a folder of files, or very long ones in constant memory."""

from wavegen.synthesis.many import plan_batches, synthesize_files
from wavegen.synthesis.preparing import AnyMelFile, Prepared, compiling_if_it_pays, open_mels, prepare
from wavegen.synthesis.streaming import (
    LIVE_CHUNK_FRAMES,
    LIVE_GROWTH,
    Mel,
    Sink,
    Timing,
    stream,
    synthesize,
    synthesize_into,
)

__all__ = [
    "LIVE_CHUNK_FRAMES",
    "LIVE_GROWTH",
    "AnyMelFile",
    "Mel",
    "Prepared",
    "Sink",
    "Timing",
    "compiling_if_it_pays",
    "open_mels",
    "plan_batches",
    "prepare",
    "stream",
    "synthesize",
    "synthesize_files",
    "synthesize_into",
]
