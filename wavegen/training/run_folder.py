"""The folder of a run: its checkpoints, its finished model and its log file."""

import contextlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from wavegen.checkpoint import (
    build_network,
    find_model,
    load_checkpoint,
    load_weights,
    network_header,
    save_checkpoint,
)
from wavegen.config import Config, KeepsWeights, join_names, parse
from wavegen.errors import CheckpointError, ConfigError, MelError, OutputError
from wavegen.files import atomic_write
from wavegen.mel import MelSpec
from wavegen.network import NetworkConfig
from wavegen.training.state import TrainingState
from wavegen.vocoders import Vocoder
from wavegen.vocoders._speakers import SpeakerCondition

BEST = "best.safetensors"
# The settings that define the discriminators. Shapes are not enough: they are the same for every period.
DISCRIMINATORS = ("periods", "period_channels", "resolutions", "resolution_channels", "dilations", "weight_norm")
_MAX_DIFFERENCES_SHOWN = 4

T = TypeVar("T", bound=Config)


class RunFolder:
    """The checkpoints and the log file of one run.

    Args:
        path: the run's folder.
        network_config: the vocoder's or model's section of the recipe, saved with the weights.
        recipe: the whole resolved recipe as plain data without paths, saved with the weights too. Equal runs then write
            equal files, and a model file tells nothing about the machine that trained it.
    """

    def __init__(self, path: Path, network_config: NetworkConfig, recipe: Mapping[str, Any]) -> None:
        self.path, self.network_config, self.recipe = path, network_config, recipe
        self.checkpoints = path / "checkpoints"
        self.log = path / "log.jsonl"

    def save(self, state: TrainingState, *, is_best: bool = False) -> None:
        """Write a checkpoint, then delete the oldest ones."""
        header = self._header("checkpoint", state) | state.header()
        # The best one first: a run that is killed between the two repeats the step and writes both.
        for name in ([BEST] if is_best else []) + [f"step-{state.step:08d}.safetensors"]:
            save_checkpoint(self.checkpoints / name, state.tensors(), header)
        for old in self.checkpoint_files()[: -state.config.keep_checkpoints]:
            old.unlink()

    def save_model(self, state: TrainingState, name: str) -> Path:
        """Write the EMA weights alone, as the finished model."""
        header = self._header("model", state) | {"step": state.step}
        save_checkpoint(
            self.path / name, {f"ema.{key}": value for key, value in state.ema.state_dict().items()}, header
        )
        return self.path / name

    def checkpoint_files(self) -> list[Path]:
        """The checkpoints by step, oldest first, without the copy that is named ``best``."""
        return sorted(self.checkpoints.glob("step-*.safetensors"))

    def restore(self, state: TrainingState) -> bool:
        """Load the newest checkpoint into ``state``; returns False if the run has none.

        Raises:
            CheckpointError: it is damaged, or was trained with another vocoder, mel definition or speakers.
        """
        for half_written in self.checkpoints.glob(".*.part*"):  # by a process that was killed while it saved
            half_written.unlink(missing_ok=True)
        found = self.checkpoint_files()
        if not found:
            return False
        tensors, header = load_checkpoint(found[-1])
        remedy = "give another --out to start a new run, or undo the change"
        self._refuse_another(state.vocoder.mel, state.vocoder.speakers, header, found[-1], remedy=remedy)
        state.restore(tensors, header, found[-1])
        self.truncate_log(state.step)
        return True

    def start_from(self, state: TrainingState, source: Path) -> str:
        """Load the EMA weights of another run, and its discriminators if their settings are the same.

        The vocoder may have more speakers than the other run; the new ones begin as the mean of the others.

        Args:
            state: a new state.
            source: a run's folder, a model or checkpoint file, or ``Path("default")`` for the voice that wavegen ships.

        Returns:
            a line for the user.

        Raises:
            CheckpointError: the file cannot be read, has another vocoder or mel definition, or speakers that this run
                does not have.
        """
        path, tensors, header = self.read_init(source, state.vocoder.mel, state.vocoder.speakers)
        weights = _with_prefix("ema.", tensors)
        known = tuple(header.get("speakers", ()))
        if known != tuple(state.vocoder.speakers):
            for name, module in state.vocoder.named_modules():
                if isinstance(module, SpeakerCondition):
                    key = f"{name}.embedding.weight"
                    weights[key] = module.with_rows_of(weights[key], known)
        for module in (state.vocoder, state.ema):
            load_weights(module, weights, path)
        line = f"starting from {path} (step {header.get('step')})"
        if new := [name for name in state.vocoder.speakers if name not in known]:
            line += f", with the new speakers {join_names(new)}"
        if state.discriminators is None:
            return line

        trained = _with_prefix("discriminator.", tensors)
        if not trained:
            return f"{line}, with new discriminators because it has none"
        theirs = _section(_section(header.get("recipe"), "training"), "adversarial")
        ours = self.recipe["training"]["adversarial"]
        if any(theirs.get(key) != ours[key] for key in DISCRIMINATORS):
            return f"{line}, with new discriminators because its settings for them differ"
        load_weights(state.discriminators, trained, path)
        return f"{line}, with its discriminators"

    def read_init(
        self, source: Path, mel: MelSpec, speakers: Sequence[str] = ()
    ) -> tuple[Path, dict[str, Tensor], dict[str, Any]]:
        """The file that ``start_from`` loads, with its tensors and header.

        Raises:
            CheckpointError: see ``start_from``.
        """
        # Prefer a checkpoint: a model file does not have the discriminators.
        checkpoints = sorted((source / "checkpoints").glob("step-*.safetensors"))
        path = checkpoints[-1] if checkpoints else find_model(source)
        tensors, header = load_checkpoint(path)
        remedy = "give an init that was trained with this recipe's settings, or change the recipe"
        self._refuse_another(mel, speakers, header, path, remedy=remedy, without=KeepsWeights, may_add_speakers=True)
        return path, tensors, header

    def append_to_log(self, row: Mapping[str, Any]) -> None:
        """Add a row to ``log.jsonl``."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with open(self.log, "a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        except OSError as error:
            what, remedy = f"cannot write: {error.strerror}", "check the free space; the checkpoints are intact"
            raise OutputError(what, where=self.log, remedy=remedy) from error

    def truncate_log(self, step: int) -> None:
        """Drop the rows after ``step``, whose steps will be repeated, and a last row that is half-written."""
        if not self.log.exists():
            return
        kept = []
        for line in self.log.read_text(encoding="utf-8").splitlines(keepends=True):
            with contextlib.suppress(ValueError):
                if json.loads(line)["step"] <= step:
                    kept.append(line)
        with atomic_write(self.log) as beside:
            beside.write_text("".join(kept), encoding="utf-8")

    def _header(self, kind: str, state: TrainingState) -> dict[str, Any]:
        header = network_header(self.network_config, state.vocoder.mel, state.vocoder.speakers)
        return header | {"kind": kind, "recipe": self.recipe}

    def _refuse_another(
        self,
        mel: MelSpec,
        speakers: Sequence[str],
        header: Mapping[str, Any],
        path: Path,
        *,
        remedy: str,
        without: type | None = None,
        may_add_speakers: bool = False,
    ) -> None:
        """Raise CheckpointError if a file's vocoder, mel definition or speakers are not this run's.

        Args:
            mel: the mel definition of this run.
            speakers: the speakers of this run.
            header: the header of the file.
            path: the file.
            remedy: ends the message.
            without: a marker; vocoder settings that carry it are not compared. With a marker, the mel definition may
                also be another one that the file's vocoder reads.
            may_add_speakers: whether this run may have speakers that the file does not have, if the file has some.
        """
        ours = self.network_config
        saved = _section(header, ours.section)
        if saved.get("name") != ours.name:
            differences = {ours.section: {"name": (ours.name, saved.get("name"))}, "mel": {}}
        else:
            try:
                saved_network = _parse_known(type(ours), saved, where=ours.section)
                saved_mel = _parse_known(MelSpec, _section(header, "mel"), where="mel")
            except ConfigError as error:
                raise CheckpointError(
                    f"has settings of another version ({error})", where=path, remedy=remedy
                ) from error
            differences = {
                ours.section: ours.differences(saved_network, without=without),
                "mel": {} if without and _reads(saved_network, saved_mel, mel) else mel.differences(saved_mel),
            }
        for section, fields in differences.items():
            if fields:
                pairs = list(fields.items())[:_MAX_DIFFERENCES_SHOWN]
                shown = ", ".join(f"{section}.{name} is {theirs!r}, not {own!r}" for name, (own, theirs) in pairs)
                raise CheckpointError(f"was trained with another {section} ({shown})", where=path, remedy=remedy)

        named = header.get("speakers", [])
        theirs = tuple(map(str, named)) if isinstance(named, list) else ()
        own = tuple(speakers)
        if may_add_speakers and theirs and {*theirs} <= {*own}:
            return
        if theirs != own:
            only_there, only_here = sorted({*theirs} - {*own}), sorted({*own} - {*theirs})
            parts = [f"it has {join_names(only_there)}"] * bool(only_there)
            parts += [f"it lacks {join_names(only_here)}"] * bool(only_here)
            shown = ", ".join(parts) or "in another order"
            raise CheckpointError(f"was trained with other speakers ({shown})", where=path, remedy=remedy)


def _reads(config: NetworkConfig, own: MelSpec, mel: MelSpec) -> bool:
    """Whether a vocoder with this config and its own definition reads mels of another one, with the same weights."""
    with torch.device("meta"):
        vocoder = build_network(config, own)
    if not isinstance(vocoder, Vocoder):
        return own == mel
    try:
        vocoder.for_mel(mel)
    except MelError:
        return False
    return vocoder.reads_other_mels


def _parse_known(config: type[T], values: Mapping[str, Any], *, where: str) -> T:
    """Settings of a file of another version: those it lacks have their defaults, those unknown here are left out."""
    return parse(config, {name: value for name, value in values.items() if name in config.model_fields}, where=where)


def _section(values: Any, name: str) -> Mapping[str, Any]:
    """A section of a file's recipe; empty if it is missing, or something else."""
    section = values.get(name) if isinstance(values, Mapping) else None
    return section if isinstance(section, Mapping) else {}


def _with_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names start with ``prefix``, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
