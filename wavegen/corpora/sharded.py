"""Extraction in shards: each makes its part of the mels, and a merge makes the folder that one extraction makes."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from wavegen.corpora.extraction import MANIFEST, Extraction, extract, finish, refuse_to_overwrite
from wavegen.corpora.manifest import Clip, Recording, read_manifest
from wavegen.corpora.marker import MARKER, fingerprint, read_marker
from wavegen.errors import DataError
from wavegen.files import lock_folder, require_folder
from wavegen.mel import MelSpec
from wavegen.shards import PART, Part, Shard, join_parts, move_files, remove_parts, write_part

# What the marker says by a recording's name, besides the reasons of those that were left out.
_BY_NAME = ("digests", "peaks", "resampled")


def extract_part(
    recordings: Sequence[Recording],
    out: Path,
    spec: MelSpec,
    shard: Shard,
    *,
    jobs: int | None = None,
    progress: bool = True,
) -> Extraction:
    """Extract the recordings of one shard into its part of ``out``; an interrupted part goes on where it was.

    Args:
        recordings: those of this shard, ``shard.of(all_recordings)``; there may be none.
        out: the folder of the whole extraction.
        spec, jobs, progress: those of ``extract``.
        shard: the shard.

    Raises:
        OutputError: see ``extract``.
    """
    out = Path(out).absolute()
    require_folder(out)
    refuse_to_overwrite(recordings, out)
    folder = shard.folder(out)
    (folder / PART).unlink(missing_ok=True)
    result = extract(recordings, folder, spec, jobs=jobs, progress=progress, may_be_empty=True)

    made = [path for clip in result.clips for path in (clip.mel, clip.audio) if path.is_relative_to(folder)]
    marker = read_marker(folder)
    settings, items = _settings_and_items(recordings, spec)
    write_part(
        Part(
            shard,
            folder,
            items=items,
            settings=settings,
            files=[path.relative_to(folder).as_posix() for path in made],
            results={"left_out": result.left_out, **{key: marker.get(key, {}) for key in _BY_NAME}},
        )
    )
    return result


def merge_extraction(recordings: Sequence[Recording], out: Path, spec: MelSpec) -> Extraction:
    """Join the parts of all shards to what one ``extract`` of all recordings makes, byte for byte.

    Args:
        recordings: the recordings of all shards.
        out: the folder of the whole extraction.
        spec: the mel definition that the shards were given.

    Raises:
        DataError: the parts have gaps, overlaps or different settings, or no recording could be used.
        OutputError: the folder cannot be written, or another process extracts to it.
    """
    out = Path(out).absolute()
    refuse_to_overwrite(recordings, out)
    settings, items = _settings_and_items(recordings, spec)
    parts = join_parts(out, items, settings)
    _refuse_two_resamplers(parts)

    # Everything in the order of the recordings, as one extraction writes it.
    found = _clips(parts, out)
    clips = [found[recording.name] for recording in recordings if recording.name in found]
    left_out, digests, peaks, resampled = (_joined(parts, key, recordings) for key in ("left_out", *_BY_NAME))
    if not clips:
        raise DataError(f"none of {len(recordings)} recordings can be used", where=out)

    with lock_folder(out, "wait for it"):
        # Without a marker, mels of an earlier extraction are never taken for those of these recordings.
        (out / MARKER).unlink(missing_ok=True)
        move_files(parts, out)
        known = {"digests": digests, "peaks": peaks, "resampled": resampled}
        marker = {**fingerprint(recordings, spec), "tracker": None, **known, "has_labels": False}
        finish(out, clips, {**marker, "left_out": left_out})
        remove_parts(out)
    return Extraction(clips, left_out, peaks=peaks, resampled=resampled)


def _settings_and_items(recordings: Sequence[Recording], spec: MelSpec) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the mels depend on besides the recordings, and name → identity of each recording."""
    settings = fingerprint(recordings, spec)
    items = {name: rest for name, *rest in settings.pop("recordings")}
    return settings, items


def _clips(parts: Sequence[Part], out: Path) -> dict[str, Clip]:
    """Name → clip of all parts, with the files where they will be."""

    def moved(path: Path, part: Part) -> Path:
        return out / path.relative_to(part.folder) if path.is_relative_to(part.folder) else path

    return {
        clip.name: replace(clip, audio=moved(clip.audio, part), mel=moved(clip.mel, part))
        for part in parts
        if len(part.results["left_out"]) < len(part.items)  # otherwise it has no manifest
        for clip in read_manifest(part.folder / MANIFEST, Clip)
    }


def _joined(parts: Sequence[Part], key: str, recordings: Sequence[Recording]) -> dict[str, Any]:
    """Name → value of one of the parts' results, for the recordings that have one, in their order."""
    found = {name: value for part in parts for name, value in part.results[key].items()}
    return {recording.name: found[recording.name] for recording in recordings if recording.name in found}


def _refuse_two_resamplers(parts: Sequence[Part]) -> None:
    """Raise DataError if machines with torchaudio and machines without it resampled the recordings."""
    first: dict[str, Part] = {}
    for part in parts:
        for package in part.results["resampled"].values():
            first.setdefault(package, part)
    if len(first) > 1:
        (one, part), (other, other_part), *_ = sorted(first.items())
        raise DataError(
            f"{one} resampled in shard {part.shard}, {other} in shard {other_part.shard}, which differs from one run",
            where=part.folder.parent,
            remedy="install the same packages on all machines and run one of them again",
        )
