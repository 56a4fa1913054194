"""Predictors of opinion: networks that rate a sound alone, without the recording that it should sound like."""

import contextlib
import io
import math
from functools import lru_cache

import numpy as np
import torch
from torch import nn

from wavegen.evaluation.metrics.base import Pair, import_quietly
from wavegen.progress import one_torch_thread

SHORTEST_S = 1.0
"""Shorter sounds are mostly the silence that a predictor pads them with."""

DISTILLMOS_WINDOW = 122880  # samples at 16 kHz, 7.68 s
DISTILLMOS_LARGEST_HOP = 16000


def distillmos(pair: Pair) -> float:
    """Mean opinion score that a network predicts for the output (Stahl and Gamper, 2025; the distillmos package).

    The network reads windows of 7.68 s at 16 kHz, whose scores are averaged; those of a longer sound begin at most 1 s
    apart. A shorter sound is padded with silence, which lowers its score: clean speech of 4 s scores about 4.2, of 1 s
    about 3. So compare with the score of the recording, which is as long. Not defined below 1 s, or if the output is
    silence.
    """
    pair.require_seconds(SHORTEST_S)
    pair.require_sound(reference=False, generated=True)
    samples = torch.from_numpy(pair.generated_at_common_rate)
    excess = max(0, len(samples) - DISTILLMOS_WINDOW)
    samples = nn.functional.pad(samples, (0, max(0, DISTILLMOS_WINDOW - len(samples))))
    hops = math.ceil(excess / DISTILLMOS_LARGEST_HOP)
    starts = [int(share * excess) for share in np.linspace(0, 1, hops + 1)]
    network = _distillmos_network()
    # The package would compute all windows of a sound in one batch, whose memory grows with its length.
    with torch.inference_mode(), one_torch_thread():
        scores = [float(network(samples[None, start : start + DISTILLMOS_WINDOW])) for start in starts]
    return float(np.mean(scores))


@lru_cache(maxsize=1)
def _distillmos_network() -> nn.Module:
    """The network with its weights, which the package contains."""
    package = import_quietly("distillmos")
    # Building it draws random weights, which must not change a training, and loading it prints a line.
    with torch.random.fork_rng(devices=[]), contextlib.redirect_stdout(io.StringIO()):
        network: nn.Module = package.ConvTransformerSQAModel(segmenting_in_forward=False)
    return network.eval()
