"""The inpainter: what is known stays, training hides as its seeds say, and a whole run through the command."""

import base64
from pathlib import Path

import numpy as np
import pytest
import torch
from support.corpus import write_corpus
from support.mels import TINIEST as MEL
from support.runs import assert_same_checkpoint, checkpoint, rows, train
from torch import Tensor

from wavegen.audio import read_audio
from wavegen.checkpoint import load_model
from wavegen.mel import LogMel
from wavegen.models import ModelBatch
from wavegen.models._damage import draw_band, draw_lost, interpolated, known_shares
from wavegen.models.inpainter import Inpainter, InpainterConfig

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
samples: {{clips: 1}}
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


@pytest.mark.parametrize(("trust", "stays"), [(20.0, True), (-20.0, False)])
def test_a_guess_counts_as_far_as_it_is_trusted(trust: float, stays: bool) -> None:
    model, mel = tiny(), a_mel()
    torch.nn.init.zeros_(model.output.weight)
    torch.nn.init.zeros_(model.output.bias)
    model.output.bias.data[: MEL.n_mels] = trust
    shares = torch.ones(2, MEL.n_mels, 30)
    shares[..., 10:14] = 0.4
    shares[..., 12] = 0
    completed = model(mel, shares)
    guessed = torch.tensor([10, 11, 13])
    assert torch.allclose(completed[..., guessed], mel[..., guessed], atol=1e-5) == stays
    assert not torch.allclose(completed[..., 12], mel[..., 12], atol=0.1)


def sound(frames: int = 60) -> Tensor:
    torch.manual_seed(1)
    return 0.1 * torch.randn(2, frames * MEL.hop_length)


def test_the_loss_is_of_what_is_hidden_and_reaches_every_weight() -> None:
    model, audio, mask = tiny(), sound(), torch.ones(2, 1, 60, dtype=torch.bool)
    losses = model.losses(ModelBatch(LogMel(MEL)(audio), mask, audio, torch.tensor([3, 4])))
    assert {"loss", "holes", "band"} == losses.keys()
    losses["loss"].backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.parameters())


def test_padding_does_not_change_the_loss() -> None:
    model, audio, mask = tiny(), sound(), torch.ones(2, 1, 60, dtype=torch.bool)
    seeds, mel = torch.tensor([3, 4]), LogMel(MEL)(audio)
    mask[..., 50:] = False
    batches = [ModelBatch(torch.where(mask, mel, value), mask, audio, seeds) for value in (0.0, -7.0)]
    assert torch.equal(*(model.losses(batch)["loss"] for batch in batches))


def test_what_is_lost_depends_on_the_seed_alone() -> None:
    lost, kept = draw_lost(torch.arange(300), 24000, 24000), draw_band(torch.arange(300), 50)
    assert torch.equal(lost[7:8], draw_lost(torch.tensor([7]), 24000, 24000))
    assert torch.equal(kept[7:8], draw_band(torch.tensor([7]), 50))
    assert lost.any(dim=1).all()  # each segment has at least one hole in time
    assert 0.05 < lost.float().mean() < 0.2
    assert 0.3 < (~kept).any(dim=1).float().mean() < 0.5
    assert kept[:, : int(0.3 * 50)].all()


def test_a_lost_sample_is_never_read_and_the_others_stay() -> None:
    audio, seeds = sound(), torch.tensor([3, 4])
    lost = draw_lost(seeds, audio.shape[-1], MEL.sample_rate_hz)
    for reach in (1000, 30):
        filled = interpolated(audio, lost, reach)
        assert torch.equal(filled[~lost], audio[~lost])
        assert torch.equal(filled, interpolated(torch.where(lost, 9.0, audio), lost, reach))


def test_only_the_edges_of_a_long_hole_are_interpolated_and_as_if_it_were_shorter() -> None:
    time = torch.arange(4000)
    audio = (torch.sin(time / 3) + 0.5 * torch.sin(time / 7.3))[None].double()
    lost = ((time >= 1800) & (time < 2200))[None]
    whole, edges = (interpolated(audio, lost, reach)[0] for reach in (400, 100))
    assert not edges[1900:2100].any()
    assert whole[1900:2100].abs().max() > 0.1
    for part in (slice(1800, 1820), slice(2180, 2200)):
        assert torch.allclose(edges[part], audio[0, part], atol=0.3)


def test_the_known_share_of_a_frame_is_that_of_its_window() -> None:
    lost = torch.zeros(1, 10 * MEL.hop_length, dtype=torch.bool)
    assert torch.equal(known_shares(lost, MEL), torch.ones(1, 1, 10))
    assert not known_shares(~lost, MEL)[..., 3:7].any()
    # Half of the window of a frame, from its centre on.
    start = 5 * MEL.hop_length - MEL.left_padding
    lost[:, start + MEL.n_fft // 2 + 1 : start + MEL.n_fft] = True
    centre = float(MEL.window()[MEL.n_fft // 2] ** 2 / MEL.window().square().sum())
    assert float(known_shares(lost, MEL)[0, 0, 5]) == pytest.approx(0.5 + centre / 2, abs=1e-5)


def test_a_recipe_trains_resumes_and_loads(tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text(RECIPE.format(corpus=write_corpus(tmp_path / "corpus")))
    constant = "training.decay=constant"
    assert train(recipe, tmp_path / "whole", constant) == 0
    for steps in (2, 4):
        assert train(recipe, tmp_path / "parts", constant, f"training.steps={steps}") == 0
    assert_same_checkpoint(checkpoint(tmp_path / "whole", 4), checkpoint(tmp_path / "parts", 4))
    assert {"loss", "holes", "band"} <= rows(tmp_path / "whole", "valid")[-1].keys()
    assert load_model(Inpainter, tmp_path / "whole").mel.n_mels == 100
    assert [*(tmp_path / "whole" / "tensorboard").iterdir()]

    # The page has the sounds, and a picture of the mels.
    samples = tmp_path / "whole" / "samples"
    (name,) = {path.name.split(".")[0] for path in samples.glob("*.png")}
    sounds = [read_audio(samples / f"{name}.{system}.wav") for system in ("reference", "damaged", "repaired")]
    real, damaged, repaired = sounds
    assert real.any()
    known = damaged == real
    assert 0.5 < known.mean() < 1
    assert np.array_equal(repaired[known], real[known])
    assert not np.array_equal(repaired, damaged)
    page = (samples / "index.html").read_text()
    assert base64.b64encode((samples / f"{name}.png").read_bytes()).decode() in page
