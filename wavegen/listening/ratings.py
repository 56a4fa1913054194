"""Results of blind tests: summarises the rating files that the listening page saved."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from wavegen.errors import DataError
from wavegen.tables import text_table

# ITU-R BS.1534-3, 4.1.2: exclude a listener who rates the hidden reference below 90 in more than 15 % of the items.
SCREENED_BELOW = 90
SCREENED_SHARE = 0.15

RESAMPLES = 2000
_LARGEST_BYTES = 50_000_000


class _Saved(BaseModel):
    """Part of a rating file. Later versions of the page may add keys, but not change these."""

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
    """One listener's rating of one clip in one system."""

    listener: str
    clip: str
    role: str
    system: str
    rating: float


def summarize_ratings(paths: Sequence[Path]) -> str:
    """Summarise rating files as text: mean ratings of each system, and counts of right answers of each ABX pair.

    Ratings have 95 % intervals of a bootstrap over listeners and clips at once (Owen, 2007, "The pigeonhole
    bootstrap"), so that they extend to other listeners and other clips as far as there are several of each. ABX has the
    one-sided exact binomial test and Wilson's interval (1927). Files with the same listener's name belong to one
    listener; each file without a name counts as another listener. A test that is given twice counts once.

    Raises:
        DataError: a file cannot be read or was not saved by the page, or no files were given.
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
    pages = sorted({test.page.id for test in tests.values()})
    if len(pages) > 1:
        notes.append(f"the files come from different pages: {', '.join(pages)}")
    if notes:
        parts.append("\n".join(notes))
    return "\n\n".join(parts)


def _read(path: Path) -> _RatingTest | _AbxTest:
    remedy = "give a file that “Save the results” on a listening page wrote"
    try:
        if path.stat().st_size > _LARGEST_BYTES:
            raise DataError("is too large for a rating file", where=path, remedy=remedy)
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror or error}", where=path, remedy=remedy) from error
    except (ValueError, RecursionError) as error:  # ValueError includes UnicodeDecodeError and JSONDecodeError
        raise DataError("is not JSON", where=path, remedy=remedy) from error
    if not isinstance(data, dict) or data.get("format") != "wavegen-ratings":
        raise DataError("is not a rating file", where=path, remedy=remedy)
    if data.get("version", 1) != 1:
        version = f"{data['version']!r:.40}"
        raise DataError(f"has format version {version}, but only 1 is known", where=path, remedy="use a newer wavegen")
    try:
        return _FILE.validate_python(data)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, fault["loc"][1:]))  # the first part is the kind of test
        what = f"is a damaged rating file ({place + ': ' if place else ''}{fault['msg']})"
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
    parts = [_rating_table("Ratings, 0 to 100", answers)]
    if screened := _screened(answers):
        lines = [f"{name} rated the hidden reference below {SCREENED_BELOW} in {share}" for name, share in screened]
        lines.append(f"BS.1534-3 excludes listeners who do so in more than {SCREENED_SHARE:.0%} of the clips.")
        parts.append("\n".join(lines))
        kept = [answer for answer in answers if answer.listener not in dict(screened)]
        if kept:
            parts.append(_rating_table("Ratings without them", kept))
    return parts


def _rating_table(title: str, answers: Sequence[_Answer]) -> str:
    listeners = len({answer.listener for answer in answers})
    clips = len({answer.clip for answer in answers})
    rows = []
    for role, system in dict.fromkeys((answer.role, answer.system) for answer in answers):
        own = [answer for answer in answers if (answer.role, answer.system) == (role, system)]
        mean = float(np.mean([answer.rating for answer in own]))
        name = f"{system} (hidden reference)" if role == "reference" else system
        rows.append((mean, [name, f"{mean:.1f}", _rating_interval(own), str(len(own))]))
    rows.sort(key=lambda row: -row[0])
    table = text_table([["", "mean", "95 % interval", "ratings"], *(cells for _, cells in rows)])
    return f"{title}: {_count(listeners, 'listener')}, {_count(clips, 'clip')}\n{table}"


def _rating_interval(answers: Sequence[_Answer]) -> str:
    """Percentiles of the means when listeners and clips are each resampled with replacement."""
    listeners, listener = np.unique([answer.listener for answer in answers], return_inverse=True)
    clips, clip = np.unique([answer.clip for answer in answers], return_inverse=True)
    if len(listeners) == len(clips) == 1:
        return "-"
    ratings = np.array([answer.rating for answer in answers])
    random = np.random.default_rng(0)
    listener_counts, clip_counts = (
        random.multinomial(count, np.full(count, 1 / count), RESAMPLES) for count in (len(listeners), len(clips))
    )
    weights = listener_counts[:, listener] * clip_counts[:, clip]
    total = weights.sum(axis=1)
    # A resample is empty if none of its listeners rated any of its clips; it has no mean.
    means = (weights @ ratings)[total > 0] / total[total > 0]
    low, high = np.percentile(means, [2.5, 97.5])
    return f"{low:.1f} to {high:.1f}"


def _screened(answers: Sequence[_Answer]) -> list[tuple[str, str]]:
    """Listeners to exclude, and in how many clips they missed the hidden reference."""
    screened = []
    for listener in dict.fromkeys(answer.listener for answer in answers):
        references = [answer.rating for answer in answers if answer.listener == listener and answer.role == "reference"]
        low = sum(rating < SCREENED_BELOW for rating in references)
        if low > SCREENED_SHARE * len(references):
            screened.append((listener, f"{low} of {_count(len(references), 'clip')}"))
    return screened


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
        rows += [_abx_row(listener, [right for name, right in answers if name == listener]) for listener in listeners]
        if len(listeners) > 1:
            rows.append(_abx_row("all", [right for _, right in answers]))
        parts.append(f"ABX, {titles[pair]}\n{text_table(rows)}")
    return [*parts, "p: probability of at least as many right answers by guessing"]


def _abx_row(name: str, answers: Sequence[bool]) -> list[str]:
    from scipy.stats import binomtest

    right = sum(answers)
    trials = len(answers)
    p = binomtest(right, trials, alternative="greater").pvalue
    interval = binomtest(right, trials).proportion_ci(method="wilson")
    return [
        name,
        str(right),
        str(trials),
        f"{right / trials:.0%}",
        f"{interval.low:.0%} to {interval.high:.0%}",
        "<0.001" if p < 0.001 else f"{p:.3f}",
    ]


# ---- text


def _listeners(tests: Iterable[Any]) -> list[str]:
    """A name for the listener of each test."""
    # The files come from other people: keep control characters out of the terminal.
    names = ("".join(filter(str.isprintable, test.listener)).strip() for test in tests)
    return [name or f"listener {number}" for number, name in enumerate(names, start=1)]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
