"""Writing so that nothing is ever half-written: beside the target first, then one rename."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from filelock import FileLock, Timeout

from wavegen.errors import OutputError

LOCK = ".lock"  # stays when its holder has gone: what holds is the system, not the file


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


@contextlib.contextmanager
def held(folder: Path, remedy: str) -> Iterator[None]:
    """Hold a folder, made where it is not there, against other processes that would; free again when this one ends.

    This process may hold it twice; processes that it starts do not hold it.

    Raises:
        OutputError: another process holds it; with ``remedy``.
    """
    lock = FileLock(folder.absolute() / LOCK, is_singleton=True)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(blocking=False)
    except Timeout as error:
        raise OutputError("another process writes here", where=folder, remedy=remedy) from error
    except (OSError, NotImplementedError):  # nor can it be written, which its first file will say, or without locks
        pass
    try:
        yield
    finally:
        lock.release()


def require_folder(path: Path) -> None:
    """Raise OutputError where something else than a folder is in the place of one that is to be made."""
    if path.exists() and not path.is_dir():
        raise OutputError("is a file", where=path, remedy="give a folder")


@contextlib.contextmanager
def results_folder(path: Path, entries: Sequence[str], *, is_ours: Callable[[Path], bool]) -> Iterator[Path]:
    """Yield a new folder inside ``path``; on success what is in it replaces earlier results there, on failure it goes.

    Args:
        path: made where it is not there; where it is, it must be empty or hold earlier results and nothing else.
        entries: names of all results; the last is the file that tells whose they are, put there when all others are.
        is_ours: whether that file is one of ours.

    Raises:
        OutputError: something else is at ``path``, or it cannot be written.
    """
    path = Path(path).absolute()
    require_folder(path)
    is_new, marker = not path.exists(), path / entries[-1]
    present = [] if is_new else [entry.name for entry in path.iterdir() if not entry.name.startswith(".")]
    strangers = sorted(set(present) - set(entries))
    if strangers or (present and not (marker.is_file() and is_ours(marker))):
        shown = ", ".join((strangers or present)[:3])
        raise OutputError(
            f"holds other files ({shown})", where=path, remedy="give another folder; nothing there was changed"
        )
    try:
        path.mkdir(parents=True, exist_ok=True)
        # Inside, not beside: ``path`` may be a link, or another disk than the folder that it is in.
        inside = Path(tempfile.mkdtemp(prefix=".", suffix=".part", dir=path))
        try:
            yield inside
            marker.unlink(missing_ok=True)
            for name in entries:
                _remove(path / name)
                if (inside / name).exists():
                    os.replace(inside / name, path / name)
        finally:
            shutil.rmtree(inside, ignore_errors=True)
    except OSError as error:
        no_folder = isinstance(error, FileExistsError | NotADirectoryError)
        reason = "a file is where its folder should be" if no_folder else error.strerror or error
        raise OutputError(
            f"cannot write: {reason}", where=path, remedy="check the folder's permissions and the free space"
        ) from error
    finally:
        if is_new:
            with contextlib.suppress(OSError):  # where there are results
                path.rmdir()


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
