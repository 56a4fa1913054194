"""Rating files: summed up, screened, and refused where they are none."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from wavegen.errors import DataError
from wavegen.listening.ratings import chance_of_at_least, summarize_ratings, wilson_interval


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


def test_ratings_of_several_listeners(tmp_path: Path) -> None:
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
    """Many clips of one listener say nothing of other listeners; many listeners of one clip nothing of other clips."""

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
    # Ten values 40 … 58 have a standard error of 5.74 / √10 = 1.8 (bootstrap), so ± 1.96 · 1.8 about 49.
    for spread in (by_listener, by_clip):
        low, high = interval(spread)
        assert low == pytest.approx(49 - 3.56, abs=0.5)
        assert high == pytest.approx(49 + 3.56, abs=0.5)
    assert interval(alike) == (50.0, 50.0)


def test_one_rating_has_no_interval(tmp_path: Path) -> None:
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
        "BS.1534-3 leaves out who does so in more than 15% of the clips.",
    ]
    assert "65.8" in all_of_them  # (20 · 50 + 13 · 90) / 33
    assert without.startswith("Ratings without them: 1 listener, 20 clips\n")
    assert "50.0" in without


def test_abx_counts_and_p(tmp_path: Path) -> None:
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
        "p: probability of as many right answers or more by guessing",
    ]


def test_binomial_and_wilson_against_other_ways_to_compute_them() -> None:
    from scipy.stats import binomtest

    for right, trials in ((0, 1), (3, 10), (10, 10), (57, 100)):
        test = binomtest(right, trials, 0.5, alternative="greater")
        assert chance_of_at_least(right, trials) == pytest.approx(test.pvalue, rel=1e-12)
        wanted = binomtest(right, trials).proportion_ci(0.95, method="wilson")
        assert wilson_interval(right, trials) == pytest.approx((wanted.low, wanted.high), abs=1e-6)
    assert math.isclose(chance_of_at_least(0, 200), 1)


def test_a_file_given_twice_counts_once_and_pages_are_told_apart(tmp_path: Path) -> None:
    one = saved("rating", [rated("one", ours=60)])
    other = saved("rating", [rated("one", ours=70)], seed=2) | {"page": {"id": "other"}}
    lines = summarize_ratings(write(tmp_path, one, one, other)).splitlines()
    assert lines[0] == "Ratings, 0 to 100: 2 listeners, 1 clip"
    assert lines[-2:] == ["1 file given twice, counted once", "the files are of different pages: abc123, other"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("not json", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("{}", "holds no ratings"),
        ("[1]", "holds no ratings"),
        (saved("rating", [rated("one", ours=101)]), r"holds no ratings \(trials\.0\.ratings\.0\.rating: .*100"),
        (saved("rating", [rated("one", ours=60)]) | {"version": 2}, "has version 2 of the format, not 1"),
        (saved("abx", [trial("a", "c")], systems=["studio", "ours"]), r"trials\.0\.answer"),
        (saved("rating", []), "holds no ratings"),
        (saved("abx", [trial("a", "a")]), r"systems: Field required"),
    ],
)
def test_other_files_are_refused_in_one_line(content: Any, message: str, tmp_path: Path) -> None:
    (path,) = write(tmp_path, content)
    with pytest.raises(DataError, match=message) as caught:
        summarize_ratings([path])
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_missing_and_none(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.json: cannot be read: No such file"):
        summarize_ratings([tmp_path / "gone.json"])
    (tmp_path / "latin").write_bytes(b'{"a": "\xff"}')
    with pytest.raises(DataError, match="is not JSON"):
        summarize_ratings([tmp_path / "latin"])
    with pytest.raises(DataError, match="no rating files"):
        summarize_ratings([])
