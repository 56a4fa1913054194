"""wavegen-synth: mel files to sound."""

import argparse
import sys
from pathlib import Path

from wavegen.commands import pick_device, run_command, say

CLIPPED_SHARE = 0.01  # more is no loud voice but a mel that was taken for another


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="wavegen-synth",
        description="Turn a mel spectrogram, or a folder of them, into sound.",
    )
    parser.add_argument("mel", type=Path, help=".npy, or .npz of wavegen-extract, or a folder of them")
    parser.add_argument("out", type=Path, help=".wav or .flac; a folder where MEL is one")
    parser.add_argument(
        "--model",
        type=Path,
        metavar="RUN_OR_FILE",
        help="a run's folder or a model file (default: newest finished run)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of a WaveNet's noise (default: %(default)s)")
    parser.add_argument("--float", action="store_true", help="write 32-bit float WAV instead of 16-bit")
    parser.add_argument("--device", default="auto", help="cpu, cuda, … (default: a GPU where there is one)")
    parser.add_argument(
        "--engine",
        choices=("auto", "reference", "numba"),
        default="auto",
        help="what generates a WaveNet's samples (default: the fastest that works)",
    )
    parser.add_argument(
        "--precision",
        choices=("float32", "int16"),
        default="float32",
        help="of the weights: int16 is faster in larger WaveNets and slightly off (default: %(default)s)",
    )
    arguments = parser.parse_args(argv)
    if not 0 <= arguments.seed < 2**63:
        parser.error(f"--seed {arguments.seed}: give 0 or more, and less than 2^63")
    return run_command("wavegen-synth", lambda: _synth(arguments))


def _synth(arguments: argparse.Namespace) -> int:
    from tqdm import tqdm

    from wavegen.checkpoint import MODEL, find_model, load_vocoder
    from wavegen.errors import MelError
    from wavegen.progress import pace
    from wavegen.synthesis import Timing, find_mels, open_for, synthesize_file

    if not arguments.mel.exists():
        raise MelError("no such file or folder", where=arguments.mel, remedy="check the path")
    if arguments.mel.is_dir():
        mels = find_mels(arguments.mel)
        jobs = [(path, arguments.out / path.relative_to(arguments.mel).with_suffix(".wav")) for path in mels]
    else:
        jobs = [(arguments.mel, arguments.out)]
    model = find_model(arguments.model)
    if arguments.model is None or (arguments.model.is_dir() and model.name != MODEL):  # not what one would expect
        print(f"wavegen-synth: model {model}", file=sys.stderr)
    device = pick_device(arguments.device)
    vocoder = load_vocoder(model)
    # Sample by sample, compiled code on a CPU outruns a GPU; who names a device gets it.
    if arguments.device != "auto" or vocoder.objective != "likelihood":
        vocoder = vocoder.to(device)
    engine = vocoder.use_engine(arguments.engine, arguments.precision)
    if engine is not None:
        print(f"wavegen-synth: engine {engine}", file=sys.stderr)
    frames = sum(open_for(vocoder, path).shape[1] for path, _ in jobs)  # all checked before any is synthesised
    total = Timing()
    with tqdm(total=frames, desc="synthesising", unit="frame", **pace()) as bar:
        for path, out in jobs:
            timing = synthesize_file(
                vocoder, path, out, seed=arguments.seed, float32=arguments.float, on_piece=bar.update
            )
            total = total + timing
    speed = f"{total.times_real_time:.1f} x real time"
    share = total.clipped / max(1, frames * vocoder.mel.hop_length)
    if share > CLIPPED_SHARE:
        print(f"wavegen-synth: {share:.0%} of the samples clipped; is the mel made as the model's?", file=sys.stderr)
    say(f"{arguments.out}: {total.audio_s:.2f} s of audio in {total.wall_s:.2f} s, {speed}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
