"""wavegen-inpaint: fill the holes of a recording, or what it lacks above a frequency."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from wavegen.commands import at_least, command_parser, notify, run_command

if TYPE_CHECKING:
    import numpy as np


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
        "--vocoder", default="default", help="the vocoder that renders: as --model (default: the shipped voice)"
    )
    parser.add_argument(
        "--iterations",
        type=at_least(0),
        default=32,
        help="iterations in which known samples and mel are imposed (default: %(default)s)",
    )
    parser.add_argument("--seed", type=at_least(0), default=0, help="seeds the vocoder's noise (default: %(default)s)")
    arguments = parser.parse_args(argv)
    return run_command("wavegen-inpaint", lambda: _inpaint(arguments))


def _inpaint(arguments: argparse.Namespace) -> int:
    from wavegen.checkpoint import load_model, load_vocoder
    from wavegen.inpainting import Hole, detect_holes, extend_band, fill_holes, parse_holes, read_holes, repair_file
    from wavegen.models.inpainter import Inpainter

    inpainter = load_model(Inpainter, arguments.model)
    vocoder = load_vocoder(arguments.vocoder)
    filled: list[tuple[int, float]] = []

    def holes_of(samples: "np.ndarray", rate: int) -> list[Hole]:
        if arguments.detect:
            return detect_holes(samples, rate)
        path = Path(arguments.holes)
        if path.exists() or not arguments.holes[:1].isdigit():
            return read_holes(path, len(samples), rate)
        return parse_holes(arguments.holes, len(samples), rate)

    def repair(samples: "np.ndarray", rate: int) -> "np.ndarray":
        if arguments.above is not None:
            return extend_band(samples, arguments.above, inpainter, vocoder, sample_rate_hz=rate, seed=arguments.seed)
        holes = holes_of(samples, rate)
        filled.append((len(holes), sum(hole.stop - hole.start for hole in holes) / rate))
        options = {"iterations": arguments.iterations, "seed": arguments.seed}
        return fill_holes(samples, holes, inpainter, vocoder, sample_rate_hz=rate, **options)

    repair_file(arguments.damaged, arguments.repaired, repair)
    if arguments.above is not None:
        notify(f"{arguments.repaired}: completed above {arguments.above:g} Hz")
    else:
        count, seconds = (sum(values) for values in zip(*filled, strict=True))
        notify(f"{arguments.repaired}: {count} holes filled, {1000 * seconds:.0f} ms")
    return 0


if __name__ == "__main__":
    sys.exit(main())
