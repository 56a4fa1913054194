"""Models of what listeners hear: PESQ, STOI and extended STOI, each by the package that is known for it."""

import contextlib
import math
import warnings
from collections.abc import Iterator

import numpy as np

from wavegen.evaluation.metrics.base import COMMON_RATE_HZ, Pair, Undefined

STOI_SHORTEST_S = 0.4
PESQ_SHORTEST_S = 0.25
# The pesq package has room for 50 utterances and writes beyond it without a check; an utterance and the pause after
# it last at least 0.2 s each, so that a piece of 20 s cannot hold more.
PESQ_LONGEST_S = 20.0


def pesq_wideband(pair: Pair) -> float:
    """Wideband PESQ as MOS-LQO, after resampling to 16 kHz (ITU-T P.862.2; the pesq package).

    Clips longer than 20 s are scored in equal pieces, whose mean is given; a piece in which the reference is silent
    does not count. Needs 0.25 s, and an utterance in both; an output that is silent in a whole piece has no score.
    """
    from pesq import PesqError, pesq

    pair.require_seconds(PESQ_SHORTEST_S)
    pair.require_sound(generated=True)
    both = pair.at_common_rate
    pieces = math.ceil(len(both[0]) / (PESQ_LONGEST_S * COMMON_RATE_HZ))
    scores, reason = [], "silence"
    for reference, generated in zip(*(np.array_split(samples, pieces) for samples in both), strict=True):
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
    """Short-time objective intelligibility, a mean correlation of envelopes (Taal et al., 2011; the pystoi package).

    Needs 0.4 s of the reference within 40 dB of its loudest part.
    """
    return _stoi(pair, extended=False)


def extended_stoi(pair: Pair) -> float:
    """Extended STOI, which also correlates across bands (Jensen and Taal, 2016; the pystoi package).

    Needs 0.4 s of the reference within 40 dB of its loudest part, and an output that is not silence.
    """
    pair.require_sound(generated=True)  # of silence, pystoi's answer is that of the noise it adds
    return _stoi(pair, extended=True)


def _stoi(pair: Pair, *, extended: bool) -> float:
    from pystoi import stoi as pystoi

    pair.require_seconds(STOI_SHORTEST_S)
    pair.require_sound()
    with warnings.catch_warnings(), _fixed_random_numbers():
        # pystoi warns and returns a made-up 1e-5, which would pull a mean down.
        warnings.filterwarnings("error", "Not enough STFT frames", RuntimeWarning)
        try:
            return float(pystoi(pair.reference, pair.generated, pair.sample_rate_hz, extended=extended))
        except RuntimeWarning:
            raise Undefined("too little speech once silence is removed") from None


@contextlib.contextmanager
def _fixed_random_numbers() -> Iterator[None]:
    """Pystoi adds noise near zero from numpy's global generator: here the same each time, and nobody else's changed."""
    before = np.random.get_state()  # noqa: NPY002
    np.random.seed(0)  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(before)  # noqa: NPY002
