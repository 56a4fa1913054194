"""Vocoders of every kind that streams differently, ready for synthesis."""

import torch

from support.vocoders import tiny_vocoder
from wavegen.vocoders import Vocoder

VOCODERS = {
    "source-filter": ("source-filter", {}),
    "spectral-same": ("spectral", {"padding": "same"}),
    "spectral-causal": ("spectral", {"padding": "causal"}),
    "spectral-causal-without-iterations": (
        "spectral",
        {"padding": "causal", "refinement_iterations": 0, "synthesis_iterations": 0},
    ),
    "wavenet-mu-law": ("wavenet", {}),
    "wavenet-gaussian": ("wavenet", {"output": "gaussian"}),
    "parallel-same": ("parallel", {"padding": "same"}),
    "parallel-causal-native": ("parallel", {"padding": "causal"}),
}


def ready(name: str, dtype: torch.dtype = torch.float32) -> Vocoder:
    kind, changes = VOCODERS[name]
    return tiny_vocoder(kind, **changes).to(dtype).prepared_for_synthesis()
