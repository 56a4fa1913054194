"""WaveNet beyond the laws: generation step by step equals the teacher-forced network."""

import pytest
import torch
from support.mels import TINIEST as MEL
from support.vocoders import new_vocoder
from torch import nn

from wavegen.vocoders.wavenet import WaveNet

OUTPUTS = ("mu-law", "logistic-mixture", "gaussian")


def small(output: str, *, kernel_size: int = 2, dtype: torch.dtype = torch.float64, **options: object) -> WaveNet:
    torch.manual_seed(0)
    model = new_vocoder(
        "wavenet", MEL, output=output, residual_channels=8, skip_channels=16, hidden_channels=16, condition_channels=8,
        cycles=2, depth=4, kernel_size=kernel_size, **options,
    )  # fmt: skip
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
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


@pytest.mark.parametrize("output", OUTPUTS)
@torch.no_grad()
def test_what_is_generated_is_what_the_network_predicts_for_it(output: str) -> None:
    """Feed the generated samples back through the parallel network: the same draws come out of its predictions."""
    from wavegen.noise import uniform_noise

    model = small(output)
    mel = torch.randn(2, MEL.n_mels, 12, dtype=torch.float64)
    samples = model.synthesize(mel, seed=(3, 4))
    noise = uniform_noise(torch.tensor([3, 4]), 0, samples.shape[1], model.distribution.draws)
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
    cold = [model.step(mel, model.initial_state(1, seed=s), temperature=0)[0] for s in (1, 2)]
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
        log_prob = model.log_prob(samples, torch.randn(1, MEL.n_mels, 6))
        assert log_prob.isfinite().all()
        log_prob.sum().backward()
        assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
