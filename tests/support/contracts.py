"""The laws every block and vocoder obeys, as functions that raise AssertionError where one is broken.

A ``Subject`` is anything that turns steps into steps. ``tests/test_contracts.py`` finds every block and vocoder
and runs every law over each, and breaks each property on purpose to see its law fail.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from wavegen.blocks import Context

Inputs = tuple[Tensor, ...]


@dataclass(frozen=True)
class Subject:
    """One module under test, seen through the interface that all laws need.

    ``run(inputs, lengths)`` is the whole-sequence computation: inputs ``[batch, channels, steps]`` to an output
    ``[batch, channels, steps * rate]``. ``step`` and ``flush`` give pieces of the same output; they are None where
    the subject does not stream.
    """

    name: str
    context: Context
    rate: int
    inputs: Callable[[int, int], Inputs]  # (batch, steps) -> random inputs
    run: Callable[[Inputs, Tensor | None], Tensor]
    initial_state: Callable[[int], Any] | None = None
    step: Callable[[Inputs, Any], tuple[Tensor, Any]] | None = None
    flush: Callable[[Any], Tensor] | None = None
    for_item: Callable[[int], "Subject"] | None = None  # where items of a batch differ in more than their inputs
    rounding: float = 1  # how much more the subject amplifies rounding errors than a layer does

    def __str__(self) -> str:
        return self.name


def check_context(subject: Subject) -> None:
    """The declared context equals the one measured with gradients; at the edges it is not left."""
    left, right = subject.context.left, subject.context.right
    steps = left + right + 5
    middle = left + 2
    for target in (0, middle, steps - 1):
        inputs = tuple(x.requires_grad_() for x in subject.inputs(1, steps))
        output = subject.run(inputs, None)
        frame = output[..., target * subject.rate : (target + 1) * subject.rate]
        # A plain sum can be constant in the input (a norm over channels); random weights cannot.
        gradients = torch.autograd.grad((frame * torch.randn_like(frame)).sum(), inputs, allow_unused=True)
        touched: set[int] = set()
        for gradient in gradients:
            if gradient is not None:
                touched |= set(gradient[0].abs().sum(0).nonzero().flatten().tolist())
        assert touched, f"{subject}: output step {target} reads no input at all"
        declared = (max(0, target - left), min(steps - 1, target + right))
        measured = (min(touched), max(touched))
        # At an edge a dilated kernel may have taps in the padding only, so there the declaration is a bound.
        within = declared[0] <= measured[0] <= measured[1] <= declared[1]
        assert measured == declared if target == middle else within, (
            f"{subject}: step {target} reads inputs {measured}, declared {declared}"
        )


@torch.no_grad()
def check_causality(subject: Subject) -> None:
    """Changing the input after step t never changes the output up to t plus the declared look-ahead's reach."""
    look_ahead = subject.context.right
    steps = look_ahead + 6
    inputs = subject.inputs(2, steps)
    before = subject.run(inputs, None)
    for t in range(steps - 1):
        disturbed = tuple(torch.cat((x[..., : t + 1], x[..., t + 1 :] + 1), dim=-1) for x in inputs)
        after = subject.run(disturbed, None)
        untouched = max(0, t + 1 - look_ahead) * subject.rate
        assert torch.equal(before[..., :untouched], after[..., :untouched]), (
            f"{subject}: the input after step {t} changed the output up to step {t - look_ahead}"
        )
    assert not torch.equal(before, after), f"{subject}: the last input changed nothing"


@torch.no_grad()
def check_length(subject: Subject) -> None:
    """``rate`` output steps for every input step, for any number of steps."""
    for steps in (1, 2, 3, 7, 20):
        assert subject.run(subject.inputs(2, steps), None).shape[-1] == steps * subject.rate, (
            f"{subject}: {steps} steps"
        )


def streamed(subject: Subject, inputs: Inputs, pieces: Sequence[int]) -> Tensor:
    """The output of the subject stepped through ``pieces`` and flushed."""
    assert subject.initial_state is not None
    assert subject.step is not None
    state = subject.initial_state(len(inputs[0]))
    outputs, start = [], 0
    for piece in pieces:
        output, state = subject.step(tuple(x[..., start : start + piece] for x in inputs), state)
        outputs.append(output)
        start += piece
    if subject.flush is not None:
        outputs.append(subject.flush(state))
    return torch.cat(outputs, dim=-1)


def chunkings(steps: int, count: int, seed: int = 0) -> list[list[int]]:
    """Ways to cut ``steps``: all at once, one by one, with empty pieces, and random ones up to ``count``.

    Few steps are cut in every way, and once with empty pieces.
    """
    if steps <= 3:
        places = [places for pieces in range(steps) for places in itertools.combinations(range(1, steps), pieces)]
        every = [[b - a for a, b in itertools.pairwise((0, *between, steps))] for between in places]
        return [*every, [0, 1, 0, steps - 1, 0]]
    generator = torch.Generator().manual_seed(seed)
    cuts = [[steps], [1] * steps, [0, 1, 0, steps - 1, 0]]
    while len(cuts) < count:
        marks = torch.randint(0, steps + 1, (int(torch.randint(1, 8, (), generator=generator)),), generator=generator)
        edges = [0, *sorted(marks.tolist()), steps]
        cuts.append([b - a for a, b in itertools.pairwise(edges)])
    return cuts


@torch.no_grad()
def check_streaming(subject: Subject, *, tolerance: float = 1e-12, count: int = 12) -> float:
    """Stepped and flushed equals whole, for any chunking, first step to last.

    Returns:
        the worst difference relative to the output's largest value.
    """
    worst = 0.0
    for steps in (1, 3, subject.context.receptive_field + 9):
        inputs = subject.inputs(2, steps)
        whole = subject.run(inputs, None)
        for pieces in chunkings(steps, count):
            joined = streamed(subject, inputs, pieces)
            assert joined.shape == whole.shape, f"{subject}: {joined.shape} streamed, {whole.shape} whole, {pieces}"
            difference = float((joined - whole).abs().max() / whole.abs().max().clamp(min=1e-30))
            assert difference <= tolerance * subject.rounding, (
                f"{subject}: streaming as {pieces} differs by {difference:.2g}"
            )
            worst = max(worst, difference)
    return worst


@torch.no_grad()
def check_batching(subject: Subject, *, tolerance: float = 1e-12) -> None:
    """An item's output depends neither on the other items nor on what its padding holds."""
    lengths = torch.tensor([9, 4, 1])
    inputs = subject.inputs(3, 9)
    padded = tuple(x.clone() for x in inputs)
    for i, length in enumerate(lengths.tolist()):
        for x in padded:
            x[i, ..., length:] = float("nan")
    together = subject.run(padded, lengths)
    for i, length in enumerate(lengths.tolist()):
        one = subject if subject.for_item is None else subject.for_item(i)
        alone = one.run(tuple(x[i : i + 1, ..., :length] for x in inputs), None)
        real = together[i : i + 1, ..., : length * subject.rate]
        difference = (real - alone).abs().max()
        assert difference <= tolerance * subject.rounding * alone.abs().max(), (
            f"{subject}: item {i} of length {length} differs by {float(difference):.2g} in a padded batch"
        )


@torch.no_grad()
def check_purity(subject: Subject) -> None:
    """``step`` leaves the state it was given unchanged: stepping twice from one state gives the same twice."""
    assert subject.initial_state is not None
    assert subject.step is not None
    inputs = subject.inputs(2, 12)
    first, second = (tuple(x[..., part] for x in inputs) for part in (slice(0, 7), slice(7, 12)))
    _, state = subject.step(first, subject.initial_state(2))
    frozen = [tensor.clone() for tensor in tensors(state)]
    once, state_once = subject.step(second, state)
    for before, after in zip(frozen, tensors(state), strict=True):
        assert torch.equal(before, after), f"{subject}: step changed the state it was given"
    twice, state_twice = subject.step(second, state)
    assert torch.equal(once, twice), f"{subject}: two steps from one state differ"
    for a, b in zip(tensors(state_once), tensors(state_twice), strict=True):
        assert torch.equal(a, b), f"{subject}: two steps from one state leave different states"
    if subject.flush is not None:
        assert torch.equal(subject.flush(state), subject.flush(state)), f"{subject}: two flushes differ"


def tensors(state: Any) -> list[Tensor]:
    """All tensors of a state, which holds nothing else but None and further tuples."""
    if state is None:
        return []
    if isinstance(state, Tensor):
        return [state]
    assert isinstance(state, tuple), f"a state holds a {type(state).__name__}"
    return [tensor for part in state for tensor in tensors(part)]
