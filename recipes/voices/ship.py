"""Write a run's weights, in half precision, as the voice that wavegen ships: python recipes/voices/ship.py RUN."""

import sys
from pathlib import Path

import torch

from wavegen.checkpoint import DEFAULT_VOICE, EMA, list_checkpoints, load_checkpoint, save_checkpoint

# The discriminators travel with the voice, so that fine-tuning continues against them.
KEPT = (EMA, "discriminator.")


def ship(run: Path, target: Path = DEFAULT_VOICE) -> None:
    """Write the EMA weights and the discriminators of a run's newest checkpoint to one model file.

    Args:
        run: the run's folder.
        target: the file to write.
    """
    tensors, header = load_checkpoint(list_checkpoints(run)[-1])
    kept = {name: tensor for name, tensor in tensors.items() if name.startswith(KEPT)}
    halved = {name: tensor.half() if tensor.dtype == torch.float32 else tensor for name, tensor in kept.items()}
    about = {name: header[name] for name in ("vocoder", "mel", "speakers", "step")}
    recipe = {"training": header["recipe"]["training"]}
    save_checkpoint(target, halved, {**about, "kind": "model", "recipe": recipe})


if __name__ == "__main__":
    ship(Path(sys.argv[1]))
