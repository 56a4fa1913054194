"""Files of mels together: equal to the files alone, and nothing half-written after a failure."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from support.ready_vocoders import VOCODERS, ready
from support.vocoders import SPEC, tiny_mel

from wavegen.audio import AudioWriter
from wavegen.errors import AudioError, OutputError
from wavegen.mel import MelFile, open_mel, save_mel
from wavegen.synthesis import (
    many,
    open_mels,
    plan_batches,
    streaming,
    synthesize,
    synthesize_files,
    synthesize_into,
)
from wavegen.vocoders import AutoregressiveVocoder, Vocoder
from wavegen.vocoders._sourced import SourcedVocoder
from wavegen.vocoders.spectral import Corrections


def test_a_file_is_written_whole_and_timed(tmp_path: Path) -> None:
    vocoder, mel, progress = ready("spectral-same"), tiny_mel(50), []
    save_mel(tmp_path / "a.npz", mel, SPEC)
    files = [(open_mel(tmp_path / "a.npz"), tmp_path / "a.wav")]
    timing = synthesize_files(vocoder, files, float32=True, on_progress=progress.append)
    samples, rate = soundfile.read(tmp_path / "a.wav", dtype="float32")
    assert rate == SPEC.sample_rate_hz
    np.testing.assert_array_equal(samples, synthesize(vocoder, mel))
    assert timing.audio_s == 50 * SPEC.hop_length / SPEC.sample_rate_hz
    assert timing.wall_s > 0
    assert sum(progress) == 50 * SPEC.hop_length


def test_nothing_is_left_of_a_synthesis_that_fails_half_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vocoder = ready("spectral-same")
    save_mel(tmp_path / "a.npz", tiny_mel(10), SPEC)
    real = type(vocoder).flush

    def full_disk(self: Vocoder, state: tuple) -> torch.Tensor:
        real(self, state)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(vocoder), "flush", full_disk)
    with pytest.raises(OutputError, match=r"a\.wav: cannot write: No space left on device"):
        synthesize_files(vocoder, [(open_mel(tmp_path / "a.npz"), tmp_path / "a.wav")])
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]


def test_sound_that_is_not_finite_is_refused(tmp_path: Path) -> None:
    vocoder = ready("spectral-same")
    vocoder.corrections.bias.fill_(torch.nan)
    save_mel(tmp_path / "a.npz", tiny_mel(10), SPEC)
    with pytest.raises(AudioError, match="NaN or infinite samples"):
        synthesize_files(vocoder, [(open_mel(tmp_path / "a.npz"), tmp_path / "a.wav")])
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]


def test_samples_beyond_full_scale_are_counted(tmp_path: Path) -> None:
    vocoder, mel = ready("spectral-same"), tiny_mel(20)
    Corrections(*vocoder.corrections.bias.chunk(4)).magnitude.add_(4.0)  # nepers
    save_mel(tmp_path / "a.npz", mel, SPEC)
    beyond = int((np.abs(synthesize(vocoder, mel)) > 1).sum())
    assert 0 < beyond < 20 * SPEC.hop_length
    share = beyond / (20 * SPEC.hop_length)
    assert synthesize_files(vocoder, [(open_mel(tmp_path / "a.npz"), tmp_path / "a.wav")]).clipped_share == share
    assert synthesize_into([], vocoder, mel).clipped_share == share


@pytest.fixture
def mels(tmp_path: Path) -> list[tuple[MelFile, Path]]:
    """Mel files of very different lengths, each with its sound file."""
    for index, frames in enumerate((5, 61, 4, 17, 60, 18, 3, 33, 16, 15, 59)):
        save_mel(tmp_path / f"{index}.npz", tiny_mel(frames, seed=index), SPEC)
    return [(mel, mel.path.with_suffix(".wav")) for mel in open_mels(tmp_path)]


@pytest.mark.parametrize("name", VOCODERS)
@pytest.mark.parametrize(("batch", "jobs"), [(1, 3), (3, 1), (8, 1), (64, 2)])
def test_files_together_are_the_files_alone(
    name: str, batch: int, jobs: int, mels: list[tuple[MelFile, Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(many, "MAX_BATCH_FRAMES", 100)
    monkeypatch.setattr(streaming, "NATIVE_CHUNK_FRAMES", 16)
    vocoder, progress = ready(name), []
    timing = synthesize_files(vocoder, mels, batch=batch, jobs=jobs, seed=5, float32=True, on_progress=progress.append)
    for mel, out in mels:
        expected = synthesize(vocoder, mel, seed=5)
        samples, _ = soundfile.read(out, dtype="float32")
        if isinstance(vocoder, AutoregressiveVocoder):
            np.testing.assert_array_equal(samples, expected)
        else:  # a convolution rounds differently in a larger batch, and the phase of a source adds up what F0 rounds
            bound = 1e-3 if isinstance(vocoder, SourcedVocoder) else 1e-4
            np.testing.assert_allclose(samples, expected, rtol=0, atol=bound * max(1, np.abs(expected).max(initial=0)))
    total = sum(mel.frames for mel, _ in mels) * SPEC.hop_length
    assert sum(progress) == total
    assert timing.audio_s == pytest.approx(total / SPEC.sample_rate_hz)


def test_torch_computes_in_one_thread(mels: list[tuple[MelFile, Path]], monkeypatch: pytest.MonkeyPatch) -> None:
    vocoder, seen = ready("spectral-same"), []

    def counting(real: Callable[..., object]) -> Callable[..., object]:
        def counted(*given: object, **more: object) -> object:
            seen.append(torch.get_num_threads())
            return real(*given, **more)

        return counted

    for name in ("step_later", "render", "flush", "synthesize"):
        monkeypatch.setattr(vocoder, name, counting(getattr(vocoder, name)))
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        synthesize_files(vocoder, mels[:4], jobs=vocoder.jobs_at_once, batch=2)
        synthesize(vocoder, tiny_mel(5))
        assert set(seen) == {1}
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("name", VOCODERS)
def test_a_long_file_is_computed_by_several_threads_with_the_same_samples(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "CHUNK_FRAMES", 7)
    monkeypatch.setattr(streaming, "NATIVE_CHUNK_FRAMES", 7)
    vocoder, threads = ready(name), set()
    save_mel(tmp_path / "a.npz", tiny_mel(60), SPEC)
    sounds = []
    for jobs in (1, 3):
        synthesize_files(vocoder, [(open_mel(tmp_path / "a.npz"), tmp_path / "a.wav")], jobs=jobs, float32=True)
        sounds.append(soundfile.read(tmp_path / "a.wav", dtype="float32")[0])
    np.testing.assert_array_equal(*sounds)
    if isinstance(vocoder, SourcedVocoder) and not isinstance(vocoder, AutoregressiveVocoder):
        real = type(vocoder).render

        def render(*given: object, **more: object) -> torch.Tensor:
            threads.add(threading.get_ident())
            time.sleep(0.02)  # so that the next thread begins
            return real(vocoder, *given, **more)

        monkeypatch.setattr(vocoder, "render", render)
        synthesize_files(vocoder, [(open_mel(tmp_path / "a.npz"), tmp_path / "a.wav")], jobs=3)
        assert len(threads) > 1


def test_what_is_left_of_a_step_may_be_computed_at_any_time() -> None:
    for name in VOCODERS:
        vocoder, state, later, chunks = ready(name), ready(name).initial_state(1), [], []
        mel = torch.tensor(tiny_mel(40))[None]
        for part in mel.split(10, dim=-1):
            samples, state = vocoder.step_later(part, state)
            later.append(samples)
        rest = vocoder.flush(state)
        chunks = [function() for function in reversed(later)]
        found = torch.cat([*reversed(chunks), rest], dim=-1)
        state, chunks = vocoder.initial_state(1), []
        for part in mel.split(10, dim=-1):
            samples, state = vocoder.step(part, state)
            chunks.append(samples)
        assert torch.equal(found, torch.cat([*chunks, vocoder.flush(state)], dim=-1))


def test_without_files_nothing_is_synthesised() -> None:
    assert synthesize_files(ready("spectral-same"), [], jobs=2).audio_s == 0  # such as in the shard of a few files


def test_wavenets_know_how_many_go_together() -> None:
    assert ready("spectral-same").items_at_once == 1
    vocoder = ready("wavenet-mu-law")
    assert vocoder.items_at_once in (4, 8)
    vocoder.use_engine("torch")
    assert vocoder.items_at_once == 1


def test_mels_of_similar_length_go_together_and_every_job_has_work() -> None:
    wavenet, spectral = ready("wavenet-mu-law"), ready("spectral-same")
    assert plan_batches([5, 9, 1, 7], wavenet, batch=8, jobs=1) == [[1, 3, 0, 2]]
    assert plan_batches([5, 9, 1, 7], wavenet, batch=8, jobs=2) == [[1, 3], [0, 2]]
    assert plan_batches([5, 9, 1, 7], wavenet, batch=1, jobs=2) == [[1], [3], [0], [2]]
    assert plan_batches([5, 12_000, 1, 7], spectral, batch=8, jobs=1) == [[1], [3, 0, 2]]


def failing_writer(name: str, after_chunks: int, failed: threading.Event, others_wait: bool) -> type[AudioWriter]:
    """A writer that meets a full disk in one of the files; those of other files may wait for that."""

    class Writer(AudioWriter):
        def __init__(self, path: Path, rate: int, **options: bool) -> None:
            super().__init__(path, rate, **options)
            self.fails = path.name == name
            self.chunks = 0

        def write(self, samples: np.ndarray) -> None:
            self.chunks += 1
            if self.fails and self.chunks > after_chunks:
                failed.set()
                raise OSError(28, "No space left on device")
            if others_wait and not self.fails:
                failed.wait(5)
                time.sleep(0.02)
            super().write(samples)

    return Writer


def test_one_failure_stops_the_others_and_leaves_nothing_half_written(
    mels: list[tuple[MelFile, Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "NATIVE_CHUNK_FRAMES", 1)
    monkeypatch.setattr(many, "AudioWriter", failing_writer("7.wav", 3, threading.Event(), others_wait=False))
    with pytest.raises(OutputError, match="No space left on device"):
        synthesize_files(ready("wavenet-mu-law"), mels, jobs=2)
    folder = mels[0][1].parent
    assert not [path for path in folder.iterdir() if ".part" in path.name]
    assert not (folder / "7.wav").exists()


def test_a_failure_does_not_wait_for_files_that_were_begun_before(
    mels: list[tuple[MelFile, Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "NATIVE_CHUNK_FRAMES", 1)
    second_longest = "4.wav"  # the longest is begun before it
    monkeypatch.setattr(many, "AudioWriter", failing_writer(second_longest, 0, threading.Event(), others_wait=True))
    with pytest.raises(OutputError, match="No space left on device"):
        synthesize_files(ready("wavenet-mu-law"), mels, jobs=2)
    assert not list(mels[0][1].parent.glob("*.wav"))
