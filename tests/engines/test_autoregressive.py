"""The autoregressive engines: the same numbers, the same samples, and the laws of streaming and batching."""

import pytest
import torch
from support.engines import (
    CONDITION_CHANNELS,
    LOGIT_BOUND,
    NETWORKS,
    PREDICTED,
    agreeing_samples,
    check_lock_step,
    check_logits,
    generate,
    inputs,
    network,
    prediction,
    reference_logits,
)
from support.messages import Messages

from wavegen.engines import FrameCondition, ReferenceEngine, make_engine
from wavegen.engines.packed import arena, int8
from wavegen.errors import ConfigError, StreamingError


@pytest.mark.parametrize("name", NETWORKS)
def test_logits_equal_the_references_over_2000_samples(name: str) -> None:
    check_logits(name, reference_logits(name))


@pytest.mark.parametrize(("constant", "value"), [("ZERO_CODE", 127), ("ZERO_CODE", 129), ("CODES", 63)])
def test_bytes_that_are_packed_wrongly_are_noticed(constant: str, value: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The weights are packed with another constant than the loop was compiled with, or with half of the codes."""
    if not int8.AVAILABLE:
        pytest.skip("this processor has no products of bytes")
    monkeypatch.setattr(arena, constant, value)
    with pytest.raises(AssertionError, match="'medium', 'int8'"):
        check_logits("medium", reference_logits("medium"))


@pytest.mark.parametrize("name", ["deep", "three-taps", "gaussian", *PREDICTED])
def test_the_same_seed_gives_the_references_samples(name: str) -> None:
    """Over 1,504 samples of two items, in all of these shapes; in general until a draw falls between two roundings."""
    model = network(name)
    _, condition, noise = inputs(model, 2, 1504)
    known = prediction(model, 2, 1504)
    expected = generate(ReferenceEngine(model), condition, noise, predicted=known)
    assert expected.std() > 0.01
    samples = generate(make_engine(model, "numba"), condition, noise, predicted=known)
    assert agreeing_samples(samples, expected) == 1504


@pytest.mark.parametrize("name", ["deep", "three-taps", "gaussian"])
@pytest.mark.parametrize("temperature", [0.0, 0.6])
def test_engines_agree_at_every_temperature(name: str, temperature: float) -> None:
    model = network(name)
    _, condition, noise = inputs(model, 1, 300)
    reference, fast = (
        engine.generate(torch.zeros(1), condition, noise, engine.initial_state(1), temperature=temperature)[0]
        for engine in (ReferenceEngine(model), make_engine(model, "numba"))
    )
    assert agreeing_samples(reference, fast) == 300


@pytest.mark.parametrize("precision", ["float32", "int16", "int8"])
@pytest.mark.parametrize("name", ["deep", "three-taps", "one-block"])
def test_chunks_of_any_length_equal_the_whole_exactly(name: str, precision: str) -> None:
    model = network(name)
    engine = make_engine(model, "numba", precision)
    _, condition, noise = inputs(model, 2, 700)
    whole = generate(engine, condition, noise)
    for sizes in ([1, 2, 3, 0, 5, 600, 89], [8] * 87 + [4], [512, 188]):
        assert torch.equal(generate(engine, condition, noise, sizes), whole)


@pytest.mark.parametrize("precision", ["float32", "int16", "int8"])
@pytest.mark.parametrize("name", PREDICTED)
def test_chunks_of_whole_frames_equal_the_whole_exactly(name: str, precision: str) -> None:
    model = network(name)
    engine = make_engine(model, "numba", precision)
    _, condition, noise = inputs(model, 2, 720)
    known = prediction(model, 2, 720)
    whole = generate(engine, condition, noise, predicted=known)
    for sizes in ([8, 16, 696], [8] * 90, [504, 216]):
        assert torch.equal(generate(engine, condition, noise, sizes, predicted=known), whole)


@torch.no_grad()
def test_what_the_linear_prediction_expects_comes_out_where_the_network_adds_nothing() -> None:
    """With errors of 0, a recursion by hand gives the same samples; it starts from a given sample."""
    model = network("predicted")
    assert model.output.bias is not None
    model.output.weight.zero_()
    model.output.bias.zero_()
    _, condition, noise = inputs(model, 1, 80)
    known = prediction(model, 1, 80)
    assert known is not None
    expected = [0.4]
    for n in range(80):
        coefficients = known.coefficients[0, :, n // 2].tolist()
        expected.append(sum(a * x for a, x in zip(coefficients, reversed(expected), strict=False)))
    for engine in (ReferenceEngine(model), make_engine(model, "numba")):
        samples, _ = engine.generate(
            torch.tensor([0.4]), condition, noise, engine.initial_state(1), prediction=known, temperature=0.0
        )
        torch.testing.assert_close(samples[0], torch.tensor(expected[1:]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("precision", ["float32", "int16", "int8"])
@pytest.mark.parametrize("name", NETWORKS)
def test_items_in_lock_step_equal_the_same_items_alone(name: str, precision: str) -> None:
    check_lock_step(name, precision)


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_nan_in_one_item_does_not_reach_the_others_in_lock_step(precision: str) -> None:
    model = network("deep")
    engine = make_engine(model, "numba", precision)
    _, condition, noise = inputs(model, 8, 40)
    expected = generate(engine, condition, noise)
    condition[3] = torch.nan
    samples = generate(engine, condition, noise)
    others = [0, 1, 2, 4, 5, 6, 7]
    assert torch.equal(samples[others], expected[others])


@pytest.mark.parametrize("precision", ["float32", "int8"])
@pytest.mark.parametrize("name", ["deep", "gaussian"])
def test_nan_in_weights_and_samples_does_not_leave_the_arrays(name: str, precision: str) -> None:
    model = network(name)
    given, condition, _ = inputs(model, 1, 20)
    given[0, 3] = torch.nan
    assert model.output.bias is not None
    model.output.bias[0] = torch.nan
    engine = make_engine(model, "numba", precision)
    engine.predict(given, condition, engine.initial_state(1))


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_the_given_state_is_left_unchanged(precision: str) -> None:
    model = network("deep")
    engine = make_engine(model, "numba", precision)
    given, condition, noise = inputs(model, 1, 50)
    _, state = engine.generate(given[:, 0], condition, noise, engine.initial_state(1))
    before = [part.clone() for part in state]
    first, second = (engine.generate(given[:, 0], condition, noise, state) for _ in range(2))
    engine.predict(given, condition, state)
    assert torch.equal(first[0], second[0])
    assert all(torch.equal(*parts) for parts in zip(first[1], second[1], strict=True))
    assert all(torch.equal(*parts) for parts in zip(before, state, strict=True))


def test_a_condition_per_frame_equals_the_same_condition_per_sample() -> None:
    model = network("deep")
    per_frame = FrameCondition(torch.randn(2, CONDITION_CHANNELS, 21), torch.rand(2, 30))
    per_sample = per_frame.per_sample()
    assert per_sample.shape == (2, CONDITION_CHANNELS, per_frame.samples) == (2, CONDITION_CHANNELS, 600)
    weights, frames = per_frame.weights, per_frame.frames
    assert torch.allclose(per_sample[:, :, 31], weights[0, 1] * frames[..., 1] + weights[1, 1] * frames[..., 2])
    given, _, _ = inputs(model, 2, 600)
    for engine in (ReferenceEngine(model), make_engine(model, "numba")):
        state = engine.initial_state(2)
        left, right = (engine.predict(given, condition, state)[0] for condition in (per_frame, per_sample))
        assert (left - right).abs().max() < LOGIT_BOUND


def test_arguments_that_do_not_fit_are_refused(messages: Messages) -> None:
    model = network("one-block")
    engine = make_engine(model, "numba")
    given, condition, noise = inputs(model, 1, 10)
    state = engine.initial_state(1)
    with messages.refused(ConfigError):
        engine.generate(given[:, 0], condition, noise, state, temperature=-1)
    with messages.refused(ValueError):
        engine.generate(given[:, 0], condition, noise[..., :9], state)
    with messages.refused(ValueError):
        engine.predict(given[:, :9], condition, state)
    with messages.refused(ValueError):
        engine.predict(given, condition[:, :4], state)
    with messages.refused(ValueError):
        engine.predict(given, condition, state, prediction=prediction(network("predicted"), 1, 16))
    for other in (ReferenceEngine(model), make_engine(network("deep"), "numba")):
        with messages.refused(StreamingError):
            engine.predict(given, condition, other.initial_state(1))
        with messages.refused(StreamingError):
            ReferenceEngine(network("gaussian")).predict(given, condition, other.initial_state(1))
