"""Tables as text."""

from wavegen.tables import text_table


def test_numbers_are_aligned_right_and_names_left() -> None:
    rows = [["", "mean", "count"], ["a long name", "1.5", "12"], ["b", "-10.25", ""]]
    assert text_table(rows).splitlines() == [
        "               mean  count",
        "a long name     1.5     12",
        "b            -10.25",
    ]


def test_all_columns_may_be_aligned_right() -> None:
    assert text_table([["engine", "samples/s"], ["numba", "10"]], left_aligned=0).splitlines() == [
        "engine  samples/s",
        " numba         10",
    ]
