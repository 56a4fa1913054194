"""Errors are one line, survive being sent to another process, and can be caught as Python's own classes."""

import pickle

import pytest

from wavegen import errors
from wavegen.errors import ConfigError, OutputError, WavegenError

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, WavegenError)]


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_names_the_place_the_fault_and_the_remedy_in_one_line(kind: type[WavegenError]) -> None:
    assert str(kind("is damaged", where="a.wav", remedy="copy it\nagain")) == "a.wav: is damaged; copy it again"
    assert str(kind("is damaged", remedy=None)) == "is damaged"


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_reaches_another_process_unchanged(kind: type[WavegenError]) -> None:
    error = kind("is damaged", where="a.wav", remedy="copy it again")
    received = pickle.loads(pickle.dumps(error))
    assert (type(received), str(received)) == (kind, str(error))
    assert getattr(received, "errno", None) == getattr(error, "errno", None)


def test_an_impossible_value_is_a_value_error() -> None:
    assert issubclass(ConfigError, ValueError)


def test_a_result_that_cannot_be_written_is_an_os_error() -> None:
    assert issubclass(OutputError, OSError)


@pytest.mark.parametrize(
    ("missing", "kind"),
    [
        (errors.MissingAudioError, errors.AudioError),
        (errors.MissingMelError, errors.MelError),
        (errors.MissingDataError, errors.DataError),
        (errors.MissingCheckpointError, errors.CheckpointError),
    ],
)
def test_a_missing_file_is_a_file_not_found_error(
    missing: type[errors.MissingFileError], kind: type[WavegenError]
) -> None:
    assert issubclass(missing, FileNotFoundError)
    assert issubclass(missing, kind)
    error = missing(where="a.wav")
    assert str(error) == "a.wav: no such file; check the path"
    assert error.errno == 2
