"""Weights and stream states on disk: safetensors with a JSON header. Nothing is ever unpickled."""

from wavegen.checkpoint.finding import (
    CHECKPOINT,
    CHECKPOINTS,
    DEFAULT,
    DEFAULT_VOICE,
    MODEL,
    find_model,
    list_checkpoints,
)
from wavegen.checkpoint.loading import (
    EMA,
    WEIGHTS,
    build_network,
    load_model,
    load_vocoder,
    load_weights,
    network_header,
    vocoder_header,
)
from wavegen.checkpoint.stream_states import Nested, load_state, save_state
from wavegen.checkpoint.tensor_files import load_checkpoint, read_header, save_checkpoint

__all__ = [
    "CHECKPOINT",
    "CHECKPOINTS",
    "DEFAULT",
    "DEFAULT_VOICE",
    "EMA",
    "MODEL",
    "WEIGHTS",
    "Nested",
    "build_network",
    "find_model",
    "list_checkpoints",
    "load_checkpoint",
    "load_model",
    "load_state",
    "load_vocoder",
    "load_weights",
    "network_header",
    "read_header",
    "save_checkpoint",
    "save_state",
    "vocoder_header",
]
