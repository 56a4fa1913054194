"""Which engine computes a vocoder's samples here."""

import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, cast

from wavegen.config import did_you_mean
from wavegen.engines.base import Engine, Network, SourcedNetwork
from wavegen.engines.packed.arena import Precision
from wavegen.engines.parallel import ParallelNetwork, PlainTorch, TiledEngine
from wavegen.engines.reference import ReferenceEngine
from wavegen.errors import ConfigError
from wavegen.source.compiled import may_be_on_disk

if TYPE_CHECKING:
    from wavegen.engines.spectral.chain import CompiledChain
    from wavegen.engines.spectral.products import RowPrecision

AnyEngine = TypeVar("AnyEngine")

_NOT_COMPILED = "the numba engine has not been compiled on this machine yet; choosing it by name compiles it"

AUTOREGRESSIVE_ENGINES: Mapping[str, tuple[str, ...]] = {"torch": ("float32",), "numba": ("float32", "int16", "int8")}
"""Engines of a WaveNet, each with the precisions that its weights can have."""
PARALLEL_ENGINES: Mapping[str, tuple[str, ...]] = {"torch": ("float32",), "tiled": ("float32",)}
"""Engines of a parallel WaveNet; both compute in the model's own precision."""
SPECTRAL_ENGINES: Mapping[str, tuple[str, ...]] = {"torch": ("float32",), "numba": ("float32", "bfloat16", "int8")}
"""Engines of vocoders at frame rate with a source stage; torch computes in the model's own precision."""


def check_engine(engines: Mapping[str, tuple[str, ...]], name: str, precision: str) -> None:
    """Check a choice of engine.

    Args:
        engines: the possible engines, each with its precisions.
        name: one of them, or ``"auto"`` for any.
        precision: precision of the engine's weights.

    Raises:
        ConfigError: the engine is unknown, or it does not have the precision.
    """
    if name != "auto" and name not in engines:
        raise ConfigError(
            f"this vocoder has no engine {name!r}", where="engine", remedy=did_you_mean(name, ["auto", *engines])
        )
    precisions = {known for engine in engines for known in engines[engine] if name in ("auto", engine)}
    if precision not in precisions:
        owner = "this vocoder" if name == "auto" else f"the {name} engine"
        raise ConfigError(
            f"{owner} has no precision {precision!r}",
            where="precision",
            remedy=did_you_mean(precision, precisions),
        )


def make_engine(network: Network, name: str = "auto", precision: str = "float32") -> Engine:
    """Fold a WaveNet's current weights into an engine.

    Args:
        network: a WaveNet.
        name: ``"torch"``, ``"numba"``, or ``"auto"`` for the fastest that runs it here; the ``description`` of an
            engine that ``"auto"`` chose says why a faster one was not possible.
        precision: precision of the numba engine's weights: ``"float32"``, or ``"int16"`` and ``"int8"``, which are not
            exact. When ``"auto"`` falls back to torch, the weights keep the model's precision.

    Raises:
        ConfigError: the engine is unknown, or it was chosen by name and cannot run this network here.
    """
    check_engine(AUTOREGRESSIVE_ENGINES, name, precision)
    if name == "torch":
        return ReferenceEngine(network)
    try:
        return _with_numba(lambda: _make_numba_engine(network, cast(Precision, precision)))
    except ConfigError as error:
        if name == "numba":
            raise
        reason = error.what
    engine = ReferenceEngine(network)
    engine.description = f"torch, because {reason}"
    return engine


def make_parallel_engine(
    network: ParallelNetwork, name: str = "auto", precision: str = "float32"
) -> TiledEngine | PlainTorch:
    """Fold a parallel WaveNet's current weights into the tiled engine, or return the choice of plain torch.

    Args:
        network: a parallel WaveNet.
        name: ``"torch"``, ``"tiled"``, or ``"auto"`` for the fastest that runs it here: tiled on a CPU.
        precision: ``"float32"``, the only one.

    Raises:
        ConfigError: the engine is unknown, or it was chosen by name and cannot run this network here.
    """
    check_engine(PARALLEL_ENGINES, name, precision)
    obstacle = None if name == "torch" else TiledEngine.obstacle(network)
    if name == "tiled" and obstacle is not None:
        raise ConfigError(obstacle, where="engine", remedy="use the torch engine")
    if name != "torch" and obstacle is None:
        return TiledEngine(network)
    # On a GPU, torch is the fastest engine, which needs no reason.
    if obstacle is None or network.output.weight.device.type != "cpu":
        return PlainTorch()
    return PlainTorch(f"torch, because {obstacle}")


def make_spectral_engine(
    network: SourcedNetwork, name: str = "auto", precision: str = "float32"
) -> "CompiledChain | PlainTorch":
    """Fold the current weights of a vocoder with a source stage into the numba engine, or return plain torch.

    Args:
        network: the vocoder.
        name: ``"torch"``, ``"numba"``, or ``"auto"`` for numba on a CPU if its code has been compiled before: compiling
            takes as long as minutes of sound.
        precision: precision of the numba engine's matrix products: ``"float32"``, or ``"bfloat16"`` and ``"int8"``,
            which are not exact. When ``"auto"`` falls back to torch, the weights keep the model's precision.

    Raises:
        ConfigError: the engine is unknown, or it was chosen by name and cannot run this network here.
    """
    check_engine(SPECTRAL_ENGINES, name, precision)
    # On a GPU, torch is the fastest engine, which needs no reason.
    if name == "torch" or (name == "auto" and next(network.parameters()).device.type != "cpu"):
        return PlainTorch()
    try:
        if name == "auto" and not may_be_on_disk(str(Path(__file__).parent / "spectral" / "functions.py")):
            raise ConfigError(_NOT_COMPILED)
        return _with_numba(lambda: _make_compiled_chain(network, precision, compile_now=name == "numba"))
    except ConfigError as error:
        if name == "numba":
            raise
        return PlainTorch(f"torch, because {error.what}")


def _make_compiled_chain(network: SourcedNetwork, precision: str, *, compile_now: bool) -> "CompiledChain":
    from wavegen.engines.spectral.chain import CompiledChain
    from wavegen.engines.spectral.functions import FUNCTIONS

    if not compile_now and not FUNCTIONS.is_ready():
        raise ConfigError(_NOT_COMPILED)
    return CompiledChain(network, cast("RowPrecision", precision))


def _make_numba_engine(network: Network, precision: Precision) -> Engine:
    """Build the numba engine of a WaveNet."""
    from wavegen.engines.autoregressive.compiled import NumbaEngine

    return NumbaEngine(network, precision)


def _with_numba(make: Callable[[], AnyEngine]) -> AnyEngine:
    """Build an engine that needs numba. Raises ConfigError, whatever fails on the way."""
    try:
        # Imported here, because numba takes half a second to load.
        import numba

        if numba.config.DISABLE_JIT:
            raise ConfigError(
                "numba compiles nothing while NUMBA_DISABLE_JIT is set",
                where="engine",
                remedy="unset NUMBA_DISABLE_JIT",
            )
        return make()
    except ConfigError:
        raise
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"numba cannot be imported ({_in_short(error)})", where="engine", remedy="pip install numba"
        ) from error
    except Exception as error:  # the engine uses internals of numba, which differ between its releases
        raise ConfigError(
            f"the numba engine cannot be loaded ({type(error).__name__}: {_in_short(error)})",
            where="engine",
            remedy="use the torch engine, or the version of numba that wavegen is tested with",
        ) from error


def _in_short(error: Exception) -> str:
    return textwrap.shorten(str(error), 160, placeholder=" …")
