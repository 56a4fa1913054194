"""The mel contract: filters against librosa and torchaudio, conversions, and values that cannot be right."""

from collections.abc import Callable

import librosa
import numpy as np
import pytest
import torch
from pydantic import ValidationError
from support.messages import Messages
from support.signals import log_mel, noise, tone

from wavegen.errors import MelError
from wavegen.mel import DEFAULT_PROFILE, PROFILES, LogMel, MelSpec, check_compatible, check_mel, convert, profile

DEFAULT = profile(DEFAULT_PROFILE)


def librosa_filters(spec: MelSpec) -> np.ndarray:
    return librosa.filters.mel(
        sr=spec.sample_rate_hz,
        n_fft=spec.n_fft,
        n_mels=spec.n_mels,
        fmin=spec.f_min_hz,
        fmax=spec.f_max_hz,
        htk=spec.scale == "htk",
        norm="slaney" if spec.norm == "slaney" else None,
        dtype=np.float64,
    )


@pytest.mark.parametrize("name", PROFILES)
def test_filterbank_equals_librosa_and_torchaudio(name: str) -> None:
    spec = profile(name)
    ours = spec.filterbank()
    assert ours.dtype == np.float64
    np.testing.assert_allclose(ours, librosa_filters(spec), rtol=0, atol=1e-9 * ours.max())
    torchaudio = pytest.importorskip("torchaudio")
    theirs = torchaudio.functional.melscale_fbanks(
        spec.n_fft // 2 + 1,
        spec.f_min_hz,
        spec.f_max_hz,
        spec.n_mels,
        spec.sample_rate_hz,
        norm="slaney" if spec.norm == "slaney" else None,
        mel_scale=spec.scale,
    )
    # torchaudio computes its corners in float32.
    np.testing.assert_allclose(ours, theirs.T.numpy(), rtol=0, atol=2e-4 * ours.max())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"win_length": 2048}, "win_length 2048 is longer than n_fft 1024"),
        ({"hop_length": 1026, "n_fft": 1028}, "hop_length 1026 skips samples of win_length 1024"),
        ({"hop_length": 255}, "n_fft - hop_length must be even"),
        ({"f_max_hz": 12001.0}, "f_max_hz 12001 is above half of sample_rate_hz 24000"),
        ({"f_min_hz": 12000.0}, "f_min_hz 12000 is not below f_max_hz 12000"),
        ({"clip": (1.0, 0.0)}, "clip (1.0, 0.0) is not (low, high)"),
        ({"mean": (0.0,) * 100}, "mean and std belong together"),
        ({"mean": (0.0,) * 99, "std": (1.0,) * 100}, "mean has 99 values for 100 mel bins"),
        ({"mean": (0.0,) * 100, "std": (0.0,) * 100}, "greater than 0"),
        ({"floor": 0.0}, "greater than 0"),
        ({"scale": "bark"}, "'slaney' or 'htk'"),
        ({"n_mels": "100"}, "valid integer"),
        ({"hop": 256}, "Extra inputs are not permitted"),
    ],
)
def test_impossible_specs_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(ValidationError) as error:
        DEFAULT.replace(**changes)
    assert message in str(error.value)


# --- conversions ---

STATISTICS = {"mean": tuple(np.linspace(-4, -2, 80).tolist()), "std": tuple(np.linspace(0.5, 1.5, 80).tolist())}
CONVERSIONS = [
    {"log": "log10"},
    {"gain": 20.0, "bias": -20.0},
    {"floor": 1e-3},
    {"clip": (-4.0, 0.0)},
    STATISTICS,
    {"log": "log10", "gain": 0.2, "bias": 0.8, "clip": (0.0, 1.0), "floor": 1e-4, **STATISTICS},
]


@pytest.mark.parametrize("changes", CONVERSIONS)
def test_conversion_equals_extraction_by_the_target(changes: dict) -> None:
    source = profile("hifigan-22k")
    target = source.replace(**changes)
    samples = torch.from_numpy(noise(22050))[None]
    converted = convert(LogMel(source)(samples), source, target)
    torch.testing.assert_close(converted, LogMel(target)(samples), rtol=0, atol=1e-9)
    assert not torch.equal(converted, LogMel(source)(samples))


@pytest.mark.parametrize("changes", [CONVERSIONS[0], CONVERSIONS[1], CONVERSIONS[4]])
def test_conversion_there_and_back_is_the_identity(changes: dict) -> None:
    source = profile("hifigan-22k")
    target = source.replace(**changes)
    mel = LogMel(source)(torch.from_numpy(noise(22050))[None])
    torch.testing.assert_close(convert(convert(mel, source, target), target, source), mel, rtol=0, atol=1e-12)


def test_linear_there_and_back() -> None:
    spec = profile("pwg-22k").replace(**STATISTICS)
    linear = torch.from_numpy(np.random.default_rng(0).uniform(1e-9, 3, (2, 80, 7)))
    torch.testing.assert_close(spec.to_linear(spec.from_linear(linear)), linear)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"log": "log10", "n_mels": 80}, ["n_mels is 100, not 80", "log is ln, not log10"]),
        ({"floor": 1e-7}, ["floor is 1e-05, not 1e-07"]),
        (
            {"floor": 1e-4, "mean": (0.0,) * 100, "std": (1.0,) * 100},
            ["floor is 1e-05, not 0.0001", "mean is None, not 100 values", "std is None, not 100 values"],
        ),
    ],
    ids=["some convert", "none converts", "all convert"],
)
def test_incompatible_definitions_are_named_field_by_field(changes: dict, named: list[str], messages: Messages) -> None:
    with pytest.raises(MelError) as error:
        check_compatible(DEFAULT, DEFAULT.replace(**changes), "x.npz")
    messages.check(error.value)
    assert all(field in str(error.value) for field in named)
    check_compatible(DEFAULT, DEFAULT.replace(), "x.npz")


def test_what_a_clip_cut_off_is_not_converted(messages: Messages) -> None:
    clipped = DEFAULT.replace(clip=(-6.0, 0.0))
    mel = torch.zeros(100, 3)
    for source, target in [
        (clipped, DEFAULT),
        (clipped, DEFAULT.replace(clip=(-7.0, 0.0))),
        (clipped, clipped.replace(gain=0.5)),  # the same clip of half the logarithm keeps twice the range
    ]:
        with messages.refused(MelError):
            convert(mel, source, target)
    assert convert(mel, clipped, clipped.replace(gain=2.0)).shape == mel.shape


# --- values ---

SPOILT: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "batch axis": lambda mel: mel[None],
    "one axis": lambda mel: mel[0],
    "three axes": lambda mel: np.stack([mel, mel]),
    "transposed": lambda mel: mel.T,
    "fewer bins": lambda mel: mel[:80],
    "no frames": lambda mel: mel[:, :0],
    "integers": lambda mel: mel.astype(np.int16),
    "NaN": lambda mel: np.where(mel < -11, np.nan, mel),
    "scaled": lambda mel: (mel - mel.min()) / np.ptp(mel),
    "decibels": lambda mel: 20 * np.log10(np.exp(mel)),
    "int16 samples": lambda mel: mel + np.log(32768),
    "linear": lambda mel: np.exp(mel) * 3,
}


@pytest.mark.parametrize("fault", SPOILT)
def test_a_mel_that_cannot_be_right_is_refused(fault: str, messages: Messages) -> None:
    mel = log_mel(DEFAULT, noise(24000).astype(np.float32))
    check_mel(mel, DEFAULT, "m.npy")
    with messages.refused(MelError):
        check_mel(SPOILT[fault](mel), DEFAULT, "m.npy")


@pytest.mark.parametrize("name", PROFILES)
def test_no_audio_within_full_scale_is_refused(name: str) -> None:
    spec = profile(name)
    length = spec.sample_rate_hz // 2
    rng = np.random.default_rng(0)
    click = np.zeros(length)
    click[length // 2] = 1.0
    for samples in (
        np.zeros(length),
        click,
        rng.choice([-1.0, 1.0], length),
        rng.normal(0, 1e-4, length),
        tone(spec.f_min_hz + 500, spec.sample_rate_hz, length, 1.0),
        np.sign(tone(220, spec.sample_rate_hz, length, 1.0)),
    ):
        check_mel(log_mel(spec, samples), spec, "m.npy")


# Not CosyVoice 2: the magnitudes of this clip are below what the logarithm of a full-scale tone reaches there.
@pytest.mark.parametrize("name", sorted({*PROFILES} - {"cosyvoice2-24k"}))
def test_linear_magnitudes_of_a_loud_clip_are_refused_by_every_other_profile(name: str) -> None:
    spec = profile(name)
    log = torch.from_numpy(log_mel(spec.replace(clip=None), noise(spec.sample_rate_hz)))
    with pytest.raises(MelError):
        check_mel(spec.to_linear(log).numpy() * 2, spec, "m.npy")
