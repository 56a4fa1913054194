"""``wavegen-bench --parts``: every part of a chain is found, and the parts add up to the whole."""

import json
from pathlib import Path

import numba
import pytest
import torch
from support.messages import Messages
from support.vocoders import tiny_mel, tiny_vocoder, write_model

from wavegen import breakdown
from wavegen.benchmark import Setting
from wavegen.breakdown import (
    INVERSE,
    ITERATIONS,
    NETWORK,
    OUTPUT_LAYER,
    PARTS,
    PITCH,
    REST,
    SOURCE,
    SPECTRA,
    parts_table,
    summarize_parts,
    time_parts,
)
from wavegen.commands import bench
from wavegen.vocoders._sourced import SourcedVocoder

pytestmark = pytest.mark.usefixtures("alone", "one_thread")
CHAIN = [INVERSE, PITCH, SOURCE, SPECTRA, ITERATIONS, REST]
HAVE = {
    "spectral": [INVERSE, PITCH, SOURCE, NETWORK, OUTPUT_LAYER, SPECTRA, ITERATIONS, REST],
    "parallel": [INVERSE, PITCH, SOURCE, NETWORK, SPECTRA, ITERATIONS, REST],
    "source-filter": CHAIN,
}
ENGINES = [(name, engine) for name in HAVE for engine in ("torch", "tiled" if name == "parallel" else "numba")]


def with_engine(name: str, engine: str) -> SourcedVocoder:
    vocoder = tiny_vocoder(name, synthesis_iterations=2).prepared_for_synthesis()
    vocoder.use_engine(engine)
    assert isinstance(vocoder, SourcedVocoder)
    return vocoder


@pytest.mark.parametrize(("name", "engine"), ENGINES)
def test_every_part_is_timed_in_place_and_the_vocoder_stays_as_it_was(name: str, engine: str) -> None:
    vocoder, mel = with_engine(name, engine), torch.from_numpy(tiny_mel(20))[None]
    before = vocoder.synthesize(mel)
    attributes = [list(vars(layer)) for layer in vocoder.modules()]
    assert list(time_parts(vocoder, mel)) == HAVE[name]
    assert [list(vars(layer)) for layer in vocoder.modules()] == attributes
    assert torch.equal(vocoder.synthesize(mel), before)
    assert vocoder.synthesis_iterations == 2
    vocoder.synthesis_iterations = -vocoder.refinement_iterations
    assert list(time_parts(vocoder, mel)) == [part for part in HAVE[name] if part != ITERATIONS]


@pytest.mark.parametrize("engine", ["torch", "numba"])
def test_each_second_counts_for_the_innermost_part(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts that let a clock of the test advance; the real time is not looked at."""
    vocoder, now = with_engine("spectral", engine), 0.0
    monkeypatch.setattr(breakdown.time, "process_time", lambda: now)

    def takes(owner: object, name: str, seconds: float) -> None:
        function = getattr(owner, name)

        def slow(*arguments: object, **options: object) -> object:
            nonlocal now
            now += seconds
            return function(*arguments, **options)

        monkeypatch.setattr(owner, name, slow)

    with torch.no_grad():
        compiled = vocoder.compiled()
    takes(vocoder.stage.network, "pitch", 1.0)
    takes(vocoder.stage.network, "forward", 2.0)
    takes(vocoder.reduce, "forward", 16.0)
    takes(vocoder, "generate", 128.0)
    if compiled is None:
        takes(vocoder.stage.mel_inverse, "forward", 4.0)
        takes(vocoder.shaped, "whole", 8.0)
        takes(vocoder.stack, "forward", 32.0)
        takes(vocoder.corrections, "forward", 64.0)
        takes(vocoder.projection.istft, "analyse", 1.0)
        iterations = vocoder.iterations * 1.0
    else:
        takes(compiled, "invert", 4.0)
        takes(compiled.shaped, "whole", 8.0)
        takes(compiled, "stack", 32.0)
        takes(compiled, "output", 64.0)
        takes(compiled, "projection", 1.0)
        iterations = 0.0  # all of its time is that of a call
    assert time_parts(vocoder, torch.from_numpy(tiny_mel(20))[None]) == {
        INVERSE: 4.0,
        PITCH: 3.0,
        SOURCE: 8.0,
        NETWORK: 48.0,
        OUTPUT_LAYER: 64.0,
        SPECTRA: 1.0,
        ITERATIONS: iterations,
        REST: 128.0,
    }


def test_bench_shows_and_writes_the_parts_of_every_engine(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(breakdown, "RUN_S", 0.01)
    write_model(Path("runs/mine/model.safetensors"), "spectral", speakers=["ann", "bob"], speaker_channels=3)
    threads = torch.get_num_threads()
    assert bench.main(["--parts", "--runs", "1", "--json", "parts.json"]) == 0
    assert torch.get_num_threads() == threads
    card = json.loads(Path("parts.json").read_text())
    assert {"processor", "date", "versions", "parts"} <= set(card)
    shown = card["parts"]
    settings = [(one["model"], one["engine"], one["precision"]) for one in shown]
    engines = [("torch", "float32"), ("numba", "float32"), ("numba", "bfloat16"), ("numba", "int8")]
    assert settings == [("runs/mine", engine, precision) for engine, precision in engines]
    for one in shown:
        assert list(one["parts"]) == HAVE["spectral"]
        assert sum(part["share"] for part in one["parts"].values()) == pytest.approx(1)
        assert one["whole_ms_per_s"] > 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "runs/mine"
    assert [line.partition("  ")[0] for line in printed[2:]] == [*PARTS, "sum", "without clocks"]


def test_the_table_has_two_columns_for_each_setting() -> None:
    parts = [{PITCH: 0.002, REST: 0.006}, {PITCH: 0.004, REST: 0.012}, {PITCH: 0.003, REST: 0.0}]
    torch_s = summarize_parts("m", Setting("torch", "float32"), parts, [0.007, 0.008, 0.001], sound_s=2.0)
    numba_s = summarize_parts("m", Setting("numba", "float32"), [{SOURCE: 0.001, REST: 0.001}], [0.002], sound_s=2.0)
    assert parts_table([torch_s, numba_s]).splitlines() == [
        "m",
        "ms per second of sound                  torch float32   share  numba float32   share",
        "pitch                                            1.50   33.3%              -       -",
        "source: excitation, prediction, filter              -       -           0.50   50.0%",
        "the rest                                         3.00   66.7%           0.50   50.0%",
        "sum                                              4.50  100.0%           1.00  100.0%",
        "without clocks                                   3.50                   1.00",
    ]


def test_an_engine_that_does_not_work_is_left_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], messages: Messages
) -> None:
    monkeypatch.setattr(breakdown, "RUN_S", 0.01)
    monkeypatch.setattr(numba.config, "DISABLE_JIT", True)
    model = str(write_model(Path("model.safetensors"), "source-filter"))
    assert bench.main([model, "--parts", "--runs", "1"]) == 0
    out, err = capsys.readouterr()
    messages.check(next(line for line in err.splitlines() if "left out" in line))
    assert out.splitlines()[1].split() == ["ms", "per", "second", "of", "sound", "torch", "float32", "share"]
    assert bench.main([model, "--parts", "--engine", "numba"]) == 2
    messages.check(capsys.readouterr().err.splitlines()[-1])


@pytest.mark.parametrize("other", [["--threads", "2"], ["--batch", "1"], ["--peers"]], ids=" ".join)
def test_options_that_parts_do_not_have_are_refused(
    other: list[str], capsys: pytest.CaptureFixture[str], messages: Messages
) -> None:
    with pytest.raises(SystemExit, match="2"):
        bench.main(["demo", "--parts", *other])
    messages.check(capsys.readouterr().err.splitlines()[-1])


@pytest.mark.parametrize("name", ["wavenet", "vocos", "parallel-wavegan"])
def test_a_vocoder_without_these_parts_gets_one_line(
    name: str, capsys: pytest.CaptureFixture[str], messages: Messages
) -> None:
    model = str(write_model(Path("model.safetensors"), name))
    assert bench.main([model, "--parts"]) == 2
    out, err = capsys.readouterr()
    messages.check(err.splitlines()[-1])
    assert out == ""
