"""Pitch labels: what they say about known sounds, and how extraction stores, keeps and renews them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.corpus import voice, write_corpus
from support.messages import Messages

from wavegen.audio import read_audio, write_audio
from wavegen.corpora import extraction
from wavegen.corpora import pitch_labels as labels_module
from wavegen.corpora.extraction import MANIFEST, Extraction, extract, is_complete
from wavegen.corpora.folders import find_recordings
from wavegen.corpora.manifest import Clip, read_manifest
from wavegen.corpora.marker import MARKER
from wavegen.corpora.pitch_labels import LABELS_PER_FRAME, PYIN, WORLD, installed_tracker, load_labels, pitch_labels
from wavegen.errors import DataError
from wavegen.mel import MelSpec, profile

SPEC = profile("bigvgan-24k")
CENTRED = profile("vocos-24k")
UNEVEN = profile("bigvgan-24k").replace(n_fft=1023, win_length=1023, hop_length=205)  # 51.25 samples per label
CORPUS, OUT = Path("corpus"), Path("out")
EDGE_S = 0.05  # the trackers' windows reach beyond the ends of a sound


def cents(f0: np.ndarray, reference: Any) -> np.ndarray:
    return 1200 * np.log2(f0 / reference)


def pulses(f0_hz: np.ndarray, rate: int) -> np.ndarray:
    """Harmonics below 4 kHz of a pitch given for every sample."""
    phase = 2 * np.pi * np.cumsum(f0_hz) / rate
    return (0.05 * sum(np.cos(k * phase) for k in range(1, int(4000 / f0_hz.max())))).astype(np.float32)


def labelled_times(spec: MelSpec, labels: np.ndarray) -> np.ndarray:
    """Seconds of each label, as documented."""
    return np.arange(len(labels)) * spec.hop_length / 4 / spec.sample_rate_hz


@pytest.mark.parametrize("tracker", [WORLD, PYIN])
@pytest.mark.parametrize("spec", [SPEC, CENTRED, UNEVEN, profile("hifigan-22k")])
def test_labels_of_a_steady_pitch_are_its_frequency(spec: MelSpec, tracker: str) -> None:
    pytest.importorskip({WORLD: "wavegen", PYIN: "librosa"}[tracker])
    rate = spec.sample_rate_hz
    samples = pulses(np.full(rate // 2, 130.0), rate)
    labels = pitch_labels(samples, spec, tracker)
    assert labels.dtype == np.float32
    assert len(labels) == LABELS_PER_FRAME * spec.frames(len(samples))
    times = labelled_times(spec, labels)
    inside = labels[(times > EDGE_S) & (times < 0.5 - EDGE_S)]
    errors = np.abs(cents(inside, 130.0))
    assert errors.max() < 12
    assert np.median(errors) < (1 if tracker == WORLD else 12)


@pytest.mark.parametrize("tracker", [WORLD, PYIN])
@pytest.mark.parametrize("spec", [SPEC, CENTRED, UNEVEN])
def test_labels_lie_where_they_say(spec: MelSpec, tracker: str) -> None:
    """On a glide of two octaves per second, labels that were late by one would be 6 cents off, by a frame 26."""
    pytest.importorskip({WORLD: "wavegen", PYIN: "librosa"}[tracker])
    rate = spec.sample_rate_hz
    glide = 100 * 2 ** (2 * np.arange(rate) / rate)
    labels = pitch_labels(pulses(glide, rate), spec, tracker)
    times = labelled_times(spec, labels)
    inside = (times > EDGE_S) & (times < 1 - EDGE_S)
    error = cents(labels[inside], 100 * 2 ** (2 * times[inside]))
    assert abs(np.median(error)) < (2 if tracker == WORLD else 8)


def test_silence_and_noise_are_not_voiced() -> None:
    assert not pitch_labels(np.zeros(24000, np.float32), SPEC).any()
    noise = np.random.default_rng(0).standard_normal(24000).astype(np.float32)
    assert (pitch_labels(0.1 * noise, SPEC) > 0).mean() < 0.1
    shortest = np.zeros(SPEC.min_samples, np.float32)
    assert pitch_labels(shortest, SPEC).tolist() == [0.0] * LABELS_PER_FRAME * SPEC.frames(len(shortest))


# --- extraction ---


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return write_corpus(CORPUS, clips=3, seconds=0.4)


@pytest.fixture
def labelled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the labels written so far, as extraction writes them."""
    names: list[str] = []
    save = extraction.save_labels

    def spy(path: Path, labels: np.ndarray) -> None:
        save(path, labels)
        names.append(path.stem)

    monkeypatch.setattr(extraction, "save_labels", spy)
    return names


def run(**options: Any) -> Extraction:
    settings = {"spec": SPEC, "jobs": 1, "progress": False, "labels_pitch": True, **options}
    return extract(find_recordings(CORPUS, held_out="a0"), OUT, **settings)


def without_a_tracker(monkeypatch: pytest.MonkeyPatch, *trackers: str) -> None:
    """Let the packages of some trackers be missing."""
    left = [tracker for tracker in (WORLD, PYIN) if tracker not in trackers]
    for module in (labels_module, extraction):
        monkeypatch.setattr(module, "installed_tracker", lambda: left[0] if left else None)


def states(pattern: str) -> dict[str, tuple[int, bytes]]:
    return {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in OUT.glob(pattern)}


def test_every_clip_gets_the_labels_of_its_training_audio(corpus: Path) -> None:
    write_audio(corpus / "low.wav", voice(0.4, rate=16000).astype(np.float32), 16000)  # resampled for training
    result = run()
    assert (result.labelled, result.tracker) == (4, WORLD)
    assert read_manifest(OUT.absolute() / MANIFEST, Clip) == result.clips
    for clip in result.clips:
        assert clip.f0 == OUT.absolute() / f"f0/{clip.name}.npy"
        stored = load_labels(clip.f0, clip.frames)
        np.testing.assert_array_equal(stored, pitch_labels(read_audio(clip.audio), SPEC))
    voiced = load_labels(result.clips[0].f0, result.clips[0].frames)
    assert 85 < np.median(voiced[voiced > 0]) < 115


def test_labels_are_added_to_mels_that_are_there(corpus: Path, messages: Messages) -> None:
    assert {clip.f0 for clip in run(labels_pitch=False).clips} == {None}
    assert not (OUT / "f0").exists()
    mels = states("mels/*")
    added = run()
    assert not added.was_complete
    messages.check(added.notes())
    assert states("mels/*") == mels
    assert len(states("f0/*")) == 3
    again = run()
    assert (again.was_complete, again.clips, again.labelled, again.notes()) == (True, added.clips, 0, "")
    # A vocoder that does not read labels shares the folder.
    others = run(labels_pitch=False)
    assert others.was_complete
    assert {clip.f0 for clip in others.clips} == {None}
    assert run().clips == added.clips


def test_a_changed_recording_gets_a_new_mel_and_new_labels(corpus: Path, labelled: list[str]) -> None:
    run()
    labelled.clear()
    write_audio(corpus / "a1.wav", voice(0.4, pitch_hz=200).astype(np.float32), 24000)
    mels = states("mels/*")
    assert run().labelled == 1
    assert labelled == ["a1"]
    assert {name for name, state in states("mels/*").items() if state != mels[name]} == {"a1.npz"}


def test_labels_of_a_recording_that_changed_meanwhile_are_not_taken_for_new_ones(
    corpus: Path, labelled: list[str]
) -> None:
    """An extraction without labels, between two with them, must not leave the labels of the older recording."""
    run()
    labelled.clear()
    write_audio(corpus / "a1.wav", voice(0.4, pitch_hz=200).astype(np.float32), 24000)
    run(labels_pitch=False)
    assert set(states("f0/*")) == {"a0.npy", "a2.npy"}
    assert not is_complete(find_recordings(CORPUS, held_out="a0"), OUT, SPEC, labels_pitch=True)
    run()
    assert labelled == ["a1"]


def test_an_interrupted_labelling_continues(corpus: Path, labelled: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    recordings = find_recordings(CORPUS, held_out="a0")
    with monkeypatch.context() as patch:

        def stop(samples: np.ndarray, *rest: Any) -> np.ndarray:
            if labelled:
                raise KeyboardInterrupt
            return pitch_labels(samples, *rest)

        patch.setattr(extraction, "pitch_labels", stop)
        with pytest.raises(KeyboardInterrupt):
            run()
    assert not is_complete(recordings, OUT, SPEC, labels_pitch=True)
    assert run().labelled == 2
    assert labelled == ["a0", "a1", "a2"]
    assert not [path for path in OUT.rglob("*") if ".part" in path.name]


def test_another_definition_and_deleted_labels_are_labelled_again(corpus: Path, labelled: list[str]) -> None:
    run()
    labelled.clear()
    run(spec=CENTRED)
    assert labelled == ["a0", "a1", "a2"]
    (OUT / "f0/a1.npy").unlink()
    assert run(spec=CENTRED).labelled == 1
    assert labelled[3:] == ["a1"]


def test_pyin_stands_in_until_world_is_installed(
    corpus: Path, labelled: list[str], monkeypatch: pytest.MonkeyPatch, messages: Messages
) -> None:
    pytest.importorskip("librosa")
    with monkeypatch.context() as patch:
        without_a_tracker(patch, WORLD)
        messages.check(run().notes())
        assert json.loads((OUT / MARKER).read_text())["tracker"] == PYIN
        assert run().was_complete
    labelled.clear()
    assert run().tracker == WORLD  # renews them
    assert labelled == ["a0", "a1", "a2"]
    without_a_tracker(monkeypatch, WORLD)  # labels by WORLD are good everywhere
    assert run().was_complete
    without_a_tracker(monkeypatch, WORLD, PYIN)
    assert run().was_complete


def test_without_a_tracker_labels_are_refused(
    corpus: Path, monkeypatch: pytest.MonkeyPatch, messages: Messages
) -> None:
    without_a_tracker(monkeypatch, WORLD, PYIN)
    with messages.refused(DataError):
        run()
    assert run(labels_pitch=False).clips


def test_the_best_installed_tracker_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def installed(*packages: str) -> str | None:
        def import_module(name: str) -> None:
            if name not in packages:
                raise ImportError(name)

        with monkeypatch.context() as patch:
            patch.setattr(labels_module.importlib, "import_module", import_module)
            installed_tracker.cache_clear()
            return installed_tracker()

    assert [installed("pyworld", "librosa"), installed("librosa"), installed()] == [WORLD, PYIN, None]
    installed_tracker.cache_clear()


@pytest.mark.parametrize("fault", ["missing", "damaged", "other length"])
def test_labels_that_cannot_be_read_are_refused(fault: str, corpus: Path, messages: Messages) -> None:
    clip = run().clips[0]
    assert clip.f0 is not None
    if fault == "missing":
        clip.f0.unlink()
    elif fault == "damaged":
        clip.f0.write_bytes(clip.f0.read_bytes()[:100])
    with messages.refused(DataError):
        load_labels(clip.f0, clip.frames + (fault == "other length"))
