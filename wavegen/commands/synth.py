"""``wavegen-synth``: mel files, or a recording, to sound."""

import argparse
import contextlib
import functools
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from wavegen.commands import _synth_shards as shards
from wavegen.commands import at_least, command_parser, notify, pick_device, run_command
from wavegen.commands._sharding import add_sharding

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

    from wavegen.synthesis import AnyMelFile, Timing
    from wavegen.vocoders import Vocoder

MAX_PITCH_SHIFT = 24  # semitones; more than two octaves do not leave a voice
MAX_CLIPPED_SHARE = 0.01  # more than a loud voice clips: usually the mel was made to another definition
_ENGINE_OPTIONS = (("device", "auto"), ("engine", "auto"), ("precision", "float32"))


def main(argv: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = command_parser(
        "wavegen-synth", "Turn a mel spectrogram, or a folder of them, into sound; or copy a recording through its mel."
    )
    parser.add_argument(
        "mel",
        type=Path,
        help="a .npz of wavegen-extract, a .npy, a folder of them, or a recording such as a .wav; - reads a mel from "
        "standard input",
    )
    parser.add_argument(
        "out",
        type=Path,
        nargs="?",
        help="a .wav or .flac file; a folder if MEL is one; - writes a WAV to standard output during synthesis",
    )
    parser.add_argument("--play", action="store_true", help="play the sound during synthesis; OUT is optional then")
    parser.add_argument(
        "--model",
        type=Path,
        metavar="RUN_OR_FILE",
        help="a run's folder, a model file, an .onnx of wavegen-export, or 'default', the voice that wavegen ships "
        "(default: the newest finished run below ./runs; without one, that voice)",
    )
    parser.add_argument(
        "--profile",
        metavar="NAME",
        help="the mel definition of a .npy, or of a recording's mel, for a model that reads several (default: the "
        "model's own)",
    )
    parser.add_argument("--speaker", metavar="NAME", help="the speaker, for a model with several")
    parser.add_argument("--seed", type=at_least(0), default=0, help="seeds the noise (default: %(default)s)")
    parser.add_argument("--float", action="store_true", help="write 32-bit float WAV instead of 16-bit")
    parser.add_argument(
        "--raw", action="store_true", help="with OUT -, write samples without a header: 16-bit little-endian, mono"
    )
    parser.add_argument("--device", default="auto", help="cpu, cuda, … (default: the fastest for the model)")
    parser.add_argument("--engine", default="auto", help="auto, torch, or a faster one that the model has")
    parser.add_argument(
        "--precision",
        default="float32",
        help="precision of the engine's weights: float32; int16 or int8 for WaveNets, bfloat16 or int8 for spectral "
        "vocoders; fewer bits are faster and less exact (default: %(default)s)",
    )
    parser.add_argument(
        "--temperature",
        type=at_least(0, float),
        help="scales the randomness of a WaveNet's sampling (1 = as trained, lower = less noise)",
    )
    parser.add_argument(
        "--iterations",
        type=at_least(0),
        metavar="N",
        help="Griffin-Lim iterations after the mel is imposed; more sound better and take longer "
        "(default: as in its recipe)",
    )
    parser.add_argument(
        "--pitch",
        type=float,
        metavar="SEMITONES",
        help="raise the pitch of a vocoder with a source; negative numbers lower it (default: the mel's own pitch)",
    )
    parser.add_argument(
        "--impose",
        action=argparse.BooleanOptionalAction,
        help="whether to impose the mel on what a WaveNet has drawn (default: as in its recipe)",
    )
    parser.add_argument("--batch", type=at_least(1), help="files synthesised together (default: as suits the model)")
    parser.add_argument("--jobs", type=at_least(1), help="threads that work on files (default: as suits the model)")
    add_sharding(parser)
    arguments = parser.parse_args(argv)
    _check(parser, arguments)
    return run_command("wavegen-synth", lambda: _read_and_synth(arguments))


def _check(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """Refuse arguments that do not go together."""
    if arguments.seed >= 2**63:
        parser.error(f"--seed {arguments.seed}: must be less than 2^63")
    if arguments.temperature == math.inf:
        parser.error("--temperature: must be finite")
    if arguments.pitch is not None and not abs(arguments.pitch) <= MAX_PITCH_SHIFT:  # NaN is refused too
        parser.error(f"--pitch {arguments.pitch:g}: must be from -{MAX_PITCH_SHIFT} to {MAX_PITCH_SHIFT} semitones")
    if arguments.out is None and not arguments.play:
        parser.error("give OUT or --play")
    if arguments.raw and arguments.out != Path("-"):
        parser.error("--raw applies to standard output: give - as OUT")
    is_same = arguments.out is not None and arguments.out.exists() and arguments.mel.is_file()
    if is_same and arguments.out.samefile(arguments.mel):
        parser.error(f"{arguments.out} is the input too; give OUT another name")
    if arguments.mel.is_dir():
        if arguments.play or arguments.out == Path("-"):
            parser.error(f"{arguments.mel} is a folder; --play and standard output take a single mel")
        if arguments.out.suffix in (".wav", ".flac"):
            parser.error(f"{arguments.mel} is a folder, so OUT must be one too, not {arguments.out}")
    elif arguments.shard is not None or arguments.merge or arguments.ray is not None:
        parser.error(f"--shard, --merge and --ray apply to a folder of mels, and {arguments.mel} is not one")


def _read_and_synth(arguments: argparse.Namespace) -> int:
    """Synthesise a file or folder, or what standard input holds."""
    from wavegen.files import standard_input_as_file

    if arguments.mel != Path("-"):
        return _synth(arguments)
    with standard_input_as_file(".npz") as arguments.mel:  # the content tells the formats apart, not the suffix
        return _synth(arguments)


def _synth(arguments: argparse.Namespace) -> int:
    from tqdm import tqdm

    from wavegen.audio import AUDIO_SUFFIXES
    from wavegen.checkpoint import DEFAULT_VOICE, MODEL, find_model, load_vocoder
    from wavegen.mel import profile
    from wavegen.mel.recorded import recorded_mel
    from wavegen.progress import bar_options, tell_if_slow
    from wavegen.synthesis import AnyMelFile, compiling_if_it_pays, open_mels, prepare, synthesize_files

    if arguments.merge:
        notify(shards.merge(arguments))
        return 0
    if arguments.model is not None and arguments.model.suffix == ".onnx":
        return _synth_exported(arguments)

    # Open the mels, load the model, and check one against the other.
    copies = arguments.mel.suffix.lower() in AUDIO_SUFFIXES
    mels: list[AnyMelFile] = [] if copies else [*open_mels(arguments.mel)]
    definition = None if arguments.profile is None else profile(arguments.profile)
    model = find_model(arguments.model)
    if arguments.model is None and model == DEFAULT_VOICE:
        _note("no finished run below ./runs, so the voice that wavegen ships speaks")
    elif arguments.model is None or (arguments.model.is_dir() and model.name != MODEL):  # the user did not name it
        _note(f"model {model}")
    device = pick_device(arguments.device) if arguments.device != "auto" else None
    loaded = load_vocoder(model)
    if copies:
        mels = [recorded_mel(arguments.mel, definition or loaded.mel)]
    why = "preparing the engine; its first start on a machine compiles it, which takes up to half a minute"
    with tell_if_slow(why, _note if "numba" in loaded.engines else lambda line: None):
        vocoder, engine, notes = prepare(
            loaded,
            mels,
            definition=definition,
            speaker=arguments.speaker,
            device=device,
            engine=arguments.engine,
            precision=arguments.precision,
            options=shards.options(arguments),
            substitutes=model == DEFAULT_VOICE,
            checked=mels if arguments.shard is None and arguments.ray is None else [],  # shards check their own
        )
    is_asked_for = arguments.engine != "auto"
    if (vocoder.names_engine or is_asked_for) and len(vocoder.engines) > 1:
        _note(f"engine {engine}")
    for note in notes:
        _note(note)

    # Synthesise: one shard, or all of them in a cluster, or everything here.
    if arguments.shard is not None or arguments.ray is not None:
        in_shards = shards.synth_part if arguments.ray is None else shards.synth_in_cluster
        notify(in_shards(arguments, vocoder, mels, model))
        return 0
    live = arguments.play or arguments.out == Path("-")
    samples = sum(mel.frames for mel in mels) * vocoder.mel.hop_length
    with (
        tqdm(total=samples, desc="synthesising", unit="sample", unit_scale=True, **bar_options()) as bar,
        compiling_if_it_pays(vocoder, mels),
    ):
        if live:
            timing = _speak(arguments, vocoder, mels[0], bar.update)
        else:
            timing = synthesize_files(
                vocoder,
                shards.with_outputs(mels, arguments.mel, arguments.out),
                batch=arguments.batch or vocoder.items_at_once,
                jobs=arguments.jobs or vocoder.jobs_at_once,
                seed=arguments.seed,
                speaker=arguments.speaker,
                float32=arguments.float,
                on_progress=bar.update,
            )

    _report(arguments, timing, live=live)
    return 0


def _synth_exported(arguments: argparse.Namespace) -> int:
    """Synthesise with a model of ``wavegen-export``, whose options are fixed in the file."""
    from tqdm import tqdm

    from wavegen.audio import AUDIO_SUFFIXES, AudioWriter, WavStream
    from wavegen.errors import ConfigError
    from wavegen.exchange.onnx.rendering import OnnxModel, render_into
    from wavegen.mel import check_compatible, profile
    from wavegen.mel.recorded import recorded_mel
    from wavegen.progress import bar_options
    from wavegen.synthesis import AnyMelFile, open_mels

    fixed = ("speaker", "temperature", "iterations", "pitch", "impose", "batch", "jobs", "shard", "ray")
    given = [f"--{name}" for name in fixed if getattr(arguments, name) is not None]
    given += [f"--{name}" for name, usual in _ENGINE_OPTIONS if getattr(arguments, name) != usual]
    given += ["--play"] if arguments.play else []
    if given:
        raise ConfigError(
            "an ONNX file renders whole mels as it was exported",
            where=" and ".join(given),
            remedy="leave it out, or give the model that the file was made from",
        )
    model = OnnxModel(arguments.model)
    if arguments.profile is not None:
        check_compatible(profile(arguments.profile), model.mel, "--profile")
    copies = arguments.mel.suffix.lower() in AUDIO_SUFFIXES
    mels: list[AnyMelFile] = [recorded_mel(arguments.mel, model.mel)] if copies else [*open_mels(arguments.mel)]
    for mel in mels:
        mel.check(model.mel)

    rate, live = model.mel.sample_rate_hz, arguments.out == Path("-")
    samples = sum(mel.frames for mel in mels) * model.mel.hop_length
    with tqdm(total=samples, desc="synthesising", unit="sample", unit_scale=True, **bar_options()) as bar:

        def write(out: Path, sound: "np.ndarray") -> None:
            with AudioWriter(out, rate, float32=arguments.float) as writer:
                writer.write(sound)

        if live:
            sink = WavStream(sys.stdout.buffer, rate, float32=arguments.float, raw=arguments.raw)
            pairs = [(mels[0], sink.write)]
        else:
            outputs = shards.with_outputs(mels, arguments.mel, arguments.out)
            pairs = [(mel, functools.partial(write, out)) for mel, out in outputs]
        timing = render_into(model, pairs, seed=arguments.seed, on_progress=bar.update)
    _report(arguments, timing, live=live)
    return 0


def _report(arguments: argparse.Namespace, timing: "Timing", *, live: bool) -> None:
    """Print how much sound there is and how long it took."""
    if timing.clipped_share > MAX_CLIPPED_SHARE:
        _note(f"{timing.clipped_share:.0%} of the samples clipped; was the mel made to the model's definition?")
    times = timing.times_real_time
    speed = f"{times:.1f}" if times >= 1 else f"{times:.2g}"
    summary = f"{timing.audio_s:.2f} s of audio in {timing.wall_s:.2f} s, {speed} x real time"
    if live:
        _note(f"{summary}, first sound after {1000 * timing.first_s:.0f} ms")
    else:
        notify(f"{arguments.out}: {summary}")


def _speak(
    arguments: argparse.Namespace, vocoder: "Vocoder", mel: "AnyMelFile", on_progress: "Callable[[int], object]"
) -> "Timing":
    """Synthesise one mel to standard output, the loudspeaker and a file, or to some of these."""
    from wavegen.audio import AudioWriter, WavStream
    from wavegen.playback import Player
    from wavegen.synthesis import Sink, synthesize_into

    rate = vocoder.mel.sample_rate_hz
    sinks = list[Sink]()
    player = None
    with contextlib.ExitStack() as stack:
        if arguments.play:
            player = stack.enter_context(Player(rate))
            sinks.append(player)
        if arguments.out == Path("-"):
            sinks.append(WavStream(sys.stdout.buffer, rate, float32=arguments.float, raw=arguments.raw))
        elif arguments.out is not None:
            sinks.append(stack.enter_context(AudioWriter(arguments.out, rate, float32=arguments.float)))
        timing = synthesize_into(
            sinks,
            vocoder,
            mel,
            seed=arguments.seed,
            speaker=arguments.speaker,
            live=True,
            on_progress=on_progress,
        )
    if player is not None and player.gaps:
        _note(f"{player.gaps} gaps: this model is slower than real time here")
    return timing


def _note(line: str) -> None:
    """Print a line to stderr, because standard output may carry sound."""
    print(f"wavegen-synth: {line}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
