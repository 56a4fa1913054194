"""What a run carries over a stop, to go on as if it had not stopped; and the folder that holds it."""

import contextlib
import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wavegen.checkpoint import load_checkpoint, load_weights, save_checkpoint, vocoder_header
from wavegen.errors import CheckpointError, OutputError
from wavegen.files import write_beside
from wavegen.training.config import TrainingConfig
from wavegen.vocoders import Vocoder

BEST = "best.safetensors"


class TrainingState:
    """A vocoder in training, with its averaged weights and its optimiser.

    Args:
        vocoder: on its device.
        config: training settings.
    """

    def __init__(self, vocoder: Vocoder, config: TrainingConfig) -> None:
        self.vocoder, self.config = vocoder, config
        self.average = copy.deepcopy(vocoder).eval().requires_grad_(False)
        self.optimizer = torch.optim.AdamW(
            vocoder.parameters(), lr=config.learning_rate, betas=config.betas, weight_decay=config.weight_decay
        )
        self.step = 0
        self.best: float | None = None

    @torch.no_grad()
    def update_average(self) -> None:
        """Move the averaged weights towards the weights; quickly in the first steps, when those still run."""
        decay = min(self.config.ema_decay, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(list(self.average.parameters()), list(self.vocoder.parameters()), 1 - decay)

    def tensors(self) -> dict[str, Tensor]:
        """All state as named tensors: ``model.*``, ``ema.*``, ``optimizer.*`` and ``rng.*``."""
        named = {f"model.{k}": v for k, v in self.vocoder.state_dict().items()}
        named |= {f"ema.{k}": v for k, v in self.average.state_dict().items()}
        for index, values in self.optimizer.state_dict()["state"].items():
            named |= {f"optimizer.{index}.{key}": value for key, value in values.items()}
        named["rng.cpu"] = torch.get_rng_state()
        if torch.cuda.is_available():
            named["rng.cuda"] = torch.cuda.get_rng_state()
        return named

    def restore(self, tensors: Mapping[str, Tensor], header: Mapping[str, Any], where: Path) -> None:
        """Become what ``tensors`` and a header of ``header`` say."""
        for module, prefix in ((self.vocoder, "model."), (self.average, "ema.")):
            weights = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
            load_weights(module, weights, where)
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            if name.startswith("optimizer."):
                _, index, key = name.split(".")
                state.setdefault(int(index), {})[key] = value
        self.optimizer.load_state_dict({"state": state, "param_groups": self.optimizer.state_dict()["param_groups"]})
        torch.set_rng_state(tensors["rng.cpu"])
        if torch.cuda.is_available() and "rng.cuda" in tensors:
            torch.cuda.set_rng_state(tensors["rng.cuda"])
        self.step, self.best = header["step"], header["best"]


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
        header = vocoder_header(self.vocoder_config, state.vocoder.mel)
        header |= {"kind": "checkpoint", "recipe": self.recipe, "step": state.step, "best": state.best}
        # The best first: a run that is killed between the two repeats the step and writes both.
        for name in ([BEST] if is_best else []) + [f"step-{state.step:08d}.safetensors"]:
            save_checkpoint(self.checkpoints / name, state.tensors(), header)
        for old in self.all()[: -state.config.keep_checkpoints]:
            old.unlink()

    def save_model(self, state: TrainingState, name: str) -> Path:
        """Write the averaged weights alone, as the finished model."""
        header = vocoder_header(self.vocoder_config, state.vocoder.mel)
        header |= {"kind": "model", "recipe": self.recipe, "step": state.step}
        save_checkpoint(self.path / name, {f"ema.{k}": v for k, v in state.average.state_dict().items()}, header)
        return self.path / name

    def all(self) -> list[Path]:
        """The checkpoints by step, oldest first; the best one's second name is not among them."""
        return sorted(self.checkpoints.glob("step-*.safetensors"))

    def restore(self, state: TrainingState) -> bool:
        """Bring ``state`` to the newest checkpoint; False where there is none.

        Raises:
            CheckpointError: the newest one is damaged, or of another vocoder or mel definition than this run's.
        """
        for half_written in self.checkpoints.glob(".*.part*"):  # by a process that was killed while it saved
            half_written.unlink(missing_ok=True)
        found = self.all()
        if not found:
            return False
        tensors, header = load_checkpoint(found[-1])
        wanted = vocoder_header(self.vocoder_config, state.vocoder.mel)
        for part, value in wanted.items():
            keys = [k for k in value if header.get(part, {}).get(k) != value[k]]
            if keys:
                raise CheckpointError(
                    f"was trained with another {part} ({', '.join(f'{part}.{key}' for key in keys)})",
                    where=found[-1],
                    remedy="give another --out to start anew, or undo the change",
                )
        state.restore(tensors, header, found[-1])
        self._forget_log_after(state.step)
        return True

    def append(self, row: Mapping[str, Any]) -> None:
        """Add a row to ``log.jsonl``."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with open(self.log, "a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        except OSError as error:
            what, remedy = f"cannot write: {error.strerror}", "check the free space; the checkpoints are whole"
            raise OutputError(what, where=self.log, remedy=remedy) from error

    def _forget_log_after(self, step: int) -> None:
        """Rows of steps that will be run again would stand there twice; a last one may be half-written."""
        if not self.log.exists():
            return
        kept = []
        for line in self.log.read_text(encoding="utf-8").splitlines(keepends=True):
            with contextlib.suppress(ValueError):
                if json.loads(line)["step"] <= step:
                    kept.append(line)
        with write_beside(self.log) as beside:
            beside.write_text("".join(kept), encoding="utf-8")
