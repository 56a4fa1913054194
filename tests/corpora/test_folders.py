"""Recordings are found in folders: by pattern, through links, and without what only looks like a recording."""

import os
from pathlib import Path

import pytest
from support.messages import Messages

from wavegen.corpora.folders import find_recordings
from wavegen.corpora.manifest import Recording
from wavegen.errors import DataError, OutputError

pytestmark = pytest.mark.usefixtures("folder")


def corpus(*names: str, folder: str = "corpus") -> Path:
    """Empty files, because only their names matter."""
    place = Path(folder)
    for name in names:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).touch()
    return place


def names(recordings: list[Recording], split: str | None = None) -> list[str]:
    return [recording.name for recording in recordings if split in (None, recording.split)]


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
def test_a_pattern_that_leaves_the_folder_is_refused(pattern: str, messages: Messages) -> None:
    folder = corpus("a/x.wav")
    Path("outside.wav").touch()
    with messages.refused(DataError):
        find_recordings(folder, pattern=pattern)


def test_a_name_that_is_not_utf8_is_refused(messages: Messages) -> None:
    folder = corpus("a.wav")
    try:
        (folder / os.fsdecode(b"Zo\xeb.wav")).touch()
    except OSError:
        pytest.skip("this file system has UTF-8 names only")
    with messages.refused(DataError):
        find_recordings(folder)


# --- links and leavings ---


def found(folder: Path, **options: object) -> tuple[list[str], list[str]]:
    """The names of the recordings, and what is said of files that were passed over."""
    lines: list[str] = []
    return names(find_recordings(folder, notify=lines.append, **options)), lines  # type: ignore[arg-type]


def test_folders_and_files_behind_links_are_found() -> None:
    corpus("a0.wav", "deep/a1.wav", folder="store/ann")
    corpus("b0.wav", folder="store/bob")
    folder = corpus("own/o0.wav")
    (folder / "ann").symlink_to(Path("store/ann").absolute())
    (folder / "one.wav").symlink_to(Path("store/bob/b0.wav").absolute())
    assert found(folder) == (["ann/a0", "ann/deep/a1", "one", "own/o0"], [])


@pytest.mark.parametrize("target", [".", "..", "a"])
def test_a_link_that_leads_back_is_followed_once(target: str) -> None:
    folder = corpus("a/x.wav", "b/y.wav")
    (folder / "b/again").symlink_to((folder / target).resolve())
    (folder / "b/again2").symlink_to((folder / target).resolve())
    assert found(folder) == (["a/x", "b/y"], [])


def test_a_link_to_nothing_is_a_recording_that_cannot_be_read_or_is_reported(messages: Messages) -> None:
    folder = corpus("a.wav")
    for name in ("gone.wav", "speaker"):
        (folder / name).symlink_to("/nowhere")
    recordings, lines = found(folder)
    assert recordings == ["a", "gone"]
    messages.check("\n".join(lines))


def test_leavings_of_other_programs_are_not_recordings() -> None:
    leavings = (
        "._a.wav", ".AppleDouble/a.wav", "__MACOSX/._a.wav", "__MACOSX/b.wav", ".Trash-1000/files/c.wav",
        ".ipynb_checkpoints/a-checkpoint.wav", "@eaDir/a.wav/SYNO.wav", "lost+found/x.wav", "deep/.hidden/y.wav",
    )  # fmt: skip
    assert found(corpus("a.wav", *leavings)) == (["a"], [])


def test_audio_that_cannot_be_read_is_reported(messages: Messages) -> None:
    folder = corpus("a.wav", "b.M4A", "c/d.m4a", "e.wma", "notes.txt")
    recordings, lines = found(folder)
    assert recordings == ["a"]
    messages.check("\n".join(lines))
    assert found(folder, pattern="**/*.wav") == (["a"], [])  # the user chose
    (folder / "a.wav").unlink()
    with messages.refused(DataError):
        find_recordings(folder)


def test_a_folder_that_cannot_be_read_is_reported(monkeypatch: pytest.MonkeyPatch, messages: Messages) -> None:
    folder = corpus("a.wav", "closed/b.wav")
    scandir = os.scandir

    def closed(place: Path) -> object:  # permissions do not stop root, as whom tests may run
        if place.name == "closed":
            raise PermissionError
        return scandir(place)

    monkeypatch.setattr(os, "scandir", closed)
    recordings, lines = found(folder)
    assert recordings == ["a"]
    messages.check("\n".join(lines))


@pytest.mark.parametrize("name", ["tab\there.wav", "new\nline.wav", "return\r.wav"])
def test_a_name_that_no_list_can_hold_is_refused(name: str, messages: Messages) -> None:
    with messages.refused(DataError):
        find_recordings(corpus("a.wav", name))


def test_spaces_around_a_name_are_not_part_of_it(messages: Messages) -> None:
    assert names(find_recordings(corpus("trailing .wav", " leading.wav"))) == ["leading", "trailing"]
    with messages.refused(DataError):
        find_recordings(corpus("trailing.wav"))


# --- results ---


def test_results_of_this_run_and_of_others_are_not_recordings(messages: Messages) -> None:
    folder = corpus(
        "a.wav", "out/audio/b.flac", "mine/c.wav",
        "runs/x/recipe.yaml", "runs/x/log.jsonl", "runs/x/samples/d.wav",
        "features/complete.json", "features/mels/e.npz", "features/audio/e.flac",
        "compared/summary.json", "compared/scores.csv", "compared/audio/f.wav",
    )  # fmt: skip
    recordings, lines = found(folder, outputs=[folder / "out"])
    assert recordings == ["a", "mine/c"]
    messages.check("\n".join(lines))
    assert found(folder / "features") == (["audio/e"], [])  # named by the user


@pytest.mark.parametrize(("place", "out"), [("corpus", "corpus"), ("corpus", "corpus/../corpus"), ("out/audio", "out")])
def test_results_among_the_recordings_are_refused(place: str, out: str, messages: Messages) -> None:
    with messages.refused(OutputError):
        find_recordings(corpus("a.wav", folder=place), outputs=[Path(out)])
