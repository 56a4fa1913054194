"""Label files: every format reads as the same labels, and what is not a label is refused with its line."""

from pathlib import Path

import pytest
from support.messages import Messages

from wavegen.corpora.label_files import Label, read_labels, write_labels
from wavegen.errors import DataError, OutputError

pytestmark = pytest.mark.usefixtures("folder")

EXPECTED = [Label(0.5, 1.25, "a"), Label(1.25, 2.0, 'she said "b"'), Label(2.5, 3.0, "ä")]

LONG = '''File type = "ooTextFile"
Object class = "TextGrid"

xmin = 0
xmax = 3.5
tiers? <exists>
size = 2
item []:
    item [1]:
        class = "IntervalTier"
        name = "words"
        xmin = 0
        xmax = 3.5
        intervals: size = 5
        intervals [1]:
            xmin = 0
            xmax = 0.5
            text = ""
        intervals [2]:
            xmin = 0.5
            xmax = 1.25
            text = "a"
        intervals [3]:
            xmin = 1.25
            xmax = 2
            text = "she said ""b"""
        intervals [4]:
            xmin = 2
            xmax = 2.5
            text = " "
        intervals [5]:
            xmin = 2.5
            xmax = 3
            text = "ä"
    item [2]:
        class = "TextTier"
        name = "clicks"
        xmin = 0
        xmax = 3.5
        points: size = 1
        points [1]:
            number = 0.7
            mark = "click"
'''
SHORT = '''File type = "ooTextFile"
Object class = "TextGrid"

0 ! the start, and 5 does not belong to the file
3.5
<exists>
2
"IntervalTier"
"words"
0
3.5
5
0
0.5
""
0.5
1.25
"a"
1.25
2
"she said ""b"""
2
2.5
" "
2.5
3
"ä"
"TextTier"
"clicks"
0
3.5
1
0.7
"click"
'''
TRACK = '0.5\t1.25\ta\n\\\t100\t2000\n1.25\t2.0\tshe said "b"\n2.5\t3.0\tä\n0.7\t0.7\tclick\n'
TABLE = 'speaker\tlabel\tstart\tend\nann\tä\t2.5\t3\nann\ta\t0.5\t1.25\nann\tshe said "b"\t1.25\t2\n'
FORMATS = {
    "long": LONG.encode(),
    "long UTF-16": LONG.encode("utf-16"),
    "long Windows": LONG.replace("\n", "\r\n").encode(),
    "short": SHORT.encode(),
    "track": TRACK.encode(),
    "table": TABLE.encode(),
}


def read(text: str | bytes, *, tier: str | None = None, may_overlap: bool = False) -> list[Label]:
    path = Path("labels")
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_labels(path, tier=tier, may_overlap=may_overlap)


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_reads_as_the_same_labels(form: str) -> None:
    assert read(FORMATS[form]) == EXPECTED


def test_a_tier_is_chosen_by_its_name() -> None:
    two = LONG.replace("TextTier", "IntervalTier").replace("number = 0.7", "xmin = 0.7 xmax = 0.8")
    assert read(two, tier="words") == EXPECTED
    assert read(two, tier="clicks") == [Label(0.7, 0.8, "click")]


def test_a_track_without_labels_is_empty() -> None:
    assert read("") == []
    assert read("start\tend\tlabel\n") == []


def test_labels_of_different_names_may_overlap_if_asked() -> None:
    text = "0\t2\ta\n1\t3\tb\n2\t4\ta\n"
    assert read(text, may_overlap=True) == [Label(0, 2, "a"), Label(1, 3, "b"), Label(2, 4, "a")]


def test_labels_may_touch_up_to_rounding() -> None:
    assert len(read("0\t1.0000004\ta\n1\t2\tb\n")) == 2


REFUSED = {
    "transcript": ("Hello, this is what was said.\n", None),
    "transcript with tabs": ("a\tb\tc\n", None),
    "end before start": ("0\t1\ta\n3\t2\tb\n", None),
    "negative": ("-1\t2\tb\n", None),
    "NaN": ("nan\tnan\tb\n", None),
    "no name": ("0\t1\ta\n1\t2\t \n", None),
    "overlap": ("0\t2\ta\n\n1\t3\tb\n", None),
    "tier of a track": (TRACK, "words"),
    "binary": ("ooBinaryFile\x08TextGrid", None),
    "another object": (LONG.replace("TextGrid", "PitchTier"), None),
    "no such tier": (LONG, "phones"),
    "two tiers": (LONG.replace("TextTier", "IntervalTier").replace("number = 0.7", "xmin = 0.7 xmax = 0.8"), None),
    "cut short": (LONG[: LONG.index("intervals [3]")], None),
    "open quote": (SHORT.replace('"click"', '"click'), None),
    "text in place of a time": (SHORT.replace("0.5\n1.25", '0.5\n"1.25"'), None),
    "count": (SHORT.replace("\n5\n", "\n5.5\n"), None),
    "no tiers": ('"ooTextFile"\n"TextGrid"\n0\n1\n<absent>\n', None),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_what_is_not_a_label_file_is_refused_in_one_line(fault: str, messages: Messages) -> None:
    text, tier = REFUSED[fault]
    with messages.refused(DataError):
        read(text, tier=tier)


def test_a_missing_file_is_named(messages: Messages) -> None:
    with messages.refused(DataError):
        read_labels(Path("none.txt"))


def test_overlaps_of_one_name_are_refused_even_if_names_may_overlap(messages: Messages) -> None:
    with messages.refused(DataError):
        read("0\t2\ta\n1\t3\tb\n1.5\t4\ta\n", may_overlap=True)


def test_written_labels_are_read_back_to_the_microsecond() -> None:
    write_labels(Path("out.txt"), EXPECTED)
    assert read_labels(Path("out.txt")) == EXPECTED
    assert Path("out.txt").read_text(encoding="utf-8").startswith("0.500000\t1.250000\ta\n")


def test_a_name_that_a_line_cannot_hold_is_refused(messages: Messages) -> None:
    with messages.refused(DataError):
        write_labels(Path("out.txt"), [Label(0, 1, "a\tb")])
    Path("file").write_text("")
    with messages.refused(OutputError):
        write_labels(Path("file/out.txt"), EXPECTED)
