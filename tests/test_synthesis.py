"""Long mels in pieces, folders of them, and how long it took."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from voices import SPEC, tiny_mel, tiny_vocoder

from wavegen.errors import AudioError, MelError, OutputError
from wavegen.mel import save_mel
from wavegen.synthesis import Timing, find_mels, open_for, stream, synthesize, synthesize_file
from wavegen.vocoders import Vocoder

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
    timing = synthesize_file(
        vocoder, tmp_path / "a.npz", tmp_path / "a.wav", float32=True, on_piece=lambda done: frames.append(done)
    )
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
        synthesize_file(vocoder, tmp_path / "a.npz", tmp_path / "a.wav")
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]


def test_sound_that_is_not_finite_is_refused(tmp_path: Path) -> None:
    vocoder = ready("spectral-same")
    vocoder.phase.bias.fill_(torch.nan)
    save_mel(tmp_path / "a.npz", tiny_mel(10), SPEC)
    with pytest.raises(AudioError, match="NaN or infinite samples"):
        synthesize_file(vocoder, tmp_path / "a.npz", tmp_path / "a.wav")
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


def test_samples_beyond_full_scale_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pieces = [np.array([0.0, 1.5, -2.0, 1.0]), np.array([-1.0, 0.5, 0.5, 1.1])]
    monkeypatch.setattr("wavegen.synthesis.open_for", lambda vocoder, path: None)
    monkeypatch.setattr("wavegen.synthesis.stream", lambda vocoder, mel, seed: iter(pieces))
    timing = synthesize_file(tiny_vocoder("spectral"), tmp_path / "x.npz", tmp_path / "x.wav")
    assert timing.clipped == 3
    assert (timing + timing).clipped == 6
