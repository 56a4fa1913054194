"""Networks that are not vocoders, one per file; the file's name is the model's name in a recipe.

Helper modules begin with an underscore.
"""

from wavegen.mel import MelSpec
from wavegen.models._base import Model, ModelBatch, ModelConfig, Shown
from wavegen.network import find_networks

MODELS = find_networks(__name__, __path__, Model, "model")  # type: ignore[type-abstract]


def build_model(config: ModelConfig, mel: MelSpec) -> Model:
    """Build a model with random weights.

    Args:
        config: its shape.
        mel: the definition of the mels that it reads.
    """
    return MODELS[config.name](mel, config)  # type: ignore[call-arg]


__all__ = ["MODELS", "Model", "ModelBatch", "ModelConfig", "Shown", "build_model"]
