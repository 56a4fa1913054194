"""Log-mel spectrograms side by side, for listening samples and TensorBoard."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from wavegen.files import atomic_write
from wavegen.listening.thumbnails import DIFFERENCE_RANGE_DB, LEVEL_RANGE_DB, linear_mel, mel_bins
from wavegen.mel import MelSpec

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TICKS_HZ = (100, 500, 1000, 2000, 5000, 10000, 20000)


def spectrogram_figure(waveforms: Mapping[str, np.ndarray], spec: MelSpec) -> "Figure":
    """Log-mel spectrograms of ``waveforms`` on one colour scale, followed by their differences from the first.

    Args:
        waveforms: title -> float ``[samples]`` at the sample rate of ``spec``. All are cut to the shortest one; clips
            too short for a frame are padded with silence.
        spec: mel definition of the pictures; levels are decibels of its linear mel.
    """
    from matplotlib.figure import Figure

    length = max(min(map(len, waveforms.values())), 1)
    levels = {title: _levels_db(samples[:length], spec) for title, samples in waveforms.items()}
    first, *others = levels
    differences = {f"{title} minus {first}": levels[title] - levels[first] for title in others}

    panels = len(levels) + len(differences)
    figure = Figure(figsize=(1.2 + 3.6 * panels, 3.6), dpi=110, layout="constrained")
    axes = figure.subplots(1, panels, sharex=True, sharey=True, squeeze=False)[0]

    # The colour scale never reaches below the mel's floor: silence would look loud.
    floor_db = 20 * math.log10(spec.floor)
    peak_db = max(floor_db + LEVEL_RANGE_DB, *(float(level.max()) for level in levels.values()))
    extent = (0.0, length / spec.sample_rate_hz, -0.5, spec.n_mels - 0.5)
    for group, group_axes, colours, low, high, label in (
        (levels, axes[: len(levels)], "magma", peak_db - LEVEL_RANGE_DB, peak_db, "mel level in dB"),
        (differences, axes[len(levels) :], "RdBu_r", -DIFFERENCE_RANGE_DB, DIFFERENCE_RANGE_DB, "difference in dB"),
    ):
        for panel, (title, values) in zip(group_axes, group.items(), strict=True):
            image = panel.imshow(
                values, cmap=colours, vmin=low, vmax=high, extent=extent, origin="lower", aspect="auto"
            )
            panel.set_title(title, fontsize=10)
            panel.set_xlabel("time in s")
        if group:
            figure.colorbar(image, ax=list(group_axes), label=label, pad=0.02, fraction=0.06 / len(group_axes))

    shown = [hertz for hertz in TICKS_HZ if spec.f_min_hz <= hertz <= spec.f_max_hz]
    labels = [f"{hertz // 1000}k" if hertz >= 1000 else str(hertz) for hertz in shown]
    axes[0].set_yticks(mel_bins(shown, spec), labels)
    axes[0].set_ylabel("frequency in Hz, mel-spaced")
    return figure


def rows_figure(pictures: Mapping[str, np.ndarray], *, frame_s: float) -> "Figure":
    """Pictures of the same frames one below another, each on a colour scale of its own.

    Args:
        pictures: title -> float ``[rows, frames]``, the first row at the bottom.
        frame_s: duration of a frame in seconds.
    """
    from matplotlib.figure import Figure

    heights = [3.0 if len(values) > 10 else 1.0 for values in pictures.values()]
    figure = Figure(figsize=(9.0, 0.5 + 0.7 * sum(heights)), dpi=110, layout="constrained")
    axes = figure.subplots(len(pictures), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    for panel, (title, values) in zip(axes, pictures.items(), strict=True):
        extent = (0.0, values.shape[1] * frame_s, -0.5, len(values) - 0.5)
        panel.imshow(values, cmap="magma", extent=extent, origin="lower", aspect="auto", interpolation="nearest")
        panel.set_title(title, fontsize=10)
        panel.set_yticks([])
    axes[-1].set_xlabel("time in s")
    return figure


def save_figure(figure: "Figure", path: Path) -> None:
    """Write ``figure`` as a PNG.

    Raises:
        OutputError: the file cannot be written.
    """
    with atomic_write(path) as beside:
        figure.savefig(beside, format="png")


def figure_to_array(figure: "Figure") -> np.ndarray:
    """Pixels of ``figure``: red, green and blue, uint8 ``[height, width, 3]``."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.array(canvas.buffer_rgba())[..., :3]


def _levels_db(samples: np.ndarray, spec: MelSpec) -> np.ndarray:
    return (20 * linear_mel(samples, spec).log10()).numpy()
