"""One spectral vocoder for every mel definition with its frames."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.corpus import voice, write_corpus, write_recipe
from support.messages import Messages
from support.runs import assert_same_checkpoint, checkpoint
from support.runs import train as run_training
from support.vocoders import new_vocoder

from wavegen.audio import resample
from wavegen.blocks import Context
from wavegen.checkpoint import load_state, save_state
from wavegen.commands import evaluate, synth, train
from wavegen.errors import CheckpointError, MelError
from wavegen.evaluation.scoring import REFERENCE
from wavegen.mel import LogMel, MelFamily, MelSpec, open_mel, profile, save_mel
from wavegen.mel.family import RATE_STEPS
from wavegen.vocoders.spectral import SpectralVocoder

OWN = profile("bigvgan-24k")
OTHERS = {
    "vocos": profile("vocos-24k"),
    "hifigan": profile("hifigan-22k"),
    "pwg": profile("pwg-22k").replace(sample_rate_hz=24000, mean=(-3.0,) * 80, std=(1.5,) * 80),
    "r9y9": profile("r9y9-22k"),
    "diffwave": profile("diffwave-22k"),
    "16k": profile("wavegen-16k"),
}


def a_vocoder(**options: Any) -> SpectralVocoder:
    """A small vocoder, whose output layer, which starts at zero, is filled."""
    torch.manual_seed(0)
    vocoder = new_vocoder("spectral", OWN, channels=16, layers=2, synthesis_iterations=0, any_mel=True, **options)
    torch.nn.init.normal_(vocoder.corrections.weight, std=0.1)
    return vocoder.eval()


FINE = LogMel(OWN.replace(n_fft=512, win_length=512, hop_length=64, n_mels=64, f_max_hz=7000))


def last_line(capsys: pytest.CaptureFixture[str]) -> str:
    """The error of a command."""
    return capsys.readouterr().err.splitlines()[-1]


def lag_samples(found: torch.Tensor, wanted: torch.Tensor) -> int:
    """How much later ``found`` [1, samples] is than ``wanted``, in steps of 64 samples."""
    length = min(found.shape[-1], wanted.shape[-1])
    found, wanted = FINE(found[:, :length])[..., 32:-32], FINE(wanted[:, :length])
    distance = [
        (wanted[..., 32 - lag : wanted.shape[-1] - 32 - lag] - found).abs().mean().item() for lag in range(-8, 9)
    ]
    return 64 * (int(np.argmin(distance)) - 8)


@pytest.mark.parametrize("spec", OTHERS.values(), ids=OTHERS)
def test_the_vocoder_is_in_time_with_the_recording_for_every_profile(spec: MelSpec) -> None:
    gate = (np.arange(24000) // 2000 % 3 > 0) + 0.01  # onsets show the lag
    sound = torch.from_numpy(resample((voice(1.0) * gate).astype(np.float32), 24000, spec.sample_rate_hz))[None]
    vocoder = a_vocoder(refinement_iterations=8)
    torch.nn.init.zeros_(vocoder.corrections.weight)  # so that it is the source-filter vocoder
    mel = LogMel(spec)(sound)
    heard = vocoder.for_mel(spec).synthesize(mel)
    assert heard.shape[-1] == spec.frames(sound.shape[-1]) * spec.hop_length
    assert lag_samples(heard, sound) == 0
    # The other framing is half a hop off, and this test sees it.
    other = spec.replace(center=not spec.center)
    assert lag_samples(vocoder.for_mel(other).synthesize(mel), sound) == (128 if spec.center else -128)


def test_readers_share_the_weights_and_leave_the_vocoder_unchanged() -> None:
    vocoder = a_vocoder()
    before = vocoder.synthesize(torch.zeros(1, 100, 8) - 4)
    reader = vocoder.for_mel(OTHERS["vocos"])
    assert [p.data_ptr() for p in reader.parameters()] == [p.data_ptr() for p in vocoder.parameters()]
    assert (vocoder.mel, reader.mel) == (OWN, OTHERS["vocos"])
    assert torch.equal(vocoder.synthesize(torch.zeros(1, 100, 8) - 4), before)
    assert vocoder.for_mel(OWN) is vocoder
    assert reader.for_mel(OWN).state_dict().keys() == vocoder.state_dict().keys()


@pytest.mark.parametrize("padding", ["causal", "same"])
def test_readers_stream_what_they_synthesise(padding: str) -> None:
    vocoder = a_vocoder(padding=padding, refinement_iterations=0).double()
    reader = vocoder.for_mel(OTHERS["diffwave"])
    assert isinstance(reader.context, Context)
    mel = torch.rand(2, 80, 40, dtype=torch.float64)
    state = reader.initial_state(2)
    chunks = []
    for chunk in mel.split([1, 7, 12, 20], dim=-1):
        samples, state = reader.step(chunk, state)
        chunks.append(samples)
    chunks.append(reader.flush(state))
    whole = reader.synthesize(mel)
    bound = 1e-10 * whole.abs().max().item()  # that of the law, for a vocoder with a source
    torch.testing.assert_close(torch.cat(chunks, dim=-1), whole, atol=bound, rtol=0)


def test_a_saved_state_continues_only_with_its_own_reader(tmp_path: Path, messages: Messages) -> None:
    vocoder, path = a_vocoder(), tmp_path / "stream.safetensors"
    reader = vocoder.for_mel(OWN.replace(center=True))
    save_state(path, reader, reader.initial_state(1))
    assert len(load_state(path, reader)) == len(reader.initial_state(1))
    with messages.refused(CheckpointError):
        load_state(path, vocoder)
    reader.synthesis_iterations += 1
    with messages.refused(CheckpointError):
        load_state(path, reader)
    save_state(path, vocoder, vocoder.initial_state(1)[:-1])
    with messages.refused(CheckpointError):
        load_state(path, vocoder)


def test_statistics_and_logarithm_change_nothing_beyond_rounding() -> None:
    vocoder, sound = a_vocoder().double(), torch.from_numpy(voice(0.3))[None]
    plain = OWN.replace(n_mels=80)
    dressed = plain.replace(log="log10", gain=20.0, bias=-20.0, mean=tuple(range(80)), std=(3.0,) * 80)
    heard = [vocoder.for_mel(spec).synthesize(LogMel(spec)(sound)) for spec in (plain, dressed)]
    torch.testing.assert_close(heard[0], heard[1], atol=1e-9, rtol=0)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"sample_rate_hz": 15000, "f_max_hz": 7500}, "sample_rate_hz is 15000, not 15600 to 32400"),
        ({"sample_rate_hz": 44100}, "sample_rate_hz is 44100, not 15600 to 32400"),
        ({"n_fft": 2048, "win_length": 1200, "hop_length": 300}, "hop_length is 300, not 256"),
        ({"n_mels": 20}, "n_mels is 20, not 64 to 160"),
        ({"f_max_hz": 4000}, "f_max_hz is 4000, not 7600 or more"),
        ({"floor": 0.01}, "floor is 0.01, not up to 0.0001"),
        ({"magnitude_eps": 1e-4}, "magnitude_eps is 0.0001, not up to 1e-08"),
        ({"clip": (-5.0, 3.0)}, r"clip is \(-5.0, 3.0\), not a range that leaves speech unchanged"),
        ({"clip": (-20.0, -4.0)}, r"clip is \(-20.0, -4.0\), not a range that leaves speech unchanged"),
    ],
)
def test_a_definition_outside_the_family_is_refused_by_field(change: dict, named: str) -> None:
    with pytest.raises(MelError, match=named):
        a_vocoder().for_mel(OWN.replace(**change))


def test_readers_keep_the_family_of_the_vocoders_own_definition() -> None:
    vocoder = a_vocoder()
    reader = vocoder.for_mel(OTHERS["pwg"])
    assert reader.family == vocoder.family == MelFamily(OWN)
    assert reader.for_mel(OWN).mel == OWN


def test_an_own_definition_outside_the_limits_is_refused_before_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], messages: Messages
) -> None:
    recipe = write_recipe(tmp_path / "tiny.yaml", write_corpus(tmp_path / "corpus"))
    assert run_training(recipe, tmp_path / "run", "vocoder.any_mel=true", "mel.n_mels=40") == 2
    messages.check(error := last_line(capsys))
    assert "n_mels is 40, not 64 to 160" in error


def test_segments_must_be_long_enough_for_centred_definitions_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], messages: Messages
) -> None:
    recipe = write_recipe(tmp_path / "tiny.yaml", write_corpus(tmp_path / "corpus"))
    settings = ["mel=bigvgan-44k", "training.stft_resolutions=[[256,64]]", "training.segment_frames=2"]
    assert run_training(recipe, tmp_path / "own", *settings) == 0
    assert run_training(recipe, tmp_path / "all", *settings, "vocoder.any_mel=true") == 2
    messages.check(last_line(capsys))


def test_training_for_all_definitions_starts_from_a_vocoder_of_one_but_does_not_resume_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], messages: Messages
) -> None:
    recipe = write_recipe(tmp_path / "tiny.yaml", write_corpus(tmp_path / "corpus"))
    assert run_training(recipe, tmp_path / "own") == 0
    assert run_training(recipe, tmp_path / "all", "vocoder.any_mel=true", f"init={tmp_path / 'own'}") == 0
    assert run_training(recipe, tmp_path / "own", "vocoder.any_mel=true", "training.steps=9") == 2
    messages.check(error := last_line(capsys))
    assert "vocoder.any_mel" in error


def test_a_vocoder_of_one_definition_refuses_all_others() -> None:
    vocoder = new_vocoder("spectral", OWN, channels=16, layers=2)
    assert vocoder.for_mel(OWN) is vocoder
    with pytest.raises(MelError, match="center is True, not False"):
        vocoder.for_mel(OWN.replace(center=True))


@pytest.mark.parametrize("name", ["bigvgan-24k", "hifigan-22k", "wavegen-16k", "nsf-44k"])
def test_drawn_definitions_belong_to_the_family_cover_it_and_depend_on_the_step_alone(name: str) -> None:
    family = MelFamily(profile(name))
    drawn = [family.draw(step) for step in range(200)]
    for spec in drawn:
        MelFamily(profile(name)).check(spec, "drawn")
    assert drawn == [family.draw(step) for step in range(200)]
    for field in ("sample_rate_hz", "n_mels", "scale", "norm", "center", "stft_normalized", "f_min_hz"):
        assert len({getattr(spec, field) for spec in drawn}) > 1, field
    rate = family.own.sample_rate_hz
    for spec in drawn:  # training resamples by these exact ratios
        assert spec.sample_rate_hz == pytest.approx(rate * family.rate_steps(spec) / RATE_STEPS, abs=1)
    assert {family.draw(step, any_rate=False).sample_rate_hz for step in range(50)} == {rate}


def test_training_draws_definitions_and_resumes_bit_for_bit(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "tiny.yaml", write_corpus(tmp_path / "corpus"))
    settings = ["training.decay=constant", "training.adversarial={start_step: 2}", "training.segment_frames=40"]
    assert run_training(recipe, tmp_path / "own", *settings) == 0
    settings += ["vocoder.any_mel=true", "training.augmentation={smoothing: 0.5}"]
    assert run_training(recipe, tmp_path / "whole", *settings) == 0
    assert run_training(recipe, tmp_path / "parts", *settings, "training.steps=4") == 0
    assert run_training(recipe, tmp_path / "parts", *settings) == 0
    assert_same_checkpoint(checkpoint(tmp_path / "whole", 8), checkpoint(tmp_path / "parts", 8))
    with pytest.raises(AssertionError, match="not bit for bit"):  # so something was drawn
        assert_same_checkpoint(checkpoint(tmp_path / "whole", 8), checkpoint(tmp_path / "own", 8))


@pytest.mark.parametrize("setting", ["vocoder.any_mel=true", "training.augmentation={}"])
def test_predicted_mels_are_refused_for_training_that_computes_its_own(
    setting: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], messages: Messages
) -> None:
    corpus = write_corpus(tmp_path / "corpus", clips=3)
    recipe = write_recipe(tmp_path / "tiny.yaml", corpus)
    (tmp_path / "pairs.tsv").write_text(
        "audio\tmel\tsplit\ncorpus/a0.wav\ta0.npy\ttrain\ncorpus/a1.wav\ta1.npy\tvalid\n"
    )
    overrides = [f"data.manifest={tmp_path / 'pairs.tsv'}", setting]
    assert run_training(recipe, tmp_path / "run", *overrides) == 2
    messages.check(error := last_line(capsys))
    assert setting.partition("=")[0] in error


def test_synth_reads_the_definition_that_the_file_states(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], messages: Messages
) -> None:
    recipe = write_recipe(tmp_path / "tiny.yaml", write_corpus(tmp_path / "corpus"))
    run, spec = tmp_path / "run", OTHERS["vocos"]
    assert train.main([str(recipe), "vocoder.any_mel=true", "training.steps=2", "--out", str(run)]) == 0
    mel = LogMel(spec)(torch.from_numpy(voice(0.5)).float()[None])[0].numpy()
    (tmp_path / "mels").mkdir()
    save_mel(tmp_path / "mels" / "stated.npz", mel, spec)
    np.save(tmp_path / "bare.npy", mel)
    assert open_mel(tmp_path / "mels" / "stated.npz").definition == spec
    model = ["--model", str(run)]
    assert synth.main([str(tmp_path / "mels" / "stated.npz"), str(tmp_path / "a.wav"), *model]) == 0
    assert synth.main([str(tmp_path / "bare.npy"), str(tmp_path / "b.wav"), "--profile", "vocos-24k", *model]) == 0
    assert (tmp_path / "a.wav").read_bytes() == (tmp_path / "b.wav").read_bytes()

    ours = LogMel(OWN)(torch.from_numpy(voice(0.5)).float()[None])[0].numpy()
    save_mel(tmp_path / "other.npz", ours, OWN)
    np.save(tmp_path / "other.npy", ours)  # states no definition, so it has the model's own
    for other in ("other.npz", "other.npy"):
        beside = tmp_path / "mels" / other
        (tmp_path / other).rename(beside)
        capsys.readouterr()
        assert synth.main([str(tmp_path / "mels"), str(tmp_path / "out"), *model]) == 2
        messages.check(last_line(capsys))
        assert not (tmp_path / "out").exists()
        beside.unlink()


def test_evaluate_scores_a_model_once_for_each_definition_that_it_reads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = write_corpus(tmp_path / "corpus", clips=4)
    recipe = write_recipe(tmp_path / "tiny.yaml", corpus)
    run, out = tmp_path / "run", tmp_path / "out"
    assert train.main([str(recipe), "vocoder.any_mel=true", "training.steps=2", "--out", str(run)]) == 0
    command = [str(corpus), "--model", str(run), "--out", str(out), "--jobs", "1"]
    assert evaluate.main([*command, "--reads", "bigvgan-24k", "--reads", "vocos-24k"]) == 0
    systems = json.loads((out / "summary.json").read_text())["systems"]
    assert {"run@bigvgan-24k", "run@vocos-24k"} == set(systems) - {REFERENCE}
    (beside := tmp_path / "run@vocos-24k").mkdir()  # a folder of outputs with the same name as a reader
    for sound in corpus.glob("*.wav"):
        shutil.copy(sound, beside)
    assert evaluate.main([str(corpus), str(beside), *command[1:], "--reads", "vocos-24k"]) == 0
    systems = json.loads((out / "summary.json").read_text())["systems"]
    assert {"run@vocos-24k", "run@vocos-24k'"} == set(systems) - {REFERENCE}
    assert systems["run@vocos-24k"]["log_mel"]["mean"] == 0 < systems["run@vocos-24k'"]["log_mel"]["mean"]
    capsys.readouterr()
    assert evaluate.main([*command, "--reads", "bigvgan-24k", "--reads", "hifigan-22k"]) == 0
    assert "scored at 22050 Hz" in capsys.readouterr().out  # the lower of the two rates
    assert evaluate.main([*command, "--reads", "pwg-24k"]) == 2
    assert "hop_length is 300, not 256" in capsys.readouterr().err
