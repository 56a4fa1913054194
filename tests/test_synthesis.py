"""Long mels in pieces, folders of them, and how long it took."""

import threading
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from support.vocoders import SPEC, tiny_mel, tiny_vocoder

from wavegen import synthesis
from wavegen.errors import AudioError, MelError, OutputError
from wavegen.mel import save_mel
from wavegen.synthesis import Timing, find_mels, open_for, stream, synthesize, synthesize_files, synthesize_into
from wavegen.vocoders import AutoregressiveVocoder, Vocoder

VOCODERS = {
    "spectral-same": ("spectral", {"padding": "same"}),
    "spectral-causal": ("spectral", {"padding": "causal"}),
    "spectral-causal-native": (
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
@pytest.mark.parametrize("piece_frames", [1, 7, 23, 1000])
def test_pieces_are_the_whole(name: str, piece_frames: int) -> None:
    vocoder, mel = ready(name, torch.float64), tiny_mel(23)
    whole = vocoder.synthesize(torch.from_numpy(mel).double()[None], seed=3)[0].numpy()
    pieces = np.concatenate(list(stream(vocoder, mel, seed=3, piece_frames=piece_frames)))
    assert pieces.shape == (23 * SPEC.hop_length,)
    assert pieces.dtype == np.float64
    np.testing.assert_allclose(pieces, whole, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", VOCODERS)
def test_what_is_kept_between_pieces_does_not_grow(name: str) -> None:
    vocoder = ready(name)

    def kept_after(pieces: int) -> int:
        state = vocoder.initial_state(1)
        for _ in range(pieces):
            _, state = vocoder.step(torch.from_numpy(tiny_mel(10))[None], state)
        return sum(tensor.numel() for tensor in torch.utils._pytree.tree_leaves(state))

    assert vocoder.context.receptive_field < 3 * 10  # so three pieces fill whatever context is kept
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
    pieces = stream(ready("spectral-same"), mel, piece_frames=10)
    next(pieces)
    assert mel.read == 10
    next(pieces)
    assert mel.read == 20


def test_seeds_of_wavenet_differ_and_repeat() -> None:
    vocoder, mel = ready("wavenet-mu-law"), tiny_mel(6)
    first, again, other = (synthesize(vocoder, mel, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert first.dtype == np.float32


def test_timing() -> None:
    assert Timing(audio_s=6.0, wall_s=1.5).times_real_time == 4.0


def test_a_file_is_written_whole_and_timed(tmp_path: Path) -> None:
    vocoder, mel, frames = ready("spectral-same"), tiny_mel(50), []
    save_mel(tmp_path / "a.npz", mel, SPEC)
    files = [(tmp_path / "a.npz", tmp_path / "a.wav")]
    timing = synthesize_files(vocoder, files, float32=True, on_piece=lambda done: frames.append(done))
    samples, rate = soundfile.read(tmp_path / "a.wav", dtype="float32")
    assert rate == SPEC.sample_rate_hz
    np.testing.assert_array_equal(samples, synthesize(vocoder, mel))
    assert timing.audio_s == 50 * SPEC.hop_length / SPEC.sample_rate_hz
    assert timing.wall_s > 0
    assert sum(frames) == 50


def test_nothing_is_left_of_a_synthesis_that_fails_half_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vocoder = ready("spectral-same")
    save_mel(tmp_path / "a.npz", tiny_mel(10), SPEC)
    real = type(vocoder).flush

    def full_disk(self: Vocoder, state: tuple) -> torch.Tensor:
        real(self, state)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(vocoder), "flush", full_disk)
    with pytest.raises(OutputError, match=r"a\.wav: cannot write: No space left on device"):
        synthesize_files(vocoder, [(tmp_path / "a.npz", tmp_path / "a.wav")])
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]


def test_sound_that_is_not_finite_is_refused(tmp_path: Path) -> None:
    vocoder = ready("spectral-same")
    vocoder.phase.bias.fill_(torch.nan)
    save_mel(tmp_path / "a.npz", tiny_mel(10), SPEC)
    with pytest.raises(AudioError, match="NaN or infinite samples"):
        synthesize_files(vocoder, [(tmp_path / "a.npz", tmp_path / "a.wav")])
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]


def test_a_bare_array_and_a_stated_one_are_the_same_mel(tmp_path: Path) -> None:
    vocoder, mel = ready("spectral-same"), tiny_mel(10)
    np.save(tmp_path / "a.npy", mel.astype(np.float64))
    save_mel(tmp_path / "b.npz", mel, SPEC)
    for name in ("a.npy", "b.npz"):
        np.testing.assert_array_equal(open_for(vocoder, tmp_path / name), mel)


def test_an_npz_under_the_name_npy_is_still_compared(tmp_path: Path) -> None:
    save_mel(tmp_path / "a.npz", tiny_mel(10), SPEC.replace(f_max_hz=3000))
    (tmp_path / "a.npz").rename(tmp_path / "a.npy")
    with pytest.raises(MelError, match=r"f_max_hz is 3000\.0, not 4000\.0"):
        open_for(ready("spectral-same"), tmp_path / "a.npy")


# ---- folders


def test_mels_are_found_in_order_and_hidden_ones_are_not(tmp_path: Path) -> None:
    for name in ("b/2.npy", "b/10.npz", "a.npy", "c.npz", "c.txt", "b/.half.7.part.npz", "manifest.tsv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [path.relative_to(tmp_path).as_posix() for path in find_mels(tmp_path)] == [
        "a.npy", "b/10.npz", "b/2.npy", "c.npz",
    ]  # fmt: skip


def test_two_mels_of_one_name_would_be_one_sound_file(tmp_path: Path) -> None:
    for name in ("sub/a.npy", "sub/a.npy.npz", "sub/a.npz", "a.npz"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(MelError) as error:
        find_mels(tmp_path)
    assert str(error.value) == f"{tmp_path / 'sub'}: a.npy and a.npz share a name; rename one"
    (tmp_path / "sub" / "a.npy").unlink()
    assert len(find_mels(tmp_path)) == 3  # also of one name in two folders


def test_samples_beyond_full_scale_are_counted(tmp_path: Path) -> None:
    vocoder, mel = ready("spectral-same"), tiny_mel(20)
    vocoder.magnitude.bias.add_(4.0)  # nepers
    save_mel(tmp_path / "a.npz", mel, SPEC)
    beyond = int((np.abs(synthesize(vocoder, mel)) > 1).sum())
    assert 0 < beyond < 20 * SPEC.hop_length
    assert synthesize_files(vocoder, [(tmp_path / "a.npz", tmp_path / "a.wav")]).clipped == beyond
    assert synthesize_into([], vocoder, mel).clipped == beyond


# ---- many at once


@pytest.fixture
def mels(tmp_path: Path) -> list[tuple[Path, Path]]:
    """Mel files of very different lengths, and where their sounds go."""
    for index, frames in enumerate((5, 61, 4, 17, 60, 18, 3, 33, 16, 15, 59)):
        save_mel(tmp_path / f"{index}.npz", tiny_mel(frames, seed=index), SPEC)
    return [(path, path.with_suffix(".wav")) for path in sorted(tmp_path.glob("*.npz"))]


@pytest.mark.parametrize("name", VOCODERS)
@pytest.mark.parametrize(("batch", "jobs"), [(1, 3), (3, 1), (8, 1), (64, 2)])
def test_files_together_are_the_files_alone(
    name: str, batch: int, jobs: int, mels: list[tuple[Path, Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(synthesis, "MOST_FRAMES", 100)
    monkeypatch.setattr(synthesis, "NATIVE_PIECE_FRAMES", 16)
    vocoder, frames = ready(name), []
    timing = synthesize_files(vocoder, mels, batch=batch, jobs=jobs, seed=5, float32=True, on_piece=frames.append)
    for mel, out in mels:
        expected = synthesize(vocoder, open_for(vocoder, mel), seed=5)
        samples, _ = soundfile.read(out, dtype="float32")
        if isinstance(vocoder, AutoregressiveVocoder):
            np.testing.assert_array_equal(samples, expected)
        else:  # a convolution rounds otherwise in a larger batch
            np.testing.assert_allclose(samples, expected, rtol=0, atol=1e-4 * max(1, np.abs(expected).max(initial=0)))
    total = sum(open_for(vocoder, mel).shape[1] for mel, _ in mels)
    assert sum(frames) == total
    assert timing.audio_s == pytest.approx(total * SPEC.hop_length / SPEC.sample_rate_hz)


def test_wavenets_know_how_many_go_together() -> None:
    assert ready("spectral-same").items_at_once == 1
    vocoder = ready("wavenet-mu-law")
    assert vocoder.items_at_once in (4, 8)
    vocoder.use_engine("torch")
    assert vocoder.items_at_once == 1


def test_groups_are_alike_and_enough_for_every_job() -> None:
    wavenet, spectral = ready("wavenet-mu-law"), ready("spectral-same")
    assert synthesis._groups([5, 9, 1, 7], wavenet, 8, 1) == [[1, 3, 0, 2]]
    assert synthesis._groups([5, 9, 1, 7], wavenet, 8, 2) == [[1, 3], [0, 2]]
    assert synthesis._groups([5, 9, 1, 7], wavenet, 1, 2) == [[1], [3], [0], [2]]
    assert synthesis._groups([5, 12_000, 1, 7], spectral, 8, 1) == [[1], [3, 0, 2]]


def test_one_failure_stops_the_others_and_leaves_nothing_half_written(
    mels: list[tuple[Path, Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    vocoder, made = ready("wavenet-mu-law"), synthesis._stream_together

    def failing(vocoder: Vocoder, group: list, seed: int, speaker: str | None) -> object:
        for index, pieces in enumerate(made(vocoder, group, seed, speaker, 1)):
            if index == 3 and group[0].shape[1] == 33:
                raise OSError(28, "No space left on device")
            yield pieces

    monkeypatch.setattr(synthesis, "_stream_together", failing)
    with pytest.raises(OutputError, match="No space left on device"):
        synthesize_files(vocoder, mels, jobs=2)
    assert not [path for path in mels[0][0].parent.iterdir() if ".part" in path.name]
    assert not (mels[0][0].parent / "7.wav").exists()


def test_a_failure_does_not_wait_for_what_began_before(
    tmp_path: Path, mels: list[tuple[Path, Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = threading.Event()

    def slow_or_failing(vocoder: Vocoder, group: list, *rest: object) -> object:
        if group[0].shape[1] == 60:
            failed.set()
            raise OSError(28, "No space left on device")
        for _ in range(50):  # the longest, which is first
            failed.wait(5)
            time.sleep(0.02)
            yield [np.zeros(SPEC.hop_length, np.float32)]

    monkeypatch.setattr(synthesis, "_stream_together", slow_or_failing)
    with pytest.raises(OutputError, match="No space left on device"):
        synthesize_files(ready("wavenet-mu-law"), mels, jobs=2)
    assert not list(tmp_path.glob("*.wav"))


def test_sinks_get_the_sound_as_it_is_made() -> None:
    vocoder, mel = ready("wavenet-mu-law"), tiny_mel(9)
    one, other, done = Heard(), Heard(), []
    timing = synthesize_into([one, other], vocoder, mel, piece_frames=2, on_piece=done.append)
    assert [len(piece) // SPEC.hop_length for piece in one.pieces] == done == [2, 2, 2, 2, 1, 0]
    np.testing.assert_array_equal(np.concatenate(one.pieces), synthesize(vocoder, mel))
    np.testing.assert_array_equal(np.concatenate(one.pieces), np.concatenate(other.pieces))
    assert 0 < timing.first_s < timing.wall_s


class Heard:
    def __init__(self) -> None:
        self.pieces: list[np.ndarray] = []

    def write(self, samples: np.ndarray) -> None:
        self.pieces.append(samples)
