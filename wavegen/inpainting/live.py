"""Repairing a sound that is still arriving, such as one with lost packets: a fixed delay, and constant memory."""

import math
from collections import deque
from dataclasses import dataclass

import numpy as np
import torch

from wavegen.audio.interpolation import CONTEXT, interpolate
from wavegen.audio.runs import runs
from wavegen.errors import AudioError, ConfigError, StreamingError
from wavegen.inpainting.exemplars import LiveExemplars
from wavegen.inpainting.joining import ALIGNED_S, SHIFT_S, SHORT_S, best_shift, rendered_share
from wavegen.mel import LogMel, MelSpec
from wavegen.models._damage import shares_of_windows
from wavegen.models.inpainter import Inpainter
from wavegen.vocoders import Vocoder, build_vocoder
from wavegen.vocoders.source_filter import SourceFilterConfig

FADE_S = 0.01  # longer than in a recording, because the vocoder's sound has not been made to agree with the known one
BEHIND_S = 0.02  # known sound behind a hole at which it is predicted for the second and last time


@dataclass
class _Gap:
    """A run of lost samples, until all of it has been returned.

    Attributes:
        start: position of its first sample.
        stop: position of the first known sample after it; infinite until that one arrives.
        ahead: what linear prediction expects from ``start`` on, given the sound before; None until computed.
        behind: known samples after it that its prediction has read; -1 for none.
        shift: how much later in the vocoder's sound to read; None until its first sample is returned.
    """

    start: int
    stop: float = math.inf
    ahead: np.ndarray | None = None
    behind: int = -1
    shift: int | None = None


class LiveRepair:
    """Fills the holes of a sound that is still arriving; all other samples come out as they are, bit for bit.

    The work is done once for each hop of the mel, so the result does not depend on how the sound was cut into chunks::

        samples ─ linear prediction in holes ─ mel of a window ─ inpainter ─ exemplars ─ vocoder ─ shifted, faded ─┐
        known samples ─────────────────────────────────────────────────────────────────────────────────────────────┴─

    Silence is assumed before and after the stream. Positions count from the start of the first hop.

    Args:
        inpainter: a causal inpainter; completes the mel.
        vocoder: renders the mel; it reads the inpainter's definition. By default ``live_vocoder``.
        seed: seeds the vocoder's noise.

    Raises:
        ConfigError: the inpainter is same-padded, or the vocoder has several speakers.
        MelError: the vocoder does not read mels of the inpainter's definition.

    Attributes:
        latency_samples: the delay: of ``n`` samples fed, at least ``n - latency_samples`` have been returned.
    """

    def __init__(self, inpainter: Inpainter, vocoder: Vocoder | None = None, *, seed: int = 0) -> None:
        if inpainter.context.right > inpainter.look_ahead:
            raise ConfigError(
                f"the inpainter is same-padded, it reads {inpainter.context.right} frames ahead, and cannot run live",
                remedy="train one with model.padding=causal model.look_ahead=2",
            )
        mel, rate = inpainter.mel, inpainter.mel.sample_rate_hz
        self._mel, self._log_mel = mel, LogMel(mel)
        self._inpainter = inpainter
        self._vocoder = live_vocoder(mel) if vocoder is None else vocoder.for_mel(mel)
        self._inpainter_state = inpainter.initial_state(1)
        self._exemplars = LiveExemplars(mel)
        self._shares: deque[float] = deque()  # known shares of the frames that wait for the look-ahead
        self._vocoder_state = self._vocoder.initial_state(1, seed=seed)
        self._fade, self._reach, self._compared, self._behind = (
            round(seconds * rate) for seconds in (FADE_S, SHIFT_S, ALIGNED_S, BEHIND_S)
        )

        # A frame's own hop begins ``window_end`` samples before its window ends. The first hop is filled up with
        # silence so that each window ends with a hop.
        hop, window_end = mel.hop_length, mel.n_fft - mel.left_padding
        waiting = inpainter.look_ahead * hop + self._vocoder.latency_samples
        self.latency_samples = window_end - 1 + waiting + self._reach
        self._silence = -window_end % hop

        # The sound that has arrived, with what linear prediction expects in its holes. It ends at position ``arrived``.
        self._sound = np.zeros(CONTEXT + self.latency_samples + hop)
        self._lost = np.zeros(mel.n_fft, dtype=bool)
        self._arrived = 0
        self._gaps: list[_Gap] = []
        self._hop = np.zeros(hop)
        self._hop_lost = np.zeros(hop, dtype=bool)
        self._hop_filled = self._silence

        # The vocoder's sound ends at position ``spoken_end``, and what was returned at ``done``.
        self._spoken = np.zeros(self._compared + 2 * self._reach)
        self._spoken_end = hop - window_end
        self._recent = np.zeros(self._compared)
        self._done = self._silence
        self._dtype = np.dtype(np.float64)
        self._finished = False
        self._warm_up()

    def feed(self, samples: np.ndarray, lost: np.ndarray) -> np.ndarray:
        """Take the next samples and return those that are ready.

        Args:
            samples: float ``[samples]``, any number; lost ones may hold anything, NaN included.
            lost: bool ``[samples]``, True where a sample is lost.

        Returns:
            float ``[ready]``, of the type of ``samples``.

        Raises:
            AudioError: the shapes or types are wrong, or a sample that is not lost is NaN or infinite.
            StreamingError: ``finish`` has been called.
        """
        if self._finished:
            raise StreamingError("the stream is finished", remedy="make a new LiveRepair for another one")
        _check(samples, lost)
        self._dtype = samples.dtype
        ready = [np.zeros(0)]
        first, hop = 0, self._mel.hop_length
        while first < len(samples):
            count = min(len(samples) - first, hop - self._hop_filled)
            place = slice(self._hop_filled, self._hop_filled + count)
            self._hop_lost[place] = lost[first : first + count]
            self._hop[place] = np.where(self._hop_lost[place], 0, samples[first : first + count])
            self._hop_filled += count
            first += count
            if self._hop_filled == hop:
                ready.append(self._advance())
                self._hop_filled = 0
        return np.concatenate(ready).astype(self._dtype)

    def finish(self) -> np.ndarray:
        """End the stream and return the samples that are still waiting, float ``[samples]``.

        Raises:
            StreamingError: it has been called before.
        """
        waiting = self._arrived + self._hop_filled - self._done
        silence = np.zeros(self.latency_samples, dtype=self._dtype)
        rest = self.feed(silence, np.zeros(len(silence), dtype=bool))[:waiting]
        self._finished = True
        return rest

    @torch.no_grad()
    def _warm_up(self) -> None:
        """Import and compile what is used, which would delay the first hops by seconds."""
        interpolate(np.zeros(3), (1, 2))
        silent = self._log_mel.padded(torch.zeros(1, self._mel.n_fft))
        frames = self._vocoder.latency_samples // self._mel.hop_length + 1
        self._vocoder.step(silent.expand(-1, -1, frames), self._vocoder_state)

    @torch.no_grad()
    def _advance(self) -> np.ndarray:
        """Take the hop that is complete: one more frame of the mel, and the samples that this makes ready."""
        n_fft, hop = self._mel.n_fft, self._mel.hop_length
        self._sound = np.concatenate((self._sound[hop:], self._hop))
        self._lost = np.concatenate((self._lost[hop:], self._hop_lost))
        self._mark_gaps()
        self._arrived += hop
        for gap in self._gaps:
            self._predict(gap)

        window = torch.from_numpy(self._sound[-n_fft:].astype(np.float32))
        mel = self._log_mel.padded(window[None])
        known = torch.ones_like(mel)
        if self._lost.any():
            known = shares_of_windows(torch.from_numpy(self._lost)[None], self._mel).expand_as(mel)
        completed, self._inpainter_state = self._inpainter.step(mel, known, self._inpainter_state)
        self._shares.append(float(known[0, 0, 0]))
        if completed.shape[-1]:
            completed = self._exemplars.step(completed, self._shares.popleft())
            spoken, self._vocoder_state = self._vocoder.step(completed, self._vocoder_state)
            self._spoken = np.concatenate((self._spoken, spoken[0].double().numpy()))
            self._spoken_end += spoken.shape[-1]
        return self._release()

    def _mark_gaps(self) -> None:
        """Add the holes that begin in the new hop, and end the last one where it ends."""
        opened = self._gaps[-1] if self._gaps and self._gaps[-1].stop == math.inf else None
        if opened is not None and not self._hop_lost[0]:
            opened.stop = self._arrived
        for start, stop in runs(self._hop_lost):
            gap = opened if opened is not None and start == 0 else _Gap(self._arrived + start)
            if gap is not opened:
                self._gaps.append(gap)
            if stop < len(self._hop):
                gap.stop = self._arrived + stop

    def _predict(self, gap: _Gap) -> None:
        """Put into a hole what linear prediction expects there, if anything new is known.

        As in training, the middle of a long hole is silent. While the end is not known, only what precedes is read.
        """
        reach, end = self._mel.n_fft, len(self._sound)
        origin = self._arrived - end  # position of ``sound[0]``
        if gap.stop == math.inf:
            start = gap.start - origin
            if gap.ahead is None:
                gap.ahead = interpolate(np.pad(self._sound[:start], (0, reach)), (start, start + reach), iterations=1)
            new = max(start, end - self._mel.hop_length)
            part = gap.ahead[new - start : end - start]
            self._sound[new : new + len(part)] = part
            return

        # The second prediction, with more known sound behind the hole, is in time for the samples at its end.
        behind = self._arrived - int(gap.stop)
        if gap.behind < 0 or gap.behind < self._behind <= behind:
            gap.behind = behind
            count = int(gap.stop) - gap.start
            is_whole = count <= 2 * reach and gap.start >= self._done
            stop = int(gap.stop) - origin
            start = stop - (count if is_whole else min(reach, count // 2))
            cut = 0 if is_whole else start
            self._sound[start:stop] = interpolate(self._sound[cut:], (start - cut, stop - cut), iterations=1)

    def _release(self) -> np.ndarray:
        """The samples that the vocoder's sound reaches, even if it has to be shifted: ``[samples]``."""
        begin, end = self._done, max(self._done, self._spoken_end - self._reach)
        origin = self._arrived - len(self._sound)
        recent = np.concatenate((self._recent, self._sound[begin - origin : end - origin]))
        for gap in self._gaps:
            if gap.start < end:
                self._fill(gap, recent, begin, int(min(gap.stop, end)))
        self._gaps = [gap for gap in self._gaps if gap.stop > end]
        self._spoken = self._spoken[-(self._compared + 2 * self._reach) :]
        self._recent = recent[-self._compared :]
        self._done = end
        return recent[self._compared :]

    def _fill(self, gap: _Gap, recent: np.ndarray, begin: int, end: int) -> None:
        """Put the vocoder's sound into ``recent`` where it is in a hole, from ``begin`` or the hole's start to ``end``.

        Linear prediction is there already. ``recent`` begins ``compared`` samples before ``begin``.
        """
        if gap.stop - gap.start < SHORT_S * self._mel.sample_rate_hz:
            return
        origin, spoken_origin = begin - self._compared, self._spoken_end - len(self._spoken)
        if gap.shift is None:
            first = gap.start - self._compared
            found = self._spoken[first - self._reach - spoken_origin : gap.start + self._reach - spoken_origin]
            gap.shift = best_shift(recent[first - origin : gap.start - origin], found)
        positions = np.arange(max(gap.start, begin), end)
        fade = min(self._fade, (gap.stop - gap.start) / 2)
        weight = rendered_share(positions - gap.start, gap.stop - 1 - positions, fade)
        rendered = self._spoken[positions + gap.shift - spoken_origin]
        recent[positions - origin] += weight * (rendered - recent[positions - origin])


def live_vocoder(mel: MelSpec) -> Vocoder:
    """The vocoder with the shortest delay: the source-filter vocoder without iterations, which needs no training."""
    return build_vocoder(SourceFilterConfig(synthesis_iterations=0), mel).prepared_for_synthesis()


def _check(samples: np.ndarray, lost: np.ndarray) -> None:
    """Raise AudioError unless the samples are floats, and ``lost`` says of each whether it is lost."""
    if samples.ndim != 1 or samples.shape != lost.shape or lost.dtype != bool or samples.dtype.kind != "f":
        found = f"{samples.dtype} {list(samples.shape)} and {lost.dtype} {list(lost.shape)}"
        raise AudioError(f"samples and lost are {found}", remedy="give float [samples] and bool [samples]")
    wrong = np.flatnonzero(~(np.isfinite(samples) | lost))
    if len(wrong):
        raise AudioError(f"sample {wrong[0]} is {samples[wrong[0]]}", remedy="mark it as lost")
