"""Where a training shows its curves, sounds and pictures: TensorBoard, or another experiment tracker.

A tracker is an adapter of three methods, and an entry in ``LOGGERS``. The packages of all but TensorBoard are extras.
A resumed run goes on in the tracker's run of before; steps that it repeats are sent again.
"""

import os
import tempfile
import uuid
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, get_args

import numpy as np

from wavegen.audio import to_int16
from wavegen.errors import ConfigError
from wavegen.files import atomic_write

LoggerName = Literal["tensorboard", "wandb", "mlflow", "trackio"]
PROJECT = "wavegen"
"""The project, or experiment, that runs belong to where the user's environment names none."""


class Logger(Protocol):
    """Takes what a training shows."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Add one point to each curve; names such as ``train/loss``."""

    def audio(self, step: int, name: str, samples: np.ndarray, sample_rate_hz: int) -> None:
        """Add a sound, float32 ``[samples]`` in ±1."""

    def image(self, step: int, name: str, pixels: np.ndarray) -> None:
        """Add a picture, uint8 ``[height, width, 3]``."""

    def close(self) -> None:
        """Send what is buffered, and end."""


def open_logger(name: LoggerName, run: Path, *, first_step: int, settings: Mapping[str, Any]) -> Logger:
    """Open a tracker for a run.

    Args:
        name: the tracker.
        run: the run's folder; its name is the name of the run there.
        first_step: the step that the run starts or resumes at.
        settings: the recipe, which trackers list as the settings of the run.

    Raises:
        ConfigError: the tracker's package is not installed.
    """
    require_logger(name)
    return _LOGGERS[name].open(run, first_step, settings)


def require_logger(name: LoggerName) -> None:
    """Raise ConfigError, which names the package, if a tracker's package is not installed."""
    needed = _LOGGERS[name]
    if find_spec(needed.module) is None:
        raise ConfigError(
            f"{name} needs the package {needed.package}, which is not installed",
            where="training.logger",
            remedy=f"pip install 'wavegen[{name}]', or set it to tensorboard",
        )


class TensorBoardLogger:
    """Event files in the run's folder; events of steps after ``first_step`` that are already there are hidden."""

    def __init__(self, run: Path, first_step: int, settings: Mapping[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter  # here, because it is slow to import

        self.writer = SummaryWriter(str(run / "tensorboard"), purge_step=first_step + 1)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Add one point to each curve."""
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def audio(self, step: int, name: str, samples: np.ndarray, sample_rate_hz: int) -> None:
        """Add a sound."""
        self.writer.add_audio(name, samples.clip(-1, 1)[None], step, sample_rate=sample_rate_hz)

    def image(self, step: int, name: str, pixels: np.ndarray) -> None:
        """Add a picture."""
        self.writer.add_image(name, pixels, step, dataformats="HWC")

    def close(self) -> None:
        """Write buffered events and close the files."""
        self.writer.close()


class WandbLogger:
    """Weights & Biases; ``WANDB_MODE=offline`` writes to the run's folder only.

    The step is a value beside the others, because W&B drops points whose own step is not larger than the last one, such
    as those that a resumed run repeats.
    """

    def __init__(self, run: Path, first_step: int, settings: Mapping[str, Any]) -> None:
        import wandb

        self.wandb = wandb
        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=run.absolute().name,
            id=_kept_id(run, "wandb"),
            resume="allow",
            dir=str(run),
            config=dict(settings),
        )
        self.run.define_metric("*", step_metric="step")

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Add one point to each curve."""
        self.run.log({**values, "step": step})

    def audio(self, step: int, name: str, samples: np.ndarray, sample_rate_hz: int) -> None:
        """Add a sound."""
        sound = self.wandb.Audio(samples.clip(-1, 1), sample_rate=sample_rate_hz)
        self.run.log({name: sound, "step": step})

    def image(self, step: int, name: str, pixels: np.ndarray) -> None:
        """Add a picture."""
        self.run.log({name: self.wandb.Image(pixels), "step": step})

    def close(self) -> None:
        """Send what is buffered, and end the run."""
        self.run.finish()


class MlflowLogger:
    """MLflow, at ``MLFLOW_TRACKING_URI`` or else in the run's folder; sounds and pictures are artifacts."""

    def __init__(self, run: Path, first_step: int, settings: Mapping[str, Any]) -> None:
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # it needs no server and no database
        from mlflow import MlflowClient

        where = os.environ.get("MLFLOW_TRACKING_URI") or (run.absolute() / "mlflow").as_uri()
        self.client = MlflowClient(tracking_uri=where)
        kept = _id_file(run, "mlflow")
        if kept.exists():
            self.run_id = kept.read_text(encoding="utf-8").strip()
            self.client.update_run(self.run_id, status="RUNNING")
            return
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        experiment = self.client.get_experiment_by_name(name)
        experiment_id = experiment.experiment_id if experiment else self.client.create_experiment(name)
        self.run_id = self.client.create_run(experiment_id, run_name=run.absolute().name).info.run_id
        for key, value in _flat(settings).items():
            self.client.log_param(self.run_id, key, str(value)[:_MLFLOW_MAX_VALUE])
        _write_id(kept, self.run_id)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Add one point to each curve."""
        for name, value in values.items():
            self.client.log_metric(self.run_id, name, value, step=step)

    def audio(self, step: int, name: str, samples: np.ndarray, sample_rate_hz: int) -> None:
        """Add a sound as ``NAME/step-STEP.wav``."""
        import soundfile

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, f"step-{step:08d}.wav")
            soundfile.write(path, to_int16(samples), sample_rate_hz, subtype="PCM_16")
            self.client.log_artifact(self.run_id, str(path), name)

    def image(self, step: int, name: str, pixels: np.ndarray) -> None:
        """Add a picture as ``NAME/step-STEP.png``."""
        self.client.log_image(self.run_id, pixels, f"{name}/step-{step:08d}.png")

    def close(self) -> None:
        """End the run."""
        self.client.set_terminated(self.run_id)


class TrackioLogger:
    """trackio, which keeps runs on this machine; ``TRACKIO_SPACE_ID`` sends them to a Space."""

    def __init__(self, run: Path, first_step: int, settings: Mapping[str, Any]) -> None:
        import trackio

        self.trackio = trackio
        # One run name for each run's folder: several folders may end in the same name.
        self.run = trackio.init(
            project=os.environ.get("TRACKIO_PROJECT", PROJECT),
            name=f"{run.absolute().name}-{_kept_id(run, 'trackio')[:8]}",
            resume="allow",
            config=_flat(settings),
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Add one point to each curve."""
        self.run.log(dict(values), step=step)

    def audio(self, step: int, name: str, samples: np.ndarray, sample_rate_hz: int) -> None:
        """Add a sound, as integers: trackio would amplify floats to full scale."""
        self.run.log({name: self.trackio.Audio(to_int16(samples), sample_rate=sample_rate_hz)}, step=step)

    def image(self, step: int, name: str, pixels: np.ndarray) -> None:
        """Add a picture."""
        self.run.log({name: self.trackio.Image(np.ascontiguousarray(pixels))}, step=step)

    def close(self) -> None:
        """Send what is buffered, and end the run."""
        self.run.finish()


class _Entry(NamedTuple):
    """How to open a tracker, the module that it needs, and the package that has it."""

    open: Callable[[Path, int, Mapping[str, Any]], Logger]
    module: str
    package: str


_LOGGERS: Mapping[LoggerName, _Entry] = {
    "tensorboard": _Entry(TensorBoardLogger, "tensorboard", "tensorboard"),
    "wandb": _Entry(WandbLogger, "wandb", "wandb"),
    "mlflow": _Entry(MlflowLogger, "mlflow", "mlflow-skinny"),
    "trackio": _Entry(TrackioLogger, "trackio", "trackio"),
}
assert tuple(_LOGGERS) == get_args(LoggerName)

_MLFLOW_MAX_VALUE = 6000  # characters of a parameter


def _id_file(run: Path, tracker: str) -> Path:
    return run / f"{tracker}-run.txt"


def _write_id(path: Path, text: str) -> None:
    with atomic_write(path) as beside:
        beside.write_text(f"{text}\n", encoding="utf-8")


def _kept_id(run: Path, tracker: str) -> str:
    """The id of a run in a tracker: a new one, which the run's folder keeps for when it is resumed."""
    path = _id_file(run, tracker)
    if not path.exists():
        _write_id(path, uuid.uuid4().hex)
    return path.read_text(encoding="utf-8").strip()


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as dotted keys, such as ``training.steps``."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat
