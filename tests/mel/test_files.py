"""Mel files: what is written is read back, slices are read alone, and whatever is not a mel is refused."""

import ast
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from support.messages import Messages
from support.signals import log_mel, noise

from wavegen.errors import MelError
from wavegen.mel import DEFAULT_PROFILE, MelFile, load_mel, open_mel, profile, save_mel

DEFAULT = profile(DEFAULT_PROFILE)
DEFINITION = np.array(DEFAULT.model_dump_json())
READERS = [load_mel, open_mel, lambda path: load_mel(path, DEFAULT), lambda path: open_mel(path, DEFAULT)]


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # so that messages name relative, known paths


@pytest.fixture
def mel() -> np.ndarray:
    return log_mel(DEFAULT, noise(24000, dtype=np.float32))


def refusals(path: str) -> list[str]:
    """The different messages with which the readers refuse a file; each of them does."""
    texts = set()
    for read in READERS:
        with pytest.raises(MelError) as error:
            read(path)
        texts.add(str(error.value))
    return sorted(texts)


# --- written and read back ---


def test_a_saved_mel_is_loaded_with_its_definition(mel: np.ndarray) -> None:
    save_mel("new/a.npz", mel, DEFAULT)
    for spec in (None, DEFAULT):
        loaded, definition = load_mel("new/a.npz", spec)
        np.testing.assert_array_equal(loaded, mel)
        assert definition == DEFAULT


def test_a_bare_array_is_loaded_without_a_definition_and_checked_by_its_values(
    mel: np.ndarray, messages: Messages
) -> None:
    np.save("b.npy", mel.astype(np.float64))
    assert load_mel("b.npy")[1] is None
    assert load_mel("b.npy")[0].dtype == np.float64
    assert load_mel("b.npy", DEFAULT)[0].dtype == np.float32
    np.save("t.npy", mel.T)
    with messages.refused(MelError):
        load_mel("t.npy", DEFAULT)


def test_arrays_that_another_tool_compressed_are_loaded(mel: np.ndarray) -> None:
    np.savez_compressed("a.npz", mel=mel.astype(np.float64), spec=DEFINITION)
    loaded, definition = load_mel("a.npz", DEFAULT)
    np.testing.assert_array_equal(loaded, mel)
    assert definition == DEFAULT


def test_saving_twice_gives_the_same_bytes_and_nothing_else(mel: np.ndarray, tmp_path: Path) -> None:
    save_mel("a.npz", mel, DEFAULT)
    save_mel("b.npz", mel, DEFAULT)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    assert sorted(os.listdir()) == ["a.npz", "b.npz"]


def test_the_file_is_a_plain_uncompressed_zip_of_arrays(mel: np.ndarray) -> None:
    save_mel("a.npz", mel, DEFAULT)
    with zipfile.ZipFile("a.npz") as archive:
        assert {item.filename: item.compress_type for item in archive.infolist()} == {"mel.npy": 0, "spec.npy": 0}


# --- opened, and read in slices ---


def test_an_opened_file_gives_the_same_numbers(mel: np.ndarray) -> None:
    save_mel("a.npz", mel, DEFAULT)
    file = open_mel("a.npz", DEFAULT)
    assert (file.definition, file.shape, file.frames) == (DEFAULT, mel.shape, mel.shape[1])
    np.testing.assert_array_equal(file[:, 13:29], mel[:, 13:29])
    np.testing.assert_array_equal(file[:, :], load_mel("a.npz")[0])
    assert file[:, 13:29].flags.writeable  # a copy
    mapped = file.mapped()
    assert isinstance(mapped, np.memmap)
    assert not mapped.flags.writeable
    assert mapped[:, 13:29].flags.f_contiguous  # one run of bytes
    np.testing.assert_array_equal(mapped, mel)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("order", ["C", "F"])
def test_an_opened_bare_array_gives_the_same_numbers(mel: np.ndarray, dtype: type, order: str) -> None:
    given = np.asarray(mel, dtype=dtype, order=order)  # type: ignore[call-overload]
    np.save("a.npy", given)
    file = open_mel("a.npy")
    assert (file.definition, file.frames) == (None, mel.shape[1])
    assert file[:, :].dtype == dtype
    np.testing.assert_array_equal(file[:, 13:29], given[:, 13:29])
    np.testing.assert_array_equal(file.mapped(), given)
    file.check(DEFAULT)


def test_an_open_file_holds_no_descriptor_and_can_be_pickled(mel: np.ndarray) -> None:
    save_mel("a.npz", mel, DEFAULT)
    before = len(os.listdir("/dev/fd"))
    files = [open_mel("a.npz") for _ in range(50)]
    assert len(os.listdir("/dev/fd")) == before
    copy = pickle.loads(pickle.dumps(files[0]))
    np.testing.assert_array_equal(copy[:, 5:7], mel[:, 5:7])


def test_an_opened_file_is_checked_by_its_definition_and_its_values(mel: np.ndarray, messages: Messages) -> None:
    save_mel("a.npz", mel, DEFAULT)
    open_mel("a.npz").check(DEFAULT)
    with messages.refused(MelError):
        open_mel("a.npz").check(DEFAULT.replace(log="log10"))
    np.savez("spoilt.npz", mel=mel + 20, spec=DEFINITION)
    with messages.refused(MelError):
        open_mel("spoilt.npz").check(DEFAULT)
    for spoilt in (mel[None], mel.T, mel[:, :0], mel[0]):
        np.save("spoilt.npy", spoilt)
        with messages.refused(MelError):
            open_mel("spoilt.npy").check(DEFAULT)


def test_a_file_that_does_not_state_the_wanted_definition_is_not_opened(mel: np.ndarray, messages: Messages) -> None:
    save_mel("a.npz", mel, DEFAULT)
    np.save("b.npy", mel)
    with messages.refused(MelError):
        open_mel("a.npz", DEFAULT.replace(n_mels=80))
    with messages.refused(MelError):
        open_mel("b.npy", DEFAULT)


def test_a_file_that_is_gone_or_cut_short_since_it_was_opened_is_named(mel: np.ndarray) -> None:
    save_mel("a.npz", mel, DEFAULT)
    file: MelFile = open_mel("a.npz")
    os.truncate("a.npz", 1000)
    with pytest.raises(MelError, match=r"^a\.npz: cannot be read: "):
        file[:, :3]
    os.remove("a.npz")
    with pytest.raises(MelError, match=r"^a\.npz: no such file"):
        file.mapped()


# --- refused ---


class _Trap:
    """Does what a malicious array would do when it is unpickled: it makes a folder."""

    def __reduce__(self) -> tuple:
        return os.mkdir, ("sprung",)


def test_nothing_is_unpickled(mel: np.ndarray, messages: Messages) -> None:
    trap = np.array([_Trap()], dtype=object)
    np.save("trap.npy", trap, allow_pickle=True)
    np.savez("trap.npz", mel=trap, spec=DEFINITION)
    np.savez("spec.npz", mel=mel, spec=trap)
    for path in ("trap.npy", "trap.npz", "spec.npz"):
        for text in refusals(path):
            messages.check(text)
    assert not os.path.exists("sprung")
    np.load("trap.npy", allow_pickle=True)  # the trap is a real one
    assert os.path.exists("sprung")


NOT_MELS: dict[str, Callable[[np.ndarray, Path], object]] = {
    "missing": lambda mel, path: None,
    "empty": lambda mel, path: path.touch(),
    "words": lambda mel, path: path.write_text("these are words"),
    "a checkpoint": lambda mel, path: torch.save({"mel": torch.from_numpy(mel)}, path),
    "half a zip": lambda mel, path: path.write_bytes(b"PK\x03\x04 and then nothing"),
    "a folder": lambda mel, path: path.mkdir(),
}


@pytest.mark.parametrize("kind", NOT_MELS)
def test_a_file_that_is_not_a_mel_is_refused(mel: np.ndarray, kind: str, messages: Messages) -> None:
    NOT_MELS[kind](mel, Path("m.npy"))
    (text,) = refusals("m.npy")
    messages.check(text)


def test_a_damaged_definition_is_refused(mel: np.ndarray, messages: Messages) -> None:
    fields = json.loads(DEFAULT.model_dump_json())
    np.savez("a.npz", mel=mel, spec=np.array(json.dumps({**fields, "n_mels": -1})))
    (text,) = refusals("a.npz")
    messages.check(text)


def test_a_damaged_file_is_refused(mel: np.ndarray, tmp_path: Path) -> None:
    save_mel("b.npz", mel, DEFAULT)
    damaged = bytearray((tmp_path / "b.npz").read_bytes())
    (tmp_path / "c.npz").write_bytes(damaged[:-100])
    (text,) = refusals("c.npz")
    assert text.startswith("c.npz: cannot be read: File is not a zip file")
    damaged[5000] ^= 1
    (tmp_path / "b.npz").write_bytes(damaged)
    with pytest.raises(MelError, match=r"^b\.npz: cannot be read: Bad CRC-32"):
        load_mel("b.npz")
    np.save("d.npy", mel)
    (tmp_path / "d.npy").write_bytes((tmp_path / "d.npy").read_bytes()[:-100])
    for read_bare in (load_mel, open_mel):
        with pytest.raises(MelError, match=r"^d\.npy: cannot be read: "):  # numpy's words differ between versions
            read_bare("d.npy")


def test_saving_refuses_what_loading_would_refuse(mel: np.ndarray, messages: Messages) -> None:
    with messages.refused(MelError):
        save_mel("a.npz", mel.T, DEFAULT)
    with messages.refused(MelError):
        save_mel("a.npy", mel, DEFAULT)
    assert not os.listdir()


# --- threads ---


@pytest.mark.parametrize("read", [load_mel, open_mel])
def test_no_header_is_evaluated_as_python(
    read: Callable, mel: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """numpy uses ``ast``, and that of CPython 3.11 now and then fails in two threads at once."""
    save_mel(tmp_path / "a.npz", mel, DEFAULT)
    np.save(tmp_path / "b.npy", mel)
    monkeypatch.setattr(ast, "literal_eval", lambda text: pytest.fail("a header is evaluated"))
    with ThreadPoolExecutor(4) as pool:
        assert len(list(pool.map(read, [tmp_path / "a.npz", tmp_path / "b.npy"] * 4))) == 8
