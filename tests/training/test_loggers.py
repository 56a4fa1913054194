"""Every tracker takes curves, sounds and pictures, without a network, and goes on in the same run after a resume."""

import json
import os
import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, get_args

import numpy as np
import pytest
from support.commands import Refused
from support.corpus import write_corpus, write_recipe
from support.runs import rows, train

import wavegen.training.loggers
from wavegen.commands.train import main
from wavegen.errors import ConfigError
from wavegen.recipe import load_recipe
from wavegen.training.config import TrainingConfig
from wavegen.training.loggers import LoggerName, open_logger

# Warnings of the trackers' own packages.
pytestmark = pytest.mark.filterwarnings("ignore")

LOSS = "train/loss"
CLIP = "speaker/a clip"
SOUND, PICTURE = "generated", "spectrogram"  # below the clip's name


class Shown(NamedTuple):
    """What a tracker has: the number of runs, the loss by step, and the numbers of sounds and pictures of a clip."""

    runs: int
    losses: Mapping[int, float]
    sounds: int
    pictures: int


def in_tensorboard(run: Path, clip: str) -> Shown:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    losses = {event.step: event.value for event in events.Scalars(LOSS)}
    return Shown(1, losses, len(events.Audio(f"{clip}/{SOUND}")), len(events.Images(f"{clip}/{PICTURE}")))


def wandb_records(path: Path) -> Iterator[bytes]:
    """The records of an offline file: a LevelDB log, whose blocks of 32 KiB begin with a file header of 7 bytes."""
    data = path.read_bytes()
    position, record = 7, b""
    while position + 7 <= len(data):
        if 32768 - position % 32768 < 7:  # a block ends in zeros where no header fits
            position += 32768 - position % 32768
            continue
        _, length, kind = struct.unpack_from("<IHB", data, position)
        record += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield record
            record = b""


def in_wandb(run: Path, clip: str) -> Shown:
    from wandb.proto import wandb_internal_pb2

    ids, losses = set(), {}
    for path in sorted(run.glob("wandb/offline-run-*/*.wandb")):
        for data in wandb_records(path):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            if record.run.run_id:
                ids.add(record.run.run_id)
            items = {item.key or "/".join(item.nested_key): item.value_json for item in record.history.item}
            if LOSS in items:
                losses[json.loads(items["step"])] = json.loads(items[LOSS])
    media = [path for path in run.glob(f"wandb/offline-run-*/files/media/*/{clip}/*") if path.is_file()]
    return Shown(len(ids), losses, *(sum(name in path.name for path in media) for name in (SOUND, PICTURE)))


def in_mlflow(run: Path, clip: str) -> Shown:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=(run / "mlflow").as_uri())
    found = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    run_id = found[0].info.run_id
    losses = {metric.step: metric.value for metric in client.get_metric_history(run_id, LOSS)}
    sounds, pictures = (client.list_artifacts(run_id, f"{clip}/{name}") for name in (SOUND, PICTURE))
    return Shown(len(found), losses, len(sounds), len(pictures))


def in_trackio(run: Path, clip: str) -> Shown:
    from trackio.sqlite_storage import SQLiteStorage

    project = os.environ["TRACKIO_PROJECT"]
    found = SQLiteStorage.get_runs(project)
    logs = SQLiteStorage.get_logs(project, found[0])
    losses = {row["step"]: row[LOSS] for row in logs if LOSS in row}
    sounds, pictures = (sum(f"{clip}/{name}" in row for row in logs) for name in (SOUND, PICTURE))
    return Shown(len(found), losses, sounds, pictures)


READ: Mapping[str, Callable[[Path, str], Shown]] = {
    "tensorboard": in_tensorboard, "wandb": in_wandb, "mlflow": in_mlflow, "trackio": in_trackio,
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def trackio_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """trackio reads its folder when it is imported."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRACKIO_DIR", str(tmp_path_factory.mktemp("trackio")))
        yield


@pytest.fixture(params=get_args(LoggerName))
def tracker(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LoggerName:
    """A tracker whose package is installed, and may use no network and no folder of the user."""
    pytest.importorskip(wavegen.training.loggers._LOGGERS[request.param].module)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("TRACKIO_PROJECT", tmp_path.name)
    name: LoggerName = request.param
    return name


def test_a_run_is_shown_and_goes_on_after_a_resume(tracker: LoggerName, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    pixels = np.full((20, 30, 3), 128, np.uint8)
    sound = np.sin(np.arange(2400) / 10).astype(np.float32) * 2  # must be clipped, not refused
    for first in (0, 2):  # the second one repeats step 3
        logger = open_logger(tracker, run, first_step=first, settings={"seed": 1, "training": {"steps": 4}})
        for step in range(first + 1, first + 4 - first // 2):
            logger.scalars(step, {LOSS: step / 2, "train/gradient_norm": 1.0})
        logger.audio(first + 1, f"{CLIP}/{SOUND}", sound, 24000)
        logger.image(first + 1, f"{CLIP}/{PICTURE}", pixels)
        logger.close()
    shown = READ[tracker](run, CLIP)
    assert shown.runs == 1
    assert shown.losses == {1: 0.5, 2: 1.0, 3: 1.5, 4: 2.0}
    assert (shown.sounds, shown.pictures) == (2, 2)


def test_a_training_is_shown(tracker: LoggerName, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "r.yaml", write_corpus(tmp_path / "corpus"))
    out = tmp_path / "run"
    settings = ("training.listen_clips=1", "training.listen_frames=4", f"training.logger={tracker}")
    assert train(recipe, out, *settings) == 0
    losses = READ[tracker](out, "a0").losses
    assert losses == pytest.approx({row["step"]: row["loss"] for row in rows(out, "train")}, rel=1e-6)


def test_an_unknown_logger_is_refused(tmp_path: Path) -> None:
    assert TrainingConfig(steps=1).logger == "tensorboard"
    recipe = write_recipe(tmp_path / "r.yaml", write_corpus(tmp_path / "corpus"))
    with pytest.raises(ConfigError, match=r"training\.logger: found .tensorbord., expected 'tensorboard', 'wandb'"):
        load_recipe(recipe, ["training.logger=tensorbord"])


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("name", get_args(LoggerName))
def test_a_package_that_is_missing_is_named_before_any_work(
    name: LoggerName, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = write_recipe(Path("r.yaml"), write_corpus(Path("corpus")))
    monkeypatch.setattr(wavegen.training.loggers, "find_spec", lambda module: None)
    refused(main, str(recipe), "--out", "run", f"training.logger={name}")
