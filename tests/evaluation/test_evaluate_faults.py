"""Outputs with faults, and files without a score: an empty cell with the reason in its place."""

import math
import os
import subprocess
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from support.evaluations import RATE, rows, run, summary, write, write_clips

from wavegen.evaluation.metrics import available

pytestmark = pytest.mark.usefixtures("folder")


def test_a_clip_without_an_output_has_an_empty_row() -> None:
    write_clips("a", "b", seconds=0.6)
    Path("noisy/b.wav").unlink()
    Path("other").mkdir()
    for name in "ab":
        Path(f"other/{name}.wav").write_bytes(Path(f"real/{name}.wav").read_bytes())
    assert run("real", "noisy", "other") == 0
    found = {(row["clip"], row["system"]): row for row in rows()}
    assert set(found) == {(clip, system) for clip in "ab" for system in ("noisy", "other")}
    assert found["b", "noisy"]["notes"] == "no output"
    assert {found["b", "noisy"][key] for key in available()} == {""}


def test_an_output_with_nan_loses_only_its_own_scores() -> None:
    write_clips("a", "b")
    broken, _ = soundfile.read("noisy/a.wav")
    broken[100] = math.nan
    soundfile.write("noisy/a.wav", broken, RATE, subtype="FLOAT")
    assert run("real", "noisy") == 0
    a, b = rows()
    assert {a[key] for key in available()} == {""}
    assert "NaN or infinite samples" in a["notes"]
    assert all(b[key] for key in ("stoi", "log_mel"))


def test_clipping_is_not_defined_for_resampled_clips() -> None:
    write_clips("a", rate=24000)
    samples, _ = soundfile.read("real/a.wav")
    write("other/a.wav", np.repeat(samples, 2), 48000)
    assert run("real", "other") == 0
    (row,) = rows()
    assert row["clipping"] == ""
    assert "no clipping: resampled" in row["notes"]
    assert run("real", "noisy") == 0
    assert rows()[0]["clipping"] == "0"


def test_names_pair_in_any_encoding_of_accents() -> None:
    write_clips("a")
    for place, form in (("real", "NFC"), ("noisy", "NFD")):
        Path(place, "a.wav").rename(Path(place, unicodedata.normalize(form, "café") + ".wav"))
    assert run("real", "noisy") == 0
    assert rows()[0]["clip"] == unicodedata.normalize("NFC", "café")


def test_scores_are_finite_numbers() -> None:
    write_clips("a")
    assert run("real", "noisy") == 0
    assert all(math.isfinite(float(row[key])) for row in rows() for key in available() if row[key])


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: os.truncate(path, 5000),
        lambda path: os.truncate(path, 0),
        lambda path: path.write_text("error 500"),
        lambda path: soundfile.write(path, np.zeros(0), RATE),
    ],
    ids=["cut", "empty", "text", "no samples"],
)
def test_an_output_that_cannot_be_read_has_an_empty_row_with_the_reason(spoil: Callable[[Path], object]) -> None:
    write_clips("a", "b")
    spoil(Path("noisy/b.wav"))
    assert run("real", "noisy") == 0
    good, bad = rows()
    assert good["stoi"]
    assert not any(bad[key] for key in available())
    assert bad["notes"].startswith("no ")
    assert ": " in bad["notes"]
    assert summary()["systems"]["noisy"]["stoi"]["count"] == 1


@pytest.mark.parametrize("level", [0.0, 1e-5])
def test_a_silent_recording_is_named_and_left_out_of_the_means(level: float) -> None:
    """M-STFT divides by the recording: 1e-5 of noise once gave 647."""
    write_clips("a", "b")
    quiet = level * np.random.default_rng(0).standard_normal(RATE)
    soundfile.write("real/b.wav", quiet, RATE, subtype="FLOAT")
    assert run("real", "noisy") == 0
    good, silent = rows()
    assert good["m_stft"]
    assert silent["m_stft"] == silent["mcd"] == ""
    assert "the reference is silence" in silent["notes"]
    assert summary()["systems"]["noisy"]["m_stft"]["count"] == 1
    assert summary()["systems"]["noisy"]["m_stft"]["mean"] < 10


def test_a_script_without_a_main_guard_evaluates() -> None:
    """Spawned processes run the main module again, unless they are told not to."""
    Path("script.py").write_text(
        "from wavegen.evaluation.scoring import Workers\n"
        "print('begun')\n"
        "with Workers(2, progress=False) as workers:\n"
        "    print(workers.map(len, ['a', 'bc'], title='counting'))\n"
    )
    done = subprocess.run([sys.executable, "script.py"], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "begun\n[1, 2]\n", "")
