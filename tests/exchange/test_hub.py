"""A model as a repository of the Hub: written, read from the folder, and downloaded (by a stand-in for the network)."""

import json
import sys
from pathlib import Path

import pytest
import torch
from ruamel.yaml import YAML
from support.commands import Refused
from support.foreign import write_vocos
from support.messages import Messages
from support.vocoders import small_pitch_network, tiny_mel, write_model

import wavegen
from wavegen.checkpoint import load_checkpoint
from wavegen.commands.export import main
from wavegen.commands.import_ import main as import_main
from wavegen.errors import CheckpointError
from wavegen.exchange.hub import write_hub_folder
from wavegen.mel import MelSpec

SCORES = """clip,system,pesq,log_mel,notes
a,recording,,,
a,vocoder,3.5,0.2,
b,vocoder,3,,too short
b,Griffin-Lim,2,0.25,
"""


@pytest.fixture
def run(folder: Path) -> Path:
    """A run's folder with scores of its samples."""
    write_model(folder / "run/model.safetensors", "wavenet", speakers=("ann", "bob"), speaker_channels=2)
    (folder / "run/samples").mkdir()
    (folder / "run/samples/scores.csv").write_text(SCORES)
    return folder / "run"


def front_matter(folder: Path) -> dict:
    _, head, _ = (folder / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    return YAML(typ="safe").load(head)


def test_a_hub_folder_loads_as_the_same_model(run: Path, folder: Path) -> None:
    assert main([str(run), "out", "--hub", "--licence", "cc0-1.0", "--data", "my own voice"]) == 0
    assert sorted(path.name for path in (folder / "out").iterdir()) == ["README.md", "config.json", "model.safetensors"]
    mel = torch.from_numpy(tiny_mel(5))[None]
    samples = [wavegen.load(where).synthesize(mel, speaker="bob") for where in (run, folder / "out")]
    assert torch.equal(*samples)
    config = json.loads((folder / "out/config.json").read_text())
    _, header = load_checkpoint(folder / "out/model.safetensors")
    assert config == {"library_name": "wavegen"} | {k: v for k, v in header.items() if k not in ("format", "kind")}


def test_the_card_states_licence_data_scores_and_mel(run: Path, folder: Path) -> None:
    write_hub_folder(run, folder / "out", licence="cc0-1.0", data="my own voice")
    front = front_matter(folder / "out")
    assert (front["license"], front["library_name"], front["data"]) == ("cc0-1.0", "wavegen", "my own voice")
    assert front["scores"] == {"vocoder": {"pesq": 3.25, "log_mel": 0.2}, "Griffin-Lim": {"pesq": 2, "log_mel": 0.25}}
    mel = {name: tuple(value) if isinstance(value, list) else value for name, value in front["mel"].items()}
    assert MelSpec(**mel) == wavegen.load(run).mel
    text = (folder / "out/README.md").read_text(encoding="utf-8")
    for words in (
        "| vocoder | 3.25 | 0.2 |",
        "Licence: cc0-1.0.",
        "Data: my own voice.",
        "speakers ann, bob",
        "8000 Hz",
    ):
        assert words in text


def test_what_is_not_known_is_said(folder: Path) -> None:
    write_vocos(folder / "vocos")
    assert import_main(["vocos", "vocos", "--out", "imported"]) == 0
    write_hub_folder("imported", folder / "out")
    front = front_matter(folder / "out")
    assert (front["license"], front["scores"]) == ("unknown", {})
    assert "imported from vocos" in front["data"]
    text = (folder / "out/README.md").read_text(encoding="utf-8")
    assert "profile `vocos-24k`" in text
    assert "Not measured." in text
    assert "Licence: not stated; ask whoever trained the model" in text


def test_of_a_checkpoint_the_averaged_weights_are_exported(folder: Path) -> None:
    with small_pitch_network():
        tensors, header = load_checkpoint(write_model(folder / "m.safetensors"))
        del header["format"]
        more = {"model.input.bias": torch.zeros(3), "optimizer.0": torch.zeros(3)}
        wavegen.checkpoint.save_checkpoint(folder / "c.safetensors", tensors | more, header | {"best": 1.0})
        write_hub_folder("c.safetensors", folder / "out")
    exported, its_header = load_checkpoint(folder / "out/model.safetensors")
    assert exported.keys() == tensors.keys()
    assert "best" not in its_header


def test_the_voice_that_wavegen_ships_has_its_licence(folder: Path) -> None:
    write_hub_folder("default", folder / "out")
    assert front_matter(folder / "out")["license"] == "mit"


def test_only_an_earlier_export_is_replaced(run: Path, folder: Path, refused: Refused) -> None:
    assert main([str(run), "out", "--hub"]) == 0
    (folder / "out/.git").mkdir()  # of a clone of the repository
    assert main([str(run), "out", "--hub", "--licence", "mit"]) == 0
    assert front_matter(folder / "out")["license"] == "mit"
    refused(main, str(run), "run", "--hub")
    (folder / "out/config.json").write_text("{}")
    refused(main, str(run), "out", "--hub")


def test_wrong_arguments_are_refused(run: Path, folder: Path, refused: Refused) -> None:
    refused(main, "nowhere", "out", "--hub")
    refused(main, str(run), "out", "--hub", "--scores", "nowhere")


# --- hf:// ---


@pytest.fixture
def hub(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository ``ann/voice`` in place of the Hub; the calls are written to ``calls``."""
    huggingface_hub = pytest.importorskip("huggingface_hub")
    from huggingface_hub.errors import EntryNotFoundError

    def download(repo_id: str, filename: str, *, revision: str | None, library_name: str) -> str:
        with (folder / "calls").open("a") as file:
            file.write(f"{repo_id} {filename} {revision} {library_name}\n")
        if repo_id != "ann/voice":
            raise OSError(f"401 Client Error.\n\nRepository Not Found for {repo_id}.")
        if not (folder / "repository" / filename).exists():
            raise EntryNotFoundError(f"404 Client Error: {filename} not found")
        return str(folder / "repository" / filename)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    return folder / "repository"


def test_a_repository_is_loaded_by_its_address(run: Path, hub: Path, folder: Path) -> None:
    write_hub_folder(run, hub)
    for where in ("hf://ann/voice", "hf://ann/voice@v1.0", Path("hf://ann/voice")):  # a Path loses a slash
        assert wavegen.load(where).speakers == ("ann", "bob")
    calls = (folder / "calls").read_text().splitlines()
    assert calls == [f"ann/voice model.safetensors {revision} wavegen" for revision in (None, "v1.0", None)]


def test_weights_are_imported_from_a_repository(hub: Path, folder: Path) -> None:
    write_vocos(hub)
    assert import_main(["vocos", "hf://ann/voice", "--out", "run"]) == 0
    assert wavegen.load("run").mel.n_mels == 100


def test_what_cannot_be_downloaded_is_refused(hub: Path, messages: Messages, monkeypatch: pytest.MonkeyPatch) -> None:
    for where in ("hf://ann/voice", "hf://bob/voice", "hf://ann", "hf://ann/voice/model.safetensors"):
        with messages.refused(CheckpointError):
            wavegen.load(where)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with messages.refused(CheckpointError):
        wavegen.load("hf://ann/voice")


def test_a_pickle_in_a_repository_is_not_loaded(hub: Path) -> None:
    hub.mkdir()
    torch.save({"x": torch.zeros(1)}, hub / "model.safetensors")
    with pytest.raises(CheckpointError, match="is a pickle, which wavegen never loads"):
        wavegen.load("hf://ann/voice")
