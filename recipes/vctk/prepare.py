"""VCTK 0.92 as distributed: what it has, and who speaks. wavegen-train finds this file beside the recipe."""

from dataclasses import replace
from pathlib import Path

from wavegen.corpora.manifest import Recording, split_recordings
from wavegen.errors import DataError

MICROPHONE = "_mic1"  # mic2, a second one at the same time, is missing for two speakers


def prepare(corpus: Path, held_out: float | str) -> list[Recording]:
    """List what the first microphone recorded, each as ``p225/p225_001`` of speaker ``p225``.

    ::

        VCTK-Corpus-0.92/
          wav48_silence_trimmed/p225/p225_001_mic1.flac    mono, 48 kHz; a folder for each speaker
          wav48_silence_trimmed/p225/p225_001_mic2.flac    not used

    Args:
        corpus: the folder that holds ``wav48_silence_trimmed``.
        held_out: a share of the recordings, or a glob of their names, such as ``*_00[1-4]``.

    Raises:
        DataError: the folder is not this corpus.
    """
    folder = corpus / "wav48_silence_trimmed"
    paths = sorted(path for path in folder.glob(f"*/*{MICROPHONE}.flac") if not path.name.startswith("."))
    if not paths:
        raise DataError(
            f"not VCTK 0.92, which has {folder.name}/SPEAKER/SPEAKER_001{MICROPHONE}.flac: none here",
            where=corpus,
            remedy=f"give the folder that holds {folder.name}",
        )
    named = {f"{path.parent.name}/{path.stem.removesuffix(MICROPHONE)}": path for path in paths}
    return [replace(r, speaker=r.path.parent.name) for r in split_recordings(named, held_out)]
