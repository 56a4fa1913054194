"""Recordings in a folder: links are followed, leavings of other programs and results of wavegen are not recordings."""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path, PurePath

from wavegen.audio import AUDIO_SUFFIXES
from wavegen.corpora.lists import cell_fault
from wavegen.corpora.manifest import Recording, split_recordings
from wavegen.errors import DataError, MissingDataError, OutputError

# Audio that libsndfile cannot decode. Such files are reported, because they are probably recordings.
UNREADABLE_SUFFIXES = frozenset(
    {".m4a", ".aac", ".mp4", ".wma", ".webm", ".mka", ".amr", ".ape", ".wv", ".tta", ".ac3", ".mp2", ".sph", ".shn"}
)
# Folders in which other programs keep deleted files, thumbnails and resource forks. Hidden ones are left out anyway.
_LEAVINGS = frozenset({"__MACOSX", "@eaDir", "$RECYCLE.BIN", "lost+found"})
# What marks a folder of results: of an extraction, a training, an evaluation.
_RESULTS = (
    {"complete.json", "mels"},
    {"recipe.yaml", "log.jsonl"},
    {"recipe.yaml", "features"},
    {"summary.json", "scores.csv"},
)
_MAX_NAMES_SHOWN = 3


def find_recordings(
    folder: Path,
    *,
    pattern: str = "**/*",
    held_out: float | str = 0.05,
    outputs: Sequence[Path] = (),
    notify: Callable[[str], None] | None = None,
) -> list[Recording]:
    """Find the recordings below a folder and split them.

    Links are followed, each folder once. Hidden files and folders, and leavings such as ``__MACOSX``, are not searched.

    Args:
        folder: the corpus.
        pattern: a glob below ``folder``; files that match it and have an audio suffix are recordings.
        held_out: the share of the recordings to use for validation (chosen by a hash of their names, so that adding
            files moves few), or a glob that matches the names of the validation recordings.
        outputs: folders of results, which are not searched. Finished results of other runs are recognised.
        notify: takes a line about files that were passed over although they may be recordings.

    Returns:
        The recordings, sorted by name. A link to a file that does not exist is one, and is refused when it is read.

    Raises:
        DataError: the folder does not exist, the pattern is not a glob below it, no recordings are found, two have the
            same name, a name cannot be in a list, or ``held_out`` is a glob that leaves a split empty.
        OutputError: results would be written among the recordings.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise MissingDataError("no such folder", where=folder, remedy="give the folder that holds the recordings")
    parts = _pattern_parts(pattern, folder)
    _refuse_results_among(folder, outputs)
    search = _Search(folder, frozenset(Path(output).resolve() for output in outputs))
    matching = sorted(path for path in search.files() if _matches(path.relative_to(folder).parts, parts))
    paths = [path for path in matching if path.suffix.lower() in AUDIO_SUFFIXES]
    unreadable = Counter(suffix for path in matching if (suffix := path.suffix.lower()) in UNREADABLE_SUFFIXES)
    if not paths:
        others = f", only {_counts(unreadable)}, which cannot be read" if unreadable else ""
        raise DataError(
            f"no file matches {pattern!r} and ends in {', '.join(sorted(AUDIO_SUFFIXES))}{others}",
            where=folder,
            remedy="convert them to FLAC, for example with ffmpeg" if others else "check the folder and the pattern",
        )
    if notify is not None:
        if unreadable:
            what = f"{_counts(unreadable)} cannot be read"
            notify(f"{folder}: {what}; convert them to FLAC, for example with ffmpeg")
        for line in search.report():
            notify(line)
    return split_recordings(_names(folder, paths), held_out)


@dataclass
class _Search:
    """A walk through a folder, and what it passed over."""

    folder: Path
    outputs: frozenset[Path]
    results: list[str] = field(default_factory=list)
    dangling: list[str] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)

    def files(self) -> Iterator[Path]:
        """All files below the folder that are not hidden, and links to files that do not exist."""
        # Each folder is entered once, by whatever links it is reached: so cycles end. Folders come before links to
        # them, so that files have the names that they have without the links.
        seen = set()
        folders, links = [self.folder], list[Path]()
        while folders or links:
            place = folders.pop() if folders else links.pop(0)
            status = place.stat()
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            try:
                entries = sorted(os.scandir(place), key=lambda entry: entry.name)
            except OSError:
                self.closed.append(str(place.relative_to(self.folder)))
                continue
            if place != self.folder and self._is_output(place, {entry.name for entry in entries}):
                continue
            for entry in entries:
                path = place / entry.name
                if entry.name.startswith(".") or entry.name in _LEAVINGS:
                    continue
                if entry.is_dir():
                    (links if entry.is_symlink() else folders).append(path)
                elif entry.is_file() or (entry.is_symlink() and path.suffix.lower() in AUDIO_SUFFIXES):
                    yield path
                elif entry.is_symlink():
                    self.dangling.append(str(path.relative_to(self.folder)))

    def _is_output(self, place: Path, names: set[str]) -> bool:
        if place.resolve() in self.outputs:
            return True
        if any(marks <= names for marks in _RESULTS):
            self.results.append(str(place.relative_to(self.folder)))
            return True
        return False

    def report(self) -> Iterator[str]:
        """A line for each kind of what was passed over."""
        for names, what in (
            (self.results, "results of wavegen, which are not recordings"),
            (self.dangling, "links to what does not exist"),
            (self.closed, "folders that cannot be read; check their permissions"),
        ):
            if names:
                shown = ", ".join(names[:_MAX_NAMES_SHOWN]) + (", …" if len(names) > _MAX_NAMES_SHOWN else "")
                yield f"{self.folder}: passed over {shown}: {what}"


def _refuse_results_among(folder: Path, outputs: Sequence[Path]) -> None:
    """Refuse outputs that the next search could not tell from recordings."""
    corpus = folder.resolve()
    for output in outputs:
        place = Path(output).resolve()
        if corpus == place or corpus.is_relative_to(place / "audio"):
            raise OutputError(
                f"the results would be written among the recordings of {folder}",
                where=output,
                remedy="give another folder for the results",
            )


def _pattern_parts(pattern: str, folder: Path) -> tuple[str, ...]:
    path = PurePath(pattern)
    # With "..", names, and the files that are named after them, would lead out of the folder.
    fault = (
        "it is empty" if not path.parts
        else "it is an absolute path" if path.is_absolute()
        else "it leaves the folder" if ".." in path.parts
        else None
    )  # fmt: skip
    if fault:
        raise DataError(
            f"{pattern!r} is not a pattern for files in this folder ({fault})",
            where=folder,
            remedy="use one such as '**/*.wav'",
        )
    return path.parts


def _matches(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether the parts of a path match those of a glob, in which ``**`` stands for any number of folders."""
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return any(_matches(parts[skipped:], pattern[1:] or ("*",)) for skipped in range(len(parts)))
    return bool(parts) and fnmatchcase(parts[0], pattern[0]) and _matches(parts[1:], pattern[1:])


def _names(folder: Path, paths: Sequence[Path]) -> dict[str, Path]:
    """Name each recording by its path below the folder, without the suffix, and refuse names that cannot be used."""
    named: dict[str, Path] = {}
    for path in paths:
        relative = path.relative_to(folder)
        if fault := cell_fault(str(path)):
            raise DataError(f"the name {str(relative)!a} {fault}", where=folder, remedy="rename the file")
        name = relative.with_suffix("").as_posix().strip()
        if name in named:
            raise DataError(
                f"{named[name].name} and {path.name} share the name {path.stem.strip()!r}",
                where=folder,
                remedy="rename one, or use a narrower pattern such as '**/*.wav'",
            )
        named[name] = path
    return named


def _counts(suffixes: Counter[str]) -> str:
    return " and ".join(f"{count} {suffix} file{'s' * (count > 1)}" for suffix, count in suffixes.most_common())
