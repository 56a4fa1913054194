"""The marker of an extraction: what its results were made from, so that only what changed is made again."""

import contextlib
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from wavegen.corpora.manifest import Recording
from wavegen.files import atomic_write
from wavegen.mel import MelSpec

# States the definition and the recordings that the folder's mels were made from, and what tracked their pitch. What
# only the end of an extraction knows, such as the recordings that were left out, is added last; without it, the
# extraction is unfinished.
MARKER = "complete.json"
_FORMAT = 2  # since format 2, mels are made from the samples that are trained on, after rounding and clipping
_BLOCK = 1 << 20


def read_marker(out: Path) -> dict[str, Any]:
    """The content of a folder's marker; empty if there is none, or it is damaged."""
    with contextlib.suppress(OSError, ValueError):
        marker = json.loads((out / MARKER).read_text(encoding="utf-8"))
        if isinstance(marker, dict):
            return marker
    return {}


def write_marker(out: Path, content: Mapping[str, Any]) -> None:
    """Write a folder's marker; raises OutputError if that is not possible."""
    with atomic_write(out / MARKER) as beside:
        beside.write_text(json.dumps(content, indent=1), encoding="utf-8")


def fingerprint(recordings: Sequence[Recording], spec: MelSpec) -> dict[str, Any]:
    """What must stay the same for results to be kept: the definition, and what identifies each recording."""
    identities = []
    for recording in recordings:
        # Name, split and speaker, then path, size and time of each file.
        identity: list[Any] = [recording.name, [recording.split, recording.speaker]]
        for path in files_of(recording):
            identity += [str(path.absolute()), *_size_and_time(path)]
        identities.append(identity)
    return {"format": _FORMAT, "mel": spec.model_dump(mode="json"), "recordings": identities}


def files_of(recording: Recording) -> list[Path]:
    """The recording's audio file, and its predicted mel if it has one."""
    return [recording.path] if recording.mel is None else [recording.path, recording.mel]


def _size_and_time(path: Path) -> list[int]:
    try:
        stat = path.stat()
    except OSError:  # reading the file will report the error
        return [0, 0]
    return [stat.st_size, stat.st_mtime_ns]


def digest(recording: Recording) -> str | None:
    """A hash of the content of the recording's files; None if one cannot be read."""
    total = hashlib.blake2b(digest_size=16)
    try:
        for path in files_of(recording):
            with open(path, "rb") as file:
                while block := file.read(_BLOCK):
                    total.update(block)
    except OSError:
        return None
    return total.hexdigest()


def changed_recordings(
    recordings: Sequence[Recording], before: Mapping[str, Any], now: Mapping[str, Any]
) -> list[Recording]:
    """The recordings whose files differ between two fingerprints; all of them if the definitions differ.

    A file of another place or time is the same if it has the same size and content: a corpus that was moved or copied
    has not changed.
    """
    if any(before.get(key) != now[key] for key in ("format", "mel")):
        return list(recordings)
    known = {name: rest for name, _, *rest in before.get("recordings", [])}
    digests = before.get("digests", {})

    def is_same(recording: Recording, rest: list[Any]) -> bool:
        earlier = known.get(recording.name, [])
        if earlier == rest:
            return True
        if earlier[1::3] != rest[1::3] or recording.name not in digests:  # sizes
            return False
        return bool(digests[recording.name] == digest(recording))

    pairs = zip(recordings, now["recordings"], strict=True)
    return [recording for recording, (_, _, *rest) in pairs if not is_same(recording, rest)]


def has_same_content(recordings: Sequence[Recording], out: Path, spec: MelSpec) -> bool:
    """Whether a finished extraction was made from recordings with these names, splits, speakers and contents."""
    before, now = read_marker(out), fingerprint(recordings, spec)
    if "left_out" not in before:
        return False
    if [row[:2] for row in before.get("recordings", [])] != [row[:2] for row in now["recordings"]]:
        return False
    changed = changed_recordings(recordings, before, now)
    return all(recording.name in before["left_out"] for recording in changed)


def differing_fields(before: object, spec: MelSpec) -> tuple[str, ...]:
    """The fields in which a definition read from a marker differs; none if the marker has no valid definition."""
    try:
        return tuple(MelSpec.model_validate_json(json.dumps(before)).differences(spec))
    except ValidationError:
        return ()
