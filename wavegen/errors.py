"""Every error that a user can cause: what is wrong, where, and what to do about it, in one line.

All are ``WavegenError``. Where Python has a built-in class for the fault, the error belongs to that class too:
``ConfigError`` is a ``ValueError``, ``OutputError`` is an ``OSError``, and an error about a missing file is a
``FileNotFoundError``.
"""

import errno

__all__ = [
    "AudioError",
    "CheckpointError",
    "ConfigError",
    "DataError",
    "MelError",
    "MissingAudioError",
    "MissingCheckpointError",
    "MissingDataError",
    "MissingFileError",
    "MissingMelError",
    "OutputError",
    "StreamingError",
    "TrainingError",
    "WavegenError",
]


class WavegenError(Exception):
    """A mistake that the user can fix. Commands print it as one line, without a traceback, and exit with code 2.

    Args:
        what: the fault, as a clause without a full stop.
        where: the file, recipe key or argument at fault; the message starts with it.
        remedy: the user's way out; the message ends with it.
    """

    def __init__(self, what: str, *, where: object = None, remedy: str | None = None) -> None:
        self.what = what
        self.where = where
        self.remedy = remedy
        super().__init__(what)

    def __str__(self) -> str:
        message = self.what if self.where is None else f"{self.where}: {self.what}"
        if self.remedy:
            message = f"{message}; {self.remedy}"
        return " ".join(message.split())


class AudioError(WavegenError):
    """A recording that cannot be read, or audio that cannot be written."""


class MelError(WavegenError):
    """A mel spectrogram that is malformed, or has another mel definition than the one needed."""


class ConfigError(WavegenError, ValueError):
    """An unknown name, a wrong type, an impossible value or an impossible combination, in a recipe or an argument."""


class DataError(WavegenError):
    """A corpus or manifest that cannot be used."""


class CheckpointError(WavegenError):
    """A checkpoint that is damaged, not wavegen's, or of another format version."""


class OutputError(WavegenError, OSError):
    """A result that cannot be written."""


class TrainingError(WavegenError):
    """A training run that has gone wrong and would only waste time."""


class StreamingError(WavegenError):
    """A layer or vocoder that is asked to stream in a way that it cannot."""


class MissingFileError(WavegenError, FileNotFoundError):
    """A file or folder that does not exist; raised as one of the classes below, by what the file should hold."""

    def __init__(
        self, what: str = "no such file", *, where: object = None, remedy: str | None = "check the path"
    ) -> None:
        super().__init__(what, where=where, remedy=remedy)
        self.errno = errno.ENOENT


class MissingAudioError(MissingFileError, AudioError):
    """A recording that does not exist."""


class MissingMelError(MissingFileError, MelError):
    """A mel file that does not exist."""


class MissingDataError(MissingFileError, DataError):
    """A manifest or folder of recordings that does not exist."""


class MissingCheckpointError(MissingFileError, CheckpointError):
    """A model or checkpoint that does not exist."""
