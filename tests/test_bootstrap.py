"""``conf/bootstrap.py`` without a network: a recorder replaces pip and venv."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from support.messages import Messages

SCRIPT = Path(__file__).parent.parent / "conf" / "bootstrap.py"


@pytest.fixture
def bootstrap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script in a checkout of its own; ``commands`` records what set-up would run."""
    spec = importlib.util.spec_from_file_location("bootstrap", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (tmp_path / "pyproject.toml").write_text("[project]\n")
    constraints = tmp_path / "constraints.txt"
    constraints.write_text("torch==2.11.0\n")
    monkeypatch.setattr(module, "CHECKOUT", tmp_path)
    monkeypatch.setattr(module, "CONSTRAINTS", constraints)
    monkeypatch.setattr(module, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(module, "BIN", tmp_path / ".venv" / "bin")
    monkeypatch.setattr(module, "STAMP", tmp_path / ".venv" / "bootstrap.stamp")
    module.commands = []  # type: ignore[attr-defined]

    def record(command: list[str]) -> None:
        (tmp_path / ".venv" / "bin").mkdir(parents=True, exist_ok=True)
        module.commands.append(command[1:])

    monkeypatch.setattr(module, "quietly", record)
    monkeypatch.setattr(module, "run", lambda argv: 7)
    monkeypatch.setattr(module.shutil, "which", lambda name: None)  # no uv
    return module


def test_the_first_call_sets_up_and_the_second_skips(
    bootstrap: ModuleType, messages: Messages, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bootstrap.main(["pytest"]) == 7
    venv, dev, evaluation = bootstrap.commands
    assert venv == ["-m", "venv", str(bootstrap.VENV)]
    assert dev[-4:] == ["--constraint", str(bootstrap.CONSTRAINTS), "--editable", ".[dev]"]
    assert evaluation[-1] == ".[evaluation]"
    messages.check(capsys.readouterr().err)
    assert bootstrap.main(["pytest"]) == 7
    assert len(bootstrap.commands) == 3


def test_uv_installs_where_it_is_present(bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap.shutil, "which", lambda name: f"/tools/{name}")
    assert bootstrap.main(["pytest"]) == 7
    venv, dev, evaluation = bootstrap.commands
    assert venv == ["-m", "venv", str(bootstrap.VENV)]
    for command in (dev, evaluation):
        assert command[:5] == ["pip", "install", "--quiet", "--python", str(bootstrap.BIN / "python")]
    assert dev[-4:] == ["--constraint", str(bootstrap.CONSTRAINTS), "--editable", ".[dev]"]


@pytest.mark.parametrize("name", ["constraints.txt", "pyproject.toml"])
def test_changed_requirements_are_installed_into_the_same_environment(bootstrap: ModuleType, name: str) -> None:
    bootstrap.main(["pytest"])
    before = bootstrap.recorded_stamp()
    with (bootstrap.CHECKOUT / name).open("a") as file:
        file.write("# more\n")
    assert bootstrap.wanted_stamp() != before
    bootstrap.commands.clear()
    bootstrap.main(["pytest"])
    assert [command[-1] for command in bootstrap.commands] == [".[dev]", ".[evaluation]"]
    assert bootstrap.recorded_stamp() == bootstrap.wanted_stamp()


def test_another_python_gets_a_fresh_environment(bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    bootstrap.main(["pytest"])
    bootstrap.commands.clear()
    monkeypatch.setattr(bootstrap.platform, "python_version", lambda: "3.99.0")
    bootstrap.main(["pytest"])
    assert bootstrap.commands[0] == ["-m", "venv", "--clear", str(bootstrap.VENV)]


def test_an_interrupted_set_up_is_repeated_from_an_empty_environment(
    bootstrap: ModuleType, messages: Messages, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    record = bootstrap.quietly

    def interrupt(command: list[str]) -> None:
        if command[-1] == ".[dev]":
            raise KeyboardInterrupt
        record(command)

    with monkeypatch.context() as patch:
        patch.setattr(bootstrap, "quietly", interrupt)
        assert bootstrap.main(["pytest"]) == 130
    messages.check(capsys.readouterr().err)
    bootstrap.commands.clear()
    assert bootstrap.main(["pytest"]) == 7
    assert [command[-1] for command in bootstrap.commands] == [str(bootstrap.VENV), ".[dev]", ".[evaluation]"]
    assert "--clear" in bootstrap.commands[0]


def test_an_environment_made_by_hand_is_not_emptied(bootstrap: ModuleType) -> None:
    bootstrap.BIN.mkdir(parents=True)
    bootstrap.main(["pytest"])
    assert bootstrap.commands[0] == ["-m", "venv", str(bootstrap.VENV)]


def fail_at(bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch, extra: str) -> None:
    record = bootstrap.quietly

    def fail(command: list[str]) -> None:
        if command[-1] == extra:
            raise subprocess.CalledProcessError(1, command, output="pip's reasons\n")
        record(command)

    monkeypatch.setattr(bootstrap, "quietly", fail)


def test_a_failed_install_shows_pip_and_leaves_no_stamp(
    bootstrap: ModuleType, messages: Messages, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fail_at(bootstrap, monkeypatch, ".[dev]")
    assert bootstrap.main(["pytest"]) == 1
    messages.check(capsys.readouterr().err)
    assert bootstrap.recorded_stamp() != bootstrap.wanted_stamp()


def test_without_a_compiler_only_some_metrics_are_missing(
    bootstrap: ModuleType, messages: Messages, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fail_at(bootstrap, monkeypatch, ".[evaluation]")
    assert bootstrap.main(["pytest"]) == 7
    messages.check(capsys.readouterr().err)
    assert bootstrap.recorded_stamp() == bootstrap.wanted_stamp()


def test_a_missing_command_is_a_usage_error(
    bootstrap: ModuleType, messages: Messages, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bootstrap.main([]) == 2
    messages.check(capsys.readouterr().err)
    assert bootstrap.commands == []


def test_an_old_python_is_refused(
    bootstrap: ModuleType, messages: Messages, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bootstrap.sys, "version_info", (3, 9, 18))
    monkeypatch.setattr(bootstrap.platform, "python_version", lambda: "3.9.18")
    assert bootstrap.main(["pytest"]) == 1
    messages.check(capsys.readouterr().err)
    assert bootstrap.commands == []


@pytest.mark.parametrize("missing", ["venv", "ensurepip"])
def test_a_python_without_venv_is_refused(
    bootstrap: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    missing: str,
) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == missing else find_spec(name))
    assert bootstrap.main(["pytest"]) == 1
    major, minor = sys.version_info[:2]
    assert f"sudo apt install python{major}.{minor}-venv" in capsys.readouterr().err
    assert bootstrap.commands == []


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with a stamp that is up to date, and an environment with one program."""
    (tmp_path / "conf").mkdir()
    script = tmp_path / "conf" / "bootstrap.py"
    script.write_bytes(SCRIPT.read_bytes())
    (tmp_path / "conf" / "constraints.txt").touch()
    (tmp_path / "pyproject.toml").touch()
    bin_folder = tmp_path / ".venv" / "bin"
    bin_folder.mkdir(parents=True)
    tool = bin_folder / "tool"
    tool.write_text('#!/bin/sh\necho "$PWD|$1|$VIRTUAL_ENV"\nexit 5\n')
    tool.chmod(0o755)
    write_stamp = "import bootstrap as b; b.STAMP.write_text(b.wanted_stamp())"
    subprocess.run([sys.executable, "-c", write_stamp], cwd=script.parent, check=True)
    return tmp_path


@pytest.mark.skipif(sys.platform == "win32", reason="the stand-in command is a shell script")
def test_the_command_runs_in_the_checkout_and_passes_its_exit_code_on(
    checkout: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    done = subprocess.run(
        [sys.executable, str(checkout / "conf" / "bootstrap.py"), "tool", "two words"],
        cwd=tmp_path_factory.mktemp("elsewhere"),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 5
    assert done.stdout == f"{checkout}|two words|{checkout / '.venv'}\n"
    assert done.stderr == "bootstrap: ready; running tool two words\n"


@pytest.mark.skipif(sys.platform == "win32", reason="the stand-in environment has no Scripts folder")
def test_an_unknown_command_is_named(checkout: Path, messages: Messages) -> None:
    (checkout / ".venv" / "bin" / "wavegen-train").touch()
    script = str(checkout / "conf" / "bootstrap.py")
    done = subprocess.run([sys.executable, script, "trian"], capture_output=True, text=True)
    assert done.returncode == 2
    messages.check(done.stderr)
