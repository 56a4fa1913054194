"""Segments of clips: which ones, what is read, and how processes share them."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from support.corpus import write_corpus, write_recipe
from support.runs import train

from wavegen.audio import read_audio
from wavegen.corpora.manifest import Clip, read_manifest
from wavegen.mel import load_mel, profile
from wavegen.training.data import Segments, read_crop

MEL = profile("bigvgan-24k")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, corpus: Path) -> Path:
    folder = tmp_path_factory.mktemp("run")
    recipe = write_recipe(folder / "r.yaml", corpus)
    assert train(recipe, folder / "out", "training.steps=1") == 0
    return folder / "out"


def segments(run: Path, **changes: int) -> Segments:
    clips = [clip for clip in read_manifest(run / "features" / "manifest.tsv", Clip) if clip.split == "train"]
    return Segments(clips, MEL, **{"frames": 16, "seed": 0, **changes})


def test_a_segment_is_a_function_of_its_place_alone(run: Path) -> None:
    first, again = segments(run), segments(run)
    for _ in range(3):
        again[9, 9]  # what was read before changes nothing
    for step, place in ((0, 0), (5, 2), (70000, 31)):
        one, other = first[step, place], again[step, place]
        assert one.speakers is other.speakers is None
        assert all(torch.equal(a, b) for a, b in zip(one[:4], other[:4], strict=True))
    different = {tuple(first[step, place].audio[0, :8].tolist()) for step in range(6) for place in range(4)}
    assert len(different) > 12


def test_ranks_share_the_batch_that_one_process_would_take(run: Path) -> None:
    whole = next(segments(run).batches(3, 4, 4, rank=0, world=1, workers=0))
    halves = [next(segments(run).batches(3, 4, 4, rank=rank, world=2, workers=0)) for rank in (0, 1)]
    assert torch.equal(whole.audio[0::2], halves[0].audio)
    assert torch.equal(whole.audio[1::2], halves[1].audio)


def test_workers_read_what_one_process_reads(run: Path) -> None:
    one, several = (list(segments(run).batches(0, 3, 4, rank=0, world=1, workers=w)) for w in (0, 2))
    assert all(torch.equal(a.audio, b.audio) for a, b in zip(one, several, strict=True))


def test_audio_and_mel_of_a_segment_belong_together(run: Path) -> None:
    clip = segments(run).clips[0]
    crop = read_crop(clip, MEL, 5, 10)
    np.testing.assert_array_equal(crop.audio[0], read_audio(clip.audio)[5 * 256 : 15 * 256])
    np.testing.assert_array_equal(crop.mel[0], load_mel(clip.mel)[0][:, 5:15])


def test_a_clip_shorter_than_a_segment_is_padded_not_dropped(run: Path) -> None:
    data = segments(run)
    short = min(data.clips, key=lambda clip: clip.frames)
    assert short.frames < data.frames
    crop = read_crop(short, MEL, 0, data.frames)
    assert crop.lengths.tolist() == [short.frames]
    assert crop.audio.shape == (1, data.frames * 256)
    assert not crop.audio[:, short.frames * 256 :].any()
    lengths = {int(data[step, place].lengths) for step in range(60) for place in range(4)}
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
