"""Writing so that nothing is ever half-written: beside the target first, then one rename."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from wavegen.errors import OutputError


@contextlib.contextmanager
def write_beside(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the folder of ``path``; on success flush it to disk and rename it to ``path``.

    On any failure the temporary file is removed and whatever was at ``path`` before is untouched. The
    temporary name keeps the suffix, because audio libraries choose the container by it.

    Raises:
        OutputError: the folder cannot be created or written, or the disk is full.
    """
    path = Path(path)
    beside = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield beside
        with open(beside, "rb") as file:
            os.fsync(file.fileno())
        os.replace(beside, path)
    except OSError as error:
        no_folder = isinstance(error, FileExistsError | NotADirectoryError)
        reason = "a file is where its folder should be" if no_folder else error.strerror or error
        raise OutputError(
            f"cannot write: {reason}",
            where=path,
            remedy="check the folder's permissions and the free space; nothing there was changed",
        ) from error
    finally:
        with contextlib.suppress(OSError):
            beside.unlink()


def require_folder(path: Path) -> None:
    """Raise OutputError where something else than a folder is in the place of one that is to be made."""
    if path.exists() and not path.is_dir():
        raise OutputError("is a file", where=path, remedy="give a folder")


@contextlib.contextmanager
def folder_beside(path: Path, *, marker: str) -> Iterator[Path]:
    """Yield a new folder beside ``path``; on success it takes the place of ``path``, on failure it goes.

    What is at ``path`` is replaced only where it is empty or an earlier result, which the file ``marker`` in it tells.

    Raises:
        OutputError: something else is at ``path``, or the folder cannot be written.
    """
    path = Path(path).absolute()
    require_folder(path)
    if path.exists() and any(path.iterdir()) and not (path / marker).is_file():
        raise OutputError("holds other files", where=path, remedy="give another folder; nothing there was changed")
    beside, old = (path.with_name(f".{path.name}.{os.getpid()}.{kind}") for kind in ("part", "old"))
    try:
        beside.mkdir(parents=True)
        yield beside
        if path.exists():
            os.replace(path, old)
        os.replace(beside, path)
    except OSError as error:
        no_folder = isinstance(error, FileExistsError | NotADirectoryError)
        reason = "a file is where its folder should be" if no_folder else error.strerror or error
        raise OutputError(
            f"cannot write: {reason}", where=path, remedy="check the folder's permissions and the free space"
        ) from error
    finally:
        if old.exists() and not path.exists():
            os.replace(old, path)
        for leftover in (beside, old):
            shutil.rmtree(leftover, ignore_errors=True)
