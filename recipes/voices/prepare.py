"""Recordings of one corpus or several, each with its MANIFEST.tsv. wavegen-train finds this file beside the recipe."""

from dataclasses import replace
from pathlib import Path

from wavegen.corpora.manifest import Recording, listed_recordings
from wavegen.errors import DataError


def prepare(corpus: Path, held_out: float | str) -> list[Recording]:
    """List the recordings of all corpora in a folder, with the splits that their manifests give.

    A recording's name begins with the name of its corpus's folder. The folder may also be a single corpus::

        data/
          speech24k/MANIFEST.tsv       tab-separated, with the columns file, split (train, valid), and maybe speaker
          speech24k/…/*.flac
          voices24k/MANIFEST.tsv
          voices24k/…/*.flac

    Args:
        corpus: the folder that holds the corpora, or one of them.
        held_out: not used, because the manifests have a column for it.

    Raises:
        DataError: there is no MANIFEST.tsv, or recordings are missing.
    """
    corpora = sorted(path.parent for path in (*corpus.glob("MANIFEST.tsv"), *corpus.glob("*/MANIFEST.tsv")))
    if not corpora:
        raise DataError(
            "no MANIFEST.tsv in it, nor in a folder in it",
            where=corpus,
            remedy="give a corpus that has one, or the folder that holds such corpora",
        )
    return [
        replace(recording, name=f"{folder.absolute().name}/{recording.name}")
        for folder in corpora
        for recording in sorted(listed_recordings(folder), key=lambda recording: recording.name)
    ]
