"""Lists that people and programs write: nothing in them is lost, and what cannot be read is said in one line."""

import codecs
import itertools
from pathlib import Path

import numpy as np
import pytest
from support.corpus import write_noise
from support.messages import Messages

from wavegen.corpora.extraction import extract
from wavegen.corpora.lists import read_lines, read_table, write_table
from wavegen.corpora.manifest import Recording, read_manifest, read_recordings, write_manifest
from wavegen.errors import DataError
from wavegen.mel import profile

pytestmark = pytest.mark.usefixtures("folder")

TEXTS = [
    "hello",
    '"Stop!" he said',
    '"an opening quote that is never closed',
    'he said "no"',
    "it's",
    '""',
    "\u2028",
    '"',
]
PLAIN = "path\tspeaker\n" + "".join(f"wavs/u{index}.wav\t{'ab'[index % 2]}\n" for index in range(4))
EXPECTED = [(f"wavs/u{index}", f"wavs/u{index}.wav", "ab"[index % 2]) for index in range(4)]


def read(text: str | bytes, name: str = "list.tsv") -> list[Recording]:
    Path(name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_recordings(Path(name))


def test_quotes_in_a_text_hide_no_rows() -> None:
    rows = "".join(f"wavs/u{index}.wav\t{text}\n" for index, text in enumerate(TEXTS))
    assert [r.name for r in read("path\ttext\n" + rows)] == [f"wavs/u{index}" for index in range(len(TEXTS))]
    assert [r.name for r in read("text\tpath\n" + "".join(f"{t}\t{i}.wav\n" for i, t in enumerate(TEXTS)))] == [
        str(index) for index in range(len(TEXTS))
    ]


ENCODED = {
    "UTF-8": PLAIN.encode(),
    "with a byte-order mark": codecs.BOM_UTF8 + PLAIN.encode(),
    "UTF-16": PLAIN.encode("utf-16"),
    "UTF-16 big-endian": codecs.BOM_UTF16_BE + PLAIN.encode("utf-16-be"),
    "line ends of Windows": PLAIN.replace("\n", "\r\n").encode(),
    "line ends of old Macs": PLAIN.replace("\n", "\r").encode(),
    "UTF-16 and Windows": PLAIN.replace("\n", "\r\n").encode("utf-16"),
    "no line end at the end": PLAIN.rstrip().encode(),
    "blank lines": PLAIN.replace("\nwavs/u2", "\n\n  \n\t\nwavs/u2").encode(),
    "letter case of the header": PLAIN.replace("path\tspeaker", "Path\tSPEAKER").encode(),
    "spaces": PLAIN.replace("\t", " \t ").replace("\n", " \n ").encode(),
    "a column for notes": PLAIN.replace("\n", "\t\n").encode(),
}


@pytest.mark.parametrize("kind", ENCODED)
def test_a_list_is_read_however_it_was_saved(kind: str) -> None:
    assert [(r.name, str(r.path), r.speaker) for r in read(ENCODED[kind])] == EXPECTED


def test_splits_have_the_names_and_letters_that_people_use() -> None:
    splits = ["train", "Train", " TRAIN ", "training", "valid", "val", "Dev", "validation"]
    text = "path\tsplit\n" + "".join(f"{index}.wav\t{split}\n" for index, split in enumerate(splits))
    assert [r.split for r in read(text)] == ["train"] * 4 + ["valid"] * 4


def test_a_cell_that_is_missing_at_the_end_of_a_row_is_empty() -> None:
    assert [r.speaker for r in read(PLAIN.replace("u2.wav\ta", "u2.wav"))] == ["a", "b", "", "b"]


def test_spaces_belong_to_a_path_only_if_there_is_such_a_file() -> None:
    Path(" folder").mkdir()
    Path(" folder/a.wav").touch()
    assert [str(r.path) for r in read("path\n folder/a.wav\n folder/b.wav \n")] == [" folder/a.wav", "folder/b.wav"]


def test_a_path_may_start_at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ann")
    (recording,) = read("path\n~/a.wav\n")
    assert (recording.name, recording.path) == ("a", Path("/home/ann/a.wav"))


FAULTS: dict[str, str | bytes] = {
    "commas": PLAIN.replace("\t", ","),
    "spaces": PLAIN.replace("\t", "    "),
    "no header": PLAIN.split("\n", 1)[1],
    "quoted header": '"path"\t"speaker"\n"a.wav"\t"ann"\n',
    "a line before the header": "# my list\n" + PLAIN,
    "the split test": "path\tsplit\na.wav\ttrain\nb.wav\tTest\n",
    "an unknown split": "path\tsplit\na.wav\ttrain\nb.wav\tsecret\n",
    "no split": "path\tsplit\na.wav\ttrain\nb.wav\t\n",
    "a tab in a text": "path\ttext\tsplit\na.wav\tone\ttwo\ttrain\n",
    "no path": "path\tspeaker\na.wav\tann\n\tbob\n",
    "twice": PLAIN + "wavs/u0.wav\tb\n",
    "a column twice": "path\tpath\na.wav\tb.wav\n",
    "Latin 1": "path\tspeaker\na.wav\tann\nb.wav\tZo\xeb\n".encode("latin-1"),
    "UTF-16 without a mark": PLAIN.encode("utf-16-le"),
    "nothing": "",
    "blank": "\n \n",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_cannot_be_read_is_said(fault: str, messages: Messages) -> None:
    with messages.refused(DataError):
        read(FAULTS[fault])


def test_every_row_that_yields_no_recording_is_counted(messages: Messages) -> None:
    write_noise("a.wav", "b.wav")
    recordings = read('path\ttext\na.wav\t"x\nnone.wav\ty"\nb.wav\t"z\n"b.wav"\tquoted\n')
    result = extract(recordings, Path("out"), profile("bigvgan-24k"), jobs=1, progress=False)
    assert len(result.clips) + len(result.left_out) == 4
    messages.check(result.left_out_report())


def test_lists_of_path_and_text_are_read_alike() -> None:
    for mark, end in itertools.product((b"", codecs.BOM_UTF8), ("\n", "\r\n", "\r")):
        text = "".join(f'LJ{index}|"{text}|a\tb{end}' for index, text in enumerate(TEXTS[:4]))
        Path("metadata.csv").write_bytes(mark + text.encode())
        assert [line.cells[0] for line in read_lines(Path("metadata.csv"), "|")] == ["LJ0", "LJ1", "LJ2", "LJ3"]


def test_what_is_written_is_read_back() -> None:
    """Random cells of the characters that have a meaning somewhere; a manifest has the same in names and paths."""
    random = np.random.default_rng(0)
    letters = np.array(list("ab\"',;|\\ #=\u00e9\u2028\x0b\x85日"))
    cells = ["".join(random.choice(letters, size=random.integers(1, 8))).strip() or "x" for _ in range(600)]
    table = [cells[index : index + 3] for index in range(0, len(cells), 3)]
    write_table(Path("table.tsv"), ["a", "b", "c"], table)
    assert [[*row.values()] for _, row in read_table(Path("table.tsv"), ["a"], "").rows] == table

    rows = [
        Recording(f"{index}/{a}", Path("folder") / f"{b}.wav", "train", speaker=c)
        for index, (a, b, c) in enumerate(table)
    ]
    write_manifest(Path("list.tsv"), rows)
    assert read_manifest(Path("list.tsv"), Recording) == rows
    assert read_recordings(Path("list.tsv")) == rows
