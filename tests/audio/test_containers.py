"""What can be decoded of a sound file decides: whole files are read to the end, and cut ones are refused."""

import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
from support.messages import Messages
from support.sounds import RATE, Make, encoded, pcm, riff, tone, without_table

from wavegen.audio import audio_info, read_audio, read_segment
from wavegen.errors import AudioError

pytestmark = pytest.mark.usefixtures("folder")

MP3_RATE = 44100


def mp3(seconds: float = 3.0, **options: object) -> bytes:
    if "MP3" not in soundfile.available_formats():
        pytest.skip("this libsndfile writes no MP3")
    how = {"bitrate_mode": "VARIABLE", "compression_level": 0.5, **options}
    return encoded(".mp3", tone(seconds, MP3_RATE), MP3_RATE, **how)


def id3(size: int) -> bytes:
    return b"ID3\x03\0\0" + bytes([size >> 21 & 127, size >> 14 & 127, size >> 7 & 127, size & 127]) + bytes(size)


INFO = b"LIST" + struct.pack("<I", 26) + b"INFOISFT" + struct.pack("<I", 14) + b"Lavf58.29.100\0"

# Whole files. The first group has sizes that stand for "unknown".
WHOLE: dict[str, tuple[str, Make]] = {
    "ffmpeg into a pipe": (".wav", lambda: riff(pcm(), size=0xFFFFFFFF, form=0xFFFFFFFF)),
    "SoX into a pipe": (".wav", lambda: riff(pcm(), size=0x7FFFF000, form=0x7FFFF024)),
    "a speech service": (".wav", lambda: riff(pcm(), size=0x7FFFFFFF, form=0x7FFFFFFF)),
    "another speech service": (".wav", lambda: riff(pcm(), size=0x80000000, form=0x80000024)),
    "less the header": (".wav", lambda: riff(pcm(), size=0x7FFFFFFF - 36, form=0x7FFFFFFF)),
    "unsigned, less the header": (".wav", lambda: riff(pcm(), size=0xFFFFFFFF - 36, form=0xFFFFFFFF)),
    "zeros": (".wav", lambda: riff(pcm(), size=0, form=36)),
    "zeros in both": (".wav", lambda: riff(pcm(), size=0, form=0)),
    "big-endian, into a pipe": (
        ".wav", lambda: riff(np.frombuffer(pcm(), "<i2").astype(">i2").tobytes(), size=0xFFFFFFFF, order=">")
    ),
    "AU into a pipe": (".au", lambda: (au := encoded(".au"))[:8] + b"\xff\xff\xff\xff" + au[12:]),
    # Other chunks and tags.
    "chunks after": (".wav", lambda: riff(pcm(), after=INFO * 50)),
    "chunks before": (".wav", lambda: riff(pcm(), before=INFO * 50)),
    "ID3 before": (".wav", lambda: id3(5000) + riff(pcm())),
    "ID3 after": (".wav", lambda: riff(pcm()) + b"TAG" + bytes(125)),
    "padding after": (".wav", lambda: riff(pcm()) + bytes(4096)),
    # Other containers.
    "RF64": (".wav", lambda: encoded(".wav", format="RF64")),
    "RIFX": (".wav", lambda: encoded(".wav", endian="BIG")),
    "W64": (".w64", lambda: encoded(".w64")),
    "AIFF": (".aiff", lambda: encoded(".aiff")),
    "AU": (".au", lambda: encoded(".au")),
    "CAF": (".caf", lambda: encoded(".caf", format="CAF", subtype="PCM_16")),
    "Ogg": (".ogg", lambda: encoded(".ogg")),
}  # fmt: skip


@pytest.mark.parametrize("kind", WHOLE)
def test_a_whole_file_is_read_to_the_end_whatever_its_header_says(kind: str) -> None:
    suffix, make = WHOLE[kind]
    path = Path(f"a{suffix}")
    path.write_bytes(make())
    assert audio_info(path).samples == len(tone())
    samples = read_audio(path)
    if suffix == ".ogg":
        assert np.corrcoef(samples, tone())[0, 1] > 0.9
    else:
        assert np.abs(samples - tone()).max() < 1e-4


def halves() -> dict[str, tuple[str, Make]]:
    """Each container, cut in the middle."""
    whole: dict[str, tuple[str, Make]] = {
        "WAV": (".wav", lambda: riff(pcm())),
        "WAV with a tag": (".wav", lambda: id3(500) + riff(pcm())),
        "WAV with chunks": (".wav", lambda: riff(pcm(), before=INFO * 300)),
        "RIFX": WHOLE["RIFX"], "RF64": WHOLE["RF64"], "W64": WHOLE["W64"], "AIFF": WHOLE["AIFF"], "AU": WHOLE["AU"],
        "CAF": WHOLE["CAF"],
        "FLAC": (".flac", lambda: encoded(".flac")),
        "Vorbis": (".ogg", lambda: encoded(".ogg", tone(20))),
        "Opus": (".opus", lambda: encoded(".opus", tone(20), format="OGG", subtype="OPUS")),
        "GSM": (".wav", lambda: encoded(".wav", tone(2, 8000), 8000, subtype="GSM610")),
        "MP3": (".mp3", mp3),
        "MP3 without a table": (".mp3", lambda: without_table(mp3())),
    }  # fmt: skip
    return whole


@pytest.mark.parametrize("kind", halves())
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_a_file_that_was_cut_is_refused(kind: str, share: float) -> None:
    suffix, make = halves()[kind]
    path = Path(f"a{suffix}")
    data = make()
    path.write_bytes(data)
    assert len(read_audio(path)) > 0
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(AudioError, match=rf"^a{suffix}: .*(short|decoded|no samples)"):
        read_audio(path)


def test_an_ogg_that_was_cut_between_two_pages_is_refused(messages: Messages) -> None:
    data = encoded(".ogg", tone(20))
    Path("a.ogg").write_bytes(data[: data.rfind(b"OggS")])
    with messages.refused(AudioError):
        read_audio("a.ogg")


JOINED: dict[str, tuple[str, Make]] = {
    "Ogg": (".ogg", lambda: encoded(".ogg") * 2),
    "FLAC": (".flac", lambda: encoded(".flac") * 2),
    "RF64": (".rf64", lambda: encoded(".wav", format="RF64") * 2),
    "AU": (".au", lambda: encoded(".au") * 2),
    "CAF": (".caf", lambda: encoded(".caf", format="CAF", subtype="PCM_16") * 2),
    "W64": (".w64", lambda: encoded(".w64") * 2),
    "a WAV that was written on": (".wav", lambda: riff(pcm(), size=len(pcm()) // 2)),
}


@pytest.mark.parametrize("kind", JOINED)
def test_sound_after_what_the_header_states_is_never_dropped_in_silence(kind: str, messages: Messages) -> None:
    suffix, make = JOINED[kind]
    Path(f"a{suffix}").write_bytes(make())
    with messages.refused(AudioError):
        read_audio(f"a{suffix}")


@pytest.mark.parametrize("suffix", [".wav", ".aiff"])
def test_two_files_joined_are_not_taken_for_one(suffix: str) -> None:
    Path(f"a{suffix}").write_bytes(encoded(suffix) * 2)
    with pytest.raises(AudioError):
        read_audio(f"a{suffix}")


# --- MP3 ---


def seconds(data: bytes) -> float:
    Path("a.mp3").write_bytes(data)
    info = audio_info("a.mp3")
    assert len(read_audio("a.mp3")) == info.samples
    assert info.sample_rate_hz == MP3_RATE
    return info.samples / MP3_RATE


def test_an_mp3_is_read_to_the_end_with_and_without_its_table() -> None:
    whole = mp3()
    assert seconds(whole) == pytest.approx(3.0, abs=1e-3)
    assert seconds(without_table(whole)) == pytest.approx(3.0, abs=0.06)  # the encoder's delay is not known
    quiet = encoded(".mp3", np.concatenate([np.zeros(2 * MP3_RATE), tone(2, MP3_RATE)]), MP3_RATE,
                    bitrate_mode="VARIABLE", compression_level=0.5)  # fmt: skip
    assert seconds(without_table(quiet)) == pytest.approx(4.0, abs=0.06)


def test_two_mp3s_that_were_joined_are_both_read() -> None:
    assert seconds(mp3() + mp3(2.0, compression_level=0.9)) == pytest.approx(5.0, abs=0.12)
    assert seconds(id3(1000) + mp3() + b"TAG" + bytes(125) + id3(99) + mp3(2.0)) == pytest.approx(5.0, abs=0.12)


def test_tags_of_an_mp3_are_not_sound() -> None:
    cover = np.random.default_rng(0).integers(0, 256, 50_000, dtype=np.uint8).tobytes()
    tag = id3(len(cover))[:10] + cover
    assert seconds(tag + mp3() + b"TAG" + bytes(125)) == pytest.approx(3.0, abs=1e-3)


# --- segments ---


@pytest.mark.parametrize(
    ("suffix", "options", "expected"),
    [
        (".wav", {}, True), (".wav", {"subtype": "FLOAT"}, True), (".wav", {"subtype": "ULAW"}, True),
        (".wav", {"format": "RF64"}, True), (".flac", {}, True), (".wav", {"subtype": "GSM610"}, False),
        (".wav", {"subtype": "MS_ADPCM"}, False), (".ogg", {}, False), (".wav", {"format": "OGG"}, False),
    ],
)  # fmt: skip
def test_it_is_known_which_files_have_segments(suffix: str, options: dict[str, str], expected: bool) -> None:
    """By the content, not by the name: an MP3 or Ogg named .wav has none."""
    Path(f"a{suffix}").write_bytes(encoded(suffix, tone(2, 8000), 8000, **options))
    assert audio_info(f"a{suffix}").in_place == expected


def test_a_file_of_unknown_length_has_no_segments(messages: Messages) -> None:
    Path("a.mp3").write_bytes(without_table(mp3()))
    assert not audio_info("a.mp3").in_place
    with messages.refused(AudioError):
        read_segment("a.mp3", 0, 10)
    Path("a.wav").write_bytes(riff(pcm(), size=0, form=36))
    assert not audio_info("a.wav").in_place


# --- levels ---


def test_integers_stored_as_floats_are_refused(messages: Messages) -> None:
    soundfile.write("a.wav", tone() * 32767, RATE, subtype="FLOAT")
    with messages.refused(AudioError):
        read_audio("a.wav")
    soundfile.write("a.wav", tone() * 20, RATE, subtype="FLOAT")
    assert np.abs(read_audio("a.wav")).max() > 7


def test_channels_that_cancel_each_other_are_refused(messages: Messages) -> None:
    soundfile.write("a.wav", np.stack([tone(), -tone()], axis=1), RATE)
    with messages.refused(AudioError):
        read_audio("a.wav")
    soundfile.write("a.wav", np.stack([tone(), 0 * tone()], axis=1), RATE)
    assert len(read_audio("a.wav")) == len(tone())
    soundfile.write("a.wav", np.zeros((100, 2)), RATE)
    assert not read_audio("a.wav").any()  # silence cancels nothing
