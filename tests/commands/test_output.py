"""Standard output and error as users connect them: other encodings, closed pipes, full disks."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from wavegen.commands import notify, run_command

# A command that prints before and after its work, which must not be lost.
SCRIPT = """
import sys
from pathlib import Path
from wavegen.commands import notify, run_command
from wavegen.errors import WavegenError

def work():
    notify("begun: Zoë 日本 \\udce9")
    Path("done").write_text("done")
    notify("finished")
    if sys.argv[1:]:
        raise WavegenError("日本.wav \\udce9 is wrong")
    return 0

sys.exit(run_command("wavegen-test", work))
"""

pytestmark = pytest.mark.usefixtures("folder")


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-c", SCRIPT, *arguments]


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8", "cp1252"])
def test_characters_that_a_terminal_lacks_are_escaped(encoding: str) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    done = subprocess.run(command(), capture_output=True, env=environment, timeout=60)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode(encoding).endswith(" \\udce9\nfinished\n")
    done = subprocess.run(command("fail"), capture_output=True, env=environment, timeout=60)
    assert done.returncode == 2
    assert done.stderr.decode(encoding).endswith(".wav \\udce9 is wrong\n")


def test_a_reader_that_goes_away_does_not_stop_the_work() -> None:
    """As with ``| true`` or ``| head -1``."""
    with subprocess.Popen(command(), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        complaint = process.stderr.read()
    assert (process.returncode, complaint) == (0, b"")
    assert Path("done").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_output_that_a_full_disk_loses_is_reported_after_the_work() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(command(), stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
        both = subprocess.run(command(), stdout=full, stderr=full, timeout=60)
    assert done.returncode == both.returncode == 2
    assert done.stderr == (
        "wavegen-test: error: standard output: cannot write: No space left on device; the work itself is finished\n"
    )
    assert Path("done").exists()


def test_a_failure_is_reported_once(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as broken:
        broken.setattr(sys.stdout, "flush", fail)
        notify("lost")
    assert run_command("wavegen-test", lambda: 0) == 2
    assert run_command("wavegen-test", lambda: 0) == 0
    assert capsys.readouterr().err.count("Input/output error") == 1
