"""A speed card: how fast a vocoder is on this machine, with every engine that runs it here.

Each row has a process of its own, so that memory and start-up are its own too. They are timed in turn, round after
round, so that a machine whose speed drifts is no kinder to one row than to another.
"""

import json
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from wavegen.checkpoint import load_vocoder
from wavegen.errors import ConfigError, WavegenError
from wavegen.mel import profile
from wavegen.recipe import build, find_recipe, load_recipe, shipped_recipes
from wavegen.synthesis import LIVE_PIECE_FRAMES
from wavegen.vocoders import AutoregressiveVocoder, Vocoder
from wavegen.vocoders.wavenet import WaveNet, WaveNetConfig

SHAPES: dict[str, dict[str, Any]] = {
    "wavenet-small": {"residual_channels": 32, "skip_channels": 128, "cycles": 2},
    "wavenet-medium": {"residual_channels": 64, "skip_channels": 128, "cycles": 2},
    "wavenet-large": {"residual_channels": 128, "skip_channels": 256, "cycles": 3},
}
"""WaveNets with random weights that can be measured by name: 256 mu-law classes, kernel 2, cycles of 10 blocks."""

RUN_S = 0.5  # of one measurement, about


@dataclass(frozen=True)
class Setting:
    """What is measured in one row.

    Attributes:
        engine: what generates a WaveNet's samples; ``"torch"`` for other vocoders.
        precision: of the engine's weights.
        threads: threads that generate at the same time.
        batch: utterances that each of them generates at once.
    """

    engine: str
    precision: str
    threads: int = 1
    batch: int = 1


@dataclass(frozen=True)
class Row:
    """A row of the card; medians of several runs.

    Attributes:
        model: as it was asked for.
        engine, precision, threads, batch: see Setting.
        samples_per_s: of all utterances together.
        x_realtime: the same in seconds of sound per second.
        x_reference: the same against the torch engine with one thread and one utterance.
        first_audio_ms: from the first mel frames to their samples, when all is loaded.
        peak_mb: largest memory of the whole process, torch included.
        startup_s: from when torch and this package are imported to a vocoder that is ready to speak, its compiled
            code being on disk.
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


REFERENCE = Setting("torch", "float32")


def measure(
    model: str,
    settings: Sequence[Setting],
    *,
    runs: int = 5,
    note: Callable[[str], None] = lambda line: None,
    on_run: Callable[[], None] = lambda: None,
) -> list[Row]:
    """Measure a model with each of ``settings``, the reference first.

    Args:
        model: a run's folder, a model file, a recipe's name, or one of :data:`SHAPES`.
        settings: what to measure beside the reference.
        runs: measurements of which the median counts.
        note: takes a line about a setting that does not work here.
        on_run: called after each of ``runs`` rounds for each setting that works.

    Raises:
        WavegenError: no such model, or it does not run at all.
    """
    wanted = list(dict.fromkeys((REFERENCE, *settings)))
    # Compile what is not on disk yet, so that every row's start-up is that of a second start.
    for setting in {replace(setting, threads=1, batch=1) for setting in wanted if setting.engine != "torch"}:
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
                note(f"{setting.engine} {setting.precision} left out: {worker.fault}")
        for _ in range(runs):
            for worker in workers:
                worker.run()
                on_run()
        rows = [worker.row(model) for worker in workers]
    finally:
        for worker in workers:
            worker.close()
    return [replace(row, x_reference=row.samples_per_s / rows[0].samples_per_s) for row in rows]


def default_settings(model: str) -> list[Setting]:
    """All that can be measured for a model: its engines and precisions, one utterance and as many as suit.

    Raises:
        WavegenError: no such model.
    """
    vocoder = _open(model)
    batches = (1, 16) if isinstance(vocoder, AutoregressiveVocoder) else (1,)
    compiled = [
        Setting(engine, precision, batch=batch)
        for engine, precisions in vocoder.engines.items()
        for batch in batches
        for precision in precisions
        if engine != REFERENCE.engine
    ]
    return compiled or [REFERENCE]


def table(rows: Sequence[Row]) -> str:
    """The card as text."""
    heads = {
        "engine": "engine", "precision": "precision", "threads": "threads", "batch": "batch",
        "samples_per_s": "samples/s", "x_realtime": "x real time", "x_reference": "x reference",
        "first_audio_ms": "first audio ms", "peak_mb": "peak MB", "startup_s": "start-up s",
    }  # fmt: skip
    decimals = {
        "samples_per_s": 0,
        "x_realtime": 2,
        "x_reference": 1,
        "first_audio_ms": 1,
        "peak_mb": 0,
        "startup_s": 2,
    }

    def cell(key: str, value: Any) -> str:
        return "-" if value is None else f"{value:,.{decimals[key]}f}" if key in decimals else str(value)

    cells = [list(heads.values()), *([cell(key, asdict(row)[key]) for key in heads] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(c.rjust(width) for c, width in zip(line, widths, strict=True)) for line in cells]
    return "\n".join([rows[0].model, *lines])


def to_json(rows: Sequence[Row]) -> str:
    """The rows as a JSON list of objects, a key for each field of :class:`Row`."""
    return json.dumps([asdict(row) for row in rows], indent=1) + "\n"


# ---- one row's process ------------------------------------------------------------------------------------------


class _Worker:
    """A process that measures one setting when it is told to."""

    def __init__(self, model: str, setting: Setting) -> None:
        self.setting = setting
        context = multiprocessing.get_context("spawn")  # a fork would share memory and torch's threads with this one
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, model, setting), daemon=True)
        self._process.start()
        theirs.close()
        self.rate, self.startup_s, self.fault = self._answer()
        self._speeds: list[float] = []
        self._firsts: list[float] = []
        self._peak_mb: float | None = None

    def __enter__(self) -> "_Worker":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def run(self) -> None:
        """Measure once."""
        self._pipe.send("run")
        samples_per_s, first_s, self._peak_mb = self._answer()
        self._speeds.append(samples_per_s)
        self._firsts.append(first_s)

    def row(self, model: str) -> Row:
        """What was measured, without the ratio to the reference."""
        samples_per_s = statistics.median(self._speeds)
        first_ms = 1000 * statistics.median(self._firsts)
        return Row(
            model, **asdict(self.setting), samples_per_s=samples_per_s, x_realtime=samples_per_s / self.rate,
            x_reference=None, first_audio_ms=first_ms, peak_mb=self._peak_mb, startup_s=self.startup_s,
        )  # fmt: skip

    def close(self) -> None:
        """End the process."""
        self._pipe.close()
        self._process.join()

    def _answer(self) -> Any:
        try:
            return self._pipe.recv()
        except EOFError:
            self._process.join()
            what = f"the process that measures {self.setting} ended with exit code {self._process.exitcode}"
            raise WavegenError(what, remedy="see its output above, and whether memory ran out") from None


def _serve(pipe: Connection, model: str, setting: Setting) -> None:
    """Load the model, then measure for as long as the other side asks."""
    torch.set_num_threads(1)
    started = time.perf_counter()
    try:
        vocoder = _open(model)
        vocoder.use_engine(setting.engine, setting.precision)
    except WavegenError as error:
        pipe.send((0, 0.0, str(error)))
        return
    pipe.send((vocoder.mel.sample_rate_hz, time.perf_counter() - started, None))
    frames = 1
    with ThreadPoolExecutor(setting.threads) as pool:

        def generate(frames: int) -> float:
            """Seconds that all threads take for ``frames`` of ``batch`` utterances each."""
            started = time.perf_counter()
            list(pool.map(lambda _: _generate(vocoder, setting.batch, frames), range(setting.threads)))
            return time.perf_counter() - started

        while (seconds := generate(frames)) < RUN_S / 2:
            frames = max(2 * frames, round(frames * RUN_S / seconds / 2))
        while True:
            try:
                pipe.recv()
            except EOFError:
                return
            first_s = min(_generate(vocoder, 1, LIVE_PIECE_FRAMES) for _ in range(3))
            samples = setting.threads * setting.batch * frames * vocoder.mel.hop_length
            pipe.send((samples / generate(frames), first_s, _peak_mb()))


def _generate(vocoder: Vocoder, batch: int, frames: int) -> float:
    """Seconds that it takes to make the sound of ``frames`` frames, as a stream would."""
    mel = torch.full((batch, vocoder.mel.n_mels, frames), -5.0)
    started = time.perf_counter()
    _, state = vocoder.step(mel, vocoder.initial_state(batch, speaker=next(iter(vocoder.speakers), None)))
    vocoder.flush(state)
    return time.perf_counter() - started


def _open(model: str) -> Vocoder:
    """The vocoder that a user means."""
    torch.manual_seed(0)
    if model in SHAPES:
        return WaveNet(
            profile("bigvgan-24k"), WaveNetConfig(depth=10, kernel_size=2, **SHAPES[model])
        ).prepared_for_synthesis()
    if model in shipped_recipes() or Path(model).suffix in (".yaml", ".yml"):
        return build(load_recipe(find_recipe(model))).prepared_for_synthesis()
    if not Path(model).exists():
        known = ", ".join((*SHAPES, *shipped_recipes()))
        raise ConfigError(f"no such run, recipe or name: {model!r}", remedy=f"give a run's folder or one of {known}")
    return load_vocoder(model)


def _peak_mb() -> float | None:
    """The largest memory that this process ever had; None where the system does not say."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
