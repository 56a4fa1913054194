"""Extraction and synthesis of many short clips on Ray, with a worker killed in the middle, compared with one process.

    python tests/benchmarks/cluster.py --clips 1000 --processes 1 2 4

Prints the wall time of one process and of each number of worker processes, with the start of the cluster and the merge,
and whether all files are equal.
"""

import argparse
import os
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import ray
import soundfile

from wavegen.commands import extract, synth
from wavegen.shards import FOLDER

RATE = 24000


def write_clips(folder: Path, count: int, seconds: float) -> None:
    """Write clips of noise with a slow envelope, one in ten of them at another sample rate."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    for index in range(count):
        rate = 16000 if index % 10 == 9 else RATE
        samples = random.uniform(-0.3, 0.3, round(seconds * rate))
        soundfile.write(folder / f"{index:04d}.wav", samples * np.hanning(len(samples)), rate)


def contents(folder: Path) -> dict[str, bytes]:
    """All files below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def workers() -> list[int]:
    """Ids of the processes below this one that do a task at the moment."""
    parents, titles = {}, {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                titles[int(entry.name)] = (entry / "cmdline").read_bytes()
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue

    def is_ours(process: int) -> bool:
        while process in parents:
            if process == os.getpid():
                return True
            process = parents[process]
        return False

    return [process for process, title in titles.items() if title.startswith(b"ray::_run") and is_ours(process)]


def kill_one(out: Path, tasks: int, killed: list[int]) -> None:
    """Wait until a third of the tasks has finished, then kill a process that is at work."""
    while len(list((out / FOLDER).glob("*/part.json"))) < tasks // 3:
        time.sleep(0.02)
    while not killed:
        for process in workers():
            os.kill(process, signal.SIGKILL)
            killed.append(process)
            return


def main() -> None:
    """Measure extraction, then synthesis of the extracted mels."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4])
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        write_clips(Path("in"), arguments.clips, arguments.seconds)
        for name, command in (
            ("extract", lambda out, *more: extract.main(["in", out, "--jobs", "1", *more])),
            ("synth", lambda out, *more: synth.main(["extract/mels", out, "--model", "default", "--jobs", "1", *more])),
        ):
            began = time.perf_counter()
            assert command(name) == 0
            print(f"{name}: one process {time.perf_counter() - began:.1f} s", file=sys.stderr, flush=True)
            whole = contents(Path(name))
            for count in arguments.processes:
                out = Path(f"{name}-{count}")
                killed: list[int] = []
                began = time.perf_counter()
                ray.init(num_cpus=count, include_dashboard=False, log_to_driver=False)
                thread = threading.Thread(target=kill_one, args=(out, 8 * count, killed), daemon=True)
                thread.start()
                assert command(str(out), "--ray") == 0
                wall_s = time.perf_counter() - began
                ray.shutdown()
                print(
                    f"{name}: {count} worker processes, {len(killed)} killed: {wall_s:.1f} s, "
                    f"{len(whole)} files {'equal' if contents(out) == whole else 'DIFFER'}",
                    file=sys.stderr,
                    flush=True,
                )


if __name__ == "__main__":
    main()
