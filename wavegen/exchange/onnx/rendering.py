"""Mel files to sound files with an exported model, for ``wavegen-synth --model out.onnx``."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from wavegen.config import parse
from wavegen.errors import CheckpointError, ConfigError, MissingCheckpointError
from wavegen.mel import MelSpec
from wavegen.synthesis import AnyMelFile, Timing


class OnnxModel:
    """An exported vocoder, which onnxruntime runs. It computes whole utterances.

    Args:
        path: the file.

    Attributes:
        mel: the definition of the mels that it reads.

    Raises:
        ConfigError: onnxruntime is not installed.
        CheckpointError: the file is missing, damaged, or not a model of ``wavegen-export`` that renders samples.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise MissingCheckpointError(where=path)
        try:
            from wavegen.exchange.onnx.reader import Model
        except ImportError as error:
            raise ConfigError(
                f"an ONNX file needs the package {error.name}",
                where=path,
                remedy="install it with: pip install 'wavegen[export]'",
            ) from error
        remedy = "give a file that wavegen-export wrote"
        try:
            self._model = Model(path, threads=1)
        except ValueError as error:
            raise CheckpointError(
                "is not a model of wavegen that renders samples", where=path, remedy=remedy
            ) from error
        except Exception as error:  # onnxruntime has an exception of its own for every fault
            raise CheckpointError("cannot be loaded by onnxruntime", where=path, remedy=remedy) from error
        self.mel = parse(MelSpec, self._model.mel, where=path)

    def render(self, mel: np.ndarray, seed: int) -> np.ndarray:
        """Samples float32 ``[frames * hop_length]`` of a checked mel ``[n_mels, frames]``."""
        return np.asarray(self._model.render(mel, seed))


def render_into(
    model: OnnxModel,
    mels: Sequence[tuple[AnyMelFile, Callable[[np.ndarray], object]]],
    *,
    seed: int = 0,
    on_progress: Callable[[int], object] = lambda samples: None,
) -> Timing:
    """Render mels, one after another.

    Args:
        model: the model.
        mels: each mel with what takes its samples ``[samples]``.
        seed: seeds the noise of every mel.
        on_progress: called after each mel with its number of samples.
    """
    started = time.perf_counter()
    total = clipped = 0
    first_s = 0.0
    for mel, take in mels:
        samples = model.render(mel[:, :], seed)
        take(samples)
        first_s = first_s or time.perf_counter() - started
        total += len(samples)
        clipped += int((np.abs(samples) > 1).sum())
        on_progress(len(samples))
    wall_s = time.perf_counter() - started
    return Timing(total / model.mel.sample_rate_hz, wall_s, clipped / max(1, total), first_s)
