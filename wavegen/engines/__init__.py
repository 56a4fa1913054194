"""Engines compute a vocoder's samples. ``torch`` is the reference; all others must give the same samples."""

from wavegen.engines.base import (
    LARGEST_INPUT,
    PITCH_TAPS,
    Engine,
    EngineState,
    FrameCondition,
    Network,
    Prediction,
    reads_classes,
)
from wavegen.engines.cache import EngineCache
from wavegen.engines.choice import (
    AUTOREGRESSIVE_ENGINES,
    PARALLEL_ENGINES,
    check_engine,
    make_engine,
    make_parallel_engine,
)
from wavegen.engines.parallel import PlainTorch, TiledEngine
from wavegen.engines.reference import ReferenceEngine

__all__ = [
    "AUTOREGRESSIVE_ENGINES", "LARGEST_INPUT", "PARALLEL_ENGINES", "PITCH_TAPS", "Engine", "EngineCache", "EngineState",
    "FrameCondition", "Network", "PlainTorch", "Prediction", "ReferenceEngine", "TiledEngine", "check_engine",
    "make_engine", "make_parallel_engine", "reads_classes",
]  # fmt: skip
