"""Recordings that are repaired as if they were still arriving, packet by packet."""

import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from wavegen.errors import ConfigError
from wavegen.inpainting.holes import Hole, lost_samples
from wavegen.inpainting.live import LiveRepair
from wavegen.models.inpainter import Inpainter
from wavegen.progress import one_torch_thread
from wavegen.vocoders import Vocoder

PACKET_S = 0.01


class StreamRepair(NamedTuple):
    """A recording that was repaired as a stream.

    Attributes:
        samples: float ``[samples]``, of the type of those given.
        delay_s: the delay of the repair.
        load: processor time for a second of sound, in seconds.
    """

    samples: np.ndarray
    delay_s: float
    load: float


def repair_as_stream(
    samples: np.ndarray,
    holes: Sequence[Hole],
    inpainter: Inpainter,
    vocoder: Vocoder | None = None,
    *,
    sample_rate_hz: int,
    seed: int = 0,
) -> StreamRepair:
    """Fill the holes of a recording as if it arrived in packets of 10 ms, in one torch thread.

    Args:
        samples: float ``[samples]``; those in holes are ignored.
        holes: the missing samples.
        inpainter, vocoder, seed: those of ``LiveRepair``.
        sample_rate_hz: sample rate of the recording, which must be the inpainter's.

    Raises:
        ConfigError: the recording has another sample rate, or as in ``LiveRepair``.
        AudioError, MelError: see ``LiveRepair``.
    """
    rate = inpainter.mel.sample_rate_hz
    if sample_rate_hz != rate:
        remedy = f"resample the recording to {rate} Hz, or repair it without --live"
        raise ConfigError(f"a stream is repaired at {rate} Hz, not {sample_rate_hz} Hz", remedy=remedy)
    lost = lost_samples(holes, len(samples))
    live = LiveRepair(inpainter, vocoder, seed=seed)
    packet = round(PACKET_S * rate)
    packets = range(0, len(samples), packet)
    with one_torch_thread():
        started = time.thread_time()
        parts = [live.feed(samples[first : first + packet], lost[first : first + packet]) for first in packets]
        work_s = time.thread_time() - started
        parts.append(live.finish())
    return StreamRepair(np.concatenate(parts), live.latency_samples / rate, work_s * rate / max(1, len(samples)))
