"""Training: what a run leaves, resuming bit for bit, several processes against one."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from support.corpus import RATE, voice, write_corpus, write_recipe
from support.runs import assert_same_checkpoint, rows, train
from support.vocoders import new_vocoder

from wavegen.checkpoint import load_checkpoint
from wavegen.commands.train import main
from wavegen.errors import ConfigError
from wavegen.files import LOCK
from wavegen.mel import profile
from wavegen.training.config import TrainingConfig
from wavegen.training.loop import is_improvement, uses_bfloat16
from wavegen.training.schedule import learning_rate
from wavegen.training.state import RunFolder, TrainingState
from wavegen.vocoders import VOCODERS

MEL = profile("bigvgan-24k")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.mark.parametrize("vocoder", sorted(VOCODERS))
def test_a_run_leaves_what_it_promises(tmp_path: Path, corpus: Path, vocoder: str, capsys: object) -> None:
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


LISTENED = ("training.listen_clips=2", "training.listen_frames=60", "training.decay=constant")


def test_the_best_checkpoint_is_the_best_by_the_metric_that_is_named_also_when_resumed(
    tmp_path: Path, corpus: Path
) -> None:
    recipe, by = write_recipe(tmp_path / "r.yaml", corpus), ("training.best_by=si_sdr", "training.validate_every=2")
    assert train(recipe, tmp_path / "whole", *LISTENED, *by) == 0
    scores = {row["step"]: row["si_sdr"] for row in rows(tmp_path / "whole", "listened")}
    assert list(scores) == [2, 4, 6, 8]
    header = load_checkpoint(tmp_path / "whole/checkpoints/best.safetensors")[1]
    assert (header["step"], header["best"]) == max(scores.items(), key=lambda item: item[1])
    assert train(recipe, tmp_path / "parts", *LISTENED, *by, "training.steps=4") == 0
    assert train(recipe, tmp_path / "parts", *LISTENED, *by) == 0
    for name in ("best", "step-00000008"):
        assert_same_checkpoint(*(tmp_path / run / f"checkpoints/{name}.safetensors" for run in ("whole", "parts")))
    assert train(recipe, tmp_path / "unheard", "training.decay=constant", "training.validate_every=2") == 0
    tensors = [load_checkpoint(tmp_path / run / "model.safetensors")[0] for run in ("whole", "unheard")]
    assert all(torch.equal(tensors[0][name], tensors[1][name]) for name in tensors[0]), "listening changed the training"


@pytest.mark.parametrize(
    ("best_by", "value", "best", "expected"),
    [
        ("loss", 1.0, None, True),
        ("loss", 1.0, 2.0, True),
        ("loss", 2.0, 1.0, False),
        ("pesq", 2.0, 1.0, True),
        ("pesq", 1.0, 2.0, False),
        ("mcd", 1.0, 2.0, True),
        ("loudness", 0.1, -0.5, True),
        ("loudness", -2.0, -0.5, False),
        ("pesq", None, None, False),
        ("pesq", None, 1.0, False),
        ("pesq", 1.0, 1.0, False),
    ],
)
def test_what_is_an_improvement(best_by: str, value: float | None, best: float | None, expected: bool) -> None:
    assert is_improvement(best_by, value, best) is expected


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["training.best_by=peqs"], "best_by: unknown 'peqs', did you mean 'pesq'?"),
        (["training.best_by=stoi"], "best_by: stoi is scored on the clips that are listened to; listen_clips is 0"),
    ],
)
def test_a_bad_best_by(
    overrides: list[str], message: str, tmp_path: Path, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(write_recipe(tmp_path / "r.yaml", corpus), tmp_path / "run", *overrides) == 2
    assert message in capsys.readouterr().err


def test_best_by_a_metric_whose_package_is_missing(
    tmp_path: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "pesq", None)
    recipe = write_recipe(tmp_path / "r.yaml", corpus)
    assert train(recipe, tmp_path / "run", *LISTENED, "training.best_by=pesq") == 2
    assert "training.best_by=pesq: no PESQ" in capsys.readouterr().err


def tensorboard_tags(folder: Path) -> dict[str, set[str]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return {kind: set(events.Tags()[kind]) for kind in ("scalars", "audio", "images")}


def test_training_lowers_the_loss(tmp_path: Path, corpus: Path) -> None:
    recipe = write_recipe(tmp_path / "r.yaml", corpus, vocoder="wavenet")
    assert train(recipe, tmp_path / "run", "training.steps=30", "training.learning_rate=0.01") == 0
    bits = [row["bits_per_sample"] for row in rows(tmp_path / "run", "train")]
    assert bits[0] == pytest.approx(8, abs=0.5)  # an untrained model of 256 classes knows nothing
    assert bits[-1] < bits[0] - 0.5


@pytest.mark.parametrize("vocoder", sorted(VOCODERS))
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(tmp_path: Path, corpus: Path, vocoder: str) -> None:
    recipe = write_recipe(tmp_path / "r.yaml", corpus, vocoder=vocoder)
    constant = "training.decay=constant"  # the only thing that depends on the last step is the decay
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


@pytest.mark.parametrize("vocoder", sorted(VOCODERS))
def test_two_processes_take_the_steps_of_one(tmp_path: Path, corpus: Path, vocoder: str) -> None:
    recipe = write_recipe(tmp_path / "r.yaml", corpus, vocoder=vocoder)
    assert train(recipe, tmp_path / "one") == 0
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2",
        "-m", "wavegen.commands.train", str(recipe), "--out", str(tmp_path / "two"), "--device", "cpu",
    ]  # fmt: skip
    result = subprocess.run(
        command, env={**os.environ, "OMP_NUM_THREADS": "1"}, text=True, capture_output=True, timeout=300, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    for kind in ("train", "valid"):
        one, two = (np.array([row["loss"] for row in rows(tmp_path / run, kind)]) for run in ("one", "two"))
        # Rounding, which Adam's first steps and Griffin-Lim amplify; other segments would show from the first step.
        np.testing.assert_allclose(two[:2], one[:2], rtol=1e-4 if kind == "train" else 1e-2)
        np.testing.assert_allclose(two, one, rtol=2e-2)
    # A sum where a mean belongs would leave Adam's steps as they are, but not the gradient's norm.
    norms = [rows(tmp_path / run, "train")[0]["gradient_norm"] for run in ("one", "two")]
    assert norms[0] == pytest.approx(norms[1], rel=1e-4)
    assert rows(tmp_path / "one", "train") != rows(tmp_path / "two", "train")  # sums in another order: it was shared
    assert result.stdout.count("training ") == 1  # one voice


def test_a_batch_that_processes_cannot_share_is_refused(tmp_path: Path, corpus: Path) -> None:
    recipe = write_recipe(tmp_path / "r.yaml", corpus)
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2",
        "-m", "wavegen.commands.train", str(recipe), "--out", str(tmp_path / "two"), "training.batch_size=3",
    ]  # fmt: skip
    result = subprocess.run(command, text=True, capture_output=True, timeout=300, check=False)
    assert result.returncode != 0
    assert "training.batch_size 3 cannot be shared by 2 processes; give a multiple of it" in result.stderr


def test_a_changed_recipe_is_not_mixed_into_a_run(
    tmp_path: Path, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, out = write_recipe(tmp_path / "r.yaml", corpus), tmp_path / "run"
    assert train(recipe, out, "training.steps=2") == 0
    capsys.readouterr()
    assert train(recipe, out, "training.steps=2", "training.learning_rate=0.5") == 2
    assert capsys.readouterr().err == (
        f"wavegen-train: error: {out}: this run was begun with other settings "
        "(training.learning_rate: 0.002 -> 0.5); give another --out, or take the change back\n"
    )
    assert train(recipe, out, "training.steps=2", "training.log_every=5") == 0  # how it is watched may change


def test_the_resolved_recipe_alone_reproduces_the_run(tmp_path: Path, corpus: Path) -> None:
    recipe = write_recipe(tmp_path / "r.yaml", corpus)
    assert train(recipe, tmp_path / "first", "training.steps=2", "seed=3") == 0
    recipe.unlink()
    assert train(tmp_path / "first" / "recipe.yaml", tmp_path / "second") == 0
    last = "checkpoints/step-00000002.safetensors"
    assert_same_checkpoint(tmp_path / "first" / last, tmp_path / "second" / last)


def test_a_file_in_the_place_of_the_run_is_named(
    tmp_path: Path, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run").touch()
    assert train(write_recipe(tmp_path / "r.yaml", corpus), tmp_path / "run") == 2
    assert capsys.readouterr().err == f"wavegen-train: error: {tmp_path / 'run'}: is a file; give a folder\n"


@pytest.mark.parametrize("vocoder", sorted(VOCODERS))
def test_a_held_back_clip_of_a_few_samples_is_validated(tmp_path: Path, vocoder: str) -> None:
    corpus = write_corpus(tmp_path / "corpus")
    soundfile.write(corpus / "a0.wav", voice(400 / RATE), RATE)
    assert train(write_recipe(tmp_path / "r.yaml", corpus, vocoder=vocoder), tmp_path / "run") == 0
    assert [row["step"] for row in rows(tmp_path / "run", "valid")] == [4, 8]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU")
@pytest.mark.filterwarnings("ignore")  # of the compiler's own
@pytest.mark.parametrize("vocoder", sorted(VOCODERS))
def test_a_compiled_run_takes_the_steps_of_an_uncompiled_one(tmp_path: Path, corpus: Path, vocoder: str) -> None:
    recipe = write_recipe(tmp_path / "r.yaml", corpus, vocoder=vocoder)
    for compiled in ("true", "false"):
        assert train(recipe, tmp_path / compiled, "training.steps=2", f"training.compile={compiled}") == 0
    assert torch._dynamo.utils.counters["frames"]["ok"] > 0  # something was compiled
    a, b = (np.array([row["loss"] for row in rows(tmp_path / name, "train")]) for name in ("true", "false"))
    np.testing.assert_allclose(a, b, rtol=1e-3)


def test_bfloat16_trains_close_to_float32(tmp_path: Path, corpus: Path) -> None:
    recipe = write_recipe(tmp_path / "r.yaml", corpus)
    for precision in ("float32", "bfloat16"):
        assert train(recipe, tmp_path / precision, f"training.precision={precision}") == 0
    single, half = (rows(tmp_path / p, "train")[-1]["loss"] for p in ("float32", "bfloat16"))
    assert half == pytest.approx(single, rel=0.05)
    assert half != single


def test_the_learning_rate_warms_up_and_decays() -> None:
    config = TrainingConfig(steps=1000, learning_rate=1e-2, warmup_steps=10, final_learning_rate=0.01)
    rates = [learning_rate(config, step) for step in range(1001)]
    assert rates[0] == pytest.approx(1e-3)
    assert max(rates) == pytest.approx(1e-2, rel=1e-3)
    assert rates[1000] == pytest.approx(1e-4)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    flat = TrainingConfig(steps=1000, learning_rate=1e-2, warmup_steps=10, decay="constant")
    assert learning_rate(flat, 999) == 1e-2


def test_a_run_without_held_back_clips_is_refused(tmp_path: Path, corpus: Path) -> None:
    from wavegen.training.loop import train as loop

    vocoder = new_vocoder("spectral", MEL, channels=8, layers=1)
    with pytest.raises(ConfigError, match=r"data\.held_out: 0 clips to train on and 0 held back"):
        loop(
            vocoder, [], TrainingConfig(steps=1), RunFolder(tmp_path, {}, {}),
            seed=0, device=torch.device("cpu"), say=print,
        )  # fmt: skip


@pytest.mark.gpu
@pytest.mark.parametrize("vocoder", sorted(VOCODERS))
def test_resuming_on_a_gpu_is_bit_for_bit_too(tmp_path: Path, corpus: Path, gpu: torch.device, vocoder: str) -> None:
    recipe = write_recipe(tmp_path / "r.yaml", corpus, vocoder=vocoder)
    # Graphs are recorded after 3 steps: what a resumed run computes kernel by kernel, the whole one replays.
    for name, steps, graphs in (("whole", 8, True), ("parts", 4, True), ("parts", 8, True), ("eager", 8, False)):
        settings = ["training.decay=constant", f"training.steps={steps}", "training.listen_clips=1"]
        settings.append(f"training.cuda_graphs={graphs}".lower())
        assert main([str(recipe), "--out", str(tmp_path / name), "--device", "cuda", *settings]) == 0
    last = "checkpoints/step-00000008.safetensors"
    for name in ("parts", "eager"):
        assert_same_checkpoint(tmp_path / "whole" / last, tmp_path / name / last)


def test_averaged_weights_follow_at_the_decay(tmp_path: Path) -> None:
    state = TrainingState(new_vocoder("spectral", MEL, channels=4, layers=1), TrainingConfig(steps=1, ema_decay=0.9))
    before = state.average.output_norm.weight.clone()
    with torch.no_grad():
        state.vocoder.output_norm.weight.add_(1)
    state.step = 10_000  # past the quick start
    state.update_average()
    torch.testing.assert_close(state.average.output_norm.weight, before + 0.1)


def test_bfloat16_is_left_to_vocoders_that_bear_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A parallel WaveNet's samples would have 8 bits. Whoever asks for bfloat16 gets it."""
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    gpu, cpu = torch.device("cuda"), torch.device("cpu")
    auto, asked = TrainingConfig(steps=1), TrainingConfig(steps=1, precision="bfloat16")
    with torch.device("meta"):
        vocoders = {name: kind(MEL) for name, kind in VOCODERS.items()}
    chosen = {name: uses_bfloat16(auto, vocoder, gpu) for name, vocoder in vocoders.items()}
    assert chosen == {"parallel": False, "spectral": True, "wavenet": True}
    assert not any(uses_bfloat16(auto, vocoder, cpu) for vocoder in vocoders.values())
    assert all(uses_bfloat16(asked, vocoder, gpu) for vocoder in vocoders.values())
