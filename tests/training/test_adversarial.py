"""Adversarial training: one step for both sides, when it begins, resuming, several processes."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.corpus import voice, write_corpus, write_recipe
from support.runs import SMALL, assert_same_checkpoint, checkpoint, rows, train
from support.vocoders import new_vocoder
from torch import Tensor, nn

from wavegen.checkpoint import load_checkpoint
from wavegen.errors import ConfigError
from wavegen.mel import LogMel, profile
from wavegen.recipe import load_recipe
from wavegen.training.config import AdversarialConfig, TrainingConfig
from wavegen.training.data import Batch
from wavegen.training.discriminators import (
    Discriminators,
)
from wavegen.training.losses import (
    deception_loss,
    discriminator_loss,
    feature_matching_loss,
)
from wavegen.training.objectives import AdversarialObjective, build_objective
from wavegen.training.schedule import discriminator_learning_rate, learning_rate
from wavegen.training.state import TrainingState

MEL = profile("bigvgan-24k")
IN_A_RECIPE = (
    "training.adversarial={periods: [2, 3], period_channels: [4, 6], resolutions: [[256, 128]], "
    "resolution_channels: 4, dilations: [1, 2], start_step: 3}"
)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture
def recipe(tmp_path: Path, corpus: Path) -> Path:
    return write_recipe(tmp_path / "r.yaml", corpus)


# --- the objective ------------------------------------------------------------------------------------------------


def objective(**changes: Any) -> AdversarialObjective:
    torch.manual_seed(0)
    adversarial = SMALL.model_copy(update=changes)
    config = TrainingConfig(steps=9, adversarial=adversarial)
    built = build_objective(new_vocoder("spectral", MEL, channels=4, layers=1), config, Discriminators(adversarial))
    assert isinstance(built, AdversarialObjective)
    return built


def batch(frames: int = 16) -> Batch:
    audio = torch.tensor(np.stack([voice(frames * 256 / 24000, seed=i) for i in range(2)]), dtype=torch.float32)
    return Batch(audio, LogMel(MEL)(audio)[:, :, :frames], torch.tensor([frames, frames]), torch.tensor([0, 0]))


@pytest.mark.parametrize("kind", ["hinge", "least-squares"])
def test_the_parts_are_what_the_discriminators_say(kind: Any) -> None:
    tested, given = objective(loss=kind, weight=0.7, feature_weight=1.3), batch()
    parts = tested(given)
    generated = tested.vocoder(given.mel).detach()
    real, fake = tested.discriminators(given.audio), tested.discriminators(generated)
    logits = [[judgement.logits for judgement in judgements] for judgements in (real, fake)]
    maps = [[judgement.features for judgement in judgements] for judgements in (real, fake)]
    torch.testing.assert_close(parts["adversarial"], deception_loss(kind, logits[1]))
    torch.testing.assert_close(parts["discriminator_loss"], discriminator_loss(kind, *logits))
    torch.testing.assert_close(parts["feature_matching"], feature_matching_loss(*maps))
    for name, judged in (("real_score", logits[0]), ("fake_score", logits[1])):
        assert float(parts[name]) == pytest.approx(np.mean([float(x.detach().mean()) for x in judged]), rel=1e-5)
    reconstruction = tested.reconstruction(given)["loss"]
    torch.testing.assert_close(parts["reconstruction"], reconstruction)
    torch.testing.assert_close(
        parts["loss"], reconstruction + 0.7 * parts["adversarial"] + 1.3 * parts["feature_matching"]
    )


def gradients(module: nn.Module) -> list[Tensor]:
    return [parameter.grad for parameter in module.parameters() if parameter.grad is not None]


def test_each_side_learns_from_its_own_loss_alone() -> None:
    tested = objective()
    tested(batch())["loss"].backward()
    assert gradients(tested.vocoder)
    assert not gradients(tested.discriminators)
    tested.vocoder.zero_grad()
    tested(batch())["discriminator_loss"].backward()
    assert len(gradients(tested.discriminators)) == len(list(tested.discriminators.parameters()))
    assert not gradients(tested.vocoder)
    # And the discriminators do move the vocoder: not by the reconstruction alone.
    with_them, without = (objective(weight=weight, feature_weight=0.0) for weight in (1e3, 1e-9))
    for one in (with_them, without):
        one(batch())["loss"].backward()
    pairs = zip(gradients(with_them.vocoder), gradients(without.vocoder), strict=True)
    assert any(not torch.allclose(a, b, rtol=0.1) for a, b in pairs)


def test_feature_matching_moves_the_vocoder_through_the_feature_maps() -> None:
    with_it, without = (objective(weight=1e-9, feature_weight=weight) for weight in (1e3, 0.0))
    for one in (with_it, without):
        one(batch())["loss"].backward()
    pairs = zip(gradients(with_it.vocoder), gradients(without.vocoder), strict=True)
    assert any(not torch.allclose(a, b, rtol=0.1) for a, b in pairs)


def test_a_step_passes_through_the_vocoder_once(monkeypatch: pytest.MonkeyPatch) -> None:
    tested, passes = objective(), []
    original = tested.vocoder.forward
    monkeypatch.setattr(tested.vocoder, "forward", lambda *a, **kw: passes.append(1) or original(*a, **kw))
    tested(batch())
    assert passes == [1]


def test_before_the_start_reconstruction_is_all() -> None:
    tested = objective(start_step=3)
    before, at = tested(batch(), step=2), tested(batch(), step=3)
    assert set(before) == {"loss", "mel", "stft", "reconstruction"}
    assert torch.equal(before["loss"], tested.reconstruction(batch())["loss"])
    assert {"discriminator_loss", "adversarial", "feature_matching", "real_score", "fake_score"} <= set(at)
    assert torch.equal(at["reconstruction"], before["reconstruction"])


def test_discriminators_learn_to_tell_recordings_from_fakes() -> None:
    torch.manual_seed(0)
    config = TrainingConfig(
        steps=60, warmup_steps=1, decay="constant", learning_rate=5e-3, adversarial=SMALL, ema_decay=0.0
    )
    state = TrainingState(new_vocoder("spectral", MEL, channels=4, layers=1), config)
    state.vocoder.requires_grad_(False)
    tested, given = build_objective(state.vocoder, config, state.discriminators), batch()
    losses = []
    for _ in range(60):
        state.forget_gradients()
        parts = tested(given)
        parts["discriminator_loss"].backward()
        state.clip_gradients()
        state.take_step()
        losses.append(float(parts["discriminator_loss"].detach()))
    assert losses[-1] < 0.7 * losses[0]
    assert parts["real_score"] > parts["fake_score"] + 0.5


def test_padding_reaches_neither_loss_nor_gradient() -> None:
    tested, given = objective(), batch()
    lengths = torch.tensor([16, 9])
    mel, audio = given.mel.clone(), given.audio.clone()
    audio[1, 9 * 256 :] = 0
    mel[1, :, 9:] = 0
    clean = tested(Batch(audio, mel, lengths, given.starts))
    mel[1, :, 9:] = float("nan")
    dirty = tested(Batch(audio, mel, lengths, given.starts))
    assert torch.equal(clean["loss"], dirty["loss"])
    torch.autograd.backward([dirty["loss"], dirty["discriminator_loss"]])
    assert all(
        gradient.isfinite().all()
        for module in (tested.vocoder, tested.discriminators)
        for gradient in gradients(module)
    )


# --- schedule and recipe ------------------------------------------------------------------------------------------


def test_the_discriminators_warm_up_when_they_begin_and_decay_with_the_vocoder() -> None:
    adversarial = AdversarialConfig(start_step=500, learning_rate=1e-3)
    config = TrainingConfig(steps=1000, learning_rate=1e-2, warmup_steps=10, adversarial=adversarial)
    assert discriminator_learning_rate(config, 500) == pytest.approx(
        0.1 * discriminator_learning_rate(config, 509), 0.05
    )
    for step in (509, 700, 999):
        assert discriminator_learning_rate(config, step) == pytest.approx(0.1 * learning_rate(config, step))
    same = config.model_copy(update={"adversarial": AdversarialConfig()})
    assert discriminator_learning_rate(same, 300) == learning_rate(same, 300)


def test_one_override_turns_it_on(recipe: Path) -> None:
    assert load_recipe(recipe).training.adversarial is None
    longer = "training.segment_frames=20"
    started = load_recipe(recipe, [longer, "training.adversarial.start_step=1000"]).training.adversarial
    assert started == AdversarialConfig(start_step=1000)
    assert load_recipe(recipe, [longer, "training.adversarial={}"]).training.adversarial == AdversarialConfig()
    assert load_recipe(recipe, [IN_A_RECIPE, "training.adversarial=null"]).training.adversarial is None


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "training.adversarial={}",
            "training.segment_frames: 16 frames (4096 samples) are too short for 1 of the discriminators "
            "(resolution 1024/512 needs 5120 samples); give at least 20",
        ),
        (
            "training.adversarial={resolutions: [[4096, 1024]], periods: [37]}",
            "training.segment_frames: 16 frames (4096 samples) are too short for 2 of the discriminators "
            "(resolution 4096/1024 needs 12288 samples); give at least 48",
        ),
        ("training.adversarial.los=hinge", "training.adversarial.los: unknown key, did you mean 'loss'?"),
        (
            "training.adversarial={periods: [], resolutions: []}",
            "training.adversarial: periods and resolutions are both empty; give one of either at least",
        ),
        (
            "training.adversarial={resolutions: [[64, 64]]}",
            "training.adversarial: resolutions: hop 64 is not shorter than n_fft 64",
        ),
    ],
)
def test_discriminators_that_cannot_be_are_refused_before_data_is_read(
    recipe: Path, override: str, message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load_recipe(recipe, [override, "data.corpus=none"])
    assert str(caught.value) == f"{recipe}: {message}"


def test_the_shortest_segment_that_is_named_works(recipe: Path, tmp_path: Path) -> None:
    settings = ["training.adversarial={}", "training.segment_frames=20", "training.steps=1"]
    assert train(recipe, tmp_path / "run", *settings) == 0


def test_a_vocoder_that_goes_sample_by_sample_is_refused(tmp_path: Path, corpus: Path) -> None:
    recipe = write_recipe(tmp_path / "r.yaml", corpus, vocoder="wavenet")
    with pytest.raises(ConfigError, match=r"training\.adversarial: the wavenet vocoder makes one sample after"):
        load_recipe(recipe, [IN_A_RECIPE])


# --- the loop -----------------------------------------------------------------------------------------------------


def test_a_run_logs_both_sides_and_leaves_a_model_of_the_vocoder_alone(tmp_path: Path, recipe: Path) -> None:
    assert train(recipe, tmp_path / "run", IN_A_RECIPE) == 0
    assert train(recipe, tmp_path / "plain") == 0
    new = {"discriminator_loss", "adversarial", "feature_matching", "real_score", "fake_score"}
    for row in rows(tmp_path / "run", "train"):
        assert (new | {"discriminator_gradient_norm"} <= row.keys()) == (row["step"] > 3)
        assert new.isdisjoint(row) == (row["step"] <= 3)
    for row in rows(tmp_path / "run", "valid"):
        assert new <= row.keys()
    # Reconstruction alone comes before: the same steps as without discriminators.
    for key in ("loss", "gradient_norm"):
        run, plain = ([row[key] for row in rows(tmp_path / name, "train")] for name in ("run", "plain"))
        assert run[:3] == plain[:3]
        assert run[3] != plain[3]

    tensors, header = load_checkpoint(checkpoint(tmp_path / "run", 8))
    assert {"discriminator", "discriminator_optimizer", "model", "ema", "optimizer"} <= {
        n.split(".")[0] for n in tensors
    }
    assert tensors["discriminator_optimizer.0.step"] == 5
    assert header["best"] == min(row["reconstruction"] for row in rows(tmp_path / "run", "valid"))
    model, plain_model = (load_checkpoint(tmp_path / name / "model.safetensors")[0] for name in ("run", "plain"))
    assert model.keys() == plain_model.keys()


def test_means_over_steps_count_only_those_that_have_the_loss(tmp_path: Path, recipe: Path) -> None:
    for name, every in (("one", "1"), ("four", "4")):
        assert train(recipe, tmp_path / name, IN_A_RECIPE, f"training.log_every={every}") == 0
    fourth = rows(tmp_path / "one", "train")[3]
    window = rows(tmp_path / "four", "train")[0]
    assert window["discriminator_loss"] == fourth["discriminator_loss"]
    losses = [row["mel"] for row in rows(tmp_path / "one", "train")[:4]]
    assert window["mel"] == pytest.approx(np.mean(losses))


@pytest.mark.parametrize("stop", [2, 3, 5])
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(tmp_path: Path, recipe: Path, stop: int) -> None:
    settings = (IN_A_RECIPE, "training.decay=constant")
    assert train(recipe, tmp_path / "whole", *settings) == 0
    assert train(recipe, tmp_path / "parts", *settings, f"training.steps={stop}") == 0
    assert train(recipe, tmp_path / "parts", *settings) == 0
    assert_same_checkpoint(checkpoint(tmp_path / "whole", 8), checkpoint(tmp_path / "parts", 8))
    for key in ("loss", "discriminator_loss", "discriminator_gradient_norm"):
        whole, parts = ([row.get(key) for row in rows(tmp_path / run, "train")] for run in ("whole", "parts"))
        assert whole == parts


def test_a_killed_run_goes_on_as_if_nothing_had_happened(tmp_path: Path, recipe: Path) -> None:
    settings = (IN_A_RECIPE, "training.steps=30", "training.checkpoint_every=1")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert train(recipe, whole, *settings) == 0
    command = [sys.executable, "-m", "wavegen.commands.train", str(recipe), "--out", str(killed), "--device", "cpu"]
    process = subprocess.Popen([*command, *settings], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    while not any(int(path.stem[-2:]) > 4 for path in killed.glob("checkpoints/step-*")):
        assert process.poll() is None, process.stdout and process.stdout.read()
        time.sleep(0.01)
    process.kill()
    process.communicate()
    assert not (killed / "model.safetensors").exists()
    assert train(recipe, killed, *settings) == 0
    assert_same_checkpoint(checkpoint(whole, 30), checkpoint(killed, 30))


@pytest.mark.parametrize("start_step", [0, 3])
def test_two_processes_take_the_steps_of_one(tmp_path: Path, recipe: Path, start_step: int) -> None:
    settings = (IN_A_RECIPE, f"training.adversarial.start_step={start_step}")
    assert train(recipe, tmp_path / "one", *settings) == 0
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2",
        "-m", "wavegen.commands.train", str(recipe), "--out", str(tmp_path / "two"), "--device", "cpu", *settings,
    ]  # fmt: skip
    result = subprocess.run(
        command, env={**os.environ, "OMP_NUM_THREADS": "1"}, text=True, capture_output=True, timeout=300, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    one, two = (rows(tmp_path / name, "train") for name in ("one", "two"))
    for key in ("loss", "discriminator_loss"):
        a, b = (np.array([row[key] for row in run if key in row]) for run in (one, two))
        np.testing.assert_allclose(b, a, rtol=2e-2)
    # A sum where a mean belongs, or a gradient not shared, would show here; later Adam amplifies rounding.
    for key in ("gradient_norm", "discriminator_gradient_norm") if start_step == 0 else ("gradient_norm",):
        assert two[0][key] == pytest.approx(one[0][key], rel=1e-4)
    tensors = [load_checkpoint(checkpoint(tmp_path / name, 8))[0] for name in ("one", "two")]
    names = [name for name in tensors[0] if name.startswith("discriminator.")]
    assert names
    for name in names:
        torch.testing.assert_close(tensors[1][name], tensors[0][name], rtol=2e-2, atol=2e-3)


def test_bfloat16_trains_close_to_float32(tmp_path: Path, recipe: Path) -> None:
    for precision in ("float32", "bfloat16"):
        assert train(recipe, tmp_path / precision, IN_A_RECIPE, f"training.precision={precision}") == 0
    single, half = (rows(tmp_path / p, "train")[-1] for p in ("float32", "bfloat16"))
    for key in ("loss", "discriminator_loss"):
        assert half[key] == pytest.approx(single[key], rel=0.05)
        assert half[key] != single[key]


def test_discriminators_cannot_be_added_to_a_run_that_began_without(tmp_path: Path, recipe: Path, capsys: Any) -> None:
    assert train(recipe, tmp_path / "run", "training.steps=2") == 0
    assert train(recipe, tmp_path / "run", "training.steps=4", IN_A_RECIPE) == 2
    assert "this run was begun with other settings (training.adversarial" in capsys.readouterr().err


@pytest.mark.gpu
def test_resuming_on_a_gpu_is_bit_for_bit_too(tmp_path: Path, recipe: Path, gpu: torch.device) -> None:
    from wavegen.commands.train import main

    begin = "training.adversarial.start_step=6"  # graphs are recorded after 3 steps of either kind
    for name, steps, graphs in (("whole", 16, True), ("parts", 11, True), ("parts", 16, True), ("eager", 16, False)):
        settings = [IN_A_RECIPE, begin, "training.decay=constant", f"training.steps={steps}"]
        settings += [f"training.cuda_graphs={graphs}".lower(), "training.checkpoint_every=16"]
        assert main([str(recipe), "--out", str(tmp_path / name), "--device", "cuda", *settings]) == 0
    for name in ("parts", "eager"):
        assert_same_checkpoint(checkpoint(tmp_path / "whole", 16), checkpoint(tmp_path / name, 16))


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        (8, "no discriminators: training.adversarial.start_step is 8, and there are 8 steps\n"),
        (5, "reconstruction alone to step 5, from there on against discriminators\n"),
    ],
)
def test_when_discriminators_begin_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], start: int, expected: str
) -> None:
    recipe = write_recipe(tmp_path / "r.yaml", write_corpus(tmp_path / "corpus"))
    late = f"training.adversarial={{periods: [2], period_channels: [4], resolutions: [], start_step: {start}}}"
    assert train(recipe, tmp_path / "run", late) == 0
    assert expected in capsys.readouterr().out
