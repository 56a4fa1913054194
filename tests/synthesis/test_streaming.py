"""Mels to sound in chunks, and how long it took."""

import numpy as np
import pytest
import torch
from support.contracts import tensors
from support.ready_vocoders import VOCODERS, ready
from support.vocoders import SPEC, tiny_mel

from wavegen.synthesis import (
    Timing,
    stream,
    synthesize,
    synthesize_into,
)


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
