"""Rating files: their summaries, the screening of listeners, and the refusal of other files."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from support.messages import Messages

from wavegen.errors import DataError
from wavegen.listening.ratings import summarize_ratings


def saved(kind: str, trials: list[dict[str, Any]], *, listener: str = "", seed: int = 1, **more: Any) -> dict[str, Any]:
    return {
        "format": "wavegen-ratings",
        "version": 1,
        "kind": kind,
        "page": {"id": "abc123", "title": "Demo"},
        "listener": listener,
        "seed": seed,
        "reference": "studio",
        "trials": trials,
        **more,
    }


def rated(clip: str, **ratings: float) -> dict[str, Any]:
    roles = {"studio": "reference", "anchor": "anchor"}
    return {
        "clip": clip,
        "seconds": 1.5,
        "ratings": [
            {"system": name, "role": roles.get(name, "system"), "rating": rating} for name, rating in ratings.items()
        ],
    }


def trial(x: str, answer: str) -> dict[str, Any]:
    return {"clip": "one", "a": "studio", "b": "ours", "x": x, "answer": answer, "seconds": 2.0}


def write(folder: Path, *contents: Any) -> list[Path]:
    paths = [folder / f"{number}.json" for number in range(len(contents))]
    for path, content in zip(paths, contents, strict=True):
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return paths


def test_ratings_of_several_listeners_have_means_and_intervals(tmp_path: Path) -> None:
    paths = write(
        tmp_path,
        saved("rating", [rated("one", studio=100, ours=60), rated("two", studio=96, ours=70)], listener="ann", seed=1),
        saved("rating", [rated("one", studio=98, ours=80), rated("two", studio=94, ours=90)], seed=2),
    )
    assert summarize_ratings(paths).splitlines() == [
        "Ratings, 0 to 100: 2 listeners, 2 clips",
        "                           mean  95 % interval  ratings",
        "studio (hidden reference)  97.0  94.0 to 100.0        4",
        "ours                       75.0   60.0 to 90.0        4",
    ]


def test_the_interval_follows_whichever_varies(tmp_path: Path) -> None:
    """One listener's many clips say nothing about other listeners, nor many listeners of one clip about other clips."""

    def interval(ratings: list[list[float]]) -> tuple[float, float]:
        tests = [
            saved("rating", [rated(f"clip {c}", ours=r) for c, r in enumerate(row)], seed=seed)
            for seed, row in enumerate(ratings)
        ]
        line = summarize_ratings(write(tmp_path, *tests)).splitlines()[2]
        low, high = line.split()[2], line.split()[4]
        return float(low), float(high)

    by_listener = [[40.0 + 2 * n] * 30 for n in range(10)]
    by_clip = [[40.0 + 2 * n for n in range(10)]] * 30
    alike = [[50.0] * 10] * 3
    # Ten values 40 … 58 have a standard error of 5.74 / √10 = 1.8 (bootstrap), so 49 ± 1.96 · 1.8.
    for spread in (by_listener, by_clip):
        low, high = interval(spread)
        assert low == pytest.approx(49 - 3.56, abs=0.5)
        assert high == pytest.approx(49 + 3.56, abs=0.5)
    assert interval(alike) == (50.0, 50.0)


def test_a_single_rating_has_no_interval(tmp_path: Path) -> None:
    text = summarize_ratings(write(tmp_path, saved("rating", [rated("one", ours=60)])))
    assert text.splitlines()[2].split() == ["ours", "60.0", "-", "1"]


def test_listeners_who_miss_the_reference_are_named(tmp_path: Path) -> None:
    careful = [rated(f"clip {n}", studio=80 if n < 3 else 90, ours=50) for n in range(20)]  # 3 of 20 are 15 %
    careless = [rated(f"clip {n}", studio=89 if n < 2 else 100, ours=90) for n in range(13)]  # 2 of 13 is 15.4 %
    text = summarize_ratings(
        write(tmp_path, saved("rating", careful, listener="ann"), saved("rating", careless, listener="bob", seed=2))
    )
    all_of_them, note, without = text.split("\n\n")
    assert note.splitlines() == [
        "bob rated the hidden reference below 90 in 2 of 13 clips",
        "BS.1534-3 excludes listeners who do so in more than 15% of the clips.",
    ]
    assert "65.8" in all_of_them  # (20 · 50 + 13 · 90) / 33
    assert without.startswith("Ratings without them: 1 listener, 20 clips\n")
    assert "50.0" in without


def test_abx_has_counts_intervals_and_p(tmp_path: Path) -> None:
    right, wrong = trial("a", "a"), trial("a", "b")
    paths = write(
        tmp_path,
        saved("abx", [right] * 9 + [wrong], systems=["studio", "ours"], listener="ann"),
        saved("abx", [trial("b", "b")] * 3 + [wrong] * 3, systems=["ours", "studio"], listener="bob", seed=2),
    )
    assert summarize_ratings(paths).splitlines() == [
        "ABX, studio against ours",
        "     right  trials  share  95 % interval      p",
        "ann      9      10    90%     60% to 98%  0.011",  # 11 / 1024
        "bob      3       6    50%     19% to 81%  0.656",  # 42 / 64
        "all     12      16    75%     51% to 90%  0.038",  # 2517 / 65536
        "",
        "p: probability of at least as many right answers by guessing",
    ]


@pytest.mark.parametrize("trials", [1, 2, 7, 16, 100])
def test_abx_statistics_are_the_formulas(trials: int, tmp_path: Path) -> None:
    z = 1.959964
    for right in range(0, trials + 1, max(1, trials // 8)):
        answers = [trial("a", "a")] * right + [trial("a", "b")] * (trials - right)
        paths = write(tmp_path, saved("abx", answers, systems=["studio", "ours"], listener="ann"))
        # The one-sided exact binomial test.
        p = sum(math.comb(trials, count) for count in range(right, trials + 1)) / 2**trials
        # Wilson, 1927.
        share = right / trials
        middle = share + z**2 / (2 * trials)
        half = z * math.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2))
        low, high = ((middle + side * half) / (1 + z**2 / trials) for side in (-1, 1))
        row = ["ann", str(right), str(trials), f"{share:.0%}", f"{abs(low):.0%}", "to", f"{high:.0%}"]
        assert summarize_ratings(paths).splitlines()[2].split() == [*row, "<0.001" if p < 0.001 else f"{p:.3f}"]


def test_a_file_given_twice_counts_once_and_pages_are_told_apart(tmp_path: Path) -> None:
    first = saved("rating", [rated("one", ours=60)])
    second = saved("rating", [rated("one", ours=70)], seed=2) | {"page": {"id": "other"}}
    lines = summarize_ratings(write(tmp_path, first, first, second)).splitlines()
    assert lines[0] == "Ratings, 0 to 100: 2 listeners, 1 clip"
    assert lines[-2:] == ["1 file given twice, counted once", "the files come from different pages: abc123, other"]


@pytest.mark.parametrize(
    "content",
    [
        pytest.param("not json", id="text"),
        pytest.param("[" * 100_000, id="deep nesting"),
        pytest.param("{}", id="empty object"),
        pytest.param("[1]", id="list"),
        pytest.param(saved("rating", [rated("one", ours=101)]), id="rating of 101"),
        pytest.param(saved("rating", [rated("one", ours=60)]) | {"version": 2}, id="version 2"),
        pytest.param(saved("abx", [trial("a", "c")], systems=["studio", "ours"]), id="answer c"),
        pytest.param(saved("rating", []), id="no trials"),
        pytest.param(saved("abx", [trial("a", "a")]), id="no systems"),
    ],
)
def test_other_files_are_refused_in_one_line(content: Any, tmp_path: Path, messages: Messages) -> None:
    (path,) = write(tmp_path, content)
    with pytest.raises(DataError) as caught:
        summarize_ratings([path])
    assert len(str(caught.value).splitlines()) == 1
    messages.check(caught.value)


def test_missing_files_and_no_files_are_refused(tmp_path: Path, messages: Messages) -> None:
    with messages.refused(DataError):
        summarize_ratings([tmp_path / "gone.json"])
    (tmp_path / "latin").write_bytes(b'{"a": "\xff"}')
    with messages.refused(DataError):
        summarize_ratings([tmp_path / "latin"])
    with messages.refused(DataError):
        summarize_ratings([])
