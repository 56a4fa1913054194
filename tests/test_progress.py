"""Bars in a terminal, a line now and then elsewhere; and torch's threads while work is parallel."""

import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from wavegen.progress import LinePacer, bar_options, one_torch_thread, shows_bars, tell_if_slow


@pytest.mark.parametrize("terminal", [True, False])
def test_bars_are_live_in_a_terminal_and_slow_elsewhere(monkeypatch: pytest.MonkeyPatch, terminal: bool) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    assert shows_bars() == terminal
    assert bar_options() == ({"dynamic_ncols": True} if terminal else {"delay": 10, "mininterval": 10})


def test_a_line_is_due_at_once_and_then_every_ten_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    times = [1000.0, 1000.1, 1010.0, 1010.1, 1020.0, 1020.2]
    monkeypatch.setattr(time, "monotonic", iter(times).__next__)
    pacer = LinePacer()
    assert [pacer.is_due() for _ in times] == [True, False, False, True, False, True]


def test_torch_has_one_thread_inside_the_block_and_its_own_number_afterwards() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with pytest.raises(ZeroDivisionError), one_torch_thread():  # noqa: PT012
            assert torch.get_num_threads() == 1
            raise ZeroDivisionError
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_threads_that_overlap_each_have_one_torch_thread_and_get_back_what_they_had() -> None:
    before, seen = torch.get_num_threads(), {}
    turns = [threading.Event() for _ in range(3)]

    def first() -> None:
        with one_torch_thread():
            turns[0].set()
            turns[1].wait(10)
        seen["first, afterwards"] = torch.get_num_threads()
        turns[2].set()

    def second() -> None:
        turns[0].wait(10)
        with one_torch_thread():
            turns[1].set()
            turns[2].wait(10)  # until the other has left its block
            with one_torch_thread():
                pass
            seen["second, inside"] = torch.get_num_threads()
        seen["second, afterwards"] = torch.get_num_threads()

    torch.set_num_threads(2)
    try:
        with ThreadPoolExecutor(2) as pool:
            for future in [pool.submit(first), pool.submit(second)]:
                future.result()
            seen["in a thread that begins later"] = ThreadPoolExecutor(1).submit(torch.get_num_threads).result()
        assert seen.pop("second, inside") == 1
        assert set(seen.values()) == {2}, seen
    finally:
        torch.set_num_threads(before)


def test_only_slow_work_is_explained() -> None:
    told: list[str] = []
    with tell_if_slow("compiling", told.append, after_s=5.0):
        pass
    assert told == []
    with tell_if_slow("compiling", told.append, after_s=0.01):
        time.sleep(0.3)
    assert told == ["compiling"]
