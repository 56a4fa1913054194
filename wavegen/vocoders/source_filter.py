"""The source-filter vocoder: all of it follows from the mel by arithmetic, but for a small pitch network."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import NonNegativeInt
from torch import Tensor

from wavegen.blocks import Context
from wavegen.config import KeepsWeights
from wavegen.mel import MelSpec
from wavegen.source import PitchNetwork
from wavegen.vocoders._base import PitchVocoder, VocoderConfig
from wavegen.vocoders._sourced import SourcedVocoder
from wavegen.vocoders._speakers import SpeakerCondition, refuse_speakers
from wavegen.vocoders._spoken import Features

if TYPE_CHECKING:
    from wavegen.engines.spectral.chain import CompiledChain


class SourceFilterConfig(VocoderConfig):
    """Settings of a source-filter vocoder in a recipe.

    Attributes:
        pretrained: begin with the pitch network that wavegen ships; training then continues it.
        synthesis_iterations: Griffin-Lim iterations at the end: more of them sound better and take longer.
    """

    name: Literal["source-filter"] = "source-filter"
    pretrained: Annotated[bool, KeepsWeights()] = True
    synthesis_iterations: Annotated[NonNegativeInt, KeepsWeights()] = 8

    @property
    def reads_pitch_labels(self) -> bool:
        """True: training is that of the pitch network."""
        return True

    @classmethod
    def examples(cls) -> tuple["SourceFilterConfig", ...]:
        """With and without iterations."""
        return (cls(synthesis_iterations=1), cls(synthesis_iterations=0))


class SourceFilterVocoder(SourcedVocoder, PitchVocoder):
    """Pulses and noise through the mel's own filter, with the mel imposed on the sound.

    ::

        mel ─┬─ source stage ─ periodic + aperiodic ─┐
             └────────────────────────────────────── impose ─ Griffin-Lim iterations ─ samples

    Only the pitch network is trained, so it reads every mel definition of any sample rate and hop length.

    Args:
        mel: the mel definition.
        config: the settings; by default the config's defaults.
        speakers: must be empty, because the mel says who speaks.

    Raises:
        ConfigError: there are speakers, or channels for them.
    """

    Config = SourceFilterConfig
    has_speakers = False

    def __init__(self, mel: MelSpec, config: SourceFilterConfig | None = None, *, speakers: Sequence[str] = ()) -> None:
        super().__init__(mel)
        config = config or SourceFilterConfig()
        if not config.pretrained:
            self.stage.network = PitchNetwork()
        self.pitch.requires_grad_(True)
        refuse_speakers(config.name, speakers, config.speaker_channels)
        self.synthesis_iterations = config.synthesis_iterations
        self.speaker_condition = SpeakerCondition((), 0, 0)

    def for_mel(self, mel: MelSpec, where: object = "mel") -> "SourceFilterVocoder":
        """This vocoder as a reader of another definition, whatever it is; it shares the pitch network."""
        return self.reading(mel)

    @property
    def reads_other_mels(self) -> bool:
        """True: no weight depends on the definition."""
        return True

    @property
    def render_context(self) -> Context:
        """Frames read by the projection and its iterations."""
        return self.projection.context(self.iterations)

    def render(
        self,
        features: Features,
        mask: Tensor | None,
        speakers: Tensor | None,
        iterations: int,
        compiled: "CompiledChain | None" = None,
    ) -> Tensor:
        """Impose the mel on the sum of both sources."""
        samples = features.source_samples().sum(1)
        if compiled is not None:
            return compiled.projection(samples[:, None], features.spoken.mel, mask, iterations=iterations)
        return self.projection(samples, features.spoken.mel, mask, iterations=iterations)
