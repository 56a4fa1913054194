"""Lists of recordings as other projects write them, recognised by what their first line holds.

A recording is a whole file here. So a list whose rows are segments of longer files, or commands that make sound, is
refused: cutting would need a copy of every recording, and a list that runs commands is a program.
"""

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any, NamedTuple

from wavegen.audio import AUDIO_SUFFIXES
from wavegen.corpora.lists import Table, read_lines, read_table, read_text
from wavegen.errors import DataError

OURS = "a tab-separated list"
NEMO = "a NeMo manifest"
HUGGING_FACE = "a Hugging Face metadata file"
KALDI = "a Kaldi wav.scp"
LHOTSE = "a lhotse manifest"
PATH_AND_TEXT = "a list of path|text"

REMEDY = "it needs the tab-separated column path, and may have name, split, mel, speaker"
_SUFFIX = ".wav"  # of the recordings in a list that leaves the suffix out
_SHORTEST_CUT_S = 1e-3  # lhotse rounds durations
_CUT_FIRST = "cut the recordings into files of one utterance each first"


class ListedRecordings(NamedTuple):
    """A list that has been read.

    Attributes:
        format: the name of its format, such as ``NEMO``, for messages.
        table: its rows, with our columns: ``path`` or ``audio``, and perhaps ``name``, ``split``, ``mel``, ``speaker``.
    """

    format: str
    table: Table


def list_format(path: Path) -> str:
    """Which of the formats above a list has, by its name or its first line; ``OURS`` if it is like none of them.

    Raises:
        DataError: the file is missing, or is not text.
    """
    lines = read_text(path)
    first = lines[0][1].strip() if lines else ""
    if first.startswith("{"):
        keys = _parsed(path, *lines[0]).keys()
        return NEMO if "audio_filepath" in keys else HUGGING_FACE if "file_name" in keys else LHOTSE
    if path.suffix == ".scp":
        return KALDI
    if "\t" in first:
        return OURS
    if "file_name" in _csv_cells(first):
        return HUGGING_FACE
    return PATH_AND_TEXT if "|" in first else OURS


def read_list(path: Path) -> ListedRecordings:
    """Read a list of recordings of any format.

    Raises:
        DataError: the file is missing or not text, a row is malformed, or it is not a whole recording.
    """
    found = list_format(path)
    if found == NEMO:
        table = _json_table(path, "audio_filepath", _nemo_row)
    elif found == LHOTSE:
        table = _json_table(path, "recording or sources", _lhotse_row)
    elif found == HUGGING_FACE:
        table = _hugging_face(path)
    elif found == KALDI:
        table = _kaldi(path)
    elif found == PATH_AND_TEXT:
        table = _path_and_text(path)
    else:
        table = read_table(path, ("path", "audio"), REMEDY)
    return ListedRecordings(found, table)


# --- JSON lines ---


_ReadRow = Callable[[Path, int, Mapping[str, Any]], dict[str, str]]


def _json_table(path: Path, needed: str, read_row: _ReadRow) -> Table:
    rows = []
    for number, line in read_text(path):
        cells = read_row(path, number, _parsed(path, number, line))
        if not cells.get("path"):
            raise DataError(f"line {number} has no {needed}", where=path, remedy="each line describes one recording")
        rows.append((number, cells))
    return _table(rows)


def _parsed(path: Path, number: int, line: str) -> Mapping[str, Any]:
    remedy = "write one JSON object a line"
    try:
        parsed = json.loads(line)
    except ValueError as error:
        raise DataError(f"line {number} is not JSON ({error})", where=path, remedy=remedy) from error
    if not isinstance(parsed, dict):
        raise DataError(f"line {number} is not a JSON object", where=path, remedy=remedy)
    return parsed


def _nemo_row(path: Path, number: int, parsed: Mapping[str, Any]) -> dict[str, str]:
    if parsed.get("offset"):
        what = f"line {number} is a segment of a longer recording (offset {parsed['offset']})"
        raise DataError(what, where=path, remedy=_CUT_FIRST)
    return {"path": _text_of(parsed, "audio_filepath"), "speaker": _text_of(parsed, "speaker")}


def _lhotse_row(path: Path, number: int, parsed: Mapping[str, Any]) -> dict[str, str]:
    if "tracks" in parsed:
        what = f"line {number} is a cut of several tracks"
        raise DataError(what, where=path, remedy="save the mixtures as recordings first")
    recording = parsed.get("recording", parsed)
    sources = recording.get("sources") if isinstance(recording, dict) else None
    if not isinstance(sources, list) or len(sources) != 1 or not isinstance(sources[0], dict):
        return {}
    if sources[0].get("type") != "file":
        what = f"line {number} has a source of type {sources[0].get('type')!r}, but only files are read"
        raise DataError(what, where=path, remedy="save the recordings as files first")
    whole_s = float(recording.get("duration") or 0)
    start_s, duration_s = float(parsed.get("start") or 0), float(parsed.get("duration") or whole_s)
    if start_s or abs(duration_s - whole_s) > _SHORTEST_CUT_S:
        what = f"line {number} is {duration_s:g} s from {start_s:g} s of a recording of {whole_s:g} s"
        raise DataError(what, where=path, remedy=_CUT_FIRST)
    supervisions = parsed.get("supervisions") or [{}]
    return {
        "name": _text_of(parsed, "id"),
        "path": _from_here(path.parent, [_text_of(sources[0], "source")]),
        "speaker": _text_of(supervisions[0], "speaker"),
    }


# --- the others ---


def _hugging_face(path: Path) -> Table:
    lines = read_text(path)
    rows: Sequence[tuple[int, Mapping[str, Any]]]
    if lines[0][1].strip().startswith("{"):
        rows = [(number, _parsed(path, number, line)) for number, line in lines]
    else:
        # Their cells may be quoted, and then hold line breaks: so the csv module reads the text, not its lines.
        reader = csv.DictReader(line + "\n" for _, line in lines)
        rows = [(reader.line_num, row) for row in reader]
    cells = []
    for number, row in rows:
        speaker = _text_of(row, "speaker") or _text_of(row, "speaker_id")
        split = {"split": _text_of(row, "split")} if row.get("split") else {}
        cells.append((number, {"path": _text_of(row, "file_name"), "speaker": speaker} | split))
    return _table(cells)


def _kaldi(path: Path) -> Table:
    speakers_file = path.with_name("utt2spk")
    speakers: dict[str, str] = {}
    if speakers_file.is_file():
        speakers = dict(line.split(maxsplit=1) for _, line in read_text(speakers_file) if len(line.split()) > 1)
    rows = []
    for number, line in read_text(path):
        name, source = [*line.split(maxsplit=1), ""][:2]
        source = source.strip()
        if source.endswith("|"):
            what = f"line {number} is a command, and commands of a list are not run"
            raise DataError(what, where=path, remedy="save its output as a file, and list the file")
        if not source:
            what = f"line {number} has no path after the name {name!r}"
            raise DataError(what, where=path, remedy="each line is a name, a space and a path")
        speaker = speakers.get(name, "").strip()
        rows.append((number, {"name": name, "path": _from_here(path.parent, [source]), "speaker": speaker}))
    return _table(rows)


def _path_and_text(path: Path) -> Table:
    """LJSpeech and HiFi-GAN list names without a suffix, VITS paths, and of several speakers ``path|number|text``."""
    rows = []
    for number, cells in read_lines(path, "|"):
        source = cells[0].strip()
        if PurePath(source).suffix.lower() in AUDIO_SUFFIXES:
            candidates = [source]
        else:
            candidates = [f"{source}{_SUFFIX}", f"wavs/{source}{_SUFFIX}"]
        speaker = cells[1].strip() if len(cells) == 3 and cells[1].strip().isdecimal() else ""
        name = source.removesuffix(PurePath(source).suffix) if candidates == [source] else source
        rows.append((number, {"name": name, "path": _from_here(path.parent, candidates), "speaker": speaker}))
    return _table(rows)


# --- what they share ---


def _table(rows: Sequence[tuple[int, dict[str, str]]]) -> Table:
    columns = [*dict.fromkeys(column for _, row in rows for column in row)]
    return Table(columns, rows)


def _text_of(row: Mapping[str, Any], key: str) -> str:
    value = row.get(key)
    return "" if value is None else str(value)


def _csv_cells(line: str) -> Sequence[str]:
    return [cell.strip() for cell in next(csv.reader([line]), [])]


def _from_here(folder: Path, candidates: Sequence[str]) -> str:
    """The first path that exists below the list's folder, or else below the current one, where such tools run."""
    for candidate in candidates:
        if (folder / candidate).is_file():
            return candidate
    for candidate in candidates:
        if Path(candidate).is_file():
            return str(Path(candidate).absolute())
    return candidates[0]
