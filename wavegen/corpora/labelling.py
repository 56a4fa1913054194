"""Frame labels of a corpus: read from label files, or made from the recordings, and stored for training."""

import json
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from wavegen.audio import read_audio
from wavegen.config import Config
from wavegen.cores import usable_cores
from wavegen.corpora.activity import speech_activity
from wavegen.corpora.frame_labels import UNLABELLED, frame_centres, frame_labels
from wavegen.corpora.label_files import read_labels
from wavegen.corpora.manifest import Clip
from wavegen.corpora.marker import read_marker, write_marker
from wavegen.corpora.pitch_labels import (
    LABELS_PER_FRAME,
    WORLD,
    installed_tracker,
    pitch_labels,
    read_label_array,
    require_tracker,
)
from wavegen.errors import DataError
from wavegen.files import atomic_write
from wavegen.mel import MelSpec
from wavegen.network import FrameClasses
from wavegen.progress import bar_options

SPEECH, VOICED = "speech", "voiced"
MADE = (SPEECH, VOICED)
"""Classes that need no label files."""

_FORMAT = 1


class LabelFilesConfig(Config):
    """The ``data.labels`` section of a recipe: where the label files of the recordings are.

    A recording without a label file is left out.

    Attributes:
        suffix: the suffix of label files: ``.TextGrid``, ``.txt``, ``.tsv``, or any other; the
            content tells the format.
        folder: the folder of the label files, in which they have the places that the recordings have in the corpus.
            A relative folder begins at the current one. None: beside the recordings.
        tier: the interval tier of a TextGrid; None for the only one.
    """

    suffix: str = ".TextGrid"
    folder: Path | None = None
    tier: str | None = None


@dataclass(frozen=True)
class Labelled:
    """Clips with frame labels.

    Attributes:
        clips: the labelled clips.
        without: names of the recordings that have no label file.
        shares: the share of the labelled frames that have each class.
        unlabelled: the share of frames without a label.
    """

    clips: list[Clip]
    without: list[str]
    shares: dict[str, float]
    unlabelled: float

    def notes(self) -> str:
        """What there is to say of the labels, in a line."""
        shares = ", ".join(f"{name} {share:.0%}" for name, share in self.shares.items())
        text = f"labels of {len(self.clips)} clips (share of frames: {shares}; unlabelled {self.unlabelled:.0%})"
        if not self.without:
            return text
        shown = ", ".join(self.without[:3]) + (", …" if len(self.without) > 3 else "")
        return f"{text}; {len(self.without)} recordings have no label file and are left out: {shown}"


def label_clips(
    clips: Sequence[Clip],
    sources: Mapping[str, Path],
    classes: FrameClasses,
    files: LabelFilesConfig | None,
    spec: MelSpec,
    out: Path,
    *,
    jobs: int | None = None,
    progress: bool = True,
    waits: bool = False,
) -> Labelled:
    """Store the frame labels of clips, unless they are there and nothing has changed since.

    Args:
        clips: extracted clips.
        sources: name -> the file of the recording, which label files lie beside.
        classes: the classes of the frames.
        files: the place of the label files; None to make the labels from the recordings.
        spec: the mel definition.
        out: the folder for ``NAME.npy``, int8 ``[classes, frames]``.
        jobs: the number of threads; None for one per core.
        progress: whether to show a progress bar on stderr.
        waits: whether to wait for another process that stores them.

    Raises:
        DataError: a label file is damaged or does not fit, no recording has one, or the package that finds the pitch is
            missing.
        OutputError: the folder cannot be written.
    """
    paths = {clip.name: _label_file(clip, sources[clip.name], files) for clip in clips}
    without = {name for name, path in paths.items() if path is not None and not path.exists()}
    with_labels = [replace(clip, labels=out / f"{clip.name}.npy") for clip in clips if clip.name not in without]
    if {clip.split for clip in with_labels} != {"train", "valid"}:
        first = next(path for path in paths.values() if path is not None)
        what = f"{len(without)} of {len(clips)} recordings have no label file"
        raise DataError(what, where=first, remedy="give data.labels the right folder and suffix")

    # The marker is removed before anything changes, and written last: labels of two kinds are never mixed.
    needs_pitch = files is None and VOICED in classes.names
    tracker = installed_tracker() if needs_pitch else None
    marker = _fingerprint(with_labels, paths, classes, files, spec, tracker)
    while waits and read_marker(out).get("made_from") != marker:
        time.sleep(0.5)
    if read_marker(out).get("made_from") != marker or not all(_path(clip).exists() for clip in with_labels):
        write_marker(out, {})
        if needs_pitch:
            tracker = require_tracker()

        def store(clip: Clip) -> None:
            marks = _made(clip, classes, spec, tracker) if files is None else _read(clip, paths, classes, files, spec)
            with atomic_write(_path(clip)) as beside:
                np.save(beside, marks)

        with ThreadPoolExecutor(jobs or usable_cores()) as pool:
            done = pool.map(store, with_labels)
            options = {"total": len(with_labels), "disable": not progress, **bar_options()}
            list(tqdm(done, desc="labelling", unit="clip", **options))
        write_marker(out, {"made_from": marker})

    # Count, so that the user can weigh the classes.
    has, labelled, frames = np.zeros(len(classes.names), np.int64), 0, 0
    for clip in with_labels:
        marks = load_frame_labels(_path(clip), clip.frames)
        has += (marks == 1).sum(axis=1)
        labelled += int((marks[0] != UNLABELLED).sum())
        frames += clip.frames
    shares = {name: int(count) / max(1, labelled) for name, count in zip(classes.names, has, strict=True)}
    return Labelled(with_labels, sorted(without), shares, 1 - labelled / frames)


def load_frame_labels(path: Path, frames: int) -> np.ndarray:
    """Read the labels int8 ``[classes, frames]`` of a clip with this number of frames.

    Raises:
        DataError: the file is missing, damaged, or of another length.
    """
    marks, remedy = read_label_array(path, "labels")
    if marks.dtype != np.int8 or marks.ndim != 2 or marks.shape[1] != frames:
        what = f"holds {marks.dtype} {list(marks.shape)}, not int8 [classes, {frames}]"
        raise DataError(what, where=path, remedy=remedy)
    return marks


def voicing(samples: np.ndarray, spec: MelSpec, tracker: str) -> np.ndarray:
    """Whether each frame is voiced at the centre of its window, by the pitch labels: bool ``[frames]``."""
    f0 = pitch_labels(samples, spec, tracker)
    places = frame_centres(spec, spec.frames(len(samples))) * (LABELS_PER_FRAME / spec.hop_length)
    return f0[places.round().astype(int).clip(max=len(f0) - 1)] > 0


def _made(clip: Clip, classes: FrameClasses, spec: MelSpec, tracker: str | None) -> np.ndarray:
    samples = read_audio(clip.audio, spec.sample_rate_hz)
    makers = {SPEECH: lambda: speech_activity(samples, spec), VOICED: lambda: voicing(samples, spec, tracker or WORLD)}
    return np.stack([makers[name]() for name in classes.names]).astype(np.int8)


def _read(
    clip: Clip, paths: Mapping[str, Path | None], classes: FrameClasses, files: LabelFilesConfig, spec: MelSpec
) -> np.ndarray:
    path = paths[clip.name]
    assert path is not None
    labels = read_labels(path, tier=files.tier, may_overlap=not classes.exclusive)
    try:
        return frame_labels(
            labels, classes.names, spec, clip.samples, background=classes.background, exclusive=classes.exclusive
        )
    except DataError as error:
        error.where = path
        raise


def _label_file(clip: Clip, source: Path, files: LabelFilesConfig | None) -> Path | None:
    if files is None:
        return None
    if files.folder is None:
        return source.with_suffix(files.suffix)
    return files.folder / f"{clip.name}{files.suffix}"


def _path(clip: Clip) -> Path:
    assert clip.labels is not None
    return clip.labels


def _fingerprint(
    clips: Sequence[Clip],
    paths: Mapping[str, Path | None],
    classes: FrameClasses,
    files: LabelFilesConfig | None,
    spec: MelSpec,
    tracker: str | None,
) -> Any:
    """What must stay the same for stored labels to be kept."""
    stats = []
    for clip in clips:
        path = paths[clip.name] or clip.audio
        stat = path.stat()
        stats.append([clip.name, clip.frames, str(path.absolute()), stat.st_size, stat.st_mtime_ns])
    tier = None if files is None else files.tier
    settings = [_FORMAT, classes, tier, tracker, spec.model_dump(mode="json"), stats]
    return json.loads(json.dumps(settings))
