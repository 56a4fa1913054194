"""Engines: ways to run an autoregressive vocoder's sample loop. ``torch`` defines what the others must equal."""

from wavegen.engines.base import Engine, HeldCondition, Network
from wavegen.engines.choice import ENGINES, PRECISIONS, EngineHolder, make_engine
from wavegen.engines.reference import ReferenceEngine

__all__ = [
    "ENGINES", "PRECISIONS", "Engine", "EngineHolder", "HeldCondition", "Network", "ReferenceEngine", "make_engine",
]  # fmt: skip
