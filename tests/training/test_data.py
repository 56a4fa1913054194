"""Segments of clips: which ones, what is read, and how processes share them."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from support.corpus import write_recipe
from support.runs import train

from wavegen.audio import read_audio
from wavegen.corpora.manifest import Clip, read_manifest
from wavegen.mel import load_mel, profile
from wavegen.training import data
from wavegen.training import decoded as decoded_recordings
from wavegen.training.config import AugmentationConfig
from wavegen.training.data import Segments, read_crop, read_others

MEL = profile("bigvgan-24k")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, corpus: Path) -> Path:
    folder = tmp_path_factory.mktemp("run")
    recipe = write_recipe(folder / "r.yaml", corpus)
    assert train(recipe, folder / "out", "training.steps=1") == 0
    return folder / "out"


def segments(run: Path, **changes: Any) -> Segments:
    clips = [clip for clip in read_manifest(run / "features" / "manifest.tsv", Clip) if clip.split == "train"]
    return Segments(clips, MEL, **{"frames": 16, "seed": 0, **changes})


def test_a_segment_depends_on_nothing_but_seed_step_and_position(run: Path) -> None:
    first, again = segments(run), segments(run)
    for _ in range(3):
        again[9, 9]  # what was read before changes nothing
    for step, position in ((0, 0), (5, 2), (70000, 31)):
        left, right = first[step, position], again[step, position]
        assert left.speakers is right.speakers is None
        assert all(torch.equal(a, b) for a, b in zip(left[:4], right[:4], strict=True))
    different = {tuple(first[step, position].audio[0, :8].tolist()) for step in range(6) for position in range(4)}
    assert len(different) > 12


def test_other_clips_beside_a_segment_follow_from_its_key_and_leave_it_as_it_is(run: Path) -> None:
    plain, tested = segments(run), segments(run, others=3)
    assert plain[5, 2].others is None
    batch = tested[5, 2]
    assert torch.equal(batch.audio, plain[5, 2].audio)
    assert batch.others.shape == (1, 3, 16 * 256)
    assert torch.equal(batch.others, segments(run, others=3)[5, 2].others)
    assert not torch.equal(batch.others, tested[6, 2].others)
    assert len({tuple(voice.tolist()) for voice in batch.others[0]}) == 3


def test_choice_augmentation_and_other_clips_draw_from_places_of_their_own(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places: list[int] = []
    real = np.random.Philox

    def philox(key: np.ndarray, counter: int = 0) -> np.random.Philox:
        places.append(counter)
        return real(key=key, counter=counter)

    monkeypatch.setattr(np.random, "Philox", philox)
    segments(run, others=3, augmentation=AugmentationConfig())[5, 2]
    assert len(places) == 3
    assert min(abs(a - b) for a, b in itertools.combinations(places, 2)) >= 1 << 64


def test_a_short_clip_is_repeated_beside_a_longer_segment(run: Path) -> None:
    clip = min(segments(run).clips, key=lambda clip: clip.samples)
    frames = 2 * clip.frames
    others = read_others([clip], MEL, frames, 1, np.random.default_rng(0))
    np.testing.assert_array_equal(others[0, 0], np.resize(read_audio(clip.audio), frames * 256))


def test_ranks_share_the_batch_that_one_process_would_take(run: Path) -> None:
    whole = next(segments(run).batches(3, 4, 4, rank=0, world=1, workers=0))
    halves = [next(segments(run).batches(3, 4, 4, rank=rank, world=2, workers=0)) for rank in (0, 1)]
    assert torch.equal(whole.audio[0::2], halves[0].audio)
    assert torch.equal(whole.audio[1::2], halves[1].audio)


def test_workers_read_what_one_process_reads(run: Path) -> None:
    alone, together = (list(segments(run).batches(0, 3, 4, rank=0, world=1, workers=w)) for w in (0, 2))
    assert all(torch.equal(a.audio, b.audio) for a, b in zip(alone, together, strict=True))


def test_a_small_corpus_is_decoded_once_and_read_alike(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Path] = []
    read = decoded_recordings.read_audio
    monkeypatch.setattr(decoded_recordings, "read_audio", lambda path: opened.append(path) or read(path))
    keeping = list(segments(run).batches(0, 12, 4, rank=0, world=1, workers=0))
    assert opened
    assert len(opened) == len(set(opened))
    monkeypatch.setattr(data, "LARGEST_BYTES", 0)
    reading = list(segments(run).batches(0, 12, 4, rank=0, world=1, workers=0))
    assert len(opened) == len(set(opened))  # nothing more
    assert all(torch.equal(a.audio, b.audio) for a, b in zip(keeping, reading, strict=True))


def test_audio_and_mel_of_a_segment_belong_together(run: Path) -> None:
    clip = segments(run).clips[0]
    crop = read_crop(clip, MEL, 5, 10)
    np.testing.assert_array_equal(crop.audio[0], read_audio(clip.audio)[5 * 256 : 15 * 256])
    np.testing.assert_array_equal(crop.mel[0], load_mel(clip.mel)[0][:, 5:15])


def test_a_clip_shorter_than_a_segment_is_padded_not_dropped(run: Path) -> None:
    tested = segments(run)
    short = min(tested.clips, key=lambda clip: clip.frames)
    assert short.frames < tested.frames
    crop = read_crop(short, MEL, 0, tested.frames)
    assert crop.lengths.tolist() == [short.frames]
    assert crop.audio.shape == (1, tested.frames * 256)
    assert not crop.audio[:, short.frames * 256 :].any()
    lengths = {int(tested[step, position].lengths) for step in range(60) for position in range(4)}
    assert short.frames in lengths


def test_only_the_segment_is_read_from_the_file(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    original = soundfile.SoundFile.read

    def read(self: soundfile.SoundFile, frames: int = -1, *args: object, **kwargs: object) -> np.ndarray:
        asked.append(frames)
        return original(self, frames, *args, **kwargs)

    monkeypatch.setattr(soundfile.SoundFile, "read", read)
    read_crop(segments(run).clips[0], MEL, 5, 10)
    assert asked == [10 * 256]
