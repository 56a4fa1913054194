"""The tiled engine of the parallel WaveNet: its samples are those of the network."""

import pytest
import torch
from support.parallel import HOP, correction, features_of, randomised, streamed_correction
from support.vocoders import SPEC, new_vocoder, tiny_vocoder
from torch import nn

from wavegen.engines import TiledEngine
from wavegen.vocoders.parallel import ParallelWaveNet


@pytest.mark.parametrize("tile", [1, 2 * HOP, 3 * HOP + 1, 1024])  # a part of a frame is a frame
@pytest.mark.parametrize("padding", ["same", "causal"])
@torch.no_grad()
def test_tiles_of_any_size_make_what_the_network_makes(
    padding: str, tile: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wavegen.engines.parallel.TILE_SAMPLES", tile)
    shape = {"padding": padding, "cycles": 2, "depth": 6, "kernel_size": 3}
    model = randomised(tiny_vocoder("parallel", **shape))
    features = features_of(model, 11, batch=2)
    whole = correction(model, features)
    assert whole.std() > 0.01
    by_tiles = [correction(model, features, "tiled")]
    if padding == "causal":
        by_tiles += [streamed_correction(model, features, pieces, "tiled") for pieces in ([11], [1, 0, 7, 3], [1] * 11)]
        stepped = streamed_correction(model, features, [4, 7], "torch")
        torch.testing.assert_close(stepped, whole, rtol=0, atol=1e-12 * float(whole.abs().max()))
    for tiled in by_tiles:
        torch.testing.assert_close(tiled, whole, rtol=0, atol=1e-12 * float(whole.abs().max()))
        assert not torch.equal(tiled, whole)  # else it was not the engine that made them


@pytest.mark.parametrize("padding", ["same", "causal"])
@torch.no_grad()
def test_in_float32_tiles_stay_within_3e_5_of_the_largest_sample(padding: str) -> None:
    torch.manual_seed(0)
    model = new_vocoder("parallel", SPEC, padding=padding, cycles=2, depth=6).eval()
    assert isinstance(model, ParallelWaveNet)
    nn.init.kaiming_normal_(model.output.weight)
    features = features_of(model, 40)
    whole = correction(model, features)
    assert whole.abs().max() > 0.1 * features.source_samples().abs().max()  # else the sum would hide its rounding
    by_tiles = [correction(model, features, "tiled")]
    if padding == "causal":
        by_tiles.append(streamed_correction(model, features, [10, 30], "tiled"))
    for tiled in by_tiles:
        assert 0 < (tiled - whole).abs().max() < 3e-5 * whole.abs().max()


@torch.no_grad()
def test_tiles_follow_a_change_of_the_weights() -> None:
    model = randomised(tiny_vocoder("parallel"))
    features = features_of(model, 6)
    before = correction(model, features, "tiled")
    model.stack.blocks[1].conv.weight.data.mul_(1.1)
    tiled = correction(model, features, "tiled")
    torch.testing.assert_close(tiled, correction(model, features), rtol=1e-12, atol=1e-12)
    assert (tiled - before).abs().max() > 1e-4


@torch.no_grad()
def test_what_tiles_keep_of_a_long_piece_is_its_end_alone() -> None:
    model = tiny_vocoder("parallel", padding="causal")
    assert isinstance(model, ParallelWaveNet)
    sources, frames = torch.randn(2, 50 * HOP), torch.randn(4, 50)
    _, after = TiledEngine(model).run(sources, frames, model.stack.initial_state(1))
    kept = [history.untyped_storage().nbytes() for history in after]
    assert kept == [4 * history.numel() for history in after]
