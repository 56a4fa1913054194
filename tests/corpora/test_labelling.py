"""Labels of a corpus: made or read, stored, kept while nothing changes, and made again when something does."""

from pathlib import Path

import numpy as np
import pytest
from support.corpus import RATE, write_corpus
from support.messages import Messages

from wavegen.audio import read_audio
from wavegen.corpora.activity import speech_activity
from wavegen.corpora.extraction import extract
from wavegen.corpora.folders import find_recordings
from wavegen.corpora.frame_labels import UNLABELLED
from wavegen.corpora.label_files import Label, write_labels
from wavegen.corpora.labelling import LabelFilesConfig, Labelled, label_clips, load_frame_labels, voicing
from wavegen.corpora.pitch_labels import require_tracker
from wavegen.errors import DataError
from wavegen.mel import profile
from wavegen.network import FrameClasses

pytestmark = pytest.mark.usefixtures("folder")
SPEC = profile("bigvgan-24k")
CORPUS, OUT = Path("corpus"), Path("labels")
MADE = FrameClasses(("speech", "voiced"))
NAMED = FrameClasses(("a", "b"), exclusive=True)


def label(classes: FrameClasses = MADE, files: LabelFilesConfig | None = None) -> Labelled:
    if not CORPUS.exists():
        write_corpus(CORPUS)
    recordings = find_recordings(CORPUS, held_out="a[01]")
    clips = extract(recordings, Path("features"), SPEC, progress=False).clips
    sources = {recording.name: recording.path for recording in recordings}
    return label_clips(clips, sources, classes, files, SPEC, OUT, progress=False)


def files(suffix: str = ".txt", **options: object) -> LabelFilesConfig:
    return LabelFilesConfig(suffix=suffix, **options)  # type: ignore[arg-type]


def write_all(*labels: Label, count: int = 6) -> None:
    write_corpus(CORPUS)
    for index in range(count):
        write_labels(CORPUS / f"a{index}.txt", labels)


def test_labels_are_made_from_the_recordings() -> None:
    labelled = label()
    assert len(labelled.clips) == 6
    for clip in labelled.clips:
        assert clip.labels is not None
        marks = load_frame_labels(clip.labels, clip.frames)
        samples = read_audio(clip.audio)
        assert (marks[0] == speech_activity(samples, SPEC)).all()
        assert (marks[1] == voicing(samples, SPEC, require_tracker())).all()
    assert labelled.unlabelled == 0
    assert 0.5 < labelled.shares["voiced"] <= 1


def test_labels_are_kept_until_something_changes() -> None:
    first = label()
    stamps = {clip.name: clip.labels.stat().st_mtime_ns for clip in first.clips if clip.labels}
    again = label()
    assert again == first
    assert stamps == {clip.name: clip.labels.stat().st_mtime_ns for clip in again.clips if clip.labels}
    one = label(FrameClasses(("voiced",)))
    assert [load_frame_labels(clip.labels, clip.frames).shape[0] for clip in one.clips if clip.labels] == [1] * 6
    Path("labels/a3.npy").unlink()
    assert label(FrameClasses(("voiced",))) == one
    assert Path("labels/a3.npy").exists()


def test_labels_are_read_from_files_and_gaps_are_unlabelled() -> None:
    write_all(Label(0.0, 0.05, "a"), Label(0.05, 0.08, "b"))
    labelled = label(NAMED, files())
    first = load_frame_labels(Path("labels/a0.npy"), SPEC.frames(round(0.8 * RATE)))
    assert (first[:, :4] == np.array([[1], [0]])).all()
    assert (first[:, 10:] == UNLABELLED).all()
    assert labelled.unlabelled > 0.5
    assert sum(labelled.shares.values()) == pytest.approx(1)


def test_a_changed_label_file_is_read_again() -> None:
    write_all(Label(0.0, 0.05, "a"))
    before = label(NAMED, files()).shares
    write_labels(CORPUS / "a0.txt", [Label(0.0, 0.05, "b")])
    assert label(NAMED, files()).shares != before


def test_recordings_without_a_label_file_are_left_out(messages: Messages) -> None:
    write_all(Label(0.0, 0.05, "a"), count=4)
    labelled = label(NAMED, files())
    assert [clip.name for clip in labelled.clips] == ["a0", "a1", "a2", "a3"]
    messages.check(labelled.notes())


def test_label_files_can_lie_in_a_folder_of_their_own() -> None:
    write_corpus(CORPUS)
    for index in range(6):
        write_labels(Path(f"other/a{index}.lab"), [Label(0.0, 0.05, "a")])
    assert len(label(NAMED, files(".lab", folder=Path("other"))).clips) == 6


def test_no_label_files_at_all_and_bad_ones_are_refused(messages: Messages) -> None:
    write_corpus(CORPUS)
    with messages.refused(DataError):
        label(NAMED, files(".lab"))
    write_all(Label(0.0, 0.05, "a"), Label(0.05, 0.1, "c"))
    with messages.refused(DataError):
        label(NAMED, files())
    (CORPUS / "a0.txt").write_text("0\t2\ta\n1\t3\tb\n")
    with messages.refused(DataError):
        label(NAMED, files())


def test_damaged_stored_labels_are_refused(messages: Messages) -> None:
    OUT.mkdir()
    np.save(OUT / "a.npy", np.zeros((2, 5), np.int8))
    with messages.refused(DataError):
        load_frame_labels(OUT / "a.npy", 6)
    (OUT / "b.npy").write_bytes(b"")
    with messages.refused(DataError):
        load_frame_labels(OUT / "b.npy", 6)
