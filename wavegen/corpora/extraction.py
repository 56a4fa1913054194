"""Extraction: a folder of recordings to mel files and a manifest."""

import contextlib
import json
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from tqdm import tqdm

from wavegen.audio import audio_info, read_audio, write_audio
from wavegen.cores import usable_cores
from wavegen.corpora.manifest import Clip, Recording, read_manifest, write_manifest
from wavegen.corpora.pitch_labels import (
    FALLBACK_NOTE,
    PYIN,
    WORLD,
    installed_tracker,
    pitch_labels,
    require_tracker,
    save_labels,
)
from wavegen.corpora.teacher_forced import align
from wavegen.errors import AudioError, DataError, MelError, OutputError
from wavegen.files import atomic_write, lock_folder, require_folder
from wavegen.mel import LogMel, MelSpec, load_mel, save_mel
from wavegen.progress import bar_options, one_torch_thread

MANIFEST = "manifest.tsv"
# States the definition and the recordings that the folder's mels were made from, and what tracked their pitch. The
# recordings that were left out are added last; without them, the extraction is unfinished.
MARKER = "complete.json"
# Containers in which training can read a segment without decoding everything before it.
SEEKABLE_SUFFIXES = {".wav", ".flac"}


@dataclass(frozen=True)
class Extraction:
    """The result of an extraction.

    Attributes:
        clips: the extracted clips.
        left_out: name → reason of each recording that could not be used.
        was_complete: whether everything had been extracted before.
        replaced_fields: fields of the mel definition in which the mels that were there before differed.
        shifts: name → frames by which a predicted mel lagged, for those that did.
        labelled: number of clips whose pitch was labelled in this call.
        tracker: what found the pitch; None if no pitch labels were asked for.
    """

    clips: list[Clip]
    left_out: dict[str, str]
    was_complete: bool = False
    replaced_fields: tuple[str, ...] = ()
    shifts: dict[str, int] = field(default_factory=dict)
    labelled: int = 0
    tracker: str | None = None

    def notes(self) -> str:
        """What to append to a line about the extraction: mels replaced or shifted, and pitch that was labelled."""
        notes = f", replacing mels with another {', '.join(self.replaced_fields)}" if self.replaced_fields else ""
        if self.shifts:
            most = Counter(self.shifts.values()).most_common(3)
            frames = ", ".join(f"{count} by {shift:+d}" for shift, count in most)
            notes += f"; {len(self.shifts)} predicted mels lagged (frames: {frames}) and were aligned"
        if self.labelled:
            tracker = FALLBACK_NOTE if self.tracker == PYIN else self.tracker
            notes += f"; pitch of {self.labelled} clips labelled by {tracker}"
        return notes

    def left_out_report(self) -> str | None:
        """The recordings that were left out, one a line; None if there are none."""
        if not self.left_out:
            return None
        return "\n".join([f"{len(self.left_out)} left out:", *(f"  {reason}" for reason in self.left_out.values())])


def extract(
    recordings: Sequence[Recording],
    out: Path,
    spec: MelSpec,
    *,
    labels_pitch: bool = False,
    jobs: int | None = None,
    progress: bool = True,
) -> Extraction:
    """Write a mel file for each recording, and a manifest of all.

    Results of an earlier call are kept: all of them if nothing has changed since, otherwise the mels and pitch labels
    of the recordings that have not changed. Another mel definition replaces them all. Labels by pYIN are replaced once
    WORLD is installed. A recording that cannot be used is left out with its reason and does not stop the others.

    Args:
        recordings: from ``find_recordings``, ``read_recordings`` or ``split_recordings``.
        out: the folder for ``manifest.tsv``, ``mels/`` and, for recordings that are not mono at the definition's sample
            rate in a seekable container, ``audio/``; and ``f0/`` for pitch labels.
        spec: the mel definition.
        labels_pitch: whether to store the pitch of the training audio too, as ``pitch_labels`` finds it.
        jobs: the number of threads; None for one per core.
        progress: whether to show a progress bar on stderr.

    Raises:
        DataError: no recording can be used, or pitch labels are needed and no tracker is installed.
        OutputError: the folder cannot be written, another process extracts to it, or a result would overwrite a
            recording or a predicted mel.
    """
    out = Path(out).absolute()
    require_folder(out)
    _refuse_to_overwrite(recordings, out)
    if is_complete(recordings, out, spec, labels_pitch=labels_pitch):
        clips = read_manifest(out / MANIFEST, Clip)
        if not labels_pitch:  # the folder may have labels, for other vocoders
            clips = [replace(clip, f0=None) for clip in clips]
        return Extraction(clips, _read_marker(out)["left_out"], was_complete=True)
    # Two processes with different recordings or definitions would leave the marker of one and the mels of both.
    with lock_folder(out, "wait for it, or give another folder for the results"):
        tracker = require_tracker() if labels_pitch else None
        return _extract(recordings, out, spec, tracker, jobs or usable_cores(), progress)


def _extract(
    recordings: Sequence[Recording], out: Path, spec: MelSpec, tracker: str | None, jobs: int | None, progress: bool
) -> Extraction:
    # Remove the results of recordings that have changed, then write the marker: once it names a recording, a mel of
    # that name is taken for that recording's. Comparing times would not do, because a recording that was moved or
    # unpacked here can be older than its mel. Pitch labels are treated alike, whether this call needs them or not.
    before, fingerprint = _read_marker(out), _fingerprint(recordings, spec)
    for recording in _changed_recordings(recordings, before, fingerprint):
        _remove(_mel_path(recording, out))
        _remove(_labels_path(recording, out))
    if tracker and not _has_good_labels(before):
        for recording in recordings:
            _remove(_labels_path(recording, out))
    fingerprint["tracker"] = tracker or before.get("tracker")
    _write_marker(out, fingerprint)

    # Extract in threads, as WORLD does not hold Python's lock either; a recording that cannot be used results in the
    # reason.
    log_mel = LogMel(spec)
    labelled: list[str] = []

    def extract_or_explain(recording: Recording) -> tuple[Clip, int] | str:
        try:
            clip, shift = _extract_one(recording, out, log_mel)
            if tracker is None:
                return clip, shift
            clip = replace(clip, f0=_labels_path(recording, out))
            if _label(clip, spec, tracker):
                labelled.append(clip.name)
            return clip, shift
        except (AudioError, MelError, DataError) as error:
            error.where = error.where or recording.path  # LogMel does not know the file
            return str(error)

    with one_torch_thread(), ThreadPoolExecutor(jobs) as pool:
        done = pool.map(extract_or_explain, recordings)
        bar = tqdm(done, total=len(recordings), desc="extracting", unit="clip", disable=not progress, **bar_options())
        results = list(bar)
    made = [result for result in results if not isinstance(result, str)]
    clips = [clip for clip, _ in made]
    shifts = {clip.name: shift for clip, shift in made if shift}
    left_out = {r.name: result for r, result in zip(recordings, results, strict=True) if isinstance(result, str)}
    if not clips:
        first = f"; the first: {next(iter(left_out.values()))}" if left_out else ""
        raise DataError(f"none of {len(recordings)} recordings can be used{first}", where=out)

    # Write the manifest, then complete the marker.
    write_manifest(out / MANIFEST, clips)
    _write_marker(out, {**fingerprint, "has_labels": tracker is not None, "left_out": left_out})
    replaced_fields = _differing_fields(before.get("mel"), spec)
    return Extraction(
        clips, left_out, replaced_fields=replaced_fields, shifts=shifts, labelled=len(labelled), tracker=tracker
    )


def is_complete(recordings: Sequence[Recording], out: Path, spec: MelSpec, *, labels_pitch: bool = False) -> bool:
    """Whether ``extract`` has finished for exactly these recordings, as they are now, and with these arguments."""
    marker = _read_marker(Path(out))
    is_finished = "left_out" in marker and (Path(out) / MANIFEST).is_file()
    if not is_finished or (labels_pitch and not (marker.get("has_labels") and _has_good_labels(marker))):
        return False
    if labels_pitch:  # a user who deletes bad labels gets new ones
        used = (recording for recording in recordings if recording.name not in marker["left_out"])
        if not all(_labels_path(recording, Path(out)).exists() for recording in used):
            return False
    return all(marker.get(key) == value for key, value in _fingerprint(recordings, spec).items())


def _has_good_labels(marker: dict[str, Any]) -> bool:
    """Whether the labels that a marker names are by the best tracker, or by the best that is installed."""
    return marker.get("tracker") in (WORLD, installed_tracker() or PYIN)


def _label(clip: Clip, spec: MelSpec, tracker: str) -> bool:
    """Write the pitch labels of a clip's training audio, unless they are there; returns whether it did."""
    assert clip.f0 is not None
    if clip.f0.exists():
        return False
    save_labels(clip.f0, pitch_labels(read_audio(clip.audio), spec, tracker))
    return True


def _extract_one(recording: Recording, out: Path, log_mel: LogMel) -> tuple[Clip, int]:
    """The clip, and the frames by which a predicted mel lagged."""
    if recording.mel is not None:
        return _extract_pair(recording, recording.mel, out, log_mel)
    spec, info = log_mel.spec, audio_info(recording.path)
    is_seekable = recording.path.suffix.lower() in SEEKABLE_SUFFIXES
    usable_as_it_is = is_seekable and info.channels == 1 and info.sample_rate_hz == spec.sample_rate_hz
    mel_path = _mel_path(recording, out)
    audio_path = recording.path.absolute() if usable_as_it_is else _audio_path(recording, out)
    if mel_path.exists() and audio_path.exists():
        samples = audio_info(audio_path).samples
    else:
        audio = read_audio(recording.path, spec.sample_rate_hz)
        mel = log_mel(torch.from_numpy(audio)[None])[0].numpy()
        if not usable_as_it_is:
            write_audio(audio_path, audio, spec.sample_rate_hz)
        save_mel(mel_path, mel, spec)
        samples = len(audio)
    frames = spec.frames(samples)
    return Clip(recording.name, recording.split, samples, frames, audio_path, mel_path, recording.speaker), 0


def _extract_pair(recording: Recording, predicted_path: Path, out: Path, log_mel: LogMel) -> tuple[Clip, int]:
    """Write the frames that a recording and the mel that a TTS predicted for it share."""
    spec = log_mel.spec

    # Align the two.
    predicted, _ = load_mel(predicted_path, spec)
    audio = read_audio(recording.path, spec.sample_rate_hz)
    natural = log_mel(torch.from_numpy(audio)[None])[0].numpy()
    try:
        alignment = align(predicted, natural)
    except DataError as error:
        error.where = predicted_path
        raise

    # Cut both to the shared frames.
    first, frames = alignment.first, alignment.frames
    audio = audio[first * spec.hop_length : (first + frames) * spec.hop_length]
    predicted = predicted[:, first + alignment.shift :][:, :frames]
    mel_path, audio_path = _mel_path(recording, out), _audio_path(recording, out)
    write_audio(audio_path, audio, spec.sample_rate_hz)
    save_mel(mel_path, predicted, spec)
    clip = Clip(recording.name, recording.split, len(audio), frames, audio_path, mel_path, recording.speaker)
    return clip, alignment.shift


def _refuse_to_overwrite(recordings: Sequence[Recording], out: Path) -> None:
    for recording in recordings:
        pairs = ((recording.path, _audio_path(recording, out)), (recording.mel, _mel_path(recording, out)))
        for given, result in pairs:
            if given is not None and given.resolve() == result.resolve():
                what = "would be overwritten by its own extraction"
                raise OutputError(what, where=given, remedy="give another folder for the results")


def _mel_path(recording: Recording, out: Path) -> Path:
    return out / "mels" / f"{recording.name}.npz"


def _audio_path(recording: Recording, out: Path) -> Path:
    return out / "audio" / f"{recording.name}.flac"


def _labels_path(recording: Recording, out: Path) -> Path:
    return out / "f0" / f"{recording.name}.npy"


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        remedy = "check the folder's permissions"
        raise OutputError(f"cannot replace: {error.strerror}", where=path, remedy=remedy) from error


def _fingerprint(recordings: Sequence[Recording], spec: MelSpec) -> dict[str, Any]:
    """What must stay the same for results to be kept: the definition, and what identifies each recording."""
    identities = []
    for recording in recordings:
        # Name, split and speaker, then path, size and time of each file.
        identity: list[Any] = [recording.name, [recording.split, recording.speaker]]
        for path in (recording.path, recording.mel):
            if path is not None:
                identity += [str(path.absolute()), *_size_and_time(path)]
        identities.append(identity)
    return {"mel": spec.model_dump(mode="json"), "recordings": identities}


def _size_and_time(path: Path) -> list[int]:
    try:
        stat = path.stat()
    except OSError:  # reading the file will report the error
        return [0, 0]
    return [stat.st_size, stat.st_mtime_ns]


def _changed_recordings(
    recordings: Sequence[Recording], before: dict[str, Any], now: dict[str, Any]
) -> list[Recording]:
    """The recordings whose files differ between two fingerprints; all of them if the definitions differ."""
    known = {name: rest for name, _, *rest in before.get("recordings", [])} if before.get("mel") == now["mel"] else {}
    pairs = zip(recordings, now["recordings"], strict=True)
    return [recording for recording, (name, _, *rest) in pairs if known.get(name) != rest]


def _differing_fields(before: object, spec: MelSpec) -> tuple[str, ...]:
    """The fields in which a definition read from a marker differs; none if the marker has no valid definition."""
    try:
        return tuple(MelSpec.model_validate_json(json.dumps(before)).differences(spec))
    except ValidationError:
        return ()


def _write_marker(out: Path, content: dict[str, Any]) -> None:
    with atomic_write(out / MARKER) as beside:
        beside.write_text(json.dumps(content, indent=1), encoding="utf-8")


def _read_marker(out: Path) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError):
        marker = json.loads((out / MARKER).read_text(encoding="utf-8"))
        if isinstance(marker, dict):
            return marker
    return {}
