"""speech24k, two speakers at 24 kHz: which recordings it has. wavegen-train finds this file beside the recipe."""

import csv
from pathlib import Path
from typing import Any

from wavegen.corpora.manifest import Recording
from wavegen.errors import DataError


def prepare(corpus: Path, held_out: float | str) -> list[Recording]:
    """List the recordings of ``MANIFEST.tsv`` in the splits that it gives them.

    ::

        speech24k/
          MANIFEST.tsv                                tab-separated, with the columns file, split (train, valid)
          rhasspy-kathleen/kathleen/*.flac            mono, 24 kHz, 16 bits
          rhasspy-flemishguy/flemishguy/*.flac

    Args:
        corpus: the folder that holds ``MANIFEST.tsv``.
        held_out: not used, because the manifest says it.

    Raises:
        DataError: the folder is not this corpus, or recordings are missing.
    """
    manifest = corpus / "MANIFEST.tsv"
    if not manifest.is_file():
        raise DataError(
            "not speech24k, which has MANIFEST.tsv: none here", where=corpus, remedy="give the folder that holds it"
        )
    rows: list[dict[str, Any]] = []
    with open(manifest, encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE):  # transcripts have quotes in them
            if not row.get("file") or row.get("split") not in ("train", "valid"):
                raise DataError(
                    f"row {len(rows) + 1} has no file, or a split that is neither train nor valid",
                    where=manifest,
                    remedy="it needs the tab-separated columns file and split",
                )
            rows.append(row)
    if not rows:
        raise DataError("names no recordings", where=manifest, remedy="copy the corpus again")
    missing = [row["file"] for row in rows if not (corpus / row["file"]).is_file()]
    if missing:
        raise DataError(
            f"{len(missing)} of its {len(rows)} recordings are missing: "
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
    """Speaker and recording: ``rhasspy-kathleen/kathleen/arctic_a0001.flac`` is ``kathleen/arctic_a0001``."""
    return Path(*Path(file).parts[-2:]).with_suffix("").as_posix()
