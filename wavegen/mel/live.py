"""The mel of a sound that is still arriving."""

import torch
from torch import Tensor

from wavegen.blocks import reflect_pad
from wavegen.errors import MelError
from wavegen.mel.spec import MelSpec
from wavegen.mel.transform import LogMel


class LiveMel:
    """Computes frames as soon as their windows are complete; all together they are ``LogMel`` of the whole sound.

    Args:
        spec: the mel definition.
    """

    def __init__(self, spec: MelSpec) -> None:
        self.spec = spec
        self._log_mel = LogMel(spec)
        self._samples = torch.zeros(0)  # padded at the start, and without what no further window reads
        self._last = torch.zeros(0)  # what the end is mirrored from
        self._begun = False

    def feed(self, samples: Tensor) -> Tensor:
        """Take the next samples ``[samples]`` and return the frames ``[n_mels, frames]`` that are complete."""
        padding = self.spec.left_padding
        self._samples = torch.cat((self._samples, samples))
        self._last = torch.cat((self._last, samples))[-padding - 1 :]
        if not self._begun:
            if len(self._samples) <= padding:  # mirroring needs one sample more than it pads
                return samples.new_zeros(self.spec.n_mels, 0)
            self._samples = torch.cat((self._samples[1 : padding + 1].flip(0), self._samples))
            self._begun = True
        return self._frames()

    def finish(self) -> Tensor:
        """The last frames ``[n_mels, frames]``, which reach beyond the end.

        Raises:
            MelError: there were too few samples for a frame.
        """
        padding = self.spec.left_padding
        if not self._begun:
            raise MelError(
                f"{len(self._samples)} samples are too short for a mel frame",
                remedy=f"give at least {self.spec.min_samples} samples",
            )
        self._samples = torch.cat(
            (self._samples, reflect_pad(self._last[None], padding)[0, len(self._last) + padding :])
        )
        return self._frames()

    @torch.no_grad()
    def _frames(self) -> Tensor:
        spec = self.spec
        frames = max(0, (len(self._samples) - spec.n_fft) // spec.hop_length + 1)
        if not frames:
            return self._samples.new_zeros(spec.n_mels, 0)
        mel = self._log_mel.padded(self._samples[None, : (frames - 1) * spec.hop_length + spec.n_fft])[0]
        self._samples = self._samples[frames * spec.hop_length :]
        return mel
