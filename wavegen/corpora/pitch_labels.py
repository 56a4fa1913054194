"""Pitch labels: the F0 of a recording, which a pitch network learns to read from the mel."""

import importlib
import warnings
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from types import ModuleType

import numpy as np

from wavegen.errors import DataError
from wavegen.files import atomic_write
from wavegen.mel import MelSpec

LABELS_PER_FRAME = 4
LOWEST_HZ, HIGHEST_HZ = 71.0, 800.0
WORLD, PYIN = "WORLD", "pYIN"
# Tracker -> the package that it needs. The first is exact to a few cents and takes about a hundredth of real time.
_PACKAGES: Mapping[str, str] = {WORLD: "pyworld", PYIN: "librosa"}
FALLBACK_NOTE = "librosa's pYIN, which is slower and coarser than WORLD (pip install pyworld-prebuilt)"


@cache
def installed_tracker() -> str | None:
    """The best tracker whose package is installed: ``WORLD`` or ``PYIN``; None if neither is."""
    for tracker, package in _PACKAGES.items():
        try:
            _import(package)
        except (ImportError, ValueError):  # ValueError: it was compiled for another numpy
            continue
        return tracker
    return None


def _import(package: str) -> ModuleType:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # older builds of pyworld import the deprecated pkg_resources
        return importlib.import_module(package)


def require_tracker() -> str:
    """As ``installed_tracker``; raises DataError if there is none."""
    tracker = installed_tracker()
    if tracker is None:
        what = "this vocoder is trained on the pitch of the recordings, and no package that finds it is installed"
        raise DataError(what, remedy="pip install pyworld-prebuilt")
    return tracker


def pitch_labels(samples: np.ndarray, spec: MelSpec, tracker: str = WORLD) -> np.ndarray:
    """F0 of a recording at four places per mel frame.

    Label ``i`` is the F0 around sample ``i · hop_length / 4``, whatever the framing is. A frame whose window is centred
    on its own hop therefore belongs to label ``4 · frame + 2``, and one that is centred on its first sample to label
    ``4 · frame``::

        samples   0       64      128     192     256     320     …      hop_length = 256
        labels    0       1       2       3       4       5       …
        frames    |------------ 0 ------------|-------------- 1 - …      center = False

    Args:
        samples: float ``[samples]`` at the definition's sample rate.
        spec: the mel definition.
        tracker: ``WORLD``, which is DIO and StoneMask (Morise et al., 2009 and 2016), or ``PYIN`` (Mauch and Dixon,
            2014).

    Returns:
        float32 ``[4 · frames]`` in Hz; 0 where the recording is not voiced, and after its end.
    """
    labels = np.zeros(LABELS_PER_FRAME * spec.frames(len(samples)), dtype=np.float32)
    f0 = _TRACKERS[tracker](samples, spec.sample_rate_hz, spec.hop_length / LABELS_PER_FRAME)[: len(labels)]
    labels[: len(f0)] = f0
    return labels


def _world(samples: np.ndarray, rate: int, spacing: float) -> np.ndarray:
    pyworld = _import("pyworld")
    waveform = np.ascontiguousarray(samples, dtype=np.float64)
    f0, times = pyworld.dio(waveform, rate, f0_floor=LOWEST_HZ, f0_ceil=HIGHEST_HZ, frame_period=1000 * spacing / rate)
    return pyworld.stonemask(waveform, f0, times, rate)


def _pyin(samples: np.ndarray, rate: int, spacing: float) -> np.ndarray:
    librosa = _import("librosa")
    hop = max(1, int(spacing))  # whole samples; the nearest value is taken where labels lie between samples
    length = 1 << int(np.ceil(np.log2(rate * 2.5 / LOWEST_HZ)))  # more than two periods of the lowest pitch
    f0, voiced, _ = librosa.pyin(
        samples, fmin=LOWEST_HZ, fmax=HIGHEST_HZ, sr=rate, frame_length=length, hop_length=hop, fill_na=0.0
    )
    f0 = np.where(voiced, f0, 0.0)
    places = np.arange(int(len(samples) / spacing) + 1) * spacing / hop
    return f0[np.rint(places).astype(int).clip(max=len(f0) - 1)]


_TRACKERS: Mapping[str, Callable[[np.ndarray, int, float], np.ndarray]] = {WORLD: _world, PYIN: _pyin}


def save_labels(path: Path, labels: np.ndarray) -> None:
    """Write labels as ``.npy``; raises OutputError if that is not possible."""
    with atomic_write(path) as beside:
        np.save(beside, labels.astype(np.float32, copy=False))


def load_labels(path: Path, frames: int) -> np.ndarray:
    """Read the labels ``[4 · frames]`` of a clip with this number of frames.

    Raises:
        DataError: the file is missing, damaged, or of another length.
    """
    labels, remedy = read_label_array(path, "pitch labels")
    if labels.dtype != np.float32 or labels.shape != (LABELS_PER_FRAME * frames,):
        what = f"holds {labels.dtype} {list(labels.shape)}, not float32 [{LABELS_PER_FRAME * frames}]"
        raise DataError(what, where=path, remedy=remedy)
    return labels


def read_label_array(path: Path, content: str) -> tuple[np.ndarray, str]:
    """Read labels of any type that were stored as ``.npy``, with the way out if they are not what was expected.

    Args:
        path: the file.
        content: the content of the file, for the message.

    Raises:
        DataError: the file is missing or damaged.
    """
    remedy = f"delete {path.parent.name}/ and train again, to label the recordings again"
    try:
        return np.load(path, allow_pickle=False), remedy
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{content} that cannot be read ({error})", where=path, remedy=remedy) from error
