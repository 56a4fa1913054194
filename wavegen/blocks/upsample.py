"""From frames to samples: hold each frame, then smooth. No transposed convolution."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wavegen.blocks.conv import Context, Padding, masked, refuse_look_ahead
from wavegen.blocks.geometry import padding_for


class HoldUpsampler(nn.Module):
    """Hold each frame for ``hop_length`` samples, then smooth with one learned kernel for all channels.

    With ``hop_length`` equal taps, as initialised, the result is linear interpolation::

        held   ▁▁▁▁████▁▁▁▁      smoothed   ▁▂▄▆█▆▄▂▁

    A held signal is constant within a frame, so each output sample is a weighted sum of the frame itself and
    its neighbours, and the weights are partial sums of the kernel. They are applied at frame rate: the numbers of
    a stride-1 convolution at sample rate, for ``1 / hop_length`` of its cost.

    Args:
        hop_length: samples per frame, and taps of the kernel.
        padding: ``"causal"`` reads the frame before, ``"same"`` one frame on either side; missing ones are zeros.
    """

    def __init__(self, hop_length: int, *, padding: Padding = "causal") -> None:
        super().__init__()
        self.hop_length = hop_length
        self.kernel = nn.Parameter(torch.full((hop_length,), 1 / hop_length))
        # Sample p of frame t reads held[t * hop + p + ahead - i] through tap i: the frame that lies in.
        _, ahead = padding_for(padding, hop_length)
        taps, phases = torch.arange(hop_length), torch.arange(hop_length)
        frame = torch.div(phases[:, None] + ahead - taps, hop_length, rounding_mode="floor")
        self.context = Context(left=int(ahead < hop_length - 1), right=int(ahead > 0))
        offsets = torch.arange(-self.context.left, self.context.right + 1)
        selection = (frame == offsets[:, None, None]).to(self.kernel.dtype)
        self.register_buffer("selection", selection, persistent=False)  # [frames read, hop, taps]
        self.selection: Tensor

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Upsample a whole sequence.

        Args:
            x: ``[batch, channels, frames]``.
            mask: ``[batch, 1, frames]``, True where a frame is real; others are read as zeros.

        Returns:
            ``[batch, channels, frames * hop_length]``.
        """
        return self._smooth(F.pad(masked(x, mask), (self.context.left, self.context.right)))

    def initial_state(self, batch: int, channels: int) -> Tensor:
        """The zeros before the first frame: ``[batch, channels, context.left]``."""
        return self.kernel.new_zeros(batch, channels, self.context.left)

    def step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Upsample the next frames: samples and the next state. Raises StreamingError for ``"same"``."""
        seen, state = self.frames_read(x, state)
        return self._smooth(seen), state

    def frames_read(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """What ``step`` computes its samples from: the frames kept and ``x`` behind one another; and the next state."""
        refuse_look_ahead(self)
        seen = torch.cat((state, x), dim=-1)
        return seen, seen[..., seen.shape[-1] - self.context.left :]

    def weights(self) -> Tensor:
        """Weight of each frame that a sample reads, oldest first, for each sample of a frame: ``[frames, hop]``."""
        return self.selection @ self.kernel

    def _smooth(self, x: Tensor) -> Tensor:
        if x.shape[-1] < self.context.receptive_field:
            return x.new_zeros(*x.shape[:-1], 0)
        weights = self.weights()
        return (x.unfold(-1, len(weights), 1) @ weights).flatten(-2)
