"""torch.compile in training, and what is missing where it cannot work."""

import contextlib
import textwrap
from collections.abc import Iterator

from torch import nn

from wavegen.blocks import DilatedStack
from wavegen.errors import TrainingError


def compile_stacks(module: nn.Module) -> None:
    """Compile every dilated stack inside a module when it first runs.

    The stacks do most of the work, and the transforms around them use complex numbers, which cannot be compiled.
    """
    for part in module.modules():
        if isinstance(part, DilatedStack):
            part.compile()


@contextlib.contextmanager
def explain_failed_compilation() -> Iterator[None]:
    """Within the block, raise TrainingError instead of torch's many errors if torch.compile cannot work here.

    Mostly the C++ compiler is missing, which only the first step finds out.
    """
    try:
        yield
    except Exception as error:
        if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            raise
        reason = textwrap.shorten(str(error).strip() or type(error).__name__, 160, placeholder=" …")
        raise TrainingError(
            f"torch.compile does not work here ({reason})",
            where="training.compile",
            remedy="install a C++ compiler such as g++, or set training.compile=false",
        ) from error
