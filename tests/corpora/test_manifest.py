"""Recordings are found in folders and split, and manifests are read back as they were written."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
from support.messages import Messages

from wavegen.corpora.manifest import (
    Clip,
    Recording,
    find_recordings,
    read_manifest,
    split_recordings,
    take_evenly,
    write_manifest,
)
from wavegen.errors import DataError


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # so that messages name relative, known paths


def corpus(*names: str) -> Path:
    """Empty files, because only their names matter."""
    folder = Path("corpus")
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def names(recordings: list[Recording], split: str | None = None) -> list[str]:
    return [recording.name for recording in recordings if split in (None, recording.split)]


# --- recordings ---


def test_hidden_files_are_not_recordings() -> None:
    for name in ("a.wav", "b.wav", ".a.123.part.wav"):
        Path("corpus").mkdir(exist_ok=True)
        Path("corpus", name).touch()
    assert [recording.name for recording in find_recordings(Path("corpus"))] == ["a", "b"]


def test_recordings_of_every_format_are_found_in_subfolders_and_named_by_their_path() -> None:
    folder = corpus("b.wav", "a/x.1.FLAC", "a/b/y.ogg", "z.Mp3", "o.opus", "notes.txt", "a/metadata.csv", "wav")
    (folder / "folder.wav").mkdir()
    found = find_recordings(folder)
    assert names(found) == ["a/b/y", "a/x.1", "b", "o", "z"]
    assert found[1].path == folder / "a/x.1.FLAC"


def test_a_pattern_narrows_the_search() -> None:
    folder = corpus("a/x.wav", "a/x.flac", "a/deep/y.wav", "b/x.wav")
    assert names(find_recordings(folder, pattern="**/*.wav")) == ["a/deep/y", "a/x", "b/x"]
    assert names(find_recordings(folder, pattern="a/*.flac")) == ["a/x"]


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


def test_a_glob_selects_validation_recordings_by_name() -> None:
    folder = corpus("ann/1.wav", "ann/2.wav", "bob/1.wav", "bob/deep/2.wav")
    assert names(find_recordings(folder, held_out="bob/*"), "valid") == ["bob/1", "bob/deep/2"]


@pytest.mark.parametrize("glob", ["*.wav", "*"])
def test_a_glob_that_leaves_a_split_empty_is_refused(glob: str, messages: Messages) -> None:
    with messages.refused(DataError):
        find_recordings(corpus("ann/1.wav", "bob/1.wav"), held_out=glob)


def test_a_folder_without_recordings_is_refused(messages: Messages) -> None:
    with messages.refused(DataError):
        find_recordings(corpus("notes.txt"))
    with messages.refused(DataError):
        find_recordings(Path("none"))


def test_two_recordings_with_the_same_name_are_refused(messages: Messages) -> None:
    with messages.refused(DataError):
        find_recordings(corpus("a/x.flac", "a/x.wav", "b/x.wav"))


@pytest.mark.parametrize("pattern", ["../*.wav", "a/../../*.wav", "/corpus/*.wav", ""])
def test_a_pattern_that_leaves_the_folder_is_refused(pattern: str) -> None:
    folder = corpus("a/x.wav")
    Path("outside.wav").touch()
    with pytest.raises(DataError) as error:  # its reason is Python's, and differs between versions
        find_recordings(folder, pattern=pattern)
    assert str(error.value).startswith(f"corpus: {pattern!r} is not a pattern for files in this folder (")


def test_a_name_that_is_not_utf8_is_refused(messages: Messages) -> None:
    folder = corpus("a.wav")
    try:
        (folder / os.fsdecode(b"Zo\xeb.wav")).touch()
    except OSError:
        pytest.skip("this file system has UTF-8 names only")
    with messages.refused(DataError):
        find_recordings(folder)


# --- manifests ---

CLIPS = [
    Clip("a/x", "train", 24000, 93, Path("/elsewhere/a/x.wav"), Path("out/mels/a/x.npz")),
    Clip('Zoë\tsays "hi"\n', "valid", 512, 2, Path("out/audio/z.flac"), Path("out/mels/z.npz")),
]


def test_a_manifest_is_read_back_equal() -> None:
    write_manifest(Path("out/manifest.tsv"), CLIPS)
    assert read_manifest(Path("out/manifest.tsv"), Clip) == CLIPS


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
