"""``wavegen-export --browser``: the page in a real browser makes the sound of torch, from mels that equal wavegen's."""

import contextlib
import functools
import http.server
import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import soundfile
import torch
from support.browser import wait_until
from support.commands import Refused
from support.exports import exported_case
from support.mels import CENTRED_SHORT_WINDOW, TINY
from support.messages import Messages
from support.vocoders import SPEC, small_pitch_network, tiny_mel, torch_vocoder, write_model

from wavegen.commands import export
from wavegen.exchange.onnx import browser as pages
from wavegen.exchange.onnx.verification import Deviation
from wavegen.mel import PROFILES, LogMel, save_mel

SCRIPTS = Path(pages.__file__).with_name("page")

# --- from sound to mel -------------------------------------------

SPECS = {
    **{name: PROFILES[name] for name in ("bigvgan-24k", "vocos-24k", "r9y9-22k", "diffwave-22k", "pwg-22k")},
    "tiny": TINY,
    "centred": CENTRED_SHORT_WINDOW,
    "statistics": TINY.replace(log="log10", mean=(1.0,) * 8, std=tuple(range(1, 9))),
}


@pytest.mark.parametrize("name", SPECS)
def test_the_mel_of_the_page_is_that_of_wavegen(name: str, tmp_path: Path) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("no Node.js in the path")
    spec = SPECS[name]
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, 12 * spec.n_fft + 7) * np.linspace(0, 1, 12 * spec.n_fft + 7)
    samples = samples.astype(np.float32)
    samples.tofile(tmp_path / "samples")
    (tmp_path / "spec.json").write_text(spec.model_dump_json())
    (tmp_path / "mel.mjs").write_text((SCRIPTS / "mel.js").read_text())
    program = """
        import { readFileSync, writeFileSync } from "node:fs";
        import { logMel } from "./mel.mjs";
        const bytes = readFileSync("samples");
        const samples = new Float32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length));
        const { values } = logMel(samples, JSON.parse(readFileSync("spec.json")));
        writeFileSync("mel", Buffer.from(values.buffer));
    """
    (tmp_path / "program.mjs").write_text(program)
    subprocess.run([node, "program.mjs"], cwd=tmp_path, check=True, timeout=120)
    expected = LogMel(spec)(torch.from_numpy(samples).double()[None])[0].numpy()
    found = np.fromfile(tmp_path / "mel", np.float32).reshape(expected.shape)
    assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()


# --- the page ----------------------------------------------------


class _Quiet(http.server.SimpleHTTPRequestHandler):
    extensions_map = {  # noqa: RUF012
        **http.server.SimpleHTTPRequestHandler.extensions_map, ".mjs": "text/javascript", ".wasm": "application/wasm",
    }  # fmt: skip

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a web server for a folder."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module", params=["spectral, causal with look-ahead", "vocos"])
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a page in ``page`` and the checkpoint that it was made from."""
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason="needs the extra [export]")
    folder = tmp_path_factory.mktemp("exported")
    try:
        pages._fetch_runtime(folder)
    except Exception as error:
        pytest.skip(str(error))
    streaming = exported_case(request.param, tmp_path_factory, "--streaming")
    shutil.copy(streaming / "model.safetensors", folder)

    def copied(vocoder: object, out: Path, **options: object) -> Deviation:
        assert options["form"] == "streaming"
        shutil.copy(streaming / "voice.onnx", out)
        return Deviation(0.0, 1.0)

    with small_pitch_network(), mock.patch("wavegen.exchange.onnx.writer.write_onnx", copied):
        assert export.main([str(folder / "model.safetensors"), str(folder / "page"), "--browser"]) == 0
    return folder


@contextlib.contextmanager
def opened(folder: Path, browser: Any) -> Iterator[Any]:
    """The page once its model is loaded; afterwards, it must not have raised an error."""
    faults: list[str] = []
    with served(folder) as address, contextlib.closing(browser.new_page()) as page:
        page.set_default_timeout(60_000)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.goto(address)
        status(page, "Ready")
        yield page
    assert faults == []


def latest(page: Any, name: str) -> np.ndarray:
    """What the page has last given or made."""
    return np.array(page.evaluate(f"Array.from(window.latest.{name})"), np.float32)


def status(page: Any, words: str) -> str:
    """The page's status once it contains some words."""
    wait_until(page, f"document.getElementById('status').textContent.includes('{words}')")
    return str(page.locator("#status").text_content())


@pytest.mark.slow
def test_the_page_makes_the_sound_of_torch_and_refuses_what_is_no_mel(
    exported: Path, folder: Path, browser: Any, messages: Messages
) -> None:
    with small_pitch_network():
        vocoder = torch_vocoder(exported / "model.safetensors")
    mel = tiny_mel(130)
    np.save("mel.npy", mel)
    np.save("columns.npy", np.asfortranarray(mel.astype(np.float64)))
    save_mel("mel.npz", mel, SPEC)
    np.savez_compressed("deflated.npz", mel=mel, spec=np.array(SPEC.model_dump_json()))
    np.save("bins.npy", mel[:-1])
    np.save("loud.npy", mel + 30)
    np.save("integers.npy", mel.astype(np.int16))
    save_mel("other.npz", mel, SPEC.replace(f_max_hz=3000))
    Path("cut.npz").write_bytes(Path("mel.npz").read_bytes()[:-50])
    np.savez("bare.npz", mel=mel)
    Path("text.wav").write_text("a text")
    recording = np.random.default_rng(1).uniform(-0.3, 0.3, 6400).astype(np.float32)
    soundfile.write("recording.wav", recording, SPEC.sample_rate_hz, subtype="FLOAT")

    with opened(exported / "page", browser) as page:
        for seed, (name, given) in enumerate(
            {
                "mel.npy": torch.from_numpy(mel)[None],
                "columns.npy": torch.from_numpy(mel)[None],
                "mel.npz": torch.from_numpy(mel)[None],
                "deflated.npz": torch.from_numpy(mel)[None],
                "recording.wav": LogMel(SPEC)(torch.from_numpy(recording)[None]),
            }.items()
        ):
            page.fill("#seed", str(seed))
            page.set_input_files("#file", name)
            assert "first sound after" in status(page, f"{name}: ")
            found, expected = latest(page, "samples"), vocoder.synthesize(given, seed=seed)[0].numpy()
            assert found.shape == expected.shape
            assert np.abs(found - expected).max() < 1e-3 * np.abs(expected).max()
            assert page.evaluate("document.getElementById('mel-made').width") == given.shape[-1]
        for name in ("bins.npy", "loud.npy", "integers.npy", "other.npz", "cut.npz", "bare.npz", "text.wav"):
            page.evaluate("document.getElementById('status').textContent = ''")
            page.set_input_files("#file", name)
            status(page, "The ")
            messages.check(f"{name}: {page.locator('#status').text_content()}")


@pytest.mark.slow
def test_a_causal_model_speaks_what_the_microphone_hears(exported: Path, browser: Any, messages: Messages) -> None:
    with opened(exported / "page", browser) as page:
        if not page.locator("#microphone").is_visible():
            messages.check(page.locator("#no-microphone").text_content())
            assert not json.loads((exported / "page/model.json").read_text())["streaming"]["causal"]
            return
        page.fill("#seed", "3")
        page.click("#microphone")
        status(page, "Listening")
        page.wait_for_timeout(1500)
        page.click("#microphone")
        status(page, "Microphone: ")
        heard, samples = latest(page, "given"), latest(page, "samples")
    frames = len(samples) // SPEC.hop_length
    assert frames > 1.2 * SPEC.sample_rate_hz / SPEC.hop_length
    assert len(heard) - len(samples) < SPEC.n_fft
    assert np.abs(heard).max() > 0.01
    with small_pitch_network():
        vocoder = torch_vocoder(exported / "model.safetensors")
    # In float64, as the page does: in silence, the last digits of float32 make a difference.
    mel = LogMel(SPEC)(torch.from_numpy(heard).double()[None]).float()[..., :frames]
    expected = vocoder.synthesize(mel, seed=3)[0].numpy()
    # By their power: a mel that is rounded otherwise moves single pulses.
    assert np.linalg.norm(samples - expected) < 0.02 * np.linalg.norm(expected)


def test_without_npm_or_its_network_one_line_says_so(
    folder: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_model(Path("model.safetensors"))
    (folder / "bin").mkdir()
    monkeypatch.setenv("PATH", str(folder / "bin"))
    refused(export.main, "model.safetensors", "page", "--browser")
    npm = folder / "bin/npm"
    npm.write_text("#!/bin/sh\necho 'npm error code ENOTFOUND' >&2\nexit 1\n")
    npm.chmod(0o755)
    refused(export.main, "model.safetensors", "page", "--browser")
    Path("other").mkdir()
    Path("other/letter.txt").write_text("mine")
    refused(export.main, "model.safetensors", "other", "--browser")
