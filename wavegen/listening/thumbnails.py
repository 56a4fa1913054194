"""Small pictures for the listening page: spectrograms, their differences, and outlines of waveforms.

They have no text and no axes, so that a page can lay a playhead over them; ``level_colours`` and
``difference_colours`` are their colour scales. A difference of zero is transparent: it shows the page's own background,
light or dark.
"""

import io
import math
from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F

from wavegen.mel import LogMel, MelSpec

LEVEL_RANGE_DB = 80.0  # below the loudest point of the clip in any system
DIFFERENCE_RANGE_DB = 20.0  # the same in every picture, so that pictures can be compared
LEVEL_STEP_DB = 2.5  # one colour step; finer steps are not visible and cost bytes
DIFFERENCE_STEP_DB = 2.0
ROWS = 80
MOST_COLUMNS = 480
OUTLINE_COLUMNS = 240
TICKS_HZ = (250, 1000, 4000, 10000)

# Okabe and Ito's vermilion and sky blue, distinct for colour-blind readers too; adjusted to show on white and on black.
LOUDER = (222, 98, 24)
QUIETER = (48, 132, 208)


def picture_spec(sample_rate_hz: int) -> MelSpec:
    """The mel definition of the pictures at a sample rate: bins up to the Nyquist frequency, windows of 32 to 64 ms."""
    n_fft = 2 ** math.ceil(math.log2(sample_rate_hz * 0.032))
    return MelSpec(
        sample_rate_hz=sample_rate_hz, n_fft=n_fft, win_length=n_fft, hop_length=n_fft // 4, n_mels=ROWS, f_min_hz=0,
        f_max_hz=sample_rate_hz / 2, scale="slaney", norm="slaney", log="ln", floor=1e-6, center=True,
    )  # fmt: skip


def linear_mel(samples: np.ndarray, spec: MelSpec) -> torch.Tensor:
    """Linear mel ``[n_mels, frames]`` of ``samples`` ``[samples]``, padded with silence if too short for a frame."""
    padded = np.pad(samples.astype(np.float32), (0, max(0, spec.min_samples - len(samples))))
    return spec.to_linear(LogMel(spec)(torch.from_numpy(padded)[None])[0])


def levels_db(samples: np.ndarray, spec: MelSpec) -> np.ndarray:
    """Levels ``[n_mels, columns]`` in dB of ``samples`` ``[samples]``; more than 480 frames are averaged in power."""
    power = linear_mel(samples, spec).square()
    if power.shape[-1] > MOST_COLUMNS:
        power = F.adaptive_avg_pool1d(power[None], MOST_COLUMNS)[0]
    return (10 * power.log10()).numpy()


def level_picture(levels: np.ndarray, loudest_db: float) -> bytes:
    """PNG of ``levels`` ``[n_mels, columns]``, low frequencies at the bottom, one pixel per value."""
    colours = level_colours()
    steps = (levels - loudest_db + LEVEL_RANGE_DB) / LEVEL_STEP_DB
    return _png(steps, [(*colour, 255) for colour in colours])


def difference_picture(levels: np.ndarray, reference: np.ndarray) -> bytes:
    """PNG of ``levels`` minus ``reference``, both ``[n_mels, columns]``; transparent where they are equal."""
    colours = difference_colours()
    return _png((levels - reference) / DIFFERENCE_STEP_DB + len(colours) // 2, colours)


def outline(samples: np.ndarray, columns: int) -> np.ndarray:
    """Lowest and highest sample of each of ``columns`` equal parts: int8 ``[2, columns]``, full scale ±127."""
    edges = np.linspace(0, len(samples), columns, endpoint=False).astype(int)
    ends = np.stack([np.minimum.reduceat(samples, edges), np.maximum.reduceat(samples, edges)])
    return np.clip(np.rint(ends * 127), -127, 127).astype(np.int8)


@cache
def level_colours() -> tuple[tuple[int, int, int], ...]:
    """Red, green and blue of each step, quiet to loud: magma, which also reads in grey and to colour-blind readers."""
    from matplotlib import colormaps

    shades = colormaps["magma"](np.linspace(0, 1, round(LEVEL_RANGE_DB / LEVEL_STEP_DB) + 1))
    return tuple((int(r), int(g), int(b)) for r, g, b in np.rint(255 * shades[:, :3]))


@cache
def difference_colours() -> tuple[tuple[int, int, int, int], ...]:
    """Red, green, blue and opacity of each step, from quieter than the reference to louder."""
    half = round(DIFFERENCE_RANGE_DB / DIFFERENCE_STEP_DB)
    return tuple(
        # Opacity rises fast at first, because most differences are small.
        (*(QUIETER if step < 0 else LOUDER), round(255 * (abs(step) / half) ** 0.7))
        for step in range(-half, half + 1)
    )


def ticks(spec: MelSpec) -> list[tuple[int, float]]:
    """Frequencies in Hz to label, and their heights in the picture, 0 to 1."""
    shown = [hertz for hertz in TICKS_HZ if hertz < 0.9 * spec.f_max_hz]
    heights = (mel_bins(shown, spec) + 0.5) / spec.n_mels
    return list(zip(shown, heights.tolist(), strict=True))


def mel_bins(frequencies_hz: Sequence[int], spec: MelSpec) -> np.ndarray:
    """Fractional indices of the mel bins whose filters are centred at these frequencies."""
    filters = spec.filterbank()
    fft_hz = np.arange(filters.shape[1]) * spec.sample_rate_hz / spec.n_fft
    filled = np.flatnonzero(filters.sum(axis=1))  # a filter narrower than an FFT bin is empty
    centres_hz = filters[filled] @ fft_hz / filters[filled].sum(axis=1)
    return np.interp(frequencies_hz, centres_hz, filled)


def _png(steps: np.ndarray, palette: Sequence[tuple[int, int, int, int]]) -> bytes:
    from PIL import Image

    indices = np.clip(np.rint(steps), 0, len(palette) - 1).astype(np.uint8)[::-1]
    image = Image.fromarray(np.ascontiguousarray(indices)).convert("L")
    image.putpalette([channel for colour in palette for channel in colour[:3]])  # turns it into an indexed image
    opacity = bytes(colour[3] for colour in palette)
    file = io.BytesIO()
    transparency = {} if opacity == b"\xff" * len(opacity) else {"transparency": opacity}
    image.save(file, format="PNG", **transparency)
    return file.getvalue()
