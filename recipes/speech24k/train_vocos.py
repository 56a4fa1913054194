"""Train Vocos in a loop of ours, for a comparison with wavegen's runs.

    pip install vocos
    python recipes/speech24k/train_vocos.py /path/to/speech24k --out runs/vocos
    python recipes/speech24k/compare_runs.py /path/to/speech24k --run vocos=runs/vocos --run ours=runs/…

Model, discriminators, losses and mel are those of the package ``vocos`` (arXiv:2306.00814), with its published
settings. Clips, split and the choice of segments are those of wavegen's recipe. Two things are ours: the learning rate
falls along a cosine over the budget, as it does over Vocos' published million steps, and segments keep the level of the
recordings, at which the sounds are scored.

A checkpoint is written at several minutes of training. Minutes are those of the clock on the wall; ``log.jsonl`` also
has the minutes of the processor.
"""

import argparse
import importlib
import math
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from wavegen.checkpoint import load_checkpoint, load_weights, save_checkpoint
from wavegen.commands import at_least, notify, pick_device, run_command
from wavegen.corpora.extraction import extract
from wavegen.errors import ConfigError
from wavegen.files import lock_folder
from wavegen.pipeline import list_recordings
from wavegen.progress import LinePacer
from wavegen.recipe import find_recipe, load_recipe
from wavegen.training.data import Segments
from wavegen.training.interruption import Interruption
from wavegen.training.progress import Window
from wavegen.training.run_folder import RunFolder

# Vocos' published settings for mels at 24 kHz (configs/vocos.yaml of its repository).
RATE_HZ = 24000
HOP = 256
SEGMENT_FRAMES = 64  # 16384 samples
BATCH = 16
LEARNING_RATE = 5e-4
BETAS = (0.8, 0.9)
MEL_WEIGHT = 45.0
PERIOD_WEIGHT = 1.0
RESOLUTION_WEIGHT = 0.1

NAME = "train_vocos"
VOCOS = "vocos"
MARKS = (5.0, 10.0, 15.0, 20.0, 30.0)  # minutes
STATE = "state.safetensors"
LOG_EVERY = 10  # steps


def vocos_module(name: str) -> Any:
    """A module of the installed package.

    Raises:
        ConfigError: the package, or one that it needs, is not installed.
    """
    try:
        return importlib.import_module(f"{VOCOS}.{name}")
    except ImportError as error:
        package = (error.name or VOCOS).partition(".")[0]
        what = f"cannot be imported, because the package {package} is missing"
        raise ConfigError(what, where=VOCOS, remedy="pip install vocos") from error


def build_vocos() -> nn.Module:
    """Vocos with new weights. Called with audio ``[batch, samples]``, it returns its version of it."""
    features = vocos_module("feature_extractors").MelSpectrogramFeatures(
        sample_rate=RATE_HZ, n_fft=1024, hop_length=HOP, n_mels=100, padding="center"
    )
    backbone = vocos_module("models").VocosBackbone(input_channels=100, dim=512, intermediate_dim=1536, num_layers=8)
    head = vocos_module("heads").ISTFTHead(dim=512, n_fft=1024, hop_length=HOP, padding="center")
    model: nn.Module = vocos_module("pretrained").Vocos(features, backbone, head)
    return model


class Spent(NamedTuple):
    """What a training has cost so far: steps, and minutes of the clock and of the processor."""

    steps: int = 0
    minutes: float = 0.0
    cpu_minutes: float = 0.0


class VocosTraining:
    """Vocos in training with its two discriminators, as ``vocos.experiment`` trains it.

    Args:
        device: the device to train on.

    Attributes:
        spent: what the steps so far have cost.
    """

    def __init__(self, device: torch.device) -> None:
        discriminators, losses = vocos_module("discriminators"), vocos_module("loss")
        self.model: Any = build_vocos().to(device)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # torch's former weight_norm
            both = [discriminators.MultiPeriodDiscriminator(), discriminators.MultiResolutionDiscriminator()]
        self.discriminators = nn.ModuleList(both).to(device)
        self.discriminator_loss = losses.DiscriminatorLoss()
        self.generator_loss = losses.GeneratorLoss()
        self.feature_loss = losses.FeatureMatchingLoss()
        self.mel_loss = losses.MelSpecReconstructionLoss(sample_rate=RATE_HZ).to(device)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), betas=BETAS)
        self.discriminator_optimizer = torch.optim.AdamW(self.discriminators.parameters(), betas=BETAS)
        self.spent = Spent()

    def take_step(self, audio: Tensor, learning_rate: float) -> dict[str, Tensor]:
        """Train the discriminators, then the generator, on a batch ``[batch, samples]``; returns the losses."""
        for optimizer in (self.optimizer, self.discriminator_optimizer):
            optimizer.zero_grad()
            for group in optimizer.param_groups:
                group["lr"] = learning_rate

        with torch.no_grad():
            fake = self._generate(audio)
        losses = {"discriminator_loss": self._discriminator_loss(audio, fake)}
        losses["discriminator_loss"].backward()
        self.discriminator_optimizer.step()

        self.discriminators.requires_grad_(False)
        losses |= self._generator_losses(audio, self._generate(audio))
        losses["loss"].backward()
        self.optimizer.step()
        self.discriminators.requires_grad_(True)
        return losses

    def _generate(self, audio: Tensor) -> Tensor:
        features = self.model.feature_extractor(audio)
        sound: Tensor = self.model.head(self.model.backbone(features))
        return sound

    def _weighted(self) -> Iterator[tuple[float, nn.Module]]:
        return zip((PERIOD_WEIGHT, RESOLUTION_WEIGHT), self.discriminators, strict=True)

    def _discriminator_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        loss = real.new_zeros(1)
        for weight, discriminator in self._weighted():
            of_real, of_fake, _, _ = discriminator(y=real, y_hat=fake)
            total, parts, _ = self.discriminator_loss(of_real, of_fake)
            loss = loss + weight * total / len(parts)
        return loss

    def _generator_losses(self, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        adversarial = features = real.new_zeros(1)
        for weight, discriminator in self._weighted():
            _, of_fake, real_features, fake_features = discriminator(y=real, y_hat=fake)
            total, parts = self.generator_loss(of_fake)
            adversarial = adversarial + weight * total / len(parts)
            distance = self.feature_loss(real_features, fake_features)
            features = features + weight * distance / len(real_features)
        mel = self.mel_loss(fake, real)
        loss = adversarial + features + MEL_WEIGHT * mel
        return {"loss": loss, "mel_loss": mel, "adversarial": adversarial, "feature_matching": features}

    def tensors(self) -> dict[str, Tensor]:
        """All that a resumed training needs, by name."""
        named = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        named |= {f"discriminators.{name}": value for name, value in self.discriminators.state_dict().items()}
        for prefix, optimizer in self._optimizers():
            for index, values in optimizer.state_dict()["state"].items():
                named |= {f"{prefix}.{index}.{key}": value for key, value in values.items()}
        return named

    def restore(self, path: Path) -> dict[str, Any]:
        """Load a file of ``tensors()``; returns its header.

        Raises:
            CheckpointError: the file is damaged or holds something else.
        """
        tensors, header = load_checkpoint(path)
        load_weights(self.model, below("model", tensors), path)
        load_weights(self.discriminators, below("discriminators", tensors), path)
        for prefix, optimizer in self._optimizers():
            state: dict[int, dict[str, Tensor]] = {}
            for name, value in below(prefix, tensors).items():
                index, key = name.split(".")
                state.setdefault(int(index), {})[key] = value
            optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
        self.spent = Spent(*header["spent"])
        return header

    def _optimizers(self) -> Iterator[tuple[str, torch.optim.Optimizer]]:
        yield "optimizer", self.optimizer
        yield "discriminator_optimizer", self.discriminator_optimizer


def below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names begin with ``PREFIX.``, without it."""
    prefix = f"{prefix}."
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def checkpoint_path(folder: Path, mark: float) -> Path:
    """The file of the model after so many minutes."""
    return folder / "checkpoints" / f"minutes-{mark:g}.safetensors"


def train(arguments: argparse.Namespace) -> int:
    """Train Vocos until the budget is spent, or the user stops it; the same command resumes."""
    device = pick_device(arguments.device)
    torch.manual_seed(arguments.seed)
    training = VocosTraining(device)
    state = arguments.out / STATE

    # The clips are those of the recipe; its features are computed if they are not there yet.
    path = find_recipe(arguments.recipe)
    recipe = load_recipe(path, [f"data.corpus={arguments.corpus}"])
    if (recipe.mel.sample_rate_hz, recipe.mel.hop_length) != (RATE_HZ, HOP):
        what = f"its mel has {recipe.mel.sample_rate_hz} Hz and a hop of {recipe.mel.hop_length}"
        raise ConfigError(what, where=arguments.recipe, remedy=f"Vocos needs {RATE_HZ} Hz and {HOP}")
    features = recipe.data.features or arguments.out / "features"
    clips = [c for c in extract(list_recordings(recipe, path), features, recipe.mel).clips if c.split == "train"]

    run = RunFolder(arguments.out, recipe.network, {})  # for its log
    with lock_folder(arguments.out, "wait for it, or give another --out"):
        settings = {"batch": arguments.batch, "seed": arguments.seed, "corpus": arguments.corpus.absolute().name}
        if state.exists():
            _refuse_others(settings, training.restore(state)["settings"], state)
            notify(f"resuming at step {training.spent.steps}, {training.spent.minutes:.2f} minutes")
        run.truncate_log(training.spent.steps)
        segments = Segments(clips, recipe.mel, frames=SEGMENT_FRAMES, seed=arguments.seed)

        def save_state() -> None:
            save_checkpoint(state, training.tensors(), {"settings": settings, "spent": training.spent})

        def pass_mark(mark: float) -> None:
            tensors = {f"model.{name}": value for name, value in training.model.state_dict().items()}
            save_checkpoint(checkpoint_path(arguments.out, mark), tensors, {"spent": training.spent})
            save_state()  # last: a training that is killed before it passes the mark again
            spent = training.spent
            notify(f"{mark:g} minutes: {spent.steps} steps, {spent.cpu_minutes:.2f} minutes of the processor")

        with Interruption() as interruption:
            _spend(training, segments, arguments, run, interruption, pass_mark)
            if interruption.requested:
                save_state()
                notify(f"stopped at step {training.spent.steps}; the same command resumes from there")
    return 0


def _refuse_others(settings: Mapping[str, object], before: Mapping[str, object], path: Path) -> None:
    if settings != before:
        raise ConfigError(
            f"this training began with other settings ({before}, not {settings})",
            where=path,
            remedy="give another --out, or undo the change",
        )


def _spend(
    training: VocosTraining,
    segments: Segments,
    arguments: argparse.Namespace,
    run: RunFolder,
    interruption: Interruption,
    pass_mark: Callable[[float], None],
) -> None:
    """Take steps until the minutes or the steps are spent; call ``pass_mark`` with each mark that is reached."""
    budget, most_steps = arguments.minutes, arguments.steps or sys.maxsize
    device = next(training.model.parameters()).device
    marks = [mark for mark in sorted({*arguments.marks}) if training.spent.minutes < mark < budget]
    batches = segments.batches(training.spent.steps, most_steps, arguments.batch, rank=0, world=1, workers=0)
    window, pacer = Window(), LinePacer()

    def done() -> float:
        """The share of the budget that is spent."""
        return max(training.spent.minutes / budget, training.spent.steps / most_steps)

    while done() < 1 and not interruption.requested:
        clocks = time.perf_counter(), time.process_time()
        batch = next(batches).to(device)
        window.add(training.take_step(batch.audio, LEARNING_RATE * 0.5 * (1 + math.cos(math.pi * done()))))
        if device.type == "cuda":
            torch.cuda.synchronize(device)  # the clock must not run ahead of the work
        steps, minutes, cpu_minutes = training.spent
        minutes += (time.perf_counter() - clocks[0]) / 60
        cpu_minutes += (time.process_time() - clocks[1]) / 60
        training.spent = Spent(steps + 1, minutes, cpu_minutes)

        if training.spent.steps % LOG_EVERY == 0 or done() >= 1:
            means = window.means(device)
            window = Window()
            run.append_to_log({"step": steps + 1, "minutes": minutes, "cpu_minutes": cpu_minutes, **means})
            if pacer.is_due():
                losses = "  ".join(f"{name} {means[name]:.3f}" for name in ("loss", "mel_loss", "discriminator_loss"))
                notify(f"step {steps + 1}  {minutes:.1f} of {budget:g} minutes  {losses}")
        while marks and minutes >= marks[0]:
            pass_mark(marks.pop(0))
            window = Window()  # time spent there is not training time
    if done() >= 1:
        pass_mark(budget if training.spent.minutes >= budget else round(training.spent.minutes, 2))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script; returns its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path, help="the corpus of the recipe")
    parser.add_argument("--recipe", default="speech24k/spectral-adversarial", help="lists the clips (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("runs/vocos"), help="folder to write (%(default)s)")
    parser.add_argument("--minutes", type=at_least(0, float), default=30.0, help="the budget (%(default)g)")
    parser.add_argument("--steps", type=at_least(1), help="end after so many steps, if that is earlier")
    parser.add_argument("--marks", type=at_least(0, float), nargs="+", default=MARKS, metavar="MINUTES",
                        help="when to write a checkpoint, besides the end (5 10 15 20 30)")  # fmt: skip
    parser.add_argument("--batch", type=at_least(1), default=BATCH, help="segments per step (%(default)s)")
    parser.add_argument("--seed", type=at_least(0), default=0)
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args(argv)
    return run_command(NAME, lambda: train(arguments))


if __name__ == "__main__":
    sys.exit(main())
