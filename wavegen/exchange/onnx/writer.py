"""Writes a vocoder as an ONNX file: export, metadata, verification; the file appears when all of it has passed."""

import hashlib
import inspect
import json
import logging
import math
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch

import wavegen
from wavegen.errors import ConfigError, OutputError
from wavegen.exchange.onnx.graphs import Input, SpectraGraph, StreamGraph, WholeGraph
from wavegen.exchange.onnx.precision import Precision, compress
from wavegen.exchange.onnx.published import ParallelWaveGANGraph, VocosGraph
from wavegen.exchange.onnx.source import replace_rings
from wavegen.exchange.onnx.sourced import ParallelGraph, SourcedGraph, SpectralGraph
from wavegen.exchange.onnx.verification import BOUND, BOUND_WITH_ITERATIONS, Deviation, verify
from wavegen.files import atomic_write
from wavegen.mel import MelSpec, ln_ceilings
from wavegen.vocoders import VOCODERS, AutoregressiveVocoder, Vocoder
from wavegen.vocoders.parallel import ParallelWaveNet
from wavegen.vocoders.parallel_wavegan import ParallelWaveGAN
from wavegen.vocoders.source_filter import SourceFilterVocoder
from wavegen.vocoders.spectral import SpectralVocoder
from wavegen.vocoders.vocos import Vocos

Form = Literal["samples", "streaming", "vocos"]
OPSET = 18  # the first one with bitwise operators
EXPORTS = hasattr(torch.onnx, "ops")  # since torch 2.8
_INSTALL = "install it with: pip install 'wavegen[export]'"
_GRAPHS: dict[type[Vocoder], type[WholeGraph]] = {
    SpectralVocoder: SpectralGraph,
    ParallelWaveNet: ParallelGraph,
    SourceFilterVocoder: SourcedGraph,
    Vocos: VocosGraph,
    ParallelWaveGAN: ParallelWaveGANGraph,
}


class Source(NamedTuple):
    """What a file says about the model that it was made from.

    Attributes:
        path: the model's file.
        steps: training steps.
        licence: the licence of the weights; empty if it is not known.
        card: the text of the model card; empty if there is none.
    """

    path: Path
    steps: int = 0
    licence: str = ""
    card: str = ""


def write_onnx(
    vocoder: Vocoder,
    out: Path,
    source: Source,
    *,
    form: Form = "samples",
    speaker: str | None = None,
    precision: Precision = "float32",
    notify: Callable[[str], object] = lambda line: None,
) -> Deviation:
    """Export a vocoder, verify the file with onnxruntime, and write it.

    A file of the form ``"samples"`` has the inputs ``mel``, float32 ``[1, n_mels, frames]`` with any number of frames,
    and ``seed``, int64 ``[1]``, which is optional and 0 by default. Its output is ``samples``,
    ``[1, frames * hop_length]``. With the form ``"vocos"``, for programs that have an inverse STFT of their own, the
    outputs are ``mag``, ``x`` and ``y``, ``[1, n_fft // 2 + 1, frames]``; the spectrum is ``mag * (x + iy)``. For the
    form ``"streaming"`` see ``StreamGraph``.

    Args:
        vocoder: prepared for synthesis, on the CPU, with its options set.
        out: the file, ending in ``.onnx``.
        source: the origin that the file will state.
        form: the outputs.
        speaker: that of ``Vocoder.synthesize``; it is fixed in the file.
        precision: the number format of stored weights; the bound is on the sound of float32.
        notify: is told each step.

    Raises:
        ConfigError: this vocoder cannot be exported in this form, or a package is missing.
        OutputError: the file's sound differs from torch's by more than the bound, or it cannot be written.
    """
    if out.suffix != ".onnx":
        raise ConfigError("an ONNX file ends in .onnx", where=out, remedy="rename it")
    vocoder.use_engine("torch")  # the reference that the file is compared with
    whole = whole_graph(vocoder, speaker)
    graph: WholeGraph | SpectraGraph | StreamGraph = whole
    if form == "vocos":
        graph = SpectraGraph(whole)
    if form == "streaming":
        graph = whole.streaming()
    _require_packages()
    import onnx

    notify("exporting, which takes a few minutes")
    model = _exported(graph)
    if form != "streaming":  # onnxruntime-web takes no input that has a default
        _make_seed_optional(model)
    _describe(model, {**_metadata(vocoder.mel, source, speaker), **_of_form(graph)})
    with atomic_write(out) as beside:
        onnx.checker.check_model(model, full_check=True)
        onnx.save(model, str(beside))
        notify("comparing its sound with torch's")
        bound = BOUND_WITH_ITERATIONS if whole.iterations else BOUND
        deviation = verify(beside, vocoder, speaker, bound)
        if deviation.largest > deviation.bound:
            raise OutputError(
                f"the file's sound would differ from torch's by {deviation.largest:.1e} of the peak, more than "
                f"{deviation.bound:.0e}",
                where=out,
                remedy="report this model to wavegen; nothing was written",
            )
        if precision != "float32":
            compress(model, whole.weights(), precision)
            onnx.checker.check_model(model, full_check=True)
            onnx.save(model, str(beside))
            deviation = verify(beside, vocoder, speaker, bound)
    return deviation


def whole_graph(vocoder: Vocoder, speaker: str | None = None) -> WholeGraph:
    """The graph of a vocoder that computes whole utterances.

    Args:
        vocoder: prepared for synthesis, on the CPU.
        speaker: that of ``Vocoder.synthesize``, but fixed in the graph.

    Raises:
        ConfigError: this kind of vocoder, or the speaker, cannot be exported.
    """
    graph = _GRAPHS.get(type(vocoder))
    if graph is None:
        name = type(vocoder).__name__
        raise ConfigError(
            f"a {name} draws one sample after another, which no ONNX runtime does in useful time"
            if isinstance(vocoder, AutoregressiveVocoder)
            else f"a {name} has no graph in wavegen.exchange.onnx",
            remedy=f"export one of {', '.join(kind for kind in VOCODERS if VOCODERS[kind] in _GRAPHS)}, or use "
            "wavegen-synth",
        )
    return graph(vocoder, vocoder.speaker_condition.indices(speaker, 1))


def _require_packages() -> None:
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ConfigError(f"wavegen-export needs the package {error.name}", remedy=_INSTALL) from error
    del onnx, onnxruntime


def _exported(graph: torch.nn.Module) -> Any:
    """The graph as an ONNX model."""
    if not EXPORTS:
        raise ConfigError(
            f"the exporter of torch {torch.__version__} lacks what wavegen-export needs",
            remedy="install torch 2.8 or later for the export",
        )
    inputs: dict[str, Input] = graph.inputs()  # type: ignore[operator]
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    # With gradients enabled, though none are needed: without them compiled code computes, which nothing can follow.
    with torch.enable_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the exporter's own parts
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            program = torch.onnx.export(
                graph.eval(),
                tuple(given.example for given in inputs.values()),
                dynamo=True,
                opset_version=OPSET,
                input_names=list(inputs),
                output_names=list(graph.outputs),  # type: ignore[arg-type]
                dynamic_shapes=_by_argument(graph, {name: given.varying for name, given in inputs.items()}),
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as error:
            cause = error.__cause__ or error
            raise ConfigError(
                f"torch's exporter cannot write this vocoder ({type(cause).__name__}: {str(cause)[:200]})",
                remedy="use torch 2.11, with which all vocoders of wavegen were exported",
            ) from error
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
    assert program is not None
    model = program.model_proto
    replace_rings(model)
    return model


def _by_argument(graph: torch.nn.Module, varying: dict[str, Any]) -> dict[str, Any]:
    """What varies, by the names of the arguments of ``forward``, the last of which may take all further inputs."""
    own = {name: varying[name] for name in inspect.signature(graph.forward).parameters if name in varying}
    rest = tuple(given for name, given in varying.items() if name not in own)
    return own | {"state": rest} if rest else own


def _make_seed_optional(model: Any) -> None:
    """An input that an initializer has the name of has a default."""
    from onnx import numpy_helper

    model.graph.initializer.append(numpy_helper.from_array(torch.zeros(1, dtype=torch.int64).numpy(), "seed"))


def _describe(model: Any, metadata: Mapping[str, str]) -> None:
    """Add metadata."""
    from onnx import helper

    model.graph.name = "wavegen"
    model.producer_name, model.producer_version = "wavegen", wavegen.__version__
    helper.set_model_props(model, dict(metadata))
    for node in model.graph.node:  # the exporter's notes hold paths of its machine, and are as large as the graph
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info, *model.graph.initializer):
        del value.metadata_props[:]
    del model.graph.metadata_props[:]


def _metadata(mel: MelSpec, source: Source, speaker: str | None) -> dict[str, str]:
    floor, ceiling = mel.ln_range
    loudest, quietest = ln_ceilings(mel)
    twenty_db = math.log(10)  # as ``check_mel`` allows
    limits = [floor - twenty_db, min(ceiling, loudest) + twenty_db, quietest - twenty_db / 2]
    digest = hashlib.sha256(source.path.read_bytes()).hexdigest()
    return {
        "wavegen_mel": mel.model_dump_json(),
        "wavegen_ln_limits": json.dumps(limits),
        "sample_rate": str(mel.sample_rate_hz),
        "licence": source.licence,
        "card": source.card,
        "steps": str(source.steps),
        "source": f"wavegen {wavegen.__version__}, {source.path.name} with sha256 {digest}",
        "speaker": speaker or "",
    }


def _of_form(graph: WholeGraph | SpectraGraph | StreamGraph) -> dict[str, str]:
    """What a program reads to know how to run the file: ours a stream, sherpa-onnx the others."""
    if isinstance(graph, StreamGraph):
        state = {name: [str(first.numpy().dtype), list(first.shape)] for name, first in graph.state.items()}
        numbers = {"again": graph.again, "right": graph.right, "causal": graph.causal}
        return {"wavegen_streaming": json.dumps(numbers | {"state": state})}
    if isinstance(graph, WholeGraph):
        return {"model_type": "hifigan"}  # any vocoder from a mel to samples
    mel = graph.mel
    sizes = {"n_fft": mel.n_fft, "hop_length": mel.hop_length, "win_length": mel.win_length}
    return {
        "model_type": "vocos",
        **{name: str(size) for name, size in sizes.items()},
        "center": str(int(mel.center)),
        "normalized": "0",
        "window_type": "hann",
        "pad_mode": "reflect",
    }
