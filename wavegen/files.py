"""Write files and folders so that none is ever half-written, and lock a folder against other processes."""

import contextlib
import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from filelock import FileLock, Timeout

from wavegen.errors import OutputError, WavegenError

MAX_NAME_BYTES = 255  # of Linux, macOS and Windows file systems
LOCK = ".lock"  # The file stays after the lock is released: the operating system keeps the lock, not the file.


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the folder of ``path``; on success flush that file to disk and rename it to ``path``.

    On any failure the temporary file is removed, and an earlier file at ``path`` is unchanged. The temporary name has
    the suffix of ``path``, because audio libraries choose the container by the suffix.

    Raises:
        OutputError: the folder cannot be created or written, or the disk is full.
    """
    path = Path(path)
    temporary = with_ending(path.with_suffix(""), f".{os.getpid()}.part{path.suffix}", prefix=".")
    try:
        with _output_errors(path, "check the folder's permissions and the free space; nothing there was changed"):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def with_ending(path: Path, ending: str, prefix: str = "") -> Path:
    """A path whose name has more around it, and is as long as file systems allow at most.

    A name of 255 bytes is possible, but not one with more around it. So its end is replaced by a hash of the whole,
    which keeps names apart that begin alike.

    Args:
        path: a path without a suffix.
        ending: added behind its name.
        prefix: added before its name.
    """
    name = f"{prefix}{path.name}{ending}"
    if len(os.fsencode(name)) > MAX_NAME_BYTES:
        digest = hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16]
        room = MAX_NAME_BYTES - len(os.fsencode(f"{prefix}-{digest}{ending}"))
        start = os.fsencode(path.name)[:room].decode("utf-8", "ignore")
        name = f"{prefix}{start}-{digest}{ending}"
    return path.with_name(name)


@contextlib.contextmanager
def lock_folder(folder: Path, remedy: str) -> Iterator[None]:
    """Lock a folder against other processes while the block runs; create the folder if it does not exist.

    This process may lock the same folder again inside the block. Processes that it starts do not hold the lock. The
    operating system releases the lock when the process ends, however it ends.

    Args:
        folder: the folder to lock.
        remedy: the user's way out while another process holds the lock.

    Raises:
        OutputError: another process holds the lock.
    """
    lock = FileLock(folder.absolute() / LOCK, is_singleton=True)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(blocking=False)
    except Timeout as error:
        raise OutputError("another process writes here", where=folder, remedy=remedy) from error
    except (OSError, NotImplementedError):
        pass  # Either the folder cannot be written, which the first write reports, or the file system has no locks.
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def standard_input_as_file(suffix: str) -> Iterator[Path]:
    """Copy standard input to a temporary file and yield its path; WavegenErrors about that file name standard input.

    Raises:
        OutputError: the temporary folder is full.
    """
    with tempfile.TemporaryDirectory(prefix="wavegen-") as folder:
        path = Path(folder) / f"standard input{suffix}"
        with _output_errors(path, "check the free space, or set TMPDIR to another folder"), open(path, "wb") as file:
            shutil.copyfileobj(sys.stdin.buffer, file)
        try:
            yield path
        except WavegenError as error:
            if error.where is not None and str(error.where) == str(path):
                error.where = "standard input"
            raise


def require_folder(path: Path) -> None:
    """Raise OutputError if ``path`` exists and is not a folder."""
    if path.exists() and not path.is_dir():
        raise OutputError("is a file", where=path, remedy="give a folder")


@contextlib.contextmanager
def results_folder(path: Path, entries: Sequence[str], *, is_ours: Callable[[Path], bool]) -> Iterator[Path]:
    """Yield a temporary folder inside ``path``; on success move its entries to ``path``, on failure remove it.

    Args:
        path: the folder of results. It is created if it does not exist; otherwise it must be empty, or hold earlier
            results and nothing else. The new results replace the earlier ones.
        entries: names of all results. The last one is the marker, a file that tells whose results these are; it is
            moved after all others, so a folder with a marker is complete.
        is_ours: whether an existing marker is one of ours.

    Raises:
        OutputError: ``path`` holds something else, or cannot be written.
    """
    path = Path(path).absolute()
    require_folder(path)
    is_new = not path.exists()
    marker = path / entries[-1]

    # Refuse a folder with anything in it that is not a result of ours.
    present = [] if is_new else [entry.name for entry in path.iterdir() if not entry.name.startswith(".")]
    foreign = sorted(set(present) - set(entries))
    if foreign or (present and not (marker.is_file() and is_ours(marker))):
        shown = ", ".join((foreign or present)[:3])
        raise OutputError(
            f"holds other files ({shown})", where=path, remedy="give another folder; nothing there was changed"
        )

    try:
        with _output_errors(path, "check the folder's permissions and the free space"):
            path.mkdir(parents=True, exist_ok=True)
            # Inside ``path``, not beside it: ``path`` may be a link, or on another disk than its parent folder.
            temporary = Path(tempfile.mkdtemp(prefix=".", suffix=".part", dir=path))
            try:
                yield temporary
                # While results are replaced the marker is away, so that a mixture is never taken for a result.
                marker.unlink(missing_ok=True)
                for name in entries:
                    _remove(path / name)
                    if (temporary / name).exists():
                        os.replace(temporary / name, path / name)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
    finally:
        if is_new:
            with contextlib.suppress(OSError):  # fails, as it should, if there are results in the folder
                path.rmdir()


@contextlib.contextmanager
def _output_errors(path: Path, remedy: str) -> Iterator[None]:
    """Turn the operating system's errors into OutputErrors about ``path``."""
    try:
        yield
    except WavegenError:  # an OutputError, for example, is an OSError already, and names its own file
        raise
    except OSError as error:
        no_folder = isinstance(error, FileExistsError | NotADirectoryError)
        reason = "a file is where its folder should be" if no_folder else error.strerror or error
        raise OutputError(f"cannot write: {reason}", where=path, remedy=remedy) from error


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def native_path(path: Path | str) -> Path | str | bytes:
    """A path for soundfile, which cannot encode a name that is not UTF-8; Linux allows such names."""
    return os.fsencode(path) if os.name == "posix" else path
