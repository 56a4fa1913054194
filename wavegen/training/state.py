"""What a run carries over a stop, to go on as if it had not stopped; and the folder that holds it."""

import contextlib
import copy
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wavegen.checkpoint import find_model, load_checkpoint, load_weights, save_checkpoint, vocoder_header
from wavegen.config import join_names
from wavegen.errors import CheckpointError, OutputError
from wavegen.files import write_beside
from wavegen.mel import MelSpec
from wavegen.training.config import TrainingConfig
from wavegen.training.discriminators import Discriminators
from wavegen.training.schedule import discriminator_learning_rate, learning_rate
from wavegen.vocoders import VOCODERS, Vocoder

BEST = "best.safetensors"
# The settings of adversarial training that say what the discriminators are; shapes alone tell no period from another.
DISCRIMINATORS = ("periods", "period_channels", "resolutions", "resolution_channels", "dilations", "weight_norm")
# What weights do not depend on: a run may begin with those of another that had it otherwise.
NOT_IN_WEIGHTS = ("any_mel", "refinement_iterations", "synthesis_iterations")


class TrainingState:
    """A vocoder in training, with its averaged weights, its discriminators and the optimisers.

    Args:
        vocoder: on its device.
        config: training settings; with ``adversarial`` in them, discriminators are made from torch's generator.
    """

    def __init__(self, vocoder: Vocoder, config: TrainingConfig) -> None:
        self.vocoder, self.config = vocoder, config
        self.average = copy.deepcopy(vocoder).eval().requires_grad_(False)
        # One kernel for many weights; None: torch's choice.
        fused = next(vocoder.parameters()).device.type == "cuda" or None
        self.optimizer = torch.optim.AdamW(
            vocoder.parameters(),
            lr=config.learning_rate,
            betas=config.betas,
            weight_decay=config.weight_decay,
            fused=fused,
        )
        self.discriminators: Discriminators | None = None
        self.discriminator_optimizer: torch.optim.AdamW | None = None
        if (adversarial := config.adversarial) is not None:
            self.discriminators = Discriminators(adversarial).to(next(vocoder.parameters()).device)
            self.discriminator_optimizer = torch.optim.AdamW(
                self.discriminators.parameters(),
                betas=adversarial.betas,
                weight_decay=adversarial.weight_decay,
                fused=fused,
            )
        self.step = 0
        self.best: float | None = None
        self.rollbacks = 0

    def forget_gradients(self) -> None:
        """Make room for those of the step at hand."""
        for optimizer, _ in self._optimizers():
            optimizer.zero_grad()

    def clip_gradients(self) -> dict[str, Tensor]:
        """Scale gradients down to the recipe's norms; gives the norms they had."""
        norms = {"gradient_norm": nn.utils.clip_grad_norm_(self.vocoder.parameters(), self.config.clip_norm)}
        if self.discriminators is not None and self.config.adversarial is not None:
            learning = [p for p in self.discriminators.parameters() if p.grad is not None]
            if learning:
                norm = nn.utils.clip_grad_norm_(learning, self.config.adversarial.clip_norm)
                norms["discriminator_gradient_norm"] = norm
        return norms

    def take_step(self) -> None:
        """Let the optimisers and the average follow the gradients; weights without a gradient stay as they are."""
        for optimizer, rate in self._rates():
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
        self.step += 1
        self.update_average()

    def _rates(self) -> Iterator[tuple[torch.optim.Optimizer, float]]:
        lowered = 0.5**self.rollbacks
        yield self.optimizer, lowered * learning_rate(self.config, self.step)
        if self.discriminator_optimizer is not None:
            yield self.discriminator_optimizer, lowered * discriminator_learning_rate(self.config, self.step)

    @torch.no_grad()
    def update_average(self) -> None:
        """Move the averaged weights towards the weights; quickly in the first steps, when those still run."""
        decay = min(self.config.ema_decay, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(list(self.average.parameters()), list(self.vocoder.parameters()), 1 - decay)

    def is_finite(self) -> bool:
        """Whether every weight is a number still."""
        weights = [p for module, _ in self._modules() for p in module.parameters()]
        return bool(torch.stack([weight.isfinite().all() for weight in weights]).all())

    def tensors(self) -> dict[str, Tensor]:
        """All state as named tensors.

        ``model.*``, ``ema.*``, ``optimizer.*``, ``rng.*`` and, in adversarial training, ``discriminator.*`` and
        ``discriminator_optimizer.*``.
        """
        named = {f"{prefix}{k}": v for module, prefix in self._modules() for k, v in module.state_dict().items()}
        for optimizer, prefix in self._optimizers():
            for index, values in optimizer.state_dict()["state"].items():
                named |= {f"{prefix}{index}.{key}": value for key, value in values.items()}
        named["rng.cpu"] = torch.get_rng_state()
        if torch.cuda.is_available():
            named["rng.cuda"] = torch.cuda.get_rng_state()
        return named

    def header(self) -> dict[str, Any]:
        """What is no tensor."""
        return {"step": self.step, "best": self.best, "rollbacks": self.rollbacks}

    def restore(self, tensors: Mapping[str, Tensor], header: Mapping[str, Any], where: Path) -> None:
        """Become what ``tensors`` and a header of ``header`` say."""
        for module, prefix in self._modules():
            weights = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
            load_weights(module, weights, where)
        for optimizer, prefix in self._optimizers():
            state: dict[int, dict[str, Tensor]] = {}
            for name, value in tensors.items():
                if name.startswith(prefix):
                    index, key = name.removeprefix(prefix).split(".")
                    state.setdefault(int(index), {})[key] = value
            optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
        torch.set_rng_state(tensors["rng.cpu"])
        if torch.cuda.is_available() and "rng.cuda" in tensors:
            torch.cuda.set_rng_state(tensors["rng.cuda"])
        self.step, self.best, self.rollbacks = header["step"], header["best"], header.get("rollbacks", 0)

    def _modules(self) -> list[tuple[nn.Module, str]]:
        modules: list[tuple[nn.Module, str]] = [(self.vocoder, "model."), (self.average, "ema.")]
        return modules + ([(self.discriminators, "discriminator.")] if self.discriminators is not None else [])

    def _optimizers(self) -> list[tuple[torch.optim.Optimizer, str]]:
        optimizers: list[tuple[torch.optim.Optimizer, str]] = [(self.optimizer, "optimizer.")]
        if self.discriminator_optimizer is not None:
            optimizers.append((self.discriminator_optimizer, "discriminator_optimizer."))
        return optimizers


class RunFolder:
    """The checkpoints and the log of one run.

    Args:
        path: the run's folder.
        vocoder_config: the vocoder's section of the recipe, saved with the weights.
        recipe: the whole resolved recipe, saved with them too.
    """

    def __init__(self, path: Path, vocoder_config: Mapping[str, Any], recipe: Mapping[str, Any]) -> None:
        self.path, self.vocoder_config, self.recipe = path, vocoder_config, recipe
        self.checkpoints = path / "checkpoints"
        self.log = path / "log.jsonl"

    def save(self, state: TrainingState, *, is_best: bool = False) -> None:
        """Write a checkpoint; only then forget the oldest."""
        header = vocoder_header(self.vocoder_config, state.vocoder.mel, state.vocoder.speakers)
        header |= {"kind": "checkpoint", "recipe": self.recipe, **state.header()}
        # The best first: a run that is killed between the two repeats the step and writes both.
        for name in ([BEST] if is_best else []) + [f"step-{state.step:08d}.safetensors"]:
            save_checkpoint(self.checkpoints / name, state.tensors(), header)
        for old in self.all()[: -state.config.keep_checkpoints]:
            old.unlink()

    def save_model(self, state: TrainingState, name: str) -> Path:
        """Write the averaged weights alone, as the finished model."""
        header = vocoder_header(self.vocoder_config, state.vocoder.mel, state.vocoder.speakers)
        header |= {"kind": "model", "recipe": self.recipe, "step": state.step}
        save_checkpoint(self.path / name, {f"ema.{k}": v for k, v in state.average.state_dict().items()}, header)
        return self.path / name

    def all(self) -> list[Path]:
        """The checkpoints by step, oldest first; the best one's second name is not among them."""
        return sorted(self.checkpoints.glob("step-*.safetensors"))

    def restore(self, state: TrainingState) -> bool:
        """Bring ``state`` to the newest checkpoint; False where there is none.

        Raises:
            CheckpointError: the newest one is damaged, or of another vocoder, mel definition or speakers.
        """
        for half_written in self.checkpoints.glob(".*.part*"):  # by a process that was killed while it saved
            half_written.unlink(missing_ok=True)
        found = self.all()
        if not found:
            return False
        tensors, header = load_checkpoint(found[-1])
        remedy = "give another --out to start anew, or undo the change"
        self._refuse_another(state.vocoder.mel, state.vocoder.speakers, header, found[-1], remedy=remedy)
        state.restore(tensors, header, found[-1])
        self.forget_log_after(state.step)
        return True

    def start_from(self, state: TrainingState, source: Path) -> str:
        """Begin with the averaged weights of another run, and with its discriminators where both have the same.

        Args:
            state: new.
            source: a run's folder, or a model or checkpoint file.

        Returns:
            a line for the user.

        Raises:
            CheckpointError: it cannot be read, or is of another vocoder, mel definition or speakers.
        """
        path, tensors, header = self.read_init(source, state.vocoder.mel, state.vocoder.speakers)
        weights = {k.removeprefix("ema."): v for k, v in tensors.items() if k.startswith("ema.")}
        for module in (state.vocoder, state.average):
            load_weights(module, weights, path)
        line = f"starting from {path} (step {header.get('step')})"
        if state.discriminators is None:
            return line
        learnt = {k.removeprefix("discriminator."): v for k, v in tensors.items() if k.startswith("discriminator.")}
        theirs = header.get("recipe", {}).get("training", {}).get("adversarial") or {}
        ours = self.recipe["training"]["adversarial"]
        if not learnt or any(theirs.get(key) != ours[key] for key in DISCRIMINATORS):
            return f"{line}; its discriminators are {'others' if learnt else 'not there'}, so they start anew"
        load_weights(state.discriminators, learnt, path)
        return f"{line}, discriminators too"

    def read_init(
        self, source: Path, mel: MelSpec, speakers: Sequence[str] = ()
    ) -> tuple[Path, dict[str, Tensor], dict[str, Any]]:
        """The file that ``start_from`` reads, and what is in it.

        Raises:
            CheckpointError: as ``start_from``.
        """
        # A model file has no discriminators, the checkpoint beside it has.
        checkpoints = sorted((source / "checkpoints").glob("step-*.safetensors"))
        path = checkpoints[-1] if checkpoints else find_model(source)
        tensors, header = load_checkpoint(path)
        remedy = "give the init the recipe was made for, or change the recipe"
        self._refuse_another(mel, speakers, header, path, remedy=remedy, free=NOT_IN_WEIGHTS)
        return path, tensors, header

    def _refuse_another(
        self,
        mel: MelSpec,
        speakers: Sequence[str],
        header: Mapping[str, Any],
        where: Path,
        *,
        remedy: str,
        free: Sequence[str] = (),
    ) -> None:
        """Raise CheckpointError where a file's vocoder, mel definition or speakers are not this run's.

        Settings of the vocoder that are ``free`` are not compared.
        """
        name = self.vocoder_config["name"]
        found_vocoder = header.get("vocoder", {})
        if found_vocoder.get("name") == name:  # a setting that is newer than the file is there what it is by default
            found_vocoder = VOCODERS[name].Config(name=name).model_dump(mode="json") | found_vocoder
        pairs = {
            "vocoder": (found_vocoder, self.vocoder_config),
            "mel": (header.get("mel", {}), mel.model_dump(mode="json")),
        }
        for part, (found, value) in pairs.items():
            keys = [key for key in value if found.get(key) != value[key] and key not in free]
            if keys:
                shown = ", ".join(f"{part}.{key} is {found.get(key)!r}, not {value[key]!r}" for key in keys[:4])
                raise CheckpointError(f"was trained with another {part} ({shown})", where=where, remedy=remedy)
        theirs, ours = tuple(header.get("speakers", ())), tuple(speakers)
        if theirs != ours:
            gone, new = sorted({*theirs} - {*ours}), sorted({*ours} - {*theirs})
            differ = [f"it has {join_names(gone)}"] * bool(gone) + [f"it lacks {join_names(new)}"] * bool(new)
            raise CheckpointError(f"was trained with other speakers ({', '.join(differ)})", where=where, remedy=remedy)

    def append(self, row: Mapping[str, Any]) -> None:
        """Add a row to ``log.jsonl``."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with open(self.log, "a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        except OSError as error:
            what, remedy = f"cannot write: {error.strerror}", "check the free space; the checkpoints are whole"
            raise OutputError(what, where=self.log, remedy=remedy) from error

    def forget_log_after(self, step: int) -> None:
        """Drop rows of steps that will be run again: they would stand there twice; a last one may be half-written."""
        if not self.log.exists():
            return
        kept = []
        for line in self.log.read_text(encoding="utf-8").splitlines(keepends=True):
            with contextlib.suppress(ValueError):
                if json.loads(line)["step"] <= step:
                    kept.append(line)
        with write_beside(self.log) as beside:
            beside.write_text("".join(kept), encoding="utf-8")
