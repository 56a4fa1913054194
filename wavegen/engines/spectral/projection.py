"""A mel imposed on sources, and the iterations after it, in tiles of frames that stay in the cache."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from wavegen.blocks.istft import MIN_ENVELOPE
from wavegen.engines.spectral.bands import Bands, Room, Rows
from wavegen.engines.spectral.functions import Functions
from wavegen.engines.spectral.spectra import Correction, Target
from wavegen.engines.spectral.workspace import Workspace
from wavegen.mel import MelProjection
from wavegen.mel.transform import MOMENTUM, SMALLEST_POWER

TILE_FRAMES = 96  # with 1024 samples each, 400 kB of frames and as much of spectra


class LogGains(NamedTuple):
    """What a network adds to the spectra of two sources.

    Attributes:
        values: ``[frames, 4 * bins]``: log-gains of the first source, of the second, of the magnitude after the mel is
            imposed, and the phase to add; or what ``output`` makes these of.
        largest_gain: limit of the log-gains in both directions.
        largest_magnitude: limit of the magnitude.
        output: the network's last layer; None if ``values`` have been through it. They are many, so it is better to
            make them tile by tile.
    """

    values: Tensor
    largest_gain: float
    largest_magnitude: float
    output: Callable[[Tensor], Tensor] | None = None

    def of(self, rows: slice) -> Correction:
        """The correction of some frames."""
        values = self.values[rows] if self.output is None else self.output(self.values[rows])
        return Correction(values.float().numpy(), np.float32(self.largest_gain), np.float32(self.largest_magnitude))


class CompiledProjection:
    """Computes what a ``MelProjection`` does, for one item.

    Args:
        projection: the projection, float32 on a CPU.
        functions: the compiled functions.
    """

    def __init__(self, projection: MelProjection, functions: Functions) -> None:
        self._projection, self._functions = projection, functions
        istft = projection.istft
        self._n_fft, self._hop, self._left = istft.n_fft, istft.hop_length, istft.left_padding
        self._window = istft.window.numpy()
        self._workspace = Workspace()
        self._bands: dict[float, tuple[Bands, np.ndarray]] = {}

    def __call__(
        self,
        sources: Tensor,
        mel: Tensor,
        mask: Tensor | None,
        *,
        iterations: int,
        corrections: Tensor | None = None,
        limits: tuple[float, float] = (0.0, 0.0),
        output: Callable[[Tensor], Tensor] | None = None,
    ) -> Tensor:
        """``render`` for a batch.

        Args:
            sources: ``[batch, sources, frames * hop_length]``.
            mel: ``[batch, n_mels, frames]``.
            mask: ``[batch, 1, frames]``, True where a frame is real; None if all are.
            iterations: number of iterations.
            corrections: ``[batch, channels, frames]``, the values of ``LogGains``; None for none.
            limits: the limits of ``LogGains``.
            output: that of ``LogGains``.

        Returns:
            ``[batch, frames * hop_length]``; 0 outside the mask.
        """
        lengths = [mel.shape[-1]] * len(mel) if mask is None else mask[:, 0].sum(-1).tolist()
        samples = torch.zeros_like(sources[:, 0])
        for item, length in enumerate(lengths):
            gains = None
            if corrections is not None:
                gains = LogGains(corrections[item, :, :length].t().contiguous(), *limits, output)
            end = length * self._hop
            if length:
                samples[item, :end] = self.render(sources[item, :, :end], mel[item, :, :length], gains, iterations)
        return samples

    def render(self, sources: Tensor, mel: Tensor, gains: LogGains | None, iterations: int) -> Tensor:
        """Impose a mel on the spectra of sources, correct them, and invert them after some iterations.

        Args:
            sources: ``[sources, frames * hop_length]``: two with gains, one without.
            mel: ``[n_mels, frames]``.
            gains: a network's corrections; None for none.
            iterations: number of iterations.

        Returns:
            ``[frames * hop_length]``.
        """
        frames = mel.shape[1]
        bands, unread = self._bands_of(self._projection.blur_hz)
        target = Target(
            self._workspace.empty("linear", len(mel), frames).numpy(),
            unread,
            self._workspace.empty("kept", frames, len(unread)).numpy(),
        )
        spectrum = self._imposed(bands, sources, mel, gains, target)
        previous = self._workspace.empty("previous", *spectrum.shape, dtype=spectrum.dtype)
        scale = self._workspace.empty("scale", (frames - 1) * self._hop + self._n_fft).numpy()
        envelope = self._window, self._hop, frames, self._left, np.float32(MIN_ENVELOPE), scale
        self._functions.inverse_envelope(*envelope)
        momentum = np.float32(0)
        for _ in range(iterations):
            self._iterate(bands, target, momentum, previous, spectrum, scale)
            momentum = np.float32(MOMENTUM / (1 + MOMENTUM))
        signal = np.zeros_like(scale)
        for rows in self._tiles(frames):
            self._add(spectrum, rows, scale, signal)
        return torch.from_numpy(signal[self._left : self._left + frames * self._hop])

    def _imposed(self, bands: Bands, sources: Tensor, mel: Tensor, gains: LogGains | None, target: Target) -> Tensor:
        """The spectra before the iterations, complex ``[frames, bins]``; writes ``target``."""
        frames, bins = mel.shape[1], self._n_fft // 2 + 1
        linear = self._projection.inverse.linear(mel, self._projection.blur_hz).contiguous().numpy()
        padding = self._left, self._n_fft - self._hop - self._left
        signals = torch.nn.functional.pad(sources, padding).numpy()
        spectrum = self._workspace.empty("spectrum", frames, bins, dtype=torch.complex64)
        nothing = np.empty((0, 0), dtype=np.float32)
        windowed = self._workspace.empty("sources", len(signals), TILE_FRAMES, self._n_fft)
        for rows in self._tiles(frames):
            count = rows.stop - rows.start
            for signal, room in zip(signals, windowed, strict=True):
                self._functions.frame_signal(signal, rows.start, self._hop, self._window, room[:count].numpy())
            spectra = torch.fft.rfft(windowed[:, :count]).contiguous()
            correction = Correction(nothing, np.float32(0), np.float32(0)) if gains is None else gains.of(rows)
            self._functions.impose(
                bands, Room.make(bands), rows.start, _parts(spectra), correction, linear, self._projection.updates,
                np.float32(SMALLEST_POWER), _parts(spectrum), target,
            )  # fmt: skip
        return spectrum

    def _iterate(
        self,
        bands: Bands,
        target: Target,
        momentum: np.float32,
        previous: Tensor,
        spectrum: Tensor,
        scale: np.ndarray,
    ) -> None:
        """One iteration, in place. A frame is analysed as soon as all frames that overlap it have been added."""
        frames, later = len(spectrum), (self._n_fft - 1) // self._hop
        signal = self._workspace.empty("signal", len(scale)).zero_().numpy()
        windowed = self._workspace.empty("windowed", TILE_FRAMES + later, self._n_fft)
        done = 0
        for rows in self._tiles(frames):
            self._add(spectrum, rows, scale, signal)
            ready = frames if rows.stop == frames else max(done, rows.stop - later)
            room = windowed[: ready - done]
            self._functions.frame_signal(signal, done, self._hop, self._window, room.numpy())
            consistent = _parts(torch.fft.rfft(room))
            self._functions.project(
                bands, Room.make(bands), done, consistent, momentum, np.float32(SMALLEST_POWER), target,
                _parts(previous), _parts(spectrum),
            )  # fmt: skip
            done = ready

    def _add(self, spectrum: Tensor, rows: slice, scale: np.ndarray, signal: np.ndarray) -> None:
        """Invert the spectra of a tile, and add them to a signal."""
        windows = torch.fft.irfft(spectrum[rows], n=self._n_fft)
        end = len(signal) if rows.stop == len(spectrum) else rows.stop * self._hop
        self._functions.overlap_add(windows.numpy(), rows.start, self._hop, self._window, scale, end, signal)

    def _bands_of(self, blur_hz: float) -> tuple[Bands, np.ndarray]:
        """The filterbank, blurred or not, and the bins that it does not read."""
        if blur_hz not in self._bands:
            blocks = self._projection.inverse.filter_blocks(torch.float32, blur_hz)
            bands = Bands(Rows.pack(blocks.filters), Rows.pack(blocks.weights.t()))
            self._bands[blur_hz] = bands, blocks.unread.numpy()
        return self._bands[blur_hz]

    @staticmethod
    def _tiles(frames: int) -> list[slice]:
        return [slice(first, min(first + TILE_FRAMES, frames)) for first in range(0, frames, TILE_FRAMES)]


def _parts(spectrum: Tensor) -> np.ndarray:
    """Complex ``[…, bins]`` as float32 ``[…, 2 * bins]``."""
    return torch.view_as_real(spectrum).flatten(-2).numpy()
