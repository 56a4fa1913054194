"""The building blocks of wavegen's vocoders, also for use in other projects. Of other packages they need only torch.

Layers take and return tensors ``[batch, channels, time]``, those over frequency too ``[batch, channels, bins, time]``.
Each declares how many steps it reads around an output step (``context``), and a causal layer can run chunk by chunk
(``initial_state``, ``step``). A streaming state is a tensor, a tuple with a tensor per layer, or a named tuple of
tensors; ``step`` returns a new one and leaves the old one unchanged.
"""

from wavegen.blocks.conv import (
    Context,
    DilatedConv1d,
    DilatedConv2d,
    LayerStates,
    Padding,
    apply_weight_norm,
    fold_weight_norm,
)
from wavegen.blocks.geometry import (
    causal_padding,
    effective_kernel_size,
    output_size,
    receptive_field,
    same_padding,
)
from wavegen.blocks.istft import InverseSTFT, InverseSTFTState, griffin_lim, griffin_lim_context
from wavegen.blocks.masks import frame_mask, masked, sample_mask
from wavegen.blocks.residual import (
    DilatedStack,
    GatedResidualBlock,
    ResidualBlock,
    SeparableResidualBlock,
    exponential_dilations,
)
from wavegen.blocks.transforms import complex_magnitude, overlap_add, reflect_pad, stft
from wavegen.blocks.upsample import HoldUpsampler, StagedUpsampler, small_factors

__all__ = [
    "Context",
    "DilatedConv1d",
    "DilatedConv2d",
    "DilatedStack",
    "GatedResidualBlock",
    "HoldUpsampler",
    "InverseSTFT",
    "InverseSTFTState",
    "LayerStates",
    "Padding",
    "ResidualBlock",
    "SeparableResidualBlock",
    "StagedUpsampler",
    "apply_weight_norm",
    "causal_padding",
    "complex_magnitude",
    "effective_kernel_size",
    "exponential_dilations",
    "fold_weight_norm",
    "frame_mask",
    "griffin_lim",
    "griffin_lim_context",
    "masked",
    "output_size",
    "overlap_add",
    "receptive_field",
    "reflect_pad",
    "same_padding",
    "sample_mask",
    "small_factors",
    "stft",
]
