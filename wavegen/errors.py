"""Every error a user can cause: what is wrong, where, and what to do about it, in one line."""


class WavegenError(Exception):
    """A mistake the user can mend.

    Commands print it as one line and exit with code 2; it never surfaces as a traceback there.

    Args:
        what: the fault, as a clause without a full stop.
        where: the file, recipe key or argument at fault; leads the message.
        remedy: what the user can do about it; ends the message.
    """

    def __init__(self, what: str, *, where: object = None, remedy: str | None = None) -> None:
        self.what, self.where, self.remedy = what, where, remedy
        super().__init__(what)

    def __str__(self) -> str:
        message = self.what if self.where is None else f"{self.where}: {self.what}"
        if self.remedy:
            message = f"{message}; {self.remedy}"
        return " ".join(message.split())


class AudioError(WavegenError):
    """A recording that cannot be read, or audio that cannot be written."""


class MelError(WavegenError):
    """A mel spectrogram that is malformed, or made to another definition than the one needed."""


class ConfigError(WavegenError):
    """A recipe with an unknown key, a wrong type or an impossible combination."""


class DataError(WavegenError):
    """A corpus or manifest that cannot be used."""


class CheckpointError(WavegenError):
    """A checkpoint that is damaged, foreign, or of another format version."""


class OutputError(WavegenError):
    """A result that cannot be written."""


class TrainingError(WavegenError):
    """A training that has gone wrong and would only waste time."""


class StreamingError(WavegenError):
    """A layer or vocoder asked to stream in a way that it cannot."""
