"""Reading, resampling and writing audio; every kind of damaged file is refused with its remedy."""

import builtins
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from support.messages import Messages

from wavegen.audio import (
    AUDIO_SUFFIXES,
    AudioInfo,
    AudioWriter,
    audio_info,
    read_audio,
    read_segment,
    to_int16,
    write_audio,
)
from wavegen.audio.mpeg import find_frames
from wavegen.audio.resampling import installed_resampler
from wavegen.errors import AudioError, MissingAudioError, OutputError

RATE = 24000


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # so that messages name relative, known paths


def noise(samples: int = RATE) -> np.ndarray:
    return np.random.default_rng(0).uniform(-0.5, 0.5, samples).astype(np.float32)


def tone(hz: float, sample_rate_hz: int) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hz / sample_rate_hz * np.arange(sample_rate_hz))).astype(np.float32)


def spectrum(samples: np.ndarray) -> np.ndarray:
    """Amplitude per bin; a bin is 1 Hz for a second of samples."""
    return np.abs(np.fft.rfft(samples * np.hanning(len(samples)))) * 4 / len(samples)


# --- integers ---


def test_full_scale_clips_and_never_wraps() -> None:
    samples = np.array([1.0, -1.0, 1.0001, -1.0001, 37.0, -37.0, 0.99999, 0.0], dtype=np.float32)
    assert to_int16(samples).tolist() == [32767, -32768, 32767, -32768, 32767, -32768, 32767, 0]
    assert to_int16(samples.astype(np.float64)).dtype == np.int16


def test_rounds_to_the_nearest() -> None:
    steps = np.array([0.4, 0.6, -0.4, -0.6, 100.7]) / 32768
    assert to_int16(steps).tolist() == [0, 1, 0, -1, 101]


def test_every_16_bit_value_survives_reading_and_writing() -> None:
    values = np.arange(-32768, 32768).astype(np.int16)
    for suffix in (".wav", ".flac"):
        soundfile.write(f"a{suffix}", values, RATE)
        write_audio(f"b{suffix}", read_audio(f"a{suffix}"), RATE)
        np.testing.assert_array_equal(soundfile.read(f"b{suffix}", dtype="int16")[0], values)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_non_finite_samples_are_not_converted(bad: float, messages: Messages) -> None:
    with messages.refused(AudioError):
        to_int16(np.array([0.0, bad]))


def test_integers_are_not_taken_for_floats(messages: Messages) -> None:
    with messages.refused(AudioError):
        to_int16(np.array([1, 2], dtype=np.int16))


# --- writing and reading ---


@pytest.mark.parametrize(("name", "float32"), [("a.wav", False), ("a.flac", False), ("a.wav", True), ("A.WAV", True)])
def test_round_trip(name: str, float32: bool) -> None:
    samples = noise()
    write_audio(name, samples, RATE, float32=float32)
    assert audio_info(name) == AudioInfo(RATE, RATE, 1, in_place=True)
    assert soundfile.info(name).subtype == ("FLOAT" if float32 else "PCM_16")
    read = read_audio(name)
    assert read.dtype == np.float32
    np.testing.assert_allclose(read, samples, rtol=0, atol=0 if float32 else 0.5001 / 32768)
    assert os.listdir() == [name]


def test_float_files_are_not_clipped() -> None:
    write_audio("a.wav", np.array([1.5, -1.5], dtype=np.float32), RATE, float32=True)
    assert read_audio("a.wav").tolist() == [1.5, -1.5]


def test_blocks_equal_one_write() -> None:
    samples = noise()
    with AudioWriter("deep/down/a.flac", RATE) as writer:
        for block in np.split(samples, [1, 1, 777, 20000]):
            writer.write(block)
        assert not os.path.exists("deep/down/a.flac")
    write_audio("b.flac", samples, RATE)
    np.testing.assert_array_equal(read_audio("deep/down/a.flac"), read_audio("b.flac"))


def test_a_failure_leaves_nothing_and_keeps_what_was_there(messages: Messages) -> None:
    write_audio("a.wav", noise(), RATE)
    before = Path("a.wav").read_bytes()
    with pytest.raises(ZeroDivisionError), AudioWriter("a.wav", RATE) as writer:  # noqa: PT012
        writer.write(noise())
        _ = 1 / 0
    with messages.refused(AudioError):
        write_audio("a.wav", np.array([np.nan]), RATE)
    with messages.refused(AudioError):
        write_audio("a.wav", noise()[None], RATE)
    assert Path("a.wav").read_bytes() == before
    assert os.listdir() == ["a.wav"]


@pytest.mark.parametrize(("name", "float32"), [("a.mp3", False), ("a", False), ("a.flac", True), ("a", True)])
def test_other_formats_are_not_written(name: str, float32: bool, messages: Messages) -> None:
    with messages.refused(AudioError):
        write_audio(name, noise(), RATE, float32=float32)
    assert not os.listdir()


def test_a_folder_that_cannot_be_made_is_one_line(messages: Messages) -> None:
    Path("file").touch()
    with messages.refused(OutputError):
        write_audio("file/a.wav", noise(), RATE)


FILL_THE_DISK = """
import resource, signal, sys
import numpy as np
from wavegen.audio import AudioWriter
from wavegen.errors import OutputError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # so that the limit acts as a full disk: write() fails
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
try:
    with AudioWriter(sys.argv[1], 24000) as writer:
        writer.write(np.random.default_rng(0).uniform(-0.5, 0.5, 24000))
except OutputError as error:
    print(error)
"""


@pytest.mark.parametrize("name", ["a.wav", "a.flac"])
@pytest.mark.parametrize("limit", [20000, 43000])  # FLAC: fails while it is written, and only while it is closed
def test_a_full_disk_is_reported_and_leaves_nothing(name: str, limit: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FILL_THE_DISK, name, str(limit)], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith(f"{name}: cannot write: "), done
    assert not os.listdir()


@pytest.mark.parametrize("name", ["a.ogg", "a.mp3", "a.aiff"])
def test_other_formats_are_read(name: str) -> None:
    samples = tone(440, RATE)
    soundfile.write(name, samples, RATE)
    assert Path(name).suffix in AUDIO_SUFFIXES
    assert audio_info(name) == AudioInfo(RATE, RATE, 1)
    read = read_audio(name)
    assert read.shape == (RATE,)
    assert spectrum(read).argmax() == 440
    assert spectrum(read).max() == pytest.approx(0.5, rel=0.02)


def test_channels_are_averaged() -> None:
    left, right = tone(440, RATE), noise()
    soundfile.write("a.wav", np.stack([left, right], axis=1), RATE, subtype="FLOAT")
    assert audio_info("a.wav").channels == 2
    read = read_audio("a.wav")
    assert read.dtype == np.float32
    np.testing.assert_allclose(read, (left + right) / 2, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["a.wav", "a.flac"])
def test_segments_are_slices(name: str, messages: Messages) -> None:
    write_audio(name, noise(), RATE)
    whole = read_audio(name)
    for start, length in [(0, 1), (0, RATE), (12345, 678), (RATE - 1, 1)]:
        np.testing.assert_array_equal(read_segment(name, start, length), whole[start : start + length])
    for start, length in [(RATE - 1, 2), (-1, 5)]:
        with messages.refused(AudioError):
            read_segment(name, start, length)


def test_reading_resamples_only_when_the_rates_differ() -> None:
    write_audio("a.wav", tone(440, 48000), 48000)
    np.testing.assert_array_equal(read_audio("a.wav", 48000), read_audio("a.wav"))
    read = read_audio("a.wav", RATE)
    assert read.shape == (RATE,)
    assert spectrum(read).argmax() == 440


@pytest.mark.parametrize("failure", [ImportError, OSError, RuntimeError])
def test_a_torchaudio_that_cannot_be_imported_costs_nothing(
    monkeypatch: pytest.MonkeyPatch, failure: type[Exception]
) -> None:
    real = builtins.__import__

    def fail(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("torchaudio"):
            raise failure("built for another torch")
        return real(name, *args, **kwargs)

    write_audio("a.wav", noise(), RATE)
    installed_resampler.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(builtins, "__import__", fail)
        assert len(read_audio("a.wav", 22050)) == 22050
        assert installed_resampler() == "soxr"
    installed_resampler.cache_clear()


def test_importing_this_module_loads_neither_torch_nor_torchaudio() -> None:
    code = "import sys, wavegen.audio; print(sorted({'torch', 'torchaudio', 'librosa'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


# --- what is refused ---


def _wav(samples: int = RATE) -> bytearray:
    write_audio("whole.wav", noise(samples), RATE)
    return bytearray(Path("whole.wav").read_bytes())


def _flac() -> bytearray:
    write_audio("whole.flac", noise(), RATE)
    return bytearray(Path("whole.flac").read_bytes())


def _flac_of_unknown_length() -> bytearray:
    data = _flac()
    data[21] &= 0xF0  # STREAMINFO: 36 bits of total samples, 0 for unknown
    data[22:26] = bytes(4)
    return data


def _with_nan() -> bytes:
    soundfile.write("nan.wav", np.array([0.0, np.nan, 0.0]), RATE, subtype="FLOAT")
    return Path("nan.wav").read_bytes()


def _empty_wav() -> bytes:
    soundfile.write("none.wav", np.zeros(0), RATE)
    return Path("none.wav").read_bytes()


@pytest.mark.parametrize(
    ("name", "make"),
    [
        pytest.param("a.wav", lambda: b"", id="empty file"),
        pytest.param("a.wav", lambda: b"these are words\n" * 99, id="text"),
        pytest.param("a.raw", lambda: bytes(999), id="no header"),
        pytest.param("a.wav", lambda: _wav()[:-1000], id="WAV cut short"),
        pytest.param("a.wav", lambda: _wav()[:-1], id="WAV cut short by a byte"),
        pytest.param("a.flac", lambda: _flac()[:-1000], id="FLAC cut short"),
        pytest.param("a.flac", _flac_of_unknown_length, id="FLAC of unknown length"),
        pytest.param("a.wav", _empty_wav, id="no samples"),
        pytest.param("a.wav", _with_nan, id="NaN"),
    ],
)
def test_a_damaged_recording_is_refused(name: str, make: Callable[[], bytes], messages: Messages) -> None:
    Path(name).write_bytes(make())
    with messages.refused(AudioError):
        read_audio(name)


def test_a_recording_that_is_missing_is_a_file_not_found_error(messages: Messages) -> None:
    os.mkdir("folder.wav")
    for name in ("none.wav", "folder.wav"):
        with messages.refused(MissingAudioError):
            read_audio(name)
        with pytest.raises(FileNotFoundError, match=name):
            read_audio(name)


def test_audio_info_refuses_a_wav_that_was_cut_short() -> None:
    Path("a.wav").write_bytes(_wav()[:-1000])
    with pytest.raises(AudioError, match="shorter than its header says"):
        audio_info("a.wav")
    with pytest.raises(AudioError, match="shorter than its header says"):
        read_segment("a.wav", 0, 10)


def test_an_mp3_shorter_than_its_header_says_is_refused() -> None:
    soundfile.write("whole.mp3", noise(), RATE)
    data = Path("whole.mp3").read_bytes()
    Path("a.mp3").write_bytes(data[: len(data) // 2])
    with pytest.raises(AudioError, match="cut short within its last frame"):
        read_audio("a.mp3")
    start, _ = find_frames("whole.mp3").spans[10]
    Path("a.mp3").write_bytes(data[:start])
    with pytest.raises(AudioError, match=r"cut short: \d+ of 24000 samples"):  # the count depends on the decoder
        read_audio("a.mp3")


def test_a_wav_with_other_chunks_or_of_unknown_length_is_read() -> None:
    whole = _wav()
    expected = read_audio("whole.wav")
    odd = b"note" + struct.pack("<I", 3) + b"abc\0"  # an odd body is padded to an even length
    Path("a.wav").write_bytes(whole[:12] + odd + whole[12:] + odd)
    np.testing.assert_array_equal(read_audio("a.wav"), expected)
    Path("a.wav").write_bytes(whole[:12] + odd + whole[12:-1])
    with pytest.raises(AudioError, match="shorter than its header says"):
        read_audio("a.wav")
    whole[40:44] = struct.pack("<I", 0xFFFFFFFF)
    Path("b.wav").write_bytes(whole)
    np.testing.assert_array_equal(read_audio("b.wav"), expected)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has names that are not UTF-8")
@pytest.mark.parametrize("suffix", [".wav", ".flac"])
def test_a_name_that_is_not_utf_8_is_written_and_read(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / os.fsdecode(b"caf\xe9" + suffix.encode())
    write_audio(path, np.array([0.5, -0.25]), 8000)
    np.testing.assert_array_equal(read_audio(path), np.array([0.5, -0.25], dtype=np.float32))
    assert audio_info(path).samples == 2
    assert [*tmp_path.iterdir()] == [path]
