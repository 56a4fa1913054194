"""How long a vocoder may use an engine, which holds a copy of the weights."""

from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any, Generic, NamedTuple, TypeVar

from torch import Tensor, nn

AnyEngine = TypeVar("AnyEngine")


class EngineCache(Generic[AnyEngine]):
    """Builds a network's engine, and keeps it once the network is prepared for synthesis.

    Before ``keep`` is called, every call of ``engine`` builds an engine from the weights as they are. Nothing cheaper
    is correct while they change: torch counts neither the writes of a replayed CUDA graph nor those through
    ``parameter.data``.

    After ``keep``, the weights are final. Should they change nevertheless, the engine is built again wherever torch
    can tell: after a write that it counts (an optimiser's step, ``load_state_dict``) and when a parameter has moved
    or been replaced. Only writes through ``parameter.data`` or a NumPy view need another ``keep``.

    Copies and pickles contain neither the engine nor ``keep``: a copy may be trained.

    Args:
        make: builds an engine from a network, an engine's name and a precision.
    """

    def __init__(self, make: Callable[[Any, str, str], AnyEngine]) -> None:
        self._make = make
        self._name = "auto"
        self._precision = "float32"
        self._keeping = False
        self._kept: _Kept | None = None

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_keeping": False, "_kept": None}

    def for_another_reader(self) -> "EngineCache[AnyEngine]":
        """An empty cache with the same choice, for a network that shares these weights but not all of its constants."""
        other = EngineCache(self._make)
        other._name, other._precision, other._keeping = self._name, self._precision, self._keeping
        return other

    def choose(self, name: str, precision: str) -> None:
        """Choose the engine that is built from now on."""
        self._name = name
        self._precision = precision
        self._kept = None

    def keep(self) -> None:
        """Keep the engine that is built next: the weights are final."""
        self._keeping = True
        self._kept = None

    def engine(self, network: nn.Module) -> AnyEngine:
        """Return the engine of ``network`` with its current weights."""
        kept = self._kept  # read once: another thread may replace it
        weights = _weights(network)
        if kept is not None and _are_unchanged(weights, kept):
            engine: AnyEngine = kept.engine
            return engine
        may_keep = self._keeping and not any(weight.requires_grad or weight.is_inference() for weight in weights)
        # Versions are read before the weights, so that no write in between is missed.
        versions = list(map(_VERSION, weights)) if may_keep else []
        engine = self._make(network, self._name, self._precision)
        if may_keep:
            self._kept = _Kept(engine, [weight.detach() for weight in weights], list(map(_ADDRESS, weights)), versions)
        return engine


class _Kept(NamedTuple):
    """An engine, and what tells whether the weights have changed since."""

    engine: Any
    memories: list[Tensor]  # detached tensors that share the weights' memory: no other weight gets its address
    addresses: list[int]
    versions: list[int]


_ADDRESS, _VERSION, _REQUIRES_GRAD = Tensor.data_ptr, attrgetter("_version"), attrgetter("requires_grad")


def _weights(network: nn.Module) -> list[Tensor]:
    """All parameters. ``parameters()`` takes ten times as long, because it names them, and a stream asks every step."""
    found: list[Tensor] = []
    modules = [network]
    for module in modules:  # grows on the way
        if module._parameters:
            found += module._parameters.values()  # type: ignore[arg-type]
        if module._modules:
            modules += [child for child in module._modules.values() if child is not None]
    return [weight for weight in found if weight is not None]


def _are_unchanged(weights: Sequence[Tensor], kept: "_Kept") -> bool:
    # ``map`` compares a hundred weights in the time in which a loop compares thirty.
    return (
        len(weights) == len(kept.memories)
        and list(map(_ADDRESS, weights)) == kept.addresses
        and list(map(_VERSION, weights)) == kept.versions
        and not any(map(_REQUIRES_GRAD, weights))
    )
