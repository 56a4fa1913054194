"""Recordings of speech24k, two speakers at 24 kHz. wavegen-train finds this file beside the recipe."""

import csv
from pathlib import Path
from typing import Any

from wavegen.corpora.manifest import Recording
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
    rows: list[dict[str, Any]] = []
    with open(manifest, encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE):  # transcripts contain quotes
            if not row.get("file") or row.get("split") not in ("train", "valid"):
                raise DataError(
                    f"row {len(rows) + 1} has no file, or its split is neither train nor valid",
                    where=manifest,
                    remedy="it needs the tab-separated columns file and split",
                )
            rows.append(row)
    if not rows:
        raise DataError("lists no recordings", where=manifest, remedy="copy the corpus again")
    missing = [row["file"] for row in rows if not (corpus / row["file"]).is_file()]
    if missing:
        raise DataError(
            f"{len(missing)} of the {len(rows)} recordings listed here are missing: "
            f"{', '.join(missing[:3])}{', …' if len(missing) > 3 else ''}",
            where=manifest,
            remedy="copy the corpus again",
        )
    paths = [corpus / row["file"] for row in rows]
    recordings = [
        Recording(_name(row["file"]), path, row["split"], speaker=path.parent.name)
        for row, path in zip(rows, paths, strict=True)
    ]
    return sorted(recordings, key=lambda recording: recording.name)


def _name(file: str) -> str:
    """Name by speaker and recording: ``kathleen/a0001`` for ``rhasspy-kathleen/kathleen/a0001.flac``."""
    return Path(*Path(file).parts[-2:]).with_suffix("").as_posix()
