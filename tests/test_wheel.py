"""What a wheel installs works outside the checkout, recipes included."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel's content in a folder of its own, with no checkout around it."""
    wheels = tmp_path_factory.mktemp("wheels")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", str(wheels)]
    subprocess.run([*command, str(ROOT)], check=True, capture_output=True)
    (wheel,) = wheels.glob("wavegen-*.whl")
    folder = tmp_path_factory.mktemp("site")
    zipfile.ZipFile(wheel).extractall(folder)
    return folder


def run(installed: Path, place: Path, *arguments: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    result = subprocess.run(
        [sys.executable, *arguments], cwd=place, env=environment, text=True, capture_output=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_the_main_job_runs_from_a_wheel(installed: Path, tmp_path: Path) -> None:
    where = run(installed, tmp_path, "-c", "import wavegen; print(wavegen.__file__)")
    assert where.startswith(str(installed))
    small = ["training.steps=1", "vocoder.channels=8", "training.listen_clips=0", "samples.clips=1"]
    output = run(installed, tmp_path, "-m", "wavegen.commands.train", "demo", *small)
    assert "features of 76 clips" in output
    assert (tmp_path / "runs/demo/model.safetensors").exists()
    mel = "runs/demo/features/mels/valid/kathleen-arctic_a0130.npz"
    run(installed, tmp_path, "-m", "wavegen.commands.synth", mel, "out.wav")
    assert (tmp_path / "out.wav").stat().st_size > 10_000
    assert not [path for path in installed.rglob("*") if path.name in ("runs", "features")]


def test_all_recipes_and_fragments_travel(installed: Path, tmp_path: Path) -> None:
    shipped = {path.relative_to(installed / "wavegen/shipped").as_posix() for path in installed.rglob("shipped/**/*")}
    ours = {
        path.relative_to(ROOT).as_posix() for kind in ("recipes", "conf") for path in (ROOT / kind).glob("**/*.yaml")
    }
    assert ours <= shipped
    assert "recipes/ljspeech/prepare.py" in shipped


def test_the_pitch_network_travels(installed: Path) -> None:
    weights = installed / "wavegen/source/pitch.safetensors"
    assert weights.read_bytes() == (ROOT / "wavegen/source/pitch.safetensors").read_bytes()
    assert weights.stat().st_size <= 1_000_000


def test_the_listening_page_travels(installed: Path, tmp_path: Path) -> None:
    code = "import wavegen.listening.report as r; print(len(r._joined([*r.STYLES, *r.SCRIPTS, 'page.html'])))"
    assert run(installed, tmp_path, "-c", code) == run(ROOT, tmp_path, "-c", code)


def test_the_console_commands_are_declared(installed: Path) -> None:
    (entry_points,) = installed.glob("*.dist-info/entry_points.txt")
    text = entry_points.read_text()
    modules = ("train", "synth", "extract", "bench", "evaluate", "import_", "export")
    assert all(f"wavegen-{name.rstrip('_')} = wavegen.commands.{name}:main" in text for name in modules)
