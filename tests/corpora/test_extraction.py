"""Extraction: what is made, how bad recordings are left out, and what an interruption leaves."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from support.extraction import CORPUS, OTHER_SPEC, OUT, SPEC, contents, interrupt_after, record, run, sweep
from support.messages import Messages

import wavegen.mel
from wavegen.audio import read_audio, write_audio
from wavegen.corpora.extraction import MANIFEST, extract, is_complete
from wavegen.corpora.folders import find_recordings
from wavegen.corpora.manifest import Clip, Recording, read_manifest
from wavegen.corpora.marker import MARKER
from wavegen.errors import DataError, OutputError
from wavegen.files import LOCK
from wavegen.mel import LogMel, load_mel

pytestmark = pytest.mark.usefixtures("folder")


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


# --- interruption ---


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


def test_an_interrupted_extraction_becomes_what_an_uninterrupted_one_is(monkeypatch: pytest.MonkeyPatch) -> None:
    record("a", "d")
    write_audio(CORPUS / "b.wav", sweep(0.2, 16000), 16000)  # is resampled
    write_audio(CORPUS / "c.wav", sweep(0.2, 48000), 48000)
    run()
    whole = contents(OUT)
    shutil.rmtree(OUT)
    with monkeypatch.context() as patch:
        interrupt_after(3, patch)
        with pytest.raises(KeyboardInterrupt):
            run()
    run()
    assert contents(OUT) == whole


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
