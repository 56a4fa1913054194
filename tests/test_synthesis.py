"""Long mels in chunks, folders of mels, and how long it took."""

import threading
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from support.contracts import tensors
from support.messages import Messages
from support.vocoders import SPEC, tiny_mel, tiny_vocoder

from wavegen import synthesis
from wavegen.audio import AudioWriter
from wavegen.engines import choice
from wavegen.engines.spectral.functions import FUNCTIONS
from wavegen.errors import AudioError, MelError, OutputError
from wavegen.mel import MelFile, open_mel, profile, save_mel
from wavegen.source import compiled
from wavegen.synthesis import (
    Timing,
    compiling_if_it_pays,
    open_mels,
    plan_batches,
    prepare,
    stream,
    synthesize,
    synthesize_files,
    synthesize_into,
)
from wavegen.vocoders import AutoregressiveVocoder, Vocoder
from wavegen.vocoders._sourced import SourcedVocoder
from wavegen.vocoders.spectral import Corrections

VOCODERS = {
    "source-filter": ("source-filter", {}),
    "spectral-same": ("spectral", {"padding": "same"}),
    "spectral-causal": ("spectral", {"padding": "causal"}),
    "spectral-causal-without-iterations": (
        "spectral",
        {"padding": "causal", "refinement_iterations": 0, "synthesis_iterations": 0},
    ),
    "wavenet-mu-law": ("wavenet", {}),
    "wavenet-gaussian": ("wavenet", {"output": "gaussian"}),
    "parallel-same": ("parallel", {"padding": "same"}),
    "parallel-causal-native": ("parallel", {"padding": "causal"}),
}


def ready(name: str, dtype: torch.dtype = torch.float32) -> Vocoder:
    kind, changes = VOCODERS[name]
    return tiny_vocoder(kind, **changes).to(dtype).prepared_for_synthesis()


@pytest.mark.parametrize("name", VOCODERS)
@pytest.mark.parametrize("chunk_frames", [1, 7, 23, 1000])
def test_the_chunks_of_a_stream_are_the_whole(name: str, chunk_frames: int) -> None:
    vocoder, mel = ready(name, torch.float64), tiny_mel(23)
    whole = vocoder.synthesize(torch.from_numpy(mel).double()[None], seed=3)[0].numpy()
    pieces = np.concatenate(list(stream(vocoder, mel, seed=3, chunk_frames=chunk_frames)))
    assert pieces.shape == (23 * SPEC.hop_length,)
    assert pieces.dtype == np.float64
    np.testing.assert_allclose(pieces, whole, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", VOCODERS)
def test_the_state_of_a_stream_does_not_grow(name: str) -> None:
    vocoder = ready(name)

    def kept_after(chunks: int) -> int:
        state = vocoder.initial_state(1)
        for _ in range(chunks):
            _, state = vocoder.step(torch.from_numpy(tiny_mel(20))[None], state)
        return sum(tensor.numel() for tensor in tensors(state))

    assert vocoder.context.receptive_field < 3 * 20  # so three chunks fill the context that is kept
    assert kept_after(3) == kept_after(7)


def test_a_mel_is_read_piece_by_piece() -> None:
    class Mapped:
        """Stands for a mapped file."""

        def __init__(self) -> None:
            self.mel, self.read = tiny_mel(100), 0
            self.shape = self.mel.shape

        def __getitem__(self, key: tuple[slice, slice]) -> np.ndarray:
            self.read += self.mel[key].shape[1]
            return self.mel[key]

    mel = Mapped()
    pieces = stream(ready("spectral-same"), mel, chunk_frames=10)
    next(pieces)
    assert mel.read == 10
    next(pieces)
    assert mel.read == 20


@pytest.mark.parametrize("name", ["wavenet-mu-law", "source-filter", "spectral-causal"])
def test_seeds_differ_and_repeat(name: str) -> None:
    vocoder, mel = ready(name), tiny_mel(6)
    first, again, other = (synthesize(vocoder, mel, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert first.dtype == np.float32


def test_timing() -> None:
    assert Timing(audio_s=6.0, wall_s=1.5).times_real_time == 4.0


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


def test_a_bare_array_and_a_stated_one_are_the_same_mel(tmp_path: Path) -> None:
    vocoder, mel = ready("spectral-same"), tiny_mel(10)
    np.save(tmp_path / "a.npy", mel.astype(np.float64))
    save_mel(tmp_path / "b.npz", mel, SPEC)
    for name in ("a.npy", "b.npz"):
        (opened,) = open_mels(tmp_path / name)
        prepare(vocoder, [opened])
        np.testing.assert_array_equal(opened[:, :], mel)


def test_an_npz_under_the_name_npy_is_still_compared(tmp_path: Path) -> None:
    save_mel(tmp_path / "a.npz", tiny_mel(10), SPEC.replace(f_max_hz=3000))
    (tmp_path / "a.npz").rename(tmp_path / "a.npy")
    with pytest.raises(MelError, match=r"f_max_hz is 3000\.0, not 4000\.0"):
        prepare(ready("spectral-same"), open_mels(tmp_path / "a.npy"))


# ---- compiled code


@pytest.mark.parametrize(("frames", "is_long"), [(10, False), (400, True)])
def test_only_a_long_job_waits_for_a_compiler(
    frames: int, is_long: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of ``FUNCTIONS`` nothing is on disk; the limits are set to the duration of a hundred frames."""
    monkeypatch.setattr(FUNCTIONS, "is_ready", lambda: False)
    monkeypatch.setattr(choice, "may_be_on_disk", lambda source: True)
    monkeypatch.setattr(compiled, "_is_ready", lambda: False)
    for limit in ("SOURCE_PAYS_FROM_S", "ENGINE_PAYS_FROM_S"):
        monkeypatch.setattr(synthesis, limit, 100 * SPEC.hop_length / SPEC.sample_rate_hz)
    np.save(tmp_path / "a.npy", tiny_mel(frames))
    mels = open_mels(tmp_path)
    vocoder = tiny_vocoder("spectral")
    assert prepare(vocoder, mels).engine.startswith("numba" if is_long else "torch, because")
    with torch.no_grad(), compiling_if_it_pays(vocoder, mels):
        assert compiled.compiled_code_runs(torch.zeros(1)) == is_long


def test_a_long_job_that_cannot_be_compiled_is_computed_by_torch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(synthesis, "ENGINE_PAYS_FROM_S", 0.0)
    np.save(tmp_path / "a.npy", tiny_mel(10))
    vocoder = tiny_vocoder("spectral").double()
    assert prepare(vocoder, open_mels(tmp_path)).engine.startswith("torch, because")


# ---- folders


def test_mels_are_found_in_order_and_hidden_ones_are_not(tmp_path: Path) -> None:
    for name in ("b/2.npy", "b/10.npz", "a.npy", "c.npz"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        save_mel(tmp_path / "new.npz", tiny_mel(3), SPEC)
        (tmp_path / "new.npz").rename(tmp_path / name)
    for name in ("c.txt", "b/.half.7.part.npz", "manifest.tsv"):
        (tmp_path / name).touch()
    assert [mel.path.relative_to(tmp_path).as_posix() for mel in open_mels(tmp_path)] == [
        "a.npy", "b/10.npz", "b/2.npy", "c.npz",
    ]  # fmt: skip


def test_two_mels_whose_names_differ_in_the_suffix_only_are_refused(tmp_path: Path, messages: Messages) -> None:
    for name in ("sub/a.npy", "sub/a.npy.npz", "sub/a.npz", "a.npz"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        save_mel(tmp_path / "new.npz", tiny_mel(3), SPEC)
        (tmp_path / "new.npz").rename(tmp_path / name)
    with messages.refused(MelError):
        open_mels(tmp_path)
    (tmp_path / "sub" / "a.npy").unlink()
    assert len(open_mels(tmp_path)) == 3  # the same name in two folders is fine


def test_a_path_without_mels_is_refused(tmp_path: Path, messages: Messages) -> None:
    (tmp_path / "a.wav").touch()
    for path in (tmp_path, tmp_path / "a.wav", tmp_path / "b.npz"):
        with messages.refused(MelError):
            open_mels(path)


def test_mels_of_two_definitions_are_refused_by_a_model_that_reads_both(tmp_path: Path, messages: Messages) -> None:
    definitions = {"a.npz": profile("bigvgan-24k"), "b.npz": profile("vocos-24k")}
    for name, spec in definitions.items():
        save_mel(tmp_path / name, tiny_mel(8, spec=spec), spec)
    vocoder = tiny_vocoder("spectral", spec=profile("bigvgan-24k"), any_mel=True)
    for name, spec in definitions.items():
        assert prepare(vocoder, open_mels(tmp_path / name)).vocoder.mel == spec
    with messages.refused(MelError):
        prepare(vocoder, open_mels(tmp_path))


def test_each_mel_file_is_opened_and_checked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b"):
        save_mel(tmp_path / f"{name}.npz", tiny_mel(8), SPEC)
    opened, checked = [], []
    real_open, real_check = synthesis.open_mel, MelFile.check
    monkeypatch.setattr(synthesis, "open_mel", lambda path: opened.append(path.name) or real_open(path))
    monkeypatch.setattr(MelFile, "check", lambda mel, spec: checked.append(mel.path.name) or real_check(mel, spec))
    mels = open_mels(tmp_path)
    vocoder = prepare(ready("spectral-same"), mels).vocoder
    synthesize_files(vocoder, [(mel, mel.path.with_suffix(".wav")) for mel in mels])
    assert opened == checked == ["a.npz", "b.npz"]


def test_samples_beyond_full_scale_are_counted(tmp_path: Path) -> None:
    vocoder, mel = ready("spectral-same"), tiny_mel(20)
    Corrections(*vocoder.corrections.bias.chunk(4)).magnitude.add_(4.0)  # nepers
    save_mel(tmp_path / "a.npz", mel, SPEC)
    beyond = int((np.abs(synthesize(vocoder, mel)) > 1).sum())
    assert 0 < beyond < 20 * SPEC.hop_length
    share = beyond / (20 * SPEC.hop_length)
    assert synthesize_files(vocoder, [(open_mel(tmp_path / "a.npz"), tmp_path / "a.wav")]).clipped_share == share
    assert synthesize_into([], vocoder, mel).clipped_share == share


# ---- many at once


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
    monkeypatch.setattr(synthesis, "MAX_BATCH_FRAMES", 100)
    monkeypatch.setattr(synthesis, "NATIVE_CHUNK_FRAMES", 16)
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
    monkeypatch.setattr(synthesis, "NATIVE_CHUNK_FRAMES", 1)
    monkeypatch.setattr(synthesis, "AudioWriter", failing_writer("7.wav", 3, threading.Event(), others_wait=False))
    with pytest.raises(OutputError, match="No space left on device"):
        synthesize_files(ready("wavenet-mu-law"), mels, jobs=2)
    folder = mels[0][1].parent
    assert not [path for path in folder.iterdir() if ".part" in path.name]
    assert not (folder / "7.wav").exists()


def test_a_failure_does_not_wait_for_files_that_were_begun_before(
    mels: list[tuple[MelFile, Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(synthesis, "NATIVE_CHUNK_FRAMES", 1)
    second_longest = "4.wav"  # the longest is begun before it
    monkeypatch.setattr(
        synthesis, "AudioWriter", failing_writer(second_longest, 0, threading.Event(), others_wait=True)
    )
    with pytest.raises(OutputError, match="No space left on device"):
        synthesize_files(ready("wavenet-mu-law"), mels, jobs=2)
    assert not list(mels[0][1].parent.glob("*.wav"))


def test_sinks_get_the_sound_while_it_is_made() -> None:
    vocoder, mel = ready("wavenet-mu-law"), tiny_mel(9)
    first, second, progress = Recorder(), Recorder(), []
    timing = synthesize_into([first, second], vocoder, mel, chunk_frames=2, on_progress=progress.append)
    assert [len(chunk) // SPEC.hop_length for chunk in first.chunks] == [2, 2, 2, 2, 1, 0]
    assert progress == [len(chunk) for chunk in first.chunks]
    np.testing.assert_array_equal(np.concatenate(first.chunks), synthesize(vocoder, mel))
    np.testing.assert_array_equal(np.concatenate(first.chunks), np.concatenate(second.chunks))
    assert 0 < timing.first_s < timing.wall_s


class Recorder:
    def __init__(self) -> None:
        self.chunks: list[np.ndarray] = []

    def write(self, samples: np.ndarray) -> None:
        self.chunks.append(samples)
