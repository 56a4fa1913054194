"""The board of a run: curves, and the sound and spectrograms of validation clips, in whatever tracker was chosen."""

import copy
from collections.abc import Mapping, Sequence

import torch

from wavegen.audio import read_audio
from wavegen.corpora.manifest import Clip, take_evenly
from wavegen.evaluation.metrics import score
from wavegen.evaluation.model_samples import show_clip
from wavegen.evaluation.pictures import figure_to_array, rows_figure, spectrogram_figure
from wavegen.mel import open_mel
from wavegen.models import Model
from wavegen.network import Network
from wavegen.precision import deterministic
from wavegen.training.config import TrainingConfig
from wavegen.training.loggers import Logger
from wavegen.training.validation import listened_metrics
from wavegen.vocoders import Vocoder


class Board:
    """Shows one run in a tracker.

    Args:
        logger: the tracker.
    """

    def __init__(self, logger: Logger) -> None:
        self.logger = logger

    def scalars(self, group: str, step: int, values: Mapping[str, float]) -> None:
        """Add one point to each curve."""
        self.logger.scalars(step, {f"{group}/{name}": value for name, value in values.items()})

    @torch.no_grad()
    def listen(
        self, step: int, network: Network, clips: Sequence[Clip], config: TrainingConfig, device: torch.device
    ) -> dict[str, float]:
        """Synthesise a few clips, and add their sound, spectrograms and mean scores.

        A model that is not a vocoder shows what it makes of the clips, without scores.

        Args:
            step: the step that the results belong to.
            network: the vocoder to listen to, or other model.
            clips: validation clips.
            config: training settings.
            device: the device of this process.

        Returns:
            the means of all scores that any clip has.
        """
        clips = take_evenly(clips, config.listen_clips)
        if isinstance(network, Model):
            self._show(step, network, clips, config, device)
            return {}
        vocoder = network
        assert isinstance(vocoder, Vocoder)
        rate = vocoder.mel.sample_rate_hz
        metrics = listened_metrics(config.best_by)
        scores: dict[str, list[float]] = {}
        if (preferred := vocoder.preferred_device(device)) != device:
            vocoder, device = copy.deepcopy(vocoder).to(preferred), preferred
        is_first_time = step == min(config.validate_every, config.steps)
        # Listening does not change the weights, and some of its kernels have no deterministic form on a GPU.
        with deterministic(False):
            for clip in clips:
                frames = min(config.listen_frames, clip.frames)
                mel = torch.tensor(open_mel(clip.mel)[:, :frames], device=device)[None]
                generated = vocoder.synthesize(mel, speaker=clip.speaker or None)[0].float().cpu().numpy()
                real = read_audio(clip.audio)[: len(generated)]
                self.logger.audio(step, f"{clip.name}/generated", generated, rate)
                if is_first_time:
                    self.logger.audio(step, f"{clip.name}/recording", real, rate)
                figure = spectrogram_figure({"recording": real, "generated": generated}, vocoder.mel)
                self.logger.image(step, f"{clip.name}/spectrogram", figure_to_array(figure))
                for key, value in score(real, generated, vocoder.mel, metrics).values.items():
                    if value is not None:
                        scores.setdefault(key, []).append(value)
        return {key: sum(values) / len(values) for key, values in scores.items()}

    def _show(
        self, step: int, model: Model, clips: Sequence[Clip], config: TrainingConfig, device: torch.device
    ) -> None:
        """Add the pictures and sounds that a model makes of clips."""
        rate = model.mel.sample_rate_hz
        with deterministic(False):
            for clip in clips:
                shown = show_clip(model, clip, config.listen_frames, device)
                for title, sound in shown.sounds.items():
                    self.logger.audio(step, f"{clip.name}/{title}", sound.float().cpu().numpy(), rate)
                pictures = {title: picture.float().cpu().numpy() for title, picture in shown.pictures.items()}
                figure = rows_figure(pictures, frame_s=model.mel.hop_length / rate)
                self.logger.image(step, f"{clip.name}/pictures", figure_to_array(figure))

    def close(self) -> None:
        """Send what is buffered, and close the tracker."""
        self.logger.close()
