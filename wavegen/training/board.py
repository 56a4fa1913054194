"""TensorBoard: curves, and held-back clips to hear and see."""

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from wavegen.audio import read_audio
from wavegen.corpora.manifest import Clip, spread
from wavegen.evaluation.metrics import available, score
from wavegen.evaluation.pictures import figure_to_array, spectrogram_figure
from wavegen.mel import open_mel
from wavegen.training.config import TrainingConfig
from wavegen.vocoders import Vocoder


class Board:
    """A TensorBoard log of one run.

    Args:
        folder: for the event files.
        first_step: where a resumed run goes on; what an interrupted one wrote from there on is hidden.
    """

    def __init__(self, folder: Path, *, first_step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter  # slow to import, and only the first process needs it

        self.writer = SummaryWriter(str(folder), purge_step=first_step + 1)
        self.first_step = first_step

    def scalars(self, group: str, step: int, values: Mapping[str, float]) -> None:
        """Add one point to each curve."""
        for name, value in values.items():
            self.writer.add_scalar(f"{group}/{name}", value, step)

    @torch.no_grad()
    def listen(
        self, step: int, vocoder: Vocoder, clips: Sequence[Clip], config: TrainingConfig, device: torch.device
    ) -> dict[str, float]:
        """Synthesise a few clips; add their sound, their spectrogram beside the recording's, and their mean scores.

        Returns:
            the means of all scores that any clip has.
        """
        rate = vocoder.mel.sample_rate_hz
        wanted = available()
        scores: dict[str, list[float]] = {}
        if (preferred := vocoder.preferred_device(device)) != device:
            vocoder, device = copy.deepcopy(vocoder).to(preferred), preferred
        # Listening changes nothing in training, and some of its kernels on a GPU have no deterministic form.
        deterministic = torch.are_deterministic_algorithms_enabled()
        torch.use_deterministic_algorithms(False)
        for clip in spread(clips, config.listen_clips):
            frames = min(config.listen_frames, clip.frames)
            mel = torch.tensor(open_mel(clip.mel)[:, :frames], device=device)[None]
            generated = vocoder.synthesize(mel, speaker=clip.speaker or None)[0].float().cpu().numpy()
            real = read_audio(clip.audio)[: len(generated)]
            self.writer.add_audio(f"{clip.name}/generated", generated.clip(-1, 1)[None], step, sample_rate=rate)
            if step == min(config.validate_every, config.steps):
                self.writer.add_audio(f"{clip.name}/recording", real.clip(-1, 1)[None], step, sample_rate=rate)
            figure = spectrogram_figure({"recording": real, "generated": generated}, vocoder.mel)
            self.writer.add_image(f"{clip.name}/spectrogram", figure_to_array(figure), step, dataformats="HWC")
            for key, value in score(real, generated, vocoder.mel, wanted).values.items():
                if value is not None:
                    scores.setdefault(key, []).append(value)
        torch.use_deterministic_algorithms(deterministic, warn_only=True)
        return {key: sum(values) / len(values) for key, values in scores.items()}

    def close(self) -> None:
        """Write out what is still in memory."""
        self.writer.close()
