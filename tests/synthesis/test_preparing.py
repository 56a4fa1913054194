"""Mel files found and checked, and the engine that waits for a compiler or not."""

from pathlib import Path

import numpy as np
import pytest
import torch
from support.messages import Messages
from support.ready_vocoders import ready
from support.vocoders import SPEC, tiny_mel, tiny_vocoder

from wavegen.engines import choice
from wavegen.engines.spectral.functions import FUNCTIONS
from wavegen.errors import MelError
from wavegen.mel import MelFile, profile, save_mel
from wavegen.source import compiled
from wavegen.synthesis import (
    compiling_if_it_pays,
    open_mels,
    prepare,
    preparing,
    synthesize_files,
)


def test_a_bare_array_and_a_stated_one_are_the_same_mel(tmp_path: Path) -> None:
    vocoder, mel = ready("spectral-same"), tiny_mel(10)
    np.save(tmp_path / "a.npy", mel.astype(np.float64))
    save_mel(tmp_path / "b.npz", mel, SPEC)
    for name in ("a.npy", "b.npz"):
        (opened,) = open_mels(tmp_path / name)
        prepare(vocoder, [opened])
        np.testing.assert_array_equal(opened[:, :], mel)


def test_an_npz_under_the_name_npy_is_still_compared(tmp_path: Path) -> None:
    save_mel(tmp_path / "a.npz", tiny_mel(10), SPEC.replace(f_max_hz=3000))
    (tmp_path / "a.npz").rename(tmp_path / "a.npy")
    with pytest.raises(MelError, match=r"f_max_hz is 3000\.0, not 4000\.0"):
        prepare(ready("spectral-same"), open_mels(tmp_path / "a.npy"))


@pytest.mark.parametrize(("frames", "is_long"), [(10, False), (400, True)])
def test_only_a_long_job_waits_for_a_compiler(
    frames: int, is_long: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of ``FUNCTIONS`` nothing is on disk; the limits are set to the duration of a hundred frames."""
    monkeypatch.setattr(FUNCTIONS, "is_ready", lambda: False)
    monkeypatch.setattr(choice, "may_be_on_disk", lambda source: True)
    monkeypatch.setattr(compiled, "_is_ready", lambda: False)
    for limit in ("SOURCE_PAYS_FROM_S", "ENGINE_PAYS_FROM_S"):
        monkeypatch.setattr(preparing, limit, 100 * SPEC.hop_length / SPEC.sample_rate_hz)
    np.save(tmp_path / "a.npy", tiny_mel(frames))
    mels = open_mels(tmp_path)
    vocoder = tiny_vocoder("spectral")
    assert prepare(vocoder, mels).engine.startswith("numba" if is_long else "torch, because")
    with torch.no_grad(), compiling_if_it_pays(vocoder, mels):
        assert compiled.compiled_code_runs(torch.zeros(1)) == is_long


def test_a_long_job_that_cannot_be_compiled_is_computed_by_torch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preparing, "ENGINE_PAYS_FROM_S", 0.0)
    np.save(tmp_path / "a.npy", tiny_mel(10))
    vocoder = tiny_vocoder("spectral").double()
    assert prepare(vocoder, open_mels(tmp_path)).engine.startswith("torch, because")


def test_mels_are_found_in_order_and_hidden_ones_are_not(tmp_path: Path) -> None:
    for name in ("b/2.npy", "b/10.npz", "a.npy", "c.npz"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        save_mel(tmp_path / "new.npz", tiny_mel(3), SPEC)
        (tmp_path / "new.npz").rename(tmp_path / name)
    for name in ("c.txt", "b/.half.7.part.npz", "manifest.tsv"):
        (tmp_path / name).touch()
    assert [mel.path.relative_to(tmp_path).as_posix() for mel in open_mels(tmp_path)] == [
        "a.npy", "b/10.npz", "b/2.npy", "c.npz",
    ]  # fmt: skip


def test_two_mels_whose_names_differ_in_the_suffix_only_are_refused(tmp_path: Path, messages: Messages) -> None:
    for name in ("sub/a.npy", "sub/a.npy.npz", "sub/a.npz", "a.npz"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        save_mel(tmp_path / "new.npz", tiny_mel(3), SPEC)
        (tmp_path / "new.npz").rename(tmp_path / name)
    with messages.refused(MelError):
        open_mels(tmp_path)
    (tmp_path / "sub" / "a.npy").unlink()
    assert len(open_mels(tmp_path)) == 3  # the same name in two folders is fine


def test_a_path_without_mels_is_refused(tmp_path: Path, messages: Messages) -> None:
    (tmp_path / "a.wav").touch()
    for path in (tmp_path, tmp_path / "a.wav", tmp_path / "b.npz"):
        with messages.refused(MelError):
            open_mels(path)


def test_mels_of_two_definitions_are_refused_by_a_model_that_reads_both(tmp_path: Path, messages: Messages) -> None:
    definitions = {"a.npz": profile("bigvgan-24k"), "b.npz": profile("vocos-24k")}
    for name, spec in definitions.items():
        save_mel(tmp_path / name, tiny_mel(8, spec=spec), spec)
    vocoder = tiny_vocoder("spectral", spec=profile("bigvgan-24k"), any_mel=True)
    for name, spec in definitions.items():
        assert prepare(vocoder, open_mels(tmp_path / name)).vocoder.mel == spec
    with messages.refused(MelError):
        prepare(vocoder, open_mels(tmp_path))


def test_each_mel_file_is_opened_and_checked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b"):
        save_mel(tmp_path / f"{name}.npz", tiny_mel(8), SPEC)
    opened, checked = [], []
    real_open, real_check = preparing.open_mel, MelFile.check
    monkeypatch.setattr(preparing, "open_mel", lambda path: opened.append(path.name) or real_open(path))
    monkeypatch.setattr(MelFile, "check", lambda mel, spec: checked.append(mel.path.name) or real_check(mel, spec))
    mels = open_mels(tmp_path)
    vocoder = prepare(ready("spectral-same"), mels).vocoder
    synthesize_files(vocoder, [(mel, mel.path.with_suffix(".wav")) for mel in mels])
    assert opened == checked == ["a.npz", "b.npz"]
