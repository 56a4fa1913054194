"""LogMel against librosa and torchaudio."""

import math

import librosa
import numpy as np
import pytest
import torch
from support.messages import Messages
from support.signals import log_mel, noise, tone

from wavegen.errors import MelError
from wavegen.mel import DEFAULT_PROFILE, PROFILES, LogMel, MelSpec, profile

DEFAULT = profile(DEFAULT_PROFILE)
REFERENCES = ["hifigan-22k", "vocos-24k", "pwg-22k", "pwg-24k", "diffwave-22k", "nsf-44k", "f5-24k", "cosyvoice2-24k",
              "cosyvoice3-24k"]  # fmt: skip


def reference(spec: MelSpec, samples: np.ndarray) -> np.ndarray:
    """The same mel by librosa; test_spec.py compares the filters with librosa's."""
    if not spec.center:
        samples = np.pad(samples, (spec.n_fft - spec.hop_length) // 2, mode="reflect")
    stft = librosa.stft(
        samples,
        n_fft=spec.n_fft,
        hop_length=spec.hop_length,
        win_length=spec.win_length,
        center=spec.center,
        pad_mode="reflect",
    )
    if spec.stft_normalized:
        stft = stft / np.sqrt(np.sum(librosa.filters.get_window("hann", spec.win_length) ** 2))
    magnitude = np.sqrt(np.abs(stft) ** 2 + spec.magnitude_eps)
    log = np.log(np.maximum(spec.filterbank() @ magnitude, spec.floor))
    log = log / np.log(10) if spec.log == "log10" else log
    value = spec.gain * log + spec.bias
    return value if spec.clip is None else np.clip(value, *spec.clip)


@pytest.mark.parametrize("name", REFERENCES)
def test_log_mel_equals_librosa(name: str) -> None:
    spec = profile(name)
    samples = noise(spec.sample_rate_hz)
    np.testing.assert_allclose(log_mel(spec, samples), reference(spec, samples), rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", REFERENCES)
def test_float32_is_close_to_float64(name: str) -> None:
    spec = profile(name)
    samples = noise(spec.sample_rate_hz)
    narrow = log_mel(spec, samples.astype(np.float32))
    assert narrow.dtype == np.float32
    loud = log_mel(spec, samples)[:, 20:]  # the near silence before is nothing but rounding in float32
    np.testing.assert_allclose(narrow[:, 20:], loud, rtol=0, atol=1e-3)


def test_vocos_equals_the_torchaudio_call_that_vocos_makes() -> None:
    torchaudio = pytest.importorskip("torchaudio")
    samples = torch.from_numpy(noise(24000, dtype=np.float32))
    transform = torchaudio.transforms.MelSpectrogram(24000, 1024, hop_length=256, n_mels=100, power=1)
    expected = torch.log(torch.clip(transform(samples), min=1e-7))
    torch.testing.assert_close(LogMel(profile("vocos-24k"))(samples[None])[0], expected, rtol=0, atol=5e-3)


def test_f5_equals_the_torchaudio_call_that_f5_makes() -> None:
    torchaudio = pytest.importorskip("torchaudio")
    samples = torch.from_numpy(noise(24000, dtype=np.float32))
    transform = torchaudio.transforms.MelSpectrogram(
        24000, 1024, 1024, 256, n_mels=100, power=1, center=True, normalized=False, norm=None
    )
    expected = transform(samples).clamp(min=1e-5).log()
    torch.testing.assert_close(LogMel(profile("f5-24k"))(samples[None])[0], expected, rtol=0, atol=5e-3)


def test_cosyvoice_has_50_frames_a_second() -> None:
    samples = noise(24000)
    for name in ("cosyvoice2-24k", "cosyvoice3-24k"):
        assert log_mel(profile(name), samples).shape == (80, 50)


def test_diffwave_equals_the_torchaudio_call_that_diffwave_makes() -> None:
    torchaudio = pytest.importorskip("torchaudio")
    samples = torch.from_numpy(noise(22050, dtype=np.float32))
    transform = torchaudio.transforms.MelSpectrogram(
        22050, 1024, 1024, 256, f_min=20.0, f_max=11025.0, n_mels=80, power=1.0, normalized=True
    )
    decibels = 20 * torch.log10(torch.clamp(transform(samples), min=1e-5)) - 20
    expected = torch.clamp((decibels + 100) / 100, 0.0, 1.0)
    torch.testing.assert_close(LogMel(profile("diffwave-22k"))(samples[None])[0], expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    ("name", "samples", "frames"),
    [
        ("hifigan-22k", 22050, 22050 // 256),
        ("hifigan-22k", 256 * 10, 10),
        ("hifigan-22k", 256 * 10 - 1, 9),
        ("bigvgan-44k", 44100, 44100 // 512),
        ("vocos-24k", 24000, 24000 // 256 + 1),
        ("vocos-24k", 256 * 10, 11),
        ("pwg-24k", 24000, 24000 // 300 + 1),
        ("diffwave-22k", 22050, 22050 // 256 + 1),
        ("nsf-44k", 44100, 44100 // 512),
    ],
)
def test_frame_count(name: str, samples: int, frames: int) -> None:
    spec = profile(name)
    assert spec.frames(samples) == frames
    assert log_mel(spec, noise(samples)).shape == (spec.n_mels, frames)


@pytest.mark.parametrize("name", PROFILES)
def test_the_shortest_audio_works_and_one_sample_less_is_refused(name: str) -> None:
    spec = profile(name)
    shortest = spec.min_samples
    assert log_mel(spec, noise(shortest)).shape == (spec.n_mels, spec.frames(shortest))
    with pytest.raises(MelError, match=rf"^{shortest - 1} samples .* {shortest} samples$"):
        log_mel(spec, noise(shortest - 1))


@pytest.mark.parametrize("name", PROFILES)
@pytest.mark.parametrize("hz", [440.0, 3000.0])
def test_a_tone_is_loudest_in_the_bin_around_it(name: str, hz: float) -> None:
    spec = profile(name).replace(clip=None)
    mel = log_mel(spec, tone(hz, spec.sample_rate_hz, spec.sample_rate_hz // 2))
    middle = mel[:, mel.shape[1] // 2]
    filters = spec.filterbank()
    nearest = round(hz * spec.n_fft / spec.sample_rate_hz)
    assert middle.argmax() in np.flatnonzero(filters[:, nearest - 1 : nearest + 2].sum(axis=1))


def test_ten_times_the_amplitude_adds_ln_10() -> None:
    quiet, loud = (log_mel(DEFAULT, tone(1000, 24000, 24000, amplitude)) for amplitude in (0.05, 0.5))
    peak = loud.mean(axis=1).argmax()
    np.testing.assert_allclose(loud[peak] - quiet[peak], math.log(10), atol=1e-3)


def test_silence_is_the_floor_and_its_gradient_is_finite() -> None:
    for name in ("bigvgan-24k", "vocos-24k"):
        samples = torch.zeros(1, 4096, requires_grad=True)
        mel = LogMel(profile(name))(samples)
        mel.sum().backward()
        assert samples.grad is not None
        assert torch.isfinite(samples.grad).all()
    assert mel.detach().numpy() == pytest.approx(math.log(1e-7))


def test_first_frame_starts_left_padding_samples_before_the_signal() -> None:
    for name in ("bigvgan-24k", "vocos-24k"):
        spec = profile(name)
        click = np.zeros(4096)
        click[spec.hop_length * 5 + spec.n_fft // 2 - spec.left_padding] = 1.0  # the centre of frame 5
        assert log_mel(spec, click).sum(axis=0).argmax() == 5


def test_items_of_a_batch_are_independent() -> None:
    samples = torch.from_numpy(np.stack([noise(8000, seed) for seed in range(3)]))
    together = LogMel(DEFAULT)(samples)
    for item, alone in zip(together, samples, strict=True):
        torch.testing.assert_close(item, LogMel(DEFAULT)(alone[None])[0], rtol=0, atol=1e-12)


def test_half_precision_modules_and_autocast_still_compute_in_float32() -> None:
    samples = torch.from_numpy(noise(8000, dtype=np.float32))[None]
    expected = LogMel(DEFAULT)(samples)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(LogMel(DEFAULT)(samples), expected)
    assert torch.equal(LogMel(DEFAULT).half()(samples), expected)
    assert torch.equal(LogMel(DEFAULT).double()(samples), expected)


def test_built_on_the_meta_device_it_still_works_and_saves_nothing() -> None:
    samples = torch.from_numpy(noise(8000, dtype=np.float32))[None]
    with torch.device("meta"):
        module = LogMel(DEFAULT)
    assert torch.equal(module(samples), LogMel(DEFAULT)(samples))
    assert not module.state_dict()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_gpu_equals_cpu() -> None:
    samples = torch.from_numpy(noise(24000))[None]
    for name in PROFILES:
        module = LogMel(profile(name))
        expected = module(samples)
        torch.testing.assert_close(module.cuda()(samples.cuda()).cpu(), expected, rtol=0, atol=1e-9)
        with torch.autocast("cuda", dtype=torch.bfloat16):
            narrow = module(samples.float().cuda()).cpu()
        torch.testing.assert_close(narrow[..., 20:], expected[..., 20:].float(), rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    "samples",
    [torch.zeros(4096), torch.zeros(1, 1, 4096), torch.zeros(1, 4096, dtype=torch.int16)],
    ids=["no batch", "channels", "integers"],
)
def test_log_mel_refuses_other_tensors(samples: torch.Tensor, messages: Messages) -> None:
    with messages.refused(MelError):
        LogMel(DEFAULT)(samples)
