"""Arguments of ``synthesize`` and ``step`` as callers have them: taken as they are meant, or refused in one line."""

from typing import Any

import numpy as np
import pytest
import torch
from support.messages import Messages
from support.vocoders import SPEC, tiny_mel, tiny_vocoder

from wavegen.errors import WavegenError
from wavegen.vocoders import Vocoder

HOP = SPEC.hop_length


@pytest.fixture(scope="module")
def vocoder() -> Vocoder:
    return tiny_vocoder("parallel").prepared_for_synthesis()


@pytest.fixture(scope="module")
def mel() -> torch.Tensor:
    return torch.from_numpy(np.stack([tiny_mel(20, seed=0), tiny_mel(20, seed=1)]))


@pytest.mark.parametrize(
    "seed",
    [np.int64(7), np.uint8(7), torch.tensor(7), [7, 7], (7, np.int32(7)), torch.tensor([7, 7]), np.array([7, 7])],
    ids=repr,
)
def test_integers_of_any_kind_are_seeds(vocoder: Vocoder, mel: torch.Tensor, seed: Any) -> None:
    assert torch.equal(vocoder.synthesize(mel, seed=seed), vocoder.synthesize(mel, seed=7))


@pytest.mark.parametrize(
    "lengths", [[20, 9], (20, 9), torch.tensor([20, 9]), np.array([20, 9], dtype=np.int16)], ids=repr
)
def test_integers_of_any_kind_are_lengths(vocoder: Vocoder, mel: torch.Tensor, lengths: Any) -> None:
    samples = vocoder.synthesize(mel, lengths=lengths)
    assert samples.shape == (2, 20 * HOP)
    assert samples[1, : 9 * HOP].any()
    assert not samples[1, 9 * HOP :].any()


@pytest.mark.parametrize(
    "convert",
    [
        lambda mel: mel.double(),
        lambda mel: mel.numpy(),
        lambda mel: mel.double().numpy(),
        lambda mel: mel.numpy().astype(">f4"),
        lambda mel: mel.numpy().astype(np.longdouble),
    ],
    ids=["float64", "numpy", "numpy float64", "big-endian", "longdouble"],
)
def test_mels_of_any_precision_are_spoken(vocoder: Vocoder, mel: torch.Tensor, convert: Any) -> None:
    samples = vocoder.synthesize(convert(mel))
    assert samples.dtype == torch.float32
    assert torch.equal(samples, vocoder.synthesize(mel))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_mels_of_half_precision_are_spoken_as_they_are(vocoder: Vocoder, mel: torch.Tensor, dtype: torch.dtype) -> None:
    assert torch.equal(vocoder.synthesize(mel.to(dtype)), vocoder.synthesize(mel.to(dtype).float()))


BAD: dict[str, dict[str, Any]] = {
    "three seeds": {"seed": [1, 2, 3]},
    "no seeds": {"seed": []},
    "half a seed": {"seed": 0.5},
    "a seed as text": {"seed": "7"},
    "a long seed": {"seed": 2**64},
    "one length": {"lengths": torch.tensor([6])},
    "a scalar length": {"lengths": 6},
    "a negative length": {"lengths": torch.tensor([-1, 6])},
    "too long": {"lengths": [20, 21]},
    "half a length": {"lengths": torch.tensor([1.5, 6])},
    "whole numbers": {"mel": torch.zeros(2, SPEC.n_mels, 5, dtype=torch.int64)},
    "a list": {"mel": [[0.0]]},
    "one mel": {"mel": torch.zeros(SPEC.n_mels, 5)},
    "a number for a speaker": {"speaker": 0},
}


@pytest.mark.parametrize("kind", BAD)
def test_arguments_that_do_not_fit_are_refused(
    kind: str, vocoder: Vocoder, mel: torch.Tensor, messages: Messages
) -> None:
    with messages.refused(WavegenError):
        vocoder.synthesize(**{"mel": mel, **BAD[kind]})


@pytest.mark.parametrize("speaker", [0, [0, 1], None, ["ann", 3], b"ann", ["ann"]], ids=repr)
def test_speakers_are_names(speaker: Any, mel: torch.Tensor, messages: Messages) -> None:
    vocoder = tiny_vocoder("parallel", speakers=("ann", "bob"), speaker_channels=2).prepared_for_synthesis()
    with messages.refused(WavegenError):
        vocoder.synthesize(mel, speaker=speaker)


def test_a_stream_refuses_another_precision(vocoder: Vocoder, mel: torch.Tensor, messages: Messages) -> None:
    state = vocoder.initial_state(2, seed=np.int64(3))
    with messages.refused(WavegenError):
        vocoder.step(mel.double(), state)
    with messages.refused(WavegenError):
        vocoder.step(mel.numpy(), state)  # type: ignore[arg-type]
    with messages.refused(WavegenError):
        vocoder.initial_state(2, seed=[1, 2, 3])
