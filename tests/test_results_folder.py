"""A folder of results takes the place of earlier ones, and of nothing else."""

import contextlib
import os
from pathlib import Path

import pytest

from wavegen.errors import WavegenError
from wavegen.files import results_folder


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def is_ours(marker: Path) -> bool:
    return marker.read_text() == "ours"


def results(place: Path = Path("out")) -> contextlib.AbstractContextManager[Path]:
    return results_folder(place, ("audio", "page", "done"), is_ours=is_ours)


def make_results(content: str, place: Path = Path("out")) -> None:
    with results(place) as folder:
        (folder / "audio").mkdir()
        (folder / "audio" / content).touch()
        (folder / "page").write_text(content)
        (folder / "done").write_text("ours")


def tree(place: str = ".") -> set[str]:
    return {path.relative_to(place).as_posix() for path in Path(place).rglob("*")}


def test_results_take_the_place_of_earlier_ones() -> None:
    for content in ("one", "two"):
        make_results(content)
        assert tree("out") == {"audio", f"audio/{content}", "page", "done"}
    with pytest.raises(ZeroDivisionError), results() as folder:
        (folder / "page").write_text(str(1 // 0))
    assert tree("out") == {"audio", "audio/two", "page", "done"}
    assert Path("out/page").read_text() == "two"
    with pytest.raises(ZeroDivisionError), results(Path("new")):
        raise ZeroDivisionError
    assert not Path("new").exists()


@pytest.mark.parametrize("foreign", ["thesis.tex", "done", "audio/voice.wav"])
def test_a_folder_with_anything_else_in_it_is_left_alone(foreign: str) -> None:
    Path("out", foreign).parent.mkdir(parents=True)
    Path("out", foreign).write_text("mine")
    before = tree()
    with (
        pytest.raises(WavegenError, match=rf"out: holds other files \({foreign.split('/')[0]}\); give another"),
        results(),
    ):
        pass
    assert tree() == before


def test_results_with_a_stranger_among_them_are_left_alone() -> None:
    make_results("one")
    Path("out/ratings-anna.json").touch()
    with pytest.raises(WavegenError, match=r"holds other files \(ratings-anna\.json\)"), results():
        pass
    assert tree("out") == {"audio", "audio/one", "page", "done", "ratings-anna.json"}


def test_results_go_where_a_link_leads() -> None:
    Path("real").mkdir()
    Path("out").symlink_to("real")
    for content in ("one", "two"):
        make_results(content)
    assert Path("out").is_symlink()
    assert tree("real") == {"audio", "audio/two", "page", "done"}
    assert tree() == {"out", "real", *(f"real/{name}" for name in tree("real"))}


def test_results_that_cannot_be_put_in_place_leave_no_mark(monkeypatch: pytest.MonkeyPatch) -> None:
    make_results("old")
    rename = os.replace

    def full(source: Path, target: Path) -> None:
        if Path(target).name == "page":
            raise OSError(28, "No space left on device")
        rename(source, target)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(WavegenError, match="No space left"):
        make_results("new")
    assert "done" not in tree("out")  # so nothing takes the mixture for a result
    assert not [name for name in tree("out") if ".part" in name]
