"""Every law over every block and vocoder found, and every law seen to fail."""

import dataclasses
import inspect
from typing import Any

import pytest
import torch
from contracts import (
    Subject,
    check_batching,
    check_causality,
    check_context,
    check_length,
    check_purity,
    check_streaming,
    streamed,
)
from torch import Tensor, nn

from wavegen import blocks
from wavegen.blocks import (
    Context,
    DilatedConv1d,
    DilatedStack,
    GatedResidualBlock,
    HoldUpsampler,
    InverseSTFT,
    ResidualBlock,
    SeparableResidualBlock,
    StagedUpsampler,
)
from wavegen.errors import StreamingError
from wavegen.mel import MelSpec
from wavegen.vocoders import VOCODERS, Vocoder, frame_mask

CHANNELS, CONDITION = 4, 3
MEL = MelSpec(
    sample_rate_hz=8000, n_fft=32, win_length=32, hop_length=8, n_mels=6, f_min_hz=0, f_max_hz=4000,
    scale="slaney", norm="slaney", log="ln", floor=1e-5, center=False, magnitude_eps=1e-9,
)  # fmt: skip
CENTRED_SHORT_WINDOW = MEL.replace(n_fft=40, win_length=20, hop_length=6, center=True)

# Every shape that a law should hold for; a vocoder or block without an entry fails `test_everything_is_covered`.
BLOCKS = {
    DilatedConv1d: [
        lambda padding: DilatedConv1d(CHANNELS, 5, 3, dilation=2, padding=padding),
        lambda padding: DilatedConv1d(CHANNELS, 5, 2, dilation=3, padding=padding),
        lambda padding: DilatedConv1d(CHANNELS, CHANNELS, 1, padding=padding),
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
VOCODER_OPTIONS = {
    "wavenet": [
        {"output": output, "residual_channels": 4, "skip_channels": 16, "hidden_channels": 32,
         "condition_channels": 16, "cycles": 2, "depth": 3, "kernel_size": kernel_size}
        for output, kernel_size in (("mu-law", 2), ("logistic-mixture", 3), ("gaussian", 2))
    ],
    "spectral": [
        {"padding": padding, "channels": 5, "layers": 3, "kernel_size": 3, "dilation_depth": 2,
         "refinement_iterations": refinement, "synthesis_iterations": more}
        for padding in ("causal", "same") for refinement, more in ((0, 0), (1, 1))
    ] + [
        {"padding": "causal", "look_ahead": look_ahead, "channels": 5, "layers": 2, "kernel_size": 5,
         "refinement_iterations": refinement, "synthesis_iterations": 0}
        for look_ahead, refinement in ((1, 0), (4, 0), (2, 1))
    ],
    "parallel": [
        {"padding": padding, "residual_channels": 4, "gate_channels": 6, "skip_channels": 5, **shape}
        for padding in ("causal", "same") for shape in (
            {"cycles": 2, "depth": 3, "condition_channels": 3, "condition_window": 1},
            {"cycles": 1, "depth": 4, "kernel_size": 2, "condition_window": 0},
        )
    ] + [{"padding": "same", "kernel_size": 1, "residual_channels": 4, "gate_channels": 6, "skip_channels": 5,
          "cycles": 1, "depth": 2, "condition_channels": 3, "condition_window": 1}],
}  # fmt: skip
SPEAKERS = {"speakers": ("ann", "bob", "cy"), "speaker_channels": 2}


def randomised(module: nn.Module) -> nn.Module:
    """Random values in every parameter, biases and zero-initialised ones included: zeros hide reads."""
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.4)
    return module.double().eval()


def block_subject(name: str, block: nn.Module) -> Subject:
    conditioned = isinstance(block, ResidualBlock | DilatedStack)

    def inputs(batch: int, steps: int) -> tuple[Tensor, ...]:
        x = torch.randn(batch, CHANNELS, steps, dtype=torch.float64)
        return (x, torch.randn(batch, CONDITION, steps, dtype=torch.float64)) if conditioned else (x,)

    def joined(output: Tensor | tuple[Tensor, Tensor]) -> Tensor:
        return torch.cat(output, dim=1) if isinstance(output, tuple) else output

    def run(inputs: tuple[Tensor, ...], lengths: Tensor | None) -> Tensor:
        mask = frame_mask(lengths, inputs[0].shape[-1])
        condition = tuple(blocks.masked(c, mask) for c in inputs[1:])
        return joined(block(inputs[0], *condition, mask=mask))

    def step(inputs: tuple[Tensor, ...], state: Tensor) -> tuple[Tensor, Tensor]:
        output, state = block.step(inputs[0], state, *inputs[1:])
        return joined(output), state

    def initial_state(batch: int) -> Tensor:
        return block.initial_state(batch, *([CHANNELS] if hasattr(block, "hop_length") else []))

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

    def who(batch: int) -> list[str] | None:
        names = vocoder.speakers
        return [names[(first_item + i) % len(names)] for i in range(batch)] if names else None

    def indices(inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return vocoder.speaker_condition.indices(who(len(inputs[0])), len(inputs[0]))

    def teacher_forced_run(inputs: tuple[Tensor, ...], lengths: Tensor | None) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        shape = (len(inputs[0]), inputs[0].shape[-1] * hop)
        samples = torch.rand(shape, dtype=torch.float64, generator=generator) - 0.5
        return vocoder(samples, inputs[0], speakers=next(iter(indices(inputs)), None))

    def differentiable_run(inputs: tuple[Tensor, ...], lengths: Tensor | None) -> Tensor:
        mask = frame_mask(lengths, inputs[0].shape[-1])
        return vocoder.generate(inputs[0], mask, torch.zeros(len(inputs[0])), 0, *indices(inputs))

    def run(inputs: tuple[Tensor, ...], lengths: Tensor | None) -> Tensor:
        return vocoder.synthesize(inputs[0], lengths=lengths, seed=7, speaker=who(len(inputs[0])))

    if inputs_are_given := teacher_forced:
        run = teacher_forced_run if vocoder.objective == "likelihood" else differentiable_run
    return Subject(
        name,
        vocoder.context,
        hop,
        inputs=lambda batch, steps: (torch.randn(batch, vocoder.mel.n_mels, steps, dtype=torch.float64),),
        run=run,
        initial_state=None
        if inputs_are_given
        else lambda batch: vocoder.initial_state(batch, seed=7, speaker=who(batch)),
        step=lambda inputs, state: vocoder.step(inputs[0], state),
        flush=vocoder.flush,
        for_item=lambda i: vocoder_subject(name, vocoder, teacher_forced=teacher_forced, first_item=i),
    )


def all_blocks() -> list[Subject]:
    subjects = [istft_subject(MEL), istft_subject(CENTRED_SHORT_WINDOW)]
    for kind, makers in BLOCKS.items():
        for i, make in enumerate(makers):
            for padding in ("causal", "same"):
                torch.manual_seed(0)
                subjects.append(block_subject(f"{kind.__name__}-{i}-{padding}", randomised(make(padding))))
    return subjects


def all_vocoders(**speakers: Any) -> list[tuple[str, Vocoder]]:
    found = []
    for name, options in VOCODER_OPTIONS.items():
        for i, option in enumerate(options):
            for spec in (MEL, CENTRED_SHORT_WINDOW)[: 1 if speakers else 2]:
                torch.manual_seed(0)
                tags = [str(v) for k, v in option.items() if k in ("output", "padding")]
                label = "-".join([name, str(i), *tags, "centred" if spec.center else "uncentred"])
                label += "-speakers" if speakers else ""
                found.append((label, randomised(VOCODERS[name](spec, **option, **speakers))))
    return found


BLOCK_SUBJECTS = all_blocks()
EVERY_VOCODER = all_vocoders() + all_vocoders(**SPEAKERS)
USED = [vocoder_subject(*item) for item in EVERY_VOCODER]
GIVEN = [vocoder_subject(*item, teacher_forced=True) for item in EVERY_VOCODER]
STREAMING = [s for s in BLOCK_SUBJECTS if s.context.right == 0 or s.flush] + USED


@pytest.fixture(autouse=True)
def _same_inputs_every_time() -> None:
    torch.manual_seed(1)


def test_everything_is_covered() -> None:
    modules = {
        member
        for name in blocks.__all__
        if inspect.isclass(member := getattr(blocks, name)) and issubclass(member, nn.Module)
    }
    assert modules == {*BLOCKS, InverseSTFT, ResidualBlock}, "give every block an entry in BLOCKS"
    assert set(VOCODER_OPTIONS) == set(VOCODERS), "give every vocoder an entry in VOCODER_OPTIONS"


@pytest.mark.parametrize("subject", BLOCK_SUBJECTS + GIVEN, ids=str)
def test_context(subject: Subject) -> None:
    check_context(subject)


@pytest.mark.parametrize("subject", BLOCK_SUBJECTS + GIVEN, ids=str)
def test_causality(subject: Subject) -> None:
    check_causality(subject)


@pytest.mark.parametrize("subject", BLOCK_SUBJECTS + USED, ids=str)
def test_length(subject: Subject) -> None:
    check_length(subject)


@pytest.mark.parametrize("subject", BLOCK_SUBJECTS + USED, ids=str)
def test_batching(subject: Subject) -> None:
    check_batching(subject)


@pytest.mark.parametrize("subject", STREAMING, ids=str)
def test_streaming(subject: Subject) -> None:
    check_streaming(subject)


@pytest.mark.parametrize("subject", STREAMING, ids=str)
def test_purity(subject: Subject) -> None:
    check_purity(subject)


@pytest.mark.parametrize("subject", [s for s in BLOCK_SUBJECTS if s.context.right and not s.flush], ids=str)
def test_a_block_that_looks_ahead_refuses_to_step(subject: Subject) -> None:
    with pytest.raises(StreamingError, match=r"reads \d+ steps ahead, so it cannot step; build it with"):
        streamed(subject, subject.inputs(1, 5), [5])


@pytest.mark.parametrize("kind", [DilatedConv1d, GatedResidualBlock, SeparableResidualBlock])
def test_dilation_never_changes_the_parameter_count(kind: type[nn.Module]) -> None:
    arguments = (4, 4, 3) if kind is DilatedConv1d else (4,)
    counts = {sum(p.numel() for p in kind(*arguments, dilation=d).parameters()) for d in (1, 2, 64)}
    assert len(counts) == 1


@pytest.mark.parametrize(("name", "vocoder"), all_vocoders(), ids=lambda value: value if isinstance(value, str) else "")
def test_streaming_in_float32_stays_within_its_bound(name: str, vocoder: Vocoder) -> None:
    if vocoder.objective == "likelihood":
        pytest.skip("a rounding difference can flip a draw; tested sample by sample in test_wavenet.py")
    single = vocoder_subject(name, vocoder.float())
    double_inputs = single.inputs
    subject = dataclasses.replace(single, inputs=lambda b, n: tuple(x.float() for x in double_inputs(b, n)))
    # Random weights this large amplify rounding through Griffin-Lim's division; trained models stay below 1e-5.
    check_streaming(subject, tolerance=1e-3)
    vocoder.double()


@pytest.mark.parametrize(("name", "vocoder"), all_vocoders(), ids=lambda value: value if isinstance(value, str) else "")
def test_the_declared_latency_is_how_far_the_output_lags(name: str, vocoder: Vocoder) -> None:
    frames, hop = vocoder.context.receptive_field + 5, vocoder.mel.hop_length
    mel = torch.randn(1, vocoder.mel.n_mels, frames, dtype=torch.float64)
    ready, state = vocoder.step(mel, vocoder.initial_state(1))
    assert ready.shape[-1] == frames * hop - vocoder.latency_samples
    assert vocoder.flush(state).shape[-1] == vocoder.latency_samples


def test_what_streaming_costs_is_the_context_that_each_piece_repeats() -> None:
    native, windows = (
        VOCODERS["spectral"](
            MEL, channels=4, layers=1, padding="causal", refinement_iterations=n, synthesis_iterations=0
        )
        for n in (0, 1)
    )
    assert native.streaming_overhead(1) == 1
    assert native.latency_samples == MEL.left_padding
    context = windows.context.left + windows.context.right
    assert windows.streaming_overhead(10) == (10 + context) / 10


# --- every law can fail -------------------------------------------------------------------------------------------


def causal_conv() -> Subject:
    return block_subject("conv", randomised(DilatedConv1d(CHANNELS, 5, 3, dilation=2)))


def broken(**changes: object) -> Subject:
    return dataclasses.replace(causal_conv(), **changes)


def test_a_context_declared_wrong_is_caught() -> None:
    for context in (Context(3, 0), Context(5, 0), Context(4, 1)):
        with pytest.raises(AssertionError, match="declared"):
            check_context(broken(context=context))


def test_reflect_padding_is_caught_reading_the_future_at_the_start() -> None:
    conv = randomised(DilatedConv1d(CHANNELS, 5, 3, dilation=2))

    def run(inputs: tuple[Tensor, ...], lengths: Tensor | None) -> Tensor:
        return nn.Conv1d.forward(conv, nn.functional.pad(inputs[0], (4, 0), mode="reflect"))

    with pytest.raises(AssertionError, match="after step 0 changed the output up to step 0"):
        check_causality(broken(run=run))


def test_a_same_padded_block_called_causal_is_caught() -> None:
    same = block_subject("same", randomised(DilatedConv1d(CHANNELS, 5, 3, padding="same")))
    with pytest.raises(AssertionError, match="changed the output"):
        check_causality(dataclasses.replace(same, context=Context(2, 0)))


def test_a_state_that_forgets_is_caught() -> None:
    subject = causal_conv()
    assert subject.step
    assert subject.initial_state
    forgetful = broken(step=lambda inputs, state: subject.step(inputs, subject.initial_state(len(inputs[0]))))
    with pytest.raises(AssertionError, match="streaming as"):
        check_streaming(forgetful)


def test_a_stream_of_nan_is_caught() -> None:
    subject = causal_conv()
    assert subject.step
    step = subject.step
    with pytest.raises(AssertionError, match="streaming as"):
        check_streaming(
            broken(step=lambda inputs, state: (step(inputs, state)[0] * float("nan"), step(inputs, state)[1]))
        )


def test_state_plus_delay_on_a_same_padded_stack_is_caught() -> None:
    """The classic mistake: zeros fed before the start make layer 1 emit its bias where layer 2 expects zeros."""
    same = randomised(nn.Sequential(*(DilatedConv1d(CHANNELS, CHANNELS, 3, padding="same") for _ in range(2))))
    delayed = randomised(nn.Sequential(*(DilatedConv1d(CHANNELS, CHANNELS, 3) for _ in range(2))))
    delayed.load_state_dict(same.state_dict())

    def whole_by_delay(inputs: tuple[Tensor, ...]) -> Tensor:
        return delayed(nn.functional.pad(inputs[0], (0, 2)))[..., 2:]

    subject = Subject(
        "delay", Context(2, 2), 1,
        inputs=lambda b, n: (torch.randn(b, CHANNELS, n, dtype=torch.float64),),
        run=lambda inputs, lengths: same(inputs[0]),
        initial_state=lambda batch: torch.zeros(batch, CHANNELS, 0),
        step=lambda inputs, state: (inputs[0][..., :0], torch.cat((state, inputs[0]), -1)),
        flush=lambda state: whole_by_delay((state,)),
    )  # fmt: skip
    with pytest.raises(AssertionError, match="streaming as"):
        check_streaming(subject)


def test_output_of_the_wrong_length_is_caught() -> None:
    subject = causal_conv()
    with pytest.raises(AssertionError, match="steps"):
        check_length(broken(run=lambda inputs, lengths: subject.run(inputs, lengths)[..., 1:]))


def test_masking_by_multiplication_is_caught() -> None:
    conv = randomised(DilatedConv1d(CHANNELS, 5, 3, padding="same"))

    def run(inputs: tuple[Tensor, ...], lengths: Tensor | None) -> Tensor:
        mask = frame_mask(lengths, inputs[0].shape[-1])
        return conv(inputs[0] if mask is None else inputs[0] * mask)

    with pytest.raises(AssertionError, match="in a padded batch"):
        check_batching(broken(run=run))


def test_a_norm_over_the_batch_is_caught() -> None:
    subject = causal_conv()

    def run(inputs: tuple[Tensor, ...], lengths: Tensor | None) -> Tensor:
        y = subject.run(inputs, lengths)
        return y - y.mean(0, keepdim=True)

    with pytest.raises(AssertionError, match="in a padded batch"):
        check_batching(broken(run=run))


def test_a_speaker_who_reaches_another_item_is_caught() -> None:
    def mixed(inputs: tuple[Tensor, ...], lengths: Tensor | None) -> Tensor:
        names = list(reversed([vocoder.speakers[i % 3] for i in range(len(inputs[0]))]))
        return vocoder.synthesize(inputs[0], lengths=lengths, seed=7, speaker=names)

    name, vocoder = next(item for item in EVERY_VOCODER if item[0] == "parallel-2-same-uncentred-speakers")
    with pytest.raises(AssertionError, match="in a padded batch"):
        check_batching(dataclasses.replace(vocoder_subject(name, vocoder), run=mixed))


def test_a_step_that_writes_into_its_state_is_caught() -> None:
    subject = causal_conv()
    assert subject.step

    def step(inputs: tuple[Tensor, ...], state: Tensor) -> tuple[Tensor, Tensor]:
        output, after = subject.step(inputs, state)
        return output, state.copy_(after)

    with pytest.raises(AssertionError, match="changed the state"):
        check_purity(broken(step=step))


def test_a_step_with_hidden_memory_is_caught() -> None:
    subject = causal_conv()
    assert subject.step
    calls: list[int] = []

    def step(inputs: tuple[Tensor, ...], state: Tensor) -> tuple[Tensor, Tensor]:
        calls.append(1)
        output, after = subject.step(inputs, state)
        return output + len(calls), after

    with pytest.raises(AssertionError, match="two steps from one state differ"):
        check_purity(broken(step=step))
