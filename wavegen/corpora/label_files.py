"""Label files: what is heard from when to when, as Audacity and Praat write it, or as a table."""

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from wavegen.corpora.lists import cell_fault, read_text
from wavegen.errors import DataError, MissingDataError
from wavegen.files import atomic_write

_REMEDY = "give a label track of Audacity, a TextGrid of Praat, or a table start, end, label with tabs"
_COLUMNS = ("start", "end", "label")
_ROUNDING_S = 1e-6  # Audacity writes microseconds


class Label(NamedTuple):
    """A part of a recording and its name, from ``start_s`` up to, but not including, ``end_s``, in seconds."""

    start_s: float
    end_s: float
    name: str


class _Found(NamedTuple):
    """A label and the line of its file that it ends on."""

    line: int
    label: Label


def read_labels(path: Path, *, tier: str | None = None, may_overlap: bool = False) -> list[Label]:
    """Read the labels of a recording.

    Three formats are known: a label track of Audacity (``start TAB end TAB name`` in seconds; lines of frequency
    ranges, which begin with a backslash, are passed over), a TextGrid of Praat in its long or short form, and a
    tab-separated table whose header names the columns ``start``, ``end`` and ``label``. Praat fills the time between
    two labels with intervals without a text, so these are gaps. Labels of no length mark a point: they are passed over.

    Args:
        path: the file, in UTF-8, or in UTF-16 with a byte-order mark.
        tier: the interval tier of a TextGrid to read; None for the only one.
        may_overlap: whether labels with different names may overlap.

    Returns:
        the labels by their start.

    Raises:
        DataError: the file is missing or none of these, a line is not a label, or labels overlap.
    """
    try:
        lines = read_text(path)
    except MissingDataError:
        raise MissingDataError("no such label file", where=path) from None
    first = lines[0][1] if lines else ""
    if "ooBinaryFile" in first:
        raise DataError("is a binary TextGrid", where=path, remedy="save it as a text file in Praat")
    if "ooTextFile" in first:
        found = _read_textgrid(path, lines, tier)
    elif tier is not None:
        raise DataError(f"is not a TextGrid, so it has no tier {tier!r}", where=path, remedy="leave the tier out")
    else:
        found = _read_rows(path, lines)
    found.sort(key=lambda item: item.label)
    _refuse_overlaps(path, found, may_overlap)
    return [label for _, label in found]


def write_labels(path: Path, labels: Sequence[Label]) -> None:
    """Write a label track that Audacity imports, and ``read_labels`` reads.

    Raises:
        DataError: a name has a tab or a line break in it.
        OutputError: the file cannot be written.
    """
    for label in labels:
        if fault := cell_fault(label.name):
            raise DataError(f"the label {label.name!a} {fault}", where=path, remedy="rename it")
    text = "".join(f"{label_line(label)}\n" for label in labels)
    with atomic_write(path) as beside:
        beside.write_text(text, encoding="utf-8", newline="\n")


def label_line(label: Label) -> str:
    """A label as a line of an Audacity track, in microseconds."""
    return f"{label.start_s:.6f}\t{label.end_s:.6f}\t{label.name}"


def _refuse_overlaps(path: Path, found: Sequence[_Found], may_overlap: bool) -> None:
    tracks = {label.name if may_overlap else "" for _, label in found}
    for track in sorted(tracks):
        members = [item for item in found if item.label.name == track or not may_overlap]
        for (line, before), (next_line, after) in pairwise(members):
            if after.start_s < before.end_s - _ROUNDING_S:
                what = (
                    f"lines {line} and {next_line} overlap: {before.name!r} ends at {before.end_s:g} s, "
                    f"{after.name!r} starts at {after.start_s:g} s"
                )
                raise DataError(what, where=path, remedy="let each label end before the next one starts")


def _label(path: Path, line: int, start: str, end: str, name: str) -> _Found | None:
    """The label of a line; None for a point."""
    try:
        label = Label(float(start), float(end), name.strip())
    except ValueError:
        what = f"line {line}: {start.strip()!r} and {end.strip()!r} are not times in seconds"
        raise DataError(what, where=path, remedy=_REMEDY) from None
    if not 0 <= label.start_s <= label.end_s < float("inf"):  # NaN is refused too
        what = f"line {line}: a label cannot last from {label.start_s:g} to {label.end_s:g} s"
        raise DataError(what, where=path, remedy="correct its times")
    return _Found(line, label) if label.start_s < label.end_s else None


def _read_rows(path: Path, lines: Sequence[tuple[int, str]]) -> list[_Found]:
    """The labels of a table with a header, or of an Audacity label track, which has none; an empty track has none."""
    rows = [(number, line.split("\t")) for number, line in lines if not line.startswith("\\")]
    places: Sequence[int] = range(len(_COLUMNS))
    header = [cell.strip().lower() for cell in rows[0][1]] if rows else []
    if set(_COLUMNS) <= set(header):
        places = [header.index(column) for column in _COLUMNS]
        rows = rows[1:]
    found = []
    for number, cells in rows:
        if len(cells) <= max(places):
            what = f"line {number} has {len(cells)} cells, not a start, an end and a label"
            raise DataError(what, where=path, remedy=_REMEDY)
        item = _label(path, number, *(cells[place] for place in places))
        if item is not None and not item.label.name:
            raise DataError(f"line {number}: the label has no name", where=path, remedy="name it, or delete it")
        if item is not None:
            found.append(item)
    return found


class _Token(NamedTuple):
    """A value of a TextGrid and its line: a text, or a number or a flag as it is written."""

    line: int
    value: str
    is_text: bool


# A TextGrid is its texts in quotes, in which "" is a quote, its numbers and its flags, in a fixed order. All else that
# the long form has around them ("xmin = ", "intervals [1]:") is for human readers, and Praat passes over it as well. A
# comment begins with !.
_TOKENS = re.compile(r'"((?:[^"]|"")*)"|(![^\n]*)|(\S+)')
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")


def _tokens(path: Path, lines: Sequence[tuple[int, str]]) -> Iterator[_Token]:
    text = "\n".join(line for _, line in lines)
    done = row = 0
    for match in _TOKENS.finditer(text):
        row += text.count("\n", done, match.end())
        done = match.end()
        line = lines[row][0]
        quoted, _, word = match.groups()
        if quoted is not None:
            yield _Token(line, quoted.replace('""', '"'), True)
        elif word is not None and word.startswith('"'):
            raise DataError(f"line {line}: a text has no closing quote", where=path, remedy="save it again in Praat")
        elif word is not None and (_NUMBER.fullmatch(word) or word in ("<exists>", "<absent>")):
            yield _Token(line, word, False)


class _Reader:
    """Takes the values of a TextGrid in their order."""

    def __init__(self, path: Path, lines: Sequence[tuple[int, str]]) -> None:
        self.path, self.tokens = path, _tokens(path, lines)
        self.line = 1

    def take(self, what: str, *, is_text: bool = False) -> str:
        """The next value; ``what`` names it in errors."""
        token = next(self.tokens, None)
        if token is None:
            raise DataError(f"ends after line {self.line} without {what}", where=self.path, remedy="copy it again")
        self.line = token.line
        if token.is_text != is_text:
            found = f"{token.value!r} is not {what}"
            raise DataError(f"line {self.line}: {found}", where=self.path, remedy="save it again in Praat")
        return token.value

    def text(self, what: str) -> str:
        return self.take(what, is_text=True)

    def count(self, what: str) -> int:
        value = self.take(what)
        if not value.isdecimal():
            raise DataError(f"line {self.line}: {value!r} is not {what}", where=self.path, remedy="save it again")
        return int(value)


def _read_textgrid(path: Path, lines: Sequence[tuple[int, str]], tier: str | None) -> list[_Found]:
    """The labels of one interval tier, in the order of ``ManPages: TextGrid file formats`` of Praat's manual."""
    reader = _Reader(path, lines)
    reader.text("the file type")
    kind = reader.text("the class of the object")
    if kind != "TextGrid":
        raise DataError(f"holds a {kind} of Praat, not a TextGrid", where=path, remedy=_REMEDY)
    reader.take("the start"), reader.take("the end")
    tiers: list[tuple[str, list[_Found]]] = []
    if reader.take("whether there are tiers") == "<exists>":
        for _ in range(reader.count("the number of tiers")):
            has_intervals = reader.text("the class of a tier") == "IntervalTier"
            name = reader.text("the name of a tier")
            reader.take("the start of the tier"), reader.take("the end of the tier")
            size = reader.count("the size of the tier")
            items = [_read_item(reader, has_intervals) for _ in range(size)]
            if has_intervals:
                tiers.append((name, [item for item in items if item is not None and item.label.name]))

    chosen = [items for name, items in tiers if tier in (None, name)]
    if not tiers:
        raise DataError("has no interval tiers", where=path, remedy="give another file")
    if len(chosen) != 1:
        names = ", ".join(repr(name) for name, _ in tiers)
        what = f"has the interval tiers {names}, of which {len(chosen)} are named {tier!r}"
        what = f"has {len(tiers)} interval tiers: {names}" if tier is None else what
        raise DataError(what, where=path, remedy="name one of them as the tier")
    return chosen[0]


def _read_item(reader: _Reader, has_intervals: bool) -> _Found | None:
    """The next interval, or None for a point."""
    if not has_intervals:
        reader.take("the time of a point"), reader.text("the text of a point")
        return None
    start, end = reader.take("the start of an interval"), reader.take("the end of an interval")
    return _label(reader.path, reader.line, start, end, reader.text("the text of an interval"))
