"""Mels that a TTS predicted, paired with recordings: shifts are corrected, wrong pairs are refused with a reason."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from support.corpus import voice
from support.messages import Messages

from wavegen.audio import read_audio, write_audio
from wavegen.commands import extract as command
from wavegen.corpora.extraction import extract
from wavegen.corpora.manifest import Clip, Recording, read_manifest, read_recordings, write_manifest
from wavegen.corpora.teacher_forced import MAX_LENGTH_DIFFERENCE, MAX_SHIFT, MIN_CORRELATION, align
from wavegen.errors import DataError
from wavegen.mel import LogMel, load_mel, profile, save_mel

SPEC = profile("bigvgan-24k")
HOP = SPEC.hop_length


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def mel_of(samples: np.ndarray) -> np.ndarray:
    return LogMel(SPEC)(torch.from_numpy(samples)[None])[0].numpy()


def speech(frames: int = 80, *, seed: int = 0) -> np.ndarray:
    """Noise whose loudness changes all the time, as that of speech does."""
    random = np.random.default_rng(seed)
    noise = random.normal(size=frames * HOP)
    every = np.arange(0, frames * HOP, 4 * HOP)
    loudness = np.interp(np.arange(frames * HOP), every, random.uniform(0, 0.2, len(every)))
    return (noise * loudness).astype(np.float32)


def predicted(natural: np.ndarray, shift: int = 0, *, seed: int = 0) -> np.ndarray:
    """A mel as a TTS predicts it: smoother, slightly off, and ``shift`` frames late."""
    smooth = (natural + np.roll(natural, 1, axis=1) + np.roll(natural, -1, axis=1)) / 3
    noisy = smooth + np.random.default_rng(seed).normal(scale=0.3, size=natural.shape)
    silence = np.full((len(natural), abs(shift)), np.log(SPEC.floor))
    late = np.concatenate([silence, noisy], axis=1) if shift > 0 else noisy[:, -shift:]
    return late.astype(np.float32)


# ---- alignment


@pytest.mark.parametrize("shift", range(1 - MAX_SHIFT, MAX_SHIFT))
def test_a_shift_is_found(shift: int) -> None:
    natural = mel_of(speech())
    found = align(predicted(natural, shift), natural)
    assert found.shift == shift
    assert found.first == max(0, -shift)
    assert found.first + found.frames == natural.shape[1]
    assert found.correlation > 0.7


def test_the_smallest_of_equally_good_shifts_is_taken() -> None:
    repeating = np.tile(mel_of(speech(4))[:, :4], 20)
    assert align(repeating, repeating).shift == 0
    assert abs(align(repeating[:, 3:], repeating).shift) == 1  # not 3 the other way


def test_a_slightly_other_level_and_a_spectral_tilt_do_not_matter() -> None:
    natural = mel_of(speech())
    coloured = predicted(natural, 2) + np.linspace(-1, 1, SPEC.n_mels)[:, None].astype(np.float32)
    assert align(coloured, natural).shift == 2
    assert align(predicted(natural) - 0.7, natural).shift == 0  # 6 dB


# What projects store that all call a log-mel; each correlates with the recording's own mel as well as the right one.
OTHER_VALUES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "log10": lambda mel: mel / np.log(10),
    "ln of a log10 definition": lambda mel: mel * np.log(10),
    "decibels": lambda mel: mel * 20 / np.log(10),
    "power": lambda mel: 2 * mel,
    "-4 to 4": lambda mel: 8 * (mel - mel.min()) / (mel.max() - mel.min()) - 4,
    "0 to 1": lambda mel: (mel - mel.min()) / (mel.max() - mel.min()),
    "statistics of the corpus": lambda mel: (mel - mel.mean(axis=1, keepdims=True)) / mel.std(axis=1, keepdims=True),
    "20 dB too low": lambda mel: mel - np.log(10),
    "int16 samples": lambda mel: mel + np.log(32768),
}


@pytest.mark.parametrize("kind", OTHER_VALUES)
@pytest.mark.parametrize("shift", [0, 3])
def test_a_mel_with_other_values_is_refused(kind: str, shift: int) -> None:
    for natural in (mel_of(speech()), mel_of(voice(1.0, seed=3).astype(np.float32))):
        with pytest.raises(DataError, match=r"slope \d|dB (above|below) the recording's own mel"):
            align(OTHER_VALUES[kind](predicted(natural, shift)), natural)


def test_the_likely_definition_is_named(messages: Messages) -> None:
    natural = mel_of(speech())
    for kind in ("log10", "decibels", "power", "-4 to 4", "20 dB too low"):
        with messages.refused(DataError):
            align(OTHER_VALUES[kind](natural), natural)


@pytest.mark.parametrize("name", ["pwg-22k", "diffwave-22k"])
def test_values_are_compared_by_the_definition_of_the_recipe(name: str) -> None:
    """In log10, or scaled to 0…1: predicted mels of the definition are taken, and bare natural logarithms are not."""
    spec = profile(name)
    samples = voice(1.0, seed=3, rate=spec.sample_rate_hz).astype(np.float32)
    write_audio("a.wav", samples, spec.sample_rate_hz)
    natural = LogMel(spec)(torch.from_numpy(read_audio("a.wav"))[None])[0].numpy()
    np.save("good.npy", natural)
    linear = spec.to_linear(torch.from_numpy(natural))
    np.save("ln.npy", linear.log().numpy())
    np.save("quiet.npy", spec.from_linear(linear / 10).numpy())  # 20 dB, whatever the logarithm
    recordings = [Recording(kind, Path("a.wav"), "train", Path(f"{kind}.npy")) for kind in ("good", "ln", "quiet")]
    assert list(extract(recordings, Path("out"), spec, progress=False).left_out) == ["ln", "quiet"]


def test_lengths_that_differ_a_little_are_cut_to_the_shared_frames() -> None:
    natural = mel_of(speech())
    given = predicted(natural)
    assert align(given[:, :-MAX_LENGTH_DIFFERENCE], natural).frames == natural.shape[1] - MAX_LENGTH_DIFFERENCE
    longer = np.concatenate([given, given[:, :MAX_LENGTH_DIFFERENCE]], axis=1)
    assert align(longer, natural).frames == natural.shape[1]


WRONG: dict[str, np.ndarray] = {
    "length": predicted(mel_of(speech()))[:, : 79 - MAX_LENGTH_DIFFERENCE],
    "constant": np.full((SPEC.n_mels, 80), -3.0, np.float32),
    "far": predicted(mel_of(speech()), MAX_SHIFT),
}


@pytest.mark.parametrize("fault", WRONG)
def test_a_pair_that_does_not_belong_together_is_refused(fault: str, messages: Messages) -> None:
    with messages.refused(DataError):
        align(WRONG[fault], mel_of(speech()))


def test_other_utterances_stay_well_below_the_bound_and_own_ones_above() -> None:
    own, other = [], []
    for seed in range(6):
        natural = mel_of(speech(seed=seed))
        own.append(align(predicted(natural, seed - 3), natural).correlation)
        with pytest.raises(DataError) as error:
            align(predicted(mel_of(speech(seed=seed + 50))), natural)
        other.append(float(str(error.value).split("correlation is ")[1].split(",")[0]))
    assert min(own) > MIN_CORRELATION + 0.2
    assert max(other) < MIN_CORRELATION - 0.1


# ---- in a corpus


def pairs(**shifts: int) -> Path:
    """Write recordings, predicted mels and a list of them; returns the list."""
    lines = ["audio\tmel"]
    for seed, (name, shift) in enumerate(shifts.items()):
        samples = speech(seed=seed)
        write_audio(f"audio/{name}.wav", samples, SPEC.sample_rate_hz)
        save_mel(f"tts/{name}.npz", predicted(mel_of(read_audio(f"audio/{name}.wav")), shift), SPEC)
        lines.append(f"audio/{name}.wav\ttts/{name}.npz")
    Path("pairs.tsv").write_text("\n".join(lines) + "\n")
    return Path("pairs.tsv")


def test_pairs_become_aligned_clips(messages: Messages) -> None:
    recordings = read_recordings(pairs(a=0, b=3, c=-2), held_out=0.3)
    result = extract(recordings, Path("out"), SPEC, progress=False)
    assert result.left_out == {}
    assert result.shifts == {"audio/b": 3, "audio/c": -2}
    messages.check(result.notes())
    assert sum(clip.split == "valid" for clip in result.clips) == 1
    for clip in result.clips:
        mel, _ = load_mel(clip.mel)
        samples = read_audio(clip.audio)
        assert (clip.frames, clip.samples) == (mel.shape[1], len(samples)) == (clip.frames, clip.frames * HOP)
        again = align(mel, mel_of(samples))
        assert (again.shift, again.frames) == (0, clip.frames)
        assert not np.allclose(mel, mel_of(samples), atol=0.1)  # the predicted one, not the recording's own
    assert [clip.frames for clip in result.clips] == [80, 80, 78]
    assert extract(recordings, Path("out"), SPEC, progress=False).was_complete
    assert read_manifest(Path("out/manifest.tsv").absolute(), Clip) == result.clips


def test_a_mel_that_changes_is_read_again() -> None:
    recordings = read_recordings(pairs(a=0, b=0), held_out=0.3)
    extract(recordings, Path("out"), SPEC, progress=False)
    pairs(a=0, b=1)
    result = extract(recordings, Path("out"), SPEC, progress=False)
    assert not result.was_complete
    assert result.shifts == {"audio/b": 1}


def test_every_rejected_pair_is_reported_with_its_reason_and_exit_code_1(
    capsys: pytest.CaptureFixture[str], messages: Messages
) -> None:
    path = pairs(good=0, other=0, short=0, bare=0, foreign=0)
    save_mel("tts/other.npz", predicted(mel_of(speech(seed=90))), SPEC)
    save_mel("tts/short.npz", load_mel(Path("tts/short.npz"))[0][:, :40], SPEC)
    mel = load_mel(Path("tts/bare.npz"))[0]
    Path("tts/bare.npz").unlink()
    foreign = profile("vocos-24k")
    save_mel("tts/foreign.npz", np.full((foreign.n_mels, 80), -3.0, np.float32), foreign)
    assert mel.shape[1] == 80
    assert command.main([str(path), "out"]) == 1
    captured = capsys.readouterr()
    messages.check(captured.out)
    (other,) = [line for line in captured.err.splitlines() if "tts/other.npz" in line]
    assert "tts/other.npz: the mel is not that of the recording: their correlation is " in other
    messages.check(captured.err.replace(other, ""))  # without it, because its digits may differ between machines


# ---- lists of recordings made by hand


def test_a_list_needs_paths_alone() -> None:
    Path("list.tsv").write_text("path\nb/one.wav\n../two.flac\nthree.wav\n")
    recordings = read_recordings(Path("list.tsv").absolute(), held_out="three")
    assert [(r.name, r.split) for r in recordings] == [("b/one", "train"), ("two", "train"), ("three", "valid")]
    assert recordings[0].path == Path("b/one.wav").absolute()
    assert {(r.mel, r.speaker) for r in recordings} == {(None, "")}


def test_a_list_can_have_all_columns() -> None:
    Path("list.tsv").write_text("speaker\tname\tpath\tsplit\tmel\nann\tx\ta.wav\tvalid\tm.npy\n\ty\tb.wav\ttrain\t\n")
    x, y = read_recordings(Path("list.tsv"))
    assert x == Recording("x", Path("a.wav"), "valid", Path("m.npy"), "ann")
    assert y == Recording("y", Path("b.wav"), "train")
    write_manifest(Path("again.tsv"), [x, y])
    assert read_manifest(Path("again.tsv"), Recording) == [x, y]
    write_manifest(Path("plain.tsv"), [y])
    assert Path("plain.tsv").read_text().splitlines()[0] == "name\tpath\tsplit"
    assert read_manifest(Path("plain.tsv"), Recording) == [replace(y)]


BAD_LISTS = {
    "no rows": "path\n",
    "no path": "sound\na.wav\n",
    "another split": "path\tsplit\na.wav\ttest\n",
    "two of one name": "name\tpath\nx\ta.wav\nx\tb.wav\n",
    "name outside": "name\tpath\n../x\ta.wav\n",
    "absolute name": "name\tpath\n/x\ta.wav\n",
}


@pytest.mark.parametrize("fault", BAD_LISTS)
def test_a_bad_list_is_refused(fault: str, messages: Messages) -> None:
    Path("list.tsv").write_text(BAD_LISTS[fault])
    with messages.refused(DataError):
        read_recordings(Path("list.tsv"))


def test_a_shift_is_found_in_gliding_harmonics_too() -> None:
    natural = mel_of(voice(1.0, seed=3))
    assert align(predicted(natural, 2), natural).shift == 2
