"""Recordings of speech24k, two speakers at 24 kHz. wavegen-train finds this file beside the recipe."""

from dataclasses import replace
from pathlib import Path, PurePath

from wavegen.corpora.manifest import Recording, listed_recordings
from wavegen.errors import DataError


def prepare(corpus: Path, held_out: float | str) -> list[Recording]:
    """List the recordings in ``MANIFEST.tsv``, with the splits given there.

    ::

        speech24k/
          MANIFEST.tsv                                tab-separated, with the columns file, split (train, valid)
          rhasspy-kathleen/kathleen/*.flac            mono, 24 kHz, 16 bits
          rhasspy-flemishguy/flemishguy/*.flac

    Args:
        corpus: the folder that holds ``MANIFEST.tsv``.
        held_out: not used, because the manifest has a column for it.

    Raises:
        DataError: the folder is not this corpus, or recordings are missing.
    """
    manifest = corpus / "MANIFEST.tsv"
    if not manifest.is_file():
        remedy = "give the folder that has MANIFEST.tsv"
        raise DataError("not speech24k: no MANIFEST.tsv", where=corpus, remedy=remedy)
    # The name is kathleen/a0001 for rhasspy-kathleen/kathleen/a0001.flac.
    recordings = [
        replace(recording, name="/".join(PurePath(recording.name).parts[-2:]), speaker=recording.path.parent.name)
        for recording in listed_recordings(corpus)
    ]
    return sorted(recordings, key=lambda recording: recording.name)
