"""Training: what a run leaves, resuming bit for bit, several processes against one."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from support.corpus import RATE, voice, write_corpus, write_recipe
from support.messages import Messages
from support.runs import assert_same_checkpoint, in_two_processes, rows, train, train_in_two_processes
from support.vocoders import new_vocoder

from wavegen.commands.train import main
from wavegen.errors import ConfigError
from wavegen.files import LOCK
from wavegen.mel import profile
from wavegen.training import loop
from wavegen.training.config import TrainingConfig
from wavegen.training.run_folder import RunFolder
from wavegen.vocoders import VOCODERS

MEL = profile("bigvgan-24k")


@pytest.mark.parametrize("vocoder", sorted(VOCODERS))
def test_a_run_leaves_what_it_promises(tmp_path: Path, corpus: Path, vocoder: str) -> None:
    recipe, out = write_recipe(tmp_path / "r.yaml", corpus, vocoder=vocoder), tmp_path / "run"
    assert train(recipe, out, "training.listen_clips=1", "training.listen_frames=4", "samples.clips=1") == 0
    names = sorted(path.name for path in out.iterdir())
    assert names == [
        LOCK, "checkpoints", "features", "log.jsonl", "model.safetensors", "recipe.yaml", "samples", "tensorboard",
    ]  # fmt: skip
    assert sorted(path.name for path in (out / "checkpoints").iterdir()) == [
        "best.safetensors", "step-00000006.safetensors", "step-00000008.safetensors",
    ]  # fmt: skip
    assert {"a0.wav", "a0.reference.wav", "a0.griffin-lim.wav", "a0.png", "scores.csv", "index.html"} <= {
        path.name for path in (out / "samples").iterdir()
    }
    assert [row["step"] for row in rows(out, "train")] == list(range(1, 9))
    assert [row["step"] for row in rows(out, "valid")] == [4, 8]
    assert {"loss", "gradient_norm", "learning_rate", "data_wait_share", "steps_per_s"} <= rows(out, "train")[0].keys()
    curves = tensorboard_tags(out / "tensorboard")
    assert {"train/loss", "train/gradient_norm", "train/learning_rate", "valid/loss"} <= curves["scalars"]
    assert "listened/log_mel" in curves["scalars"]
    assert [row["step"] for row in rows(out, "listened")] == [4, 8]
    assert curves["audio"] == {"a0/generated", "a0/recording"}
    assert curves["images"] == {"a0/spectrogram"}


def tensorboard_tags(folder: Path) -> dict[str, set[str]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return {kind: set(events.Tags()[kind]) for kind in ("scalars", "audio", "images")}


def test_training_lowers_the_loss(tmp_path: Path, corpus: Path) -> None:
    recipe = write_recipe(tmp_path / "r.yaml", corpus, vocoder="wavenet")
    channels = ["vocoder.residual_channels=8", "vocoder.hidden_channels=16", "vocoder.condition_channels=8"]
    settings = [*channels, "vocoder.depth=5", "training.steps=30", "training.learning_rate=0.01"]
    assert train(recipe, tmp_path / "run", *settings) == 0
    bits = [row["bits_per_sample"] for row in rows(tmp_path / "run", "train")]
    assert bits[0] == pytest.approx(8, abs=0.5)  # 256 classes, untrained
    assert bits[-1] < bits[0] - 0.5


@pytest.mark.parametrize("vocoder", sorted(VOCODERS))
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(tmp_path: Path, corpus: Path, vocoder: str) -> None:
    recipe = write_recipe(tmp_path / "r.yaml", corpus, vocoder=vocoder)
    constant = "training.decay=constant"  # only the decay depends on the last step
    assert train(recipe, tmp_path / "whole", constant) == 0
    assert train(recipe, tmp_path / "parts", constant, "training.steps=4") == 0
    assert train(recipe, tmp_path / "parts", constant) == 0
    last = "checkpoints/step-00000008.safetensors"
    assert_same_checkpoint(tmp_path / "whole" / last, tmp_path / "parts" / last)
    whole, parts = (rows(tmp_path / run, "train") for run in ("whole", "parts"))
    assert [row["loss"] for row in whole] == [row["loss"] for row in parts]


def test_a_difference_in_one_bit_would_be_noticed(tmp_path: Path, corpus: Path) -> None:
    """The comparison above can fail: another seed gives other bits."""
    recipe = write_recipe(tmp_path / "r.yaml", corpus)
    assert train(recipe, tmp_path / "a", "training.steps=2") == 0
    assert train(recipe, tmp_path / "b", "training.steps=2", "seed=1") == 0
    with pytest.raises(AssertionError, match="not bit for bit the same"):
        assert_same_checkpoint(*(tmp_path / run / "checkpoints/step-00000002.safetensors" for run in ("a", "b")))


# Several trainings in the same two processes, because starting these takes longer than all trainings. torchrun's own
# store serves one training; here each has a file.
SEVERAL = """
import functools, json, os, sys
import torch.distributed as dist
from wavegen.commands.train import main
start, rank = dist.init_process_group, int(os.environ["RANK"])
for arguments in json.loads(sys.argv[1]):
    store = "file://" + arguments[0] + ".store"
    dist.init_process_group = functools.partial(start, init_method=store, rank=rank, world_size=2)
    if main(arguments) != 0:
        sys.exit(1)
"""


def test_two_processes_take_the_steps_of_one(tmp_path: Path, corpus: Path) -> None:
    runs = []
    for vocoder in sorted(VOCODERS):
        (tmp_path / vocoder).mkdir()
        recipe = write_recipe(tmp_path / vocoder / "r.yaml", corpus, vocoder=vocoder)
        assert train(recipe, tmp_path / vocoder / "one") == 0
        runs.append([str(recipe), "--out", str(tmp_path / vocoder / "two"), "--device", "cpu"])
    (tmp_path / "several.py").write_text(SEVERAL)
    result = in_two_processes(str(tmp_path / "several.py"), json.dumps(runs))
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.count("training ") == len(VOCODERS)  # only the first process prints
    for vocoder in sorted(VOCODERS):
        one, two = tmp_path / vocoder / "one", tmp_path / vocoder / "two"
        for kind in ("train", "valid"):
            expected, losses = (np.array([row["loss"] for row in rows(run, kind)]) for run in (one, two))
            # Adam's first steps and Griffin-Lim amplify rounding errors, with torch 2.6 to 6 % of a loss; other
            # segments would show from the first step.
            np.testing.assert_allclose(losses[:2], expected[:2], rtol=1e-4 if kind == "train" else 0.1)
            np.testing.assert_allclose(losses, expected, rtol=0.1)
        # A sum in place of a mean would not change Adam's steps, but the gradient's norm. The source amplifies
        # rounding: a part of a batch rounds F0 otherwise than the whole batch.
        norms = [rows(run, "train")[0]["gradient_norm"] for run in (one, two)]
        assert norms[0] == pytest.approx(norms[1], rel=1e-3), vocoder
        # Sums in another order show that the batch was shared.
        assert rows(one, "train") != rows(two, "train"), vocoder


def test_a_batch_that_processes_cannot_share_is_refused(recipe: Path, tmp_path: Path) -> None:
    result = train_in_two_processes(recipe, tmp_path / "two", "training.batch_size=3")
    assert result.returncode != 0
    assert "training.batch_size 3 cannot be shared by 2 processes" in result.stderr


def test_a_run_without_validation_clips_is_refused(tmp_path: Path, messages: Messages) -> None:
    vocoder = new_vocoder("spectral", MEL, channels=8, layers=1)
    run = RunFolder(tmp_path, VOCODERS["spectral"].Config(name="spectral"), {})
    with messages.refused(ConfigError):
        loop.train(vocoder, [], TrainingConfig(steps=1), run, seed=0, device=torch.device("cpu"), notify=print)


@pytest.mark.parametrize("vocoder", sorted(VOCODERS))
def test_a_validation_clip_of_a_few_samples_is_validated(tmp_path: Path, vocoder: str) -> None:
    corpus = write_corpus(tmp_path / "corpus")
    soundfile.write(corpus / "a0.wav", voice(400 / RATE), RATE)
    assert train(write_recipe(tmp_path / "r.yaml", corpus, vocoder=vocoder), tmp_path / "run") == 0
    assert [row["step"] for row in rows(tmp_path / "run", "valid")] == [4, 8]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU")
@pytest.mark.filterwarnings("ignore")  # the compiler's own warnings
@pytest.mark.parametrize("vocoder", sorted(VOCODERS))
def test_a_compiled_run_takes_the_steps_of_an_uncompiled_one(tmp_path: Path, corpus: Path, vocoder: str) -> None:
    recipe = write_recipe(tmp_path / "r.yaml", corpus, vocoder=vocoder)
    for compiled in ("true", "false"):
        assert train(recipe, tmp_path / compiled, "training.steps=2", f"training.compile={compiled}") == 0
    assert torch._dynamo.utils.counters["frames"]["ok"] > 0  # something was compiled
    a, b = (np.array([row["loss"] for row in rows(tmp_path / name, "train")]) for name in ("true", "false"))
    np.testing.assert_allclose(a, b, rtol=1e-3)


def test_bfloat16_trains_close_to_float32(tmp_path: Path, recipe: Path) -> None:
    for precision in ("float32", "bfloat16"):
        assert train(recipe, tmp_path / precision, f"training.precision={precision}") == 0
    single, half = (rows(tmp_path / p, "train")[-1]["loss"] for p in ("float32", "bfloat16"))
    assert half == pytest.approx(single, rel=0.05)
    assert half != single


def test_the_resolved_recipe_alone_reproduces_the_run(tmp_path: Path, recipe: Path) -> None:
    assert train(recipe, tmp_path / "first", "training.steps=2", "seed=3") == 0
    recipe.unlink()
    assert train(tmp_path / "first" / "recipe.yaml", tmp_path / "second") == 0
    last = "checkpoints/step-00000002.safetensors"
    assert_same_checkpoint(tmp_path / "first" / last, tmp_path / "second" / last)


@pytest.mark.gpu
@pytest.mark.parametrize("vocoder", sorted(VOCODERS))
def test_resuming_on_a_gpu_is_bit_for_bit_too(tmp_path: Path, corpus: Path, gpu: torch.device, vocoder: str) -> None:
    recipe = write_recipe(tmp_path / "r.yaml", corpus, vocoder=vocoder)
    # Graphs are recorded after 3 steps, so the whole run replays what the resumed one computes kernel by kernel.
    for name, steps, graphs in (("whole", 8, True), ("parts", 4, True), ("parts", 8, True), ("eager", 8, False)):
        settings = ["training.decay=constant", f"training.steps={steps}", "training.listen_clips=1"]
        settings.append(f"training.cuda_graphs={graphs}".lower())
        assert main([str(recipe), "--out", str(tmp_path / name), "--device", "cuda", *settings]) == 0
    last = "checkpoints/step-00000008.safetensors"
    for name in ("parts", "eager"):
        assert_same_checkpoint(tmp_path / "whole" / last, tmp_path / name / last)
