"""Halves of a set of clips."""

import pytest

from wavegen.evaluation.halves import half


@pytest.mark.parametrize("count", [0, 2, 3, 17, 48])
def test_halves_are_disjoint_and_complete(count: int) -> None:
    names = [f"{index:02}" for index in range(count)]
    first, second = (half(names, which, name=str) for which in ("first", "second"))
    assert sorted(first + second) == names
    assert len(first) - len(second) == count % 2


def test_neighbours_by_name_are_in_different_halves_and_the_order_is_kept() -> None:
    names = ["b/2", "a/1", "b/1", "a/2", "a/3"]
    assert half(names, "first", name=str) == ["b/2", "a/1", "a/3"]
    assert half(names, "second", name=str) == ["b/1", "a/2"]


def test_a_single_clip_is_in_both_halves() -> None:
    assert half(["a"], "first", name=str) == half(["a"], "second", name=str) == ["a"]
