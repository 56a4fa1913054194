"""``wavegen-inpaint``: what it fills, what it leaves bit for bit, and one line for every mistake."""

import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from support.corpus import voice
from support.messages import Messages

from wavegen.checkpoint import network_header, save_checkpoint
from wavegen.commands.inpaint import main
from wavegen.mel import profile
from wavegen.models.inpainter import Inpainter, InpainterConfig

RATE = 24000
MEL = profile("bigvgan-24k")
pytestmark = pytest.mark.usefixtures("alone")


@pytest.fixture
def model() -> Path:
    """A run's model file with random weights, the newest run here."""
    return write_inpainter(Path("runs/mine/model.safetensors"), InpainterConfig.examples()[0])


@pytest.fixture
def causal() -> Path:
    """As ``model``, of a causal inpainter that looks two frames ahead."""
    return write_inpainter(Path("runs/causal/model.safetensors"), InpainterConfig.examples()[2])


def write_inpainter(path: Path, config: InpainterConfig) -> Path:
    torch.manual_seed(0)
    weights = {f"ema.{name}": tensor for name, tensor in Inpainter(MEL, config).state_dict().items()}
    save_checkpoint(path, weights, network_header(config, MEL) | {"kind": "model", "step": 1})
    return path


def write(path: str, samples: np.ndarray, rate: int = RATE, subtype: str = "PCM_16") -> np.ndarray:
    soundfile.write(path, samples, rate, subtype=subtype)
    return soundfile.read(path, dtype="int32" if subtype.startswith("PCM") else "float64")[0]


def inpaint(*arguments: str) -> int:
    return main([*arguments, "--iterations", "1"])


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT"])
@pytest.mark.parametrize("rate", [24000, 16000])
def test_samples_outside_holes_stay_bit_for_bit(model: Path, subtype: str, rate: int) -> None:
    damaged = voice(1.0, rate=rate)
    damaged[rate // 4 : rate // 4 + rate // 20] = 0
    before = write("a.wav", damaged, rate, subtype)
    assert inpaint("a.wav", "b.wav", "--holes", "0.25-0.30,0.7-0.701") == 0
    after = soundfile.read("b.wav", dtype=before.dtype.name)[0]
    assert soundfile.info("b.wav").subtype == subtype
    hole = np.zeros(len(before), dtype=bool)
    hole[rate // 4 : rate // 4 + rate // 20] = hole[round(0.7 * rate) : round(0.701 * rate)] = True
    assert np.array_equal(before[~hole], after[~hole])
    inside = after[rate // 4 : rate // 4 + rate // 20]
    assert (inside != 0).mean() > 0.9


def test_holes_are_found_in_each_channel(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    channels = np.stack((voice(0.8), voice(0.8, seed=1)), axis=1)
    channels[6000:7000, 1] = 0
    before = write("a.flac", channels)
    assert inpaint("a.flac", "b.flac", "--detect") == 0
    assert capsys.readouterr().out == "b.flac: 1 holes filled, 42 ms\n"
    after = soundfile.read("b.flac", dtype="int32")[0]
    assert np.array_equal(before[:, 0], after[:, 0])
    changed = np.flatnonzero(before[:, 1] != after[:, 1])
    assert 6000 <= changed.min() < changed.max() < 7000


def test_a_file_of_holes_is_read(model: Path) -> None:
    write("a.wav", voice(0.5))
    Path("holes.tsv").write_text("0.2\t0.25\n")
    assert inpaint("a.wav", "b.wav", "--holes", "holes.tsv") == 0


def test_a_missing_band_is_added_and_what_was_there_stays(model: Path) -> None:
    time = np.arange(RATE) / RATE
    damaged = 0.3 * np.sin(2 * np.pi * 500 * time)
    write("a.wav", damaged, subtype="FLOAT")
    assert inpaint("a.wav", "b.wav", "--above", "4000") == 0
    spectrum = np.abs(np.fft.rfft(soundfile.read("b.wav")[0] - damaged))
    assert spectrum[:3500].max() < 0.02 * spectrum[4500:].max()  # the bins are 1 Hz apart


def test_a_recording_is_repaired_as_a_stream(causal: Path, capsys: pytest.CaptureFixture[str]) -> None:
    channels = np.stack((voice(0.6), voice(0.6, seed=1)), axis=1)
    before = write("a.wav", channels)
    assert main(["a.wav", "b.wav", "--holes", "0.2-0.25,0.4-0.41", "--live"]) == 0
    after = soundfile.read("b.wav", dtype="int32")[0]
    hole = np.zeros(len(before), dtype=bool)
    hole[4800:6000] = hole[9600:9840] = True
    assert np.array_equal(before[~hole], after[~hole])
    assert (before[hole] != after[hole]).mean() > 0.9
    printed = re.match(
        r"b\.wav: 4 holes filled, 120 ms; delay (\d+) ms, (\d+\.\d) ms of work per 10 ms\n", capsys.readouterr().out
    )
    assert printed
    assert int(printed[1]) == 109
    assert float(printed[2]) > 0


def test_iterations_of_the_vocoder_add_to_the_delay(causal: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write("a.wav", voice(0.1))
    delays = []
    for iterations in ("0", "1"):
        assert main(["a.wav", "b.wav", "--holes", "0.05-0.06", "--live", "--iterations", iterations]) == 0
        delays.append(int(capsys.readouterr().out.partition("delay ")[2].partition(" ms")[0]))
    assert delays[0] < delays[1]


@pytest.mark.parametrize(
    "arguments",
    [
        "a.wav b.wav --detect --live",
        "a.wav b.wav --above 4000 --live --model runs/causal",
        "slow.wav b.wav --detect --live --model runs/causal",
        "none.wav b.wav --detect",
        "a.wav b.mp3 --detect",
        "a.wav b.wav --holes 1.2",
        "a.wav b.wav --holes 9.0-9.1",
        "a.wav b.wav --holes none.tsv",
        "float.wav b.flac --detect",
        "a.wav b.wav --above 23000",
        "slow.wav b.wav --above 4000",
        "a.wav b.wav --detect --model default",
        "a.wav b.wav --detect --vocoder runs/mine",
        "ogg.ogg b.wav --detect",
    ],
)
def test_every_mistake_is_one_line(
    causal: Path, model: Path, arguments: str, messages: Messages, capsys: pytest.CaptureFixture[str]
) -> None:
    write("a.wav", voice(0.3))
    write("float.wav", voice(0.3), subtype="FLOAT")
    write("slow.wav", voice(0.3, rate=16000), 16000)
    soundfile.write("ogg.ogg", voice(0.3), RATE)
    assert inpaint(*arguments.split()) == 2
    messages.check(capsys.readouterr().err.rstrip())
    assert not list(Path().glob("b.*"))


def test_an_inpainter_that_is_missing_is_one_line(messages: Messages, capsys: pytest.CaptureFixture[str]) -> None:
    write("a.wav", voice(0.3))
    assert inpaint("a.wav", "b.wav", "--detect") == 2
    messages.check(capsys.readouterr().err.rstrip())
