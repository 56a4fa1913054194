"""Tables as aligned text."""

from collections.abc import Sequence


def text_table(rows: Sequence[Sequence[str]], *, left_aligned: int = 1) -> str:
    """Lay out rows of cells as text, with two spaces between columns.

    Args:
        rows: the heading first; all of the same length.
        left_aligned: number of leading columns that are aligned left; the others hold numbers and are aligned right.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if index < left_aligned else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
