"""From a folder to recordings in their splits, and manifests there and back."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from wavegen.corpora.manifest import (
    Clip,
    Recording,
    find_recordings,
    read_manifest,
    split_recordings,
    spread,
    write_manifest,
)
from wavegen.errors import DataError


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # so that messages name relative, known paths


def corpus(*names: str) -> Path:
    """Files of no content: a corpus is told by its names."""
    folder = Path("corpus")
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def names(recordings: list[Recording], split: str | None = None) -> list[str]:
    return [recording.name for recording in recordings if split in (None, recording.split)]


def refusal(folder: Path, **options: str) -> str:
    with pytest.raises(DataError) as caught:
        find_recordings(folder, **options)  # type: ignore[arg-type]
    return str(caught.value)


# --- recordings ---


def test_hidden_files_are_no_recordings() -> None:
    for name in ("a.wav", "b.wav", ".a.123.part.wav"):
        Path("corpus").mkdir(exist_ok=True)
        Path("corpus", name).touch()
    assert [recording.name for recording in find_recordings(Path("corpus"))] == ["a", "b"]


def test_recordings_of_every_kind_are_found_in_subfolders_and_named_by_their_place() -> None:
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
def test_a_share_is_held_back_at_least_one_and_never_all(share: float) -> None:
    for count in (2, 3, 10, 40):
        found = split_recordings({f"r{index}": Path(f"r{index}.wav") for index in range(count)}, share)
        held_back = len(names(found, "valid"))
        assert len(found) == count
        assert 1 <= held_back < count
        assert share * count <= held_back < share * count + 1 or held_back == count - 1


def test_nothing_is_held_back_of_a_single_recording_or_where_nothing_is_asked_for() -> None:
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


def test_a_glob_of_names_holds_back_what_it_matches() -> None:
    folder = corpus("ann/1.wav", "ann/2.wav", "bob/1.wav", "bob/deep/2.wav")
    assert names(find_recordings(folder, held_out="bob/*"), "valid") == ["bob/1", "bob/deep/2"]


def test_a_glob_that_leaves_a_split_empty_is_refused() -> None:
    folder = corpus("ann/1.wav", "bob/1.wav")
    compared = "; it is compared with names like 'ann/1'"
    assert refusal(folder, held_out="*.wav") == f"held_out '*.wav' matches 0 of 2 recordings{compared}"
    assert refusal(folder, held_out="*") == f"held_out '*' matches 2 of 2 recordings{compared}"


def test_a_folder_without_recordings_is_refused() -> None:
    assert refusal(corpus("notes.txt")) == (
        "corpus: no recordings match '**/*'; looked for .aif, .aiff, .flac, .mp3, .ogg, .opus, .wav; "
        "check the folder and the pattern"
    )
    assert refusal(Path("none")) == "none: no such folder; give the folder that holds the recordings"


def test_two_recordings_of_one_name_are_refused() -> None:
    assert refusal(corpus("a/x.flac", "a/x.wav", "b/x.wav")) == (
        "corpus: x.flac and x.wav share the name 'x'; rename one, or narrow the pattern, as '**/*.wav' does"
    )


@pytest.mark.parametrize("pattern", ["../*.wav", "a/../../*.wav", "/corpus/*.wav", ""])
def test_a_pattern_that_does_not_stay_below_the_folder_is_refused(pattern: str) -> None:
    folder = corpus("a/x.wav")
    Path("outside.wav").touch()
    message = refusal(folder, pattern=pattern)
    assert message.startswith(f"corpus: {pattern!r} is no pattern for files below it (")
    assert message.endswith("; give one such as '**/*.wav'")


def test_a_name_that_no_manifest_can_hold_is_refused() -> None:
    folder = corpus("a.wav")
    try:
        (folder / os.fsdecode(b"Zo\xeb.wav")).touch()
    except OSError:
        pytest.skip("this file system has UTF-8 names only")
    assert refusal(folder) == r"corpus: the name 'Zo\udceb.wav' is not UTF-8; rename the file"


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


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "a manifest without rows"),
        (HEADER, "a manifest without rows"),
        ("x\ttrain\t1\t1\ta\tb\nx\ttrain\t1\t1\ta\tb\n", "line 2 is not a row of a manifest (KeyError('name'))"),
        (HEADER + "x\ttrain\t1\t1\ta\tb\nx\ttrain\n", "line 3 is not a row of a manifest (TypeError("),
        (HEADER + "x\ttrain\tmany\t1\ta\tb\n", "line 2 is not a row of a manifest (ValueError("),
        # "test" taken for "train" would be trained on.
        (HEADER + "x\ttest\t1\t1\ta\tb\n", "line 2 is not a row of a manifest (KeyError('test'))"),
    ],
)
def test_a_bad_manifest_is_refused(text: str, message: str) -> None:
    path = Path("manifest.tsv")
    path.write_text(text)
    with pytest.raises(DataError) as caught:
        read_manifest(path, Clip)
    assert str(caught.value).startswith(f"manifest.tsv: {message}")
    columns = "name, split, samples, frames, audio, mel"
    assert str(caught.value).endswith(f"; it needs the tab-separated columns {columns}")


def test_what_is_no_text_is_no_manifest() -> None:
    Path("manifest.tsv").write_bytes(b"\xff\xfe\x00name")
    for path in (Path("manifest.tsv"), Path()):
        with pytest.raises(DataError, match=r"^(manifest\.tsv|\.): not a manifest \(.+\); give tab-separated text"):
            read_manifest(path, Clip)
    with pytest.raises(DataError, match=r"^none\.tsv: no such manifest; check the path$"):
        read_manifest(Path("none.tsv"), Clip)


def test_clips_are_taken_evenly_from_all_of_them() -> None:
    clips = [Clip(str(i), "valid", 1, 1, Path("a"), Path("m")) for i in range(10)]
    assert [clip.name for clip in spread(clips, 4)] == ["0", "2", "5", "7"]
    assert spread(clips, 99) == clips
    assert spread(clips, 0) == []
