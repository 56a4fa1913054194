"""Engines: ways to run an autoregressive vocoder's sample loop. ``reference`` defines what the others must equal."""

from wavegen.engines.base import Engine
from wavegen.engines.reference import ReferenceEngine

__all__ = ["Engine", "ReferenceEngine"]
