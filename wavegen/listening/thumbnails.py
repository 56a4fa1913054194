"""Small pictures for the listening page: spectrograms, their differences, and outlines of waveforms.

They carry no text and no axes, so that a page can lay a playhead over them; what the colours mean is in
:data:`LEVEL_COLOURS` and :data:`DIFFERENCE_COLOURS`. A difference of nothing is transparent: it shows the page below,
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

LEVEL_RANGE_DB = 80.0  # below the loudest point of the clip, whichever system it is in
DIFFERENCE_RANGE_DB = 20.0  # the same everywhere, so that pictures compare
LEVEL_STEP_DB = 2.5  # of the colours: finer steps are not seen, and cost bytes
DIFFERENCE_STEP_DB = 2.0
ROWS, MOST_COLUMNS = 80, 480
OUTLINE_COLUMNS = 240
TICKS_HZ = (250, 1000, 4000, 10000)

# Okabe and Ito's vermilion and sky blue, darkened and lightened to stand on white and on black: apart for every eye.
LOUDER, QUIETER = (222, 98, 24), (48, 132, 208)


def picture_spec(sample_rate_hz: int) -> MelSpec:
    """Mel bins up to the Nyquist frequency, windows of 32 to 64 ms, whatever the rate."""
    n_fft = 2 ** math.ceil(math.log2(sample_rate_hz * 0.032))
    return MelSpec(
        sample_rate_hz=sample_rate_hz, n_fft=n_fft, win_length=n_fft, hop_length=n_fft // 4, n_mels=ROWS, f_min_hz=0,
        f_max_hz=sample_rate_hz / 2, scale="slaney", norm="slaney", log="ln", floor=1e-6, center=True,
    )  # fmt: skip


def levels_db(samples: np.ndarray, spec: MelSpec) -> np.ndarray:
    """Levels ``[n_mels, columns]`` in dB of ``samples`` ``[samples]``; frames beyond 480 are averaged in power."""
    padded = np.pad(samples.astype(np.float32), (0, max(0, spec.shortest_clip - len(samples))))
    power = spec.to_linear(LogMel(spec)(torch.from_numpy(padded)[None])).square()
    if power.shape[-1] > MOST_COLUMNS:
        power = F.adaptive_avg_pool1d(power, MOST_COLUMNS)
    return (10 * power[0].log10()).numpy()


def level_picture(levels: np.ndarray, loudest_db: float) -> bytes:
    """PNG of ``levels`` ``[n_mels, columns]``, low frequencies at the bottom; one pixel a value."""
    colours = level_colours()
    steps = (levels - loudest_db + LEVEL_RANGE_DB) / LEVEL_STEP_DB
    return _png(steps, [(*colour, 255) for colour in colours])


def difference_picture(levels: np.ndarray, reference: np.ndarray) -> bytes:
    """PNG of ``levels`` minus ``reference``, both ``[n_mels, columns]``; where they are equal it is transparent."""
    colours = difference_colours()
    return _png((levels - reference) / DIFFERENCE_STEP_DB + len(colours) // 2, colours)


def outline(samples: np.ndarray, columns: int) -> np.ndarray:
    """Lowest and highest sample of each of ``columns`` equal parts: int8 ``[2, columns]``, full scale ±127."""
    edges = np.linspace(0, len(samples), columns, endpoint=False).astype(int)
    ends = np.stack([np.minimum.reduceat(samples, edges), np.maximum.reduceat(samples, edges)])
    return np.clip(np.rint(ends * 127), -127, 127).astype(np.int8)


@cache
def level_colours() -> tuple[tuple[int, int, int], ...]:
    """Red, green and blue of each step, quiet to loud: magma, which reads in grey and to colour-blind eyes too."""
    from matplotlib import colormaps

    shades = colormaps["magma"](np.linspace(0, 1, round(LEVEL_RANGE_DB / LEVEL_STEP_DB) + 1))
    return tuple((int(r), int(g), int(b)) for r, g, b in np.rint(255 * shades[:, :3]))


@cache
def difference_colours() -> tuple[tuple[int, int, int, int], ...]:
    """Red, green, blue and opacity of each step, quieter than the reference to louder."""
    half = round(DIFFERENCE_RANGE_DB / DIFFERENCE_STEP_DB)
    return tuple(
        # Opacity rises fast at first, because most differences are small.
        (*(QUIETER if step < 0 else LOUDER), round(255 * (abs(step) / half) ** 0.7))
        for step in range(-half, half + 1)
    )


def ticks(spec: MelSpec) -> list[tuple[int, float]]:
    """Frequencies in Hz and how far up the picture they lie, 0 to 1."""
    filters = spec.filterbank()
    frequencies = np.arange(filters.shape[1]) * spec.sample_rate_hz / spec.n_fft
    filled = np.flatnonzero(filters.sum(axis=1))  # a filter narrower than an FFT bin is empty
    centres = filters[filled] @ frequencies / filters[filled].sum(axis=1)
    shown = [hertz for hertz in TICKS_HZ if hertz < 0.9 * spec.f_max_hz]
    return [(hertz, float((np.interp(hertz, centres, filled) + 0.5) / spec.n_mels)) for hertz in shown]


def _png(steps: np.ndarray, palette: Sequence[tuple[int, int, int, int]]) -> bytes:
    from PIL import Image

    indices = np.clip(np.rint(steps), 0, len(palette) - 1).astype(np.uint8)[::-1]
    image = Image.fromarray(np.ascontiguousarray(indices)).convert("L")
    image.putpalette([channel for colour in palette for channel in colour[:3]])  # makes it an image of indices
    opacity = bytes(colour[3] for colour in palette)
    file = io.BytesIO()
    transparency = {} if opacity == b"\xff" * len(opacity) else {"transparency": opacity}
    image.save(file, format="PNG", **transparency)
    return file.getvalue()
