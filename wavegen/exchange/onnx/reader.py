"""Render mel spectrograms with a model that ``wavegen-export`` wrote. It needs numpy and onnxruntime, and no wavegen::

    python reader.py model.onnx mel.npz speech.wav
    python reader.py model.onnx mel.npy speech.wav --seed 3

In a program::

    model = Model("model.onnx")
    samples = model.render(mel)  # float32 [n_mels, frames] to float32 [frames * hop_length], in -1…1 or slightly beyond

    stream = model.stream()  # of a file that was exported with --streaming
    for chunk in chunks:  # float32 [n_mels, any number of frames]
        play(stream.step(chunk))  # the samples that are ready
    play(stream.flush())  # the rest; together they are the samples of the whole, for any chunks

A mel must be made to ``model.mel``, the definition that the model was trained on. An ``.npz`` of ``wavegen-extract``
states its own, which is compared; the values of all mels are.
"""

import argparse
import json
import math
import sys
import wave
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime


class WrongMelError(ValueError):
    """A mel that is malformed, or has another definition than the model's."""


def open_session(path: Path | str, threads: int = 0) -> Any:
    """An onnxruntime session of a file on the CPU; threads as in ``Model``."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


class Model:
    """A vocoder in an ONNX file.

    Args:
        path: the file.
        threads: threads of onnxruntime; 0 for its own choice.

    Attributes:
        mel: the mel definition, by the names of wavegen's ``MelSpec``.
        sample_rate_hz: sample rate of the sound.
        hop_length: samples per frame.
        metadata: all that the file says about itself: licence, card, steps and more.

    Raises:
        ValueError: the file is not a model of wavegen that renders samples.
    """

    def __init__(self, path: Path | str, threads: int = 0) -> None:
        self.session = open_session(path, threads)
        self.metadata = self.session.get_modelmeta().custom_metadata_map
        if "wavegen_mel" not in self.metadata or self.session.get_outputs()[0].name != "samples":
            raise ValueError(f"{path}: is not a model of wavegen that renders samples; export one with wavegen-export")
        self.mel = json.loads(self.metadata["wavegen_mel"])
        self.sample_rate_hz = self.mel["sample_rate_hz"]
        self.hop_length = self.mel["hop_length"]
        self.streaming = json.loads(self.metadata.get("wavegen_streaming", "null"))

    def render(self, mel: np.ndarray, seed: int = 0, definition: dict[str, Any] | None = None) -> np.ndarray:
        """Samples float32 ``[frames * hop_length]`` of a float mel ``[n_mels, frames]``.

        ``seed`` seeds the noise: the same seed gives the same sound. ``definition`` is that of the mel, if it is known.
        Raises WrongMelError.
        """
        mel = np.asarray(mel)
        self.check(mel, definition)
        if self.streaming:
            stream = self.stream(seed)
            return np.concatenate([stream.step(mel), stream.flush()])
        given = {"mel": mel[None].astype(np.float32), "seed": np.array([seed], np.int64)}
        samples: np.ndarray = self.session.run(["samples"], given)[0][0]
        return samples

    def stream(self, seed: int = 0) -> "Stream":
        """A stream of one utterance; raises ValueError if the file was exported without ``--streaming``."""
        if not self.streaming:
            raise ValueError("this file renders whole mels only; export one with wavegen-export --streaming")
        return Stream(self, seed)

    def check(self, mel: np.ndarray, definition: dict[str, Any] | None = None) -> None:
        """Raise WrongMelError unless ``mel`` can be a mel of this model; ``definition`` is the mel's own, if known."""
        if definition is not None:
            names = sorted(name for name in {*self.mel, *definition} if self.mel.get(name) != definition.get(name))
            if names:
                found = ", ".join(f"{name} is {definition.get(name)}, not {self.mel.get(name)}" for name in names)
                raise WrongMelError(f"mel has another definition: {found}; extract it again with the model's")
        bins = self.mel["n_mels"]
        if mel.dtype.kind != "f":
            raise WrongMelError(f"holds {mel.dtype} values, not floats; save the mel as float32")
        if mel.ndim != 2 or mel.shape[0] != bins or mel.shape[1] == 0:
            raise WrongMelError(f"has shape {mel.shape}, not [{bins}, frames]; transpose it, or extract it again")
        if not np.isfinite(mel).all():
            raise WrongMelError("has NaN or infinite values; look for the fault in what made it")
        lowest, highest, quietest = json.loads(self.metadata["wavegen_ln_limits"])
        found_lowest, found_highest = self._ln(mel.min(axis=1)).min(), self._ln(mel.max(axis=1)).max()
        scaled = self.mel["clip"] is None and self.mel["mean"] is None and mel.min() >= 0 and mel.max() <= 1
        if scaled or found_highest > highest or not lowest <= found_lowest <= quietest:
            raise WrongMelError(
                f"goes from {mel.min():.3g} to {mel.max():.3g}, which no mel of this definition does; extract it again "
                "with this definition from samples within ±1"
            )

    def _ln(self, values: np.ndarray) -> np.ndarray:
        """Natural logarithm of the linear mel of one value for each bin."""
        if self.mel["mean"] is not None:
            values = values * np.array(self.mel["std"]) + np.array(self.mel["mean"])
        gain = self.mel["gain"] / (math.log(10) if self.mel["log"] == "log10" else 1.0)
        return (values - self.mel["bias"]) / gain


class Stream:
    """A mel that arrives in chunks. The file computes windows, each as if the utterance ended with it::

        window          |- again -|- the next frames -|- right -|
        samples                   |-------------------|           the rest would follow if the utterance ended
        next window                                |- again -|- …

    The state, zeros at first, is that of the window's first frame.
    """

    def __init__(self, model: Model, seed: int = 0) -> None:
        numbers = model.streaming
        self._run, self._hop = model.session.run, model.hop_length
        self._again, self._right = numbers["again"], numbers["right"]
        self._seed = np.array([seed], np.int64)
        self._mel = np.zeros((1, model.mel["n_mels"], 0), np.float32)  # the frames of the next window
        self._begin = 0  # index of the first of them
        self._done = 0  # number of frames whose samples have been returned
        self._state = {name: np.zeros(shape, dtype) for name, (dtype, shape) in numbers["state"].items()}

    def step(self, mel: np.ndarray) -> np.ndarray:
        """Take the next frames, float ``[n_mels, frames]``, and return the samples that are ready."""
        self._mel = np.concatenate((self._mel, np.asarray(mel, np.float32)[None]), axis=2)
        return self._advance(self._right)

    def flush(self) -> np.ndarray:
        """The samples that waited for frames which will not come."""
        return self._advance(0)

    def _advance(self, right: int) -> np.ndarray:
        frames = self._mel.shape[2]
        end = self._begin + frames
        if end - right <= self._done:
            return np.zeros(0, np.float32)
        first_sample = np.array([self._begin * self._hop], np.int64)
        given = {"mel": self._mel, "seed": self._seed, "first_sample": first_sample}
        given |= {f"past_{name}": past for name, past in self._state.items()}
        samples, *state = self._run(["samples", *(f"next_{name}" for name in self._state)], given)
        count = samples.shape[1]
        samples = samples[0, count - (end - self._done) * self._hop : count - right * self._hop]
        self._done = end - right
        if frames > self._again:
            self._state = dict(zip(self._state, state, strict=True))
            self._mel, self._begin = self._mel[:, :, frames - self._again :], end - self._again
        return samples


def read_mel(path: Path | str) -> tuple[np.ndarray, dict[str, Any] | None]:
    """A mel and its definition, which a bare ``.npy`` does not state. Nothing is unpickled."""
    try:
        with open(path, "rb") as file:
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return loaded, None
            return loaded["mel"], json.loads(str(loaded["spec"]))
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise WrongMelError(f"is not a mel file ({error}); give an .npz of wavegen-extract or a .npy") from error


def write_wav(path: Path | str, samples: np.ndarray, sample_rate_hz: int) -> None:
    """Write samples as a 16-bit WAV file."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sample_rate_hz)
        file.writeframes((np.clip(samples, -1, 1) * 32767).round().astype("<i2").tobytes())  # clipped: int16 wraps


def main(argv: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(description="Render a mel spectrogram with an exported vocoder.")
    parser.add_argument("model", help="an .onnx file of wavegen-export")
    parser.add_argument("mel", help="an .npz of wavegen-extract, or a .npy [n_mels, frames]")
    parser.add_argument("out", help="a .wav file")
    parser.add_argument("--seed", type=int, default=0, help="seeds the noise (default: 0)")
    arguments = parser.parse_args(argv)
    try:
        model = Model(arguments.model)
        mel, definition = read_mel(arguments.mel)
        samples = model.render(mel, arguments.seed, definition)
    except WrongMelError as error:
        print(f"error: {arguments.mel}: {error}", file=sys.stderr)
        return 2
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    write_wav(arguments.out, samples, model.sample_rate_hz)
    return 0


if __name__ == "__main__":
    sys.exit(main())
