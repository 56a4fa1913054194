"""The mel contract: filters against librosa and torchaudio, conversions, and values that cannot be right."""

from collections.abc import Callable

import librosa
import numpy as np
import pytest
import torch
import torchaudio
from pydantic import ValidationError
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
    theirs = torchaudio.functional.melscale_fbanks(
        spec.n_fft // 2 + 1,
        spec.f_min_hz,
        spec.f_max_hz,
        spec.n_mels,
        spec.sample_rate_hz,
        norm="slaney" if spec.norm == "slaney" else None,
        mel_scale=spec.scale,
    )
    assert ours.dtype == np.float64
    np.testing.assert_allclose(ours, librosa_filters(spec), rtol=0, atol=1e-9 * ours.max())
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


def test_profiles_are_told_apart_and_survive_json() -> None:
    assert len(set(PROFILES.values())) == len(PROFILES)
    for spec in PROFILES.values():
        assert MelSpec.model_validate_json(spec.model_dump_json()) == spec


def test_unknown_profile_offers_the_nearest() -> None:
    with pytest.raises(MelError) as error:
        profile("bigvgan24k")
    assert str(error.value).startswith("bigvgan24k: no mel profile has this name; try bigvgan-24k,")


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
    ("changes", "message"),
    [
        (
            {"log": "log10", "n_mels": 80},
            "x.npz: mel made to another definition: n_mels is 100, not 80, log is ln, not log10; nothing "
            "converts n_mels exactly, extract it again from the recording (log alone would convert exactly)",
        ),
        (
            {"floor": 1e-7},
            "x.npz: mel made to another definition: floor is 1e-05, not 1e-07; nothing converts floor "
            "exactly, extract it again from the recording",
        ),
        (
            {"floor": 1e-4, "mean": (0.0,) * 100, "std": (1.0,) * 100},
            "x.npz: mel made to another definition: floor is 1e-05, not 0.0001, mean is None, not 100 values, "
            "std is None, not 100 values; wavegen.mel.convert bridges floor, mean, std exactly",
        ),
    ],
)
def test_incompatible_definitions_are_named_field_by_field(changes: dict, message: str) -> None:
    with pytest.raises(MelError) as error:
        check_compatible(DEFAULT, DEFAULT.replace(**changes), "x.npz")
    assert str(error.value) == message
    check_compatible(DEFAULT, DEFAULT.replace(), "x.npz")


def test_what_a_clip_cut_off_is_not_converted() -> None:
    clipped = DEFAULT.replace(clip=(-6.0, 0.0))
    mel = torch.zeros(100, 3)
    for source, target in [
        (clipped, DEFAULT),
        (clipped, DEFAULT.replace(clip=(-7.0, 0.0))),
        (clipped, clipped.replace(gain=0.5)),  # the same clip of half the logarithm keeps twice the range
    ]:
        with pytest.raises(MelError, match=r"nothing converts (clip|gain) exactly"):
            convert(mel, source, target)
    assert convert(mel, clipped, clipped.replace(gain=2.0)).shape == mel.shape


# --- values ---

AGAIN = "extract it again from samples within ±1 by this definition"
OR_STATISTICS = "; if it was normalised by a corpus's mean and std, give an .npz whose definition states them"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda m: m[None], "has a batch axis, shape (1, 100, 93); save mel[0]"),
        (lambda m: m[0], "has 1 axes, shape (93,); save one mel [100, frames]"),
        (lambda m: np.stack([m, m]), "has 3 axes, shape (2, 100, 93); save one mel [100, frames]"),
        (lambda m: m.T, "looks like [frames, n_mels], shape (93, 100); transpose it: save mel.T"),
        (lambda m: m[:80], "has 80 mel bins where 100 are needed; extract it with the vocoder's definition"),
        (lambda m: m[:, :0], "has no frames; check the recording it was made from"),
        (lambda m: m.astype(np.int16), "holds int16 values, not floats; save the mel as float32"),
        (lambda m: np.where(m < -11, np.nan, m), "has NaN or infinite values; look for the fault in what made it"),
        (
            lambda m: (m - m.min()) / np.ptp(m),
            f"has only values within 0…1, which no ln mel has; undo its scaling, or {AGAIN}",
        ),
        (
            lambda m: 20 * np.log10(np.exp(m)),
            f"goes 769 dB below the floor 1e-05 of this definition; if it holds decibels or another log, {AGAIN}",
        ),
        (
            lambda m: m + np.log(32768),
            "goes 62 dB above what audio within ±1 can give; if it holds linear magnitudes or was made from "
            f"int16 samples, {AGAIN}{OR_STATISTICS}",
        ),
        (
            lambda m: np.exp(m) * 3,
            "never falls below 3e-05, which only full-scale noise does as a ln mel; if it holds linear "
            f"magnitudes, {AGAIN}{OR_STATISTICS}",
        ),
    ],
)  # fmt: skip
def test_a_mel_that_cannot_be_right_is_refused(spoil: Callable, message: str) -> None:
    mel = log_mel(DEFAULT, noise(24000).astype(np.float32))
    check_mel(mel, DEFAULT, "m.npy")
    with pytest.raises(MelError) as error:
        check_mel(spoil(mel), DEFAULT, "m.npy")
    assert str(error.value) == f"m.npy: {message}"


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


@pytest.mark.parametrize("name", PROFILES)
def test_linear_magnitudes_of_a_loud_clip_are_refused_by_every_profile(name: str) -> None:
    spec = profile(name)
    log = torch.from_numpy(log_mel(spec.replace(clip=None), noise(spec.sample_rate_hz)))
    with pytest.raises(MelError):
        check_mel(spec.to_linear(log).numpy() * 2, spec, "m.npy")
