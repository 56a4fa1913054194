"""The one exception of the safety law: a foreign pickle is read as weights alone, in a process of its own."""

import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.commands import Refused
from support.foreign import write_vocos
from support.messages import Messages
from torch import nn

from wavegen.checkpoint import load_checkpoint, load_vocoder
from wavegen.commands.import_ import main
from wavegen.errors import CheckpointError
from wavegen.exchange import foreign
from wavegen.exchange.foreign import read_weights


class Exploit:
    """Unpickling an instance would create a file in the current folder and in the home folder."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.place}/pwned",)


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("form", ["torch", "old torch", "plain", "nested"])
def test_a_malicious_pickle_runs_nothing_and_is_refused(
    form: str, protocol: int, folder: Path, refused: Refused
) -> None:
    path = write_vocos(folder / "vocos") / "pytorch_model.bin"
    exploit: Any = Exploit(folder)
    if form == "nested":
        exploit = {"head.out.bias": [exploit]}
    if form == "plain":
        path.write_bytes(pickle.dumps(exploit, protocol=protocol))
    else:
        torch.save(exploit, path, pickle_protocol=protocol, _use_new_zipfile_serialization=form != "old torch")
    refused(main, "vocos", "vocos")
    assert not (folder / "pwned").exists()
    with pytest.raises(CheckpointError, match="is a pickle, which wavegen never loads"):
        load_vocoder(path)  # every other path refuses it


def saved(content: Any, path: Path) -> Path:
    torch.save(content, path)
    return path


def test_what_is_not_a_dictionary_of_plain_weights_is_refused(folder: Path, messages: Messages) -> None:
    contents = {
        "module": nn.Linear(2, 2),
        "array": {"x": np.zeros(2)},
        "number": {"x": 1.5},
        "list": [torch.zeros(2)],
        "empty": {},
        "sparse": {"x": torch.eye(2).to_sparse()},
        "integers": {"x": torch.zeros(2, dtype=torch.int64)},
        "keys": {1: torch.zeros(2)},
        "repeated": {"x": torch.zeros(1).expand(10**12)},
    }
    for name, content in contents.items():
        with messages.refused(CheckpointError):
            read_weights(saved(content, folder / name))


def test_damage_is_refused(folder: Path, messages: Messages) -> None:
    data = saved({"x": torch.zeros(1000)}, folder / "whole").read_bytes()
    for name, content in {"empty": b"", "text": b"weights", "cut": data[:-700]}.items():
        (folder / name).write_bytes(content)
        with messages.refused(CheckpointError):
            read_weights(folder / name)
    with zipfile.ZipFile(folder / "bomb", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/data.pkl", b"\0" * 10**8)
    with messages.refused(CheckpointError):
        read_weights(folder / "bomb")


def test_weights_are_found_inside_a_checkpoint(folder: Path, messages: Messages) -> None:
    path = saved({"model": {"generator": {"a": torch.arange(3.0)}}, "steps": 7}, folder / "c")
    assert read_weights(path, "model", "generator").take("a", 3).tolist() == [0, 1, 2]
    for keys in (("model", "discriminator"), ("steps", "generator")):
        with messages.refused(CheckpointError):
            read_weights(path, *keys)


REPORTING = """
import json, os, sys
from pathlib import Path
import torch
from safetensors.torch import save_file
Path(sys.argv[3]).write_text(json.dumps([dict(os.environ), os.getcwd(), sys.path, os.getpid()]))
save_file({"x": torch.zeros(1)}, sys.argv[2])
"""


def test_the_process_knows_nothing_of_its_caller(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = folder / "reader.py"
    reader.write_text(REPORTING)
    monkeypatch.setattr(foreign._unpickle, "__file__", str(reader))
    monkeypatch.setenv("SECRET", "swordfish")
    read_weights(saved({}, folder / "w"), str(folder / "told.json"))
    told = (folder / "told.json").read_text()
    assert "swordfish" not in told
    assert str(Path.cwd()) not in told
    assert str(os.getpid()) not in told.rpartition(",")[2]


@pytest.mark.parametrize(("code", "timeout"), [("import os; os.abort()", 600), ("import time; time.sleep(600)", 0.5)])
def test_a_process_that_dies_or_hangs_is_a_refusal(
    code: str, timeout: float, folder: Path, messages: Messages, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = folder / "reader.py"
    reader.write_text(code)
    monkeypatch.setattr(foreign._unpickle, "__file__", str(reader))
    monkeypatch.setattr(foreign, "TIMEOUT_S", timeout)
    with messages.refused(CheckpointError):
        read_weights(saved({}, folder / "w"))


# --- where the model goes ---


def test_an_import_is_repeated_but_replaces_nothing_else(folder: Path, refused: Refused) -> None:
    write_vocos(folder / "vocos")
    assert main(["vocos", "vocos", "--out", "run"]) == 0
    first = (folder / "run/model.safetensors").read_bytes()
    _, header = load_checkpoint(folder / "run/model.safetensors")
    assert header["imported"]["from"] == "vocos"
    assert sorted(header["imported"]["sha256"]) == ["config.yaml", "pytorch_model.bin"]
    assert main(["vocos", "vocos", "--out", "run"]) == 0
    assert (folder / "run/model.safetensors").read_bytes() == first
    (folder / "run/recipe.yaml").write_text("")
    refused(main, "vocos", "vocos", "--out", "run")
    (folder / "file").write_text("")
    refused(main, "vocos", "vocos", "--out", "file")
