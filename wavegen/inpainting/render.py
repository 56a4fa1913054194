"""What an inpainter and a vocoder put into the holes of a recording, and above the band that it has."""

import numpy as np
import torch
from scipy.signal import firwin, oaconvolve
from torch import Tensor

from wavegen.audio.interpolation import interpolate
from wavegen.audio.resampling import resample
from wavegen.errors import ConfigError
from wavegen.inpainting.exemplars import SEARCHED_S, RecordedFrames, is_long, recorded_frames, with_exemplars
from wavegen.inpainting.holes import Hole, lost_samples, merged
from wavegen.inpainting.joining import ALIGNED_S, SHIFT_S, SHORT_S, best_shift, rendered_share
from wavegen.mel import LogMel, MelProjection
from wavegen.models._damage import interpolated, known_shares
from wavegen.models.inpainter import KEPT, Inpainter
from wavegen.vocoders import Vocoder

FADE_S = 0.004  # from linear prediction to the rendered sound, within the hole
CONTEXT_FRAMES = 48  # on both sides of a hole, beyond what the inpainter reads
BAND_TAPS = 511


def fill_holes(
    samples: np.ndarray,
    holes: list[Hole],
    inpainter: Inpainter,
    vocoder: Vocoder,
    *,
    sample_rate_hz: int,
    iterations: int = 32,
    seed: int = 0,
) -> np.ndarray:
    """Fill the holes of a recording; all other samples stay as they are, bit for bit.

    Each hole is rendered from the mel that the inpainter completes around it; in holes of 100 ms or more, frames that
    the recording has within 10 s take the place of those that the inpainter expects. Holes shorter than 5 ms are
    interpolated.

    Args:
        samples: float ``[samples]``; those in holes are ignored.
        holes: the missing samples.
        inpainter: completes the mel.
        vocoder: renders the mel; it reads the inpainter's definition.
        sample_rate_hz: sample rate of the recording.
        iterations: iterations in which the known samples, and the mel of the missing ones, are imposed.
        seed: seeds the vocoder's noise.

    Returns:
        ``[samples]`` of the same type.

    Raises:
        MelError: the vocoder does not read mels of the inpainter's definition.
    """
    mel, rate, hop = inpainter.mel, inpainter.mel.sample_rate_hz, inpainter.mel.hop_length
    vocoder = vocoder.for_mel(mel)
    repaired = samples.copy()
    holes = merged(holes)
    predicted = {hole: interpolate(_without(samples, holes, hole), hole) for hole in holes}
    for hole in holes:
        repaired[hole.start : hole.stop] = predicted[hole]

    # Short holes are filled now; the code below treats them as known.
    rendered_holes = [hole for hole in holes if hole.stop - hole.start >= SHORT_S * sample_rate_hz]
    around_frames = CONTEXT_FRAMES + max(inpainter.context.left, inpainter.context.right)
    around = round(around_frames * hop * sample_rate_hz / rate)
    searched, fade = round(SEARCHED_S * sample_rate_hz), round(FADE_S * sample_rate_hz)

    # Holes whose surroundings overlap are rendered together.
    for region in merged(_widened(hole, around, len(samples)) for hole in rendered_holes):
        sound, lost = _part(repaired, rendered_holes, region, sample_rate_hz, rate)
        recorded = None
        if any(is_long(hole, rate) for hole in lost):
            wide = _widened(region, searched, len(samples))
            nearby, lost_nearby = _part(repaired, rendered_holes, wide, sample_rate_hz, rate)
            is_lost = lost_samples(lost_nearby, len(nearby))
            recorded = recorded_frames(_in_frames(nearby, hop), _in_frames(is_lost, hop), mel)
        rendered = _render(sound, lost, recorded, inpainter, vocoder, iterations, seed)
        if sample_rate_hz != rate:
            rendered = resample(rendered, rate, sample_rate_hz)
        for hole in rendered_holes:
            if region.start <= hole.start < region.stop:
                found = rendered[hole.start - region.start : hole.stop - region.start]
                repaired[hole.start : hole.stop] = _faded(predicted[hole], found, fade)
    return repaired


def extend_band(
    samples: np.ndarray, above_hz: float, inpainter: Inpainter, vocoder: Vocoder, *, sample_rate_hz: int, seed: int = 0
) -> np.ndarray:
    """Add what a recording lacks above a frequency.

    Args:
        samples: float ``[samples]``.
        above_hz: the frequency; what the recording has above it stays.
        inpainter: that of ``fill_holes``.
        vocoder: that of ``fill_holes``.
        sample_rate_hz: sample rate of the recording, which must be the inpainter's.
        seed: seeds the vocoder's noise.

    Raises:
        ConfigError: the recording has another sample rate, or the frequency is not within the mel's band.
        MelError: see ``fill_holes``.
    """
    mel = inpainter.mel
    if sample_rate_hz != mel.sample_rate_hz:
        remedy = f"resample the recording to {mel.sample_rate_hz} Hz"
        raise ConfigError(f"a band is completed at {mel.sample_rate_hz} Hz, not {sample_rate_hz} Hz", remedy=remedy)
    highest = mel.sample_rate_hz / 2
    if not 500 <= above_hz < min(highest, mel.f_max_hz):
        raise ConfigError(f"no band begins at {above_hz:g} Hz", remedy=f"give 500 to {min(highest, mel.f_max_hz):g}")
    vocoder = vocoder.for_mel(mel)
    whole = _in_frames(samples.astype(np.float32), mel.hop_length)
    given = LogMel(mel)(whole)[..., : whole.shape[-1] // mel.hop_length]
    # A filter is known if all that it reads lies below the frequency.
    reach = mel.filterbank() > 0
    frequencies = np.linspace(0, highest, reach.shape[1])
    known_bins = torch.from_numpy(np.where(reach, frequencies, 0).max(axis=1) <= above_hz)
    known = known_bins[None, :, None].expand_as(given)
    with torch.no_grad():
        completed = inpainter(given, known)
    rendered = vocoder.synthesize(completed, seed=seed)[0, : len(samples)].numpy()
    high = firwin(BAND_TAPS, above_hz, fs=mel.sample_rate_hz, pass_zero=False)
    return (samples + oaconvolve(rendered, high, mode="same")).astype(samples.dtype)


def _widened(hole: Hole, by: int, samples: int) -> Hole:
    """The hole with ``by`` samples on either side, within the recording."""
    return Hole(max(0, hole.start - by), min(samples, hole.stop + by))


def _part(
    samples: np.ndarray, holes: list[Hole], region: Hole, sample_rate_hz: int, rate: int
) -> tuple[np.ndarray, list[Hole]]:
    """The samples of a region at another rate, float32, and the region's holes at that rate."""
    sound = samples[region.start : region.stop].astype(np.float32)
    if sample_rate_hz != rate:
        sound = resample(sound, sample_rate_hz, rate)
    inside = [
        Hole(max(0, hole.start - region.start), min(region.stop, hole.stop) - region.start)
        for hole in holes
        if hole.start < region.stop and hole.stop > region.start
    ]
    return sound, [Hole(h.start * rate // sample_rate_hz, -(-h.stop * rate // sample_rate_hz)) for h in inside]


@torch.no_grad()
def _render(
    samples: np.ndarray,
    holes: list[Hole],
    recorded: RecordedFrames | None,
    inpainter: Inpainter,
    vocoder: Vocoder,
    iterations: int,
    seed: int,
) -> np.ndarray:
    """The sound of a region with its holes rendered, float32; beside the holes it is nearly ``samples``.

    ``recorded`` is None if no hole is long.
    """
    mel, hop = inpainter.mel, inpainter.mel.hop_length
    missing = lost_samples(holes, len(samples))
    given = _in_frames(np.where(missing, 0, samples).astype(np.float32), hop)
    lost = _in_frames(missing, hop)

    # Complete the mel of the frames whose windows reach into a hole, as in training.
    projection = MelProjection(mel)
    shares = known_shares(lost, mel)
    known, frames = shares >= KEPT, shares.shape[-1]
    guess = LogMel(mel)(interpolated(given, lost, mel.n_fft))[..., :frames]
    completed = inpainter(guess, shares.expand(1, mel.n_mels, frames))
    if recorded is not None:
        completed = with_exemplars(completed, shares, holes, recorded, mel)

    # Begin with the vocoder's sound, in phase with what is known on either side.
    spoken = vocoder.synthesize(completed, seed=seed)[0].numpy()
    sound = given[0].numpy().copy()
    for hole in holes:
        sound[hole.start : hole.stop] = _aligned(spoken, given[0].numpy(), hole, mel.sample_rate_hz)

    # Impose what is known: the samples, and in the frames that were completed the mel.
    current = torch.from_numpy(sound)[None]
    for _ in range(iterations):
        spectrum = projection.istft.analyse(torch.where(lost, current, given))
        spectrum = torch.where(known, spectrum, projection.impose(spectrum, completed)[1])
        current = torch.where(lost, projection.istft(spectrum), given)
    return current[0, : len(samples)].numpy()


def _aligned(spoken: np.ndarray, known: np.ndarray, hole: Hole, rate: int) -> np.ndarray:
    """The spoken sound of a hole, shifted so that it continues what is known before and after it."""
    length, reach = round(ALIGNED_S * rate), round(SHIFT_S * rate)
    count = hole.stop - hole.start

    def shifted(beside: int) -> np.ndarray:
        """The sound of the hole, shifted to agree with the known samples from ``beside`` on."""
        first, last = beside - reach, beside + length + reach
        from_here = slice(hole.start, hole.stop)
        if first < 0 or last > len(spoken) or hole.start < reach or hole.stop + reach > len(spoken):
            return spoken[from_here]
        shift = best_shift(known[beside : beside + length], spoken[first:last])
        return spoken[hole.start + shift : hole.stop + shift]

    towards_end = (np.arange(count) + 0.5) / count
    return shifted(hole.start - length) * (1 - towards_end) + shifted(hole.stop) * towards_end


def _faded(predicted: np.ndarray, rendered: np.ndarray, fade: int) -> np.ndarray:
    """The rendered sound, which begins and ends as linear prediction goes on from what is known."""
    from_start = np.arange(len(rendered))
    weight = rendered_share(from_start, from_start[::-1], min(fade, len(rendered) / 4))
    return predicted * (1 - weight) + rendered * weight


def _in_frames(samples: np.ndarray, hop: int) -> Tensor:
    """``[1, frames * hop]``, padded with zeros."""
    return torch.from_numpy(np.pad(samples, (0, -len(samples) % hop)))[None]


def _without(samples: np.ndarray, holes: list[Hole], but: Hole) -> np.ndarray:
    """The samples with zeros in all holes but one, which is ignored anyway."""
    cleared = samples.astype(np.float64)
    for hole in holes:
        if hole != but:
            cleared[hole.start : hole.stop] = 0
    return cleared
