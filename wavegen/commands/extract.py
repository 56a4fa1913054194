"""wavegen-extract: turn recordings into mel files."""

import argparse
import sys
from pathlib import Path

from wavegen.commands import at_least, command_parser, notify, run_command

INCOMPLETE = 1
LIST_SUFFIXES = (".tsv", ".txt", ".csv", ".jsonl", ".json", ".scp", ".gz")


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit code, 1 if some recordings were left out or passed over."""
    parser = command_parser(
        "wavegen-extract",
        "Extract a mel file from every recording, and write a manifest for training. The mel files state their mel "
        "definition. Exit code 1 means that some recordings were left out or passed over.",
    )
    parser.add_argument(
        "recordings",
        type=Path,
        help="a folder, searched with its subfolders; or one recording; or a tab-separated list (.tsv, .txt, .csv) "
        "with the column path, and the optional columns mel (predicted by a TTS), name, split and speaker; or a list "
        "of NeMo, Hugging Face, Kaldi, lhotse, HiFi-GAN or VITS (also .jsonl, .json, .scp, .jsonl.gz)",
    )
    parser.add_argument("out", type=Path, help="folder for manifest.tsv and mels/")
    parser.add_argument("--profile", default="bigvgan-24k", help="mel definition (default: %(default)s)")
    parser.add_argument(
        "--held-out",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="share of the recordings for the validation set (default: none)",
    )
    parser.add_argument("--jobs", type=at_least(1), help="number of threads (default: one per core)")
    arguments = parser.parse_args(argv)
    if not 0 <= arguments.held_out < 1:
        parser.error(f"argument --held-out: {arguments.held_out} must be at least 0 and less than 1")
    return run_command("wavegen-extract", lambda: _extract(arguments))


def _extract(arguments: argparse.Namespace) -> int:
    from wavegen.corpora.extraction import MANIFEST, extract
    from wavegen.corpora.folders import find_recordings
    from wavegen.corpora.formats import OURS, list_format
    from wavegen.corpora.manifest import Recording, read_recordings
    from wavegen.mel import profile

    spec = profile(arguments.profile)
    source = arguments.recordings
    passed_over: list[str] = []
    if source.suffix.lower() in LIST_SUFFIXES:
        found = list_format(source)
        if found != OURS:
            notify(f"{source} is {found}")
        recordings = read_recordings(source, held_out=arguments.held_out)
    elif source.is_file():
        recordings = [Recording(source.stem, source, "train")]
    else:
        recordings = find_recordings(
            source, held_out=arguments.held_out, outputs=[arguments.out], notify=passed_over.append
        )

    result = extract(recordings, arguments.out, spec, jobs=arguments.jobs, progress=True)
    seconds = sum(clip.samples for clip in result.clips) / spec.sample_rate_hz
    how = "were already complete" if result.was_complete else "extracted"
    notify(f"{len(result.clips)} mels of {seconds:.1f} s {how}: {arguments.out / MANIFEST}{result.notes()}")
    complaints = [*passed_over, *([result.left_out_report()] if result.left_out else [])]
    for complaint in complaints:
        print(f"wavegen-extract: {complaint}", file=sys.stderr)
    return INCOMPLETE if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
