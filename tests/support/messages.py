"""The texts of messages that tests compare, kept in one file: ``tests/messages.txt``.

A change of wording is a change of that file. After reading the new texts, write them with::

    python3 conf/bootstrap.py pytest --update-messages

Without that option nothing is ever written: a message that is missing from the file fails its test.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
FILE = PROJECT / "tests" / "messages.txt"
HEADER = "# Written by: pytest --update-messages. Below each test, the messages that it compares, one a line.\n"


class Messages:
    """The messages of one test, in the order in which it compares them.

    Args:
        test: the test's node id.
        folder: a folder whose name differs from run to run. Messages show it as ``TMP``, and the project's folder as
            ``PROJECT``.
        expected: the texts in the file; None while they are being written.
    """

    def __init__(self, test: str, folder: Path, expected: list[str] | None) -> None:
        self.test = test
        self.folder = folder
        self.expected = expected
        self.found: list[str] = []

    def check(self, message: object) -> None:
        """Compare a message with the next one in the file."""
        text = str(message).replace(str(self.folder), "TMP").replace(str(PROJECT), "PROJECT")
        text = text.replace("\\", "\\\\").replace("\n", "\\n")
        position = len(self.found)
        self.found.append(text)
        if self.expected is None:
            return
        remedy = f"if the new text is right, run: pytest {self.test.split('[')[0]} --update-messages"
        assert position < len(self.expected), f"not in {FILE.name}: {text!r}; {remedy}"
        assert text == self.expected[position], remedy

    @contextlib.contextmanager
    def refused(self, kind: type[Exception]) -> Iterator[None]:
        """Expect an error of this kind, and compare its message."""
        with pytest.raises(kind) as caught:
            yield
        self.check(caught.value)


def read_messages() -> dict[str, list[str]]:
    """The file's messages by test."""
    messages: dict[str, list[str]] = {}
    test = ""
    for line in FILE.read_text(encoding="utf-8").splitlines() if FILE.exists() else []:
        if line.startswith("    "):
            messages[test].append(line[4:])
        elif line and not line.startswith("#"):
            test = line
            messages[test] = []
    return messages


def write_messages(messages: dict[str, list[str]]) -> None:
    """Write the file, sorted by test."""
    parts = [f"{test}\n" + "".join(f"    {text}\n" for text in texts) for test, texts in sorted(messages.items())]
    FILE.write_text("\n".join([HEADER, *parts]), encoding="utf-8")


@pytest.fixture
def messages(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Messages]:
    """Compare messages with ``tests/messages.txt``, each case of a parametrised test on its own."""
    yield from _compare(request, request.node.nodeid, tmp_path)


@pytest.fixture
def same_messages(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Messages]:
    """Compare messages that are the same in every case of a parametrised test, such as for every vocoder."""
    yield from _compare(request, request.node.nodeid.partition("[")[0], tmp_path)


def _compare(request: pytest.FixtureRequest, test: str, tmp_path: Path) -> Iterator[Messages]:
    updating = request.config.getoption("--update-messages")
    recorded = read_messages()
    current = Messages(test, tmp_path, None if updating else recorded.get(test, []))
    yield current
    if updating:
        recorded.pop(test, None)
        write_messages(recorded | ({test: current.found} if current.found else {}))
    else:
        assert len(current.found) == len(recorded.get(test, [])), f"{FILE.name} has more messages for {test}"
