"""Extraction: a folder of recordings to mel files and a manifest."""

from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from wavegen.audio import audio_info, read_audio, rounded_to_int16, write_audio
from wavegen.audio.resampling import installed_resampler
from wavegen.cores import usable_cores
from wavegen.corpora.levels import level_notes
from wavegen.corpora.manifest import Clip, Recording, read_manifest, write_manifest
from wavegen.corpora.marker import (
    changed_recordings,
    differing_fields,
    digest,
    fingerprint,
    read_marker,
    write_marker,
)
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
from wavegen.files import lock_folder, require_folder
from wavegen.mel import LogMel, MelSpec, load_mel, save_mel
from wavegen.progress import bar_options, one_torch_thread

MANIFEST = "manifest.tsv"


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
        tracker: the program that found the pitch; None if no pitch labels were asked for.
        peaks: name → the largest magnitude of the recording's samples.
        resampled: name → the package that resampled the recording, for those that were.
    """

    clips: list[Clip]
    left_out: dict[str, str]
    was_complete: bool = False
    replaced_fields: tuple[str, ...] = ()
    shifts: dict[str, int] = field(default_factory=dict)
    labelled: int = 0
    tracker: str | None = None
    peaks: Mapping[str, float] = field(default_factory=dict)
    resampled: Mapping[str, str] = field(default_factory=dict)

    def notes(self) -> str:
        """What to append to a line about the extraction: mels replaced or shifted, pitch labelled, and levels."""
        notes = f", replacing mels with another {', '.join(self.replaced_fields)}" if self.replaced_fields else ""
        if self.shifts:
            most = Counter(self.shifts.values()).most_common(3)
            frames = ", ".join(f"{count} by {shift:+d}" for shift, count in most)
            notes += f"; {len(self.shifts)} predicted mels lagged (frames: {frames}) and were aligned"
        if self.labelled:
            tracker = FALLBACK_NOTE if self.tracker == PYIN else self.tracker
            notes += f"; pitch of {self.labelled} clips labelled by {tracker}"
        if len(resamplers := Counter(self.resampled.values())) > 1:
            counts = ", ".join(f"{count} by {package}" for package, count in sorted(resamplers.items()))
            notes += f"; two packages resampled the recordings ({counts}): remove the folder to use one for all"
        return "; ".join([notes, *level_notes(self.peaks)])

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
    may_be_empty: bool = False,
) -> Extraction:
    """Write a mel file for each recording, and a manifest of all.

    Results of an earlier call are kept: all of them if nothing has changed since, otherwise the mels and pitch labels
    of the recordings that have not changed, wherever they are now. What is missing is made again. Another mel
    definition replaces them all. Labels by pYIN are replaced once WORLD is installed. Mels are computed from the
    samples that are trained on: of a recording that is converted, from the copy of 16 bits, in which samples beyond
    full scale are clipped. A recording that cannot be used is left out with its reason and does not stop the others.

    Args:
        recordings: the recordings, as ``find_recordings``, ``read_recordings`` or ``split_recordings`` lists them.
        out: the folder for ``manifest.tsv``, ``mels/`` and, for recordings that are not mono at the definition's sample
            rate in a file whose parts can be read alone, ``audio/``; and ``f0/`` for pitch labels.
        spec: the mel definition.
        labels_pitch: whether to store the pitch of the training audio too, as ``pitch_labels`` finds it.
        jobs: the number of threads; None for one per core.
        progress: whether to show a progress bar on stderr.
        may_be_empty: whether no recording at all need be usable, as in a part of a corpus; without clips, no manifest
            is written.

    Raises:
        DataError: no recording can be used, or pitch labels are needed and no tracker is installed.
        OutputError: the folder cannot be written, another process extracts to it, or a result would overwrite a
            recording or a predicted mel.
    """
    out = Path(out).absolute()
    require_folder(out)
    refuse_to_overwrite(recordings, out)
    if (clips := _finished_clips(recordings, out, spec, labels_pitch)) is not None:
        if not labels_pitch:  # the folder may have labels, for other vocoders
            clips = [replace(clip, f0=None) for clip in clips]
        marker = read_marker(out)
        known = {key: marker.get(key, {}) for key in ("peaks", "resampled")}
        return Extraction(clips, marker["left_out"], was_complete=True, **known)
    # Two processes with different recordings or definitions would leave the marker of one and the mels of both.
    with lock_folder(out, "wait for it, or give another folder for the results"):
        tracker = require_tracker() if labels_pitch else None
        result = _extract(recordings, out, spec, tracker, jobs or usable_cores(), progress)
        if not (result.clips or may_be_empty):
            first = f"; the first: {next(iter(result.left_out.values()))}" if result.left_out else ""
            raise DataError(f"none of {len(recordings)} recordings can be used{first}", where=out)
        return result


def _extract(
    recordings: Sequence[Recording], out: Path, spec: MelSpec, tracker: str | None, jobs: int | None, progress: bool
) -> Extraction:
    # Remove the results of recordings that have changed, then write the marker: once it names a recording, a mel of
    # that name is taken for that recording's. Comparing times would not do, because a recording that was moved or
    # unpacked here can be older than its mel. Pitch labels are treated alike, whether this call needs them or not.
    before, now = read_marker(out), fingerprint(recordings, spec)
    changed = changed_recordings(recordings, before, now)
    for recording in changed:
        _remove(_mel_path(recording, out))
        _remove(_labels_path(recording, out))
    if tracker and not _has_good_labels(before):
        for recording in recordings:
            _remove(_labels_path(recording, out))
    now["tracker"] = tracker or before.get("tracker")
    kept = {recording.name for recording in recordings} - {recording.name for recording in changed}
    for key in ("digests", "peaks", "resampled"):
        now[key] = {name: value for name, value in before.get(key, {}).items() if name in kept}
    write_marker(out, now)

    # Extract in threads, as WORLD does not hold Python's lock either; a recording that cannot be used results in the
    # reason.
    log_mel = LogMel(spec)
    labelled: list[str] = []

    def extract_or_explain(recording: Recording) -> _Made | str:
        try:
            made = _extract_one(recording, out, log_mel, now["peaks"].get(recording.name))
            made = made._replace(digest=now["digests"].get(recording.name) or digest(recording))
            if tracker is None:
                return made
            clip = replace(made.clip, f0=_labels_path(recording, out))
            if _label(clip, spec, tracker):
                labelled.append(clip.name)
            return made._replace(clip=clip)
        except (AudioError, MelError, DataError) as error:
            error.where = error.where or recording.path  # LogMel does not know the file
            return str(error)

    with one_torch_thread(), ThreadPoolExecutor(jobs) as pool:
        done = pool.map(extract_or_explain, recordings)
        bar = tqdm(done, total=len(recordings), desc="extracting", unit="clip", disable=not progress, **bar_options())
        results = list(bar)
    made = [result for result in results if not isinstance(result, str)]
    clips = [result.clip for result in made]
    shifts = {result.clip.name: result.shift for result in made if result.shift}
    peaks = {result.clip.name: result.peak for result in made}
    digests = {result.clip.name: result.digest for result in made}
    left_out = {r.name: result for r, result in zip(recordings, results, strict=True) if isinstance(result, str)}
    resampled = {}
    for result in made:
        if resampler := result.resampler or now["resampled"].get(result.clip.name):
            resampled[result.clip.name] = resampler

    now |= {"digests": digests, "peaks": peaks, "resampled": resampled}
    finish(out, clips, {**now, "has_labels": tracker is not None, "left_out": left_out})
    return Extraction(
        clips,
        left_out,
        replaced_fields=differing_fields(before.get("mel"), spec),
        shifts=shifts,
        labelled=len(labelled),
        tracker=tracker,
        peaks=peaks,
        resampled=resampled,
    )


def finish(out: Path, clips: Sequence[Clip], marker: Mapping[str, Any]) -> None:
    """Write the manifest of a folder whose mels are all there, if it has any, then the complete marker.

    Raises:
        OutputError: the folder cannot be written.
    """
    if clips:
        write_manifest(out / MANIFEST, clips)
        write_marker(out, marker)


def is_complete(recordings: Sequence[Recording], out: Path, spec: MelSpec, *, labels_pitch: bool = False) -> bool:
    """Whether ``extract`` has finished for exactly these recordings, as they are now, and all its results are there."""
    return _finished_clips(recordings, Path(out), spec, labels_pitch) is not None


def _finished_clips(recordings: Sequence[Recording], out: Path, spec: MelSpec, labels_pitch: bool) -> list[Clip] | None:
    """The clips of a finished extraction; None if it is not finished, or if something has changed or is missing."""
    marker = read_marker(out)
    if "left_out" not in marker or (labels_pitch and not (marker.get("has_labels") and _has_good_labels(marker))):
        return None
    if any(marker.get(key) != value for key, value in fingerprint(recordings, spec).items()):
        return None
    try:
        clips = read_manifest(out / MANIFEST, Clip)
    except DataError:
        return None
    # A user who deletes a mel, or bad labels, gets new ones.
    needed = [path for clip in clips for path in (clip.mel, clip.audio, clip.f0 if labels_pitch else None) if path]
    return clips if all(path.exists() for path in needed) else None


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


class _Made(NamedTuple):
    """What was made of a recording.

    Attributes:
        clip: the clip.
        shift: the frames by which a predicted mel lagged.
        peak: the largest magnitude of the recording's samples.
        resampler: the package that resampled the recording now; None if none did.
        digest: a hash of the recording's files.
    """

    clip: Clip
    shift: int
    peak: float
    resampler: str | None = None
    digest: str | None = None


def _extract_one(recording: Recording, out: Path, log_mel: LogMel, peak: float | None) -> _Made:
    """Write the mel of a recording, and a copy of the recording if it must be converted; ``peak``: if it is known."""
    if recording.mel is not None:
        return _extract_pair(recording, recording.mel, out, log_mel)
    spec, info = log_mel.spec, audio_info(recording.path)
    usable_as_it_is = info.in_place and info.channels == 1 and info.sample_rate_hz == spec.sample_rate_hz
    mel_path = _mel_path(recording, out)
    audio_path = recording.path.absolute() if usable_as_it_is else _audio_path(recording, out)
    is_resampled, resampler = info.sample_rate_hz != spec.sample_rate_hz, None
    # An interrupted extraction leaves recordings without their peak and resampler. Find the peak again, and extract
    # again what another package may have resampled.
    if mel_path.exists() and audio_path.exists() and not (is_resampled and peak is None):
        samples = audio_info(audio_path).samples
        if peak is None:
            peak = _peak(read_audio(recording.path, spec.sample_rate_hz))
    else:
        audio = read_audio(recording.path, spec.sample_rate_hz)
        peak = _peak(audio)
        if is_resampled:
            resampler = installed_resampler()
        if not usable_as_it_is:
            audio = rounded_to_int16(audio)
            write_audio(audio_path, audio, spec.sample_rate_hz)
        save_mel(mel_path, log_mel(torch.from_numpy(audio)[None])[0].numpy(), spec)
        samples = len(audio)
    frames = spec.frames(samples)
    clip = Clip(recording.name, recording.split, samples, frames, audio_path, mel_path, recording.speaker)
    return _Made(clip, 0, peak, resampler)


def _peak(samples: np.ndarray) -> float:
    return max(float(samples.max()), -float(samples.min()))


def _extract_pair(recording: Recording, predicted_path: Path, out: Path, log_mel: LogMel) -> _Made:
    """Write the frames that a recording and the mel that a TTS predicted for it share."""
    spec = log_mel.spec

    # Align the two.
    predicted, _ = load_mel(predicted_path, spec)
    audio = read_audio(recording.path, spec.sample_rate_hz)
    peak = _peak(audio)
    audio = rounded_to_int16(audio)
    natural = log_mel(torch.from_numpy(audio)[None])[0].numpy()
    try:
        alignment = align(_nepers(predicted, spec), _nepers(natural, spec))
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
    is_resampled = audio_info(recording.path).sample_rate_hz != spec.sample_rate_hz
    return _Made(clip, alignment.shift, peak, installed_resampler() if is_resampled else None)


def _nepers(mel: np.ndarray, spec: MelSpec) -> np.ndarray:
    """Natural logarithms of the linear mel, whatever the definition makes of them."""
    return spec.to_linear(torch.from_numpy(mel)).log().numpy()


def refuse_to_overwrite(recordings: Sequence[Recording], out: Path) -> None:
    """Raise OutputError if a result of an extraction to ``out`` would replace a recording or a predicted mel."""
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
