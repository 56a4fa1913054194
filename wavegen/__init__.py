"""WaveNet-style audio synthesis: dilated-convolution blocks, vocoders and recipes.

``wavegen.load("runs/mine")`` loads a trained vocoder. Importing ``wavegen`` loads nothing else, not even torch.
"""

TYPE_CHECKING = False  # type checkers take it for True; importing ``typing`` would cost more than all the rest
if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from wavegen.vocoders import Vocoder

__version__: str
__all__ = ["__version__", "load"]


def load(where: "Path | str | None" = None, device: "torch.device | str" = "cpu") -> "Vocoder":
    """Load a trained vocoder, ready for inference.

    Args:
        where: a run's folder, a model file, a checkpoint, or ``"default"`` for the voice that wavegen ships; by
            default the newest finished run below ``./runs``, or without one that voice.
        device: the device that holds the weights.

    Raises:
        CheckpointError: the model does not exist, or its weights do not fit it or are not finite.
    """
    from wavegen.checkpoint import load_vocoder

    return load_vocoder(where, device)


if not TYPE_CHECKING:  # a type checker would take any name for one that exists

    def __getattr__(name: str) -> object:
        """Look up on first use what ``import wavegen`` must not pay for."""
        if name == "__version__":
            from importlib.metadata import version

            return version("wavegen")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
