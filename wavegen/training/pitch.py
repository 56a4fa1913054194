"""Training of a pitch network: the spectra that it is trained on, and the scores of the pitch that it finds."""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from wavegen.corpora.pitch_labels import LABELS_PER_FRAME
from wavegen.errors import MelError
from wavegen.mel import PROFILES, LogMel, MelFamily, MelInverse, MelSpec
from wavegen.noise import normal_noise, uniform_noise
from wavegen.source.pitch import CLASSES, CLASSES_PER_OCTAVE, LOWEST_HZ, Pitch, cents, soft_labels
from wavegen.training.augmentation import smoothed

HIGHEST_HZ = LOWEST_HZ * 2 ** (CLASSES / CLASSES_PER_OCTAVE)
GROSS_CENTS = 200.0

# Shares of the training steps. The network must read every mel definition, the pitch of children and of deep voices,
# and mels that a TTS predicts, which are smoother than those of recordings.
OWN_SHARE, FAMILY_SHARE = 0.3, 0.45  # the rest are other profiles
RATE_SHARE, RATE_FACTORS = 0.6, (0.75, 1.3)
SMOOTH_SHARE = 0.15
LEVELS = (-1.0, 0.3)  # log10 of the factor
NOISE_LEVELS = (-5.0, -2.3)  # log10 of the standard deviation; full scale is 1
# Frames of a profile suit sample rates near its own: at half the rate they would be twice as long.
NEAREST_RATES = (0.8, 1.25)


class Condition(NamedTuple):
    """How the segments of one training step are turned into spectra.

    Attributes:
        definition: the mel definition, at the sample rate of the corpus.
        rate_factor: the sample rate that the network is told, over the real one. All frequencies scale with it, so it
            stands for resampling.
        smooths: whether the mel is averaged over three frames.
    """

    definition: MelSpec
    rate_factor: float = 1.0
    smooths: bool = False


def draw_condition(own: MelSpec, step: int) -> Condition:
    """The condition of a training step; the same step always has the same one.

    Args:
        own: the mel definition of the corpus.
        step: the step.
    """
    # A counter-based generator, as for the choice of segments and definitions; their keys never have this second word.
    random = np.random.Generator(np.random.Philox(key=np.array([step, 2**64 - 2], dtype=np.uint64)))
    kind, others = random.random(), other_definitions(own)
    chosen = int(random.integers(max(1, len(others))))
    factor = float(random.uniform(*RATE_FACTORS)) if random.random() < RATE_SHARE else 1.0
    smooths = bool(random.random() < SMOOTH_SHARE)
    if kind < OWN_SHARE:
        definition = own
    elif kind < OWN_SHARE + FAMILY_SHARE:
        family = _family(own)
        definition = family.draw(step, any_rate=False) if family else own
    else:
        definition = others[chosen] if others else own
    return Condition(definition, factor, smooths)


@lru_cache(maxsize=8)
def other_definitions(own: MelSpec) -> tuple[MelSpec, ...]:
    """The profiles with a sample rate near that of ``own``, put at that rate; each with its own hop and transform."""
    rate = own.sample_rate_hz
    slowest, fastest = NEAREST_RATES
    near = (spec for spec in PROFILES.values() if slowest <= spec.sample_rate_hz / rate <= fastest)
    moved = (spec.replace(sample_rate_hz=rate, f_max_hz=min(spec.f_max_hz, rate / 2)) for spec in near)
    return tuple(dict.fromkeys(spec for spec in moved if spec != own))


@lru_cache(maxsize=8)
def _family(own: MelSpec) -> MelFamily | None:
    """The family of definitions with the frames of ``own``; None if it is too unlike a speech mel to have one."""
    try:
        return MelFamily(own)
    except MelError:
        return None


def shortest_training_segment(own: MelSpec) -> int:
    """Samples of the shortest segment that every definition of training can frame."""
    centred = own.n_fft // 2 + 1  # drawn definitions may be centred
    return max(own.min_samples, centred, *(spec.min_samples for spec in other_definitions(own)))


@lru_cache(maxsize=16)
def _transforms(spec: MelSpec, device: torch.device) -> tuple[LogMel, MelInverse]:
    return LogMel(spec).to(device), MelInverse(spec).to(device)


@torch.no_grad()
def training_spectrum(audio: Tensor, condition: Condition, seeds: Tensor) -> Tensor:
    """Magnitudes as a mel preserves them, of recordings at a random level with a little white noise.

    Args:
        audio: ``[batch, samples]``.
        condition: the mel definition, and whether to smooth.
        seeds: int64 ``[batch]``; level and noise of an item are functions of its seed.

    Returns:
        ``[batch, n_fft / 2 + 1, condition.definition.frames(samples)]``.
    """
    log_mel, inverse = _transforms(condition.definition, audio.device)
    shares = uniform_noise(seeds, 0, 1, 2, audio.device)
    level, noise_level = (
        10 ** (low + (high - low) * share)
        for (low, high), share in zip((LEVELS, NOISE_LEVELS), shares.unbind(1), strict=True)
    )
    noise = normal_noise(seeds, 1, audio.shape[-1], 1, audio.device)[:, 0]
    mel = log_mel(level * audio + noise_level * noise)
    if condition.smooths:
        mel = smoothed(mel)
    return inverse(mel)


@torch.no_grad()
def spectrum(mel: Tensor, spec: MelSpec) -> Tensor:
    """Magnitude ``[batch, n_fft / 2 + 1, frames]`` that explains a mel ``[batch, n_mels, frames]``."""
    return _transforms(spec, mel.device)[1](mel)


def frame_labels(f0: Tensor, lengths: Tensor, own: MelSpec, definition: MelSpec, frames: int) -> tuple[Tensor, Tensor]:
    """The label at the centre of each frame's window, sample ``frame · hop + n_fft / 2 - left_padding``.

    Args:
        f0: ``[batch, labels]`` in Hz, every ``own.hop_length / 4`` samples from the segment's first one.
        lengths: int64 ``[batch]``, real frames of ``own``.
        own: the definition that the labels were made for.
        definition: the definition of the frames, at the same sample rate.
        frames: number of frames.

    Returns:
        labels ``[batch, 1, frames]``, and a mask of the same shape, True where the centre lies in the segment's real
        part.
    """
    first = definition.n_fft / 2 - definition.left_padding
    centre = torch.arange(frames, device=f0.device) * definition.hop_length + first
    nearest = (centre * (LABELS_PER_FRAME / own.hop_length)).round().long().clamp(max=f0.shape[-1] - 1)
    mask = centre < lengths[:, None] * own.hop_length
    return f0[:, nearest][:, None], mask[:, None]


def pitch_losses(logits: Tensor, voicing: Tensor, f0_hz: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy of the classes where there is a pitch, and of voicing in all real frames.

    Both are sums divided by the number of all frames, so the mean over processes is the loss of one process.

    Args:
        logits: ``[batch, 240, frames]``.
        voicing: logits ``[batch, 1, frames]``.
        f0_hz: labels ``[batch, 1, frames]``, 0 where not voiced.
        mask: ``[batch, 1, frames]``, True where a frame is real.
    """
    has_class = mask & (f0_hz > LOWEST_HZ) & (f0_hz < HIGHEST_HZ)
    targets = soft_labels(f0_hz.clamp(min=LOWEST_HZ))
    entropy = -(targets * logits.float().log_softmax(dim=1)).sum(dim=1, keepdim=True)
    decision = F.binary_cross_entropy_with_logits(voicing.float(), (f0_hz > 0).float(), reduction="none")
    pitch, voiced = (
        torch.where(counted, loss, 0.0).sum() / mask.numel()
        for counted, loss in ((has_class, entropy), (mask, decision))
    )
    return pitch, voiced


def pitch_scores(pitch: Pitch, f0_hz: Tensor, mask: Tensor, *, edge_frames: int = 0) -> dict[str, Tensor]:
    """Scores of a pitch against labels, pooled over all real frames.

    Args:
        pitch: the pitch that was found; a frame is voiced if the probability is above one half.
        f0_hz: labels ``[batch, 1, frames]``, 0 where not voiced.
        mask: ``[batch, 1, frames]``, True where a frame is real.
        edge_frames: frames at either end of each voiced segment of the labels whose pitch is not counted. The windows
            of the labels reach beyond the segment there, and about half of all gross errors lie within two frames.

    Returns:
        ``median_cents``, the median distance; ``within_50_cents``, the share of frames that are that close;
        ``gross_errors``, the share of frames more than 200 cents off; these three over the frames that are voiced in
        both, and 0, 1 and 0 if there are none. ``voicing_f1``, ``2 TP / (2 TP + FP + FN)``; 1 if all are unvoiced in
        both.
    """
    labelled = (f0_hz > 0) & mask
    found = (pitch.voicing > 0.5) & mask
    at_edge = F.max_pool1d((~labelled).float(), 2 * edge_frames + 1, 1, edge_frames) > 0
    both = labelled & found & ~at_edge
    errors = cents(pitch.f0_hz[both], f0_hz[both]).abs() if both.any() else f0_hz.new_zeros(1)
    true_positives, wrong = (labelled & found).sum(), (labelled != found).sum()
    f1 = 2 * true_positives / (2 * true_positives + wrong) if (labelled | found).any() else f0_hz.new_ones(())
    return {
        "median_cents": errors.median(),
        "within_50_cents": (errors <= 50).float().mean(),
        "gross_errors": (errors > GROSS_CENTS).float().mean(),
        "voicing_f1": f1,
    }
