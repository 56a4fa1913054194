"""Recordings of LJSpeech-1.1 as distributed. wavegen-train finds this file beside the recipe."""

from collections import Counter
from pathlib import Path

from wavegen.corpora.lists import read_lines
from wavegen.corpora.manifest import Recording, refuse_missing, split_recordings
from wavegen.errors import DataError


def prepare(corpus: Path, held_out: float | str) -> list[Recording]:
    """List the recordings in ``metadata.csv``; the id of each is its name.

    ::

        LJSpeech-1.1/
          metadata.csv          one line per recording: LJ001-0001|text|normalised text, without quoting
          wavs/LJ001-0001.wav   mono, 22050 Hz, 16 bits

    Args:
        corpus: the folder ``LJSpeech-1.1``.
        held_out: the share of the recordings to use for validation, or a glob of their ids, such as ``LJ050-*``.

    Raises:
        DataError: the folder is not this corpus, or recordings are missing.
    """
    metadata, wavs = corpus / "metadata.csv", corpus / "wavs"
    absent = [name for name, found in (("metadata.csv", metadata.is_file()), ("wavs/", wavs.is_dir())) if not found]
    if absent:
        raise DataError(
            f"not LJSpeech-1.1: no {' and no '.join(absent)}",
            where=corpus,
            remedy="give the folder LJSpeech-1.1 from the archive, which has metadata.csv and wavs/ID.wav",
        )
    # Only the ids are used, so errors in the encoding of a text do not matter.
    ids = [line.cells[0].strip().removesuffix(".wav") for line in read_lines(metadata, "|", errors="replace")]
    if not ids:
        raise DataError("lists no recordings", where=metadata, remedy="unpack the archive again")
    twice = [name for name, count in Counter(ids).items() if count > 1]
    if twice:
        what = f"lists {len(twice)} recordings twice: {', '.join(twice[:3])}"
        raise DataError(what, where=metadata, remedy="unpack the archive again")
    found = {name: wavs / f"{name}.wav" for name in ids}
    recordings = split_recordings(found, held_out)
    refuse_missing(recordings, metadata, "unpack the archive again")
    return recordings
