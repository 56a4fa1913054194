"""The speed card: what it measures, prints and writes."""

import json
import math
from pathlib import Path

import pytest
from support.vocoders import write_model

from wavegen import benchmark
from wavegen.benchmark import REFERENCE, Row, Setting, default_settings, table, to_json
from wavegen.commands import bench
from wavegen.vocoders.wavenet import WaveNet

KEYS = [
    "model", "engine", "precision", "threads", "batch", "samples_per_s", "x_realtime", "x_reference",
    "first_audio_ms", "peak_mb", "startup_s",
]  # fmt: skip


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_card_of_a_run(capsys: pytest.CaptureFixture[str]) -> None:
    """For real, processes and all."""
    write_model(Path("runs/mine/model.safetensors"), "wavenet")
    options = ["--precision", "float32", "--runs", "1", "--batch", "9", "--threads", "2", "--json", "card.json"]
    assert bench.main(options) == 0
    rows = json.loads(Path("card.json").read_text())
    assert [list(row) for row in rows] == [KEYS] * 3
    settings = [(row["engine"], row["precision"], row["threads"], row["batch"]) for row in rows]
    assert settings == [("torch", "float32", 1, 1), ("torch", "float32", 2, 9), ("numba", "float32", 2, 9)]
    for row in rows:
        assert row["model"] == "runs/mine"
        assert row["x_realtime"] == pytest.approx(row["samples_per_s"] / 8000)
        assert row["x_reference"] == pytest.approx(row["samples_per_s"] / rows[0]["samples_per_s"])
        assert all(row[key] > 0 for key in KEYS[3:])
    assert rows[2]["x_reference"] > 2
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "runs/mine"
    assert len(printed) == 5


def test_a_table() -> None:
    rows = [
        Row("m", "torch", "float32", 1, 1, 1094.2, 0.0456, 1.0, 480.123, 561.9, 0.471),
        Row("m", "numba", "int16", 1, 16, 134_758.4, 5.615, 123.16, 9.87, None, 1.0),
    ]
    assert table(rows).splitlines() == [
        "m",
        "engine  precision  threads  batch  samples/s  x real time  x reference  first audio ms  peak MB  start-up s",
        " torch    float32        1      1      1,094         0.05          1.0           480.1      562        0.47",
        " numba      int16        1     16    134,758         5.62        123.2             9.9        -        1.00",
    ]
    assert [Row(**row) for row in json.loads(to_json(rows))] == rows


def test_models_by_name_recipe_or_file() -> None:
    large = benchmark._open("wavenet-large")
    assert isinstance(large, WaveNet)
    assert len(large.stack.blocks) == 30
    assert large.stack.blocks[0].conv.weight.shape == (256, 128, 2)
    assert benchmark._open("demo").mel.sample_rate_hz == 24000
    model = write_model(Path("model.safetensors"))
    assert benchmark._open(str(model)).mel.sample_rate_hz == 8000
    assert default_settings(str(model)) == [REFERENCE]
    assert Setting("numba", "int16", 1, 16) in default_settings("wavenet-small")


def test_speed_is_the_median_and_memory_the_last() -> None:
    worker = object.__new__(benchmark._Worker)
    worker.setting, worker.rate, worker.startup_s = Setting("numba", "int16", 2, 4), 24000, 0.5
    worker._speeds, worker._firsts, worker._peak_mb = [48000, 10, 1e9], [0.010, 0.002, 0.030], 600.0
    row = worker.row("m")
    assert (row.samples_per_s, row.x_realtime, row.startup_s, row.peak_mb) == (48000, 2.0, 0.5, 600.0)
    assert math.isclose(row.first_audio_ms, 10.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["wavenet-tiny"],
            "no such run, recipe or name: 'wavenet-tiny'; give a run's folder or one of wavenet-small, ",
        ),
        (["demo", "--engine", "numba"], "--engine: demo runs in plain torch alone; leave it out"),
        (["."], ".: a folder without a model or checkpoint; give a run folder"),
        (["wavenet-small", "--json", "card/there/card.json"], "cannot write: a file is where its folder should be"),
    ],
)
def test_a_mistake_is_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("card").touch()
    monkeypatch.setattr(benchmark, "measure", lambda *_, **__: [Row("m", "torch", "float32", 1, 1, 1, 1, 1, 1, 1, 1)])
    assert bench.main(arguments) == 2
    out, err = capsys.readouterr()
    assert message in err
    assert err.count("\n") == 1
    assert out == ""


def test_an_option_that_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    for options, complaint in (
        (["--runs", "0"], "--runs 0: give at least 1"),
        (["--engine", "torch", "--precision", "int16"], "--precision int16: the torch engine has float32 alone"),
    ):
        with pytest.raises(SystemExit, match="2"):
            bench.main(options)
        assert complaint in capsys.readouterr().err
