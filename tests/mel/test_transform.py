"""LogMel against librosa and torchaudio, and the files that mels are kept in."""

import json
import math
import os
import time
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import librosa
import numpy as np
import pytest
import torch
import torchaudio
from support.signals import log_mel, noise, tone

from wavegen.errors import MelError
from wavegen.mel import (
    DEFAULT_PROFILE,
    PROFILES,
    LogMel,
    MelSpec,
    load_mel,
    load_mel_for,
    open_mel,
    profile,
    save_mel,
)

DEFAULT = profile(DEFAULT_PROFILE)
REFERENCES = ["hifigan-22k", "vocos-24k", "pwg-22k", "pwg-24k", "diffwave-22k", "nsf-44k"]


def reference(spec: MelSpec, samples: np.ndarray) -> np.ndarray:
    """The same definition in librosa's words; test_melspec.py compares the filters with librosa's."""
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
    loud = log_mel(spec, samples)[:, 20:]  # in near silence float32 samples have only rounding to show
    np.testing.assert_allclose(narrow[:, 20:], loud, rtol=0, atol=1e-3)


def test_vocos_equals_the_torchaudio_call_that_vocos_makes() -> None:
    samples = torch.from_numpy(noise(24000, dtype=np.float32))
    transform = torchaudio.transforms.MelSpectrogram(24000, 1024, hop_length=256, n_mels=100, power=1)
    expected = torch.log(torch.clip(transform(samples), min=1e-7))
    torch.testing.assert_close(LogMel(profile("vocos-24k"))(samples[None])[0], expected, rtol=0, atol=5e-3)


def test_diffwave_equals_the_torchaudio_call_that_diffwave_makes() -> None:
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
def test_shortest_clip_works_and_one_sample_less_is_refused(name: str) -> None:
    spec = profile(name)
    shortest = spec.shortest_clip
    assert log_mel(spec, noise(shortest)).shape == (spec.n_mels, spec.frames(shortest))
    with pytest.raises(MelError) as error:
        log_mel(spec, noise(shortest - 1))
    assert str(error.value) == (
        f"{shortest - 1} samples are too short for a mel frame; give at least {shortest} samples"
    )


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
    ("samples", "message"),
    [
        (torch.zeros(4096), "LogMel needs float [batch, samples], not torch.float32 [4096]"),
        (torch.zeros(1, 1, 4096), "LogMel needs float [batch, samples], not torch.float32 [1, 1, 4096]"),
        (torch.zeros(1, 4096, dtype=torch.int16), "LogMel needs float [batch, samples], not torch.int16 [1, 4096]"),
    ],
)  # fmt: skip
def test_log_mel_refuses_other_tensors(samples: torch.Tensor, message: str) -> None:
    with pytest.raises(MelError) as error:
        LogMel(DEFAULT)(samples)
    assert str(error.value) == message


# --- files ---


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # so that messages name relative, known paths


@pytest.fixture
def mel() -> np.ndarray:
    return log_mel(DEFAULT, noise(24000, dtype=np.float32))


def test_save_and_load(mel: np.ndarray) -> None:
    save_mel("new/a.npz", mel, DEFAULT)
    loaded, spec = load_mel("new/a.npz")
    np.testing.assert_array_equal(loaded, mel)
    assert spec == DEFAULT
    np.testing.assert_array_equal(load_mel_for("new/a.npz", DEFAULT), mel)
    np.save("t.npy", mel.T)
    with pytest.raises(MelError, match=r"^t\.npy: looks like \[frames, n_mels\]"):
        load_mel_for("t.npy", DEFAULT)
    np.save("b.npy", mel.astype(np.float64))
    assert load_mel("b.npy")[1] is None
    assert load_mel_for("b.npy", DEFAULT).dtype == np.float32


def test_saving_twice_gives_the_same_bytes_and_nothing_else(mel: np.ndarray, tmp_path: Path) -> None:
    save_mel("a.npz", mel, DEFAULT)
    save_mel("b.npz", mel, DEFAULT)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    assert sorted(os.listdir()) == ["a.npz", "b.npz"]


def test_open_mel_maps_the_same_numbers(mel: np.ndarray) -> None:
    save_mel("a.npz", mel, DEFAULT)
    mapped = open_mel("a.npz", DEFAULT)
    assert isinstance(mapped, np.memmap)
    assert not mapped.flags.writeable
    np.testing.assert_array_equal(mapped, load_mel("a.npz")[0])
    np.testing.assert_array_equal(mapped[:, 13:29], mel[:, 13:29])
    assert mapped[:, 13:29].flags.f_contiguous


def test_open_mel_refuses(mel: np.ndarray) -> None:
    save_mel("a.npz", mel, DEFAULT)
    with pytest.raises(MelError, match=r"^a\.npz: mel made to another definition: n_mels is 100, not 80"):
        open_mel("a.npz", DEFAULT.replace(n_mels=80))
    np.savez_compressed("b.npz", mel=mel, spec=np.array(DEFAULT.model_dump_json()))
    with pytest.raises(MelError, match=r"^b\.npz: is not laid out for slicing; write it with save_mel$"):
        open_mel("b.npz")
    np.savez("c.npz", mel=mel.astype(np.float64), spec=np.array(DEFAULT.model_dump_json()))
    with pytest.raises(MelError, match=r"^c\.npz: holds float64 \(100, 93\); write it with save_mel$"):
        open_mel("c.npz")
    np.save("d.npy", mel)
    with pytest.raises(MelError, match=r"^d\.npy: only an \.npz can be opened without reading it"):
        open_mel("d.npy")


def test_a_file_of_another_definition_is_refused_even_if_it_converts(mel: np.ndarray) -> None:
    save_mel("a.npz", mel, DEFAULT)
    with pytest.raises(MelError) as error:
        load_mel_for("a.npz", DEFAULT.replace(log="log10"))
    assert str(error.value) == (
        "a.npz: mel made to another definition: log is ln, not log10; wavegen.mel.convert bridges log exactly"
    )


class _Trap:
    """What a malicious array does when it is unpickled: it makes a folder."""

    def __reduce__(self) -> tuple:
        return os.mkdir, ("sprung",)


def test_nothing_is_unpickled(mel: np.ndarray) -> None:
    trap = np.array([_Trap()], dtype=object)
    np.save("trap.npy", trap, allow_pickle=True)
    np.savez("trap.npz", mel=trap, spec=np.array(DEFAULT.model_dump_json()))
    np.savez("spec.npz", mel=mel, spec=trap)
    for path in ("trap.npy", "trap.npz", "spec.npz"):
        for read in (load_mel, open_mel, lambda path: load_mel_for(path, DEFAULT)):
            with pytest.raises(MelError):
                read(path)
    assert not os.path.exists("sprung")
    with pytest.raises(MelError) as error:
        load_mel("trap.npy")
    assert str(error.value) == f"trap.npy: holds Python objects, which are never unpickled; {NOT_A_MEL}"
    np.load("trap.npy", allow_pickle=True)  # the trap is a real one
    assert os.path.exists("sprung")


NOT_A_MEL = "give an .npz made by wavegen-extract, or a .npy with one float mel [n_mels, frames]"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda mel, folder: None, "no such file; check the path"),
        (lambda mel, folder: (folder / "m.npy").touch(), f"is empty; {NOT_A_MEL}"),
        (
            lambda mel, folder: (folder / "m.npy").write_text("these are words"),
            f"is neither an .npy nor an .npz file; {NOT_A_MEL}",
        ),
        (
            lambda mel, folder: torch.save({"mel": torch.from_numpy(mel)}, "m.npy"),
            f"is an .npz without the arrays mel and spec; {NOT_A_MEL}",
        ),
        (
            lambda mel, folder: (folder / "m.npy").write_bytes(b"PK\x03\x04 and then nothing"),
            f"cannot be read: File is not a zip file; {NOT_A_MEL}",
        ),
        (lambda mel, folder: os.mkdir("m.npy"), f"cannot be read: [Errno 21] Is a directory: 'm.npy'; {NOT_A_MEL}"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_mel_is_refused(mel: np.ndarray, tmp_path: Path, make: Callable, message: str) -> None:
    make(mel, tmp_path)
    with pytest.raises(MelError) as error:
        load_mel_for("m.npy", DEFAULT)
    assert str(error.value) == f"m.npy: {message}"


def test_a_damaged_definition_or_member_is_refused(mel: np.ndarray, tmp_path: Path) -> None:
    fields = json.loads(DEFAULT.model_dump_json())
    np.savez("a.npz", mel=mel, spec=np.array(json.dumps({**fields, "n_mels": -1})))
    for read in (load_mel, open_mel):
        with pytest.raises(MelError) as error:
            read("a.npz")
        assert str(error.value) == (
            f"a.npz: its mel definition is not valid: n_mels Input should be greater than 0; {NOT_A_MEL}"
        )
    save_mel("b.npz", mel, DEFAULT)
    damaged = bytearray((tmp_path / "b.npz").read_bytes())
    (tmp_path / "c.npz").write_bytes(damaged[:-100])
    for read in (load_mel, open_mel):
        with pytest.raises(MelError, match=r"^c\.npz: cannot be read: File is not a zip file"):
            read("c.npz")
    damaged[5000] ^= 1
    (tmp_path / "b.npz").write_bytes(damaged)
    with pytest.raises(MelError, match=r"^b\.npz: cannot be read: Bad CRC-32"):
        load_mel("b.npz")
    np.save("d.npy", mel)
    (tmp_path / "d.npy").write_bytes((tmp_path / "d.npy").read_bytes()[:-100])
    with pytest.raises(MelError, match=r"^d\.npy: cannot be read: "):  # numpy's words differ between versions
        load_mel("d.npy")


def test_saving_refuses_what_loading_would_refuse(mel: np.ndarray) -> None:
    with pytest.raises(MelError, match=r"^a\.npz: looks like \[frames, n_mels\]"):
        save_mel("a.npz", mel.T, DEFAULT)
    with pytest.raises(MelError, match=r"^a\.npy: a mel with its definition is an \.npz file; name it with \.npz$"):
        save_mel("a.npy", mel, DEFAULT)
    assert not os.listdir()


def test_the_file_is_a_plain_uncompressed_zip_of_arrays(mel: np.ndarray) -> None:
    save_mel("a.npz", mel, DEFAULT)
    with zipfile.ZipFile("a.npz") as archive:
        assert {item.filename: item.compress_type for item in archive.infolist()} == {"mel.npy": 0, "spec.npy": 0}


def test_threads_read_headers_one_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """CPython 3.11's parser, by which numpy reads them, now and then fails in two threads at once."""
    np.save(tmp_path / "a.npy", np.zeros((8, 3), np.float32))
    inside: list[int] = [0]
    most: list[int] = [0]
    load = np.load

    def slow_load(*arguments: object, **options: object) -> object:
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        time.sleep(0.01)
        inside[0] -= 1
        return load(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(np, "load", slow_load)
    with ThreadPoolExecutor(4) as pool:
        assert len(list(pool.map(load_mel, [tmp_path / "a.npy"] * 8))) == 8
    assert most == [1]
