"""Mel files that are damaged, hostile or foreign: read if that is safe, otherwise refused, in little memory."""

import io
import struct
import tracemalloc
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from support.mels import TINY
from support.messages import Messages
from support.mutants import Campaign, mutants
from support.vocoders import tiny_mel

from wavegen.errors import MelError
from wavegen.mel import load_mel, open_mel, profile, save_mel
from wavegen.mel.arrays import MAX_UNPACKED_BYTES

DEFINITION = np.array(TINY.model_dump_json())


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def mel() -> np.ndarray:
    return tiny_mel(30)


def npy(array: np.ndarray, version: tuple[int, int] = (1, 0)) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, array, version)
    return file.getvalue()


def with_header(text: str, numbers: bytes = b"") -> bytes:
    """An array file with a header of one's own."""
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text.encode() + numbers


def npz(mel_file: bytes, *, compression: int = zipfile.ZIP_STORED, **more: np.ndarray) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        archive.writestr("mel.npy", mel_file)
        for name, array in {"spec": DEFINITION, **more}.items():
            archive.writestr(f"{name}.npy", npy(array))
    return file.getvalue()


# --- foreign, but safe to read ---


@pytest.mark.parametrize("dtype", ["<f2", "<f4", "<f8", ">f2", ">f4", ">f8", "longdouble"])
@pytest.mark.parametrize("how", ["npy", "npz", "compressed"])
def test_floats_of_any_size_and_byte_order_are_read(mel: np.ndarray, dtype: str, how: str) -> None:
    given = mel.astype(dtype)
    path = Path(f"a.{how[:3]}") if how == "npy" else Path("a.npz")
    compression = zipfile.ZIP_DEFLATED if how == "compressed" else zipfile.ZIP_STORED
    path.write_bytes(npy(given) if how == "npy" else npz(npy(given), compression=compression))
    file = open_mel(path)
    file.check(TINY)
    for values in (load_mel(path)[0], load_mel(path, TINY)[0], file[:, :], np.hstack([file[:, :9], file[:, 9:]])):
        np.testing.assert_array_equal(values, given.astype(given.dtype.newbyteorder("="), copy=False))
        assert values.dtype.isnative
        assert values.dtype.itemsize <= 8


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_of_all_versions_and_orders_are_read(mel: np.ndarray, version: tuple[int, int], order: str) -> None:
    array = np.asarray(mel, order=order)  # type: ignore[call-overload]
    Path("a.npy").write_bytes(npy(array, version))
    Path("a.npz").write_bytes(npz(npy(array, version)))
    for path in ("a.npy", "a.npz"):
        np.testing.assert_array_equal(open_mel(path)[:, 2:7], mel[:, 2:7])
        np.testing.assert_array_equal(load_mel(path)[0], mel)


@pytest.mark.parametrize(
    "header",
    [
        '{"descr":"<f4","fortran_order":False,"shape":(8,30)}',
        "{'shape': (8L, 30L), 'fortran_order': False, 'descr': '<f4', }   \n",
    ],
)
def test_headers_of_other_programs_are_read(mel: np.ndarray, header: str) -> None:
    Path("a.npy").write_bytes(with_header(header, mel.astype("<f4").tobytes()))
    np.testing.assert_array_equal(load_mel("a.npy")[0], mel)
    np.testing.assert_array_equal(open_mel("a.npy")[:, :], mel)


def test_a_compressed_mel_is_read_in_slices_and_follows_its_file(mel: np.ndarray) -> None:
    Path("a.npz").write_bytes(npz(npy(mel), compression=zipfile.ZIP_DEFLATED))
    file = open_mel("a.npz", TINY)
    assert (file.shape, file.definition) == (mel.shape, TINY)
    np.testing.assert_array_equal(file[:, 3:5], mel[:, 3:5])
    Path("a.npz").unlink()
    with pytest.raises(MelError, match=r"^a\.npz: no such file"):
        file[:, 3:5]
    Path("a.npz").write_bytes(npz(npy(mel - 1), compression=zipfile.ZIP_DEFLATED))
    np.testing.assert_array_equal(file[:, 3:5], (mel - 1)[:, 3:5])


# --- hostile ---


@pytest.mark.parametrize(
    "text",
    [
        "{'descr': '<f4', 'fortran_order': False, 'shape': (8, 30), ",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (8, 30}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (" + "[" * 5000 + "8, 30), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (8, 1000000000000), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (8, " + "9" * 5000 + "), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-8, -30), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (" + "1," * 60 + "), }",
        "{'descr': '<f4', 'fortran_order': False, }",
        "{'descr': '<f4', 'descr': '<f8', 'fortran_order': False, 'shape': (8, 30), }",
        "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (8, 30), }",
        "{'descr': '<f3', 'fortran_order': False, 'shape': (8, 30), }",
        "{'descr': '<U0', 'fortran_order': False, 'shape': (8, 30), }",
        "",
        "{}",
        " " * 20_000,
    ],
)
def test_an_impossible_header_is_refused(text: str, messages: Messages) -> None:
    for path, data in (("a.npy", with_header(text, bytes(960))), ("a.npz", npz(with_header(text, bytes(960))))):
        Path(path).write_bytes(data)
        refusals = set()
        for read in (load_mel, open_mel):
            with pytest.raises(MelError) as error:
                read(path)
            refusals.add(str(error.value))
        for refusal in sorted(refusals):
            messages.check(refusal)


@pytest.mark.parametrize("where", ["mel", "spec"])
def test_a_zip_bomb_is_refused_before_it_is_unpacked(where: str, mel: np.ndarray, messages: Messages) -> None:
    """260 kB that would become 0.3 GB, and that promise more."""
    zeros = np.zeros(MAX_UNPACKED_BYTES // 4 + 100_000, dtype=np.float32)
    shape = f"(8, {len(zeros) // 8})" if where == "mel" else f"({len(zeros)},)"
    header = with_header(f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}")
    with zipfile.ZipFile("bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in (("mel", npy(mel)), ("spec", npy(DEFINITION))):
            if name != where:
                archive.writestr(f"{name}.npy", data)
        with archive.open(f"{where}.npy", "w") as file:
            file.write(header)
            for start in range(0, zeros.nbytes, 2**24):
                file.write(memoryview(zeros).cast("B")[start : start + 2**24])
    del zeros
    assert Path("bomb.npz").stat().st_size < 400_000
    tracemalloc.start()
    try:
        with pytest.raises(MelError) as error:
            open_mel("bomb.npz")
        messages.check(error.value)
        with pytest.raises(MelError):
            load_mel("bomb.npz")
        assert tracemalloc.get_traced_memory()[1] < 8e6
    finally:
        tracemalloc.stop()


def test_a_definition_of_absurd_sizes_is_refused(mel: np.ndarray, messages: Messages) -> None:
    for change in (
        {"n_fft": 2**40, "win_length": 2**40},
        {"n_mels": 2**30},
        {"sample_rate_hz": 10**12},
        {"hop_length": 0},
    ):
        spec = np.array(TINY.model_dump_json().replace("}", "") + "," + str(change).replace("'", '"')[1:])
        np.savez("a.npz", mel=mel, spec=spec)
        for read in (load_mel, open_mel):
            with pytest.raises(MelError) as error:
                read("a.npz")
        messages.check(error.value)


def files_to_mutate(mel: np.ndarray) -> Iterator[tuple[str, bytes]]:
    yield "a.npy", npy(mel)
    yield "b.npy", npy(np.asfortranarray(mel.astype(">f8")), (2, 0))
    save_mel("base.npz", mel, TINY, f0=np.full(mel.shape[1], 100.0))
    yield "c.npz", Path("base.npz").read_bytes()
    yield "d.npz", npz(npy(mel), compression=zipfile.ZIP_DEFLATED, f0=np.full(mel.shape[1], 100.0, np.float32))


@pytest.mark.filterwarnings("ignore::UserWarning")  # zipfile names a member that is there twice
def test_thousands_of_mutants_are_read_or_refused(mel: np.ndarray) -> None:
    campaign = Campaign()
    for name, data in files_to_mutate(mel):

        def read_whole(name: str = name) -> None:
            load_mel(name)
            load_mel(name, TINY)

        def read_slices(name: str = name) -> None:
            file = open_mel(name)
            file.check(TINY)
            assert np.isfinite(file[:, 3:8]).all()

        def readers(name: str = name, data: bytes = data) -> Iterator:
            for mutant in mutants(data, 600):
                Path(name).write_bytes(mutant)
                yield read_whole
                yield read_slices

        campaign.run(readers())
    print(campaign)
    assert campaign.files == 4800
    assert 100 < campaign.read < 3600  # the mutants are neither all harmless nor all broken
    assert campaign.longest_s < 2
    assert campaign.memory_mb < 64


# --- long ---


def test_an_hour_of_mel_is_mapped_and_not_read_whole() -> None:
    """A bare array, which a TTS may have written; 135 MB of it, all of which is a hole in the file."""
    spec = profile("bigvgan-24k")
    frames = 3600 * spec.sample_rate_hz // spec.hop_length
    header = npy(np.zeros((100, 0), np.float32)).replace(b"(100, 0), ", b"(100, %d), " % frames)
    with open("hour.npy", "wb") as file:
        file.write(header)
        file.truncate(len(header) + 400 * frames)
    tracemalloc.start()
    try:
        mel = open_mel("hour.npy")
        assert mel.frames == frames
        assert mel[:, 1000:1002].shape == (100, 2)
        with pytest.raises(MelError, match="within 0…1"):  # zeros, so all values have been looked at
            mel.check(spec)
        assert tracemalloc.get_traced_memory()[1] < 4e6
    finally:
        tracemalloc.stop()
