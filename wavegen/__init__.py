"""WaveNet-style audio synthesis: dilated-convolution blocks, vocoders and recipes.

``wavegen.load("runs/mine")`` loads a trained vocoder. Importing ``wavegen`` loads nothing else, not even torch.
"""

TYPE_CHECKING = False  # type checkers take it for True; importing ``typing`` would cost more than all the rest
if TYPE_CHECKING:
    from wavegen.checkpoint import load_vocoder as load

__version__: str
__all__ = ["__version__", "load"]


def __getattr__(name: str) -> object:
    """Import on first use what ``import wavegen`` must not pay for."""
    if name == "load":
        from wavegen.checkpoint import load_vocoder

        return load_vocoder
    if name == "__version__":
        from importlib.metadata import version

        return version("wavegen")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
