"""Everything that a checkpoint holds: weights, EMA weights, discriminators, optimisers, counters."""

import copy
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wavegen.checkpoint import load_weights
from wavegen.errors import CheckpointError
from wavegen.network import Network
from wavegen.training.config import TrainingConfig
from wavegen.training.discriminators import Discriminators
from wavegen.training.schedule import discriminator_learning_rate, learning_rate


class TrainingState:
    """A vocoder in training with its EMA weights, discriminators and optimisers.

    Args:
        vocoder: the vocoder or other model, on the device to train on.
        config: training settings; ``adversarial`` adds discriminators, initialised from torch's global generator.

    Attributes:
        ema: a copy of the vocoder whose weights are the exponential moving average of the vocoder's.
        step: steps so far, skipped ones included.
        best: the best validation score so far; None before the first.
        rollbacks: the number of returns to a checkpoint, each of which halves the learning rates.
    """

    def __init__(self, vocoder: Network, config: TrainingConfig) -> None:
        self.vocoder, self.config = vocoder, config
        self.ema = copy.deepcopy(vocoder).eval().requires_grad_(False)
        device = next(vocoder.parameters()).device
        fused = device.type in ("cuda", "cpu") or None  # the update in one pass; None leaves the choice to torch
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
            self.discriminators = Discriminators(adversarial).to(device)
            self.discriminator_optimizer = torch.optim.AdamW(
                self.discriminators.parameters(),
                betas=adversarial.betas,
                weight_decay=adversarial.weight_decay,
                fused=fused,
            )
        self.step = 0
        self.best: float | None = None
        self.rollbacks = 0

    def zero_gradients(self) -> None:
        """Delete the gradients of the previous step."""
        for optimizer, _ in self._optimizers():
            optimizer.zero_grad()

    def clip_gradients(self) -> dict[str, Tensor]:
        """Scale the gradients down to the configured norms; returns their norms before that."""
        norms = {"gradient_norm": nn.utils.clip_grad_norm_(self.vocoder.parameters(), self.config.clip_norm)}
        if self.discriminators is not None and self.config.adversarial is not None:
            learning = [p for p in self.discriminators.parameters() if p.grad is not None]
            if learning:
                norm = nn.utils.clip_grad_norm_(learning, self.config.adversarial.clip_norm)
                norms["discriminator_gradient_norm"] = norm
        return norms

    def take_step(self) -> None:
        """Update weights and EMA weights from the gradients; weights without a gradient stay as they are."""
        for optimizer, rate in self._rates():
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
        self.step += 1
        self.update_ema()

    @torch.no_grad()
    def update_ema(self) -> None:
        """Move the EMA weights towards the weights, faster during the first steps, when the weights change most."""
        decay = min(self.config.ema_decay, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(list(self.ema.parameters()), list(self.vocoder.parameters()), 1 - decay)

    def weights_are_finite(self) -> bool:
        """Whether no weight is NaN or infinite. Waits for the GPU."""
        weights = [p for module, _ in self._modules() for p in module.parameters()]
        return bool(torch.stack([weight.isfinite().all() for weight in weights]).all())

    def tensors(self) -> dict[str, Tensor]:
        """All tensors of the state by name.

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
        """Scalars saved beside the tensors: step, best score, rollbacks."""
        return {"step": self.step, "best": self.best, "rollbacks": self.rollbacks}

    def restore(self, tensors: Mapping[str, Tensor], header: Mapping[str, Any], path: Path) -> None:
        """Load what ``tensors()`` and ``header()`` returned.

        Args:
            tensors: the tensors of a checkpoint.
            header: its header.
            path: its file, which an error names.

        Raises:
            CheckpointError: the weights do not fit, or a part of the state is missing or damaged.
        """
        try:
            self._restore(tensors, header, path)
        except (KeyError, ValueError, TypeError, RuntimeError, IndexError) as error:
            raise CheckpointError(
                f"is not a whole training state ({type(error).__name__}: {error})",
                where=path,
                remedy="delete it to resume from an earlier checkpoint",
            ) from error

    def _restore(self, tensors: Mapping[str, Tensor], header: Mapping[str, Any], path: Path) -> None:
        for module, prefix in self._modules():
            weights = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
            load_weights(module, weights, path)
        for optimizer, prefix in self._optimizers():
            state: dict[int, dict[str, Tensor]] = {}
            for name, value in tensors.items():
                if name.startswith(prefix):
                    index, key = name.removeprefix(prefix).split(".")
                    state.setdefault(int(index), {})[key] = value
                    weight = optimizer.param_groups[0]["params"][int(index)]
                    if value.dim() and value.shape != weight.shape:
                        raise ValueError(f"{name} has the shape {list(value.shape)}, not {list(weight.shape)}")
            optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
        torch.set_rng_state(tensors["rng.cpu"])
        if torch.cuda.is_available() and "rng.cuda" in tensors:
            torch.cuda.set_rng_state(tensors["rng.cuda"])
        self.step = header["step"]
        self.best = None if header["best"] is None else float(header["best"])
        self.rollbacks = header.get("rollbacks", 0)

    def _rates(self) -> Iterator[tuple[torch.optim.Optimizer, float]]:
        factor = 0.5**self.rollbacks
        yield self.optimizer, factor * learning_rate(self.config, self.step)
        if self.discriminator_optimizer is not None:
            yield self.discriminator_optimizer, factor * discriminator_learning_rate(self.config, self.step)

    def _modules(self) -> list[tuple[nn.Module, str]]:
        modules: list[tuple[nn.Module, str]] = [(self.vocoder, "model."), (self.ema, "ema.")]
        return modules + ([(self.discriminators, "discriminator.")] if self.discriminators is not None else [])

    def _optimizers(self) -> list[tuple[torch.optim.Optimizer, str]]:
        optimizers: list[tuple[torch.optim.Optimizer, str]] = [(self.optimizer, "optimizer.")]
        if self.discriminator_optimizer is not None:
            optimizers.append((self.discriminator_optimizer, "discriminator_optimizer."))
        return optimizers
