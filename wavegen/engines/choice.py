"""Which engine runs a network, and how long one that was built may be kept."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

import torch
from torch import Tensor, nn

from wavegen.engines.autoregressive.packing import Precision
from wavegen.engines.base import Engine, Network
from wavegen.engines.reference import ReferenceEngine
from wavegen.errors import ConfigError

if TYPE_CHECKING:
    from wavegen.engines.autoregressive.compiled import NumbaEngine

EngineName = Literal["auto", "torch", "numba"]
ENGINES, PRECISIONS = get_args(EngineName), get_args(Precision)


def make_engine(network: Network, name: str = "auto", precision: str = "float32") -> Engine:
    """Fold a network's weights, as they are now, into an engine.

    Args:
        network: a WaveNet.
        name: ``"auto"`` for the fastest that can run it here; its ``description`` says why not a faster one.
        precision: of the weights in fast engines: ``"float32"``, or ``"int16"``, which is not exact.

    Raises:
        ConfigError: an unknown name, or an engine asked for by name that cannot run this network here.
    """
    _check_choice(name, precision)
    if name == "torch":
        return ReferenceEngine(network)
    try:
        return _numba_engine()(network, cast(Precision, precision))
    except ConfigError as error:
        fault = error
    if name == "numba":
        raise fault
    engine = ReferenceEngine(network)
    engine.description = f"torch, because {fault}"
    return engine


def _numba_engine() -> "type[NumbaEngine]":
    try:
        from wavegen.engines.autoregressive.compiled import (
            NumbaEngine,  # only now: it takes half a second that others need not wait
        )
    except ImportError as error:
        raise ConfigError(f"numba cannot be imported ({error})", remedy="pip install numba") from error
    return NumbaEngine


def _check_choice(name: str, precision: str) -> None:
    for value, known, where in ((name, ENGINES, "engine"), (precision, PRECISIONS, "precision")):
        if value not in known:
            raise ConfigError(f"unknown {where} {value!r}", where=where, remedy=f"use {' or '.join(known)}")
    if name == "torch" and precision != "float32":
        raise ConfigError(f"the torch engine has no {precision}", where="precision", remedy="use the numba engine")


class EngineHolder:
    """Keeps a network's engine for as long as the weights are those that it was made of.

    Whether they are is decided by comparing all values, which takes less than a millisecond for the usual shapes.
    Nothing cheaper is sound: torch does not count changes made through ``parameter.data``, and memory can be reused.

    Copies and pickles of a holder keep the choice but no engine: the copy's weights are its own.
    """

    def __init__(self, name: str = "auto", precision: str = "float32") -> None:
        _check_choice(name, precision)
        self.name, self.precision = name, precision
        self._engine: Engine | None = None
        self._made_of: list[Tensor] = []

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str, str]]:
        return EngineHolder, (self.name, self.precision)

    @torch.no_grad()
    def engine(self, network: Network) -> Engine:
        """The engine for ``network`` as it is now."""
        weights = _weights(network)
        if self._engine is None or not _same(weights, self._made_of):
            self._engine = make_engine(network, self.name, self.precision)
            self._made_of = [weight.detach().clone() for weight in weights]
        return self._engine


def _weights(network: Network) -> list[Tensor]:
    """All that an engine is made of but for the shape, which a network never changes."""
    parts: tuple[nn.Module, ...] = (network.input, network.stack, network.hidden, network.output)
    return [parameter for part in parts for parameter in part.parameters()]


def _same(weights: list[Tensor], others: list[Tensor]) -> bool:
    return len(weights) == len(others) and all(
        a.dtype == b.dtype and a.device == b.device and torch.equal(a, b) for a, b in zip(weights, others, strict=True)
    )
