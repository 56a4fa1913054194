"""A folder of recordings to mel files and a manifest."""

import contextlib
import json
import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from wavegen.audio import audio_info, read_audio, write_audio
from wavegen.corpora.manifest import Clip, Recording, read_manifest, write_manifest
from wavegen.corpora.teacher_forced import align
from wavegen.errors import AudioError, DataError, MelError, OutputError
from wavegen.files import held, require_folder, write_beside
from wavegen.mel import LogMel, MelSpec, load_mel_for, save_mel
from wavegen.progress import pace
from wavegen.threads import one_torch_thread

MANIFEST = "manifest.tsv"
# Says what the folder is made of. Which recordings were left out is added last: without that, it is unfinished.
MARKER = "complete.json"
# Containers that training can read a segment of without decoding what comes before.
SEEKABLE = {".wav", ".flac"}


@dataclass(frozen=True)
class Extraction:
    """What extraction made: the clips, and the recordings it had to leave out with the reason for each."""

    clips: list[Clip]
    left_out: dict[str, str]
    was_complete: bool = False
    replaced: tuple[str, ...] = ()  # fields in which the mels that were there before differed
    shifted: dict[str, int] = field(default_factory=dict)  # names -> frames by which predicted mels lagged, not 0

    def remark(self) -> str:
        """What a line about the extraction should end with: that other mels had to go, that some were shifted."""
        remark = f", in place of mels with another {', '.join(self.replaced)}" if self.replaced else ""
        if self.shifted:
            most = Counter(self.shifted.values()).most_common(3)
            frames = ", ".join(f"{count} by {shift:+d}" for shift, count in most)
            remark += f"; {len(self.shifted)} predicted mels lagged (frames: {frames}) and were set right"
        return remark

    def complaint(self) -> str | None:
        """The recordings left out, in lines for the user."""
        if not self.left_out:
            return None
        return "\n".join([f"{len(self.left_out)} left out:", *(f"  {why}" for why in self.left_out.values())])


def extract(
    recordings: Sequence[Recording], out: Path, spec: MelSpec, *, jobs: int | None = None, progress: bool = True
) -> Extraction:
    """Make a mel file of each recording, and a manifest of them all.

    What is finished already is kept: the whole where the marker says that nothing has changed since, else the
    mels of the recordings that have not. Another mel definition makes everything anew. A bad recording is left out
    with its reason; it does not stop the others.

    Args:
        recordings: from ``find_recordings``.
        out: folder for ``manifest.tsv``, ``mels/`` and, for recordings that are not yet mono at the definition's
            rate in a seekable container, ``audio/``.
        spec: the mel definition.
        jobs: threads; one a core by default.
        progress: show a bar on stderr.

    Raises:
        DataError: no recording could be used.
        OutputError: the folder cannot be written, another process extracts to it, or what is in it would be
            overwritten by what is made of it.
    """
    out = Path(out).absolute()
    require_folder(out)
    _refuse_to_overwrite(recordings, out)
    if is_complete(recordings, out, spec):
        return Extraction(read_manifest(out / MANIFEST, Clip), _read_marker(out)["left_out"], was_complete=True)
    # Two at once, of different recordings or definitions, would leave a marker of one and mels of both.
    with held(out, "wait for it, or give another folder for what is made"):
        return _extract(recordings, out, spec, jobs or os.cpu_count(), progress)


def _extract(recordings: Sequence[Recording], out: Path, spec: MelSpec, jobs: int | None, progress: bool) -> Extraction:
    before, fingerprint = _read_marker(out), _fingerprint(recordings, spec)
    old, new = before.get("mel"), fingerprint["mel"]
    replaced = tuple(name for name in new if isinstance(old, dict) and old.get(name) != new[name])
    # Once the marker names a recording, the mel of that name, where there is one, is of it. So what was made of another
    # goes first. Comparing times would not do: a recording that was moved or unpacked here may be older than its mel.
    for recording in _changed(recordings, before, fingerprint):
        _forget(_mel_path(recording, out))
    _write_marker(out, fingerprint)
    log_mel = LogMel(spec)

    def one(recording: Recording) -> tuple[Clip, int] | str:
        try:
            return _extract_one(recording, out, log_mel)
        except (AudioError, MelError, DataError) as error:
            error.where = error.where or recording.path  # samples that are too few know no file
            return str(error)

    with one_torch_thread(), ThreadPoolExecutor(jobs) as pool:
        done = pool.map(one, recordings)
        bar = tqdm(done, total=len(recordings), desc="extracting", unit="clip", disable=not progress, **pace())
        results = list(bar)
    made = [result for result in results if not isinstance(result, str)]
    clips = [clip for clip, _ in made]
    shifted = {clip.name: shift for clip, shift in made if shift}
    left_out = {r.name: result for r, result in zip(recordings, results, strict=True) if isinstance(result, str)}
    if not clips:
        first = next(iter(left_out.values()), "there are none")
        raise DataError(f"none of {len(recordings)} recordings can be used; the first: {first}", where=out)
    write_manifest(out / MANIFEST, clips)
    _write_marker(out, {**fingerprint, "left_out": left_out})
    return Extraction(clips, left_out, replaced=replaced, shifted=shifted)


def is_complete(recordings: Sequence[Recording], out: Path, spec: MelSpec) -> bool:
    """Whether ``extract`` has finished for just these recordings, as they are now, and this definition."""
    marker = _read_marker(Path(out))
    is_finished = "left_out" in marker and (Path(out) / MANIFEST).is_file()
    return is_finished and all(marker.get(key) == value for key, value in _fingerprint(recordings, spec).items())


def _extract_one(recording: Recording, out: Path, log_mel: LogMel) -> tuple[Clip, int]:
    """The clip, and the frames by which a predicted mel lagged behind the recording."""
    if recording.mel is not None:
        return _extract_pair(recording, recording.mel, out, log_mel)
    spec, info = log_mel.spec, audio_info(recording.path)
    usable_as_it_is = (
        info.sample_rate_hz == spec.sample_rate_hz and info.channels == 1 and recording.path.suffix.lower() in SEEKABLE
    )
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
    """Of a recording and the mel that a TTS predicted for it, the frames that both have."""
    spec = log_mel.spec
    mel_path, audio_path = _mel_path(recording, out), _audio_path(recording, out)
    predicted = load_mel_for(predicted_path, spec)
    audio = read_audio(recording.path, spec.sample_rate_hz)
    natural = log_mel(torch.from_numpy(audio)[None])[0].numpy()
    try:
        alignment = align(predicted, natural)
    except DataError as error:
        error.where = predicted_path
        raise
    first, frames = alignment.first, alignment.frames
    audio = audio[first * spec.hop_length : (first + frames) * spec.hop_length]
    write_audio(audio_path, audio, spec.sample_rate_hz)
    save_mel(mel_path, predicted[:, first + alignment.shift :][:, :frames], spec)
    clip = Clip(recording.name, recording.split, len(audio), frames, audio_path, mel_path, recording.speaker)
    return clip, alignment.shift


def _refuse_to_overwrite(recordings: Sequence[Recording], out: Path) -> None:
    for recording in recordings:
        for given, made in ((recording.path, _audio_path(recording, out)), (recording.mel, _mel_path(recording, out))):
            if given is not None and given.resolve() == made.resolve():
                what = "would be overwritten by what is made of it"
                raise OutputError(what, where=given, remedy="give another folder for the results")


def _mel_path(recording: Recording, out: Path) -> Path:
    return out / "mels" / f"{recording.name}.npz"


def _audio_path(recording: Recording, out: Path) -> Path:
    return out / "audio" / f"{recording.name}.flac"


def _forget(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        remedy = "check the folder's permissions"
        raise OutputError(f"cannot be replaced: {error.strerror}", where=path, remedy=remedy) from error


def _fingerprint(recordings: Sequence[Recording], spec: MelSpec) -> dict[str, Any]:
    """What tells that nothing has changed: the definition, and each recording's name, split, place, size and time."""
    identities = []
    for recording in recordings:
        identity: list[Any] = [recording.name, [recording.split, recording.speaker]]
        for path in (recording.path, recording.mel):
            if path is not None:
                identity += [str(path.absolute()), *_size_and_time(path)]
        identities.append(identity)
    return {"mel": spec.model_dump(mode="json"), "recordings": identities}


def _size_and_time(path: Path) -> list[int]:
    try:
        stat = path.stat()
    except OSError:  # reading it will say what is wrong
        return [0, 0]
    return [stat.st_size, stat.st_mtime_ns]


def _changed(recordings: Sequence[Recording], before: dict[str, Any], now: dict[str, Any]) -> list[Recording]:
    """Those that differ between two fingerprints in more than split and speaker, or all under another definition."""
    known = {name: rest for name, _, *rest in before.get("recordings", [])} if before.get("mel") == now["mel"] else {}
    pairs = zip(recordings, now["recordings"], strict=True)
    return [recording for recording, (name, _, *rest) in pairs if known.get(name) != rest]


def _write_marker(out: Path, content: dict[str, Any]) -> None:
    with write_beside(out / MARKER) as beside:
        beside.write_text(json.dumps(content, indent=1), encoding="utf-8")


def _read_marker(out: Path) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError):
        marker = json.loads((out / MARKER).read_text(encoding="utf-8"))
        if isinstance(marker, dict):
            return marker
    return {}
