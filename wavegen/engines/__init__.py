"""Engines compute a vocoder's samples. ``torch`` is the reference; all others must give the same samples."""

from wavegen.engines.base import (
    LARGEST_INPUT,
    PITCH_TAPS,
    Engine,
    EngineState,
    FrameCondition,
    Network,
    Prediction,
    SourcedNetwork,
    reads_classes,
)
from wavegen.engines.cache import EngineCache
from wavegen.engines.choice import (
    AUTOREGRESSIVE_ENGINES,
    PARALLEL_ENGINES,
    SPECTRAL_ENGINES,
    check_engine,
    make_engine,
    make_parallel_engine,
    make_spectral_engine,
)
from wavegen.engines.parallel import PlainTorch, TiledEngine
from wavegen.engines.reference import ReferenceEngine

__all__ = [
    "AUTOREGRESSIVE_ENGINES", "LARGEST_INPUT", "PARALLEL_ENGINES", "PITCH_TAPS", "SPECTRAL_ENGINES", "Engine",
    "EngineCache", "EngineState", "FrameCondition", "Network", "PlainTorch", "Prediction", "ReferenceEngine",
    "SourcedNetwork", "TiledEngine", "check_engine", "make_engine", "make_parallel_engine", "make_spectral_engine",
    "reads_classes",
]  # fmt: skip
