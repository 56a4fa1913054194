"""Recordings of LJSpeech-1.1 as distributed. wavegen-train finds this file beside the recipe."""

from pathlib import Path

from wavegen.corpora.manifest import Recording, split_recordings
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
    lines = metadata.read_text(encoding="utf-8", errors="replace").split("\n")
    ids = [line.split("|")[0] for line in lines if line.strip()]
    if not ids:
        raise DataError("lists no recordings", where=metadata, remedy="unpack the archive again")
    found = {path.stem: path for path in wavs.glob("*.wav")}
    missing = [name for name in ids if name not in found]
    if missing:
        raise DataError(
            f"{len(missing)} of the {len(ids)} recordings listed in metadata.csv are missing: "
            f"{', '.join(f'{name}.wav' for name in missing[:3])}{', …' if len(missing) > 3 else ''}",
            where=wavs,
            remedy="unpack the archive again",
        )
    return split_recordings({name: found[name] for name in ids}, held_out)
