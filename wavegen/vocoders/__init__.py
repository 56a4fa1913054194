"""One vocoder a file; the file's name is the vocoder's name in a recipe."""

import importlib
import pkgutil
from collections.abc import Sequence

from wavegen.mel import MelSpec
from wavegen.vocoders._base import Vocoder, VocoderConfig, frame_mask


def _discover() -> dict[str, type[Vocoder]]:
    found = {}
    for module_info in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{module_info.name}")
        defined_here = (m for m in vars(module).values() if getattr(m, "__module__", None) == module.__name__)
        for member in defined_here:
            if isinstance(member, type) and issubclass(member, Vocoder) and member is not Vocoder:
                found[module_info.name] = member
    return found


VOCODERS = _discover()


def build_vocoder(config: VocoderConfig, mel: MelSpec, speakers: Sequence[str] = ()) -> Vocoder:
    """The vocoder that ``config`` describes, with random weights, for mels made to ``mel``, in the voices named."""
    options = config.model_dump(exclude={"name"}) | {"speakers": tuple(speakers)}
    return VOCODERS[config.name](mel, **options)


__all__ = ["VOCODERS", "Vocoder", "VocoderConfig", "build_vocoder", "frame_mask"]
