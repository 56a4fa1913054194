"""wavegen-extract: recordings to mel files."""

import argparse
import sys
from pathlib import Path

from wavegen.commands import run_command, say

INCOMPLETE = 1


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit code: 1 where some recordings had to be left out."""
    parser = argparse.ArgumentParser(
        prog="wavegen-extract",
        description="Make a mel file of every recording, with the mel definition inside, and a manifest for training. "
        "Exit code 1 means that some recordings were left out.",
    )
    parser.add_argument(
        "recordings",
        type=Path,
        help="a folder, searched with its subfolders; one recording; or a .tsv with the column path, and perhaps mel "
        "(predicted by a TTS), name, split, speaker",
    )
    parser.add_argument("out", type=Path, help="folder for manifest.tsv and mels/")
    parser.add_argument("--profile", default="bigvgan-24k", help="mel definition (default: %(default)s)")
    parser.add_argument(
        "--held-out", type=float, default=0.0, metavar="SHARE", help="share for validation (default: none)"
    )
    parser.add_argument("--jobs", type=int, help="threads (default: one a core)")
    arguments = parser.parse_args(argv)
    if not 0 <= arguments.held_out < 1:
        parser.error(f"--held-out {arguments.held_out}: give a share from 0 up to, but not including, 1")
    if arguments.jobs is not None and arguments.jobs < 1:
        parser.error(f"--jobs {arguments.jobs}: give at least 1")
    return run_command("wavegen-extract", lambda: _extract(arguments))


def _extract(arguments: argparse.Namespace) -> int:
    from wavegen.corpora.extraction import MANIFEST, extract
    from wavegen.corpora.manifest import Recording, find_recordings, read_recordings
    from wavegen.mel import profile

    spec, source = profile(arguments.profile), arguments.recordings
    if source.suffix == ".tsv":
        recordings = read_recordings(source, held_out=arguments.held_out)
    elif source.is_file():
        recordings = [Recording(source.stem, source, "train")]
    else:
        recordings = find_recordings(source, held_out=arguments.held_out)
    result = extract(recordings, arguments.out, spec, jobs=arguments.jobs, progress=True)
    seconds = sum(clip.samples for clip in result.clips) / spec.sample_rate_hz
    how = "were finished already" if result.was_complete else "extracted"
    say(f"{len(result.clips)} mels of {seconds:.1f} s {how}: {arguments.out / MANIFEST}{result.remark()}")
    if complaint := result.complaint():
        print(f"wavegen-extract: {complaint}", file=sys.stderr)
        return INCOMPLETE
    return 0


if __name__ == "__main__":
    sys.exit(main())
