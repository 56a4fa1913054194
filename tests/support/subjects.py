"""Every block, vocoder and model, as subjects of the laws."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from support.contracts import Subject
from support.mels import CENTRED_SHORT_WINDOW
from support.mels import TINIEST as MEL
from support.vocoders import small_pitch_network
from wavegen import blocks
from wavegen.blocks import (
    DilatedConv1d,
    DilatedConv2d,
    DilatedStack,
    GatedResidualBlock,
    HoldUpsampler,
    InverseSTFT,
    ResidualBlock,
    SeparableResidualBlock,
    StagedUpsampler,
)
from wavegen.mel import MelSpec
from wavegen.models import MODELS, Model, build_model
from wavegen.models.inpainter import Inpainter
from wavegen.models.labeller import Labeller
from wavegen.vocoders import VOCODERS, AutoregressiveVocoder, Vocoder, build_vocoder, frame_mask
from wavegen.vocoders._sourced import SourcedVocoder

CHANNELS, CONDITION = 4, 3

# Every shape that a law should hold for; a vocoder or block without an entry fails `test_everything_is_covered`.
BLOCKS = {
    DilatedConv1d: [
        lambda padding: DilatedConv1d(CHANNELS, 5, 3, dilation=2, padding=padding),
        lambda padding: DilatedConv1d(CHANNELS, 5, 2, dilation=3, padding=padding),
        lambda padding: DilatedConv1d(CHANNELS, CHANNELS, 1, padding=padding),
    ],
    DilatedConv2d: [
        lambda padding: DilatedConv2d(CHANNELS, 5, (3, 3), dilation=(1, 2), padding=padding),
        lambda padding: DilatedConv2d(CHANNELS, 5, (4, 2), dilation=(2, 3), padding=padding),
        lambda padding: DilatedConv2d(CHANNELS, CHANNELS, (5, 1), padding=padding, groups=2),
    ],
    GatedResidualBlock: [
        lambda padding: GatedResidualBlock(
            CHANNELS, dilation=2, padding=padding, skip_channels=5, condition_channels=CONDITION
        )
    ],
    SeparableResidualBlock: [
        lambda padding: SeparableResidualBlock(
            CHANNELS, kernel_size=5, dilation=2, padding=padding, condition_channels=CONDITION
        )
    ],
    DilatedStack: [
        lambda padding: DilatedStack(
            GatedResidualBlock(CHANNELS, kernel_size=k, dilation=d, padding=padding, condition_channels=CONDITION)
            for k, d in ((3, 1), (3, 2), (2, 4))
        ),
        lambda padding: DilatedStack(
            SeparableResidualBlock(CHANNELS, kernel_size=3, dilation=d, padding=padding, condition_channels=CONDITION)
            for d in (1, 2)
        ),
    ],
    HoldUpsampler: [
        lambda padding: HoldUpsampler(6, padding=padding),
        lambda padding: HoldUpsampler(5, padding=padding),
        lambda padding: HoldUpsampler(3, kernel_size=8, padding=padding),
    ],
    StagedUpsampler: [
        lambda padding: StagedUpsampler((2, 3, 2), padding=padding),
        lambda padding: StagedUpsampler((1,), padding=padding),
    ],
}
BINS = 6  # of the inputs of layers over frequency and time
SPEAKERS = ("ann", "bob", "cy")


def randomised(module: nn.Module) -> nn.Module:
    """Random values in every parameter, biases and zero-initialised ones included: zeros hide reads."""
    for name, parameter in module.named_parameters():
        # The pitch network ends in a softmax: with larger weights it saturates, and its gradients vanish.
        nn.init.normal_(parameter, std=0.05 if name.startswith("stage.network") else 0.4)
    return module.double().eval()


def block_subject(name: str, block: nn.Module) -> Subject:
    conditioned = isinstance(block, ResidualBlock | DilatedStack)
    bins = BINS if isinstance(block, DilatedConv2d) else 0

    def folded(x: Tensor) -> Tensor:  # laws know [batch, channels, steps] only
        return x.flatten(1, 2) if bins else x

    def unfolded(x: Tensor) -> Tensor:
        return x.unflatten(1, (CHANNELS, bins)) if bins else x

    def inputs(batch: int, steps: int) -> tuple[Tensor, ...]:
        x = torch.randn(batch, CHANNELS * max(1, bins), steps, dtype=torch.float64)
        return (x, torch.randn(batch, CONDITION, steps, dtype=torch.float64)) if conditioned else (x,)

    def joined(output: Tensor | tuple[Tensor, Tensor]) -> Tensor:
        return torch.cat(output, dim=1) if isinstance(output, tuple) else folded(output)

    def run(inputs: tuple[Tensor, ...], lengths: Tensor | None) -> Tensor:
        mask = frame_mask(lengths, inputs[0].shape[-1])
        condition = tuple(blocks.masked(c, mask) for c in inputs[1:])
        return joined(block(unfolded(inputs[0]), *condition, mask=mask))

    def step(inputs: tuple[Tensor, ...], state: Tensor) -> tuple[Tensor, Tensor]:
        output, state = block.step(unfolded(inputs[0]), state, *inputs[1:])
        return joined(output), state

    def initial_state(batch: int) -> Tensor:
        sizes = [bins] if bins else [CHANNELS] if hasattr(block, "hop_length") else []
        return block.initial_state(batch, *sizes)

    rate = getattr(block, "hop_length", 1)
    return Subject(name, block.context, rate, inputs, run, initial_state, step)


def istft_subject(spec: MelSpec) -> Subject:
    layer = InverseSTFT(spec.n_fft, spec.hop_length, spec.window(torch.float64), left_padding=spec.left_padding)
    bins = spec.n_fft // 2 + 1

    def spectrum(inputs: tuple[Tensor, ...]) -> Tensor:
        return torch.complex(*inputs[0].chunk(2, dim=1))

    return Subject(
        f"InverseSTFT-{spec.n_fft}-{spec.win_length}",
        layer.context,
        spec.hop_length,
        inputs=lambda batch, steps: (torch.randn(batch, 2 * bins, steps, dtype=torch.float64),),
        run=lambda inputs, lengths: layer(spectrum(inputs), frame_mask(lengths, inputs[0].shape[-1])),
        initial_state=layer.initial_state,
        step=lambda inputs, state: layer.step(spectrum(inputs), state),
        flush=layer.flush,
    )


def vocoder_subject(name: str, vocoder: Vocoder, *, teacher_forced: bool = False, first_item: int = 0) -> Subject:
    """The vocoder as its user sees it, or, for context and causality, with the samples before each one given.

    Where it knows speakers, each item of a batch has the next.
    """
    hop = vocoder.mel.hop_length

    def speaker_names(batch: int) -> list[str] | None:
        names = vocoder.speakers
        return [names[(first_item + i) % len(names)] for i in range(batch)] if names else None

    def indices(inputs: tuple[Tensor, ...]) -> Tensor | None:
        return vocoder.speaker_condition.indices(speaker_names(len(inputs[0])), len(inputs[0]))

    def teacher_forced_run(inputs: tuple[Tensor, ...], lengths: Tensor | None) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        shape = (len(inputs[0]), inputs[0].shape[-1] * hop)
        samples = torch.rand(shape, dtype=torch.float64, generator=generator) - 0.5
        return vocoder(samples, inputs[0], speakers=indices(inputs))

    def differentiable_run(inputs: tuple[Tensor, ...], lengths: Tensor | None) -> Tensor:
        mask = frame_mask(lengths, inputs[0].shape[-1])
        return vocoder.generate(inputs[0], mask, torch.zeros(len(inputs[0])), 0, indices(inputs))

    def run(inputs: tuple[Tensor, ...], lengths: Tensor | None) -> Tensor:
        return vocoder.synthesize(inputs[0], lengths=lengths, seed=7, speaker=speaker_names(len(inputs[0])))

    if inputs_are_given := teacher_forced:
        run = teacher_forced_run if isinstance(vocoder, AutoregressiveVocoder) else differentiable_run
    return Subject(
        name,
        vocoder.context,
        hop,
        # The level of speech: louder sources would saturate the gates of a network behind them.
        inputs=lambda batch, steps: (torch.randn(batch, vocoder.mel.n_mels, steps, dtype=torch.float64) - 4,),
        run=run,
        initial_state=None
        if inputs_are_given
        else lambda batch: vocoder.initial_state(batch, seed=7, speaker=speaker_names(batch)),
        step=lambda inputs, state: vocoder.step(inputs[0], state),
        flush=vocoder.flush,
        for_item=lambda i: vocoder_subject(name, vocoder, teacher_forced=teacher_forced, first_item=i),
        # Linear prediction solves equations whose condition number is up to 1e5, and Griffin-Lim divides.
        rounding=100 if isinstance(vocoder, SourcedVocoder) else 1,
    )


def inpainter_subject(name: str, model: Inpainter) -> Subject:
    """The inpainter with a mask of its own for each item, as a second input that is above 0 where the mel is known."""

    def run(inputs: tuple[Tensor, ...], lengths: Tensor | None) -> Tensor:
        return model(inputs[0], inputs[1] > 0, frame_mask(lengths, inputs[0].shape[-1]))

    def inputs(batch: int, steps: int) -> tuple[Tensor, ...]:
        mel, known = torch.randn(2, batch, model.mel.n_mels, steps, dtype=torch.float64)
        return mel - 4, known

    streams = model.first.context.right == 0
    return Subject(
        name,
        model.context,
        1,
        inputs=inputs,
        run=run,
        initial_state=model.initial_state if streams else None,
        step=(lambda inputs, state: model.step(inputs[0], inputs[1] > 0, state)) if streams else None,
        flush=model.flush if streams else None,
    )


def labeller_subject(name: str, model: Labeller) -> Subject:
    """The probabilities of a labeller."""

    def run(inputs: tuple[Tensor, ...], lengths: Tensor | None) -> Tensor:
        return model.probabilities(model(inputs[0], frame_mask(lengths, inputs[0].shape[-1])))

    return Subject(
        name,
        model.context,
        1,
        inputs=lambda batch, steps: (torch.randn(batch, model.mel.n_mels, steps, dtype=torch.float64) - 4,),
        run=run,
        initial_state=model.initial_state,
        step=lambda inputs, state: model.step(inputs[0], state),
        flush=model.flush,
    )


# How each model is called; a model without an entry fails `test_everything_is_covered`.
MODEL_SUBJECTS: dict[type[Model], Any] = {Inpainter: inpainter_subject, Labeller: labeller_subject}


def all_models() -> list[Subject]:
    """Every example of every model's config, for two mel definitions."""
    subjects = []
    for name, kind in MODELS.items():
        for i, example in enumerate(kind.Config.examples()):
            for spec in (MEL, CENTRED_SHORT_WINDOW):
                torch.manual_seed(0)
                label = f"{name}-{i}-{'centred' if spec.center else 'uncentred'}"
                subjects.append(MODEL_SUBJECTS[kind](label, randomised(build_model(example, spec))))
    return subjects


def all_blocks() -> list[Subject]:
    subjects = [istft_subject(MEL), istft_subject(CENTRED_SHORT_WINDOW)]
    for kind, makers in BLOCKS.items():
        for i, make in enumerate(makers):
            for padding in ("causal", "same"):
                torch.manual_seed(0)
                subjects.append(block_subject(f"{kind.__name__}-{i}-{padding}", randomised(make(padding))))
    return subjects


def all_vocoders(speakers: Sequence[str] = ()) -> list[tuple[str, Vocoder]]:
    """Every example of every vocoder's config, for two mel definitions.

    With ``speakers``, those of the vocoders that have them, for one definition.
    """
    found = []
    for name, vocoder in VOCODERS.items():
        if speakers and not vocoder.has_speakers:
            continue
        for i, example in enumerate(vocoder.Config.examples()):
            config = example.model_copy(update={"speaker_channels": 2}) if speakers else example
            for spec in (MEL, CENTRED_SHORT_WINDOW)[: 1 if speakers else 2]:
                torch.manual_seed(0)
                framing = "centred" if spec.center else "uncentred"
                label = f"{name}-{i}-{framing}" + ("-speakers" if speakers else "")
                with small_pitch_network():
                    found.append((label, randomised(build_vocoder(config, spec, speakers))))
    return found
