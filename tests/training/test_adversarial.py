"""Runs of adversarial training: when it begins, resuming, several processes."""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from support.messages import Messages
from support.runs import assert_same_checkpoint, checkpoint, rows, train, train_in_two_processes

from wavegen.checkpoint import load_checkpoint
from wavegen.commands.train import main

ADVERSARIAL = (
    "training.adversarial={periods: [2, 3], period_channels: [4, 6], resolutions: [[256, 128]], "
    "resolution_channels: 4, dilations: [1, 2], start_step: 3}"
)


def test_a_run_logs_both_sides_and_leaves_a_model_of_the_vocoder_alone(tmp_path: Path, recipe: Path) -> None:
    assert train(recipe, tmp_path / "run", ADVERSARIAL) == 0
    assert train(recipe, tmp_path / "plain") == 0
    new = {"discriminator_loss", "adversarial", "feature_matching", "real_score", "fake_score"}
    for row in rows(tmp_path / "run", "train"):
        assert (new | {"discriminator_gradient_norm"} <= row.keys()) == (row["step"] > 3)
        assert new.isdisjoint(row) == (row["step"] <= 3)
    for row in rows(tmp_path / "run", "valid"):
        assert new <= row.keys()
    # Before the start step the steps are those without discriminators.
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
        assert train(recipe, tmp_path / name, ADVERSARIAL, f"training.log_every={every}") == 0
    fourth = rows(tmp_path / "one", "train")[3]
    window = rows(tmp_path / "four", "train")[0]
    assert window["discriminator_loss"] == fourth["discriminator_loss"]
    losses = [row["mel"] for row in rows(tmp_path / "one", "train")[:4]]
    assert window["mel"] == pytest.approx(np.mean(losses))


@pytest.mark.parametrize("stop", [2, 3, 5])
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(tmp_path: Path, recipe: Path, stop: int) -> None:
    # Every step is validated, so that both runs have seen the same scores.
    settings = (ADVERSARIAL, "training.decay=constant", "training.validate_every=1")
    assert train(recipe, tmp_path / "whole", *settings) == 0
    assert train(recipe, tmp_path / "parts", *settings, f"training.steps={stop}") == 0
    assert train(recipe, tmp_path / "parts", *settings) == 0
    assert_same_checkpoint(checkpoint(tmp_path / "whole", 8), checkpoint(tmp_path / "parts", 8))
    for key in ("loss", "discriminator_loss", "discriminator_gradient_norm"):
        whole, parts = ([row.get(key) for row in rows(tmp_path / run, "train")] for run in ("whole", "parts"))
        assert whole == parts


def test_a_killed_run_resumes_as_if_nothing_had_happened(tmp_path: Path, recipe: Path) -> None:
    settings = (ADVERSARIAL, "training.steps=15", "training.checkpoint_every=1")
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
    assert_same_checkpoint(checkpoint(whole, 15), checkpoint(killed, 15))


@pytest.mark.parametrize("start_step", [0, 3])
def test_two_processes_take_the_steps_of_one(tmp_path: Path, recipe: Path, start_step: int) -> None:
    settings = (ADVERSARIAL, f"training.adversarial.start_step={start_step}")
    assert train(recipe, tmp_path / "one", *settings) == 0
    result = train_in_two_processes(recipe, tmp_path / "two", *settings)
    assert result.returncode == 0, result.stdout + result.stderr
    one, two = (rows(tmp_path / name, "train") for name in ("one", "two"))
    for key in ("loss", "discriminator_loss"):
        a, b = (np.array([row[key] for row in run if key in row]) for run in (one, two))
        np.testing.assert_allclose(b, a, rtol=2e-2)
    # A sum in place of a mean, or a gradient that is not shared, would show here; later Adam amplifies rounding.
    for key in ("gradient_norm", "discriminator_gradient_norm") if start_step == 0 else ("gradient_norm",):
        assert two[0][key] == pytest.approx(one[0][key], rel=1e-4)
    tensors = [load_checkpoint(checkpoint(tmp_path / name, 8))[0] for name in ("one", "two")]
    names = [name for name in tensors[0] if name.startswith("discriminator.")]
    assert names
    for name in names:
        torch.testing.assert_close(tensors[1][name], tensors[0][name], rtol=2e-2, atol=2e-3)


def test_bfloat16_trains_close_to_float32(tmp_path: Path, recipe: Path) -> None:
    for precision in ("float32", "bfloat16"):
        assert train(recipe, tmp_path / precision, ADVERSARIAL, f"training.precision={precision}") == 0
    single, half = (rows(tmp_path / p, "train")[-1] for p in ("float32", "bfloat16"))
    for key in ("loss", "discriminator_loss"):
        assert half[key] == pytest.approx(single[key], rel=0.05)
        assert half[key] != single[key]


@pytest.mark.gpu
def test_resuming_on_a_gpu_is_bit_for_bit_too(tmp_path: Path, recipe: Path, gpu: torch.device) -> None:
    begin = "training.adversarial.start_step=6"  # graphs are recorded after 3 steps of either kind
    for name, steps, graphs in (("whole", 16, True), ("parts", 11, True), ("parts", 16, True), ("eager", 16, False)):
        settings = [ADVERSARIAL, begin, "training.decay=constant", f"training.steps={steps}"]
        settings += [f"training.cuda_graphs={graphs}".lower(), "training.checkpoint_every=16"]
        assert main([str(recipe), "--out", str(tmp_path / name), "--device", "cuda", *settings]) == 0
    for name in ("parts", "eager"):
        assert_same_checkpoint(checkpoint(tmp_path / "whole", 16), checkpoint(tmp_path / name, 16))


@pytest.mark.parametrize("start", [8, 5])
def test_the_start_of_the_discriminators_is_announced(
    tmp_path: Path, recipe: Path, start: int, messages: Messages, capsys: pytest.CaptureFixture[str]
) -> None:
    late = f"training.adversarial={{periods: [2], period_channels: [4], resolutions: [], start_step: {start}}}"
    assert train(recipe, tmp_path / "run", late) == 0
    messages.check(next(line for line in capsys.readouterr().out.splitlines() if "adversarial" in line))
