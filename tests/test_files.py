"""Whatever happens while a file is written, what was there before is still there and nothing else is."""

import multiprocessing
from collections.abc import Callable
from pathlib import Path

import pytest

from wavegen.errors import OutputError
from wavegen.files import held, write_beside


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*"))


def write_half(target: Path, fault: BaseException) -> None:
    with write_beside(target) as beside:
        beside.write_text("half")
        raise fault


def test_the_file_appears_when_the_block_ends(tmp_path: Path) -> None:
    target = tmp_path / "a" / "b" / "c.txt"
    with write_beside(target) as beside:
        beside.write_text("new")
        assert beside.parent == target.parent  # a rename within a folder is atomic, one across disks is not
        assert beside.suffix == ".txt"  # by which audio libraries choose the container
        assert not target.exists()
    assert target.read_text() == "new"
    assert names(tmp_path) == ["a", "b", "c.txt"]


def test_it_replaces_what_was_there(tmp_path: Path) -> None:
    target = tmp_path / "c.txt"
    target.write_text("old")
    with write_beside(target) as beside:
        beside.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"
    assert names(tmp_path) == ["c.txt"]


@pytest.mark.parametrize("fault", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path, fault: type[BaseException]) -> None:
    target = tmp_path / "c.txt"
    target.write_text("old")
    with pytest.raises(fault):
        write_half(target, fault())
    assert target.read_text() == "old"
    assert names(tmp_path) == ["c.txt"]


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    target = tmp_path / "c.txt"
    target.write_text("old")
    with pytest.raises(OutputError) as error:
        write_half(target, OSError(28, "No space left on device"))
    assert str(error.value) == (
        f"{target}: cannot write: No space left on device; "
        "check the folder's permissions and the free space; nothing there was changed"
    )
    assert target.read_text() == "old"
    assert names(tmp_path) == ["c.txt"]


def test_a_block_that_writes_nothing_is_a_failure(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="No such file or directory"), write_beside(tmp_path / "c.txt"):
        pass
    assert names(tmp_path) == []


@pytest.mark.parametrize("below", ["c.txt", "deeper/c.txt"])
def test_a_file_in_the_place_of_the_folder(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").write_text("old")
    with pytest.raises(OutputError, match=r"c\.txt: cannot write: a file is where its folder should be; "):
        write_half(tmp_path / "file" / below, AssertionError("the block must not run"))
    assert (tmp_path / "file").read_text() == "old"
    assert names(tmp_path) == ["file"]


def test_a_folder_in_the_place_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "c.txt").mkdir()
    with pytest.raises(OutputError, match="cannot write: Is a directory"), write_beside(tmp_path / "c.txt") as beside:
        beside.write_text("new")
    assert names(tmp_path) == ["c.txt"]


def take(folder: Path) -> None:
    with held(folder, "wait"):
        pass


def exit_code_of_another(folder: Path, method: str = "spawn") -> int | None:
    """0 where another process could hold the folder."""
    process = multiprocessing.get_context(method).Process(target=take, args=(folder,))
    process.start()
    process.join()
    return process.exitcode


def test_a_folder_is_held_until_the_block_ends_even_if_twice(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    with held(folder, "wait"):
        with held(folder, "wait"):
            assert exit_code_of_another(folder) == 1
        assert exit_code_of_another(folder) == 1
    assert exit_code_of_another(folder) == 0


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="processes are not forked here")
def test_the_end_of_a_forked_process_frees_nothing(tmp_path: Path) -> None:
    with held(tmp_path, "wait"):
        forked = multiprocessing.get_context("fork").Process(target=print)
        forked.start()
        forked.join()
        assert exit_code_of_another(tmp_path) == 1


def test_who_holds_a_folder_is_one_line(tmp_path: Path, another_holds: Callable[[Path], None]) -> None:
    another_holds(tmp_path)
    with pytest.raises(OutputError) as error, held(tmp_path, "wait"):
        raise AssertionError("the block must not run")
    assert str(error.value) == f"{tmp_path}: another process writes here; wait"


def test_a_folder_that_cannot_be_locked_is_left_to_its_first_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    with held(tmp_path / "file", "wait"):
        assert names(tmp_path) == ["file"]
