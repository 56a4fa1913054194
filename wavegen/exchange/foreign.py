"""Weights of other projects: reading them from pickles, safely, and saving them as models of wavegen."""

import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from wavegen.checkpoint import MODEL, load_weights, read_header, save_checkpoint, vocoder_header
from wavegen.errors import CheckpointError, MissingCheckpointError, WavegenError
from wavegen.exchange import _unpickle
from wavegen.files import results_folder
from wavegen.mel import MelSpec
from wavegen.vocoders import Vocoder, VocoderConfig, build_vocoder

TIMEOUT_S = 600
_REMEDY = "give a file that torch.save wrote, with plain weights in it"
# Without these, Python or torch may not start; nothing else of the environment reaches the process.
_ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT", "TMPDIR", "TEMP")


class ForeignWeights:
    """Weights of another project, to be taken by their names there until none is left.

    Args:
        weights: the weights.
        where: their file, which errors name.
    """

    def __init__(self, weights: Mapping[str, Tensor], where: Path) -> None:
        self._weights = dict(weights)
        self._where = where

    def take(self, name: str, *shape: int) -> Tensor:
        """Take a weight of this shape, as float32.

        Raises:
            CheckpointError: it is missing, or has another shape, or a value is NaN or infinite.
        """
        if name not in self._weights:
            raise self._error(f"has no {name}")
        weight = self._weights.pop(name).float()
        if weight.shape != shape:
            raise self._error(f"{name} has shape {list(weight.shape)}, not {list(shape)} as its config says")
        if not weight.isfinite().all():
            raise self._error(f"some values of {name} are NaN or infinite")
        return weight

    def take_normalised(self, name: str, *shape: int) -> Tensor:
        """Take a weight that may have weight normalisation, ``NAME_g`` and ``NAME_v``; errors as in ``take``."""
        if f"{name}_v" not in self._weights:
            return self.take(name, *shape)
        direction = self.take(f"{name}_v", *shape).double()
        length = self.take(f"{name}_g", shape[0], *[1] * (len(shape) - 1))
        norm = direction.flatten(1).norm(dim=1).reshape(length.shape)
        if not norm.all():
            raise self._error(f"a row of {name}_v is zero, so it has no direction")
        return (direction / norm * length).float()

    def check_constant(self, name: str, expected: Tensor, what: str) -> None:
        """Take a tensor that is not trained, if it is there, and compare it with what its config says.

        Raises:
            CheckpointError: it differs.
        """
        if name not in self._weights:
            return
        found = self.take(name, *expected.shape)
        if (found - expected).abs().max() > 1e-3 * expected.abs().max():  # some compute it in float32, or with rounding
            raise self._error(f"{name} is not {what}")

    def finish(self) -> None:
        """Raise CheckpointError if a weight is left that was not taken."""
        if self._weights:
            raise self._error(f"has the weight {min(self._weights)}, which its config does not describe")

    def _error(self, what: str) -> CheckpointError:
        return CheckpointError(what, where=self._where, remedy="give the weights and the config of one model")


@dataclass(frozen=True)
class ImportedModel:
    """A model of another project as one of wavegen.

    Attributes:
        source: the other project.
        config: the vocoder's shape.
        mel: the mel definition.
        weights: its state, by wavegen's names.
        files: the files that it was read from.
    """

    source: str
    config: VocoderConfig
    mel: MelSpec
    weights: Mapping[str, Tensor]
    files: Sequence[Path]

    def vocoder(self) -> Vocoder:
        """The vocoder with its weights."""
        vocoder = build_vocoder(self.config, self.mel)
        load_weights(vocoder, self.weights, self.files[-1])
        return vocoder

    def save(self, out: Path) -> Path:
        """Write the model to a folder, in place of an earlier import; returns the model's file.

        Raises:
            OutputError: the folder holds something else, or cannot be written.
        """
        digests = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in self.files}
        header = vocoder_header(self.config.model_dump(mode="json"), self.mel) | {
            "kind": "model",
            "recipe": {},
            "step": 0,
            "imported": {"from": self.source, "sha256": digests},
        }
        weights = {f"ema.{name}": weight for name, weight in self.vocoder().state_dict().items()}
        with results_folder(out, [MODEL], is_ours=_is_imported) as temporary:
            save_checkpoint(temporary / MODEL, weights, header)
        return out / MODEL


def read_weights(path: Path, *keys: str) -> ForeignWeights:
    """Read the weights of a file that another project wrote with ``torch.save``.

    This is the one place where wavegen reads a pickle. It is read with ``weights_only=True``, in a process of its own,
    which returns tensors and nothing else.

    Args:
        path: the file.
        keys: the path to the dictionary of weights within the file; empty if the file is that dictionary.

    Raises:
        CheckpointError: the file is missing or damaged, or holds something other than weights.
    """
    if not path.is_file():
        raise MissingCheckpointError(where=path)
    with tempfile.TemporaryDirectory(prefix="wavegen-") as folder:
        out = Path(folder) / MODEL
        program = [sys.executable, "-I", _unpickle.__file__, str(path.absolute()), str(out), *keys]
        try:
            done = subprocess.run(
                program,
                cwd=folder,
                env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise CheckpointError(f"was not read within {TIMEOUT_S} s", where=path, remedy=_REMEDY) from error
        if done.returncode == _unpickle.REFUSED:
            raise CheckpointError(done.stdout.strip(), where=path, remedy=_REMEDY)
        if done.returncode:
            what = f"cannot be read: the process that reads it ended with code {done.returncode}"
            raise CheckpointError(what, where=path, remedy=_REMEDY)
        return ForeignWeights(load_file(out), path)


def require_files(folder: Path, *names: str) -> None:
    """Raise MissingCheckpointError unless the folder holds all of these files."""
    for name in names:
        if not (folder / name).is_file():
            remedy = f"give a folder with {' and '.join(names)}"
            raise MissingCheckpointError(
                f"has no {name}" if folder.is_dir() else "no such folder", where=folder, remedy=remedy
            )


def _is_imported(model: Path) -> bool:
    try:
        return "imported" in read_header(model)
    except WavegenError:
        return False
