"""The file of messages: what it refuses, and that nothing in it is left over."""

from pathlib import Path

import pytest
from support.messages import Messages, read_messages

ROOT = Path(__file__).parents[1]


def test_a_message_that_differs_or_is_not_in_the_file_fails(tmp_path: Path) -> None:
    known = Messages("a test", tmp_path, ["TMP/a.npz: is cut short"])
    known.check(f"{tmp_path}/a.npz: is cut short")
    with pytest.raises(AssertionError, match=r"not in messages\.txt"):
        known.check("another")
    with pytest.raises(AssertionError, match="--update-messages"):
        Messages("a test", tmp_path, ["this"]).check("that")


def test_a_refusal_compares_the_message(tmp_path: Path) -> None:
    with Messages("a test", tmp_path, ["is negative"]).refused(ValueError):
        raise ValueError("is negative")
    with pytest.raises(AssertionError), Messages("a test", tmp_path, ["is negative"]).refused(ValueError):
        raise ValueError("is positive")


def test_every_message_in_the_file_belongs_to_a_test() -> None:
    for test in read_messages():
        file, _, name = test.partition("::")
        function = name.partition("[")[0].rpartition("::")[2]
        assert (ROOT / file).exists(), test
        assert f"def {function}(" in (ROOT / file).read_text(encoding="utf-8"), test
