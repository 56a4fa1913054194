"""A vocoder whose pitch network is frozen: it stays as it is in training, EMA, checkpoints, init and resume."""

from pathlib import Path

import pytest
import torch
from support.corpus import write_corpus, write_recipe
from support.runs import assert_same_checkpoint, checkpoint, rows, train
from support.vocoders import SPEC

from wavegen.checkpoint import load_checkpoint, load_vocoder, save_checkpoint
from wavegen.source import PitchNetwork
from wavegen.training.config import TrainingConfig
from wavegen.training.state import TrainingState
from wavegen.vocoders import VOCODERS, build_vocoder

PITCH = "stage.network."
pytestmark = pytest.mark.usefixtures("alone")


@pytest.fixture
def recipe() -> Path:
    return write_recipe(Path("tiny.yaml"), write_corpus(Path("corpus"), clips=3).absolute())


def pitch_weights(path: Path, prefix: str) -> dict[str, torch.Tensor]:
    start = f"{prefix}{PITCH}"
    return {name.removeprefix(start): x for name, x in load_checkpoint(path)[0].items() if name.startswith(start)}


def test_training_leaves_the_frozen_network_as_it_was_shipped(recipe: Path) -> None:
    assert train(recipe, Path("run"), "training.steps=4") == 0
    shipped = PitchNetwork.shipped().state_dict()
    for path, prefixes in (
        (checkpoint(Path("run"), 4), ("model.", "ema.")),
        (Path("run/model.safetensors"), ("ema.",)),
    ):
        for prefix in prefixes:
            weights = pitch_weights(path, prefix)
            assert weights.keys() == shipped.keys()
            assert all(torch.equal(weights[name], shipped[name]) for name in shipped)
    tensors, _ = load_checkpoint(checkpoint(Path("run"), 4))
    frozen = [i for i, (name, _) in enumerate(load_vocoder("run").named_parameters()) if name.startswith(PITCH)]
    moments = {int(name.split(".")[1]) for name in tensors if name.startswith("optimizer.")}
    assert frozen
    assert not moments & set(frozen)  # the optimiser keeps nothing for what it does not change
    assert all(row["gradient_norm"] > 0 for row in rows(Path("run"), "train"))


def test_a_killed_run_goes_on_bit_for_bit(recipe: Path) -> None:
    for run in ("whole", "part"):
        assert train(recipe, Path(run), "training.steps=4") == 0
    checkpoint(Path("part"), 4).unlink()
    Path("part/model.safetensors").unlink()
    assert train(recipe, Path("part"), "training.steps=4") == 0
    assert_same_checkpoint(checkpoint(Path("whole"), 4), checkpoint(Path("part"), 4))


def test_init_brings_its_own_pitch_network(recipe: Path) -> None:
    assert train(recipe, Path("first"), "training.steps=2") == 0
    for path in (Path("first/model.safetensors"), checkpoint(Path("first"), 2)):
        tensors, header = load_checkpoint(path)
        for name in tensors:
            if PITCH in name and not name.startswith("optimizer."):
                tensors[name] = tensors[name] + 0.5
        save_checkpoint(path, tensors, header)
    theirs = pitch_weights(Path("first/model.safetensors"), "ema.")
    assert train(recipe, Path("second"), "training.steps=2", "init=first") == 0
    ours = pitch_weights(Path("second/model.safetensors"), "ema.")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_the_clipped_norm_is_that_of_the_weights_that_learn() -> None:
    vocoder = build_vocoder(VOCODERS["spectral"].Config.examples()[0], SPEC)
    state = TrainingState(vocoder, TrainingConfig(steps=1, clip_norm=1.0))
    for parameter in vocoder.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.ones_like(parameter)
    learning = sum(p.numel() for p in vocoder.parameters() if p.requires_grad)
    assert float(state.clip_gradients()["gradient_norm"]) == pytest.approx(learning**0.5, rel=1e-4)
    before = [p.clone() for p in vocoder.pitch.parameters()]
    state.take_step()
    assert all(torch.equal(p, old) for p, old in zip(vocoder.pitch.parameters(), before, strict=True))
    assert all(p.grad is None for p in vocoder.pitch.parameters())
