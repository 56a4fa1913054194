"""Models of perceived quality and intelligibility: PESQ, ViSQOL, STOI and extended STOI, by well-known packages."""

import contextlib
import math
import warnings
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np

from wavegen.evaluation.metrics.base import COMMON_RATE_HZ, Pair, Undefined, import_quietly
from wavegen.progress import one_torch_thread

STOI_SHORTEST_S = 0.4
PESQ_SHORTEST_S = 0.25
VISQOL_SHORTEST_S = 1.0
# The pesq package has room for 50 utterances and writes beyond that without a check. An utterance and the pause after
# it last at least 0.2 s each, so a chunk of 20 s cannot hold more.
PESQ_LONGEST_S = 20.0


def pesq_wideband(pair: Pair) -> float:
    """Wideband PESQ as MOS-LQO, after resampling to 16 kHz (ITU-T P.862.2; the pesq package).

    Clips longer than 20 s are scored in equal chunks and averaged, without the chunks in which the reference is silent.
    Not defined below 0.25 s, if either sound has no utterance, or if the output is silent in a whole chunk.
    """
    from pesq import PesqError, pesq

    pair.require_seconds(PESQ_SHORTEST_S)
    pair.require_sound(generated=True)
    waveforms = pair.at_common_rate
    chunks = math.ceil(len(waveforms[0]) / (PESQ_LONGEST_S * COMMON_RATE_HZ))
    scores = []
    reason = "silence"
    for reference, generated in zip(*(np.array_split(samples, chunks) for samples in waveforms), strict=True):
        if not reference.any():
            continue
        if not generated.any():
            raise Undefined(f"the output is silent for {len(generated) / COMMON_RATE_HZ:.0f} s")
        try:
            scores.append(float(pesq(COMMON_RATE_HZ, reference, generated, "wb")))
        except PesqError as error:
            reason = error.args[0].decode() if isinstance(error.args[0], bytes) else str(error)
    if not scores:
        raise Undefined(reason)
    return float(np.mean(scores))


@contextlib.contextmanager
def _one_numba_thread() -> Iterator[None]:
    """Let numba use one thread inside the block: clips are scored in parallel already."""
    import numba

    threads = numba.get_num_threads()
    numba.set_num_threads(1)
    try:
        yield
    finally:
        numba.set_num_threads(threads)


def visqol(pair: Pair) -> float:
    """ViSQOL v3 for speech as MOS-LQO, after resampling to 16 kHz (Chinen et al., 2020; the visqol-python package).

    It compares spectrograms in patches of 0.4 s that it aligns first, so it hears little of the phase. Their similarity
    is mapped to 1 to 5 by the polynomial of ViSQOL, where equal sounds score 5; scores of its lattice network, which
    needs another package, are lower. Not defined below 1 s.
    """
    pair.require_seconds(VISQOL_SHORTEST_S)
    pair.require_sound(generated=True)
    reference, generated = (samples.astype(np.float64) for samples in pair.at_common_rate)
    # When numba starts its threads, torch gets as many from then on, and a training that listens would round otherwise.
    with one_torch_thread(), _one_numba_thread():
        try:
            score = _visqol().measure_from_arrays(reference, generated, COMMON_RATE_HZ).moslqo
        except IndexError:  # nothing to compare: not one patch
            raise Undefined("too little speech") from None
    if not math.isfinite(score):
        raise Undefined("ViSQOL is not a number")
    return float(score)


@lru_cache(maxsize=1)
def _visqol() -> Any:
    api = import_quietly("visqol").VisqolApi()
    api.create(mode="speech", use_lattice_model=False)  # otherwise scores would depend on what else is installed
    return api


def stoi(pair: Pair) -> float:
    """Short-time objective intelligibility: a mean correlation of envelopes (Taal et al., 2011; the pystoi package).

    Needs 0.4 s of the reference within 40 dB of its loudest part.
    """
    return _stoi(pair, extended=False)


def extended_stoi(pair: Pair) -> float:
    """Extended STOI, which also correlates across bands (Jensen and Taal, 2016; the pystoi package).

    Needs 0.4 s of the reference within 40 dB of its loudest part, and an output that is not silent.
    """
    pair.require_sound(generated=True)  # for a silent output, pystoi would score the noise that it adds
    return _stoi(pair, extended=True)


def _stoi(pair: Pair, *, extended: bool) -> float:
    from pystoi import stoi as pystoi

    pair.require_seconds(STOI_SHORTEST_S)
    pair.require_sound()
    with warnings.catch_warnings(), _fixed_random_numbers():
        # pystoi warns and returns 1e-5 instead of a score, which would lower the mean.
        warnings.filterwarnings("error", "Not enough STFT frames", RuntimeWarning)
        try:
            return float(pystoi(pair.reference, pair.generated, pair.sample_rate_hz, extended=extended))
        except RuntimeWarning:
            raise Undefined("too little speech once silence is removed") from None


@contextlib.contextmanager
def _fixed_random_numbers() -> Iterator[None]:
    """Seed numpy's global generator, from which pystoi draws tiny noise, and restore its state afterwards."""
    before = np.random.get_state()  # noqa: NPY002
    np.random.seed(0)  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(before)  # noqa: NPY002
