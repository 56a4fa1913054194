"""What the listeners of blind tests said: files that the listening page saved, summed up with intervals."""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from wavegen.errors import DataError

SCREENED_BELOW, SCREENED_SHARE = 90, 0.15
"""ITU-R BS.1534-3, 4.1.2: a listener who rates the hidden reference below 90 in more than 15 % of the items is left
out."""

RESAMPLES = 2000
_LARGEST_BYTES = 50_000_000


class _Saved(BaseModel):
    """What a page may write: later versions may add keys, but not change these."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class _Page(_Saved):
    id: str
    title: str = ""


class _Rating(_Saved):
    system: str
    role: Literal["system", "reference", "anchor"]
    rating: Annotated[float, Field(ge=0, le=100)]


class _RatedClip(_Saved):
    clip: str
    ratings: Annotated[list[_Rating], Field(min_length=1)]


class _AbxTrial(_Saved):
    clip: str
    a: str
    b: str
    x: Literal["a", "b"]
    answer: Literal["a", "b"]


class _Test(_Saved):
    format: Literal["wavegen-ratings"]
    version: Literal[1]
    page: _Page
    listener: str = ""
    seed: int


class _RatingTest(_Test):
    kind: Literal["rating"]
    trials: Annotated[list[_RatedClip], Field(min_length=1)]


class _AbxTest(_Test):
    kind: Literal["abx"]
    systems: tuple[str, str]
    trials: Annotated[list[_AbxTrial], Field(min_length=1)]


_FILE: TypeAdapter[_RatingTest | _AbxTest] = TypeAdapter(Annotated[_RatingTest | _AbxTest, Field(discriminator="kind")])


@dataclass(frozen=True)
class _Answer:
    """One rating, of one clip by one listener."""

    listener: str
    clip: str
    role: str
    system: str
    rating: float


def summarize_ratings(paths: Sequence[Path]) -> str:
    """Tables of all tests in ``paths``, as text: mean ratings of each system, and counts of each ABX pair.

    Ratings come with 95 % intervals of a bootstrap over listeners and over clips at once (Owen, 2007, "The pigeonhole
    bootstrap"), so that they hold for other listeners and other clips, as far as there are several of each. ABX comes
    with the one-sided exact binomial test and the interval of Wilson (1927). Files with the same name of a listener are
    one listener; each nameless file is one of its own. A test that is given twice counts once.

    Raises:
        DataError: a file cannot be read, or is not one that the page saved; or there is none.
    """
    tests: dict[tuple[str, int, str], _RatingTest | _AbxTest] = {}
    repeated = 0
    for path in paths:
        test = _read(Path(path))
        key = (test.page.id, test.seed, test.kind)
        repeated += key in tests
        tests[key] = test
    if not tests:
        raise DataError("no rating files were given", remedy="give the files that listeners saved on the page")
    rated = [test for test in tests.values() if isinstance(test, _RatingTest)]
    compared = [test for test in tests.values() if isinstance(test, _AbxTest)]
    parts = [*(_rating_part(rated) if rated else []), *(_abx_part(compared) if compared else [])]
    notes = []
    if repeated:
        notes.append(f"{_count(repeated, 'file')} given twice, counted once")
    if len({test.page.id for test in tests.values()}) > 1:
        notes.append("the files are of different pages: " + ", ".join(sorted({t.page.id for t in tests.values()})))
    return "\n\n".join([*parts, *(["\n".join(notes)] if notes else [])])


def _read(path: Path) -> _RatingTest | _AbxTest:
    remedy = "give a file that “Save the results” of a listening page wrote"
    try:
        if path.stat().st_size > _LARGEST_BYTES:
            raise DataError("is far too large for ratings", where=path, remedy=remedy)
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror or error}", where=path, remedy=remedy) from error
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError and JSONDecodeError are among the first
        raise DataError("is not JSON", where=path, remedy=remedy) from error
    if isinstance(data, dict) and data.get("format") == "wavegen-ratings" and data.get("version", 1) != 1:
        version = f"{data['version']!r:.40}"
        raise DataError(f"has version {version} of the format, not 1", where=path, remedy="use a newer wavegen")
    try:
        return _FILE.validate_python(data)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, fault["loc"][1:]))  # the first is the kind
        what = f"holds no ratings ({place + ': ' if place else ''}{fault['msg']})"
        raise DataError(what, where=path, remedy=remedy) from error


# ---- ratings


def _rating_part(tests: Sequence[_RatingTest]) -> list[str]:
    names = _listeners(tests)
    answers = [
        _Answer(name, trial.clip, rating.role, rating.system, rating.rating)
        for name, test in zip(names, tests, strict=True)
        for trial in test.trials
        for rating in trial.ratings
    ]
    screened = _screened(answers)
    parts = [_rating_table("Ratings, 0 to 100", answers)]
    if screened:
        lines = [f"{name} rated the hidden reference below {SCREENED_BELOW} in {share}" for name, share in screened]
        lines.append(f"BS.1534-3 leaves out who does so in more than {SCREENED_SHARE:.0%} of the clips.")
        parts.append("\n".join(lines))
        kept = [answer for answer in answers if answer.listener not in dict(screened)]
        if kept:
            parts.append(_rating_table("Ratings without them", kept))
    return parts


def _rating_table(title: str, answers: Sequence[_Answer]) -> str:
    listeners, clips = (len({getattr(a, part) for a in answers}) for part in ("listener", "clip"))
    rows = []
    for role, system in dict.fromkeys((answer.role, answer.system) for answer in answers):
        own = [answer for answer in answers if (answer.role, answer.system) == (role, system)]
        mean = float(np.mean([answer.rating for answer in own]))
        name = f"{system} (hidden reference)" if role == "reference" else system
        rows.append((mean, [name, f"{mean:.1f}", _rating_interval(own), str(len(own))]))
    rows.sort(key=lambda row: -row[0])
    table = _aligned([["", "mean", "95 % interval", "ratings"], *(cells for _, cells in rows)])
    return f"{title}: {_count(listeners, 'listener')}, {_count(clips, 'clip')}\n{table}"


def _rating_interval(answers: Sequence[_Answer]) -> str:
    """Percentiles of means in which listeners and clips are each drawn anew with replacement."""
    who, listener = np.unique([answer.listener for answer in answers], return_inverse=True)
    what, clip = np.unique([answer.clip for answer in answers], return_inverse=True)
    if len(who) == len(what) == 1:
        return "-"
    ratings = np.array([answer.rating for answer in answers])
    random = np.random.default_rng(0)
    of_listener, of_clip = (random.multinomial(n, np.full(n, 1 / n), RESAMPLES) for n in (len(who), len(what)))
    weights = of_listener[:, listener] * of_clip[:, clip]
    total = weights.sum(axis=1)
    means = (weights @ ratings)[total > 0] / total[total > 0]  # where nobody drawn heard any clip drawn, there is none
    low, high = np.percentile(means, [2.5, 97.5])
    return f"{low:.1f} to {high:.1f}"


def _screened(answers: Sequence[_Answer]) -> list[tuple[str, str]]:
    """Listeners to be left out, and in how many clips they missed the hidden reference."""
    found = []
    for listener in dict.fromkeys(answer.listener for answer in answers):
        references = [a.rating for a in answers if a.listener == listener and a.role == "reference"]
        low = sum(rating < SCREENED_BELOW for rating in references)
        if low > SCREENED_SHARE * len(references):
            found.append((listener, f"{low} of {_count(len(references), 'clip')}"))
    return found


# ---- ABX


def _abx_part(tests: Sequence[_AbxTest]) -> list[str]:
    names = _listeners(tests)
    pairs: dict[frozenset[str], list[tuple[str, bool]]] = {}
    titles: dict[frozenset[str], str] = {}
    for name, test in zip(names, tests, strict=True):
        pair = frozenset(test.systems)
        titles.setdefault(pair, " against ".join(test.systems))
        pairs.setdefault(pair, []).extend((name, trial.x == trial.answer) for trial in test.trials)
    parts = []
    for pair, answers in pairs.items():
        rows = [["", "right", "trials", "share", "95 % interval", "p"]]
        listeners = list(dict.fromkeys(name for name, _ in answers))
        rows += [_abx_row(one, [right for name, right in answers if name == one]) for one in listeners]
        if len(listeners) > 1:
            rows.append(_abx_row("all", [right for _, right in answers]))
        parts.append(f"ABX, {titles[pair]}\n{_aligned(rows)}")
    return [*parts, "p: probability of as many right answers or more by guessing"]


def _abx_row(name: str, answers: Sequence[bool]) -> list[str]:
    right, trials = sum(answers), len(answers)
    low, high = wilson_interval(right, trials)
    p = chance_of_at_least(right, trials)
    share = f"{right / trials:.0%}"
    return [name, str(right), str(trials), share, f"{low:.0%} to {high:.0%}", "<0.001" if p < 0.001 else f"{p:.3f}"]


def chance_of_at_least(right: int, trials: int) -> float:
    """Probability of ``right`` or more of ``trials`` by guessing between two: the one-sided exact binomial test."""
    return sum(math.comb(trials, k) for k in range(right, trials + 1)) / 2**trials


def wilson_interval(right: int, trials: int) -> tuple[float, float]:
    """95 % interval of a share (Wilson, 1927); unlike ± 1.96 standard errors it stays within 0 and 1."""
    z = 1.959964
    share = right / trials
    middle = share + z**2 / (2 * trials)
    half = z * math.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2))
    scale = 1 + z**2 / trials
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)


# ---- text


def _listeners(tests: Iterable[Any]) -> list[str]:
    """A name for the listener of each test."""
    names = ("".join(filter(str.isprintable, test.listener)).strip() for test in tests)  # these files come by mail
    return [name or f"listener {number}" for number, name in enumerate(names, start=1)]


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)


def _count(number: int, one: str) -> str:
    return f"{number} {one}" if number == 1 else f"{number} {one}s"
