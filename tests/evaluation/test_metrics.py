"""Every metric against an independent implementation or a case with a known answer."""

import math
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import librosa
import numba
import numpy as np
import pytest
import scipy.signal
import torch
from support.signals import noise_like, speech, tone

from wavegen.audio import read_audio
from wavegen.evaluation.metrics import METRICS, SHORT_LIST, Metric, Pair, Undefined, available, missing_note, score
from wavegen.evaluation.metrics.pitch import PitchTrack, pitch_track
from wavegen.evaluation.metrics.spectral import CEPSTRUM_SPEC
from wavegen.mel import PROFILES, profile

SPEC = profile("bigvgan-24k")
RATE = SPEC.sample_rate_hz
PACKAGES = sorted({package for metric in METRICS.values() for package in metric.packages})

needs_all = pytest.mark.skipif(available() != list(METRICS), reason="the packages of wavegen[evaluation] are missing")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def compute(key: str, reference: np.ndarray, generated: np.ndarray, spec: object = SPEC) -> float:
    for package in METRICS[key].packages:
        pytest.importorskip(package)
    return METRICS[key].compute(Pair(reference, generated, spec))


def recording() -> np.ndarray:
    """Two seconds of real speech."""
    path = sorted((Path(__file__).parents[2] / "recipes/demo/audio/valid").glob("*.flac"))[0]
    return read_audio(path, RATE)[: 2 * RATE]


def hiss(seconds: float = 1.0, level: float = 0.1, seed: int = 0, rate: int = RATE) -> np.ndarray:
    return (level * np.random.default_rng(seed).standard_normal(round(seconds * rate))).astype(np.float32)


PERFECT = {
    "pesq": 4.644, "visqol": 5, "stoi": 1, "estoi": 1, "voicing_f1": 1, "si_sdr": 100,
}  # fmt: skip


@pytest.mark.parametrize("key", [key for key, metric in METRICS.items() if metric.reads_reference])
def test_identity_is_perfect(key: str) -> None:
    samples = speech(2.0)
    assert compute(key, samples, samples) == pytest.approx(PERFECT.get(key, 0), abs=1e-3 if key == "pesq" else 1e-9)


@pytest.mark.parametrize("key", METRICS)
def test_noise_instead_of_speech_is_far_worse_than_a_little_noise(key: str) -> None:
    if key in ("dc_offset", "clipping", "length", "tonal_line", "loudness", "f0_rmse"):
        pytest.skip("noise of the same level has no fault of this kind, or no pitch")
    samples = recording()
    outputs = samples + 1e-2 * noise_like(samples), noise_like(samples)
    near, far = (METRICS[key].badness(compute(key, samples, output)) for output in outputs)
    assert far > near + 0.2 * abs(near)


@needs_all
def test_noise_instead_of_speech_scores_near_the_floor() -> None:
    scores = score(recording(), noise_like(recording()), SPEC).values
    assert 1.0 < scores["pesq"] < 1.1
    assert abs(scores["stoi"]) < 0.4
    assert abs(scores["estoi"]) < 0.05
    assert scores["voicing_f1"] < 0.1
    assert scores["si_sdr"] < -30


def test_different_lengths_are_compared_over_the_common_start() -> None:
    samples, other = speech(), speech(pitch_hz=150)
    longer = np.concatenate([other, noise_like(other)])
    for a, b, c, d in ((samples, longer, samples, other), (longer, samples, other, samples)):
        found, wanted = dict(score(a, b, SPEC).values), dict(score(c, d, SPEC).values)
        assert found.pop("length") == pytest.approx(1500 if len(b) > len(a) else -1500)
        assert wanted.pop("length") == 0
        assert found == wanted


def test_scores_are_deterministic_and_leave_numpys_generator_unchanged() -> None:
    samples, broken = speech(), speech(pitch_hz=140)
    broken[: RATE // 2] = 0  # here the score depends on the noise that pystoi adds
    np.random.seed(5)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    first = score(samples, broken, SPEC)
    assert np.array_equal(np.random.get_state()[1], before)  # noqa: NPY002
    np.random.seed(6)  # noqa: NPY002
    assert score(samples, broken, SPEC) == first


# ---- spectra


def test_log_mel_equals_librosa() -> None:
    reference, generated = speech(), speech(pitch_hz=150)

    def log_mel(samples: np.ndarray) -> np.ndarray:
        padded = np.pad(samples, (SPEC.n_fft - SPEC.hop_length) // 2, mode="reflect")
        mel = librosa.feature.melspectrogram(
            y=padded, sr=RATE, n_fft=1024, hop_length=256, n_mels=100, fmax=12000, power=1.0, center=False
        )
        return np.log(np.maximum(mel, 1e-5))

    wanted = np.abs(log_mel(reference) - log_mel(generated)).mean()
    assert compute("log_mel", reference, generated) == pytest.approx(wanted, rel=1e-3)


@pytest.mark.parametrize("name", ["bigvgan-24k", "pwg-24k", "vocos-24k"])
def test_doubling_is_ln_2_of_log_mel_for_any_logarithm(name: str) -> None:
    loud = hiss()  # far above every floor
    assert compute("log_mel", loud, 2 * loud, PROFILES[name]) == pytest.approx(math.log(2), rel=1e-4)


def test_statistics_do_not_change_log_mel() -> None:
    plain = profile("pwg-24k")
    standardised = plain.replace(mean=(-2.0,) * plain.n_mels, std=(0.5,) * plain.n_mels)
    pair = speech(), speech(pitch_hz=150)
    assert compute("log_mel", *pair, standardised) == compute("log_mel", *pair, plain)


def test_stft_distance_equals_librosa() -> None:
    reference, generated = speech(), speech(pitch_hz=150)
    distances = []
    for n_fft, hop in ((512, 128), (1024, 256), (2048, 512)):
        s, g = (
            np.abs(librosa.stft(x, n_fft=n_fft, hop_length=hop, pad_mode="reflect")).clip(1e-7**0.5)
            for x in (reference, generated)
        )
        distances.append(np.linalg.norm(s - g) / np.linalg.norm(s) + np.abs(np.log(s / g)).mean())
    assert compute("m_stft", reference, generated) == pytest.approx(np.mean(distances), rel=1e-4)


def test_cepstral_distortion_equals_librosa_if_all_frames_count() -> None:
    spec = profile("bigvgan-24k").replace(sample_rate_hz=16000, f_max_hz=8000)  # so that nothing is resampled
    reference, generated = hiss(rate=16000), scipy.signal.lfilter([1, 0.7], [1], hiss(rate=16000, seed=1))

    def cepstra(samples: np.ndarray) -> np.ndarray:
        mel = librosa.feature.melspectrogram(
            y=samples, sr=16000, n_fft=1024, win_length=400, hop_length=80, n_mels=80, fmax=8000, htk=True, norm=None,
            power=1.0, pad_mode="reflect",
        )  # fmt: skip
        # librosa's DCT is orthonormal; the cepstrum is √(2/M) times that.
        return math.sqrt(2 / 80) * librosa.feature.mfcc(S=np.log(np.maximum(mel, 1e-4)), n_mfcc=14, dct_type=2)[1:]

    distance = np.sqrt(np.square(cepstra(reference) - cepstra(generated)).sum(axis=0)).mean()
    wanted = 10 * math.sqrt(2) / math.log(10) * distance
    assert wanted > 1
    assert compute("mcd", reference, generated, spec) == pytest.approx(wanted, rel=1e-3)


def test_cepstral_distortion_ignores_the_level_and_measures_a_ripple_in_db() -> None:
    loud = hiss(2.0, rate=16000)
    spec = SPEC.replace(sample_rate_hz=16000, f_max_hz=8000)
    assert compute("mcd", loud, 0.25 * loud, spec) == pytest.approx(0, abs=1e-4)
    # A gain of e^(a cos) along the mel axis: c₄ = a alone, so that the distortion is 10 √2 / ln 10 · a.
    spectrum, hertz = np.fft.rfft(loud), np.fft.rfftfreq(len(loud), 1 / 16000)
    mel = np.log1p(hertz / 700) / np.log1p(8000 / 700)
    rippled = np.fft.irfft(spectrum * np.exp(0.2 * np.cos(4 * np.pi * mel))).astype(np.float32)
    assert compute("mcd", loud, rippled, spec) == pytest.approx(10 * math.sqrt(2) / math.log(10) * 0.2, rel=0.03)


def test_cepstral_distortion_ignores_pauses() -> None:
    spec = SPEC.replace(sample_rate_hz=16000, f_max_hz=8000)
    reference = np.concatenate([hiss(1, rate=16000), hiss(1, 1e-4, rate=16000)])
    noisy = reference.copy()
    noisy[17000:] = scipy.signal.lfilter([1, -0.9], [1], hiss(2, 1e-3, rate=16000))[17000:]
    assert compute("mcd", reference, noisy, spec) < 0.1


def test_every_cepstral_band_has_a_filter() -> None:
    assert (CEPSTRUM_SPEC.filterbank().sum(axis=1) > 0).all()


# ---- pitch


def pulses(pitch_hz: float, seconds: float = 1.5) -> np.ndarray:
    """A steady, harmonic tone."""
    time = np.arange(round(seconds * RATE)) / RATE
    return (0.1 * sum(np.sin(2 * np.pi * k * pitch_hz * time) / k for k in range(1, int(8000 / pitch_hz)))).astype(
        np.float32
    )


@pytest.mark.parametrize("cents", [50, -50, 700])
def test_a_shifted_tone_scores_its_shift_in_cents(cents: float) -> None:
    shifted = pulses(150 * 2 ** (cents / 1200))
    assert compute("f0_rmse", pulses(150), shifted) == pytest.approx(abs(cents), abs=0.1)
    assert compute("voicing_f1", pulses(150), shifted) > 0.98


def test_pitch_counts_only_frames_clearly_voiced_in_both(monkeypatch: pytest.MonkeyPatch) -> None:
    reference, generated = np.full(100, 100.0), np.full(100, 100 * 2 ** (1 / 12))
    reference[:10], generated[60:] = 0, 0  # voiced in both from 10 to 59
    generated[10:12], generated[58:60], generated[:10] = (
        300,
        300,
        300,
    )  # wrong, but at an end or unvoiced in the reference
    tracks = {0.5: PitchTrack(reference, np.zeros(100)), 0.25: PitchTrack(generated, np.zeros(100))}
    monkeypatch.setattr("wavegen.evaluation.metrics.pitch.pitch_track", lambda samples: tracks[samples[0]])
    pair = Pair(np.full(16000, 0.5), np.full(16000, 0.25), SPEC.replace(sample_rate_hz=16000, f_max_hz=8000))
    assert METRICS["f0_rmse"].compute(pair) == pytest.approx(100)
    # 50 true positives, 10 false ones, 40 misses.
    assert METRICS["voicing_f1"].compute(pair) == pytest.approx(2 * 50 / (2 * 50 + 10 + 40))
    generated[13:] = 0
    with pytest.raises(Undefined, match="0 frames are clearly voiced in both, but it needs 10"):
        METRICS["f0_rmse"].compute(pair)


def test_half_a_voice_is_half_voiced() -> None:
    generated = pulses(150)
    generated[len(generated) // 2 :] = 0
    # The whole reference is voiced, and half of the output: TP 1/2, FN 1/2.
    assert compute("voicing_f1", pulses(150), generated) == pytest.approx(2 / 3, abs=0.03)


def test_periodicity_falls_with_noise_and_is_a_root_mean_square() -> None:
    pytest.importorskip("pyworld")
    tone_track, noise_track = (pitch_track(scipy.signal.resample_poly(s, 2, 3)) for s in (pulses(150), hiss(1.5)))
    assert np.median(tone_track.periodicity) > 0.95
    assert noise_track.periodicity.max() < 0.05
    found = compute("periodicity_rmse", pulses(150), hiss(1.5))
    assert found == pytest.approx(np.sqrt(np.mean((tone_track.periodicity - noise_track.periodicity) ** 2)), abs=0.03)


# ---- waveforms


@pytest.mark.parametrize("snr_db", [-10, 0, 20])
def test_si_sdr_is_the_ratio_for_any_gain_and_offset(snr_db: float) -> None:
    clean, other = hiss(4.0), hiss(4.0, seed=1)
    noisy = clean + other * 10 ** (-snr_db / 20)
    assert compute("si_sdr", clean, 0.3 * noisy + 0.05) == pytest.approx(snr_db, abs=0.2)


def test_si_sdr_is_its_formula() -> None:
    """As in Le Roux et al., eq. 2."""
    s, g = speech().astype(np.float64), speech(pitch_hz=121).astype(np.float64)
    s, g = s - s.mean(), g - g.mean()
    scaled = (g @ s) / (s @ s) * s
    wanted = 10 * np.log10((scaled @ scaled) / ((scaled - g) @ (scaled - g)))
    assert compute("si_sdr", speech(), speech(pitch_hz=121)) == pytest.approx(wanted, abs=1e-3)


@pytest.mark.parametrize("gain", [2.0, 0.5])
def test_a_gain_of_two_is_6_02_lu(gain: float) -> None:
    assert compute("loudness", 0.3 * speech(), 0.3 * gain * speech()) == pytest.approx(20 * math.log10(gain), abs=1e-3)


def test_loudness_of_the_reference_tone_is_that_of_bs_1770() -> None:
    """A sine of 997 Hz at 0 dBFS in one channel is -3.01 LUFS (BS.1770-4, annex 1)."""
    from pyloudnorm import Meter

    sine = tone(997, 48000, 96000, amplitude=1.0)
    assert Meter(48000).integrated_loudness(sine) == pytest.approx(-3.01, abs=0.05)
    spec = SPEC.replace(sample_rate_hz=48000, f_max_hz=24000)
    sines = [tone(hertz, 48000, 96000, amplitude=0.5) for hertz in (997, 10000)]
    # K-weighting lifts 10 kHz by its shelf of 4 dB; 997 Hz by 0.7 dB.
    assert compute("loudness", *sines, spec) == pytest.approx(3.3, abs=0.2)


def spoken_with_pauses() -> np.ndarray:
    """Two seconds of noise, with a pause of 0.4 s at 1e-4."""
    samples = hiss(2.0)
    samples[RATE : RATE + 2 * RATE // 5] *= 1e-3
    return samples


def test_noise_in_pauses_scores_its_level() -> None:
    reference = spoken_with_pauses()
    noisy = reference + hiss(2.0, 1e-2, seed=1)
    wanted = 10 * math.log10((1e-4**2 + 1e-2**2) / 1e-4**2)
    assert compute("silence_level", reference, noisy) == pytest.approx(wanted, abs=0.3)
    gated = np.where(np.abs(reference) < 6e-4, 0, reference)
    assert compute("silence_level", reference, gated) == pytest.approx(-16, abs=0.5)  # -80 dBFS to the floor of -96


def test_level_in_pauses_needs_pauses() -> None:
    with pytest.raises(Undefined, match="no pauses"):
        compute("silence_level", hiss(2.0), hiss(2.0))


@pytest.mark.parametrize("offset", [0.01, -0.02])
def test_dc_offset_is_in_percent(offset: float) -> None:
    assert compute("dc_offset", speech(), speech() + np.float32(offset)) == pytest.approx(100 * offset, abs=1e-3)


def test_a_steady_tone_scores_its_prominence_and_another_noise_little() -> None:
    noise, frequency = hiss(4.0, 0.01), 24000 / 2048 * 128  # in the middle of a bin
    assert compute("tonal_line", noise, hiss(4.0, 0.01, seed=1)) < 3.5
    # Mean power of the noise in a bin, if a full-scale tone has 1: 4 σ² Σw² / (Σw)², where Σw² / (Σw)² = 1.5 / 2048
    # for a Hann window. It has a chi-square distribution of two degrees of freedom, whose median is ln 2 of its mean.
    tone_level = 0.01
    noise_level = math.sqrt(0.01**2 * 4 * 1.5 / 2048 * math.log(2))
    wanted = 20 * math.log10(tone_level / noise_level)
    found = compute("tonal_line", noise, (noise + tone(frequency, RATE, len(noise), tone_level)).astype(np.float32))
    assert found == pytest.approx(wanted, abs=1.0)


def test_a_tone_of_the_recording_is_not_an_artefact() -> None:
    humming = (hiss(4.0, 0.01) + tone(1500, RATE, 4 * RATE, 0.01)).astype(np.float32)
    assert compute("tonal_line", humming, humming) == 0
    assert compute("tonal_line", humming, hiss(4.0, 0.01)) < 3.5  # a lost tone is not a line


def test_clipping_is_the_share_at_full_scale_minus_the_recordings() -> None:
    samples = np.linspace(-0.5, 0.5, 1000, dtype=np.float32)
    clipped = samples.copy()
    clipped[:20], clipped[-10:] = -1, 32767 / 32768
    assert compute("clipping", samples, clipped) == pytest.approx(3)
    assert compute("clipping", clipped, clipped) == compute("clipping", clipped, samples) == 0


def test_length_is_in_ms_before_the_cut() -> None:
    assert compute("length", hiss(1.0), hiss(1.25)) == pytest.approx(250)
    assert compute("length", hiss(1.0), hiss(0.99)) == pytest.approx(-10)


# ---- scores that are not defined


@pytest.mark.parametrize("seconds", [Fraction(1, RATE), 0.01, 0.05, 0.2])
def test_short_clips_have_reasons_instead_of_scores(seconds: float) -> None:
    short = speech()[1000:][: round(seconds * RATE)]
    scores = score(short, short, SPEC)
    assert list(scores.values) == available()
    assert {key for key, value in scores.values.items() if value is None} == set(scores.reasons)
    assert scores.reasons["stoi"] == f"{len(short)} samples, but it needs 9600"
    assert {"loudness", "estoi"} <= set(scores.reasons)
    if seconds <= 0.01:
        assert set(available()) - set(scores.reasons) <= {"dc_offset", "clipping", "length", "si_sdr"}


def test_clips_without_samples_only_have_a_length() -> None:
    scores = score(np.zeros(0), speech(), SPEC)
    assert {key for key, value in scores.values.items() if value is not None} == {"length"}


@pytest.mark.parametrize("which", ["both", "reference", "output"])
def test_silence_has_reasons_instead_of_scores(which: str) -> None:
    silence, samples = np.zeros(2 * RATE), speech(2.0)
    scores = score(silence if which != "output" else samples, silence if which != "reference" else samples, SPEC)
    assert all(value is None or math.isfinite(value) for value in scores.values.values())
    assert {"loudness", "si_sdr", "estoi"} <= set(scores.reasons)
    assert "silence" in scores.reasons["estoi"]
    if which != "output":
        assert {"stoi", "mcd", "silence_level"} <= set(scores.reasons)
    else:
        assert scores.values["stoi"] == pytest.approx(0, abs=1e-6)
    if "pesq" in scores.values:
        assert "silence" in scores.reasons["pesq"]
    if "f0_rmse" in scores.values:
        assert scores.reasons["f0_rmse"] == "0 frames are clearly voiced in both, but it needs 10"
        assert ("voicing_f1" in scores.reasons) == (which == "both")


def test_too_little_speech_has_no_stoi() -> None:
    samples = speech(1.0)
    samples[RATE // 5 :] *= 1e-4
    assert score(samples, samples, SPEC).reasons["stoi"] == "too little speech once silence is removed"


def test_nan_has_no_scores() -> None:
    broken = speech()
    broken[100] = np.nan
    scores = score(speech(), broken, SPEC)
    assert set(scores.values.values()) == {None}
    assert set(scores.reasons.values()) == {"NaN or infinite samples"}


@needs_all
@pytest.mark.parametrize("package", PACKAGES)
def test_a_missing_package_removes_its_metrics_and_is_named(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert missing_note() is None
    monkeypatch.setitem(sys.modules, package, None)  # makes the import fail
    missing = [key for key, metric in METRICS.items() if package in metric.packages]
    assert available() == [key for key in METRICS if key not in missing]
    assert not set(missing) & set(score(speech(0.5), speech(0.5), SPEC).values)
    labels = ", ".join(METRICS[key].label for key in missing)
    assert missing_note() == f"no {labels}: pip install 'wavegen[evaluation]'"


@needs_all
def test_imports_of_packages_are_quiet() -> None:
    code = "from wavegen.evaluation.metrics import METRICS, available; assert available() == list(METRICS)"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")


def test_without_a_resampler_only_metrics_that_resample_are_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wavegen.audio.resampling.installed_resampler", lambda: None)
    scores = score(speech(), speech(), SPEC)
    assert "needs torchaudio or soxr" in scores.reasons["mcd"]
    assert scores.values["stoi"] == pytest.approx(1)


@pytest.mark.skipif("pesq" not in available(), reason="the pesq package is not installed")
def test_long_clips_do_not_overflow_the_pesq_package() -> None:
    # 30 s of short utterances: more than the 50 that its C code has room for.
    time = np.arange(30 * 16000) / 16000
    samples = (np.sin(2 * np.pi * 440 * time) * (time % 0.45 < 0.22)).astype(np.float32)
    spec = SPEC.replace(sample_rate_hz=16000, f_max_hz=8000)
    assert compute("pesq", samples, samples, spec) == pytest.approx(4.644, abs=1e-3)


def test_visqol_equals_its_package_and_leaves_numbas_threads_unchanged() -> None:
    package = pytest.importorskip("visqol")
    api = package.VisqolApi()
    api.create(mode="speech", use_lattice_model=False)
    samples = speech(2.0, rate=16000)
    noisy = samples + 0.1 * noise_like(samples)
    threads = numba.get_num_threads()
    found = compute("visqol", samples, noisy, profile("wavegen-16k"))
    assert numba.get_num_threads() == threads
    wanted = api.measure_from_arrays(samples.astype(float), noisy.astype(float), 16000).moslqo
    assert found == pytest.approx(wanted, abs=1e-9)


def test_more_noise_scores_lower_in_visqol() -> None:
    samples = recording()
    scores = [compute("visqol", samples, samples + level * noise_like(samples)) for level in (0, 0.1, 0.3, 1)]
    assert scores[0] == 5
    assert scores == sorted(scores, reverse=True)
    assert scores[-1] < 2


@pytest.mark.parametrize(
    ("fault", "reason"), [(IndexError(), "too little speech"), (math.nan, "ViSQOL is not a number")]
)
def test_clips_that_the_visqol_package_cannot_score_have_reasons(
    fault: float | Exception, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = pytest.importorskip("visqol")

    def measure(*arguments: object) -> SimpleNamespace:
        if isinstance(fault, Exception):
            raise fault
        return SimpleNamespace(moslqo=fault)

    monkeypatch.setattr(package.VisqolApi, "measure_from_arrays", measure)
    assert score(speech(), speech(), SPEC, ["visqol"]).reasons == {"visqol": reason}


# ---- the registry


def test_each_metric_is_described() -> None:
    assert set(SHORT_LIST) <= set(METRICS)
    for metric in METRICS.values():
        assert all((metric.label, metric.unit, metric.source, metric.range))
        assert metric.better in ("higher", "lower", "zero")
        assert len(metric.compute.__doc__) > 60


@pytest.mark.parametrize(("better", "best"), [("higher", 3.0), ("lower", -2.0), ("zero", -1.0)])
def test_badness_is_lowest_for_the_best(better: str, best: float) -> None:
    metric = Metric("label", "unit", better, "source", "any", compute=lambda pair: 0.0)
    assert min([3.0, -2.0, -1.0], key=metric.badness) == best


def test_an_output_with_a_long_gap_has_no_pesq() -> None:
    """The mean of its other chunks would not show the gap."""
    pytest.importorskip("pesq")
    long = np.concatenate([speech(1.2, rate=16000, seed=seed) for seed in range(18)])
    dropped = np.where(np.arange(len(long)) < len(long) // 2, long, 0)
    spec = profile("wavegen-16k")
    reasons = score(long, dropped, spec, ["pesq"]).reasons
    assert reasons["pesq"].startswith("the output is silent for 11 s")
    assert score(dropped, dropped, spec, ["pesq"]).values["pesq"] == pytest.approx(4.64, abs=0.01)


def test_a_value_error_of_a_package_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(pair: object) -> float:
        raise ValueError("Audio must have length greater than the block size.")

    monkeypatch.setitem(METRICS, "loudness", replace(METRICS["loudness"], compute=refuse))  # type: ignore[arg-type]
    samples = speech(1.0, rate=16000)
    scores = score(samples, samples, profile("wavegen-16k"), ["loudness", "dc_offset"])
    assert scores.values == {"loudness": None, "dc_offset": 0}
    assert "block size" in scores.reasons["loudness"]
