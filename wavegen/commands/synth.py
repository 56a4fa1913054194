"""wavegen-synth: mel files to sound."""

import argparse
import contextlib
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from wavegen.commands import pick_device, run_command, say

if TYPE_CHECKING:
    from collections.abc import Callable

    from wavegen.synthesis import Timing
    from wavegen.vocoders import Vocoder

CLIPPED_SHARE = 0.01  # more is no loud voice but a mel that was taken for another


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="wavegen-synth",
        description="Turn a mel spectrogram, or a folder of them, into sound.",
    )
    parser.add_argument("mel", type=Path, help=".npy, or .npz of wavegen-extract, or a folder of them")
    parser.add_argument(
        "out",
        type=Path,
        nargs="?",
        help=".wav or .flac; a folder where MEL is one; - for a WAV on standard output while it is made",
    )
    parser.add_argument("--play", action="store_true", help="play it while it is made; OUT may be left out")
    parser.add_argument(
        "--model",
        type=Path,
        metavar="RUN_OR_FILE",
        help="a run's folder or a model file (default: newest finished run)",
    )
    parser.add_argument(
        "--profile", metavar="NAME",
        help="definition of a bare .npy, for a model that reads several (default: its own); one with statistics of a "
        "corpus needs an .npz that states them",
    )  # fmt: skip
    parser.add_argument("--speaker", metavar="NAME", help="who speaks, of a model that knows several")
    parser.add_argument("--seed", type=int, default=0, help="of a WaveNet's noise (default: %(default)s)")
    parser.add_argument("--float", action="store_true", help="write 32-bit float WAV instead of 16-bit")
    parser.add_argument("--device", default="auto", help="cpu, cuda, … (default: a GPU where there is one)")
    parser.add_argument(
        "--engine",
        choices=("auto", "torch", "numba"),
        default="auto",
        help="what generates a WaveNet's samples (default: the fastest that works)",
    )
    parser.add_argument(
        "--precision",
        choices=("float32", "int16"),
        default="float32",
        help="of the weights: int16 is faster in larger WaveNets and slightly off (default: %(default)s)",
    )
    parser.add_argument(
        "--temperature", type=float, help="of a WaveNet's sampling: 1 as it was learnt, less for fewer surprises"
    )
    parser.add_argument(
        "--iterations",
        type=int,
        metavar="N",
        help="of Griffin-Lim at the end of a spectral vocoder: more are slower and better (default: its recipe says)",
    )
    parser.add_argument("--batch", type=int, help="of a folder, files synthesised together (default: what suits)")
    parser.add_argument("--jobs", type=int, help="of a folder, threads (default: for a WaveNet one a core, else 1)")
    arguments = parser.parse_args(argv)
    if not 0 <= arguments.seed < 2**63:
        parser.error(f"--seed {arguments.seed}: give 0 or more, and less than 2^63")
    for name in ("batch", "jobs"):
        if getattr(arguments, name) is not None and getattr(arguments, name) < 1:
            parser.error(f"--{name} {getattr(arguments, name)}: give at least 1")
    if arguments.temperature is not None and not 0 <= arguments.temperature < math.inf:
        parser.error(f"--temperature {arguments.temperature}: give 0 or more")
    if arguments.iterations is not None and arguments.iterations < 0:
        parser.error(f"--iterations {arguments.iterations}: give 0 or more")
    if arguments.out is None and not arguments.play:
        parser.error("give OUT, or --play")
    if arguments.mel.is_dir() and (arguments.play or arguments.out == Path("-")):
        parser.error(f"{arguments.mel} is a folder: give one mel to play, or for standard output")
    if arguments.mel.is_dir() and arguments.out.suffix in (".wav", ".flac"):
        parser.error(f"{arguments.mel} is a folder, and {arguments.out} would be one: give it a folder's name")
    return run_command("wavegen-synth", lambda: _synth(arguments))


def _synth(arguments: argparse.Namespace) -> int:
    from tqdm import tqdm

    from wavegen.checkpoint import MODEL, find_model, load_vocoder
    from wavegen.errors import MelError
    from wavegen.mel import profile
    from wavegen.progress import pace
    from wavegen.synthesis import find_mels, open_for, reader_of, synthesize_files

    if not arguments.mel.exists():
        raise MelError("no such file or folder", where=arguments.mel, remedy="check the path")
    live = arguments.play or arguments.out == Path("-")
    if arguments.mel.is_dir():
        mels = find_mels(arguments.mel)
        files = [(path, arguments.out / path.relative_to(arguments.mel).with_suffix(".wav")) for path in mels]
    else:
        files = [(arguments.mel, arguments.out)]
    model = find_model(arguments.model)
    if arguments.model is None or (arguments.model.is_dir() and model.name != MODEL):  # not what one would expect
        _note(f"model {model}")
    device = pick_device(arguments.device)
    vocoder = load_vocoder(model)
    vocoder.speaker_condition.indices(arguments.speaker, 1)  # a name it does not know is refused before any sound
    if arguments.profile is not None:
        vocoder = vocoder.for_mel(profile(arguments.profile), f"--profile {arguments.profile}")
    elif vocoder.family is not None:
        vocoder = reader_of(vocoder, [path for path, _ in files])
    vocoder = vocoder.to(device if arguments.device != "auto" else vocoder.preferred_device(device))
    vocoder.set_synthesis_options(temperature=arguments.temperature, iterations=arguments.iterations)
    engine = vocoder.use_engine(arguments.engine, arguments.precision)
    if len(vocoder.engines) > 1:
        _note(f"engine {engine}")
    frames = sum(open_for(vocoder, path).shape[1] for path, _ in files)  # all checked before any is synthesised
    with tqdm(total=frames, desc="synthesising", unit="frame", **pace()) as bar:
        if live:
            timing = _speak(arguments, vocoder, bar.update)
        else:
            timing = synthesize_files(
                vocoder,
                files,
                batch=arguments.batch or vocoder.items_at_once,
                jobs=arguments.jobs or vocoder.jobs_at_once,
                seed=arguments.seed,
                speaker=arguments.speaker,
                float32=arguments.float,
                on_piece=bar.update,
            )
    share = timing.clipped / max(1, frames * vocoder.mel.hop_length)
    if share > CLIPPED_SHARE:
        _note(f"{share:.0%} of the samples clipped; is the mel made as the model's?")
    times = timing.times_real_time
    speed = f"{times:.1f}" if times >= 1 else f"{times:.2g}"
    how = f"{timing.audio_s:.2f} s of audio in {timing.wall_s:.2f} s, {speed} x real time"
    if live:
        _note(f"{how}, the first after {1000 * timing.first_s:.0f} ms")
    else:
        say(f"{arguments.out}: {how}")
    return 0


def _speak(arguments: argparse.Namespace, vocoder: "Vocoder", on_piece: "Callable[[int], None]") -> "Timing":
    """Synthesise one mel into a pipe, the loudspeaker and a file, of which at least one is wanted."""
    from wavegen.audio import AudioWriter, WavStream
    from wavegen.playback import Player
    from wavegen.synthesis import LIVE_PIECE_FRAMES, Sink, open_for, synthesize_into

    rate, sinks = vocoder.mel.sample_rate_hz, list[Sink]()
    player = None
    with contextlib.ExitStack() as stack:
        if arguments.play:
            player = stack.enter_context(Player(rate))
            sinks.append(player)
        if arguments.out == Path("-"):
            sinks.append(WavStream(sys.stdout.buffer, rate, float32=arguments.float))
        elif arguments.out is not None:
            sinks.append(stack.enter_context(AudioWriter(arguments.out, rate, float32=arguments.float)))
        timing = synthesize_into(
            sinks,
            vocoder,
            open_for(vocoder, arguments.mel),
            seed=arguments.seed,
            speaker=arguments.speaker,
            piece_frames=LIVE_PIECE_FRAMES if vocoder.steps_natively else None,
            on_piece=on_piece,
        )
    if player is not None and player.gaps:
        _note(f"{player.gaps} gaps: this model is slower than it is played here")
    return timing


def _note(line: str) -> None:
    """Tell the user something that is not the result, and never in the way of sound on standard output."""
    print(f"wavegen-synth: {line}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
