"""The inpainter: completes a log-mel of which some bins of some frames are missing, or known in part."""

import math
from typing import Annotated, Literal, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field, NonNegativeInt, PositiveInt
from torch import Tensor, nn

from wavegen.blocks import (
    Context,
    DilatedConv1d,
    DilatedConv2d,
    DilatedStack,
    Padding,
    SeparableResidualBlock,
    exponential_dilations,
    masked,
)
from wavegen.errors import ConfigError
from wavegen.mel import MelSpec
from wavegen.models._base import LN_SCALE, Model, ModelBatch, ModelConfig, Shown
from wavegen.models._damage import draw_band, draw_lost, interpolated, known_shares

KEPT = 0.999  # share of a bin from which on it stays as it is
BAND_WEIGHT = 2.0  # of missing bands in the loss, beside holes in time
TRUST = 2.0  # in the guess, before training: its sigmoid, 0.88, is the share of the guess that counts


class InpainterConfig(ModelConfig):
    """Settings of an inpainter in a recipe.

    Attributes:
        padding: ``"causal"`` reads no frames to come but those of ``look_ahead``; ``"same"`` reads both sides.
        look_ahead: frames that a causal inpainter reads beyond the one it completes, at most 4.
        image_channels: channels of the two layers over frequency and time that read the mel and its mask.
        channels: channels of the stack.
        layers: number of its blocks.
        kernel_size: taps of the blocks' depthwise convolutions.
        dilation_depth: dilations grow 1, 2, … 2^(depth - 1) and start over.
        expansion: hidden channels of each block as a multiple of ``channels``.
    """

    name: Literal["inpainter"] = "inpainter"
    padding: Padding = "same"
    look_ahead: Annotated[NonNegativeInt, Field(le=4)] = 0
    image_channels: PositiveInt = 8
    channels: PositiveInt = 192
    layers: PositiveInt = 6
    kernel_size: PositiveInt = 5
    dilation_depth: PositiveInt = 3
    expansion: PositiveInt = 3

    @classmethod
    def examples(cls) -> tuple["InpainterConfig", ...]:
        """Same-padded, causal, and causal with look-ahead."""
        tiny = cls(image_channels=2, channels=6, layers=2, kernel_size=3, dilation_depth=2, expansion=2)
        causal = tiny.model_copy(update={"padding": "causal"})
        return (tiny, causal, causal.model_copy(update={"look_ahead": 2}))


class InpainterState(NamedTuple):
    """State of a stream.

    Attributes:
        mel: frames that wait for the look-ahead, ``[batch, n_mels, waiting]``.
        known: the share of each bin that is known, same shape.
        early: outputs of the first layer that are still to be dropped because they precede the first frame.
        image: states of the layers over frequency and time.
        stack: state of the stack.
    """

    mel: Tensor
    known: Tensor
    early: Tensor
    image: tuple[Tensor, ...]
    stack: tuple[Tensor, ...]


class Damage(NamedTuple):
    """What is left of segments.

    Attributes:
        lost: bool ``[batch, samples]``, the samples in holes.
        sound: ``[batch, samples]``, with the holes interpolated by linear prediction.
        mel: ``[batch, n_mels, frames]``, that of the sound.
        known: the share of the mel that is known, same shape.
        kept: bool ``[batch, n_mels]``, the bins that are not in a missing band.
    """

    lost: Tensor
    sound: Tensor
    mel: Tensor
    known: Tensor
    kept: Tensor


class Inpainter(Model):
    """Completes a log-mel: what is known of it stays, the rest is what a dilated stack expects there.

    ::

        mel, known ─ two layers over frequency and time ─ 1×1 ─ norm ─ separable dilated blocks ─ norm ─ 1×1 ─┐
                                                                                                 trust, addition
        mel, where a part of it is known ─────────────────────────────────────────────────────────── × ──── + ─ mel

    ``known`` has a value for each bin of each frame, so lost packets and missing bands are one task. The windows of
    several frames reach into a short hole, but few of them lie in it: of these frames a part is known, and their mel is
    that of the sound with its hole interpolated by linear prediction. Deep in a long hole that prediction has faded, so
    the network decides for each bin how far to trust it, and adds what it lacks.

    Args:
        mel: the mel definition.
        config: the shape; by default that of the config's defaults.

    Raises:
        ConfigError: the padding does not allow the look-ahead.
    """

    Config = InpainterConfig
    normalised_over_channels = True

    def __init__(self, mel: MelSpec, config: InpainterConfig | None = None) -> None:
        super().__init__(mel)
        config = config or InpainterConfig()
        padding, channels, images = config.padding, config.channels, config.image_channels
        if config.look_ahead and padding != "causal":
            raise ConfigError(
                f"look_ahead {config.look_ahead} needs padding causal, but it is {padding}", remedy="change one of both"
            )
        dilations = exponential_dilations(math.ceil(config.layers / config.dilation_depth), config.dilation_depth)
        self.first = DilatedConv2d(2, images, (5, 5), padding=padding)
        self.second = DilatedConv2d(images, images, (5, 3), dilation=(3, 1), padding=padding)
        self.input = DilatedConv1d(images * mel.n_mels, channels, 1)
        self.input_norm = nn.LayerNorm(channels)
        self.stack = DilatedStack(
            SeparableResidualBlock(
                channels,
                kernel_size=config.kernel_size,
                dilation=dilation,
                padding=padding,
                expansion=config.expansion,
                initial_scale=1 / config.layers,
            )
            for dilation in dilations[: config.layers]
        )
        self.output_norm = nn.LayerNorm(channels)
        self.output = DilatedConv1d(channels, 2 * mel.n_mels, 1)
        self.look_ahead = config.look_ahead

    @property
    def context(self) -> Context:
        """Frames read around the one that is completed."""
        first = self.first.context
        shifted = Context(first.left - self.look_ahead, first.right + self.look_ahead)
        return shifted + self.second.context + self.stack.context

    def forward(self, mel: Tensor, known: Tensor, mask: Tensor | None = None) -> Tensor:
        """Complete a mel.

        Args:
            mel: ``[batch, n_mels, frames]``: the mel where all is known, a guess where a part is, and anything, NaN
                included, where nothing is.
            known: the share that is known, 0 to 1 or bool, same shape.
            mask: ``[batch, 1, frames]``, True where a frame is real; None if all are.

        Returns:
            ``[batch, n_mels, frames]``: ``mel`` where it is known, and what is expected elsewhere.
        """
        return torch.where(known >= KEPT, mel, self.mel_of(self._expected(mel, known, mask)))

    def initial_state(self, batch: int) -> InpainterState:
        """State of a stream before the first frame; refused by ``step`` if the inpainter is same-padded."""
        like, bins = self.output.weight, self.mel.n_mels
        return InpainterState(
            mel=like.new_zeros(batch, bins, 0),
            known=like.new_zeros(batch, bins, 0),
            early=torch.tensor(self.look_ahead),
            image=(self.first.initial_state(batch, bins), self.second.initial_state(batch, bins)),
            stack=self.stack.initial_state(batch),
        )

    def step(self, mel: Tensor, known: Tensor, state: InpainterState) -> tuple[Tensor, InpainterState]:
        """Complete the next frames; they come out ``look_ahead`` frames late.

        Args:
            mel: that of ``forward``, any number of frames.
            known: that of ``forward``.
            state: the state that ``initial_state`` or the previous ``step`` returned; it is left unchanged.

        Returns:
            the completed frames that are ready ``[batch, n_mels, frames]``, and the next state.

        Raises:
            StreamingError: the inpainter is same-padded.
        """
        return self._step(self._image(mel, known), mel, known.to(state.known), state)

    def flush(self, state: InpainterState) -> Tensor:
        """The frames that waited for the look-ahead when the sound ended."""
        beyond = state.mel.new_zeros(len(state.mel), 2, self.mel.n_mels, self.look_ahead)
        return self._step(beyond, state.mel[..., :0], state.known[..., :0], state)[0]

    def losses(self, batch: ModelBatch) -> dict[str, Tensor]:
        """Mean distance of the normalised log-mel where it is not known.

        ``holes`` is that of the frames of which a hole in time takes a part, of ln, and ``band`` that of missing bands.
        """
        mask, damage = batch.mask, self.damaged(batch.audio, batch.seeds)
        known, kept = damage.known, damage.kept[..., None]
        distance = (self._expected(damage.mel, known, mask) - self.normalised(batch.mel)).abs().float()
        distance = masked(distance, mask)
        missing = (known < KEPT) & mask

        def mean_over(cells: Tensor) -> Tensor:
            return torch.where(cells, distance, 0.0).sum() / cells.sum().clamp(min=1)

        # A small weight on what is known teaches the network what a mel is, in the first steps most of all.
        holes, band = mean_over(missing & kept), mean_over(missing & ~kept)
        loss = holes + BAND_WEIGHT * band + 0.1 * mean_over((known >= KEPT) & mask)
        return {"loss": loss, "holes": LN_SCALE * holes.detach(), "band": LN_SCALE * band.detach()}

    def damaged(self, audio: Tensor, seeds: Tensor) -> Damage:
        """What training leaves of segments ``[batch, frames * hop_length]``, and what linear prediction makes of it."""
        lost = draw_lost(seeds, audio.shape[-1], self.mel.sample_rate_hz)
        kept = draw_band(seeds, self.mel.n_mels)
        shares, sound = known_shares(lost, self.mel), interpolated(audio, lost, self.mel.n_fft)
        mel = self.log_mel(sound)[..., : shares.shape[-1]]
        return Damage(lost, sound, mel, shares.to(mel) * kept[..., None], kept)

    @torch.no_grad()
    def show(self, mel: Tensor, audio: Tensor, labels: Tensor | None = None) -> Shown:
        """A clip with holes, interpolated by linear prediction, with its mel completed, and as it was."""
        damage = self.damaged(audio[None], torch.tensor([1], device=mel.device))
        left = torch.where(damage.known >= KEPT, damage.mel, mel.min())
        repaired = self(damage.mel, damage.known)
        pictures = {"damaged": left[0], "interpolated": damage.mel[0], "repaired": repaired[0], "original": mel}
        sounds = {"damaged": torch.where(damage.lost[0], 0, audio), "interpolated": damage.sound[0]}
        return Shown(pictures, sounds, damage.lost[0])

    def _expected(self, mel: Tensor, known: Tensor, mask: Tensor | None) -> Tensor:
        """The normalised mel that is expected in every bin of every frame: the guess, where there is one, corrected."""
        # A causal layer's output at t + look_ahead belongs to frame t, so drop the first look_ahead frames.
        image = masked(self._image(mel, known), None if mask is None else mask[:, :, None])
        h = F.gelu(self.first(F.pad(image, (0, self.look_ahead)))[..., self.look_ahead :])
        h = F.gelu(self.second(h, mask))
        _, h = self.stack(self._stack_input(h), None, mask)
        return self._corrected(self._guess(mel, known), h)

    def _step(self, image: Tensor, mel: Tensor, known: Tensor, state: InpainterState) -> tuple[Tensor, InpainterState]:
        mel, known = torch.cat((state.mel, mel), dim=-1), torch.cat((state.known, known), dim=-1)
        h, first = self.first.step(image, state.image[0])
        dropped = min(int(state.early), h.shape[-1])
        h, second = self.second.step(F.gelu(h[..., dropped:]), state.image[1])
        (_, h), stack = self.stack.step(self._stack_input(F.gelu(h)), state.stack)
        ready = h.shape[-1]
        expected = self.mel_of(self._corrected(self._guess(mel[..., :ready], known[..., :ready]), h))
        completed = torch.where(known[..., :ready] >= KEPT, mel[..., :ready], expected)
        waiting = mel[..., ready:], known[..., ready:]
        return completed, InpainterState(*waiting, state.early - dropped, (first, second), stack)

    def _image(self, mel: Tensor, known: Tensor) -> Tensor:
        """``[batch, 2, n_mels, frames]``: the mel, 0 where nothing of it is known, and the share that is known."""
        return torch.stack((self._guess(mel, known), known.to(mel.dtype)), dim=1)

    def _guess(self, mel: Tensor, known: Tensor) -> Tensor:
        """The normalised mel, 0 where nothing of it is known."""
        return masked(self.normalised(mel), known > 0)

    def _stack_input(self, h: Tensor) -> Tensor:
        return self._norm(self.input_norm, self.input(h.flatten(1, 2)))

    def _corrected(self, guess: Tensor, h: Tensor) -> Tensor:
        """The guess, as far as it is trusted, and an addition; both follow from the stack's output."""
        trust, addition = self.output(self._norm(self.output_norm, h)).chunk(2, dim=1)
        return torch.sigmoid(TRUST + trust) * guess + addition

    @staticmethod
    def _norm(norm: nn.LayerNorm, x: Tensor) -> Tensor:
        return norm(x.transpose(1, 2)).transpose(1, 2)
