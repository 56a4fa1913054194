"""Lists of other projects are recognised, named, and read as recordings; what is not a whole recording is refused."""

import gzip
import json
from pathlib import Path

import pytest
from support.corpus import write_noise
from support.messages import Messages

from wavegen.commands.extract import main as extract
from wavegen.corpora.formats import HUGGING_FACE, KALDI, LHOTSE, NEMO, OURS, PATH_AND_TEXT, list_format
from wavegen.corpora.manifest import Recording, read_recordings
from wavegen.errors import DataError
from wavegen.pipeline import list_recordings
from wavegen.recipe import find_recipe, load_recipe

pytestmark = pytest.mark.usefixtures("folder")


def jsonl(*rows: object) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def cut(name: str, source: str, speaker: str = "", **changes: object) -> dict[str, object]:
    """A lhotse cut of a whole recording, as ``CutSet.to_file`` writes it."""
    recording = {
        "id": f"{name}-recording", "sources": [{"type": "file", "channels": [0], "source": source}],
        "sampling_rate": 16000, "num_samples": 16000, "duration": 1.0, "channel_ids": [0],
    }  # fmt: skip
    supervision = {"id": name, "recording_id": f"{name}-recording", "start": 0.0, "duration": 1.0, "channel": 0}
    spoken = [supervision | {"text": "hello", "speaker": speaker}] if speaker else []
    whole = {"id": name, "start": 0, "duration": 1.0, "channel": 0, "supervisions": spoken, "recording": recording}
    return whole | {"type": "MonoCut"} | changes


# Format -> file -> text, and the names, paths and speakers of its recordings.
LISTS: dict[str, tuple[str, str, str, list[tuple[str, str, str]]]] = {
    "ours": (OURS, "list.tsv", "path\tspeaker\nwavs/a.wav\tann\nwavs/b.wav\tbob\n",
             [("wavs/a", "wavs/a.wav", "ann"), ("wavs/b", "wavs/b.wav", "bob")]),
    "NeMo": (NEMO, "manifest.json",
             jsonl({"audio_filepath": "wavs/a.wav", "duration": 1.0, "text": "hello", "speaker": 3},
                   {"audio_filepath": "wavs/b.wav", "duration": 1.0, "text": "a | b", "offset": 0}),
             [("wavs/a", "wavs/a.wav", "3"), ("wavs/b", "wavs/b.wav", "")]),
    "Hugging Face, CSV": (HUGGING_FACE, "metadata.csv",
                          'file_name,transcription\nwavs/a.wav,"one, ""two""\nthree"\n"wavs/b.wav",|\n',
                          [("wavs/a", "wavs/a.wav", ""), ("wavs/b", "wavs/b.wav", "")]),
    "Hugging Face, JSON": (HUGGING_FACE, "metadata.jsonl",
                           jsonl({"file_name": "wavs/a.wav", "speaker_id": 7}, {"file_name": "wavs/b.wav"}),
                           [("wavs/a", "wavs/a.wav", "7"), ("wavs/b", "wavs/b.wav", "")]),
    "Kaldi": (KALDI, "wav.scp", "ann-1 wavs/a.wav\nbob-1   wavs/b.wav\n",
              [("ann-1", "wavs/a.wav", ""), ("bob-1", "wavs/b.wav", "")]),
    "lhotse": (LHOTSE, "cuts.jsonl", jsonl(cut("one", "wavs/a.wav", "ann"), cut("two", "wavs/b.wav")),
               [("one", "wavs/a.wav", "ann"), ("two", "wavs/b.wav", "")]),
    "lhotse, recordings": (LHOTSE, "recordings.jsonl",
                           jsonl(cut("x", "wavs/a.wav")["recording"], cut("y", "wavs/b.wav")["recording"]),
                           [("x-recording", "wavs/a.wav", ""), ("y-recording", "wavs/b.wav", "")]),
    "LJSpeech": (PATH_AND_TEXT, "metadata.csv", "a|Printing, in|printing, in\nb|the only|the only\n",
                 [("a", "wavs/a.wav", ""), ("b", "wavs/b.wav", "")]),
    "VITS": (PATH_AND_TEXT, "train.txt", "wavs/a.wav|Printing, in\nwavs/b.wav|the\tonly\n",
             [("wavs/a", "wavs/a.wav", ""), ("wavs/b", "wavs/b.wav", "")]),
    "VITS, several speakers": (PATH_AND_TEXT, "train.txt", "wavs/a.wav|12|hello\nwavs/b.wav|4|you\n",
                               [("wavs/a", "wavs/a.wav", "12"), ("wavs/b", "wavs/b.wav", "4")]),
}  # fmt: skip


@pytest.fixture(autouse=True)
def wavs(folder: Path) -> None:
    write_noise("wavs/a.wav", "wavs/b.wav")


def told(recordings: list[Recording]) -> list[tuple[str, str, str]]:
    return [(recording.name, recording.path.as_posix(), recording.speaker) for recording in recordings]


@pytest.mark.parametrize("kind", LISTS)
def test_a_list_is_recognised_and_read(kind: str) -> None:
    found, name, text, recordings = LISTS[kind]
    Path(name).write_text(text, encoding="utf-8")
    assert list_format(Path(name)) == found
    assert told(read_recordings(Path(name), held_out=0)) == recordings


def test_a_compressed_list_is_read() -> None:
    Path("cuts.jsonl.gz").write_bytes(gzip.compress(LISTS["lhotse"][2].encode()))
    assert told(read_recordings(Path("cuts.jsonl.gz"), held_out=0)) == LISTS["lhotse"][3]


def test_paths_of_tools_that_run_elsewhere_start_at_the_current_folder(folder: Path) -> None:
    Path("filelists").mkdir()
    for kind in ("VITS", "Kaldi", "lhotse"):
        _, name, text, recordings = LISTS[kind]
        (Path("filelists") / name).write_text(text, encoding="utf-8")
        read = read_recordings(Path("filelists") / name, held_out=0)
        assert [recording.path for recording in read] == [folder / path for _, path, _ in recordings]


def test_speakers_of_kaldi_are_in_another_file() -> None:
    Path("wav.scp").write_text(LISTS["Kaldi"][2])
    Path("utt2spk").write_text("ann-1 ann\nbob-1 bob\n")
    assert [recording.speaker for recording in read_recordings(Path("wav.scp"), held_out=0)] == ["ann", "bob"]


FAULTS: dict[str, tuple[str, str]] = {
    "NeMo: a segment": ("list.json", jsonl({"audio_filepath": "wavs/a.wav", "offset": 2.5, "duration": 1.0})),
    "NeMo: no path": ("list.json", jsonl({"audio_filepath": "wavs/a.wav"}, {"text": "hello"})),
    "JSON: damaged": ("list.json", jsonl({"audio_filepath": "wavs/a.wav"}) + '{"audio_filepath": "wavs'),
    "JSON: no object": ("list.json", jsonl({"audio_filepath": "wavs/a.wav"}, ["wavs/b.wav"])),
    "JSON: another": ("list.json", jsonl({"wav": "wavs/a.wav"})),
    "Hugging Face: no path": ("metadata.csv", "file_name,text\n,hello\n"),
    "Kaldi: a command": ("wav.scp", "one sox wavs/a.wav -t wav - |\n"),
    "Kaldi: no path": ("wav.scp", "one\n"),
    "lhotse: a part": ("cuts.jsonl", jsonl(cut("one", "wavs/a.wav", start=0.25, duration=0.5))),
    "lhotse: a shorter one": ("cuts.jsonl", jsonl(cut("one", "wavs/a.wav", duration=0.5))),
    "lhotse: a mixture": ("cuts.jsonl", jsonl({"id": "one", "tracks": [], "type": "MixedCut"})),
    "lhotse: a command": ("cuts.jsonl", jsonl({"id": "x", "sources": [{"type": "command", "source": "cat a.wav"}]})),
    "twice": ("train.txt", "wavs/a.wav|one\nwavs/a.wav|two\n"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_cannot_be_read_is_said(fault: str, messages: Messages) -> None:
    name, text = FAULTS[fault]
    Path(name).write_text(text, encoding="utf-8")
    with messages.refused(DataError):
        read_recordings(Path(name))


def test_a_damaged_compressed_list_is_said(messages: Messages) -> None:
    Path("cuts.jsonl.gz").write_bytes(gzip.compress(b"{}" * 100)[:-20])
    with messages.refused(DataError):
        read_recordings(Path("cuts.jsonl.gz"))


@pytest.mark.parametrize("kind", ["NeMo", "Kaldi", "LJSpeech", "ours"])
def test_the_command_names_the_format(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    found, name, text, recordings = LISTS[kind]
    Path(name).write_text(text, encoding="utf-8")
    assert extract([name, "features", "--jobs", "1"]) == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert first == f"{name} is {found}" if kind != "ours" else "extracted" in first
    assert {path.stem for path in Path("features/mels").rglob("*.npz")} == {
        Path(name).name for name, _, _ in recordings
    }


def test_a_training_names_the_format() -> None:
    _, name, text, _ = LISTS["NeMo"]
    Path(name).write_text(text, encoding="utf-8")
    lines: list[str] = []
    path = find_recipe("folder/spectral")
    recipe = load_recipe(path, [f"data.manifest={name}"])
    assert len(list_recordings(recipe, path, notify=lines.append)) == 2
    (line,) = lines
    assert line.endswith(f"{name} is {NEMO}")
