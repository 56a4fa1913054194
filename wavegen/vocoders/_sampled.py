"""Vocoders that generate one sample after another: the loop, whole or streamed, and the mel imposed at its end."""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from wavegen.blocks import Context, HoldUpsampler, masked, sample_mask
from wavegen.distributions import OutputDistribution
from wavegen.engines import AUTOREGRESSIVE_ENGINES, Engine, EngineCache, FrameCondition, Prediction, make_engine
from wavegen.errors import ConfigError
from wavegen.mel import MelSpec
from wavegen.noise import coloured_noise, high_pass, uniform_noise
from wavegen.vocoders._base import AutoregressiveVocoder
from wavegen.vocoders._frames import count, cut, joined
from wavegen.vocoders._sourced import SourcedVocoder
from wavegen.vocoders._spoken import Features, Spoken, SpokenStage

if TYPE_CHECKING:
    from wavegen.engines.spectral.chain import CompiledChain


class LoopState(NamedTuple):
    """State of the sample loop's stream.

    Attributes:
        waiting: frames that later samples still read.
        first_frame: index in the utterance of the first of them.
        frames_done: number of frames whose samples have been generated.
        engine: state of the engine, such as the histories of the dilated layers.
        last_sample: ``[batch]``.
        seeds: int64 ``[batch]``.
    """

    waiting: Spoken
    first_frame: Tensor
    frames_done: Tensor
    engine: Any
    last_sample: Tensor
    seeds: Tensor


class SampledVocoder(SourcedVocoder, AutoregressiveVocoder, ABC):
    """Base of the vocoders whose samples an engine draws one after another, from what it knows of their frames.

    Args:
        mel: the mel definition.
        stage: computes what the mel says of each frame.

    Attributes:
        distribution: the distribution of a sample, or of the error of its prediction.
        look_ahead: frames that the condition reads beyond the one it describes.
        upsample: holds and smooths the condition.
        temperature: scales the randomness of sampling: 1 samples the learned distribution, 0 takes its mode.
        voiced_noise: the filter of the noise that voiced samples are drawn with; None for white noise.
        impose_mel: whether the mel is imposed on the samples.
    """

    engines = AUTOREGRESSIVE_ENGINES
    names_engine = True
    streams_natively = True

    distribution: OutputDistribution
    look_ahead: int
    upsample: HoldUpsampler
    temperature: float
    voiced_noise: Tensor | None
    impose_mel: bool

    def __init__(self, mel: MelSpec, stage: SpokenStage) -> None:
        super().__init__(mel, stage)
        self.projection.removes_dc = True  # errors of the network add up there, and no mel corrects them
        self._engines = EngineCache(make_engine)

    @abstractmethod
    def engine_inputs(
        self, spoken: Spoken, first: int, stop: int, mask: Tensor | None = None, speakers: Tensor | None = None
    ) -> tuple[FrameCondition, Prediction]:
        """What an engine needs to know for the samples of the frames from ``first`` to ``stop``.

        Args:
            spoken: the frames, with those that are read around them or the utterance's ends.
            first, stop: the frames to generate; 0 for ``first`` is the start of the utterance.
            mask: ``[batch, 1, frames]``, True where a frame is real; None if all are.
            speakers: int64 ``[batch]``; None for a vocoder without speakers.

        Returns:
            the condition at frame rate, which the engine holds and smooths, and the prediction.
        """

    @property
    @abstractmethod
    def frames_kept(self) -> int:
        """Frames before the next one that its samples read."""

    @property
    def render_context(self) -> Context:
        """Frames that the projection reads."""
        return self.projection.context(self.iterations) if self.impose_mel else Context()

    @property
    def latency_samples(self) -> int:
        """How far streamed output lags behind its input."""
        return super().latency_samples + self.look_ahead * self.mel.hop_length

    @property
    def steps_natively(self) -> bool:
        """Whether a stream recomputes nothing: all but the imposing of the mel carries its state."""
        return not self.impose_mel

    @property
    def items_at_once(self) -> int:
        """The engine's best batch size."""
        return self.engine().items_at_once

    def compiled(self) -> None:
        """None: the engine of a WaveNet computes its samples, not its frames."""
        return

    def engine(self) -> Engine:
        """The engine that generates, with this model's current weights folded into it."""
        return self._engines.engine(self)

    def generate(
        self,
        mel: Tensor,
        mask: Tensor | None,
        seeds: Tensor,
        first_frame: int,
        speakers: Tensor | None = None,
        f0: Tensor | None = None,
    ) -> Tensor:
        """Generate from silence, then impose the mel."""
        stage = self.running_stage
        _, state = self.initial_network_state(stage.no_features(len(mel)), seeds)
        features, _ = self._continue(stage(mel, mask, seeds, f0), state, mask, speakers, ended=True)
        return self.render(features, mask, speakers, self.iterations)

    def initial_network_state(self, features: Features, seeds: Tensor) -> tuple[Features, LoopState]:
        """As in ``SourcedVocoder``."""
        kernel, batch = self.upsample.kernel, len(seeds)
        state = LoopState(
            waiting=features.spoken,
            first_frame=torch.tensor(0),
            frames_done=torch.tensor(0),
            engine=self.engine().initial_state(batch),
            last_sample=kernel.new_zeros(batch),
            seeds=seeds,
        )
        return features._replace(corrections=kernel.new_zeros(batch, self.mel.hop_length, 0)), state

    def step_network(
        self,
        features: Features,
        state: Any,
        speakers: Tensor | None,
        compiled: "CompiledChain | None" = None,
        *,
        ended: bool,
    ) -> tuple[Features, Any]:
        """As in ``SourcedVocoder``; frames wait for the look-ahead of the condition."""
        return self._continue(features, state, None, speakers, ended=ended)

    def _continue(
        self, features: Features, state: LoopState, mask: Tensor | None, speakers: Tensor | None, *, ended: bool
    ) -> tuple[Features, LoopState]:
        """Generate the samples that are ready after the next frames."""
        waiting = joined(state.waiting, features.spoken)
        first, done, hop = int(state.first_frame), int(state.frames_done), self.mel.hop_length
        ready = first + count(waiting) - (0 if ended else self.look_ahead)
        if ready <= done:
            nothing = state.last_sample.new_zeros(len(state.seeds), hop, 0)
            return Features(cut(waiting, 0, 0), corrections=nothing), state._replace(waiting=waiting)

        condition, prediction = self.engine_inputs(waiting, done - first, ready - first, mask, speakers)

        # Sample by sample, with noise that is addressed by its position in the utterance.
        last = state.last_sample
        noise = self._noise(state.seeds, done * hop, prediction.period)
        samples, engine_state = self.engine().generate(
            last, condition, noise, state.engine, prediction=prediction, temperature=self.temperature
        )
        unneeded = max(0, ready - self.frames_kept - first)
        generated = Features(
            cut(waiting, done - first, ready - first), corrections=samples.unflatten(1, (-1, hop)).transpose(1, 2)
        )
        return generated, LoopState(
            waiting=cut(waiting, unneeded, None),
            first_frame=state.first_frame + unneeded,
            frames_done=torch.tensor(ready),
            engine=engine_state,
            last_sample=samples[:, -1],
            seeds=state.seeds,
        )

    def _noise(self, seeds: Tensor, start: int, period: Tensor) -> Tensor:
        """The uniform numbers ``[batch, samples]`` to draw with, from sample ``start`` on, for periods of frames."""
        hop = self.mel.hop_length
        count, voiced = period.shape[1] * hop, period.repeat_interleave(hop, dim=1) > 0
        white = uniform_noise(seeds, start, count, 1, period.device)[:, 0]
        if self.voiced_noise is None or not voiced.any():
            return white
        return torch.where(voiced, coloured_noise(seeds, start, count, self.voiced_noise, period.device), white)

    def render(
        self,
        features: Features,
        mask: Tensor | None,
        speakers: Tensor | None,
        iterations: int,
        compiled: "CompiledChain | None" = None,
    ) -> Tensor:
        """Impose the mel on the samples; zeros outside the mask."""
        assert features.corrections is not None
        samples = features.corrections.transpose(1, 2).flatten(1)
        real = sample_mask(mask, self.mel.hop_length)
        samples = masked(samples, None if real is None else real[:, 0])
        if not self.impose_mel:
            return samples
        return self.projection(samples, features.spoken.mel.to(samples), mask, iterations=iterations)


def voiced_noise(from_hz: float, sample_rate_hz: int) -> Tensor | None:
    """The filter of the noise in voiced frames; None for white noise."""
    if from_hz >= sample_rate_hz / 2:
        raise ConfigError(
            f"{from_hz:g} Hz is not below half the sample rate ({sample_rate_hz / 2:g} Hz)",
            where="vocoder.voiced_noise_from_hz",
            remedy=f"use {sample_rate_hz / 6:g}, or 0 for white noise",
        )
    return high_pass(from_hz, sample_rate_hz) if from_hz else None
