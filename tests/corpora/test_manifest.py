"""Recordings are split, and manifests are read back as they were written."""

from dataclasses import replace
from pathlib import Path

import pytest
from support.messages import Messages

from wavegen.corpora.manifest import (
    Clip,
    Recording,
    read_manifest,
    split_recordings,
    take_evenly,
    write_manifest,
)
from wavegen.errors import DataError


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # so that messages name relative, known paths


def names(recordings: list[Recording], split: str | None = None) -> list[str]:
    return [recording.name for recording in recordings if split in (None, recording.split)]


# --- splits ---


@pytest.mark.parametrize("share", [0.05, 0.1, 0.5, 0.99])
def test_a_share_is_for_validation_at_least_one_and_never_all(share: float) -> None:
    for count in (2, 3, 10, 40):
        found = split_recordings({f"r{index}": Path(f"r{index}.wav") for index in range(count)}, share)
        valid = len(names(found, "valid"))
        assert len(found) == count
        assert 1 <= valid < count
        assert share * count <= valid < share * count + 1 or valid == count - 1


def test_a_single_recording_or_a_share_of_0_leaves_nothing_for_validation() -> None:
    assert names(split_recordings({"a": Path("a.wav")}, 0.5), "valid") == []
    assert names(split_recordings({"a": Path("a.wav"), "b": Path("b.wav")}, 0.0), "valid") == []


def test_the_split_does_not_depend_on_the_folder_or_on_order() -> None:
    paths = {f"r{index}": Path(f"r{index}.wav") for index in range(40)}
    elsewhere = {name: Path("/elsewhere") / path for name, path in reversed(list(paths.items()))}
    here, there = split_recordings(paths, 0.2), split_recordings(elsewhere, 0.2)
    assert names(here, "valid") == names(there, "valid")
    assert names(there) == sorted(paths)
    assert names(here, "valid") != sorted(paths)[:8]  # a hash decides, not the alphabet


def test_an_added_recording_moves_at_most_one_other() -> None:
    paths = {f"r{index}": Path(f"r{index}.wav") for index in range(100)}
    before = set(names(split_recordings(paths, 0.1), "valid"))
    moves = []
    for index in range(100, 160):
        paths[f"r{index}"] = Path(f"r{index}.wav")
        after = set(names(split_recordings(paths, 0.1), "valid"))
        moves.append(len(before ^ after - {f"r{index}"}))
        before = after
    assert max(moves) <= 1


# --- manifests ---

CLIPS = [
    Clip("a/x", "train", 24000, 93, Path("/elsewhere/a/x.wav"), Path("out/mels/a/x.npz")),
    Clip('"Zoë" says "hi', "valid", 512, 2, Path("out/audio/z.flac"), Path("out/mels/z.npz")),
]


def test_a_manifest_is_read_back_equal() -> None:
    write_manifest(Path("out/manifest.tsv"), CLIPS)
    assert read_manifest(Path("out/manifest.tsv"), Clip) == CLIPS


@pytest.mark.parametrize("name", ["tab\there", "line\nbreak", "Zo\udceb", " space"])
def test_a_name_that_would_not_be_read_back_is_not_written(name: str, messages: Messages) -> None:
    with messages.refused(DataError):
        write_manifest(Path("manifest.tsv"), [replace(CLIPS[0], name=name)])
    assert not Path("manifest.tsv").exists()


def test_files_below_the_manifest_move_with_it() -> None:
    write_manifest(Path("out/manifest.tsv"), CLIPS)
    Path("out").rename("moved")
    moved = read_manifest(Path("moved/manifest.tsv"), Clip)
    assert moved[0] == replace(CLIPS[0], mel=Path("moved/mels/a/x.npz"))
    assert moved[1].audio == Path("moved/audio/z.flac")


HEADER = "name\tsplit\tsamples\tframes\taudio\tmel\n"
BAD_MANIFESTS = {
    "empty": "",
    "header alone": HEADER,
    "no header": "x\ttrain\t1\t1\ta\tb\nx\ttrain\t1\t1\ta\tb\n",
    "short row": HEADER + "x\ttrain\t1\t1\ta\tb\nx\ttrain\n",
    "not a number": HEADER + "x\ttrain\tmany\t1\ta\tb\n",
    "long row": HEADER + "x\ttrain\t1\t1\ta\tb\tc\n",
    "two columns of one name": HEADER.replace("audio", "mel") + "x\ttrain\t1\t1\ta\tb\n",
    "one name twice": HEADER + "x\ttrain\t1\t1\ta\tb\n" * 2,
    "another split": HEADER + "x\ttest\t1\t1\ta\tb\n",  # it must not be taken for "train"
}


@pytest.mark.parametrize("fault", BAD_MANIFESTS)
def test_a_bad_manifest_is_refused(fault: str, messages: Messages) -> None:
    path = Path("manifest.tsv")
    path.write_text(BAD_MANIFESTS[fault])
    with messages.refused(DataError):
        read_manifest(path, Clip)


def test_a_file_that_is_not_text_is_not_a_manifest(messages: Messages) -> None:
    Path("manifest.tsv").write_bytes(b"\xff\xfe\x00name")
    for path in (Path("manifest.tsv"), Path(), Path("none.tsv")):
        with messages.refused(DataError):
            read_manifest(path, Clip)


def test_clips_are_taken_evenly_from_all_of_them() -> None:
    clips = [Clip(str(i), "valid", 1, 1, Path("a"), Path("m")) for i in range(10)]
    assert [clip.name for clip in take_evenly(clips, 4)] == ["0", "2", "5", "7"]
    assert take_evenly(clips, 99) == clips
    assert take_evenly(clips, 0) == []
