"""Precision: bfloat16, and torch's global switches, which training leaves as it found them."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from support.runs import train
from support.vocoders import new_vocoder, tiny_mel, write_model

from wavegen.checkpoint import load_vocoder
from wavegen.mel import profile
from wavegen.precision import cudnn_benchmark, deterministic, full_float32, tf32_convolutions
from wavegen.training.config import TrainingConfig
from wavegen.training.precision import uses_bfloat16
from wavegen.training.state import TrainingState
from wavegen.vocoders import VOCODERS

MEL = profile("bigvgan-24k")


def switches() -> dict[str, Any]:
    return {
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "warn_only": torch.is_deterministic_algorithms_warn_only_enabled(),
        "fill": torch.utils.deterministic.fill_uninitialized_memory,
        "benchmark": torch.backends.cudnn.benchmark,
        "tf32": torch.backends.cudnn.allow_tf32,
        "workspace": os.environ.get("CUBLAS_WORKSPACE_CONFIG"),
        "threads": torch.get_num_threads(),
    }


@pytest.fixture
def opposite_switches(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Switches that differ from what training sets for ``deterministic`` and ``precision=float32``."""
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    return switches()


@pytest.mark.parametrize("settings", [(), ("training.deterministic=false",)])
@pytest.mark.parametrize("fails", [False, True])
def test_training_leaves_the_switches_of_torch_as_they_were(
    settings: tuple[str, ...],
    fails: bool,
    recipe: Path,
    tmp_path: Path,
    opposite_switches: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = []
    original = TrainingState.take_step

    def take_step(state: TrainingState) -> None:
        seen.append(switches())
        if fails:
            raise KeyboardInterrupt
        original(state)

    monkeypatch.setattr(TrainingState, "take_step", take_step)
    settings = ("training.steps=1", "training.precision=float32", "training.listen_clips=1", *settings)
    assert train(recipe, tmp_path / "run", *settings) == (130 if fails else 0)
    assert seen[0]["deterministic"] == ("training.deterministic=false" not in settings)
    assert seen[0]["benchmark"] == (not seen[0]["deterministic"])
    assert not seen[0]["tf32"]
    assert switches() == opposite_switches


def test_switches_are_set_within_the_block_and_nest(opposite_switches: dict[str, Any]) -> None:
    with deterministic(True), cudnn_benchmark(False), full_float32():
        assert torch.are_deterministic_algorithms_enabled()
        assert not torch.backends.cudnn.benchmark
        assert not torch.backends.cudnn.allow_tf32
        within = switches()
        with deterministic(False), tf32_convolutions(True):
            assert not torch.are_deterministic_algorithms_enabled()
            assert torch.backends.cudnn.allow_tf32
        assert switches() == within
    assert switches() == opposite_switches


def test_full_float32_lasts_until_its_last_user_leaves(opposite_switches: dict[str, Any]) -> None:
    first, second = full_float32(), full_float32()
    torch.backends.cudnn.allow_tf32 = True
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert not torch.backends.cudnn.allow_tf32
    second.__exit__(None, None, None)
    assert torch.backends.cudnn.allow_tf32


def test_loading_a_voice_and_speaking_leave_the_switches_of_another_project(tmp_path: Path) -> None:
    torch.backends.cudnn.allow_tf32 = True
    before = switches()
    vocoder = load_vocoder(write_model(tmp_path / "model.safetensors"))
    assert switches() == before
    vocoder.synthesize(torch.from_numpy(tiny_mel(5))[None])
    assert switches() == before


def test_bfloat16_is_left_to_vocoders_that_allow_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A parallel WaveNet's samples would have 8 bits. A recipe that asks for bfloat16 gets it all the same."""
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    gpu, cpu = torch.device("cuda"), torch.device("cpu")
    auto, bfloat16 = TrainingConfig(steps=1), TrainingConfig(steps=1, precision="bfloat16")
    with torch.device("meta"):
        vocoders = {name: new_vocoder(name, MEL) for name in VOCODERS}
    for name, vocoder in vocoders.items():
        assert uses_bfloat16(auto, vocoder, gpu) == vocoder.trains_in_bfloat16, name
        assert not uses_bfloat16(auto, vocoder, cpu)
        assert uses_bfloat16(bfloat16, vocoder, gpu)
    assert not vocoders["parallel"].trains_in_bfloat16
