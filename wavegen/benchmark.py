"""The speed of a vocoder on this machine, with each of its engines and precisions.

Each row is measured in a process of its own, so that its memory and start-up time are its own. The processes take
turns, run by run, so that drift in the machine's speed affects all rows alike.
"""

import contextlib
import datetime
import importlib.metadata
import json
import multiprocessing
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from wavegen.checkpoint import load_vocoder
from wavegen.config import did_you_mean, load_yaml
from wavegen.cores import processor_name, usable_cores
from wavegen.errors import ConfigError, WavegenError
from wavegen.mel import profile
from wavegen.peers import PEERS, Speak
from wavegen.recipe import build, find_recipe, load_recipe, shipped_recipes
from wavegen.synthesis import LIVE_CHUNK_FRAMES
from wavegen.tables import text_table
from wavegen.vocoders import AutoregressiveVocoder, Vocoder
from wavegen.vocoders.wavenet import WaveNet, WaveNetConfig

SHAPES: dict[str, dict[str, Any]] = {
    "wavenet-small": {"residual_channels": 32, "skip_channels": 128, "cycles": 2},
    "wavenet-medium": {"residual_channels": 64, "skip_channels": 128, "cycles": 2},
    "wavenet-large": {"residual_channels": 128, "skip_channels": 256, "cycles": 3},
}
"""WaveNets with random weights that can be measured by name: 256 mu-law classes, kernel 2, cycles of 10 blocks."""

_PACKAGES = ("wavegen", "torch", "numpy", "numba")
RUN_S = 0.5  # approximate duration of one run
ANY_LOG_MEL = -5.0  # of the mels that are spoken: time does not depend on them
LOCK_STEP_BATCH = 16  # utterances that a WaveNet's compiled engine generates in lock step


@dataclass(frozen=True)
class Setting:
    """The configuration that one row measures.

    Attributes:
        engine: name of the engine that computes the samples, or of a peer in ``PEERS``.
        precision: precision of the engine's weights.
        threads: number of threads that generate at the same time.
        batch: number of utterances that each thread generates at once.
    """

    engine: str
    precision: str
    threads: int = 1
    batch: int = 1


REFERENCE = Setting("torch", "float32")


class Run(NamedTuple):
    """One measurement.

    Attributes:
        samples_per_s: samples per second, summed over all utterances.
        first_audio_s: seconds from the first mel frames to their samples.
        peak_mb: peak memory of the process so far; None if the system does not report it.
    """

    samples_per_s: float
    first_audio_s: float
    peak_mb: float | None


@dataclass(frozen=True)
class Row:
    """Medians over the runs of one setting.

    Attributes:
        model: the model as the user named it.
        engine, precision, threads, batch: see ``Setting``.
        samples_per_s: samples per second, summed over all utterances.
        x_realtime: seconds of audio per second.
        x_reference: ``samples_per_s`` relative to the torch engine with one thread and one utterance.
        first_audio_ms: time from the first mel frames to their samples, after loading.
        peak_mb: peak memory of the whole process, torch included.
        startup_s: time from the end of ``import torch, wavegen`` until the vocoder is ready. Compiled code is
            already on disk.
    """

    model: str
    engine: str
    precision: str
    threads: int
    batch: int
    samples_per_s: float
    x_realtime: float
    x_reference: float | None
    first_audio_ms: float
    peak_mb: float | None
    startup_s: float


def choose_settings(
    model: str,
    *,
    engine: str = "auto",
    precision: str | None = None,
    batch: int | None = None,
    threads: int = 1,
    peers: bool = False,
) -> list[Setting]:
    """List the settings that a model can be measured with.

    Args:
        model: the model, named as in ``measure``.
        engine: an engine of the vocoder, or ``"auto"`` for all of them.
        precision: a precision of the engine's weights; None for all of them.
        batch: number of utterances at once; None for one and, with the engines that gain from it, sixteen.
        threads: number of threads that generate at the same time.
        peers: whether to add a setting for each vocoder of others.

    Raises:
        ConfigError: the model does not exist, or its vocoder does not have the engine in that precision.
    """
    vocoder = open_model(model)
    settings = []
    for name, precisions in vocoder.engines.items():
        lock_step = isinstance(vocoder, AutoregressiveVocoder) and name != REFERENCE.engine
        batches = [batch] if batch else [1, LOCK_STEP_BATCH] if lock_step else [1]
        settings += [Setting(name, weights, threads, size) for size in batches for weights in precisions]
    chosen = [
        setting for setting in settings if engine in ("auto", setting.engine) and precision in (None, setting.precision)
    ]
    if not chosen:
        wanted = f"engine {engine}" if engine != "auto" else "engine"
        if precision is not None:
            wanted += f" with precision {precision}"
        available = ", ".join(f"{name} ({' or '.join(precisions)})" for name, precisions in vocoder.engines.items())
        raise ConfigError(f"this vocoder has no {wanted}", where=model, remedy=f"its engines are {available}")
    if peers:
        chosen += [Setting(name, "float32", threads, batch or 1) for name in PEERS]
    return chosen


def measure(
    model: str,
    settings: Sequence[Setting],
    *,
    runs: int = 5,
    notify: Callable[[str], None] = lambda line: None,
    on_run: Callable[[], None] = lambda: None,
) -> list[Row]:
    """Measure a model with the reference setting and with each of ``settings``.

    Args:
        model: a run's folder, a model file, a recipe's name, or a name in ``SHAPES``.
        settings: the settings to measure beside the reference.
        runs: number of runs that the medians are over.
        notify: receives a line about each setting that does not work on this machine.
        on_run: called after each run of each setting.

    Returns:
        the rows, the reference first.

    Raises:
        WavegenError: the model does not exist, or does not run at all.
    """
    wanted = list(dict.fromkeys((REFERENCE, *settings)))
    # Compile now what is not on disk yet, so that the start-up time of every row is that of a second start.
    for setting in {replace(setting, threads=1, batch=1) for setting in wanted if setting.engine == "numba"}:
        with _Worker(model, setting):
            pass

    workers: list[_Worker] = []
    try:
        for setting in wanted:
            worker = _Worker(model, setting)
            if worker.fault is None:
                workers.append(worker)
            elif setting == REFERENCE:
                raise WavegenError(worker.fault)
            else:
                worker.close()
                notify(f"{setting.engine} {setting.precision} left out: {worker.fault}")
        for _ in range(runs):
            for worker in workers:
                worker.run()
                on_run()
        rows = [
            summarize(model, worker.setting, worker.runs, sample_rate_hz=worker.rate, startup_s=worker.startup_s)
            for worker in workers
        ]
    finally:
        for worker in workers:
            worker.close()
    return [replace(row, x_reference=row.samples_per_s / rows[0].samples_per_s) for row in rows]


def summarize(model: str, setting: Setting, runs: Sequence[Run], *, sample_rate_hz: int, startup_s: float) -> Row:
    """Combine the runs of a setting: the median of the speeds and delays, and the last peak of memory."""
    samples_per_s = statistics.median(run.samples_per_s for run in runs)
    return Row(
        model,
        **asdict(setting),
        samples_per_s=samples_per_s,
        x_realtime=samples_per_s / sample_rate_hz,
        x_reference=None,
        first_audio_ms=1000 * statistics.median(run.first_audio_s for run in runs),
        peak_mb=runs[-1].peak_mb,
        startup_s=startup_s,
    )


def table(rows: Sequence[Row]) -> str:
    """Show the rows as a text table below the model's name."""
    heads = {
        "engine": "engine", "precision": "precision", "threads": "threads", "batch": "batch",
        "samples_per_s": "samples/s", "x_realtime": "x real time", "x_reference": "x reference",
        "first_audio_ms": "first audio ms", "peak_mb": "peak MB", "startup_s": "start-up s",
    }  # fmt: skip
    decimals = {
        "samples_per_s": 0, "x_realtime": 2, "x_reference": 1, "first_audio_ms": 1, "peak_mb": 0, "startup_s": 2,
    }  # fmt: skip

    def cell(key: str, value: Any) -> str:
        if value is None:
            return "-"
        return f"{value:,.{decimals[key]}f}" if key in decimals else str(value)

    cells = [list(heads.values()), *([cell(key, asdict(row)[key]) for key in heads] for row in rows)]
    return f"{rows[0].model}\n{text_table(cells, left_aligned=0)}"


def to_json(rows: Sequence[Any], key: str = "rows") -> str:
    """Return the rows as JSON, with what they depend on: the date, the processor and the versions of packages.

    Args:
        rows: dataclasses, such as ``Row``; each becomes an object with a key for each field.
        key: the key of their list.
    """
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    card = {
        "made_by": "wavegen-bench",
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "processor": processor_name(),
        "cores": usable_cores(),
        "system": platform.platform(),
        "versions": versions,
        key: [asdict(row) for row in rows],
    }
    return json.dumps(card, indent=1) + "\n"


def frames_that_take(seconds: float, generate: Callable[[int], float]) -> int:
    """Find a number of frames that takes about ``seconds``; ``generate`` takes a number and returns its seconds."""
    frames = 1
    while (taken := generate(frames)) < seconds / 2:
        frames = max(2 * frames, round(frames * seconds / max(taken, 1e-9) / 2))
    return frames


def open_model(model: str) -> Vocoder:
    """Load a model, or build one with random weights from a recipe or from a name in ``SHAPES``.

    Raises:
        WavegenError: the model does not exist.
    """
    torch.manual_seed(0)
    if model in SHAPES:
        config = WaveNetConfig(depth=10, kernel_size=2, **SHAPES[model])
        return WaveNet(profile("bigvgan-24k"), config).prepared_for_synthesis()
    if model in shipped_recipes() or Path(model).suffix in (".yaml", ".yml"):
        network = build(load_recipe(find_recipe(model)))
        if not isinstance(network, Vocoder):
            raise ConfigError("does not train a vocoder", where=model, remedy="give a recipe that does")
        return network.prepared_for_synthesis()
    if not Path(model).exists():
        vocoders = [name for name in shipped_recipes() if "model" not in load_yaml(find_recipe(name))]
        remedy = f"give a run's folder, a recipe or a name; {did_you_mean(model, (*SHAPES, *vocoders))}"
        raise ConfigError(f"no such run, recipe or name: {model!r}", remedy=remedy)
    return load_vocoder(model)


# ---- the process of one row -------------------------------------------------------------------------------------


class _Worker:
    """A process that loads a model and measures one setting on request."""

    def __init__(self, model: str, setting: Setting) -> None:
        self.setting = setting
        self.runs: list[Run] = []
        context = multiprocessing.get_context("spawn")  # a forked process would share memory and torch's threads
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, model, setting), daemon=True)
        self._process.start()
        theirs.close()
        self.rate, self.startup_s, self.fault = self._answer()

    def __enter__(self) -> "_Worker":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def run(self) -> None:
        """Measure once."""
        self._pipe.send("run")
        self.runs.append(self._answer())

    def close(self) -> None:
        """End the process."""
        self._pipe.close()
        self._process.join()

    def _answer(self) -> Any:
        try:
            return self._pipe.recv()
        except EOFError:
            self._process.join()
            raise WavegenError(
                f"the process that measures {self.setting} ended with exit code {self._process.exitcode}",
                remedy="see its output above, and check whether memory ran out",
            ) from None


def _serve(pipe: Connection, model: str, setting: Setting) -> None:
    """Load the model, then measure once for every request until the pipe is closed."""
    torch.set_num_threads(1)
    started = time.perf_counter()
    try:
        vocoder = open_model(model)
        mel = vocoder.mel
        if setting.engine in PEERS:
            started = time.perf_counter()
            speak: Speak = PEERS[setting.engine](mel)
        else:
            vocoder.use_engine(setting.engine, setting.precision)
            speak = partial(stream_in_one, vocoder)
    except WavegenError as error:
        pipe.send((0, 0.0, str(error)))
        return
    pipe.send((mel.sample_rate_hz, time.perf_counter() - started, None))

    def seconds_of(batch: int, frames: int) -> float:
        """Time what is computed of ``frames`` frames of ``batch`` utterances."""
        given = torch.full((batch, mel.n_mels, frames), ANY_LOG_MEL)
        started = time.perf_counter()
        speak(given)
        return time.perf_counter() - started

    with ThreadPoolExecutor(setting.threads) as pool:

        def generate(frames: int) -> float:
            """Time all threads while each generates ``frames`` frames of ``batch`` utterances."""
            started = time.perf_counter()
            list(pool.map(lambda _: seconds_of(setting.batch, frames), range(setting.threads)))
            return time.perf_counter() - started

        frames = frames_that_take(RUN_S, generate)
        while True:
            try:
                pipe.recv()
            except EOFError:
                return
            first_audio_s = min(seconds_of(1, LIVE_CHUNK_FRAMES) for _ in range(3))
            samples = setting.threads * setting.batch * frames * mel.hop_length
            pipe.send(Run(samples / generate(frames), first_audio_s, _peak_mb()))


def stream_in_one(vocoder: Vocoder, mel: Tensor) -> Tensor:
    """The sound of a mel ``[batch, n_mels, frames]``, streamed in one chunk, of whatever speaker."""
    samples, state = vocoder.step(mel, vocoder.initial_state(len(mel), speaker=next(iter(vocoder.speakers), None)))
    return torch.cat((samples, vocoder.flush(state)), dim=-1)


def _peak_mb() -> float | None:
    """Return the peak memory of this process; None if the system does not report it."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
