"""The F0 of a caller: in arrays, in mel files, whole, streamed and in batches."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from support.mels import TINY
from support.messages import Messages
from support.vocoders import tiny_mel, tiny_vocoder

from wavegen.audio import read_audio
from wavegen.errors import ConfigError, MelError
from wavegen.mel import open_mel, profile, save_mel
from wavegen.synthesis import prepare, synthesize, synthesize_files
from wavegen.vocoders import VOCODERS, Vocoder, build_vocoder

WITH_SOURCE = [name for name, vocoder in VOCODERS.items() if vocoder.takes_f0]
FRAMES = 30


def with_mel(name: str) -> tuple[Vocoder, torch.Tensor]:
    return tiny_vocoder(name).double().eval(), torch.from_numpy(tiny_mel(FRAMES)).double()[None]


def spectrum_peak_hz(samples: torch.Tensor, rate: int) -> float:
    """Frequency of the strongest line between 60 and 400 Hz; with a flat spectrum, that of any harmonic."""
    power = torch.fft.rfft(samples * torch.hann_window(len(samples)).to(samples), n=1 << 17).abs()
    hz = torch.fft.rfftfreq(1 << 17, 1 / rate)
    inside = (hz > 60) & (hz < 400)
    return float(hz[inside][power[inside].argmax()])


def test_the_sound_has_the_given_f0() -> None:
    spec = profile("bigvgan-24k")
    vocoder = build_vocoder(VOCODERS["source-filter"].Config(), spec).eval()
    mel = torch.full((1, spec.n_mels, 100), -4.0)  # a flat spectrum resolves no harmonics of its own
    for f0_hz in (110.0, 220.0):
        samples = vocoder.synthesize(mel, f0=torch.full((1, 100), f0_hz))[0]
        harmonic = spectrum_peak_hz(samples, spec.sample_rate_hz) / f0_hz
        assert harmonic == pytest.approx(round(harmonic), abs=0.01)


@pytest.mark.parametrize("name", WITH_SOURCE)
def test_streams_follow_it_like_the_whole(name: str) -> None:
    vocoder, mel = with_mel(name)
    f0 = torch.linspace(100, 300, FRAMES)[None].double()
    f0[:, 10:14] = 0
    f0[:, 20:] = math.nan  # the rest follows from the mel
    whole = vocoder.synthesize(mel, f0=f0)
    assert not torch.allclose(whole, vocoder.synthesize(mel))
    state, pieces = vocoder.initial_state(1), []
    for start, stop in ((0, 1), (1, 12), (12, 12), (12, FRAMES)):
        samples, state = vocoder.step(mel[..., start:stop], state, f0[:, start:stop])
        pieces.append(samples)
    pieces.append(vocoder.flush(state))
    torch.testing.assert_close(torch.cat(pieces, dim=1), whole, rtol=0, atol=1e-9 * float(whole.abs().max()))


@pytest.mark.parametrize("name", WITH_SOURCE)
def test_nan_everywhere_is_no_f0_at_all(name: str) -> None:
    vocoder, mel = with_mel(name)
    assert torch.equal(vocoder.synthesize(mel, f0=torch.full((1, FRAMES), math.nan)), vocoder.synthesize(mel))


def test_wrong_f0_is_refused(messages: Messages) -> None:
    vocoder, mel = with_mel("source-filter")
    with messages.refused(MelError):
        vocoder.synthesize(mel, f0=torch.zeros(1, FRAMES - 1))
    with messages.refused(MelError):
        vocoder.synthesize(mel, f0=torch.full((1, FRAMES), -1.0))
    without, mel = with_mel("wavenet")
    with messages.refused(ConfigError):
        without.synthesize(mel, f0=torch.zeros(1, FRAMES))


def test_files_carry_it(tmp_path: Path) -> None:
    mel, f0 = tiny_mel(FRAMES), np.linspace(100, 200, FRAMES)
    save_mel(tmp_path / "with.npz", mel, TINY, f0=f0)
    save_mel(tmp_path / "without.npz", mel, TINY)
    files = [open_mel(tmp_path / f"{name}.npz") for name in ("with", "without")]
    assert files[1].f0 is None
    vocoder = prepare(tiny_vocoder("source-filter").double().eval(), files).vocoder
    alone = [synthesize(vocoder, file) for file in files]
    given = vocoder.synthesize(torch.from_numpy(mel).double()[None], f0=torch.from_numpy(f0.astype(np.float32))[None])
    np.testing.assert_allclose(alone[0], given[0].numpy(), rtol=0, atol=1e-9)
    assert not np.allclose(alone[0], alone[1])

    # In a batch, a mel without F0 beside one with it still follows its own pitch.
    outputs = [tmp_path / f"{name}.wav" for name in ("with", "without")]
    synthesize_files(vocoder, list(zip(files, outputs, strict=True)), batch=2, float32=True)
    for path, samples in zip(outputs, alone, strict=True):
        np.testing.assert_allclose(read_audio(path, TINY.sample_rate_hz), samples.clip(-1, 1), rtol=0, atol=1e-5)


def test_a_vocoder_without_a_source_says_that_it_does_not_follow_it(tmp_path: Path) -> None:
    save_mel(tmp_path / "a.npz", tiny_mel(FRAMES), TINY, f0=np.zeros(FRAMES))
    (note,) = prepare(tiny_vocoder("wavenet"), [open_mel(tmp_path / "a.npz")], engine="torch").notes
    assert "F0 is not used" in note


@pytest.mark.parametrize(
    "f0",
    [np.zeros(FRAMES - 1), np.full(FRAMES, -1.0), np.full(FRAMES, np.nan)],
    ids=["too short", "negative", "NaN"],
)
def test_files_with_wrong_f0_are_refused(tmp_path: Path, f0: np.ndarray, messages: Messages) -> None:
    path = tmp_path / "a.npz"
    save_mel(path, tiny_mel(FRAMES), TINY)
    with np.load(path) as arrays:
        np.savez(path, **arrays, f0=f0)
    with messages.refused(MelError):
        open_mel(path)
