"""``--ray``: several processes of a local cluster make what one process makes, even if some of them are killed."""

import gc
import importlib
import os
import signal
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.commands import Refused
from support.corpus import write_noise
from support.messages import Messages
from support.sharding import DIVISIBLE, Divisible, files

from wavegen.cluster import RETRIES, ray_cluster
from wavegen.commands import extract
from wavegen.errors import WavegenError

ray = pytest.importorskip("ray", reason="needs the extra ray")

pytestmark = [
    pytest.mark.usefixtures("folder"),
    pytest.mark.filterwarnings("ignore"),  # Ray's own, when it starts and stops
    pytest.mark.slow,
]


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """A cluster of three worker processes, which the commands find and leave running."""
    ray.init(num_cpus=3, include_dashboard=False, log_to_driver=False)
    yield
    assert ray.is_initialized()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ray.shutdown()
        gc.collect()  # Ray lets go of processes that it has stopped, but not waited for


@pytest.fixture(params=DIVISIBLE)
def command(request: pytest.FixtureRequest) -> Divisible:
    found = DIVISIBLE[request.param]
    found.prepare()
    return found


def test_the_results_equal_one_run_byte_for_byte_although_a_worker_is_killed(
    command: Divisible, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert command.run("whole") == command.code
    name, function = command.task
    module = importlib.import_module(f"wavegen.commands.{name}")
    original = getattr(module, function)
    attempts = Path("attempts").absolute()
    attempts.mkdir()

    def killed_once(task: Any) -> Any:
        (attempts / str(os.getpid())).touch()
        if not (attempts / "killed").exists():
            (attempts / "killed").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return original(task)

    monkeypatch.setattr(module, function, killed_once)
    assert command.run("out", "--ray") == command.code
    assert files("out") == files("whole")
    assert (attempts / "killed").exists()
    assert len(list(attempts.iterdir())) > 2  # another process went on


def test_a_worker_that_is_killed_in_the_middle_of_its_part_leaves_nothing_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    command = DIVISIBLE["extract"]
    command.prepare()
    command.run("whole")
    killed = Path("killed").absolute()

    def killed_in_the_middle(task: Any) -> None:
        import wavegen.corpora.extraction as extraction

        if not killed.exists():

            def save_half(path: Path, *rest: object) -> None:
                killed.touch()
                path.parent.mkdir(parents=True, exist_ok=True)
                path.with_name(f".{path.stem}.0.part.npz").write_bytes(b"half")  # as of an interrupted write
                os.kill(os.getpid(), signal.SIGKILL)

            extraction.save_mel = save_half
        extract_part(task)

    extract_part = extract._extract_part
    monkeypatch.setattr(extract, "_extract_part", killed_in_the_middle)
    command.run("out", "--ray")
    assert killed.exists()
    assert files("out") == files("whole")


def test_a_complete_extraction_needs_no_cluster(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_noise("in/a.wav", seconds=0.1)
    assert extract.main(["in", "out", "--ray"]) == 0
    monkeypatch.setattr(extract, "run_shards", None)
    assert extract.main(["in", "out", "--ray"]) == 0
    assert "were already complete" in capsys.readouterr().out


def test_a_mistake_in_a_task_is_one_line(refused: Refused) -> None:
    write_noise("in/a.wav", seconds=0.1)
    Path("out").write_text("a file")
    refused(extract.main, "in", "out", "--ray")


def test_an_error_of_a_task_is_raised_as_it_is_and_one_that_always_dies_is_given_up(messages: Messages) -> None:
    def fails(item: int) -> int:
        raise WavegenError("cannot be done", where=f"item {item}", remedy="try another")

    counted = Path("deaths").absolute()
    counted.mkdir()

    def dies(item: int) -> int:
        (counted / str(os.getpid())).touch()
        os.kill(os.getpid(), signal.SIGKILL)
        return item

    with ray_cluster() as cluster:
        with messages.refused(WavegenError):
            cluster.map(fails, [3], sizes=[1], title="trying", progress=False)
        with messages.refused(WavegenError):
            cluster.map(dies, [3], sizes=[1], title="trying", progress=False)
    assert len(list(counted.iterdir())) == RETRIES + 1


def test_results_have_the_order_of_the_items() -> None:
    with ray_cluster() as cluster:
        assert cluster.map(str, list(range(20)), sizes=[1] * 20, title="counting", progress=False) == [
            *map(str, range(20))
        ]
        assert cluster.task_count(1000) == 24
        assert cluster.task_count(5) == 5
