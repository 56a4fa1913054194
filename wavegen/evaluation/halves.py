"""Two halves of a set of clips: one to choose settings and checkpoints on, the other to report on."""

from collections.abc import Callable, Sequence
from typing import Literal, TypeVar

Half = Literal["first", "second"]
"""``"first"`` to choose on, ``"second"`` to report on: a score that chose something is too good there."""

Item = TypeVar("Item")


def half(items: Sequence[Item], which: Half, *, name: Callable[[Item], str]) -> list[Item]:
    """The items of one half, in their order; neighbours by name, who often share a speaker, go to different halves.

    Args:
        items: such as clips. A single item is in both halves.
        which: the half. The first item by name, the third, the fifth, … are the first half.
        name: the name of an item; no two have the same.
    """
    names = sorted(map(name, items))
    chosen = set(names[::2] if which == "first" else names[1::2]) or set(names)
    return [item for item in items if name(item) in chosen]
