"""Predictors of opinion: networks that rate a sound alone, without the recording that it should sound like."""

import contextlib
import io
import math
from functools import lru_cache
from importlib.resources import files
from typing import Any

import numpy as np
import torch
from torch import nn

from wavegen.evaluation.metrics.base import COMMON_RATE_HZ, Pair, import_quietly
from wavegen.mel import MelSpec
from wavegen.progress import one_torch_thread

SHORTEST_S = 1.0
"""Shorter sounds are mostly the silence that a predictor pads them with."""

DISTILLMOS_WINDOW = 122880  # samples at 16 kHz, 7.68 s
DISTILLMOS_LARGEST_HOP = 16000

DNSMOS_WINDOW = 144160  # samples at 16 kHz, 9.01 s
DNSMOS_RANGE_DB = 80.0
DNSMOS_SPEC = MelSpec(
    sample_rate_hz=COMMON_RATE_HZ, n_fft=321, win_length=321, hop_length=160, n_mels=120, f_min_hz=0, f_max_hz=8000,
    scale="slaney", norm="slaney", log="ln", floor=1e-10, center=True,
)  # fmt: skip


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


def dnsmos(pair: Pair) -> float:
    """Mean opinion score that DNSMOS P.808 predicts for the output (Reddy et al., 2021; weights of speechmos).

    The network reads windows of 9.01 s at 16 kHz, one a second, whose scores are averaged; a shorter sound is repeated
    first. It was trained on noisy and denoised speech. Not defined below 1 s, or if the output is silence.
    """
    pair.require_seconds(SHORTEST_S)
    pair.require_sound(reference=False, generated=True)
    samples = pair.generated_at_common_rate
    while len(samples) < DNSMOS_WINDOW:
        samples = np.concatenate([samples, samples])
    windows = max(1, len(samples) // COMMON_RATE_HZ - DNSMOS_WINDOW // COMMON_RATE_HZ)
    session = _dnsmos_session()
    scores = []
    with one_torch_thread():
        for start in range(0, windows * COMMON_RATE_HZ, COMMON_RATE_HZ):
            features = _dnsmos_features(samples[start : start + DNSMOS_WINDOW])
            scores.append(session.run(None, {"input_1": features})[0].item())
    return float(np.mean(scores))


def _dnsmos_features(samples: np.ndarray) -> np.ndarray:
    """Mel power spectrum ``[1, frames, 120]`` of a window, from -1 at 80 dB below its loudest value to 1 at that value.

    The package computes the same with librosa, which it does not require, and a second network with it, in twenty times
    the time.
    """
    spectrum = torch.stft(
        torch.from_numpy(samples[: -DNSMOS_SPEC.hop_length]), DNSMOS_SPEC.n_fft, DNSMOS_SPEC.hop_length,
        window=torch.hann_window(DNSMOS_SPEC.n_fft), pad_mode="constant", return_complex=True,
    )  # fmt: skip
    filters = torch.tensor(DNSMOS_SPEC.filterbank(), dtype=torch.float32)
    power = filters @ (spectrum.real.square() + spectrum.imag.square())
    level_db = 10 * power.clamp(min=DNSMOS_SPEC.floor).log10()
    level_db = (level_db - level_db.max()).clamp(min=-DNSMOS_RANGE_DB)
    return (1 + level_db / (DNSMOS_RANGE_DB / 2)).T[None].numpy()


@lru_cache(maxsize=1)
def _dnsmos_session() -> Any:
    """The network, from the package's file. It runs in one thread, as all scoring does."""
    runtime = import_quietly("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    file = files("speechmos") / "dnsmos_models" / "model_v8.onnx"
    return runtime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
