"""Play sound while it is made."""

from types import TracebackType
from typing import Any

import numpy as np

from wavegen.errors import OutputError


class Player:
    """Plays mono audio. ``write`` returns when there is room for more; the block ends when everything was played.

    Args:
        sample_rate_hz: samples per second.

    Attributes:
        gaps: number of times that the device had nothing to play, because samples came too late.

    Raises:
        OutputError: the sounddevice package is missing, or no device plays this format.
    """

    def __init__(self, sample_rate_hz: int) -> None:
        try:
            import sounddevice
        except (ImportError, OSError) as error:  # OSError: the PortAudio library is missing
            raise OutputError(
                f"cannot play: {error}", remedy="run pip install 'wavegen[play]'; on Linux also install libportaudio2"
            ) from error
        self._failure = sounddevice.PortAudioError
        self.gaps = 0
        try:
            self._stream: Any = sounddevice.OutputStream(samplerate=sample_rate_hz, channels=1, dtype="float32")
        except (sounddevice.PortAudioError, ValueError) as error:
            raise _no_device(error) from error

    def __enter__(self) -> "Player":
        try:
            self._stream.start()
        except self._failure as error:
            raise _no_device(error) from error
        return self

    def write(self, samples: np.ndarray) -> None:
        """Queue ``samples`` ``[samples]`` behind those that are playing."""
        try:
            # PortAudio needs a contiguous array [samples, channels].
            came_late = self._stream.write(np.ascontiguousarray(samples.astype(np.float32).clip(-1, 1)[:, None]))
        except self._failure as error:
            raise _no_device(error) from error
        self.gaps += bool(came_late)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            self._stream.stop()  # plays what is queued first
        else:
            self._stream.abort()
        self._stream.close()


def _no_device(error: Exception) -> OutputError:
    return OutputError(f"cannot play: {error}", remedy="check that there is a sound device, or write a file")
