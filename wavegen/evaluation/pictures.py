"""Log-mel spectrograms side by side, for listening reports and TensorBoard."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from wavegen.files import write_beside
from wavegen.mel import LogMel, MelSpec

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN_RANGE_DB = 80.0  # below the loudest point
DIFFERENCE_RANGE_DB = 20.0  # the same in every picture, so that pictures compare
TICKS_HZ = (100, 500, 1000, 2000, 5000, 10000, 20000)


def spectrogram_figure(waveforms: Mapping[str, np.ndarray], spec: MelSpec) -> "Figure":
    """Log-mel spectrograms of ``waveforms`` on one colour scale, then their differences to the first.

    Args:
        waveforms: title -> float ``[samples]`` at the rate of ``spec``; their common start is shown, and what is
            too short for a frame is shown with silence after it.
        spec: bins and framing; levels are decibels of its linear mel.
    """
    from matplotlib.figure import Figure

    length = max(min(map(len, waveforms.values())), 1)
    levels = {title: _decibels(samples[:length], spec) for title, samples in waveforms.items()}
    first, *others = levels
    differences = {f"{title} minus {first}": levels[title] - levels[first] for title in others}

    panels = len(levels) + len(differences)
    figure = Figure(figsize=(1.2 + 3.6 * panels, 3.6), dpi=110, layout="constrained")
    axes = figure.subplots(1, panels, sharex=True, sharey=True, squeeze=False)[0]
    # Never a scale that reaches below the floor, lest silence look loud.
    floor_db = 20 * math.log10(spec.floor)
    loudest = max(floor_db + SHOWN_RANGE_DB, *(float(level.max()) for level in levels.values()))
    extent = (0.0, length / spec.sample_rate_hz, -0.5, spec.n_mels - 0.5)
    for group, colours, low, high, label in (
        (levels, "magma", loudest - SHOWN_RANGE_DB, loudest, "mel level in dB"),
        (differences, "RdBu_r", -DIFFERENCE_RANGE_DB, DIFFERENCE_RANGE_DB, "difference in dB"),
    ):
        own = axes[: len(levels)] if group is levels else axes[len(levels) :]
        for panel, (title, values) in zip(own, group.items(), strict=True):
            image = panel.imshow(
                values, cmap=colours, vmin=low, vmax=high, extent=extent, origin="lower", aspect="auto"
            )
            panel.set_title(title, fontsize=10)
            panel.set_xlabel("time in s")
        if group:
            figure.colorbar(image, ax=list(own), label=label, pad=0.02, fraction=0.06 / len(own))
    hertz = [tick for tick in TICKS_HZ if spec.f_min_hz <= tick <= spec.f_max_hz]
    axes[0].set_yticks(_bins_of(hertz, spec), [f"{tick // 1000}k" if tick >= 1000 else str(tick) for tick in hertz])
    axes[0].set_ylabel("frequency in Hz, mel-spaced")
    return figure


def save_figure(figure: "Figure", path: Path) -> None:
    """Write ``figure`` as a PNG.

    Raises:
        OutputError: the file cannot be written.
    """
    with write_beside(path) as beside:
        figure.savefig(beside, format="png")


def figure_to_array(figure: "Figure") -> np.ndarray:
    """``figure`` as uint8 ``[height, width, 3]``, red, green and blue."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.array(canvas.buffer_rgba())[..., :3]


def _decibels(samples: np.ndarray, spec: MelSpec) -> np.ndarray:
    """Level ``[n_mels, frames]`` in dB."""
    padded = np.pad(samples.astype(np.float32), (0, max(0, spec.shortest_clip - len(samples))))
    linear = spec.to_linear(LogMel(spec)(torch.from_numpy(padded)[None])[0])
    return (20 * linear.log10()).numpy()


def _bins_of(hertz: list[int], spec: MelSpec) -> np.ndarray:
    """Fractional mel bins that lie at these frequencies, by the filters' centres of gravity."""
    filters = spec.filterbank()
    frequencies = np.arange(filters.shape[1]) * spec.sample_rate_hz / spec.n_fft
    filled = np.flatnonzero(filters.sum(axis=1))  # a filter narrower than an FFT bin is empty
    centres = filters[filled] @ frequencies / filters[filled].sum(axis=1)
    return np.interp(hertz, centres, filled)
