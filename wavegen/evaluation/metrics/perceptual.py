"""Models of perceived quality and intelligibility: PESQ, STOI and extended STOI, by their best-known packages."""

import contextlib
import math
import warnings
from collections.abc import Iterator

import numpy as np

from wavegen.evaluation.metrics.base import COMMON_RATE_HZ, Pair, Undefined

STOI_SHORTEST_S = 0.4
PESQ_SHORTEST_S = 0.25
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
