"""Whatever happens while files or folders are written, what was there before is still there and nothing else is."""

import contextlib
import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from support.messages import Messages

from wavegen.errors import OutputError, WavegenError
from wavegen.files import atomic_write, lock_folder, results_folder, with_ending


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def tree(place: str | Path = ".") -> set[str]:
    return {path.relative_to(place).as_posix() for path in Path(place).rglob("*")}


# --- one file ---


def write_half(target: Path, fault: BaseException) -> None:
    with atomic_write(target) as temporary:
        temporary.write_text("half")
        raise fault


def test_the_file_appears_when_the_block_ends() -> None:
    target = Path("a/b/c.txt")
    with atomic_write(target) as temporary:
        temporary.write_text("new")
        assert temporary.parent == target.parent  # a rename within a folder is atomic, one across disks is not
        assert temporary.suffix == ".txt"  # by which audio libraries choose the container
        assert not target.exists()
    assert target.read_text() == "new"
    assert tree() == {"a", "a/b", "a/b/c.txt"}


def test_it_replaces_an_earlier_file() -> None:
    target = Path("c.txt")
    target.write_text("old")
    with atomic_write(target) as temporary:
        temporary.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"
    assert tree() == {"c.txt"}


@pytest.mark.parametrize("fault", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_failure_leaves_the_old_file_and_nothing_else(fault: type[BaseException]) -> None:
    target = Path("c.txt")
    target.write_text("old")
    with pytest.raises(fault):
        write_half(target, fault())
    assert target.read_text() == "old"
    assert tree() == {"c.txt"}


def test_a_full_disk_is_one_line(messages: Messages) -> None:
    target = Path("c.txt")
    target.write_text("old")
    with messages.refused(OutputError):
        write_half(target, OSError(28, "No space left on device"))
    assert target.read_text() == "old"
    assert tree() == {"c.txt"}


def test_an_error_that_names_another_file_keeps_its_name() -> None:
    with pytest.raises(OutputError, match=r"^other\.wav: "):
        write_half(Path("c.txt"), OutputError("cannot write", where="other.wav"))
    with pytest.raises(OutputError, match=r"^other\.wav: "), results():
        raise OutputError("cannot write", where="other.wav")
    assert tree() == set()


def test_a_block_that_writes_nothing_is_a_failure(messages: Messages) -> None:
    with messages.refused(OutputError), atomic_write(Path("c.txt")):
        pass
    assert tree() == set()


@pytest.mark.parametrize("below", ["c.txt", "deeper/c.txt"])
def test_a_file_in_the_place_of_the_folder_is_refused(below: str, messages: Messages) -> None:
    Path("file").write_text("old")
    with messages.refused(OutputError):
        write_half(Path("file", below), AssertionError("the block must not run"))
    assert Path("file").read_text() == "old"
    assert tree() == {"file"}


def test_a_folder_in_the_place_of_the_file_is_refused(messages: Messages) -> None:
    Path("c.txt").mkdir()
    with messages.refused(OutputError), atomic_write(Path("c.txt")) as temporary:
        temporary.write_text("new")
    assert tree() == {"c.txt"}


# --- a locked folder ---


def take(folder: Path) -> None:
    with lock_folder(folder, "wait"):
        pass


def exit_code_of_another(folder: Path, method: str = "spawn") -> int | None:
    """0 if another process can lock the folder."""
    process = multiprocessing.get_context(method).Process(target=take, args=(folder,))
    process.start()
    process.join()
    return process.exitcode


def test_a_folder_stays_locked_until_the_outer_block_ends(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    with lock_folder(folder, "wait"):
        with lock_folder(folder, "wait"):
            assert exit_code_of_another(folder) == 1
        assert exit_code_of_another(folder) == 1
    assert exit_code_of_another(folder) == 0


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="processes are not forked here")
def test_the_end_of_a_forked_process_does_not_release_the_lock(tmp_path: Path) -> None:
    with lock_folder(tmp_path, "wait"):
        forked = multiprocessing.get_context("fork").Process(target=print)
        forked.start()
        forked.join()
        assert exit_code_of_another(tmp_path) == 1


def test_a_folder_that_another_process_locks_is_refused(
    tmp_path: Path, another_holds: Callable[[Path], None], messages: Messages
) -> None:
    another_holds(tmp_path)
    with messages.refused(OutputError), lock_folder(tmp_path, "wait"):
        raise AssertionError("the block must not run")


def test_a_folder_that_cannot_be_locked_is_reported_by_the_first_write() -> None:
    Path("file").write_text("old")
    with lock_folder(Path("file"), "wait"):
        assert tree() == {"file"}


# --- a folder of results ---


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


def test_results_replace_earlier_ones() -> None:
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
def test_a_folder_with_anything_else_in_it_is_left_alone(foreign: str, messages: Messages) -> None:
    Path("out", foreign).parent.mkdir(parents=True)
    Path("out", foreign).write_text("mine")
    before = tree()
    with messages.refused(WavegenError), results():
        pass
    assert tree() == before


def test_results_with_a_foreign_file_among_them_are_left_alone(messages: Messages) -> None:
    make_results("one")
    Path("out/ratings-anna.json").touch()
    with messages.refused(WavegenError), results():
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


def test_results_that_cannot_be_moved_into_place_leave_no_marker(
    monkeypatch: pytest.MonkeyPatch, messages: Messages
) -> None:
    make_results("old")
    rename = os.replace

    def full(source: Path, target: Path) -> None:
        if Path(target).name == "page":
            raise OSError(28, "No space left on device")
        rename(source, target)

    monkeypatch.setattr(os, "replace", full)
    with messages.refused(WavegenError):
        make_results("new")
    assert "done" not in tree("out")  # so the mixture is never taken for a result
    assert not [name for name in tree("out") if ".part" in name]


# ---- long names


@pytest.mark.parametrize("name", ["b" * 251 + ".wav", "あ" * 83 + "bb.wav", "é" * 125 + "b.npz"])
def test_a_name_as_long_as_the_file_system_allows_is_written(tmp_path: Path, name: str) -> None:
    assert 250 < len(os.fsencode(name)) <= 255
    with atomic_write(tmp_path / name) as beside:
        assert beside.suffix == Path(name).suffix
        beside.write_text("whole")
        twin = name[:-5] + "x" + name[-4:]
        with atomic_write(tmp_path / twin) as other:
            assert other != beside
            other.write_text("twin")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {name: "whole", twin: "twin"}


def test_a_longer_ending_shortens_only_names_that_need_it(tmp_path: Path) -> None:
    assert with_ending(tmp_path / "a.b", ".png") == tmp_path / "a.b.png"
    long = [with_ending(tmp_path / (letter * 83), ".reference.wav").name for letter in "あい"]
    assert long[0] != long[1]
    assert all(name.endswith(".reference.wav") and len(os.fsencode(name)) <= 255 for name in long)
