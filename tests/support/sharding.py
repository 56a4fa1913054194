"""The three commands whose work can be divided, each with something small to work on in the current folder."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import soundfile

from support.commands import command_main
from support.corpus import write_noise
from support.signals import noise_like, speech
from support.vocoders import SPEC, tiny_mel, write_model
from wavegen.mel import save_mel

MODEL = "model.safetensors"


def _write_recordings() -> None:
    write_noise("in/a.wav", "in/b/1.wav", "in/b/2.flac", "in/c.wav", seconds=0.1)
    write_noise("in/other-rate.wav", seconds=0.1, rate=16000)  # must be resampled and copied
    Path("in/bad.wav").write_text("a text")


def _write_mels() -> None:
    write_model(Path(MODEL))
    for name, frames in {"a": 30, "b/1": 7, "b/2": 40, "c": 12, "d": 30}.items():
        save_mel(f"in/{name}.npz", tiny_mel(frames, seed=len(name) + frames), SPEC)


def _write_sounds() -> None:
    write_model(Path(MODEL))
    for seed, name in enumerate(("a", "b/1", "b/2", "c")):
        clean = speech(0.8, pitch_hz=110 + 20 * seed, rate=16000, seed=seed)
        for path, samples in ((f"in/{name}.wav", clean), (f"noisy/{name}.wav", clean + 0.02 * noise_like(clean))):
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, samples, 16000)
    soundfile.write("in/short.wav", speech(0.8, pitch_hz=100, rate=16000, seed=9)[:20], 16000)  # no mel frame
    Path("noisy/c.wav").unlink()


@dataclass(frozen=True)
class Divisible:
    """A command whose work can be divided.

    Attributes:
        name: the command.
        prepare: writes its inputs below ``in``.
        arguments: its arguments; OUT is the folder of the results.
        code: its exit code.
        other: an option that changes its results.
        task: module and function that do the task of a shard in a cluster.
    """

    name: str
    prepare: Callable[[], None]
    arguments: tuple[str, ...]
    code: int
    other: tuple[str, ...]
    task: tuple[str, str]

    def run(self, out: str, *options: str) -> int:
        """Run the command in this process; returns its exit code."""
        return command_main(self.name)([out if word == "OUT" else word for word in self.arguments] + [*options])


DIVISIBLE = {
    command.name: command
    for command in (
        Divisible(
            "extract", _write_recordings, ("in", "OUT", "--held-out", "0.3"), 1, ("--profile", "vocos-24k"),
            ("extract", "_extract_part"),
        ),
        Divisible(
            "synth", _write_mels, ("in", "OUT", "--model", MODEL), 0, ("--seed", "1"), ("_synth_shards", "_run_task")
        ),
        Divisible(
            "evaluate", _write_sounds,
            ("in", "noisy", "--out", "OUT", "--model", MODEL, "--baseline", "griffin-lim", "--jobs", "1"), 0,
            ("--profile", "hifigan-22k"), ("evaluate", "_evaluate_part"),
        ),
    )
}  # fmt: skip


def files(out: str) -> dict[str, bytes]:
    """All files of some results, hidden ones too."""
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(Path(out).rglob("*")) if path.is_file()}
