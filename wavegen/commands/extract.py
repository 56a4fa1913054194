"""wavegen-extract: turn recordings into mel files."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from wavegen.commands import at_least, command_parser, notify, run_command
from wavegen.commands._sharding import add_sharding, run_shards

if TYPE_CHECKING:
    from wavegen.corpora.extraction import Extraction
    from wavegen.corpora.manifest import Recording
    from wavegen.mel import MelSpec
    from wavegen.shards import Shard

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
    add_sharding(parser)
    arguments = parser.parse_args(argv)
    if not 0 <= arguments.held_out < 1:
        parser.error(f"argument --held-out: {arguments.held_out} must be at least 0 and less than 1")
    return run_command("wavegen-extract", lambda: _extract(arguments))


def _extract(arguments: argparse.Namespace) -> int:
    from wavegen.corpora.extraction import MANIFEST
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

    result = _run(arguments, recordings, spec)
    seconds = sum(clip.samples for clip in result.clips) / spec.sample_rate_hz
    how = "were already complete" if result.was_complete else "merged" if arguments.merge else "extracted"
    where = arguments.out / MANIFEST if arguments.shard is None else arguments.shard.folder(arguments.out)
    notify(f"{len(result.clips)} mels of {seconds:.1f} s {how}: {where}{result.notes()}")
    complaints = [*passed_over, *([result.left_out_report()] if result.left_out else [])]
    for complaint in complaints:
        print(f"wavegen-extract: {complaint}", file=sys.stderr)
    return INCOMPLETE if complaints else 0


def _run(arguments: argparse.Namespace, recordings: "list[Recording]", spec: "MelSpec") -> "Extraction":
    """Extract all recordings, or those of a shard, or all of them by a cluster; or merge what shards have extracted."""
    from wavegen.corpora.extraction import extract, is_complete
    from wavegen.corpora.sharded import extract_part, merge_extraction

    out, shard = arguments.out, arguments.shard
    if shard is not None:
        return extract_part(shard.of(recordings), out, spec, shard, jobs=arguments.jobs)
    if arguments.merge:
        return merge_extraction(recordings, out, spec)
    if arguments.ray is None or is_complete(recordings, out, spec):
        return extract(recordings, out, spec, jobs=arguments.jobs, progress=True)
    run_shards(
        arguments.ray,
        out,
        recordings,
        _extract_part,
        lambda shard, own: (own, out.absolute(), spec, shard),
        title="extracting",
    )
    return merge_extraction(recordings, out, spec)


def _extract_part(task: "tuple[list[Recording], Path, MelSpec, Shard]") -> None:
    """Extract the part of one shard in a process of a cluster."""
    from wavegen.corpora.sharded import extract_part

    extract_part(*task, jobs=1, progress=False)


if __name__ == "__main__":
    sys.exit(main())
