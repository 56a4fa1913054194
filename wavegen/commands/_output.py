"""Standard output and error as users connect them: in any encoding, to a pipe that closes, to a full disk.

Hours of work must not end in an error because a line about it cannot be printed.
"""

import contextlib
import errno
import os
import sys

_failures: list[str] = []


def accept_all_characters() -> None:
    """Let both streams print characters that their encoding lacks, and file names that are not UTF-8, as escapes."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def print_line(line: str) -> None:
    """Print a line on standard output at once; a failure is kept for ``take_failure``, and the work goes on.

    A reader that has gone, as in ``| head -1``, has seen what it wanted, which is not a failure.
    """
    try:
        print(line, flush=True)
    except OSError as error:
        if error.errno != errno.EPIPE and not _failures:
            _failures.append(error.strerror or str(error))
        _discard_standard_output()


def take_failure() -> str | None:
    """Why standard output could not be written since the last call; None if it could."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError, AttributeError):  # closed, absent, or a stream of samples that has reported it
        _discard_standard_output()
    failure = _failures[0] if _failures else None
    _failures.clear()
    return failure


def complain(line: str) -> None:
    """Print a line on standard error, if there is one."""
    with contextlib.suppress(OSError, ValueError):
        print(line, file=sys.stderr, flush=True)


def _discard_standard_output() -> None:
    """Let what is still buffered go nowhere: Python would try to write it when it exits, and complain."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
