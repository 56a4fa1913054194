"""Labels of a recording that a trained labeller finds, or of a sound that is still arriving."""

import numpy as np
import torch
from torch import Tensor

from wavegen.corpora.frame_labels import frame_centres
from wavegen.corpora.label_files import Label
from wavegen.mel.live import LiveMel
from wavegen.mel.recorded import RecordedMel
from wavegen.models.labeller import Labeller

FRAMES_AT_ONCE = 2048


def label_recording(labeller: Labeller, mel: RecordedMel) -> np.ndarray:
    """Probabilities float32 ``[classes, frames]`` of a recording, in memory for a part of it at a time.

    Args:
        labeller: the labeller.
        mel: the mel of the recording, by the labeller's definition.
    """
    state = labeller.initial_state(1)
    parts = []
    for start in range(0, mel.frames, FRAMES_AT_ONCE):
        frames = torch.from_numpy(mel[:, start : start + FRAMES_AT_ONCE])
        part, state = labeller.step(frames[None].to(labeller.silence.device), state)
        parts.append(part)
    parts.append(labeller.flush(state))
    return torch.cat(parts, dim=-1)[0].float().cpu().numpy()


class LiveLabels:
    """Finds the labels of a sound that is still arriving: each as soon as it has ended.

    A label is known when its end is, and the look-ahead of the labeller and the last half of a window later. All
    together are the labels of the whole recording.

    Args:
        labeller: the labeller.
    """

    def __init__(self, labeller: Labeller) -> None:
        self._labeller = labeller
        self._mel = LiveMel(labeller.mel)
        self._state = labeller.initial_state(1)
        self._frames = self._samples = 0
        self._starts: dict[str, float] = {}

    def feed(self, samples: Tensor) -> list[Label]:
        """Take the next samples ``[samples]`` at the labeller's sample rate; returns the labels that have ended."""
        self._samples += len(samples)
        found, self._state = self._labeller.step(self._mel.feed(samples)[None], self._state)
        return self._ended(found)

    def finish(self) -> list[Label]:
        """The labels that end with the sound, or that were still waited for.

        Raises:
            MelError: the sound is too short for a frame.
        """
        found, self._state = self._labeller.step(self._mel.finish()[None], self._state)
        ended = self._ended(found) + self._ended(self._labeller.flush(self._state))
        end_s = self._samples / self._labeller.mel.sample_rate_hz
        return sorted([*ended, *(Label(start_s, end_s, name) for name, start_s in self._starts.items())])

    def _ended(self, probabilities: Tensor) -> list[Label]:
        config, spec = self._labeller.config, self._labeller.mel
        marks = self._labeller.marks(probabilities)[0] == 1
        first_s = float(frame_centres(spec, 1)[0] - spec.hop_length / 2) / spec.sample_rate_hz
        labels = []
        for column in marks.T.tolist():
            time_s = first_s + self._frames * spec.hop_length / spec.sample_rate_hz if self._frames else 0.0
            for name, is_there in zip(config.classes, column, strict=True):
                if is_there and name != config.background:
                    self._starts.setdefault(name, time_s)
                elif name in self._starts:
                    labels.append(Label(self._starts.pop(name), time_s, name))
            self._frames += 1
        return labels
