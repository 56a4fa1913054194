"""A static page that runs a vocoder in a browser. Its own files lie beside this one in ``page/``."""

import json
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from wavegen.errors import ConfigError
from wavegen.exchange.onnx.verification import Deviation
from wavegen.files import results_folder

RUNTIME = "onnxruntime-web@1.30.0"
_RUNTIME_FILES = ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm")
_PAGE = Path(__file__).with_name("page")
MODEL, ABOUT = "voice.onnx", "model.json"
_NPM_TIMEOUT_S = 300


def write_page(folder: Path, write_model: Callable[[Path], Deviation]) -> Deviation:
    """Write a page that speaks with a model, for any web server.

    Args:
        folder: the folder to write. It must be new or empty, or hold an earlier page.
        write_model: writes the model to a file as a stream, see ``write_onnx``.

    Returns:
        What ``write_model`` returns.

    Raises:
        ConfigError: onnxruntime-web cannot be fetched, or the model cannot be exported.
        OutputError: the folder holds something else, or cannot be written.
    """
    own = sorted(path.name for path in _PAGE.iterdir())
    with results_folder(folder, [*own, *_RUNTIME_FILES, MODEL, ABOUT], is_ours=_is_page) as temporary:
        _fetch_runtime(temporary)
        deviation = write_model(temporary / MODEL)
        for name in own:
            shutil.copyfile(_PAGE / name, temporary / name)
        (temporary / ABOUT).write_text(json.dumps(_about(temporary / MODEL)), encoding="utf-8")
    return deviation


def _is_page(marker: Path) -> bool:
    try:
        return "ln_limits" in json.loads(marker.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False


def _about(model: Path) -> dict[str, Any]:
    """The metadata of a model, which a browser does not read from its file."""
    from wavegen.exchange.onnx.reader import Model

    metadata = Model(model).metadata
    parsed = {name: json.loads(metadata[f"wavegen_{name}"]) for name in ("mel", "ln_limits", "streaming")}
    return parsed | {name: metadata[name] for name in ("licence", "source", "speaker", "steps")}


def _fetch_runtime(folder: Path) -> None:
    """Put the files of onnxruntime-web that a page needs into a folder."""
    npm = shutil.which("npm")
    if npm is None:
        raise ConfigError("the page needs onnxruntime-web from npm, which is not installed", remedy="install Node.js")
    with tempfile.TemporaryDirectory() as temporary:
        try:
            done = subprocess.run(
                [npm, "pack", "--silent", RUNTIME],
                cwd=temporary, capture_output=True, text=True, timeout=_NPM_TIMEOUT_S, check=False,
            )  # fmt: skip
            reason = (done.stderr.strip().splitlines() or [f"npm ended with code {done.returncode}"])[0]
        except subprocess.TimeoutExpired:
            reason = f"npm took more than {_NPM_TIMEOUT_S} s"
        packages = list(Path(temporary).glob("*.tgz"))
        if not packages:
            raise ConfigError(f"npm cannot fetch {RUNTIME} ({reason})", remedy="check the network")
        with tarfile.open(packages[0]) as archive:
            for name in _RUNTIME_FILES:
                stored = archive.extractfile(f"package/dist/{name}")
                assert stored is not None
                with stored, (folder / name).open("wb") as file:
                    shutil.copyfileobj(stored, file)
