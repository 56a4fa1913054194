"""A model of a few lines, trained by the same loop as every vocoder: resumed bit for bit, saved, refused."""

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Literal
from unittest import mock

import pytest
import torch
from support.corpus import write_corpus
from support.messages import Messages
from support.runs import assert_same_checkpoint, checkpoint, rows
from torch import Tensor, nn

from wavegen import checkpoint as checkpoints
from wavegen.blocks import Context, DilatedConv1d
from wavegen.checkpoint import find_model, load_checkpoint, load_model, load_vocoder
from wavegen.corpora.extraction import extract
from wavegen.corpora.folders import find_recordings
from wavegen.corpora.manifest import Clip
from wavegen.errors import CheckpointError, ConfigError
from wavegen.mel import MelSpec, profile
from wavegen.models import MODELS, Model, ModelBatch, ModelConfig, Shown
from wavegen.noise import uniform_noise
from wavegen.training import loop
from wavegen.training.config import TrainingConfig
from wavegen.training.run_folder import RunFolder

MEL = profile("bigvgan-24k")


class ToyConfig(ModelConfig):
    """The shape of a model that predicts the mel from itself with noise."""

    name: Literal["test_seam"] = "test_seam"

    @classmethod
    def examples(cls) -> tuple["ToyConfig", ...]:
        return (cls(),)


class Toy(Model):
    """Removes noise from a mel; each step draws it from the seeds."""

    Config = ToyConfig
    drawn: ClassVar[list[list[int]]] = []
    heard: ClassVar[list[Tensor]] = []
    others = 2

    def __init__(self, mel: MelSpec, config: ToyConfig | None = None) -> None:
        super().__init__(mel)
        self.layer = DilatedConv1d(mel.n_mels, mel.n_mels, 3)

    @property
    def context(self) -> Context:
        return self.layer.context

    def losses(self, batch: ModelBatch) -> dict[str, Tensor]:
        mel, others = batch.mel, batch.others
        assert batch.audio.shape[-1] == mel.shape[-1] * self.mel.hop_length
        self.drawn.append(batch.seeds.tolist())
        assert others is not None
        assert others.shape == (len(mel), 2, batch.audio.shape[-1])
        self.heard.append(others)
        noise = uniform_noise(batch.seeds, 0, mel.shape[-1], mel.shape[1])
        loss = nn.functional.mse_loss(self.layer(mel + noise, batch.mask), mel)
        return {"loss": loss}

    def show(self, mel: Tensor, audio: Tensor, labels: Tensor | None = None) -> Shown:
        return Shown({"mel": mel}, {"recording": audio})


@pytest.fixture(autouse=True)
def _known() -> Iterator[None]:
    Toy.drawn.clear()
    Toy.heard.clear()
    with mock.patch.dict(MODELS, {"test_seam": Toy}):
        yield


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Clip]:
    folder = tmp_path_factory.mktemp("corpus")
    recordings = find_recordings(write_corpus(folder / "corpus"), pattern="**/*", held_out="a[01]")
    return extract(recordings, folder / "features", MEL, progress=False).clips


def train(clips: list[Clip], out: Path, steps: int, **settings: int) -> Path | None:
    torch.manual_seed(0)
    config = TrainingConfig(
        steps=steps, batch_size=2, segment_frames=16, decay="constant", log_every=1, validate_every=2,
        checkpoint_every=1, listen_clips=1, listen_frames=8,
    )  # fmt: skip
    run = RunFolder(out, ToyConfig(), {})
    return loop.train(Toy(MEL), clips, config, run, seed=0, device=torch.device("cpu"), notify=lambda line: None)


def test_a_model_that_is_resumed_equals_an_uninterrupted_one_bit_for_bit(clips: list[Clip], tmp_path: Path) -> None:
    train(clips, tmp_path / "whole", 4)
    for steps in (2, 4):
        train(clips, tmp_path / "parts", steps)
    assert_same_checkpoint(checkpoint(tmp_path / "whole", 4), checkpoint(tmp_path / "parts", 4))
    whole, parts = ([(row["step"], row["loss"]) for row in rows(tmp_path / run, "train")] for run in ("whole", "parts"))
    assert whole == parts
    assert len(rows(tmp_path / "whole", "valid")) == 2


def test_seeds_are_unique_in_training_and_stay_in_validation(clips: list[Clip], tmp_path: Path) -> None:
    train(clips, tmp_path / "run", 4)
    trained = [seed for seeds in Toy.drawn if len(seeds) == 2 for seed in seeds]
    validated = [seeds[0] for seeds in Toy.drawn if len(seeds) == 1]
    assert len(set(trained)) == len(trained) == 8
    assert validated[:2] == validated[2:]
    assert len(set(validated)) == 2
    heard = [others for others in Toy.heard if len(others) == 1]
    assert all(torch.equal(*pair) for pair in zip(heard[:2], heard[2:], strict=True))


def test_the_sounds_and_pictures_of_a_model_are_in_tensorboard(clips: list[Clip], tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(clips, tmp_path / "run", 2)
    events = EventAccumulator(str(tmp_path / "run/tensorboard"))
    events.Reload()
    (sound,), (picture,) = events.Tags()["audio"], events.Tags()["images"]
    assert sound.endswith("/recording")
    assert picture.endswith("/pictures")


def test_the_ema_weights_of_a_run_are_loaded(clips: list[Clip], tmp_path: Path) -> None:
    finished = train(clips, tmp_path / "run", 2)
    assert finished is not None
    model = load_model(Toy, tmp_path / "run")
    tensors, header = load_checkpoint(finished)
    assert torch.equal(model.layer.weight, tensors["ema.layer.weight"])
    assert not model.training
    assert header["model"] == {"name": "test_seam"}


def test_a_model_is_not_loaded_as_a_vocoder_nor_a_vocoder_as_a_model(
    clips: list[Clip], tmp_path: Path, messages: Messages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with messages.refused(CheckpointError):
        load_model(Toy)
    train(clips, Path("runs/toy"), 1)
    assert type(load_model(Toy)) is Toy
    assert find_model(None) == checkpoints.DEFAULT_VOICE  # a run of another model is not the newest voice
    with messages.refused(CheckpointError):
        load_vocoder("runs/toy")
    with messages.refused(CheckpointError):
        load_model(Toy, "default")


def test_an_incomplete_model_is_refused(messages: Messages) -> None:
    with messages.refused(ConfigError):
        type("Example", (Model,), {})
