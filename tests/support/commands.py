"""Running commands in the test's process, in a folder of its own, and what a refusal must look like."""

import importlib
import keyword
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from support.messages import Messages

Main = Callable[[list[str]], int]


def command_main(command: str) -> Main:
    """The function behind ``train``, ``import`` and the like."""
    name = f"{command}_" if keyword.iskeyword(command) else command
    main: Main = importlib.import_module(f"wavegen.commands.{name}").main
    return main


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run the test in an empty folder, so that messages name relative, known paths."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def tree() -> dict[str, bytes | None]:
    """Everything below the current folder, hidden files too."""
    return {str(path): path.read_bytes() if path.is_file() else None for path in sorted(Path().rglob("*"))}


class Refused:
    """Runs a command that must fail: exit code 2, one line on stderr, nothing on stdout, no file changed.

    The line, without the command's name, is compared with the file of messages.
    """

    def __init__(self, capsys: pytest.CaptureFixture[str], messages: Messages) -> None:
        self.capsys = capsys
        self.messages = messages

    def __call__(self, main: Main, *arguments: str, hide: str | None = None) -> None:
        """Run ``main``; what matches ``hide``, such as another library's words, is left out of the comparison."""
        before = tree()
        self.capsys.readouterr()
        try:
            code = main(list(arguments))
        except SystemExit as exit:
            code = exit.code
        assert code == 2
        assert tree() == before
        out, err = self.capsys.readouterr()
        assert out == ""
        usage = r"(?:usage: (?:.*\n)*)?"  # of argparse
        line = re.fullmatch(rf"{usage}wavegen-\w+: error: (.*)\n", err)
        assert line, err
        self.messages.check(re.sub(hide, "…", line[1]) if hide else line[1])


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str], messages: Messages) -> Refused:
    """Run commands that must fail, see ``Refused``."""
    return Refused(capsys, messages)
