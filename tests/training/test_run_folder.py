"""The run folder: what it refuses, and files that are damaged, half-written or too large for the disk."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from support.corpus import write_corpus, write_recipe
from support.messages import Messages
from support.runs import checkpoint, rows, train

from wavegen.checkpoint import load_checkpoint, read_header, save_checkpoint
from wavegen.training import run_folder


@pytest.mark.parametrize("part", ["vocoder", "mel", "speakers"])
def test_a_checkpoint_of_another_model_is_refused(
    part: str, recipe: Path, tmp_path: Path, messages: Messages, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert train(recipe, out, "training.steps=2") == 0
    path = checkpoint(out, 2)
    tensors, header = load_checkpoint(path)
    change: dict[str, Any] = {"vocoder": {"channels": 12}, "mel": {"log": "log10"}, "speakers": ["ann"]}[part]  # type: ignore[assignment]
    header[part] = header[part] | change if isinstance(change, dict) else change
    save_checkpoint(path, tensors, header)
    capsys.readouterr()
    assert train(recipe, out) == 2
    messages.check(capsys.readouterr().err)


def test_a_checkpoint_without_a_setting_of_today_has_its_default(recipe: Path, tmp_path: Path) -> None:
    """Files of older versions lack newer settings, and files of newer versions may have unknown ones."""
    out = tmp_path / "run"
    assert train(recipe, out, "training.steps=2") == 0
    path = checkpoint(out, 2)
    tensors, header = load_checkpoint(path)
    del header["vocoder"]["any_mel"]
    header["vocoder"]["of_tomorrow"] = 1
    save_checkpoint(path, tensors, header)
    assert train(recipe, out) == 0


def test_a_changed_recipe_is_not_mixed_into_a_run(
    tmp_path: Path, recipe: Path, messages: Messages, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert train(recipe, out, "training.steps=2") == 0
    capsys.readouterr()
    assert train(recipe, out, "training.steps=2", "training.learning_rate=0.5") == 2
    messages.check(capsys.readouterr().err)
    assert train(recipe, out, "training.steps=2", "training.log_every=5") == 0


def test_discriminators_cannot_be_added_to_a_run_that_began_without(
    tmp_path: Path, recipe: Path, messages: Messages, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = ("training.steps=2", "training.segment_frames=20")
    assert train(recipe, tmp_path / "run", *settings) == 0
    capsys.readouterr()
    assert train(recipe, tmp_path / "run", *settings, "training.adversarial={}") == 2
    messages.check(capsys.readouterr().err)


def test_a_file_in_the_place_of_the_run_is_named(
    tmp_path: Path, recipe: Path, messages: Messages, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run").touch()
    assert train(recipe, tmp_path / "run") == 2
    messages.check(capsys.readouterr().err)


def test_a_full_disk_while_saving_keeps_the_checkpoint_before(
    tmp_path: Path, recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert train(recipe, out, "training.steps=4") == 0
    (out / "model.safetensors").unlink()
    original = Path.write_bytes

    def full(path: Path, data: bytes) -> int:
        if path.suffix == ".safetensors":
            original(path, data[: len(data) // 2])
            raise OSError(28, "No space left on device")
        return original(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        assert train(recipe, out) == 2
    assert "No space left on device" in capsys.readouterr().err
    assert not list(out.rglob("*.part*"))
    assert train(recipe, out) == 0


def test_a_kill_between_the_two_files_of_a_best_checkpoint_loses_neither(
    tmp_path: Path, recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    saved: list[str] = []
    original = run_folder.save_checkpoint

    def killed(path: Path, *arguments: Any) -> None:
        saved.append(path.name)
        if len(saved) > 1 and saved[-2] == "best.safetensors":
            raise KeyboardInterrupt
        original(path, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(run_folder, "save_checkpoint", killed)
        assert train(recipe, out) == 130
    assert "best.safetensors" in saved
    assert train(recipe, out) == 0
    assert load_checkpoint(out / "checkpoints/best.safetensors")[1]["best"] is not None


def test_a_half_written_log_does_not_stop_a_resume(tmp_path: Path, recipe: Path) -> None:
    out = tmp_path / "run"
    assert train(recipe, out, "training.steps=4") == 0
    with open(out / "log.jsonl", "a") as log:
        log.write('{"step": 5, "ki')
    assert train(recipe, out) == 0
    assert [row["step"] for row in rows(out, "train")] == list(range(1, 9))


def test_a_log_without_a_checkpoint_is_emptied(tmp_path: Path, recipe: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "log.jsonl").write_text('{"step": 3, "kind": "train"}\n')
    assert train(recipe, run) == 0
    assert [row["step"] for row in rows(run, "train")] == list(range(1, 9))


def test_a_damaged_model_is_written_again(tmp_path: Path, recipe: Path) -> None:
    model = tmp_path / "run" / "model.safetensors"
    assert train(recipe, tmp_path / "run", "training.steps=2") == 0
    whole = {name: tensor.clone() for name, tensor in load_checkpoint(model)[0].items()}  # not mapped from the file
    model.write_bytes(model.read_bytes()[:1000])
    assert train(recipe, tmp_path / "run", "training.steps=2") == 0
    again, _ = load_checkpoint(model)
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def test_equal_runs_write_equal_files_which_name_no_folder(tmp_path: Path, corpus: Path) -> None:
    moved = shutil.copytree(corpus, tmp_path / "elsewhere")
    for name, place in (("one", corpus), ("two", moved)):
        recipe = write_recipe(tmp_path / "r.yaml", place)
        assert train(recipe, tmp_path / name, "training.steps=4", f"data.features={tmp_path}/features-{name}") == 0
    for name in ("model.safetensors", "checkpoints/step-00000004.safetensors", "checkpoints/best.safetensors"):
        one, two = (tmp_path / run / name for run in ("one", "two"))
        assert one.read_bytes() == two.read_bytes()
        assert b"/" + tmp_path.parts[1].encode() not in one.read_bytes()
        assert read_header(one)["recipe"]["data"]["corpus"] is None
        assert read_header(one)["recipe"]["data"]["held_out"] == "a[01]"


def test_recordings_with_the_longest_names_are_trained_and_sampled(tmp_path: Path) -> None:
    """Longer names of what is derived from them once failed after hours of training."""
    corpus = write_corpus(tmp_path / "corpus", clips=3)
    for path in corpus.iterdir():
        path.rename(path.with_name(path.stem + "あ" * 83 + path.suffix))
    recipe = write_recipe(tmp_path / "r.yaml", corpus)
    settings = ("training.steps=2", "samples.clips=1", "data.held_out=a0*", "training.listen_clips=1")
    assert train(recipe, tmp_path / "run", *settings) == 0
    assert len(list((tmp_path / "run/samples").glob("a0*.wav"))) >= 3
