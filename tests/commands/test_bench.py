"""``wavegen-bench``: what it measures, prints and writes."""

import datetime
import importlib.util
import json
from pathlib import Path

import pytest
from support.messages import Messages
from support.vocoders import write_model

from wavegen import benchmark, cores
from wavegen.benchmark import REFERENCE, Row, Run, Setting, choose_settings, open_model, summarize, table, to_json
from wavegen.commands import bench
from wavegen.errors import ConfigError
from wavegen.vocoders import VOCODERS
from wavegen.vocoders.wavenet import WaveNet

KEYS = [
    "model", "engine", "precision", "threads", "batch", "samples_per_s", "x_realtime", "x_reference",
    "first_audio_ms", "peak_mb", "startup_s",
]  # fmt: skip


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_run_is_measured_with_every_engine(capsys: pytest.CaptureFixture[str]) -> None:
    """This test starts the processes and waits for their measurements."""
    write_model(Path("runs/mine/model.safetensors"), "wavenet")
    options = ["--precision", "float32", "--runs", "1", "--batch", "9", "--threads", "2", "--json", "speed.json"]
    assert bench.main(options) == 0
    card = json.loads(Path("speed.json").read_text())
    rows = card["rows"]
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


@pytest.mark.parametrize("installed", [True, False])
def test_peers_are_measured_in_the_same_run(
    installed: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Vocos by a package of that name; without one it is left out and a line says so."""
    if installed:
        package = Path("vocos")
        package.mkdir()
        (package / "__init__.py").touch()
        (package / "models.py").write_text(
            "from torch.nn import Identity\nVocosBackbone = lambda **shape: Identity()\n"
        )
        (package / "heads.py").write_text("from torch.nn import Identity\nISTFTHead = lambda **shape: Identity()\n")
        monkeypatch.syspath_prepend(Path.cwd())
    elif importlib.util.find_spec("vocos"):
        pytest.skip("vocos is installed")
    monkeypatch.setattr(benchmark, "RUN_S", 0.05)
    model = str(write_model(Path("model.safetensors"), "source-filter"))
    assert bench.main([model, "--engine", "torch", "--peers", "--runs", "1", "--json", "speed.json"]) == 0
    rows = json.loads(Path("speed.json").read_text())["rows"]
    assert [row["engine"] for row in rows] == ["torch", *["vocos"] * installed, "griffin-lim"]
    assert all(row["x_realtime"] > 0 for row in rows)
    assert ("vocos float32 left out: vocos: the package vocos is missing" in capsys.readouterr().err) != installed


def test_the_table_has_a_row_for_each_setting() -> None:
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
    assert [Row(**row) for row in json.loads(to_json(rows))["rows"]] == rows


def test_a_card_names_what_its_figures_depend_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cpuinfo").write_text("processor : 0\nmodel name\t: Some CPU @ 2.60GHz\n")
    monkeypatch.setattr(cores, "CPU_INFO", tmp_path / "cpuinfo")
    card = json.loads(to_json([]))
    assert card["processor"] == "Some CPU @ 2.60GHz"
    assert {"python", "wavegen", "torch", "numpy", "numba"} <= set(card["versions"])
    age = datetime.datetime.now(datetime.timezone.utc) - datetime.datetime.fromisoformat(card["date"])
    assert datetime.timedelta(seconds=-1) <= age < datetime.timedelta(minutes=1)
    monkeypatch.setattr(cores, "CPU_INFO", tmp_path / "none")
    assert json.loads(to_json([]))["processor"]


def test_a_model_is_opened_by_name_by_recipe_or_by_file() -> None:
    large = open_model("wavenet-large")
    assert isinstance(large, WaveNet)
    assert len(large.stack.blocks) == 30
    assert large.stack.blocks[0].conv.weight.shape == (256, 128, 2)
    assert open_model("demo").mel.sample_rate_hz == 24000
    assert open_model(str(write_model(Path("model.safetensors")))).mel.sample_rate_hz == 8000


@pytest.mark.parametrize("vocoder", VOCODERS)
def test_every_engine_and_precision_of_a_vocoder_is_measured(vocoder: str) -> None:
    model = str(write_model(Path("model.safetensors"), vocoder))
    settings = choose_settings(model)
    measured = [(setting.engine, setting.precision) for setting in settings if setting.batch == 1]
    assert measured == [(engine, weights) for engine, all_of in VOCODERS[vocoder].engines.items() for weights in all_of]
    assert all(setting.threads == 1 for setting in settings)


def test_settings_can_be_restricted() -> None:
    assert choose_settings("wavenet-small", precision="int16") == [
        Setting("numba", "int16", batch=1),
        Setting("numba", "int16", batch=16),
    ]
    assert choose_settings("wavenet-small", engine="torch") == [REFERENCE]
    assert choose_settings("wavenet-small", engine="numba", precision="float32", batch=3, threads=2) == [
        Setting("numba", "float32", threads=2, batch=3)
    ]


def test_an_engine_or_precision_that_the_vocoder_lacks_is_refused(messages: Messages) -> None:
    for wanted in (
        {"engine": "cuda"},
        {"precision": "int16"},
        {"engine": "torch", "precision": "int16"},
    ):
        with messages.refused(ConfigError):
            choose_settings("demo", **wanted)


def test_a_row_has_the_median_of_the_speeds_and_the_last_peak_of_memory() -> None:
    runs = [Run(48000, 0.010, 500.0), Run(10, 0.002, 550.0), Run(1e9, 0.030, 600.0)]
    row = summarize("m", Setting("numba", "int16", 2, 4), runs, sample_rate_hz=24000, startup_s=0.5)
    assert (row.samples_per_s, row.x_realtime, row.startup_s, row.peak_mb) == (48000, 2.0, 0.5, 600.0)
    assert row.first_audio_ms == pytest.approx(10.0)


@pytest.mark.parametrize(
    "arguments",
    [["wavenet-tiny"], ["demo", "--engine", "tiled"], ["."], ["wavenet-small", "--json", "file/folder/speed.json"]],
    ids=" ".join,
)
def test_a_mistake_is_reported_in_one_line(
    arguments: list[str], messages: Messages, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("file").touch()
    monkeypatch.setattr(benchmark, "measure", lambda *_, **__: [Row("m", "torch", "float32", 1, 1, 1, 1, 1, 1, 1, 1)])
    assert bench.main(arguments) == 2
    out, err = capsys.readouterr()
    assert err.count("\n") == 1
    assert out == ""
    messages.check(err)


@pytest.mark.parametrize("option", ["--runs", "--batch", "--threads"])
def test_an_option_that_counts_must_be_at_least_one(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        bench.main([option, "0"])
    assert f"argument {option}: must be at least 1" in capsys.readouterr().err
