"""How work shows its progress, and how many threads torch uses meanwhile."""

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

Notify = Callable[[str], None]
"""A function that prints a line for the user."""

SECONDS_BETWEEN_LINES = 10.0
_lock = threading.Lock()
_own = threading.local()
_threads_inside = 0  # of one_torch_thread
_threads_outside = 1


def shows_bars() -> bool:
    """Whether progress bars can redraw themselves: whether stderr is a terminal."""
    return sys.stderr.isatty()


def bar_options() -> dict[str, Any]:
    """Options for tqdm: a live bar in a terminal; otherwise a line every ten seconds, and none for shorter work."""
    if shows_bars():
        return {"dynamic_ncols": True}
    return {"delay": SECONDS_BETWEEN_LINES, "mininterval": SECONDS_BETWEEN_LINES}


class LinePacer:
    """Decides when the next plain line is due, for work that prints lines of its own where no bar is shown.

    ::

        pacer = LinePacer()
        for step in steps:
            ...
            if not shows_bars() and pacer.is_due():
                notify(f"step {step}")
    """

    def __init__(self, seconds: float = SECONDS_BETWEEN_LINES) -> None:
        self.seconds = seconds
        self._last: float | None = None

    def is_due(self) -> bool:
        """True at the first call, and then once more than ``seconds`` have passed since the last True."""
        now = time.monotonic()
        if self._last is not None and now - self._last <= self.seconds:
            return False
        self._last = now
        return True


@contextlib.contextmanager
def tell_if_slow(line: str, tell: Notify, after_s: float = 2.0) -> Iterator[None]:
    """Tell the user why nothing happens, if the block takes longer than ``after_s`` seconds."""
    timer = threading.Timer(after_s, tell, [line])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@contextlib.contextmanager
def one_torch_thread() -> Iterator[None]:
    """Let torch use one thread inside the block, for work that is parallel already or too small to be divided.

    Threads of both kinds would compete for the same cores, and sums of several threads round differently. Several
    threads may run such blocks at the same time, one within another too.
    """
    global _threads_inside, _threads_outside
    import torch

    is_outermost = not getattr(_own, "is_inside", False)
    if is_outermost:
        with _lock:
            # In a new thread, the first question takes over what any thread has set last: later it would undo the 1.
            threads = torch.get_num_threads()
            if _threads_inside == 0:
                _threads_outside = threads
            _threads_inside += 1
            _own.is_inside = True
            torch.set_num_threads(1)  # for this thread, and those that it starts
    try:
        yield
    finally:
        if is_outermost:
            with _lock:
                _threads_inside -= 1
                _own.is_inside = False
                torch.set_num_threads(_threads_outside)
