"""The source-filter vocoder speaks from any mel, with the shipped pitch network, and its pitch can be moved."""

import copy
import io
import math
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from support.mels import TINY
from support.recordings import MAN, WOMAN, f0_change_cents, log_mel_distance, mel_of, recording
from support.vocoders import new_vocoder, tiny_vocoder

from wavegen.checkpoint import load_checkpoint, load_vocoder, save_checkpoint, vocoder_header
from wavegen.commands import synth
from wavegen.evaluation.baseline import griffin_lim_baseline
from wavegen.mel import MelSpec, profile, save_mel
from wavegen.source import PitchNetwork
from wavegen.vocoders import Vocoder, build_vocoder
from wavegen.vocoders.source_filter import SourceFilterConfig, SourceFilterVocoder

SPEC = profile("bigvgan-24k")
PROFILES = ["bigvgan-24k", "vocos-24k", "hifigan-22k", "pwg-24k", "r9y9-22k", "diffwave-22k", "bigvgan-44k"]


def vocoder_of(spec: MelSpec = SPEC, **options: int) -> Vocoder:
    return new_vocoder("source-filter", spec, **options).prepared_for_synthesis()


def spoken(vocoder: Vocoder, mel: torch.Tensor, seed: int = 0) -> np.ndarray:
    return vocoder.synthesize(mel, seed=seed)[0].numpy()


@pytest.mark.parametrize("clip", [WOMAN, MAN])
@pytest.mark.parametrize("name", PROFILES)
def test_it_speaks_from_every_definition(name: str, clip: str) -> None:
    spec = profile(name)
    original = recording(clip, spec.sample_rate_hz, seconds=1.5)
    mel = mel_of(original, spec)
    # One vocoder reads them all.
    sound = spoken(vocoder_of().for_mel(spec), mel)
    assert sound.shape == (mel.shape[-1] * spec.hop_length,)
    griffin_lim = griffin_lim_baseline(mel[0].numpy(), spec)
    for samples in (sound, griffin_lim):
        assert log_mel_distance(samples, mel, spec) < 0.3
    pytest.importorskip("pyworld")
    assert abs(f0_change_cents(sound, original, spec.sample_rate_hz)) < 25


def test_the_reader_of_a_definition_is_the_vocoder_that_was_built_for_it() -> None:
    spec = profile("diffwave-22k")
    mel = mel_of(recording(WOMAN, spec.sample_rate_hz, seconds=0.5), spec)
    vocoder = vocoder_of()
    reader = vocoder.for_mel(spec)
    np.testing.assert_array_equal(spoken(reader, mel), spoken(vocoder_of(spec), mel))
    assert (vocoder.mel, reader.mel) == (SPEC, spec)
    assert [p.data_ptr() for p in reader.parameters()] == [p.data_ptr() for p in vocoder.parameters()]
    assert vocoder.for_mel(SPEC) is vocoder


@pytest.mark.parametrize("semitones", [-4, 2, 4])
def test_its_pitch_is_moved_by_semitones(semitones: float) -> None:
    pytest.importorskip("pyworld")
    original = recording(WOMAN, seconds=2)
    vocoder, mel = vocoder_of(), mel_of(original, SPEC)
    plain = spoken(vocoder, mel)
    vocoder.set_synthesis_options(pitch=semitones)
    assert abs(f0_change_cents(spoken(vocoder, mel), plain, SPEC.sample_rate_hz) - 100 * semitones) < 20
    vocoder.set_synthesis_options(pitch=0)
    np.testing.assert_array_equal(spoken(vocoder, mel), plain)


def test_silence_is_silent() -> None:
    mel = torch.full((1, SPEC.n_mels, 30), math.log(SPEC.floor))
    assert np.abs(spoken(vocoder_of(), mel)).max() < 1e-3


@pytest.mark.parametrize("frames", [1, 2, 3])
def test_a_mel_may_be_as_short_as_a_frame(frames: int) -> None:
    mel = mel_of(recording(MAN, seconds=0.5), SPEC)[..., 20 : 20 + frames]
    vocoder = vocoder_of()
    sound = spoken(vocoder, mel)
    assert sound.shape == (frames * SPEC.hop_length,)
    assert np.isfinite(sound).all()
    assert np.abs(sound).max() > 1e-3
    state = vocoder.initial_state(1)
    first, state = vocoder.step(mel, state)
    streamed = torch.cat((first, vocoder.flush(state)), -1)[0].numpy()
    np.testing.assert_allclose(streamed, sound, rtol=0, atol=1e-4)


def test_the_shipped_network_streams_as_it_synthesises() -> None:
    """The laws use a small pitch network; this is the real one, with its long context."""
    vocoder = vocoder_of(synthesis_iterations=1).double()
    mel = mel_of(recording(WOMAN, seconds=0.9), SPEC).double()
    whole = vocoder.synthesize(mel, seed=5)
    chunks, state = [], vocoder.initial_state(1, seed=5)
    for chunk in mel.split([1, 13, 40, mel.shape[-1] - 54], dim=-1):
        samples, state = vocoder.step(chunk, state)
        chunks.append(samples)
    chunks.append(vocoder.flush(state))
    torch.testing.assert_close(torch.cat(chunks, -1), whole, rtol=0, atol=1e-11)
    assert vocoder.context.left > vocoder.pitch.context.left > 10


def test_more_iterations_bring_the_sound_closer_to_the_mel() -> None:
    mel = mel_of(recording(MAN, seconds=1.5), SPEC)
    distances = [log_mel_distance(spoken(vocoder_of(synthesis_iterations=n), mel), mel, SPEC) for n in (0, 2, 8)]
    assert distances[0] > distances[1] > distances[2]


def test_a_seed_decides_the_noise() -> None:
    vocoder, mel = vocoder_of(), mel_of(recording(WOMAN, seconds=0.5), SPEC)
    first = spoken(vocoder, mel, 1)
    np.testing.assert_array_equal(spoken(vocoder, mel, 1), first)
    assert np.abs(spoken(vocoder, mel, 2) - first).max() > 1e-3


# ---- the pitch network as weights


def test_its_weights_are_in_the_model_file() -> None:
    shipped = PitchNetwork.shipped().state_dict()
    weights = new_vocoder("source-filter").state_dict()
    assert weights.keys() == {f"stage.network.{name}" for name in shipped}
    for name, tensor in shipped.items():
        assert torch.equal(weights[f"stage.network.{name}"], tensor)


def test_a_model_file_speaks_with_its_own_pitch_network(tmp_path: Path) -> None:
    vocoder = tiny_vocoder("source-filter", spec=SPEC).eval()
    config = vocoder.Config.examples()[0].model_dump(mode="json")
    path = tmp_path / "model.safetensors"
    header = vocoder_header(config, SPEC) | {"kind": "model", "recipe": {}, "step": 1}
    save_checkpoint(path, {f"ema.{k}": v for k, v in vocoder.state_dict().items()}, header)
    loaded, mel = load_vocoder(path), mel_of(recording(MAN, seconds=0.5), SPEC)
    np.testing.assert_array_equal(spoken(loaded, mel), spoken(vocoder, mel))
    assert load_checkpoint(path)[0].keys() == {f"ema.{key}" for key in vocoder.state_dict()}


def test_synth_reads_the_definition_that_a_mel_states(tmp_path: Path) -> None:
    vocoder = new_vocoder("source-filter", SPEC)
    header = vocoder_header(vocoder.Config().model_dump(mode="json"), SPEC) | {"kind": "model", "recipe": {}, "step": 1}
    save_checkpoint(tmp_path / "model.safetensors", {f"ema.{k}": v for k, v in vocoder.state_dict().items()}, header)
    spec = profile("nsf-44k")
    mel = mel_of(recording(MAN, spec.sample_rate_hz, seconds=0.3), spec)
    save_mel(tmp_path / "a.npz", mel[0].numpy(), spec)
    arguments = [str(tmp_path / "a.npz"), str(tmp_path / "a.wav"), "--model", str(tmp_path / "model.safetensors")]
    assert synth.main([*arguments, "--float"]) == 0
    import soundfile

    sound, rate = soundfile.read(tmp_path / "a.wav", dtype="float32")
    assert rate == 44100
    np.testing.assert_allclose(sound, spoken(vocoder_of(spec), mel).clip(-1, 1), rtol=0, atol=1e-4)


def test_it_can_be_copied_and_pickled_and_built_without_values() -> None:
    vocoder, mel = vocoder_of(), mel_of(recording(MAN, seconds=0.3), SPEC)
    expected = spoken(vocoder, mel)
    file = io.BytesIO()
    pickle.dump(vocoder, file)
    for other in (copy.deepcopy(vocoder), pickle.loads(file.getvalue())):
        np.testing.assert_array_equal(spoken(other, mel), expected)
    with torch.device("meta"):
        shapes = new_vocoder("source-filter", SPEC)
    assert {name: p.shape for name, p in shapes.named_parameters()} == {
        name: p.shape for name, p in vocoder.named_parameters()
    }
    assert all(parameter.is_meta for parameter in shapes.parameters())
    assert isinstance(vocoder, SourceFilterVocoder)


def test_in_double_precision_it_is_the_same_vocoder() -> None:
    mel = mel_of(recording(WOMAN, seconds=0.5), SPEC)
    single, double = spoken(vocoder_of(), mel), spoken(vocoder_of().double(), mel.double())
    assert double.dtype == np.float64
    assert np.abs(single - double).max() < 1e-2 * np.abs(double).max()


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["source-filter", "spectral"])
def test_a_gpu_speaks_as_the_cpu(name: str, gpu: torch.device) -> None:
    mel = mel_of(recording(WOMAN, seconds=0.5), SPEC).double()
    vocoder = new_vocoder(name, SPEC).prepared_for_synthesis().double()
    expected = vocoder.synthesize(mel)
    moved = vocoder.to(gpu)
    torch.testing.assert_close(moved.synthesize(mel.to(gpu)).cpu(), expected, rtol=0, atol=1e-6)
    reader = moved.for_mel(SPEC)
    assert reader.synthesize(mel.to(gpu)).device.type == "cuda"


def test_training_can_begin_without_the_shipped_pitch_network() -> None:
    shipped = PitchNetwork.shipped().state_dict()
    weights = [
        build_vocoder(SourceFilterConfig(pretrained=pretrained), TINY).pitch.state_dict()
        for pretrained in (True, False)
    ]
    assert all(torch.equal(weights[0][name], value) for name, value in shipped.items())
    assert not torch.equal(weights[1]["output.weight"], shipped["output.weight"])
    assert all(p.requires_grad for p in build_vocoder(SourceFilterConfig(pretrained=False), TINY).pitch.parameters())
