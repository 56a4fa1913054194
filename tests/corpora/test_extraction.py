"""Extraction: what is made, what is kept, what is made again, and how bad recordings are left out."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from support.corpus import write_corpus
from support.messages import Messages

import wavegen.corpora.extraction
import wavegen.mel
from wavegen.audio import read_audio, write_audio
from wavegen.corpora.extraction import MANIFEST, MARKER, Extraction, extract, is_complete
from wavegen.corpora.manifest import Clip, Recording, find_recordings, read_manifest
from wavegen.errors import DataError, OutputError
from wavegen.files import LOCK
from wavegen.mel import LogMel, load_mel, profile

SPEC = profile("bigvgan-24k")
OTHER_SPEC = profile("vocos-24k")
CORPUS, OUT = Path("corpus"), Path("out")


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the mels written so far: shows what was made again without looking at the clock."""
    names: list[str] = []
    save_mel = wavegen.corpora.extraction.save_mel

    def spy(path: Path, *rest: Any) -> None:
        save_mel(path, *rest)
        names.append(path.stem)

    monkeypatch.setattr(wavegen.corpora.extraction, "save_mel", spy)
    return names


def sweep(seconds: float, rate: int, *, from_hz: float = 100.0) -> np.ndarray:
    time = np.arange(int(seconds * rate)) / rate
    return (0.5 * np.sin(2 * np.pi * (from_hz * time + 1000 * time**2))).astype(np.float32)


def record(*names: str, from_hz: float = 100.0, modified_s: float | None = None) -> None:
    """Write good recordings, which SPEC uses as they are."""
    for name in names:
        path = CORPUS / f"{name}.wav"
        write_audio(path, sweep(0.2, 24000, from_hz=from_hz), 24000)
        if modified_s is not None:
            os.utime(path, (modified_s, modified_s))


def run(**options: Any) -> Extraction:
    return extract(find_recordings(CORPUS), OUT, **{"spec": SPEC, "jobs": 1, "progress": False, **options})


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# --- what is made ---


def test_every_recording_gets_its_mel_with_the_definition() -> None:
    for index, name in enumerate(("a", "deep/er/b", "c.1")):
        record(name, from_hz=100.0 * (index + 1))
    result = run(jobs=2)
    assert [clip.name for clip in result.clips] == ["a", "c.1", "deep/er/b"]
    assert (result.left_out, result.was_complete, result.left_out_report()) == ({}, False, None)
    for clip in result.clips:
        mel, spec = load_mel(clip.mel)
        audio = read_audio(CORPUS / f"{clip.name}.wav")
        assert spec == SPEC
        assert (clip.samples, clip.frames) == (len(audio), mel.shape[1])
        np.testing.assert_array_equal(mel, LogMel(SPEC)(torch.from_numpy(audio)[None])[0].numpy())
    assert read_manifest(OUT.absolute() / MANIFEST, Clip) == result.clips
    assert {clip.split for clip in result.clips} == {"train", "valid"}


def test_mono_at_the_right_rate_is_used_in_place_and_the_rest_is_converted() -> None:
    CORPUS.mkdir()
    two = np.stack([sweep(0.5, 44100), np.zeros(22050, np.float32)], axis=1)
    soundfile.write(CORPUS / "stereo.wav", two, 44100)
    soundfile.write(CORPUS / "stereo24k.flac", sweep(0.5, 24000)[:, None].repeat(2, axis=1), 24000)
    soundfile.write(CORPUS / "low.wav", sweep(0.5, 8000), 8000)
    soundfile.write(CORPUS / "unseekable.ogg", sweep(0.5, 24000), 24000)
    soundfile.write(CORPUS / "right.flac", sweep(0.5, 24000), 24000)
    soundfile.write(CORPUS / "right_pcm24.wav", sweep(0.5, 24000), 24000, subtype="PCM_24")
    clips = {clip.name: clip for clip in run().clips}
    assert {name for name, clip in clips.items() if clip.audio.is_relative_to(CORPUS.absolute())} == {
        "right",
        "right_pcm24",
    }
    for name in ("stereo", "stereo24k", "low", "unseekable"):
        clip = clips[name]
        assert clip.audio == OUT.absolute() / f"audio/{name}.flac"
        info = soundfile.info(clip.audio)
        assert (info.samplerate, info.channels, info.frames) == (24000, 1, clip.samples)
    for clip in clips.values():
        assert (clip.samples, clip.frames) == (12000, 46)
    # The channels are averaged: with one of them silent, half of the other remains.
    loudest = np.abs(read_audio(clips["stereo"].audio)).max()
    assert 0.24 < loudest < 0.26


# --- bad recordings ---


def zero_bytes(path: Path) -> None:
    path.touch()


def zero_samples(path: Path) -> None:
    soundfile.write(path, np.zeros(0), 24000)


def truncated(path: Path) -> None:
    write_audio(path, sweep(0.2, 24000), 24000)
    path.write_bytes(path.read_bytes()[:-1000])


def text(path: Path) -> None:
    path.write_text("the quick brown fox\n" * 100)


def with_nan(path: Path) -> None:
    samples = sweep(0.2, 24000)
    samples[100] = np.nan
    soundfile.write(path, samples, 24000, subtype="FLOAT")


def too_short(path: Path) -> None:
    write_audio(path, sweep(0.2, 24000)[: SPEC.min_samples - 1], 24000)


BAD = (zero_bytes, zero_samples, truncated, text, with_nan, too_short)


def test_bad_recordings_are_left_out_with_their_reasons_and_do_not_stop_the_others(messages: Messages) -> None:
    record("good1", "good2")
    for make in BAD:
        make(CORPUS / f"{make.__name__}.wav")
    result = run(jobs=2)
    assert [clip.name for clip in result.clips] == ["good1", "good2"]
    assert list(result.left_out) == sorted(make.__name__ for make in BAD)
    assert all(reason.startswith(f"{CORPUS / name}.wav: ") for name, reason in result.left_out.items())
    messages.check(result.left_out_report())
    assert set(contents(OUT)) == {LOCK, MANIFEST, MARKER, "mels/good1.npz", "mels/good2.npz"}


def test_a_recording_left_out_is_reported_again_and_used_once_it_is_repaired(made: list[str]) -> None:
    record("a", "b")
    text(CORPUS / "bad.wav")
    first, again = run(), run()
    assert again.was_complete
    assert again.left_out == first.left_out
    assert list(first.left_out) == ["bad"]
    record("bad")
    assert not run().left_out
    assert made == ["a", "b", "bad"]


def test_a_recording_that_is_gone_is_left_out(messages: Messages) -> None:
    record("a", "b")
    recordings = [*find_recordings(CORPUS), Recording("c", CORPUS / "c.wav", "train")]
    result = extract(recordings, OUT, SPEC, jobs=1, progress=False)
    assert list(result.left_out) == ["c"]
    messages.check(result.left_out["c"])
    assert extract(recordings, OUT, SPEC, jobs=1, progress=False).was_complete


def test_without_a_good_recording_there_is_no_manifest(messages: Messages) -> None:
    CORPUS.mkdir()
    text(CORPUS / "a.wav")
    zero_bytes(CORPUS / "b.wav")
    for _ in range(2):  # the second call does not take the first one for finished
        with messages.refused(DataError):
            run()
    assert set(contents(OUT)) == {LOCK, MARKER}
    with messages.refused(DataError):
        extract([], OUT, SPEC, progress=False)


# --- what is kept ---


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


# --- interruption ---


def interrupt_after(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    save_mel = wavegen.corpora.extraction.save_mel
    left = iter(range(count))

    def save_or_stop(*arguments: Any) -> None:
        if next(left, None) is None:
            raise KeyboardInterrupt
        save_mel(*arguments)

    monkeypatch.setattr(wavegen.corpora.extraction, "save_mel", save_or_stop)


def test_an_interrupted_extraction_continues(made: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    record("a", "b", "c", "d", "e")
    with monkeypatch.context() as patch:
        interrupt_after(2, patch)
        with pytest.raises(KeyboardInterrupt):
            run()
    assert made == ["a", "b"]
    assert not is_complete(find_recordings(CORPUS), OUT, SPEC)
    assert not (OUT / MANIFEST).exists()
    result = run()
    assert made == ["a", "b", "c", "d", "e"]
    assert len(result.clips) == 5
    assert not [name for name in contents(OUT) if ".part" in name]


def test_after_an_interruption_no_older_mel_is_taken_for_a_new_one(
    made: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    record("a", "b", "c")
    run()
    record("b", "c", from_hz=700, modified_s=1)
    made.clear()
    with monkeypatch.context() as patch:
        interrupt_after(1, patch)
        with pytest.raises(KeyboardInterrupt):
            run()
    run()
    assert made == ["b", "c"]
    made.clear()
    with monkeypatch.context() as patch:  # the same for another definition
        interrupt_after(1, patch)
        with pytest.raises(KeyboardInterrupt):
            run(spec=OTHER_SPEC)
    run(spec=OTHER_SPEC)
    assert made == ["a", "b", "c"]


def test_a_folder_that_another_process_extracts_to_is_refused(
    another_holds: Callable[[Path], None], messages: Messages
) -> None:
    record("a")
    run()
    another_holds(OUT)
    assert run().was_complete  # nothing is written
    before = contents(OUT)
    with messages.refused(OutputError):
        run(spec=OTHER_SPEC)
    assert contents(OUT) == before


def test_an_impossible_output_folder_is_refused_and_nothing_is_left() -> None:
    record("a", "b")
    Path("file").write_text("in the way")
    with pytest.raises(OutputError) as caught:
        extract(find_recordings(CORPUS), Path("file/out"), SPEC, jobs=1, progress=False)
    message = str(caught.value)
    assert str(Path("file/out").absolute()) in message
    assert "\n" not in message
    assert sorted(path.name for path in Path().iterdir()) == ["corpus", "file"]
    assert Path("file").read_text() == "in the way"


def test_a_full_disk_leaves_whole_mels_only(made: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    record("a", "b", "c")
    savez = np.savez

    def full_at_b(file: Path, **arrays: Any) -> None:
        savez(file, **arrays)
        if "b" in Path(file).name.split("."):
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(np, "savez", full_at_b)
        with pytest.raises(OutputError, match=r"mels/b\.npz: cannot write: No space left on device; "):
            run()
    written = set(contents(OUT))
    assert {LOCK, MARKER, "mels/a.npz"} <= written <= {LOCK, MARKER, "mels/a.npz", "mels/c.npz"}
    run()
    assert sorted(made) == ["a", "b", "c"]


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


def test_a_recording_is_never_overwritten_by_its_extraction(messages: Messages) -> None:
    Path("data/audio").mkdir(parents=True)
    soundfile.write("data/audio/a.flac", np.zeros((22050, 2)), 44100)
    before = Path("data/audio/a.flac").read_bytes()
    with messages.refused(OutputError):
        extract(find_recordings(Path("data/audio"), held_out=0), Path("data"), SPEC, progress=False)
    assert Path("data/audio/a.flac").read_bytes() == before
    assert [path.name for path in Path("data").iterdir()] == ["audio"]


def test_a_predicted_mel_is_never_overwritten_by_its_extraction(messages: Messages) -> None:
    record("a")
    mel = LogMel(SPEC)(torch.from_numpy(read_audio(CORPUS / "a.wav"))[None])[0].numpy()
    wavegen.mel.save_mel("out/mels/a.npz", mel, SPEC)
    pair = Recording("a", CORPUS / "a.wav", "train", Path("out/mels/a.npz"))
    with messages.refused(OutputError):
        extract([pair], OUT, SPEC, progress=False)
    assert Path("out/mels/a.npz").exists()
