"""Model files that are damaged or forged: refused in one line, in little time and memory."""

import copy
import json
import random
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from support.messages import Messages
from support.mutants import Campaign, mutants
from support.vocoders import small_pitch_network, tiny_mel, write_model

from wavegen.checkpoint import load_checkpoint, load_state, load_vocoder, save_checkpoint, save_state
from wavegen.errors import CheckpointError, WavegenError

HOSTILE: tuple[Any, ...] = (
    None, True, "", "x" * 300, -1, 0, 1, 3, 10**9, 2**40, 2**63, 10**30, -0.5, 1e308, [], [[]], {}, [1, 2, 3],
    {"name": "spectral"}, ["a"] * 3,
)  # fmt: skip


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    with small_pitch_network():
        yield


def forge(path: Path, change: dict[str, Any], out: Path = Path("forged.safetensors")) -> Path:
    """A copy of a model file with some settings replaced by dotted names, and a checksum that is right."""
    tensors, header = load_checkpoint(path)
    del header["format"]
    for name, value in change.items():
        *sections, key = name.split(".")
        place = header
        for section in sections:
            place = place[section]
        place[key] = value
    save_checkpoint(out, tensors, header)
    return out


@pytest.mark.parametrize(
    ("vocoder", "change"),
    [
        ("spectral", {"vocoder.channels": 100_000}),
        ("spectral", {"vocoder.channels": 4096, "vocoder.kernel_size": 7}),
        ("spectral", {"vocoder.layers": 10**9, "vocoder.channels": 8}),
        ("spectral", {"vocoder.layers": 4096}),
        ("spectral", {"vocoder.kernel_size": 2**40}),
        ("spectral", {"vocoder.synthesis_iterations": 10**9}),
        ("spectral", {"vocoder.dilation_depth": 4000}),
        ("wavenet", {"vocoder.depth": 64}),
        ("wavenet", {"vocoder.cycles": 4096}),
        ("wavenet", {"vocoder.residual_channels": "many"}),
        ("parallel", {"vocoder.upsample_factors": [10**9]}),
        ("spectral", {"mel.n_fft": 2**40, "mel.win_length": 2**40}),
        ("spectral", {"mel.n_mels": 2**30}),
        ("spectral", {"mel": 7}),
        ("spectral", {"vocoder": [1]}),
        ("spectral", {"vocoder.name": ["spectral"]}),
        ("spectral", {"speakers": {"a": 1}}),
        ("spectral", {"speakers": ["a"] * 3}),
        ("spectral", {"step": -1}),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(value),
)
def test_a_forged_header_is_refused_at_once(vocoder: str, change: dict[str, Any], messages: Messages) -> None:
    path = forge(write_model(Path("model.safetensors"), vocoder), change)
    campaign = Campaign()

    def load() -> None:
        with pytest.raises(WavegenError) as error:
            load_vocoder(path)
        text = str(error.value)
        messages.check(text)

    campaign.run([load])
    assert campaign.longest_s < 5
    assert campaign.memory_mb < 200


def test_a_header_that_is_not_a_mapping_is_refused(messages: Messages) -> None:
    data = write_model(Path("model.safetensors")).read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    table = json.loads(data[8:end])
    for text in ("[1]", "7", "null", "[" * 100_000):
        table["__metadata__"]["wavegen"] = text
        changed = json.dumps(table).encode()
        Path("m.safetensors").write_bytes(len(changed).to_bytes(8, "little") + changed + data[end:])
        with messages.refused(CheckpointError):
            load_vocoder("m.safetensors")


def test_weights_of_another_kind_are_refused(messages: Messages) -> None:
    tensors, header = load_checkpoint(write_model(Path("model.safetensors")))
    del header["format"]
    name = next(iter(sorted(tensors)))
    save_checkpoint(Path("m.safetensors"), {**tensors, name: tensors[name].view(torch.int32)}, header)
    with messages.refused(CheckpointError):
        load_vocoder("m.safetensors")


def test_a_state_is_loaded_by_the_text_of_its_path(messages: Messages) -> None:
    vocoder = load_vocoder(str(write_model(Path("model.safetensors"))))
    _, state = vocoder.step(torch.from_numpy(tiny_mel(3))[None], vocoder.initial_state(1))
    save_state("state.safetensors", vocoder, state)
    assert torch.equal(vocoder.flush(load_state("state.safetensors", vocoder)), vocoder.flush(state))
    with messages.refused(CheckpointError):
        load_state("none.safetensors", vocoder)
    tensors, header = load_checkpoint("state.safetensors")
    del header["format"], tensors["0"]
    save_checkpoint(Path("less.safetensors"), tensors, header)
    with messages.refused(CheckpointError):
        load_state("less.safetensors", vocoder)


def forgeries(header: dict[str, Any], count: int) -> Iterator[dict[str, Any]]:
    """Headers with one or two values replaced, removed or added, anywhere in their sections."""
    generator = random.Random(0)
    for _ in range(count):
        forged = copy.deepcopy(header)
        for _ in range(generator.randint(1, 2)):
            place = generator.choice([forged, *(forged.get(name) for name in ("vocoder", "mel"))])
            if not isinstance(place, dict) or not place:
                continue
            key = generator.choice(sorted(place))
            kind = generator.randrange(8)
            if kind == 0:
                del place[key]
            elif kind == 1:
                place[f"{key}s"] = place[key]
            elif kind == 2 and isinstance(place[key], int):
                place[key] = place[key] * 2 + 1
            else:
                place[key] = generator.choice(HOSTILE)
        yield forged


@pytest.mark.parametrize("vocoder", ["spectral", "wavenet"])
def test_thousands_of_mutants_are_loaded_or_refused(vocoder: str) -> None:
    model = write_model(Path("model.safetensors"), vocoder)
    data = model.read_bytes()
    tensors, header = load_checkpoint(model)
    del header["format"]
    path = Path("mutant.safetensors")

    def load() -> None:
        load_vocoder(path)

    def damaged() -> Iterator:
        table = 8 + int.from_bytes(data[:8], "little")
        for mutant in mutants(data, 900, edge=table):
            path.write_bytes(mutant)
            yield load

    def forged() -> Iterator:
        for header_of_mutant in forgeries(header, 400):
            save_checkpoint(path, tensors, header_of_mutant)
            yield load

    campaign = Campaign()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns about layers without weights
        campaign.run(damaged())
        read = campaign.read
        campaign.run(forged())
    print(campaign)
    assert campaign.files == 1300
    assert read < 100  # the checksum finds nearly every change
    assert campaign.longest_s < 5
    assert campaign.memory_mb < 200
