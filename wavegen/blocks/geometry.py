"""Sizes and paddings of dilated convolutions, for any number of dimensions.

A kernel of ``k`` taps ``d`` steps apart spans ``d * (k - 1) + 1`` steps::

    k = 3, d = 2      x . x . x      spans 5

Every function takes an int (one dimension) or tuples of ints (one entry a dimension; ints among the arguments
hold for all of them), so that 1-D vocoder stacks and 2-D discriminators share one set of formulas.
"""

from collections.abc import Iterable
from typing import TypeVar, overload

from wavegen.errors import ConfigError

T = TypeVar("T")
Pair = tuple[int, int]


@overload
def effective_kernel_size(kernel_size: int, dilation: int = 1) -> int: ...
@overload
def effective_kernel_size(
    kernel_size: int | tuple[int, ...], dilation: int | tuple[int, ...] = 1
) -> int | tuple[int, ...]: ...
def effective_kernel_size(
    kernel_size: int | tuple[int, ...], dilation: int | tuple[int, ...] = 1
) -> int | tuple[int, ...]:
    """Steps that a dilated kernel spans: ``dilation * (kernel_size - 1) + 1``.

    Raises:
        ConfigError: a kernel or dilation below 1, or tuples of different lengths.
    """
    dimensions = _dimensions(kernel_size, dilation)
    if dimensions is not None:
        kernels, dilations = _spread(kernel_size, dimensions), _spread(dilation, dimensions)
        return tuple(effective_kernel_size(k, d) for k, d in zip(kernels, dilations, strict=True))
    assert isinstance(kernel_size, int)
    assert isinstance(dilation, int)
    _at_least_one(kernel_size=kernel_size, dilation=dilation)
    return dilation * (kernel_size - 1) + 1


@overload
def output_size(size: int, kernel_size: int, *, stride: int = 1, padding: int | Pair = 0, dilation: int = 1) -> int: ...
@overload
def output_size(
    size: tuple[int, ...],
    kernel_size: int | tuple[int, ...],
    *,
    stride: int | tuple[int, ...] = 1,
    padding: int | tuple[int | Pair, ...] = 0,
    dilation: int | tuple[int, ...] = 1,
) -> tuple[int, ...]: ...
def output_size(size, kernel_size, *, stride=1, padding=0, dilation=1):  # type: ignore[no-untyped-def]
    """Output steps of a convolution: ``floor((W + P_left + P_right - k_eff) / S) + 1``.

    Args:
        size: input steps ``W``, or one entry a dimension.
        kernel_size: taps.
        stride: steps between outputs, ``S``.
        padding: steps added on *each* side, or a ``(left, right)`` pair; with a tuple for ``size``, one int or
            one pair a dimension.
        dilation: steps between taps.

    Returns:
        An int, or a tuple where ``size`` is one.

    Raises:
        ConfigError: the padded input is shorter than the kernel, or an argument is out of range.
    """
    if isinstance(size, tuple):
        spread = [_spread(value, len(size)) for value in (kernel_size, stride, padding, dilation)]
        return tuple(
            output_size(w, k, stride=s, padding=p, dilation=d) for w, k, s, p, d in zip(size, *spread, strict=True)
        )
    _at_least_one(stride=stride)
    left, right = (padding, padding) if isinstance(padding, int) else padding
    k_eff = effective_kernel_size(kernel_size, dilation)
    room = size + left + right - k_eff
    if room < 0:
        raise ConfigError(
            f"an input of {size} steps padded by {left} + {right} is shorter than the kernel's span of {k_eff}",
            remedy=f"give at least {size - room} steps, or pad more",
        )
    return room // stride + 1


@overload
def same_padding(kernel_size: int, dilation: int = 1) -> Pair: ...
@overload
def same_padding(
    kernel_size: int | tuple[int, ...], dilation: int | tuple[int, ...] = 1
) -> Pair | tuple[Pair, ...]: ...
def same_padding(kernel_size: int | tuple[int, ...], dilation: int | tuple[int, ...] = 1) -> Pair | tuple[Pair, ...]:
    """``(left, right)`` padding that keeps the size at stride 1, a pair a dimension where tuples are given.

    A span of even length (even kernel, odd dilation) has no middle: the extra step goes right, as in torch.
    """
    spans = effective_kernel_size(kernel_size, dilation)
    if isinstance(spans, tuple):
        return tuple(((s - 1) // 2, s // 2) for s in spans)
    return (spans - 1) // 2, spans // 2


def causal_padding(kernel_size: int, dilation: int = 1) -> Pair:
    """``(left, 0)`` padding that keeps the size at stride 1 and never reads the future."""
    return effective_kernel_size(kernel_size, dilation) - 1, 0


def padding_for(kind: str, kernel_size: int, dilation: int = 1) -> Pair:
    """``(left, right)`` for ``"causal"`` or ``"same"``. Raises ConfigError for anything else."""
    if kind not in ("causal", "same"):
        raise ConfigError(f"padding is {kind!r}", remedy="give 'causal' or 'same'")
    return causal_padding(kernel_size, dilation) if kind == "causal" else same_padding(kernel_size, dilation)


def receptive_field(kernel_size: int, dilations: Iterable[int]) -> int:
    """Input steps that one output step of a stack of stride-1 layers reads: ``1 + (k - 1) * sum(dilations)``.

    Kernel 3 with dilations 1, 2, 4 gives 3, 7, 15 after each layer. Texts in circulation print 16 for the last
    (twice the eight they give for one side); that is wrong: 7 steps on either side and the middle are 15.
    """
    return 1 + sum(effective_kernel_size(kernel_size, d) - 1 for d in dilations)


def _dimensions(*values: int | tuple[int, ...]) -> int | None:
    """The common number of dimensions of the tuples among ``values``; None where all are ints."""
    lengths = {len(value) for value in values if isinstance(value, tuple)}
    if len(lengths) > 1:
        raise ConfigError(
            f"arguments for {' and '.join(map(str, sorted(lengths)))} dimensions",
            remedy="give one entry each",
        )
    return lengths.pop() if lengths else None


def _spread(value: T | tuple[T, ...], dimensions: int) -> tuple[T, ...]:
    if not isinstance(value, tuple):
        return (value,) * dimensions
    if len(value) != dimensions:
        raise ConfigError(f"{value} has {len(value)} entries for {dimensions} dimensions", remedy="give one each")
    return value


def _at_least_one(**values: int) -> None:
    for name, value in values.items():
        if value < 1:
            raise ConfigError(f"{name} is {value}", remedy="give a whole number of at least 1")
