"""How long an engine is kept: never longer than the weights that it was built from."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from support.engines import CHOICES
from support.vocoders import SPEC, tiny_vocoder
from torch import Tensor, nn

from wavegen.engines import EngineCache
from wavegen.vocoders import Vocoder


def copied_weights(network: nn.Linear, name: str, precision: str) -> Tensor:
    """An engine that is nothing but a copy of the weights."""
    return network.weight.detach().clone()


def kept(network: nn.Module) -> EngineCache[Tensor]:
    """A cache that keeps the engine of this network."""
    cache = EngineCache(copied_weights)
    cache.keep()
    assert cache.engine(network.requires_grad_(False)) is cache.engine(network)
    return cache


def test_an_engine_is_not_kept_before_the_network_is_prepared() -> None:
    cache, network = EngineCache(copied_weights), nn.Linear(3, 2).requires_grad_(False)
    assert cache.engine(network) is not cache.engine(network)


def test_an_engine_is_not_kept_while_weights_are_trained() -> None:
    network = nn.Linear(3, 2)
    cache = kept(network)
    network.requires_grad_(True)
    assert cache.engine(network) is not cache.engine(network)


def test_an_engine_is_not_kept_where_torch_counts_no_writes() -> None:
    with torch.inference_mode():
        cache, network = EngineCache(copied_weights), nn.Linear(3, 2).requires_grad_(False)
    cache.keep()
    assert cache.engine(network) is not cache.engine(network)


def replace_memory(network: nn.Linear) -> None:
    network.weight.data = network.weight.data / 2


@pytest.mark.parametrize(
    "change",
    [
        lambda network: network.weight.mul_(0.5),
        lambda network: network.load_state_dict(nn.Linear(3, 2).state_dict()),
        lambda network: setattr(network, "weight", nn.Parameter(network.weight * 2, requires_grad=False)),
        lambda network: network.double(),
        replace_memory,
    ],
    ids=["in place", "load_state_dict", "a new parameter", "another dtype", "other memory"],
)
def test_an_engine_is_built_again_when_weights_have_changed(change: Callable[[nn.Linear], Any]) -> None:
    network = nn.Linear(3, 2)
    cache = kept(network)
    before = cache.engine(network)
    change(network)
    after = cache.engine(network)
    assert after is not before
    assert after.dtype == network.weight.dtype
    assert torch.equal(after, network.weight)
    assert (cache.engine(network) is after) == (not network.weight.requires_grad)


def test_memory_that_is_used_again_is_not_mistaken_for_the_same_weights() -> None:
    network = nn.Linear(300, 200)
    cache = kept(network)
    for _ in range(5):
        cache.engine(network)
        replace_memory(network)
        replace_memory(network)  # could be given the first address, if the cache did not hold that memory
        assert torch.equal(cache.engine(network), network.weight)


def test_another_choice_and_another_preparation_build_another_engine() -> None:
    network = nn.Linear(3, 2).requires_grad_(False)
    cache = kept(network)
    first = cache.engine(network)
    cache.choose("auto", "float32")
    second = cache.engine(network)
    network.weight.data.mul_(0.5)  # a write that torch does not count
    cache.keep()
    assert torch.equal(cache.engine(network), network.weight)
    assert first is not second


def test_copies_and_pickles_start_without_an_engine() -> None:
    network = nn.Linear(3, 2)
    cache = kept(network)
    for twin in (copy.deepcopy(cache), pickle.loads(pickle.dumps(cache))):
        assert twin.engine(network) is not cache.engine(network)
        assert twin.engine(network) is not twin.engine(network)


# ---- the same for vocoders ----------------------------------------------------------------------------------


def mel_of(frames: int) -> Tensor:
    return torch.randn(1, SPEC.n_mels, frames, generator=torch.Generator().manual_seed(0)) - 5


def untouched(vocoder: Vocoder, engine: str) -> Tensor:
    """The sound of a new vocoder with the same weights."""
    twin = tiny_vocoder(vocoder.Config.model_fields["name"].default)
    twin.load_state_dict(vocoder.state_dict())
    twin.use_engine(engine)
    return twin.synthesize(mel_of(4))


def output_of(vocoder: Any) -> Any:
    """A layer whose weights the engine has copied."""
    if hasattr(vocoder, "output"):
        return vocoder.output
    return (vocoder.frame_stack or vocoder.pitch.stack).blocks[0].project


def halve_output(vocoder: Any) -> None:
    output_of(vocoder).weight.data = output_of(vocoder).weight.data / 2


def double_output(vocoder: Any) -> None:
    output_of(vocoder).weight = nn.Parameter(output_of(vocoder).weight * 2)


COUNTED: dict[str, Callable[[Any], Any]] = {
    "in place": lambda vocoder: output_of(vocoder).weight.mul_(0.5),
    "other memory": halve_output,
    "a new parameter": lambda vocoder: setattr(
        output_of(vocoder), "weight", nn.Parameter(output_of(vocoder).weight * 2)
    ),
    "load_state_dict": lambda vocoder: vocoder.load_state_dict(
        {key: 1.3 * value for key, value in vocoder.state_dict().items()}
    ),
}
NOT_COUNTED: dict[str, Callable[[Any], Any]] = {
    "through data": lambda vocoder: output_of(vocoder).bias.data.mul_(1.5),
    "through numpy": lambda vocoder: output_of(vocoder).bias.numpy().__imul__(1.5),
}


@pytest.mark.parametrize("prepared", [False, True])
@pytest.mark.parametrize(("name", "engine"), CHOICES)
@torch.no_grad()
def test_a_vocoders_weights_are_never_stale(name: str, engine: str, prepared: bool) -> None:
    """Before preparation however they change, after it by all changes that torch counts."""
    vocoder = tiny_vocoder(name).eval().requires_grad_(False)
    if prepared:
        vocoder.prepared_for_synthesis()
    vocoder.use_engine(engine)
    before = vocoder.synthesize(mel_of(4))
    for change_name, change in (COUNTED if prepared else COUNTED | NOT_COUNTED).items():
        change(vocoder)
        vocoder.requires_grad_(False)
        after = vocoder.synthesize(mel_of(4))
        assert torch.equal(after, untouched(vocoder, engine)), change_name
        assert not torch.equal(after, before), change_name
        before = after


@pytest.mark.parametrize(("name", "engine"), CHOICES)
@torch.no_grad()
def test_a_copy_of_a_vocoder_has_the_same_choice_and_can_be_trained(name: str, engine: str) -> None:
    vocoder = tiny_vocoder(name).prepared_for_synthesis()
    vocoder.use_engine(engine)
    expected = vocoder.synthesize(mel_of(4))
    for twin in (copy.deepcopy(vocoder), pickle.loads(pickle.dumps(vocoder))):
        assert torch.equal(twin.synthesize(mel_of(4)), expected)
        for parameter in twin.parameters():
            parameter.data.mul_(1.3)  # as some optimisers and EMA weights do
        assert torch.equal(twin.synthesize(mel_of(4)), untouched(twin, engine))
    assert torch.equal(vocoder.synthesize(mel_of(4)), expected)
