"""The building blocks, for wavegen's own vocoders and for other projects. Imports torch and nothing else.

Everything takes and returns tensors ``[batch, channels, time]``, declares how much it reads around each step
(``context``), and streams where it is causal (``initial_state``, ``step``).
"""

from wavegen.blocks.conv import (
    Context,
    DilatedConv1d,
    Padding,
    apply_weight_norm,
    fold_weight_norm,
    masked,
)
from wavegen.blocks.geometry import (
    causal_padding,
    effective_kernel_size,
    output_size,
    receptive_field,
    same_padding,
)
from wavegen.blocks.istft import InverseSTFT, griffin_lim, griffin_lim_context
from wavegen.blocks.residual import (
    DilatedStack,
    GatedResidualBlock,
    ResidualBlock,
    SeparableResidualBlock,
    exponential_dilations,
)
from wavegen.blocks.upsample import HoldUpsampler, StagedUpsampler, small_factors

__all__ = [
    "Context",
    "DilatedConv1d",
    "DilatedStack",
    "GatedResidualBlock",
    "HoldUpsampler",
    "InverseSTFT",
    "Padding",
    "ResidualBlock",
    "SeparableResidualBlock",
    "StagedUpsampler",
    "apply_weight_norm",
    "causal_padding",
    "effective_kernel_size",
    "exponential_dilations",
    "fold_weight_norm",
    "griffin_lim",
    "griffin_lim_context",
    "masked",
    "output_size",
    "receptive_field",
    "same_padding",
    "small_factors",
]
