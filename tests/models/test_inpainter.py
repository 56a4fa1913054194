"""The inpainter: what is known stays, training hides as its seeds say, and a whole run through the command."""

from pathlib import Path

import torch
from support.corpus import write_corpus
from support.mels import TINIEST as MEL
from support.runs import assert_same_checkpoint, checkpoint, rows, train
from torch import Tensor

from wavegen.checkpoint import load_model
from wavegen.models.inpainter import Inpainter, InpainterConfig, draw_known

RECIPE = """
description: tiny
mel: bigvgan-24k
data: {{corpus: {corpus}, held_out: "a[01]"}}
model: {{name: inpainter, image_channels: 2, channels: 8, layers: 2, kernel_size: 3}}
training:
  steps: 4
  batch_size: 2
  segment_frames: 40
  log_every: 1
  validate_every: 2
  checkpoint_every: 2
  listen_clips: 1
"""


def tiny() -> Inpainter:
    torch.manual_seed(0)
    return Inpainter(MEL, InpainterConfig.examples()[0])


def a_mel(frames: int = 30) -> Tensor:
    return torch.randn(2, MEL.n_mels, frames) - 4


def test_what_is_known_stays_and_the_rest_is_replaced_whatever_it_held() -> None:
    mel, known = a_mel(), torch.rand(2, MEL.n_mels, 30) < 0.7
    completed = tiny()(torch.where(known, mel, float("nan")), known)
    assert torch.equal(completed[known], mel[known])
    assert completed.isfinite().all()
    assert not torch.equal(completed, tiny()(mel, known & (torch.arange(30) != 3)))


def test_the_loss_is_of_what_is_hidden_and_reaches_every_weight() -> None:
    model, mel, mask = tiny(), a_mel(60), torch.ones(2, 1, 60, dtype=torch.bool)
    losses = model.losses(mel, mask, torch.zeros(2, 60 * MEL.hop_length), torch.tensor([3, 4]))
    assert {"loss", "holes"} == losses.keys()
    losses["loss"].backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.parameters())


def test_padding_does_not_change_the_loss() -> None:
    model, mel, mask = tiny(), a_mel(40), torch.ones(2, 1, 40, dtype=torch.bool)
    seeds, audio = torch.tensor([3, 4]), torch.zeros(2, 40 * MEL.hop_length)
    mask[..., 30:] = False
    losses = [model.losses(torch.where(mask, mel, value), mask, audio, seeds)["loss"] for value in (0.0, -7.0)]
    assert torch.equal(*losses)


def test_what_is_hidden_depends_on_the_seed_alone() -> None:
    known = draw_known(torch.arange(200), 50, 100)
    assert torch.equal(known[7:8], draw_known(torch.tensor([7]), 50, 100))
    holes = ~known.any(dim=1)
    assert holes.any(dim=1).all()  # each segment has at least one hole in time
    assert 0.1 < holes.float().mean() < 0.4
    bands = ~known.any(dim=2)  # bins that are hidden in every frame
    assert 0.2 < bands.any(dim=1).float().mean() < 0.4
    assert not bands[:, : int(0.3 * 50)].any()


def test_a_recipe_trains_resumes_and_loads(tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text(RECIPE.format(corpus=write_corpus(tmp_path / "corpus")))
    constant = "training.decay=constant"
    assert train(recipe, tmp_path / "whole", constant) == 0
    for steps in (2, 4):
        assert train(recipe, tmp_path / "parts", constant, f"training.steps={steps}") == 0
    assert_same_checkpoint(checkpoint(tmp_path / "whole", 4), checkpoint(tmp_path / "parts", 4))
    assert {"loss", "holes"} <= rows(tmp_path / "whole", "valid")[-1].keys()
    assert load_model(Inpainter, tmp_path / "whole").mel.n_mels == 100
    assert [*(tmp_path / "whole" / "tensorboard").iterdir()]
