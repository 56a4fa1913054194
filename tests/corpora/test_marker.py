"""What an extraction keeps, what it makes again, and the marker that tells them apart."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from support.corpus import write_corpus
from support.extraction import CORPUS, OTHER_SPEC, OUT, SPEC, contents, interrupt_after, record, run, sweep
from support.messages import Messages

from wavegen.audio import read_audio
from wavegen.corpora.extraction import MANIFEST, extract, is_complete
from wavegen.corpora.folders import find_recordings
from wavegen.corpora.manifest import Clip, read_manifest
from wavegen.corpora.marker import MARKER, has_same_content
from wavegen.mel import LogMel, load_mel, profile

pytestmark = pytest.mark.usefixtures("folder")


def test_a_second_call_makes_nothing(made: list[str]) -> None:
    record("a", "b")
    soundfile.write(CORPUS / "c.ogg", sweep(0.3, 16000), 16000)
    first, before = run(), contents(OUT)
    times = {path: path.stat().st_mtime_ns for path in OUT.rglob("*")}
    made.clear()
    again = run()
    assert again.was_complete
    assert again.clips == first.clips
    assert made == []
    assert contents(OUT) == before
    assert {path: path.stat().st_mtime_ns for path in OUT.rglob("*")} == times


def test_a_changed_or_added_recording_is_extracted_and_the_others_are_kept(made: list[str]) -> None:
    record("a", "b")
    run()
    made.clear()
    record("b", from_hz=700)
    record("c")
    result = run()
    assert sorted(made) == ["b", "c"]
    mel, _ = load_mel(OUT / "mels/b.npz")
    np.testing.assert_array_equal(mel, LogMel(SPEC)(torch.from_numpy(read_audio(CORPUS / "b.wav"))[None])[0].numpy())
    assert [clip.name for clip in result.clips] == ["a", "b", "c"]


def test_a_recording_replaced_by_an_older_file_is_extracted_again(made: list[str]) -> None:
    """Moving, copying with times and unpacking archives all can replace a file by an older one."""
    record("a", "b")
    run()
    made.clear()
    record("b", from_hz=700, modified_s=1)
    run()
    assert made == ["b"]


def test_another_corpus_with_the_same_names_is_extracted_again(made: list[str]) -> None:
    record("a", "b", modified_s=1)
    run()
    CORPUS.rename("first")
    record("a", "b", from_hz=700, modified_s=1)
    CORPUS.rename("second")
    made.clear()
    extract(find_recordings(Path("second")), OUT, SPEC, jobs=1, progress=False)
    assert made == ["a", "b"]


def test_a_recording_that_was_deleted_leaves_the_manifest_and_the_others_are_kept(made: list[str]) -> None:
    record("a", "b", "c")
    run()
    made.clear()
    (CORPUS / "b.wav").unlink()
    assert [clip.name for clip in run().clips] == ["a", "c"]
    assert made == []


def test_another_split_keeps_the_mels_and_changes_the_manifest(made: list[str]) -> None:
    record("a", "b", "c")
    run()
    made.clear()
    result = extract(find_recordings(CORPUS, held_out="b"), OUT, SPEC, jobs=1, progress=False)
    assert not result.was_complete
    assert [clip.name for clip in read_manifest(OUT / MANIFEST, Clip) if clip.split == "valid"] == ["b"]
    assert made == []


def test_another_definition_extracts_everything_again(made: list[str]) -> None:
    record("a", "b")
    run()
    made.clear()
    result = run(spec=OTHER_SPEC)
    assert made == ["a", "b"]
    assert {load_mel(clip.mel)[1] for clip in result.clips} == {OTHER_SPEC}
    assert [clip.frames for clip in result.clips] == [OTHER_SPEC.frames(4800)] * 2


def test_a_lost_manifest_mel_or_converted_recording_is_made_again(made: list[str]) -> None:
    record("a", "b")
    soundfile.write(CORPUS / "c.ogg", sweep(0.3, 16000), 16000)
    run()
    before = contents(OUT)
    (OUT / MANIFEST).unlink()
    (OUT / "mels/a.npz").unlink()
    (OUT / "audio/c.flac").unlink()
    made.clear()
    assert not is_complete(find_recordings(CORPUS), OUT, SPEC)
    run()
    assert made == ["a", "c"]
    assert contents(OUT) == before


@pytest.mark.parametrize("marker", ["", "{", "[]", '"text"', "{}", '{"mel": 3}'])
def test_with_a_damaged_marker_everything_is_extracted_again(marker: str, made: list[str]) -> None:
    record("a", "b")
    run()
    (OUT / MARKER).write_text(marker)
    made.clear()
    assert not is_complete(find_recordings(CORPUS), OUT, SPEC)
    run()
    assert made == ["a", "b"]
    assert is_complete(find_recordings(CORPUS), OUT, SPEC)


def test_the_marker_states_the_definition_the_recordings_and_what_was_left_out() -> None:
    record("a", "b")
    run()
    marker = json.loads((OUT / MARKER).read_text())
    assert marker["mel"]["n_mels"] == SPEC.n_mels
    assert [identity[0] for identity in marker["recordings"]] == ["a", "b"]
    assert marker["left_out"] == {}


def test_mels_of_another_definition_are_replaced_and_reported(tmp_path: Path, messages: Messages) -> None:
    recordings = find_recordings(write_corpus(tmp_path / "corpus", clips=2))
    first = extract(recordings, tmp_path / "out", profile("bigvgan-24k"), progress=False)
    assert first.notes() == ""
    second = extract(recordings, tmp_path / "out", profile("bigvgan-24k").replace(n_mels=80), progress=False)
    assert second.replaced_fields == ("n_mels",)
    messages.check(second.notes())


# --- what is missing, and what moved ---


@pytest.mark.parametrize("lost", ["mels/a.npz", "audio/c.flac"])
def test_a_result_that_is_missing_is_made_again_alone(lost: str, made: list[str]) -> None:
    record("a", "b")
    soundfile.write(CORPUS / "c.ogg", sweep(0.3, 16000), 16000)
    run()
    before = contents(OUT)
    (OUT / lost).unlink()
    made.clear()
    assert not is_complete(find_recordings(CORPUS), OUT, SPEC)
    assert not run().was_complete
    assert made == [Path(lost).stem]
    assert contents(OUT) == before


def move(how: str) -> None:
    if how == "moved":
        CORPUS.rename("elsewhere")
    else:  # copied without times
        shutil.copytree(CORPUS, "elsewhere", copy_function=shutil.copyfile)
        for path in Path("elsewhere").rglob("*.wav"):
            os.utime(path, (1, 1))


@pytest.mark.parametrize("how", ["moved", "copied"])
def test_a_corpus_in_another_place_keeps_its_mels(how: str, made: list[str]) -> None:
    record("a", "b")
    run()
    made.clear()
    move(how)
    recordings = find_recordings(Path("elsewhere"))
    assert has_same_content(recordings, OUT, SPEC)
    result = run(Path("elsewhere"))
    assert made == []
    assert {clip.audio.parent for clip in result.clips} == {Path("elsewhere").absolute()}
    assert read_manifest(OUT.absolute() / MANIFEST, Clip) == result.clips
    assert run(Path("elsewhere")).was_complete


def test_of_a_corpus_that_moved_only_what_changed_is_made_again(made: list[str]) -> None:
    record("a", "b", modified_s=1)
    run()
    record("b", from_hz=700, modified_s=1)  # of the same size
    made.clear()
    move("moved")
    assert not has_same_content(find_recordings(Path("elsewhere")), OUT, SPEC)
    run(Path("elsewhere"))
    assert made == ["b"]


def test_what_moved_during_an_interruption_is_kept_too(made: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    record("a", "b")
    run()
    record("c")
    with monkeypatch.context() as patch:
        interrupt_after(0, patch)
        with pytest.raises(KeyboardInterrupt):
            run()
    made.clear()
    move("moved")
    run(Path("elsewhere"))
    assert made == ["c"]


def test_mels_of_an_older_format_are_made_again(made: list[str]) -> None:
    record("a")
    run()
    marker = json.loads((OUT / MARKER).read_text())
    del marker["format"]
    (OUT / MARKER).write_text(json.dumps(marker))
    made.clear()
    run()
    assert made == ["a"]
