"""Sound through the loudspeaker, as it is made."""

from types import TracebackType
from typing import Any

import numpy as np

from wavegen.errors import OutputError


class Player:
    """Plays mono audio; ``write`` returns when there is room for more, and leaving the block when all was heard.

    Args:
        sample_rate_hz: samples per second.

    Attributes:
        gaps: times that the device had nothing to play, because samples came too late.

    Raises:
        OutputError: the sounddevice package is missing, or there is no device that plays this.
    """

    def __init__(self, sample_rate_hz: int) -> None:
        try:
            import sounddevice
        except (ImportError, OSError) as error:  # OSError: without the PortAudio library
            raise OutputError(
                f"cannot play: {error}", remedy="pip install 'wavegen[play]'; on Linux also install libportaudio2"
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
        """Play ``samples`` ``[samples]`` after those before."""
        try:
            # A column of its own: PortAudio wants [samples, channels] in one piece.
            came_late = self._stream.write(np.ascontiguousarray(samples.astype(np.float32).clip(-1, 1)[:, None]))
        except self._failure as error:
            raise _no_device(error) from error
        self.gaps += bool(came_late)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            self._stream.stop()  # after what is queued
        else:
            self._stream.abort()
        self._stream.close()


def _no_device(error: Exception) -> OutputError:
    return OutputError(f"cannot play: {error}", remedy="see that a sound device is there, or write a file instead")
