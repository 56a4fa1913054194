"""wavegen-export: write a model in a form that others load."""

import argparse
import functools
import shutil
import sys
from pathlib import Path

from wavegen.commands import at_least, command_parser, notify, run_command

MIT = "MIT"  # of the voice that wavegen ships


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = command_parser(
        "wavegen-export",
        "Write a model in a form that others load. An ONNX file goes from mel to samples; its sound in onnxruntime is "
        "compared with torch's before it is written.",
    )
    parser.add_argument("model", help="a run's folder, a model file, or 'default', the voice that wavegen ships")
    parser.add_argument("out", type=Path, help="an .onnx file; with --browser or --hub a folder")
    form = parser.add_mutually_exclusive_group()
    form.add_argument(
        "--form",
        choices=("samples", "streaming", "vocos"),
        default="samples",
        help="samples of whole mels; streaming: of chunks, with a state; vocos: the spectrum, for a program with an "
        "inverse STFT, without iterations (default: %(default)s)",
    )
    form.add_argument(
        "--streaming", action="store_const", const="streaming", dest="form", help="short for --form streaming"
    )
    form.add_argument("--browser", action="store_true", help="write a folder with a page that runs the model")
    form.add_argument(
        "--hub", action="store_true", help="write a folder for the Hugging Face Hub: weights, config and a card"
    )
    parser.add_argument("--licence", metavar="ID", help="the licence of the weights, such as mit (default: unknown)")

    onnx = parser.add_argument_group("ONNX")
    onnx.add_argument(
        "--profile", metavar="NAME", help="the mel definition that the file reads, for a model of several"
    )
    onnx.add_argument("--speaker", metavar="NAME", help="the speaker, for a model with several")
    onnx.add_argument("--iterations", type=at_least(0), metavar="N", help="Griffin-Lim iterations, as in wavegen-synth")
    onnx.add_argument(
        "--precision",
        choices=("float32", "float16", "int8"),
        default="float32",
        help="how weights are stored; the sound is computed in float32 (default: %(default)s)",
    )
    onnx.add_argument("--reader", action="store_true", help="also write reader.py beside OUT, which renders the file")

    hub = parser.add_argument_group("Hugging Face Hub")
    hub.add_argument("--data", metavar="TEXT", help="what the card says about the training data")
    hub.add_argument(
        "--scores",
        type=Path,
        metavar="FOLDER",
        help="results of wavegen-evaluate for the card (default: the samples of the run)",
    )
    arguments = parser.parse_args(argv)
    export = _export_hub if arguments.hub else _export_onnx
    return run_command("wavegen-export", lambda: export(arguments))


def _export_hub(arguments: argparse.Namespace) -> int:
    from wavegen.exchange.hub import write_hub_folder

    model = write_hub_folder(
        arguments.model, arguments.out, licence=arguments.licence, data=arguments.data, scores=arguments.scores
    )
    notify(f"written: {model.parent}; upload it with: hf upload OWNER/NAME {model.parent}")
    return 0


def _export_onnx(arguments: argparse.Namespace) -> int:
    import torch

    from wavegen.checkpoint import DEFAULT_VOICE, find_model, load_vocoder, read_header
    from wavegen.exchange.onnx import reader_path
    from wavegen.exchange.onnx.browser import write_page
    from wavegen.exchange.onnx.writer import Source, write_onnx
    from wavegen.files import atomic_write
    from wavegen.mel import profile

    path = find_model(arguments.model)
    vocoder = load_vocoder(path)
    if arguments.profile is not None:
        vocoder = vocoder.for_mel(profile(arguments.profile), "--profile")
    vocoder.set_synthesis_options(iterations=arguments.iterations)
    card = path.with_name("README.md")
    licence = arguments.licence or (MIT if path == DEFAULT_VOICE else "")
    text = card.read_text(encoding="utf-8") if card.is_file() else ""
    write = functools.partial(
        write_onnx,
        vocoder,
        source=Source(path, read_header(path).get("step", 0), licence, text),
        form="streaming" if arguments.browser else arguments.form,
        speaker=arguments.speaker,
        precision=arguments.precision,
        notify=_note,
    )
    out: Path = arguments.out
    with torch.inference_mode(False):
        deviation = write_page(out, write) if arguments.browser else write(out)
    if arguments.reader:
        with atomic_write(out.with_name("reader.py")) as beside:
            shutil.copyfile(reader_path(), beside)
    within = f"within {deviation.largest:.1e} of the peak of torch's sound"
    if arguments.browser:
        notify(f"{out}: {within}; open it through a web server, such as: python -m http.server --directory {out}")
    else:
        notify(f"{out}: {out.stat().st_size / 1e6:.1f} MB, {within}")
    return 0


def _note(line: str) -> None:
    print(f"wavegen-export: {line}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
