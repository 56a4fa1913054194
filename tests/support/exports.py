"""Exported tiny models that several tests share, also in several processes: each takes seconds, and is made once."""

import os
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from support.mels import CENTRED_SHORT_WINDOW
from support.vocoders import SPEC, small_pitch_network, write_model
from wavegen.commands import export
from wavegen.exchange.onnx.writer import EXPORTS
from wavegen.mel import MelSpec

CASES: dict[str, tuple[str, MelSpec, dict[str, Any]]] = {
    "spectral": ("spectral", SPEC, {}),
    "spectral, causal with look-ahead": (
        "spectral",
        SPEC,
        {"padding": "causal", "look_ahead": 2, "synthesis_iterations": 0, "refinement_iterations": 0},
    ),
    "parallel": ("parallel", SPEC, {"synthesis_iterations": 1}),
    "parallel, causal": ("parallel", CENTRED_SHORT_WINDOW, {"padding": "causal"}),
    "source-filter": ("source-filter", SPEC, {}),
    "vocos": ("vocos", SPEC, {"channels": 64}),
    "parallel-wavegan": ("parallel-wavegan", CENTRED_SHORT_WINDOW, {}),
}


def exported_case(case: str, tmp_path_factory: pytest.TempPathFactory, *options: str) -> Path:
    """The folder of a model: its checkpoint ``model.safetensors``, a card, the exported ``voice.onnx``, and the reader.

    Args:
        case: a name in ``CASES``.
        tmp_path_factory: pytest's fixture.
        options: options of ``wavegen-export``.
    """
    if not EXPORTS:
        pytest.skip("needs torch 2.8 or later")
    own = tmp_path_factory.getbasetemp()
    shared = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own  # each process has a folder below one
    folder = shared / "exports" / "-".join((case, *options)).replace(", ", "-").replace(" ", "-")
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not (folder / "voice.onnx").exists():
            name, spec, changes = CASES[case]
            with small_pitch_network():
                write_model(folder / "model.safetensors", name, spec=spec, **changes)
                (folder / "README.md").write_text("A tiny voice.")
                arguments = [str(folder / "model.safetensors"), str(folder / "voice.onnx"), *options]
                assert export.main([*arguments, "--reader", "--licence", "CC0"]) == 0
    return folder
