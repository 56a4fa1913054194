"""What a mel says of a waveform's next sample: a linear prediction, the scale of its error, and the pitch period."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wavegen.blocks import Context
from wavegen.engines import LARGEST_INPUT, PITCH_TAPS, Prediction
from wavegen.mel import MelSpec
from wavegen.source import LinearPrediction, Predictor, prediction_error
from wavegen.source.pitch import LOWEST_HZ
from wavegen.vocoders._frames import count
from wavegen.vocoders._spoken import Spoken

SUB_FRAMES = 4  # predictors per frame, or the largest smaller divisor of the hop length


class MelPrediction(nn.Module):
    """Predictions of samples from the magnitude and pitch of frames.

    Args:
        mel: the mel definition.
        order: coefficients of the linear predictor, at most a quarter of ``n_fft``; 0 predicts nothing, with scale 1.
        reads_pitch: whether to tell the pitch period; otherwise no frame is voiced.
    """

    def __init__(self, mel: MelSpec, order: int, *, reads_pitch: bool) -> None:
        super().__init__()
        self.hop_length, self.sample_rate_hz = mel.hop_length, mel.sample_rate_hz
        self.order = min(order, mel.n_fft // 4)
        self.reads_pitch = reads_pitch
        self.longest_period = math.ceil(mel.sample_rate_hz / LOWEST_HZ)
        self.linear: LinearPrediction | None = None
        if self.order:
            divisor = max(n for n in range(1, SUB_FRAMES + 1) if mel.hop_length % n == 0)
            self.linear = LinearPrediction(
                mel.window(), mel.hop_length, mel.sample_rate_hz,
                centre=mel.n_fft / 2 - mel.left_padding, order=self.order, sub_frames=divisor,
            )  # fmt: skip

    @property
    def context(self) -> Context:
        """Frames read around a frame."""
        return Context() if self.linear is None else self.linear.context

    @torch.no_grad()
    def forward(self, spoken: Spoken, first: int = 0, last: int | None = None) -> Prediction:
        """The predictions of the samples of the frames from ``first`` to ``last``.

        Args:
            spoken: the frames, with their context or the utterance's ends around those to predict.
            first: the first frame to predict.
            last: the frame after the last one; by default all.
        """
        last = count(spoken) if last is None else last
        pitch = spoken.pitch
        period = (self.sample_rate_hz / pitch.f0_hz[:, 0, first:last].double()).round().long()
        voiced = (pitch.voicing[:, 0, first:last] > 0.5) & self.reads_pitch
        period = torch.where(voiced, period.clamp(2, self.longest_period), 0)
        ones = pitch.voicing.new_ones(len(period), 1, last - first)
        if self.linear is None:
            return Prediction(ones[:, :0], ones, period, ones[:, 0])

        context, per_frame = self.linear.context, self.linear.sub_frames
        begin = max(0, first - context.left)
        predictor = self.linear(spoken.magnitude[..., begin : last + context.right])
        kept = slice((first - begin) * per_frame, (last - begin) * per_frame)
        return Prediction(predictor.coefficients[..., kept], predictor.scale[..., kept], period, ones[:, 0])


def errors_of(samples: Tensor, prediction: Prediction) -> Tensor:
    """The normalised errors of predicting ``samples`` ``[batch, samples]``, as float64; zeros precede the first."""
    if prediction.coefficients.shape[1] == 0:
        return samples.double()
    history = samples.new_zeros(len(samples), prediction.coefficients.shape[1], dtype=torch.float64)
    predictor = Predictor(prediction.coefficients.double(), prediction.scale.double())
    return prediction_error(samples.double(), predictor, history)[0]


def past_errors(errors: Tensor, prediction: Prediction, hop_length: int, *, reads_pitch: bool) -> Tensor:
    """What a network reads before each sample: the error of the one before, and those around one period back.

    Args:
        errors: ``[batch, samples]``.
        prediction: the predictions of these samples.
        hop_length: samples per frame.
        reads_pitch: whether to include the errors one period back, zeros where a frame is not voiced.

    Returns:
        ``[batch, 1 or 4, samples]``, clipped to what engines read.
    """
    read = [F.pad(errors, (1, 0))[:, :-1]]  # nothing precedes the first sample
    if reads_pitch:
        period = prediction.period.repeat_interleave(hop_length, dim=1)
        one_back = torch.arange(errors.shape[1], device=errors.device) - period
        for tap in PITCH_TAPS:
            at = one_back + tap
            known = (period > 0) & (at >= 0)
            read.append(torch.where(known, errors.gather(1, at.clamp(min=0, max=errors.shape[1] - 1)), 0.0))
    return torch.stack(read, dim=1).clamp(-LARGEST_INPUT, LARGEST_INPUT)
