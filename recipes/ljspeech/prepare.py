"""LJSpeech-1.1 as distributed: which recordings it has. wavegen-train finds this file beside the recipe."""

from pathlib import Path

from wavegen.corpora.manifest import Recording, split_recordings
from wavegen.errors import DataError


def prepare(corpus: Path, held_out: float | str) -> list[Recording]:
    """List the recordings that ``metadata.csv`` names, each under its id.

    ::

        LJSpeech-1.1/
          metadata.csv          LJ001-0001|text|normalised text, a line for each recording, not quoted
          wavs/LJ001-0001.wav   mono, 22050 Hz, 16 bits

    Args:
        corpus: the folder ``LJSpeech-1.1``.
        held_out: a share of the recordings, or a glob of their ids, such as ``LJ050-*``.

    Raises:
        DataError: the folder is not this corpus, or recordings are missing.
    """
    metadata, wavs = corpus / "metadata.csv", corpus / "wavs"
    absent = [name for name, found in (("metadata.csv", metadata.is_file()), ("wavs/", wavs.is_dir())) if not found]
    if absent:
        raise DataError(
            f"not LJSpeech, which has metadata.csv (lines of id|text|normalised text) and wavs/ID.wav: "
            f"no {' and no '.join(absent)} here",
            where=corpus,
            remedy="give the folder LJSpeech-1.1 that the archive unpacks to",
        )
    lines = metadata.read_text(encoding="utf-8", errors="replace").split("\n")  # of which the ids alone are used
    ids = [line.split("|")[0] for line in lines if line.strip()]
    if not ids:
        raise DataError("names no recordings", where=metadata, remedy="unpack the archive again")
    found = {path.stem: path for path in wavs.glob("*.wav")}
    missing = [name for name in ids if name not in found]
    if missing:
        raise DataError(
            f"{len(missing)} of the {len(ids)} recordings in metadata.csv are missing: "
            f"{', '.join(f'{name}.wav' for name in missing[:3])}{', …' if len(missing) > 3 else ''}",
            where=wavs,
            remedy="unpack the archive again",
        )
    return split_recordings({name: found[name] for name in ids}, held_out)
