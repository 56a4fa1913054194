"""Checkpoints: what comes back, what survives a full disk or a kill, and what is refused."""

import json
import os
import pickle
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from support.messages import Messages
from support.vocoders import SPEC, tiny_mel, tiny_vocoder, vocoder_config, write_model

from wavegen.checkpoint import find_model, load_checkpoint, load_vocoder, save_checkpoint, tensor_files, vocoder_header
from wavegen.errors import CheckpointError, ConfigError, OutputError, WavegenError
from wavegen.vocoders import Vocoder

REMEDY = "give a .safetensors file that wavegen wrote, such as an earlier one of the run"


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # so that messages name relative, known paths


def refusal(load: Callable[[Path], Any], path: str | Path, kind: type[WavegenError] = CheckpointError) -> str:
    with pytest.raises(kind) as error:
        load(Path(path))
    message = str(error.value)
    assert "\n" not in message
    return message


def sound(vocoder: Vocoder, *, seed: int = 0) -> torch.Tensor:
    return vocoder.synthesize(torch.from_numpy(tiny_mel(12))[None], seed=seed)


# ---- saving and loading


def test_tensors_and_header_come_back() -> None:
    torch.manual_seed(0)
    tensors = {
        "float32": torch.randn(3, 4),
        "float64": torch.randn(2, dtype=torch.float64),
        "bfloat16": torch.randn(5).bfloat16(),
        "int64": torch.tensor([2**62, -1]),
        "uint8": torch.get_rng_state(),
        "scalar": torch.tensor(0.1),
        "empty": torch.zeros(0, 3),
        "transposed": torch.randn(4, 3).T,
        "requires grad": torch.nn.Parameter(torch.randn(2)),
    }
    header = {"step": 7, "best": None, "name": "ä\n", "nested": {"list": [1e-5, True]}}
    save_checkpoint(Path("a/b.safetensors"), tensors, header)
    loaded, found = load_checkpoint(Path("a/b.safetensors"))
    assert found == {"format": tensor_files.FORMAT, **header}
    assert loaded.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert loaded[name].dtype == tensor.dtype
        assert loaded[name].shape == tensor.shape
        assert torch.equal(loaded[name], tensor)


@pytest.mark.parametrize("name", ["parallel", "spectral", "wavenet"])
def test_a_vocoder_comes_back(name: str) -> None:
    vocoder = load_vocoder(write_model(Path("model.safetensors"), name))
    assert vocoder.mel == SPEC
    assert not vocoder.training
    assert not any(parameter.requires_grad for parameter in vocoder.parameters())
    assert torch.equal(sound(vocoder), sound(tiny_vocoder(name).eval()))


def test_averaged_weights_are_chosen_in_a_checkpoint() -> None:
    weights = tiny_vocoder("spectral").state_dict()
    halved = {key: value / 2 for key, value in weights.items()}
    header = vocoder_header(vocoder_config("spectral"), SPEC)
    for prefixes, expected in ((("model.", "ema."), halved), (("model.",), weights)):
        tensors = {f"{prefixes[0]}{key}": value for key, value in weights.items()}
        tensors |= {f"{prefix}{key}": value for prefix in prefixes[1:] for key, value in halved.items()}
        save_checkpoint(Path("c.safetensors"), tensors | {"optimizer.0.step": torch.tensor(1.0)}, header)
        loaded = load_vocoder(Path("c.safetensors")).state_dict()
        assert all(torch.equal(loaded[key], expected[key]) for key in weights)


def test_weight_norm_is_folded_and_changes_nothing_but_rounding() -> None:
    changes = {"weight_norm": True, "output": "gaussian"}
    vocoder = load_vocoder(write_model(Path("model.safetensors"), "wavenet", **changes))
    assert not any("parametrizations" in key for key in vocoder.state_dict())
    unfolded = tiny_vocoder("wavenet", **changes).eval()
    assert any("parametrizations" in key for key in unfolded.state_dict())
    samples, mel = 0.5 * torch.randn(1, 12 * SPEC.hop_length), torch.from_numpy(tiny_mel(12))[None]
    with torch.no_grad():
        expected = unfolded(samples, mel)
        torch.testing.assert_close(vocoder(samples, mel), expected, rtol=1e-5, atol=1e-5)
    assert expected.std() > 0.01


def test_equal_contents_are_equal_bytes() -> None:
    """The library writes its metadata in another order each time."""
    files = set()
    for _ in range(20):
        write_model(Path("model.safetensors"))
        files.add(Path("model.safetensors").read_bytes())
    (data,) = files
    assert int.from_bytes(data[:8], "little") % 8 == 0  # tensors begin where a library may map them


# ---- what is in the way of saving


def bounded_write(limit: int) -> Callable[[Path, bytes], int]:
    def write_bytes(self: Path, data: bytes) -> int:
        with self.open("wb") as file:
            file.write(data[:limit])
        raise OSError(28, "No space left on device")

    return write_bytes


def test_a_full_disk_leaves_the_checkpoint_before(monkeypatch: pytest.MonkeyPatch) -> None:
    save_checkpoint(Path("c.safetensors"), {"x": torch.zeros(100)}, {"step": 1})
    monkeypatch.setattr(Path, "write_bytes", bounded_write(50))
    with pytest.raises(OutputError) as error:
        save_checkpoint(Path("c.safetensors"), {"x": torch.ones(100)}, {"step": 2})
    assert str(error.value) == (
        "c.safetensors: cannot write: No space left on device; "
        "check the folder's permissions and the free space; nothing there was changed"
    )
    tensors, header = load_checkpoint(Path("c.safetensors"))
    assert header["step"] == 1
    assert torch.equal(tensors["x"], torch.zeros(100))
    assert os.listdir() == ["c.safetensors"]


def run_python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run ``code`` in a fresh interpreter, in the current folder."""
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=120)


def test_a_write_that_the_system_stops_leaves_the_checkpoint_before() -> None:
    """The same with a limit of the system itself, half-way through the file."""
    done = run_python(
        """
import resource, signal, sys, torch
from pathlib import Path
from wavegen.checkpoint import save_checkpoint
from wavegen.commands import run_command

path = Path("c.safetensors")
save_checkpoint(path, {"x": torch.zeros(1000)}, {"step": 1})
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
sys.exit(run_command("test", lambda: save_checkpoint(path, {"x": torch.ones(100_000)}, {"step": 2})))
"""
    )
    assert done.returncode == 2, done
    assert done.stderr == (
        "test: error: c.safetensors: cannot write: File too large; "
        "check the folder's permissions and the free space; nothing there was changed\n"
    )
    assert load_checkpoint(Path("c.safetensors"))[1]["step"] == 1
    assert os.listdir() == ["c.safetensors"]


def test_a_kill_at_any_moment_leaves_a_whole_checkpoint() -> None:
    """Children save as fast as they can and are killed at random moments; what lies there is always one whole file."""
    done = run_python(
        """
import os, random, signal, time, torch
from pathlib import Path
from wavegen.checkpoint import load_checkpoint, save_checkpoint

torch.set_num_threads(1)
path, steps, cut_short = Path("c.safetensors"), [], 0
save_checkpoint(path, {"x": torch.zeros(500_000)}, {"step": 0})
random.seed(0)
while len(steps) < 12 or (not cut_short and len(steps) < 300):
    saved, says_saved = os.pipe()
    child = os.fork()
    if child == 0:
        step = steps[-1] if steps else 0
        while True:
            step += 1
            save_checkpoint(path, {"x": torch.full((500_000,), step)}, {"step": step})
            os.write(says_saved, b".")
    os.read(saved, 1)  # on a busy machine the first one may take long
    time.sleep(random.uniform(0.005, 0.06))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    tensors, header = load_checkpoint(path)
    assert (tensors["x"] == header["step"]).all()
    steps.append(header["step"])
    os.close(saved), os.close(says_saved)
    cut_short += len(list(path.parent.glob(".c.*.part.safetensors")))
assert steps == sorted(steps) and steps[-1] > 0, steps
print(cut_short)
"""
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 0  # some kill did come in the middle of a write


# ---- what is refused


def test_a_truncated_file_is_refused() -> None:
    data = write_model(Path("model.safetensors")).read_bytes()
    lengths = [0, 1, 7, 8, 9, 100, 1000, len(data) // 2, len(data) - 4, len(data) - 1]
    for length in lengths:
        Path("cut.safetensors").write_bytes(data[:length])
        message = refusal(load_checkpoint, "cut.safetensors")
        assert message.startswith("cut.safetensors: is damaged or cut short (")
        assert message.endswith(f"; {REMEDY}")
    Path("long.safetensors").write_bytes(data + b"\0")
    assert refusal(load_checkpoint, "long.safetensors").startswith("long.safetensors: is damaged or cut short (")


@pytest.mark.parametrize("where", ["header", "weights"])
def test_a_flipped_bit_is_refused(where: str) -> None:
    data = write_model(Path("model.safetensors")).read_bytes()
    header_end = 8 + int.from_bytes(data[:8], "little")
    first, last = (0, header_end) if where == "header" else (header_end, len(data))
    generator = random.Random(0)
    for _ in range(400):
        place, bit = generator.randrange(first, last), generator.randrange(8)
        flipped = bytearray(data)
        flipped[place] ^= 1 << bit
        Path("flipped.safetensors").write_bytes(flipped)
        assert refusal(load_checkpoint, "flipped.safetensors").startswith("flipped.safetensors: is "), (place, bit)


def test_a_missing_file_is_refused(messages: Messages) -> None:
    messages.check(refusal(load_checkpoint, "none.safetensors"))


def test_a_newer_format_is_refused(monkeypatch: pytest.MonkeyPatch, messages: Messages) -> None:
    with monkeypatch.context() as newer_version:
        newer_version.setattr(tensor_files, "FORMAT", 2)
        write_model(Path("model.safetensors"))
    messages.check(refusal(load_vocoder, "model.safetensors"))


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}, {"wavegen": "no JSON"}])
def test_safetensors_of_others_are_refused(metadata: dict[str, str] | None, messages: Messages) -> None:
    save_file({"x": torch.zeros(3)}, "other.safetensors", metadata=metadata)
    messages.check(refusal(load_checkpoint, "other.safetensors"))


class Malicious:
    """Unpickling one makes a file."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, ("executed",)


@pytest.mark.parametrize("kind", ["torch", "torch-legacy", "pickle"])
@pytest.mark.parametrize("name", ["model.pt", "model.safetensors"])
def test_a_malicious_pickle_is_refused_and_not_executed(kind: str, name: str, messages: Messages) -> None:
    if kind == "pickle":
        Path(name).write_bytes(pickle.dumps(Malicious()))
    else:
        torch.save({"x": Malicious()}, name, _use_new_zipfile_serialization=kind == "torch")
    messages.check(refusal(load_vocoder, name))
    assert not Path("executed").exists()
    if kind == "pickle":
        pickle.loads(Path(name).read_bytes())
    else:
        with Path(name).open("rb") as file:  # given a name, torch may choose by its suffix how to read it
            torch.load(file, weights_only=False)
    assert Path("executed").exists()  # it would have worked


def test_tensors_without_a_vocoder_are_refused(messages: Messages) -> None:
    save_checkpoint(Path("c.safetensors"), {"x": torch.zeros(1)}, {"step": 1})
    messages.check(refusal(load_vocoder, "c.safetensors"))


def save_with(weights: dict[str, torch.Tensor], config: dict[str, Any]) -> None:
    tensors = {f"ema.{key}": value for key, value in weights.items()}
    save_checkpoint(Path("c.safetensors"), tensors, vocoder_header(config, SPEC))


def test_an_unknown_vocoder_is_refused(messages: Messages) -> None:
    save_with(tiny_vocoder("spectral").state_dict(), {**vocoder_config("spectral"), "name": "spektral"})
    messages.check(refusal(load_vocoder, "c.safetensors"))


def test_an_unknown_setting_is_refused(messages: Messages) -> None:
    save_with(tiny_vocoder("spectral").state_dict(), {**vocoder_config("spectral"), "chanels": 3})
    messages.check(refusal(load_vocoder, "c.safetensors", ConfigError))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda w: w.pop("output_norm.bias"), 'Missing key(s) in state_dict: "output_norm.bias".'),
        (lambda w: w.update(more=torch.zeros(1)), 'Unexpected key(s) in state_dict: "more".'),
        (
            lambda w: w.update({"output_norm.bias": torch.zeros(9)}),
            "size mismatch for output_norm.bias: copying a param with shape torch.Size([9]) from checkpoint, "
            "the shape in current model is torch.Size([8]).",
        ),
    ],
    ids=["missing", "unexpected", "shape"],
)
def test_weights_that_do_not_fit_are_refused(change: Callable[[dict], Any], complaint: str, messages: Messages) -> None:
    weights = dict(tiny_vocoder("spectral").state_dict())
    change(weights)
    save_with(weights, vocoder_config("spectral"))
    messages.check(refusal(load_vocoder, "c.safetensors"))


# ---- which model is meant


def test_the_newest_finished_run_is_the_default() -> None:
    for age, name in enumerate(("b", "nested/a", "c")):
        path = write_model(Path("runs") / name / "model.safetensors")
        os.utime(path, (1000 - age, 1000 - age))
    assert find_model(None) == Path("runs/b/model.safetensors")
    os.utime("runs/nested/a/model.safetensors", (2000, 2000))
    assert find_model(None) == Path("runs/nested/a/model.safetensors")
    shutil.rmtree("runs/nested")
    (Path("runs/unfinished/checkpoints")).mkdir(parents=True)
    shutil.copy("runs/b/model.safetensors", "runs/unfinished/checkpoints/step-00000008.safetensors")
    assert find_model(None) == Path("runs/b/model.safetensors")


def test_a_run_folder_means_its_model_or_else_its_newest_checkpoint(messages: Messages) -> None:
    folder = Path("run/checkpoints")
    folder.mkdir(parents=True)
    messages.check(refusal(find_model, "run"))
    for name in ("step-00000020", "step-00000100", "best", ".step-00000200.7.part"):
        (folder / f"{name}.safetensors").touch()
    assert find_model(Path("run")) == folder / "step-00000100.safetensors"
    Path("run/model.safetensors").touch()
    assert find_model(Path("run")) == Path("run/model.safetensors")
    assert find_model(folder / "best.safetensors") == folder / "best.safetensors"


def test_the_header_is_plain_json() -> None:
    """Anyone can read it, without wavegen."""
    data = write_model(Path("model.safetensors")).read_bytes()
    table = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    assert json.loads(table["__metadata__"]["wavegen"])["mel"] == SPEC.model_dump(mode="json")
