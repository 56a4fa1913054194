"""Where the time of a vocoder with a shaped source goes: the CPU time of each part of its chain.

The parts are timed in place, during one synthesis: each function that computes one is wrapped in a clock, so nothing
here repeats how the parts are connected. What no clock covers is the rest, so that the parts add up to the whole.
"""

import contextlib
import functools
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from wavegen.benchmark import ANY_LOG_MEL, RUN_S, Setting, frames_that_take, open_model
from wavegen.engines import TiledEngine
from wavegen.errors import ConfigError, WavegenError
from wavegen.progress import one_torch_thread
from wavegen.tables import text_table
from wavegen.vocoders import Vocoder
from wavegen.vocoders._source import SourceStage
from wavegen.vocoders._sourced import SourcedVocoder

INVERSE = "inverse of the mel"
PITCH = "pitch"
SOURCE = "source: excitation, prediction, filter"
NETWORK = "network"
OUTPUT_LAYER = "its output layer"
SPECTRA = "spectra, mel imposed, inverse STFT"
ITERATIONS = "iterations"
REST = "the rest"
PARTS = (INVERSE, PITCH, SOURCE, NETWORK, OUTPUT_LAYER, SPECTRA, ITERATIONS, REST)
"""The parts in the order in which they run. A vocoder may lack some of them."""


@dataclass(frozen=True)
class Part:
    """The time of a part.

    Attributes:
        ms_per_s: milliseconds of CPU time per second of sound.
        share: share of the sum of all parts.
    """

    ms_per_s: float
    share: float


@dataclass(frozen=True)
class Breakdown:
    """The parts of one engine's time, medians over several runs.

    Attributes:
        model: the model as the user named it.
        engine, precision: those of ``Setting``.
        parts: the parts that the vocoder has, by name, in the order of ``PARTS``.
        whole_ms_per_s: milliseconds of CPU time per second of sound, measured in runs without clocks. The sum of the
            parts exceeds it by what the clocks cost.
    """

    model: str
    engine: str
    precision: str
    parts: Mapping[str, Part]
    whole_ms_per_s: float


def measure_parts(
    model: str,
    settings: Sequence[Setting],
    *,
    runs: int = 5,
    notify: Callable[[str], None] = lambda line: None,
    on_run: Callable[[], None] = lambda: None,
) -> list[Breakdown]:
    """Measure the parts of a model with the engine and precision of each of ``settings``, in one thread.

    Args:
        model, runs, notify, on_run: those of ``wavegen.benchmark.measure``.
        settings: the settings; they take turns, run by run.

    Raises:
        WavegenError: the model does not exist, it has no parts, or no setting works.
    """
    with one_torch_thread():
        vocoders: dict[Setting, SourcedVocoder] = {}
        faults: dict[Setting, WavegenError] = {}
        for setting in settings:
            vocoder = _with_parts(open_model(model), model)
            try:
                vocoder.use_engine(setting.engine, setting.precision)
                vocoders[setting] = vocoder
            except WavegenError as error:
                faults[setting] = error
        if not vocoders:
            raise next(iter(faults.values()))
        for setting, fault in faults.items():
            notify(f"{setting.engine} {setting.precision} left out: {fault}")

        # All settings synthesise the same mel, of which the first makes sound in about RUN_S.
        first = next(iter(vocoders.values()))
        frames = frames_that_take(RUN_S, lambda frames: _seconds_of(first, _any_mel(first, frames)))
        mel = _any_mel(first, frames)
        sound_s = frames * first.mel.hop_length / first.mel.sample_rate_hz

        parts: dict[Setting, list[dict[str, float]]] = {setting: [] for setting in vocoders}
        wholes: dict[Setting, list[float]] = {setting: [] for setting in vocoders}
        for run in range(runs + 1):
            for setting, vocoder in vocoders.items():
                timed, whole = time_parts(vocoder, mel), _seconds_of(vocoder, mel)
                if run:  # the first one warms up
                    parts[setting].append(timed)
                    wholes[setting].append(whole)
                    on_run()
    return [summarize_parts(model, setting, parts[setting], wholes[setting], sound_s=sound_s) for setting in vocoders]


def summarize_parts(
    model: str, setting: Setting, parts: Sequence[Mapping[str, float]], wholes: Sequence[float], *, sound_s: float
) -> Breakdown:
    """Combine the runs of a setting: medians, per second of sound.

    Args:
        model, setting: what was measured.
        parts: seconds of each part in each run.
        wholes: seconds of each run without clocks.
        sound_s: duration of the sound.
    """
    ms_per_s = {part: 1000 * statistics.median(run[part] for run in parts) / sound_s for part in parts[0]}
    total = sum(ms_per_s.values())
    return Breakdown(
        model,
        setting.engine,
        setting.precision,
        {part: Part(value, value / total) for part, value in ms_per_s.items()},
        1000 * statistics.median(wholes) / sound_s,
    )


def parts_table(breakdowns: Sequence[Breakdown]) -> str:
    """Show the parts as a text table with two columns for each engine and precision, below the model's name."""
    cells = [["ms per second of sound"], *([part] for part in PARTS), ["sum"], ["without clocks"]]
    for breakdown in breakdowns:
        parts = breakdown.parts
        total = sum(part.ms_per_s for part in parts.values())
        column = [
            (f"{breakdown.engine} {breakdown.precision}", "share"),
            *((f"{parts[name].ms_per_s:.2f}", f"{parts[name].share:.1%}") if name in parts else ("-", "-")
              for name in PARTS),
            (f"{total:.2f}", f"{1:.1%}"),
            (f"{breakdown.whole_ms_per_s:.2f}", ""),
        ]  # fmt: skip
        cells = [[*row, *pair] for row, pair in zip(cells, column, strict=True)]
    shown = [row for row in cells if any(cell != "-" for cell in row[1:])]
    return f"{breakdowns[0].model}\n{text_table(shown)}"


def _with_parts(vocoder: Vocoder, where: object) -> SourcedVocoder:
    """Return the vocoder as one whose parts can be timed.

    Raises:
        ConfigError: it does not begin with a shaped source.
    """
    if isinstance(vocoder, SourcedVocoder) and isinstance(vocoder.stage, SourceStage):
        return vocoder
    raise ConfigError(
        "this vocoder does not begin with a shaped source, so its time has no such parts",
        where=where,
        remedy="leave --parts out, or give a spectral, parallel or source-filter vocoder",
    )


def _any_mel(vocoder: Vocoder, frames: int) -> Tensor:
    return torch.full((1, vocoder.mel.n_mels, frames), ANY_LOG_MEL)


# ---- one run ----------------------------------------------------------------------------------------------------


@torch.no_grad()
def time_parts(vocoder: SourcedVocoder, mel: Tensor) -> dict[str, float]:
    """Synthesise a mel, and measure the parts. The clocks cost some microseconds per call of a part.

    What the iterations take is the difference to a second synthesis without them.

    Args:
        vocoder: a vocoder on the CPU that is prepared for synthesis.
        mel: ``[batch, n_mels, frames]``.

    Returns:
        seconds of CPU time of each part that the vocoder has, in the order of ``PARTS``.
    """
    seconds = _timed(vocoder, mel)
    if vocoder.iterations:
        with _without_iterations(vocoder):
            once = _timed(vocoder, mel)[SPECTRA]
        seconds |= {SPECTRA: once, ITERATIONS: seconds[SPECTRA] - once}
    return {part: seconds[part] for part in PARTS if part in seconds}


def _timed(vocoder: SourcedVocoder, mel: Tensor) -> dict[str, float]:
    clock = _Clock()
    with contextlib.ExitStack() as replaced:
        for part, owner, name in _functions(vocoder):
            replaced.enter_context(_replaced(owner, name, clock.timing(part, getattr(owner, name))))
        clock.timing(REST, _synthesize)(vocoder, mel)
    return clock.seconds


def _synthesize(vocoder: Vocoder, mel: Tensor) -> Tensor:
    return vocoder.synthesize(mel, speaker=next(iter(vocoder.speakers), None))


def _seconds_of(vocoder: Vocoder, mel: Tensor) -> float:
    """Seconds of CPU time of a synthesis without clocks."""
    started = time.process_time()
    _synthesize(vocoder, mel)
    return time.process_time() - started


def _functions(vocoder: SourcedVocoder) -> Iterator[tuple[str, Any, str]]:
    """Each function that computes a part: the part, and the object and the name under which the chain finds it."""
    stage, projection, compiled = vocoder.stage, vocoder.projection, vocoder.compiled()
    yield PITCH, stage.network, "pitch"
    if compiled is None:
        yield INVERSE, stage.mel_inverse, "forward"
        yield SOURCE, vocoder.shaped, "whole"
        for owner, name in (
            (projection, "forward"),
            (projection, "impose"),
            (projection, "iterate"),
            (projection.istft, "analyse"),
            (projection.istft, "forward"),
        ):
            yield SPECTRA, owner, name
    else:
        yield INVERSE, compiled, "invert"
        yield SOURCE, compiled.shaped, "whole"
        yield SPECTRA, compiled, "projection"
        if compiled.stack is not None:
            yield NETWORK, compiled, "stack"
        if compiled.output is not None:
            yield OUTPUT_LAYER, compiled, "output"
    # All other layers are those of the vocoder's own network.
    for layer in vocoder.children():
        if layer is not stage and layer is not projection:
            yield OUTPUT_LAYER if layer is vocoder.frame_output else NETWORK, layer, "forward"
    yield NETWORK, TiledEngine, "run"  # the engine in the place of a parallel WaveNet's layers


class _Clock:
    """Measures the CPU time of functions that may call each other; each second counts for the innermost of them.

    Attributes:
        seconds: the time of each part so far.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._running: list[str] = []  # the innermost part is the last
        self._last = 0.0

    def timing(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, whose time counts for ``part``."""

        @functools.wraps(function, updated=())
        def timed(*arguments: Any, **options: Any) -> Any:
            self._count()
            self._running.append(part)
            try:
                return function(*arguments, **options)
            finally:
                self._count()
                self._running.pop()

        return timed

    def _count(self) -> None:
        """Add the time since the last call to the innermost part."""
        now = time.process_time()
        if self._running:
            part = self._running[-1]
            self.seconds[part] = self.seconds.get(part, 0.0) + now - self._last
        self._last = now


@contextlib.contextmanager
def _replaced(owner: Any, name: str, function: Callable[..., Any]) -> Iterator[None]:
    """Replace an attribute of an object or class for a while."""
    before = vars(owner).get(name)
    setattr(owner, name, function)
    try:
        yield
    finally:
        if before is None:  # it was that of the class
            delattr(owner, name)
        else:
            setattr(owner, name, before)


@contextlib.contextmanager
def _without_iterations(vocoder: SourcedVocoder) -> Iterator[None]:
    before = vocoder.synthesis_iterations
    vocoder.synthesis_iterations = -vocoder.refinement_iterations
    try:
        yield
    finally:
        vocoder.synthesis_iterations = before
