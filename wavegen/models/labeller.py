"""A dilated stack over log-mel frames that says of each frame which classes it has: whole or streamed."""

from typing import Annotated, Literal, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator
from torch import Tensor

from wavegen.blocks import (
    Context,
    DilatedConv1d,
    DilatedStack,
    LayerStates,
    Padding,
    SeparableResidualBlock,
    exponential_dilations,
    frame_mask,
    masked,
)
from wavegen.config import KeepsWeights
from wavegen.errors import ConfigError
from wavegen.mel import MelSpec
from wavegen.models._base import Model, ModelBatch, ModelConfig, Shown
from wavegen.models._in_noise import LEVEL, TALKERS, draws, in_noise, with_pause
from wavegen.network import FrameClasses

LEVELS_DB = (-20.0, 6.0)  # gains of training segments
Share = Annotated[float, Field(ge=0, le=1)]


class LabellerConfig(ModelConfig):
    """Shape of a labeller in a recipe, and the noise that it learns to hear through.

    Attributes:
        classes: the names of the classes.
        exclusive: whether a frame has exactly one class. Otherwise each class is there or not, whatever the others are.
        background: the class of frames between labels, for ``exclusive`` ones; it gets no labels. None leaves these
            frames unlabelled, and training does not count them.
        class_weights: the weight in the loss of a frame that has the class, one for each class; 1 if empty. Of a class
            with a share ``s`` of the frames, ``(1 - s) / s`` weighs both answers alike.
        padding: ``"same"``, or ``"causal"`` for a low latency.
        look_ahead: frames that a causal labeller reads beyond the one it labels, up to ``kernel_size - 1``.
        channels: channels of the stack.
        layers: number of blocks.
        kernel_size: taps of the blocks' depthwise convolutions and of the input layer.
        dilation_depth: dilations grow 1, 2, … 2^(depth - 1) and start over.
        expansion: hidden channels of each block as a multiple of ``channels``.
        pauses: share of the segments of which training makes a part silent. Silence has none of the classes, or is the
            background.
        noise_below_db: range of the level of the segments over that of the noise that training adds to all of them.
        babble: share of the segments whose noise is babble, six other recordings at once; that of the others is white
            to brown.
    """

    name: Literal["labeller"] = "labeller"
    classes: Annotated[tuple[str, ...], Field(min_length=1)] = ("speech", "voiced")
    exclusive: bool = False
    background: str | None = None
    class_weights: Annotated[tuple[PositiveFloat, ...], KeepsWeights()] = ()
    padding: Padding = "same"
    look_ahead: NonNegativeInt = 0
    channels: PositiveInt = 96
    layers: PositiveInt = 6
    kernel_size: PositiveInt = 5
    dilation_depth: PositiveInt = 3
    expansion: PositiveInt = 2
    pauses: Annotated[Share, KeepsWeights()] = 0.5
    noise_below_db: Annotated[tuple[float, float], KeepsWeights()] = (-5.0, 30.0)
    babble: Annotated[Share, KeepsWeights()] = 0.3

    @property
    def labels(self) -> FrameClasses:
        """The classes of the frames."""
        return FrameClasses(self.classes, self.exclusive, self.background)

    @model_validator(mode="after")
    def _classes_are_possible(self) -> "LabellerConfig":
        if len(set(self.classes)) < len(self.classes):
            raise ValueError(f"classes: {', '.join(self.classes)}: a name is there twice; leave one out")
        if self.class_weights and len(self.class_weights) != len(self.classes):
            weights, classes = len(self.class_weights), len(self.classes)
            raise ValueError(f"class_weights has {weights} weights for {classes} classes; give one for each, or none")
        if self.exclusive and len(self.classes) < 2:
            raise ValueError("exclusive=true needs at least two classes; add one, or set it to false")
        if self.background is not None and not (self.exclusive and self.background in self.classes):
            raise ValueError(f"background {self.background!r} must be one of the classes, with exclusive=true")
        return self

    @classmethod
    def examples(cls) -> tuple["LabellerConfig", ...]:
        """Both paddings, with and without look-ahead; exclusive and independent classes."""
        tiny = cls(channels=5, layers=3, kernel_size=3, dilation_depth=2)
        exclusive = {"classes": ("a", "b", "c"), "exclusive": True, "background": "c"}
        return (
            tiny,
            tiny.model_copy(update=exclusive),
            tiny.model_copy(update={"padding": "causal"}),
            tiny.model_copy(update={"padding": "causal", "look_ahead": 2}),
        )


class LabellerState(NamedTuple):
    """State of a stream of a causal labeller.

    Attributes:
        input: state of the input layer.
        early: outputs of the input layer, at the start, that belong to no frame because it looks ahead.
        layers: states of the blocks.
    """

    input: Tensor
    early: Tensor
    layers: LayerStates


class LabellerWindow(NamedTuple):
    """State of a stream that recomputes the context of every chunk.

    Attributes:
        frames: ``[batch, n_mels, frames]``, which are still needed.
        context: the number of them that are labelled already.
    """

    frames: Tensor
    context: Tensor


class Labeller(Model):
    """Says of each frame which classes it has.

    ::

        log-mel ── convolution (looks ahead) ── dilated blocks ── sum of skips ── 1×1 ── softmax or sigmoids

    Only the first layer looks ahead, so all others stream without waiting.
    """

    Config = LabellerConfig
    silence: Tensor
    normalised_over_channels = True

    def __init__(self, mel: MelSpec, config: LabellerConfig | None = None) -> None:
        super().__init__(mel)
        config = self.config = config or LabellerConfig()
        self.others = TALKERS if config.babble else 0
        if config.look_ahead and (config.padding != "causal" or config.look_ahead >= config.kernel_size):
            raise ConfigError(
                f"look_ahead {config.look_ahead} needs padding causal and a larger kernel_size; they are "
                f"{config.padding} and {config.kernel_size}",
                where="model",
            )
        self.input = DilatedConv1d(mel.n_mels, config.channels, config.kernel_size, padding=config.padding)
        dilations = exponential_dilations(cycles=config.layers, depth=config.dilation_depth)[: config.layers]
        self.stack = DilatedStack(
            SeparableResidualBlock(
                config.channels,
                kernel_size=config.kernel_size,
                dilation=dilation,
                padding=config.padding,
                expansion=config.expansion,
                initial_scale=1 / config.layers,
            )
            for dilation in dilations
        )
        self.output = DilatedConv1d(config.channels, len(config.classes), 1)
        self.register_buffer("silence", torch.tensor(_silence(config), dtype=torch.int8), persistent=False)

    @property
    def context(self) -> Context:
        """Frames read around the frame that is labelled."""
        reads, ahead = self.input.context, self.config.look_ahead
        return Context(reads.left - ahead, reads.right + ahead) + self.stack.context

    def forward(self, mel: Tensor, mask: Tensor | None = None) -> Tensor:
        """Logits ``[batch, classes, frames]`` of a mel ``[batch, n_mels, frames]``."""
        # A causal layer's output at t + look_ahead belongs to frame t, so drop the first look_ahead frames.
        ahead = self.config.look_ahead
        x = masked(self.normalised(mel), mask)
        return self._labelled(self.input(F.pad(x, (0, ahead)))[..., ahead:], mask)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Probabilities of the classes: they sum to 1 if the classes exclude each other."""
        return logits.softmax(dim=1) if self.config.exclusive else logits.sigmoid()

    def marks(self, probabilities: Tensor) -> Tensor:
        """Int8 ``[batch, classes, frames]``, 1 for the most likely class, or for each that is likelier than not."""
        if not self.config.exclusive:
            return (probabilities > 0.5).to(torch.int8)
        best = probabilities.argmax(dim=1, keepdim=True)
        return torch.zeros_like(probabilities, dtype=torch.int8).scatter_(1, best, 1)

    @torch.no_grad()
    def label(self, mel: Tensor, *, lengths: Tensor | None = None) -> Tensor:
        """Probabilities ``[batch, classes, frames]`` of a mel; ``lengths`` are the real frames of each item."""
        mask = frame_mask(lengths, mel.shape[-1])
        found = self.probabilities(self(masked(mel, mask), mask))
        return masked(found, mask)

    # --- streaming ---------------------------------------------------

    def initial_state(self, batch: int) -> LabellerState | LabellerWindow:
        """State before the first frame."""
        if self.config.padding == "same":
            return LabellerWindow(self.input.weight.new_zeros(batch, self.mel.n_mels, 0), torch.tensor(0))
        early = torch.tensor(self.config.look_ahead)
        return LabellerState(self.input.initial_state(batch), early, self.stack.initial_state(batch))

    @torch.no_grad()
    def step(self, mel: Tensor, state: LabellerState | LabellerWindow) -> tuple[Tensor, LabellerState | LabellerWindow]:
        """Take the next frames ``[batch, n_mels, frames]``; returns the probabilities that are ready, and the state.

        They lag by ``context.right`` frames, and are those that ``label`` gives for the whole.
        """
        if isinstance(state, LabellerState):
            return self._step(self.normalised(mel), state)
        frames, context = torch.cat((state.frames, mel), dim=-1), int(state.context)
        ready = max(context, frames.shape[-1] - self.context.right)
        if ready == context:
            return frames.new_zeros(len(frames), len(self.config.classes), 0), state._replace(frames=frames)
        unneeded = max(0, ready - self.context.left)
        return (
            self.probabilities(self(frames))[..., context:ready],
            LabellerWindow(frames[..., unneeded:], torch.tensor(ready - unneeded)),
        )

    @torch.no_grad()
    def flush(self, state: LabellerState | LabellerWindow) -> Tensor:
        """The probabilities of the frames that waited for others when the recording ended."""
        if isinstance(state, LabellerWindow):
            if state.frames.shape[-1] == int(state.context):
                return state.frames.new_zeros(len(state.frames), len(self.config.classes), 0)
            return self.probabilities(self(state.frames))[..., int(state.context) :]
        waiting = state.input.new_zeros(len(state.input), self.mel.n_mels, self.config.look_ahead)
        return self._step(waiting, state)[0]

    def _step(self, x: Tensor, state: LabellerState) -> tuple[Tensor, LabellerState]:
        h, inputs = self.input.step(x, state.input)
        dropped = min(int(state.early), h.shape[-1])
        (_, skips), layers = self.stack.step(h[..., dropped:], state.layers)
        return self.probabilities(self.output(skips)), LabellerState(inputs, state.early - dropped, layers)

    def _labelled(self, h: Tensor, mask: Tensor | None) -> Tensor:
        _, skips = self.stack(h, mask=mask)
        return self.output(skips)

    # --- training ----------------------------------------------------

    def losses(self, batch: ModelBatch) -> dict[str, Tensor]:
        """Cross-entropy of the classes, and in validation the F1 of each: means over clips.

        Training and validation hear the segments in noise: pauses, noise and levels follow from the seeds, and the
        other recordings are the voices of the babble. Frames that are not labelled do not count.
        """
        mask, labels = batch.mask, batch.labels
        assert labels is not None, "the config has labels"
        noisy, marks = self.task(batch.audio, labels, batch.seeds, batch.others)
        logits = self(masked(self.log_mel(noisy)[..., : mask.shape[-1]], mask), mask).float()
        counted = mask & (marks >= 0)
        weights = logits.new_tensor(self.config.class_weights or (1.0,) * len(self.config.classes))[:, None]
        target = (marks == 1).to(logits.dtype)
        if self.config.exclusive:
            entropy = -(weights * target * logits.log_softmax(dim=1))
        else:
            entropy = F.binary_cross_entropy_with_logits(logits, target, pos_weight=weights, reduction="none")
        # Divide by the number of all frames, not by the count: the mean over processes is then the loss of one process.
        losses = {"loss": torch.where(counted, entropy, 0.0).sum() / mask.numel()}
        if self.training:
            return losses
        found, true = (self.marks(self.probabilities(logits)) == 1) & counted, (marks == 1) & counted
        for index, name in enumerate(self.config.classes):
            hits, both = (found & true)[:, index].sum(), found[:, index].sum() + true[:, index].sum()
            losses[f"f1_{name}"] = torch.where(both > 0, 2 * hits / both.clamp(min=1), 1.0)
        return losses

    def task(self, audio: Tensor, marks: Tensor, seeds: Tensor, others: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Segments with pauses, in noise and at another level, and their labels."""
        config = self.config
        quiet, marks = with_pause(audio, marks, self.silence, seeds, config.pauses)
        # The noise is as loud as the speech makes it before a part of it becomes silent.
        noisy = quiet + in_noise(audio, seeds, others, below_db=config.noise_below_db, babbling=config.babble) - audio
        gain_db = LEVELS_DB[0] + (LEVELS_DB[1] - LEVELS_DB[0]) * draws(seeds)[:, LEVEL, None]
        return (noisy * 10 ** (gain_db / 20)).to(audio.dtype), marks

    def show(self, mel: Tensor, audio: Tensor, labels: Tensor | None = None) -> Shown:
        """A clip in noise, the probabilities that are found, and the labels.

        Args:
            mel: ``[n_mels, frames]``.
            audio: ``[frames * hop_length]``.
            labels: int8 ``[classes, frames]``.
        """
        assert labels is not None, "the config has labels"
        seeds = torch.zeros(1, dtype=torch.int64, device=audio.device)
        noisy, marks = self.task(audio[None], labels[None], seeds)
        heard = self.log_mel(noisy)[..., : mel.shape[-1]]
        names = ", ".join(reversed(self.config.classes))
        pictures = {"in noise": heard[0], f"found: {names}": self.label(heard)[0], f"labels: {names}": marks[0]}
        return Shown(pictures, {"in noise": noisy[0]})


def _silence(config: LabellerConfig) -> list[int]:
    """The marks of a silent frame: no class, the background, or unknown."""
    if not config.exclusive:
        return [0] * len(config.classes)
    return [-1 if config.background is None else int(name == config.background) for name in config.classes]
