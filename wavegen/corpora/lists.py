"""Lists of recordings as text: tab-separated tables with a header, and lists of ``path|text``.

No quoting is known: a text may begin with ``"``, and a cell ends at the next tab. So a cell cannot hold a tab or a line
break, and nothing that is written here does.
"""

import codecs
import gzip
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from wavegen.errors import DataError, MissingDataError
from wavegen.files import atomic_write

_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_GZIP = b"\x1f\x8b"
_MAX_CHARS_SHOWN = 60


class Line(NamedTuple):
    """One row of a list: its number in the file, from 1, and its cells as they are in the file."""

    number: int
    cells: Sequence[str]


class Table(NamedTuple):
    """A table with a header.

    Attributes:
        columns: names of the columns in small letters, without spaces around them.
        rows: the line's number and the cells by column; a cell that a row does not have is empty.
    """

    columns: Sequence[str]
    rows: Sequence[tuple[int, dict[str, str]]]


def read_lines(path: Path, separator: str, *, errors: str = "strict") -> list[Line]:
    """Read a text of cells, without its blank lines. A file that gzip compressed is expanded.

    The text is UTF-8, or UTF-16 with a byte-order mark, with the line ends of any system.

    Args:
        path: the file.
        separator: the character between two cells: a tab, or ``|``.
        errors: ``"replace"`` to accept bytes that are not UTF-8, where only names in ASCII matter.

    Raises:
        DataError: the file is missing, or is not text.
    """
    rows = [Line(number, line.split(separator)) for number, line in read_text(path, errors=errors)]
    return [row for row in rows if any(cell.strip() for cell in row.cells)]


def read_text(path: Path, *, errors: str = "strict") -> list[tuple[int, str]]:
    """Read the lines of a text that are not blank, each with its number from 1; otherwise as ``read_lines``."""
    text = _text(path, errors)
    # A lone carriage return ends a line only where nothing else does; elsewhere it is part of a cell.
    lines = text.split("\n" if "\n" in text else "\r")
    numbered = enumerate((line.removesuffix("\r") for line in lines), start=1)
    return [(number, line) for number, line in numbered if line.strip()]


def _text(path: Path, errors: str) -> str:
    remedy = "save it as UTF-8 text"
    try:
        data = path.read_bytes()
        if data.startswith(_GZIP):
            data = gzip.decompress(data)
        text = data.decode("utf-16" if data.startswith(_UTF16) else "utf-8-sig", errors)
    except FileNotFoundError:
        raise MissingDataError("no such manifest", where=path) from None
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror or error})", where=path, remedy="give a text file") from error
    except (EOFError, zlib.error) as error:
        raise DataError("is damaged: gzip cannot expand it", where=path, remedy="copy or compress it again") from error
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise DataError(f"line {line} is not {error.encoding} text", where=path, remedy=remedy) from error
    if "\0" in text:
        raise DataError("is not text, or UTF-16 without a byte-order mark", where=path, remedy=remedy)
    return text


def read_table(path: Path, needed: Sequence[str], remedy: str) -> Table:
    """Read tab-separated text with a header.

    Args:
        path: the file.
        needed: names of columns, of which the header must have at least one.
        remedy: ends messages about the header and the cells.

    Raises:
        DataError: the file is missing or not text, the header has none of the needed columns or one twice, or a row has
            more cells than the header.
    """
    lines = read_lines(path, "\t")
    if not lines:
        raise DataError("has no rows", where=path, remedy=remedy)

    # The header.
    header = lines[0]
    columns = [cell.strip().lower() for cell in header.cells]
    if not set(columns) & set(needed):
        missing = " or ".join(needed)
        raise DataError(
            f"has no column {missing} in its header, which is {_shown(header.cells)}", where=path, remedy=remedy
        )
    for name in columns:
        if name and columns.count(name) > 1:
            raise DataError(f"has {columns.count(name)} columns {name}", where=path, remedy="keep one of them")

    # The rows. A tab in a text would move all cells after it by a column.
    rows = []
    for number, cells in lines[1:]:
        if any(cell.strip() for cell in cells[len(columns) :]):
            what = f"line {number} has {len(cells)} cells, but the header has {len(columns)}"
            raise DataError(what, where=path, remedy="write no tabs inside a cell")
        padded = [*cells, *[""] * len(columns)]
        rows.append((number, dict(zip(columns, padded, strict=False))))
    return Table(columns, rows)


def _shown(cells: Sequence[str]) -> str:
    text = "\t".join(cells)
    return repr(text if len(text) <= _MAX_CHARS_SHOWN else f"{text[: _MAX_CHARS_SHOWN - 1]}…")


def write_table(path: Path, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Write tab-separated text with a header, which ``read_table`` reads back.

    Raises:
        DataError: a cell cannot be written.
        OutputError: the file cannot be written.
    """
    lines = ["\t".join(columns)]
    for row in rows:
        cells = [str(cell) for cell in row]
        for cell in cells:
            if fault := cell_fault(cell):
                raise DataError(f"{cell!a} {fault}", where=path, remedy="rename it")
        lines.append("\t".join(cells))
    with atomic_write(path) as beside:
        beside.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")


def cell_fault(text: str) -> str | None:
    """Why a name or a path cannot be a cell of a table, as a clause; None if it can."""
    if any(character in text for character in "\t\n\r"):
        return "has a tab or a line break in it, which a list cannot hold"
    try:
        text.encode()
    except UnicodeEncodeError:  # Python represents bytes that are not UTF-8 by lone surrogates
        return "is not UTF-8"
    return None
