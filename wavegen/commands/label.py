"""``wavegen-label``: what is heard in a recording, from when to when."""

import argparse
import sys
from pathlib import Path

from wavegen.commands import command_parser, notify, run_command

STREAM = Path("-")
CHUNK = 512  # samples that are read at once of a live sound: 21 ms at 24 kHz


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = command_parser(
        "wavegen-label", "Label a recording with a trained labeller, and write a label track that Audacity imports."
    )
    parser.add_argument(
        "recording",
        type=Path,
        help="a recording; - reads a live sound from standard input: raw samples of 16 bits, little-endian and mono, "
        "at the model's sample rate",
    )
    parser.add_argument(
        "labels",
        type=Path,
        help="a .txt file with lines of start, end and name; - prints each label on standard output once it has ended",
    )
    parser.add_argument(
        "--probabilities",
        type=Path,
        metavar="NPY",
        help="also write the probabilities of the classes, float32 [classes, frames]",
    )
    parser.add_argument(
        "--model",
        type=Path,
        metavar="RUN_OR_FILE",
        help="a run's folder or a model file (default: the newest finished run of a labeller below ./runs)",
    )
    arguments = parser.parse_args(argv)
    is_live = arguments.recording == STREAM
    if is_live != (arguments.labels == STREAM):
        parser.error("a live sound is labelled on standard output: give - for both RECORDING and LABELS")
    if is_live and arguments.probabilities is not None:
        parser.error("--probabilities applies to recordings, not to a live sound")
    for out in (arguments.labels, arguments.probabilities):
        if out is not None and out.exists() and arguments.recording.exists() and out.samefile(arguments.recording):
            parser.error(f"{out} is the input too; give the output another name")
    return run_command("wavegen-label", lambda: _label_live(arguments) if is_live else _label(arguments))


def _label(arguments: argparse.Namespace) -> int:
    import numpy as np
    import torch

    from wavegen.checkpoint import load_model
    from wavegen.corpora.frame_labels import labels_of
    from wavegen.corpora.label_files import write_labels
    from wavegen.files import atomic_write
    from wavegen.labels import label_recording
    from wavegen.mel.recorded import recorded_mel
    from wavegen.models.labeller import Labeller

    # Find the probabilities, and the labels in them.
    labeller = load_model(Labeller, arguments.model)
    mel = recorded_mel(arguments.recording, labeller.mel)
    samples = len(mel.samples) - 2 * labeller.mel.left_padding
    probabilities = label_recording(labeller, mel)
    marks = labeller.marks(torch.from_numpy(probabilities)[None])[0].numpy()
    config = labeller.config
    labels = labels_of(marks, config.classes, labeller.mel, samples, background=config.background)

    # Write them.
    if arguments.probabilities is not None:
        with atomic_write(arguments.probabilities) as beside, open(beside, "wb") as file:
            np.save(file, probabilities)
    write_labels(arguments.labels, labels)
    seconds = samples / labeller.mel.sample_rate_hz
    notify(f"{arguments.labels}: {len(labels)} labels in {seconds:.2f} s ({', '.join(config.classes)})")
    return 0


def _label_live(arguments: argparse.Namespace) -> int:
    import numpy as np
    import torch

    from wavegen.checkpoint import load_model
    from wavegen.corpora.label_files import label_line
    from wavegen.labels import LiveLabels
    from wavegen.models.labeller import Labeller

    live = LiveLabels(load_model(Labeller, arguments.model))
    while data := sys.stdin.buffer.read(2 * CHUNK):
        samples = np.frombuffer(data[: len(data) // 2 * 2], "<i2").astype(np.float32) / 32768
        for label in live.feed(torch.from_numpy(samples)):
            notify(label_line(label))
    for label in live.finish():
        notify(label_line(label))
    return 0


if __name__ == "__main__":
    sys.exit(main())
