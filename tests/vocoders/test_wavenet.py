"""WaveNet beyond the laws: generation step by step equals the teacher-forced network."""

import math

import pytest
import torch
from support.mels import TINIEST as MEL
from support.messages import Messages
from support.vocoders import new_vocoder
from torch import nn

from wavegen.errors import ConfigError
from wavegen.mel import LogMel, MelInverse, MelSpec, profile
from wavegen.noise import uniform_noise
from wavegen.vocoders._prediction import errors_of
from wavegen.vocoders.wavenet import WaveNet

SPEECH_MEL = profile("bigvgan-24k")

OUTPUTS = ("mu-law", "logistic-mixture", "gaussian")
PREDICTED = {"prediction_order": 8, "look_ahead": 1, "reads_pitch": True}


def small(output: str, *, kernel_size: int = 2, dtype: torch.dtype = torch.float64, **options: object) -> WaveNet:
    torch.manual_seed(0)
    model = new_vocoder(
        "wavenet", MEL, output=output, residual_channels=8, skip_channels=16, hidden_channels=16, condition_channels=8,
        cycles=2, depth=4, kernel_size=kernel_size, **options,
    )  # fmt: skip
    for name, parameter in model.named_parameters():
        nn.init.normal_(parameter, std=0.05 if name.startswith("stage.") else 0.3)
    return model.to(dtype).eval()


@pytest.mark.parametrize("kernel_size", [1, 2, 3])
@pytest.mark.parametrize("output", OUTPUTS)
@torch.no_grad()
def test_the_reference_engine_predicts_what_teacher_forcing_predicts(output: str, kernel_size: int) -> None:
    model = small(output, kernel_size=kernel_size)
    mel = torch.randn(2, MEL.n_mels, 9, dtype=torch.float64)
    samples = torch.rand(2, 9 * MEL.hop_length, dtype=torch.float64) - 0.5
    expected = model(samples, mel)
    engine = model.engine()
    condition = model.upsample(torch.relu(model.frame_conv(model.normalised(mel))))
    state, before = engine.initial_state(2), torch.zeros(2, dtype=torch.float64)
    for n in range(samples.shape[1]):
        got = engine.advance(before, condition[..., n], state)
        torch.testing.assert_close(got, expected[..., n], rtol=1e-10, atol=1e-10)
        before = samples[:, n]


def test_only_a_network_that_reads_a_magnitude_inverts_the_mel(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(inverse: MelInverse, mel: torch.Tensor) -> torch.Tensor:
        raise AssertionError("the mel was inverted")

    monkeypatch.setattr(MelInverse, "forward", refused)
    mel, samples = torch.zeros(1, MEL.n_mels, 3).double(), torch.zeros(1, 3 * MEL.hop_length).double()
    plain = small("gaussian")
    plain(samples, mel)
    plain.synthesize(mel)
    with pytest.raises(AssertionError, match="inverted"):
        small("gaussian", **PREDICTED)(samples, mel)


@pytest.mark.parametrize("output", OUTPUTS)
@torch.no_grad()
def test_what_is_generated_is_what_the_network_predicts_for_it(output: str) -> None:
    """Feed the generated samples back through the parallel network: the same draws come out of its predictions."""
    model = small(output)
    mel = torch.randn(2, MEL.n_mels, 12, dtype=torch.float64)
    samples = model.synthesize(mel, seed=(3, 4))
    noise = uniform_noise(torch.tensor([3, 4]), 0, samples.shape[1], 1)[:, 0]
    again = model.distribution.sample(model(samples, mel), noise)
    torch.testing.assert_close(again, samples, rtol=1e-9, atol=1e-9)
    assert samples.std() > 0.01


@pytest.mark.parametrize("output", OUTPUTS)
@torch.no_grad()
def test_float32_logits_stay_within_1e_3_of_float64(output: str) -> None:
    mel = torch.randn(1, MEL.n_mels, 50, dtype=torch.float64)
    samples = torch.rand(1, 50 * MEL.hop_length, dtype=torch.float64) - 0.5
    exact = small(output)(samples, mel)
    single = small(output, dtype=torch.float32)(samples.float(), mel.float())
    assert (single - exact).abs().max() < 1e-3


@torch.no_grad()
def test_seeds_and_temperature() -> None:
    model, mel = small("gaussian"), torch.randn(1, MEL.n_mels, 6, dtype=torch.float64)
    first, second = model.synthesize(mel, seed=1), model.synthesize(mel, seed=2)
    assert not torch.equal(first, second)
    assert torch.equal(first, model.synthesize(mel, seed=1))
    model.temperature = 0.0
    cold = [model.synthesize(mel, seed=seed) for seed in (1, 2)]
    assert torch.equal(*cold)


@torch.no_grad()
def test_an_item_depends_on_its_own_seed_alone() -> None:
    model, mel = small("mu-law"), torch.randn(1, MEL.n_mels, 6, dtype=torch.float64)
    together = model.synthesize(mel.expand(3, -1, -1), seed=[5, 6, 5])
    assert torch.equal(together[0], together[2])
    assert torch.equal(together[1:2], model.synthesize(mel, seed=6))


@torch.no_grad()
def test_the_engine_follows_load_state_dict() -> None:
    """Folded weights must never outlive the weights they were folded from."""
    model, other = small("mu-law"), small("mu-law")
    for parameter in other.parameters():
        parameter.mul_(1.1)
    mel = torch.randn(1, MEL.n_mels, 6, dtype=torch.float64)
    before = model.synthesize(mel)
    model.load_state_dict(other.state_dict())
    assert torch.equal(model.synthesize(mel), other.synthesize(mel))
    assert not torch.equal(model.synthesize(mel), before)


@torch.no_grad()
def test_weight_norm_reaches_the_engine_folded_or_not() -> None:
    model = small("mu-law", weight_norm=True)
    mel = torch.randn(1, MEL.n_mels, 6, dtype=torch.float64)
    unfolded = model.synthesize(mel)
    assert torch.equal(model.prepared_for_synthesis().synthesize(mel), unfolded)


def test_log_likelihood_is_negative_and_finite_at_the_extremes() -> None:
    for output in OUTPUTS:
        model = small(output, dtype=torch.float32)
        samples = torch.tensor([[1.0, -1.0, 0.0, 1.0] * 12])
        log_prob = model.log_likelihood(samples, torch.randn(1, MEL.n_mels, 6)).trained
        assert log_prob.isfinite().all()
        log_prob.sum().backward()
        assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


# ---- linear prediction -------------------------------------------------------------------------------------


@pytest.mark.parametrize("output", OUTPUTS)
@torch.no_grad()
def test_with_prediction_too_the_network_predicts_what_was_drawn(output: str) -> None:
    """The errors of the generated samples are the draws from the network's own predictions for them."""
    model = small(output, **PREDICTED)
    mel = torch.randn(2, MEL.n_mels, 12, dtype=torch.float64) - 6
    samples = model.synthesize(mel, seed=(3, 4))
    noise = uniform_noise(torch.tensor([3, 4]), 0, samples.shape[1], 1)[:, 0]
    drawn = model.distribution.sample(model(samples, mel), noise)
    errors = errors_of(samples, model.prediction(model.stage.spoken(mel, None)))
    unclipped = samples.abs() < 1
    assert unclipped.double().mean() > 0.5
    torch.testing.assert_close(errors[unclipped], drawn[unclipped], rtol=1e-7, atol=1e-7)


@torch.no_grad()
def test_before_training_the_error_is_noise_of_standard_deviation_1() -> None:
    model = new_vocoder("wavenet", SPEECH_MEL, output="gaussian", cycles=1, depth=2, residual_channels=4, **PREDICTED)
    parameters = model(torch.rand(1, 10 * 256) - 0.5, torch.randn(1, SPEECH_MEL.n_mels, 10) - 5)
    assert torch.equal(parameters, torch.zeros_like(parameters))


@torch.no_grad()
def test_gain_in_is_gain_out() -> None:
    """Above the floor, a mel that is louder by some gain gives the samples that are louder by that gain."""
    model = small("gaussian", **PREDICTED)
    mel = torch.randn(1, MEL.n_mels, 12, dtype=torch.float64) * 0.3 - 7
    quiet = model.synthesize(mel, seed=1)
    loud = model.synthesize(mel + math.log(2), seed=1)
    assert float(loud.abs().max()) < 1  # not clipped
    torch.testing.assert_close(loud, 2 * quiet, rtol=1e-2, atol=1e-2 * float(loud.std()))


@pytest.mark.parametrize(
    "spec",
    [
        MEL.replace(f_min_hz=300),
        MEL.replace(f_max_hz=2000),
        MEL.replace(floor=1e-2),
        MEL.replace(center=True, n_fft=40, win_length=20, hop_length=6),
    ],
    ids=["no-low-frequencies", "no-high-frequencies", "high-floor", "short-window"],
)
@torch.no_grad()
def test_mels_that_say_little_still_predict(spec: MelSpec) -> None:
    """Silence, noise and single bands of any definition give stable filters: finite samples within full scale."""
    torch.manual_seed(0)
    model = new_vocoder("wavenet", spec, output="gaussian", residual_channels=4, cycles=1, depth=3, **PREDICTED).eval()
    silence = spec.from_linear(torch.zeros(1, spec.n_mels, 30))
    band = silence.clone()
    band[:, spec.n_mels // 2] = spec.from_linear(torch.tensor(1.0))
    for mel in (silence, band, spec.from_linear(torch.rand(1, spec.n_mels, 30))):
        samples = model.synthesize(mel, seed=1)
        assert samples.isfinite().all()
        assert samples.abs().max() <= 1
    if spec.floor == MEL.floor:
        assert model.synthesize(silence).abs().max() < 0.2


@torch.no_grad()
def test_samples_do_not_depend_on_how_the_utterance_was_cut_bit_for_bit() -> None:
    model = new_vocoder(
        "wavenet", SPEECH_MEL, output="logistic-mixture", cycles=1, depth=4, residual_channels=8,
        voiced_noise_from_hz=4000.0, **PREDICTED,
    )  # fmt: skip
    nn.init.normal_(model.output.weight, std=0.1)
    model.prepared_for_synthesis()
    mel = torch.randn(2, SPEECH_MEL.n_mels, 24) - 5
    whole = model.synthesize(mel, seed=1)
    for sizes in ([1] * 24, [3, 21], [10, 1, 13]):
        state, pieces = model.initial_state(2, seed=1), []
        for piece in mel.split(sizes, dim=-1):
            samples, state = model.step(piece, state)
            pieces.append(samples)
        assert torch.equal(torch.cat([*pieces, model.flush(state)], dim=1), whole)
    assert torch.equal(model.synthesize(mel[1:], seed=1), whole[1:])


@torch.no_grad()
def test_voiced_frames_have_a_temperature_of_their_own() -> None:
    model = small("gaussian", **PREDICTED)
    mel = torch.randn(1, MEL.n_mels, 12, dtype=torch.float64) - 2
    f0 = torch.tensor([[0.0] * 6 + [150.0] * 6])
    usual = model.synthesize(mel, f0=f0)
    model.voiced_temperature = 0.5
    changed = model.synthesize(mel, f0=f0)
    hop = MEL.hop_length
    assert torch.equal(changed[:, : 6 * hop], usual[:, : 6 * hop])
    assert not torch.equal(changed[:, 6 * hop :], usual[:, 6 * hop :])


@torch.no_grad()
def test_noise_in_voiced_frames_begins_at_a_frequency() -> None:
    """Before training the errors are what was drawn: white in unvoiced frames, high-passed in voiced ones."""
    shape = {"cycles": 1, "depth": 2, "residual_channels": 4, **PREDICTED}
    model = new_vocoder("wavenet", SPEECH_MEL, output="logistic-mixture", voiced_noise_from_hz=4000.0, **shape).double()
    mel = torch.full((1, SPEECH_MEL.n_mels, 120), -6.0, dtype=torch.float64)
    f0 = torch.tensor([[0.0] * 60 + [150.0] * 60])
    samples = model.synthesize(mel, f0=f0)
    errors = errors_of(samples, model.prediction(model.stage.spoken(mel, None, f0)))[0].unflatten(0, (2, -1))
    power = torch.stft(errors, 256, window=torch.hann_window(256).double(), return_complex=True).abs().square().mean(-1)
    low, high = power[:, 1:32].mean(-1), power[:, 52:].mean(-1)  # below 3 and above 4.9 kHz
    assert float(low[0] / high[0]) == pytest.approx(1, abs=0.1)
    assert low[1] < 0.03 * high[1]
    assert float(errors[1].std() / errors[0].std()) == pytest.approx(1, abs=0.05)


def test_noise_from_above_half_the_rate_is_refused(messages: Messages) -> None:
    with messages.refused(ConfigError):
        new_vocoder("wavenet", SPEECH_MEL, voiced_noise_from_hz=12000.0)


@torch.no_grad()
def test_imposing_the_mel_brings_that_of_the_sound_closer() -> None:
    model = new_vocoder(
        "wavenet", SPEECH_MEL, output="gaussian", cycles=1, depth=2, impose_mel=True, **PREDICTED
    ).eval()
    generator = torch.Generator().manual_seed(0)
    mel = LogMel(SPEECH_MEL)(torch.randn(1, 40 * 256, generator=generator) * 0.1)[..., :40]
    distances = []
    for imposed in (False, True):
        model.set_synthesis_options(impose=imposed)
        sound = model.synthesize(mel)
        distances.append(float((LogMel(SPEECH_MEL)(sound)[..., :40] - mel)[..., 4:-4].abs().mean()))
    assert distances[1] < 0.7 * distances[0]


@torch.no_grad()
def test_the_imposed_mel_leaves_no_drift() -> None:
    """No filter reads 0 Hz, so a constant beside the sound would stay."""
    model = new_vocoder("wavenet", SPEECH_MEL, output="gaussian", impose_mel=True, **PREDICTED).eval()
    sound = torch.randn(1, 40 * 256, generator=torch.Generator().manual_seed(0)) * 0.1
    mel = LogMel(SPEECH_MEL)(sound)[..., :40]
    for iterations in (0, 2):
        imposed = model.projection(sound + 0.2, mel, iterations=iterations)
        assert abs(float(imposed[:, 1024:-1024].mean())) < 0.005
    assert model.reading(profile("vocos-24k")).projection.removes_dc
    model.projection.removes_dc = False
    assert float(model.projection(sound + 0.2, mel)[:, 1024:-1024].mean()) > 0.05


def test_prediction_needs_look_ahead(messages: Messages) -> None:
    with messages.refused(ConfigError):
        new_vocoder("wavenet", SPEECH_MEL, prediction_order=32)
