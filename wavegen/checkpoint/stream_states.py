"""The states of streams on disk, so that another process can continue them."""

from pathlib import Path
from typing import Any

from torch import Tensor

from wavegen.checkpoint.tensor_files import ANOTHER_FILE, checksum, load_checkpoint, save_checkpoint
from wavegen.errors import CheckpointError
from wavegen.vocoders import Vocoder

Nested = Tensor | tuple["Nested", ...] | None


def save_state(path: Path | str, vocoder: Vocoder, state: Nested) -> None:
    """Write the state of a stream, so that another process can continue it.

    Args:
        path: a ``.safetensors`` file.
        vocoder: the vocoder whose ``step`` returned the state.
        state: the state.

    Raises:
        OutputError: the file cannot be written.
    """
    tensors: dict[str, Tensor] = {}
    layout = _layout(state, tensors)
    save_checkpoint(Path(path), tensors, {"kind": "state", **_stream_identity(vocoder), "layout": layout})


def load_state(path: Path | str, vocoder: Vocoder) -> Nested:
    """Read a state that ``save_state`` wrote, for the same weights, mel definition and number of iterations.

    Raises:
        CheckpointError: see ``load_checkpoint``; or the file holds no state, or that of another vocoder.
    """
    path = Path(path)
    tensors, header = load_checkpoint(path)
    if header.get("kind") != "state":
        raise CheckpointError("holds no state of a stream", where=path, remedy="give a file that save_state wrote")
    initial = vocoder.initial_state(1, speaker=vocoder.speakers[0] if vocoder.speakers else None)
    like: dict[str, Tensor] = {}
    ours = _stream_identity(vocoder) | {"layout": _layout(initial, like)}
    differences = {
        "of": "belongs to another vocoder",
        "mel": "belongs to a stream of mels of another definition",
        "context": "belongs to a stream with another number of iterations",
        "layout": "was written by another version of wavegen or with another engine",
    }
    for key, difference in differences.items():
        if header.get(key) != ours[key]:
            remedy = "load the vocoder and options that the stream began with, or begin a new stream"
            raise CheckpointError(difference, where=path, remedy=remedy)
    for name, tensor in like.items():
        if name not in tensors or (tensors[name].dtype, tensors[name].dim()) != (tensor.dtype, tensor.dim()):
            raise CheckpointError(f"its tensor {name} is missing, or of another type", where=path, remedy=ANOTHER_FILE)
    device = next(vocoder.parameters()).device

    def rebuild(layout: Any, like: Nested) -> Nested:
        if layout is None:
            return None
        if isinstance(layout, str):
            # Counters stay on the CPU, where their arithmetic does not wait for a GPU.
            return tensors[layout] if tensors[layout].dim() == 0 else tensors[layout].to(device)
        assert isinstance(like, tuple)
        parts = [rebuild(part, like_part) for part, like_part in zip(layout, like, strict=True)]
        return like._make(parts) if hasattr(like, "_make") else tuple(parts)  # a NamedTuple or a plain tuple

    return rebuild(header["layout"], initial)


def _stream_identity(vocoder: Vocoder) -> dict[str, Any]:
    """What two vocoders must have in common for one to continue the other's stream."""
    weights = {name: tensor.cpu() for name, tensor in vocoder.state_dict().items()}
    context = [vocoder.context.left, vocoder.context.right]
    return {"of": checksum("", weights), "mel": vocoder.mel.model_dump(mode="json"), "context": context}


def _layout(state: Nested, tensors: dict[str, Tensor]) -> Any:
    """The nesting of a state, with names in place of its tensors; adds the tensors to ``tensors`` by these names."""
    if state is None:
        return None
    if isinstance(state, Tensor):
        name = str(len(tensors))
        tensors[name] = state
        return name
    return [_layout(part, tensors) for part in state]
