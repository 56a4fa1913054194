"""``wavegen-export`` as a user meets it: the file's sound is torch's, and every mistake is one line."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.commands import Refused, tree
from support.mels import CENTRED_SHORT_WINDOW
from support.vocoders import SPEC, small_pitch_network, tiny_mel, write_model

from wavegen.checkpoint import load_vocoder
from wavegen.commands import export
from wavegen.exchange.onnx import verification, writer
from wavegen.mel import MelSpec, save_mel

pytest.importorskip("onnx", reason="needs the extra [export]")
pytest.importorskip("onnxscript", reason="needs the extra [export]")
onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra [export]")

CASES: dict[str, tuple[str, MelSpec, dict[str, Any]]] = {
    "spectral": ("spectral", SPEC, {}),
    "spectral, causal with look-ahead": (
        "spectral", SPEC, {"padding": "causal", "look_ahead": 2, "synthesis_iterations": 0, "refinement_iterations": 0},
    ),
    "parallel": ("parallel", SPEC, {"synthesis_iterations": 1}),
    "parallel, causal": ("parallel", CENTRED_SHORT_WINDOW, {"padding": "causal"}),
    "source-filter": ("source-filter", SPEC, {}),
}  # fmt: skip


@pytest.fixture(autouse=True)
def quick() -> Iterator[None]:
    with small_pitch_network():
        yield


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an exported spectral model, its reader and its checkpoint."""
    folder = tmp_path_factory.mktemp("exported")
    with small_pitch_network():
        write_model(folder / "model.safetensors")
        (folder / "README.md").write_text("A tiny voice.")
        arguments = [str(folder / "model.safetensors"), str(folder / "voice.onnx"), "--reader", "--licence", "CC0"]
        assert export.main(arguments) == 0
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_the_sound_is_that_of_torch(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name, spec, changes = CASES[case]
    write_model(tmp_path / "model.safetensors", name, spec=spec, **changes)
    assert export.main([str(tmp_path / "model.safetensors"), str(tmp_path / "a.onnx")]) == 0
    assert "a.onnx: " in capsys.readouterr().out
    session = onnxruntime.InferenceSession(tmp_path / "a.onnx")
    vocoder = load_vocoder(tmp_path / "model.safetensors")
    mel = torch.from_numpy(tiny_mel(57, spec=spec))[None]
    (samples,) = session.run(None, {"mel": mel.numpy(), "seed": np.array([5])})
    expected = vocoder.synthesize(mel, seed=5).numpy()
    assert np.abs(samples - expected).max() < 1e-3 * np.abs(expected).max()
