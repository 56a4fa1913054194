"""wavegen-inpaint: fill the holes of a recording, or what it lacks above a frequency."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from wavegen.commands import at_least, command_parser, notify, run_command
from wavegen.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np

    from wavegen.inpainting import Hole

ITERATIONS = 32


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = command_parser(
        "wavegen-inpaint",
        "Fill the holes of a recording with what an inpainter expects there. All other samples stay as they are, bit "
        "for bit. Train an inpainter with wavegen-train speech24k/inpaint.",
    )
    parser.add_argument("damaged", type=Path, help="a WAV or FLAC file")
    parser.add_argument("repaired", type=Path, help="the file to write, .wav or .flac")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument(
        "--holes",
        metavar="HOLES",
        help="holes in seconds, such as 1.20-1.28,3.0-3.1, or a file with a start and an end on each line",
    )
    where.add_argument("--detect", action="store_true", help="find runs of digital zero and clipped peaks")
    where.add_argument(
        "--above", type=at_least(500, float), metavar="HZ", help="add what the recording lacks above this frequency"
    )
    parser.add_argument(
        "--model", help="the inpainter: a run's folder or a model file (default: the newest finished run)"
    )
    parser.add_argument(
        "--vocoder",
        help="the vocoder that renders: as --model (default: the shipped voice; with --live the source-filter vocoder, "
        "which has the shortest delay)",
    )
    parser.add_argument(
        "--live",
        action="store_true",
        help="repair the recording as if it arrived in packets of 10 ms, and print the delay and the work; needs a "
        "causal inpainter",
    )
    parser.add_argument(
        "--iterations",
        type=at_least(0),
        help=f"iterations in which known samples and mel are imposed (default: {ITERATIONS}); with --live, further "
        "iterations of the vocoder, which add to the delay (default: its own; 0 for the source-filter vocoder)",
    )
    parser.add_argument("--seed", type=at_least(0), default=0, help="seeds the vocoder's noise (default: %(default)s)")
    arguments = parser.parse_args(argv)
    return run_command("wavegen-inpaint", lambda: _inpaint(arguments))


def _inpaint(arguments: argparse.Namespace) -> int:
    from wavegen.checkpoint import load_model, load_vocoder
    from wavegen.inpainting import extend_band, fill_holes, live_vocoder, repair_as_stream, repair_file
    from wavegen.models.inpainter import Inpainter

    if arguments.live and arguments.above is not None:
        raise ConfigError("--live fills holes and does not add a band", where="--above", remedy="leave out --live")
    inpainter = load_model(Inpainter, arguments.model)
    if arguments.live and arguments.vocoder is None:
        vocoder = live_vocoder(inpainter.mel)
    else:
        vocoder = load_vocoder(arguments.vocoder or "default")
    if arguments.live:
        vocoder.set_synthesis_options(iterations=arguments.iterations)
    filled: list[tuple[int, float]] = []
    delays_s: list[float] = []
    loads: list[float] = []

    def repair(samples: "np.ndarray", rate: int) -> "np.ndarray":
        if arguments.above is not None:
            return extend_band(samples, arguments.above, inpainter, vocoder, sample_rate_hz=rate, seed=arguments.seed)
        holes = _holes(arguments, samples, rate)
        filled.append((len(holes), sum(hole.stop - hole.start for hole in holes) / rate))
        options = {"sample_rate_hz": rate, "seed": arguments.seed}
        if arguments.live:
            result = repair_as_stream(samples, holes, inpainter, vocoder, **options)
            delays_s.append(result.delay_s)
            loads.append(result.load)
            return result.samples
        iterations = ITERATIONS if arguments.iterations is None else arguments.iterations
        return fill_holes(samples, holes, inpainter, vocoder, iterations=iterations, **options)

    repair_file(arguments.damaged, arguments.repaired, repair)
    if arguments.above is not None:
        notify(f"{arguments.repaired}: completed above {arguments.above:g} Hz")
        return 0
    count, seconds = (sum(values) for values in zip(*filled, strict=True))
    line = f"{arguments.repaired}: {count} holes filled, {1000 * seconds:.0f} ms"
    if arguments.live:
        work_ms = 10 * sum(loads)  # of all channels
        line += f"; delay {1000 * delays_s[0]:.0f} ms, {work_ms:.1f} ms of work per 10 ms"
    notify(line)
    return 0


def _holes(arguments: argparse.Namespace, samples: "np.ndarray", rate: int) -> "list[Hole]":
    """The holes of a channel: found, listed in a file, or given as text."""
    from wavegen.inpainting import detect_holes, parse_holes, read_holes

    if arguments.detect:
        return detect_holes(samples, rate)
    path = Path(arguments.holes)
    if path.exists() or not arguments.holes[:1].isdigit():
        return read_holes(path, len(samples), rate)
    return parse_holes(arguments.holes, len(samples), rate)


if __name__ == "__main__":
    sys.exit(main())
