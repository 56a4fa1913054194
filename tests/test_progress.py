"""Bars in a terminal, a line now and then elsewhere; and torch's threads while work is parallel."""

import sys
import time

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


def test_only_slow_work_is_explained() -> None:
    told: list[str] = []
    with tell_if_slow("compiling", told.append, after_s=5.0):
        pass
    assert told == []
    with tell_if_slow("compiling", told.append, after_s=0.01):
        time.sleep(0.3)
    assert told == ["compiling"]
