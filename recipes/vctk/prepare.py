"""Recordings and speakers of VCTK 0.92 as distributed. wavegen-train finds this file beside the recipe."""

from dataclasses import replace
from pathlib import Path

from wavegen.corpora.manifest import Recording, split_recordings
from wavegen.errors import DataError

MICROPHONE = "_mic1"  # a second microphone recorded at the same time, but its files are missing for two speakers


def prepare(corpus: Path, held_out: float | str) -> list[Recording]:
    """List the recordings of the first microphone, named as ``p225/p225_001`` is for speaker ``p225``.

    ::

        VCTK-Corpus-0.92/
          wav48_silence_trimmed/p225/p225_001_mic1.flac    mono, 48 kHz; one folder per speaker
          wav48_silence_trimmed/p225/p225_001_mic2.flac    not used

    Args:
        corpus: the folder that has ``wav48_silence_trimmed``.
        held_out: the share of the recordings to use for validation, or a glob of their names, such as ``*_00[1-4]``.

    Raises:
        DataError: the folder is not this corpus.
    """
    folder = corpus / "wav48_silence_trimmed"
    paths = sorted(path for path in folder.glob(f"*/*{MICROPHONE}.flac") if not path.name.startswith("."))
    if not paths:
        raise DataError(
            f"not VCTK 0.92: no {folder.name}/SPEAKER/SPEAKER_001{MICROPHONE}.flac",
            where=corpus,
            remedy=f"give the folder that has {folder.name}",
        )
    named = {f"{path.parent.name}/{path.stem.removesuffix(MICROPHONE)}": path for path in paths}
    return [replace(r, speaker=r.path.parent.name) for r in split_recordings(named, held_out)]
