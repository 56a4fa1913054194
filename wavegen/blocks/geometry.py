"""Sizes and paddings of dilated convolutions, for any number of dimensions.

A kernel of ``k`` taps that are ``d`` steps apart spans ``d * (k - 1) + 1`` steps::

    k = 3, d = 2      x . x . x      spans 5

Arguments are ints for one dimension, or tuples with one entry per dimension; an int beside tuples holds for every
dimension. So 1-D stacks, 2-D stacks and 2-D discriminators share one set of formulas.

The first example in most texts: on a map of 19 by 19, a kernel of 3 with dilation 6 spans 13, and a padding of 6 on
each side keeps the size. With dilations 1, 2 and 4 one above the other, an output reads 3, 7 and then 15 steps in each
dimension (often printed as 16):

>>> effective_kernel_size((3, 3), 6), same_padding((3, 3), 6)
((13, 13), ((6, 6), (6, 6)))
>>> output_size((19, 19), 3, padding=6, dilation=6)
(19, 19)
>>> [receptive_field((3, 3), (1, 2, 4)[:layers]) for layers in (1, 2, 3)]
[(3, 3), (7, 7), (15, 15)]
"""

import operator
from collections.abc import Iterable, Iterator
from typing import Any, overload

from wavegen.errors import ConfigError

Ints = int | tuple[int, ...]
LeftRight = tuple[int, int]


@overload
def effective_kernel_size(kernel_size: int, dilation: int = 1) -> int: ...
@overload
def effective_kernel_size(kernel_size: Ints, dilation: Ints = 1) -> Ints: ...
def effective_kernel_size(kernel_size: Ints, dilation: Ints = 1) -> Ints:
    """Steps that a dilated kernel spans: ``dilation * (kernel_size - 1) + 1``.

    Raises:
        ConfigError: a kernel or dilation below 1, or tuples of different lengths.
    """
    kernel_size, dilation = _whole(kernel_size=kernel_size), _whole(dilation=dilation)
    if isinstance(kernel_size, int) and isinstance(dilation, int):
        _require_positive(kernel_size=kernel_size, dilation=dilation)
        return dilation * (kernel_size - 1) + 1
    return tuple(effective_kernel_size(k, d) for k, d in _per_dimension(kernel_size, dilation))


@overload
def output_size(
    size: int, kernel_size: int, *, stride: int = 1, padding: int | LeftRight = 0, dilation: int = 1
) -> int: ...
@overload
def output_size(
    size: tuple[int, ...],
    kernel_size: Ints,
    *,
    stride: Ints = 1,
    padding: int | tuple[int | LeftRight, ...] = 0,
    dilation: Ints = 1,
) -> tuple[int, ...]: ...
def output_size(size: Ints, kernel_size: Any, *, stride: Any = 1, padding: Any = 0, dilation: Any = 1) -> Ints:
    """Output steps of a convolution: ``floor((W + P_left + P_right - k_eff) / S) + 1``.

    Args:
        size: input steps ``W``, an int or one entry per dimension.
        kernel_size: taps.
        stride: steps ``S`` between outputs.
        padding: steps added on *each* side, or a ``(left, right)`` pair; if ``size`` is a tuple, one int for all
            dimensions, or one int or pair per dimension.
        dilation: steps between taps.

    Returns:
        an int, or a tuple if ``size`` is a tuple.

    Raises:
        ConfigError: the padded input is shorter than the kernel's span, or an argument is out of range.
    """
    size, kernel_size, stride = _whole(size=size), _whole(kernel_size=kernel_size), _whole(stride=stride)
    padding, dilation = _whole(padding=padding), _whole(dilation=dilation)
    if isinstance(size, tuple):
        arguments = _per_dimension(size, kernel_size, stride, padding, dilation)
        return tuple(output_size(w, k, stride=s, padding=p, dilation=d) for w, k, s, p, d in arguments)
    if not (isinstance(kernel_size, int) and isinstance(stride, int) and isinstance(dilation, int)):
        raise ConfigError("one size for several dimensions", remedy="give a tuple of sizes, or plain numbers")
    _require_positive(stride=stride)
    left, right = (padding, padding) if isinstance(padding, int) else padding
    span = effective_kernel_size(kernel_size, dilation)
    room = size + left + right - span
    if room < 0:
        raise ConfigError(
            f"an input of {size} steps padded by {left} + {right} is shorter than the kernel's span of {span}",
            remedy=f"give at least {size - room} steps, or pad more",
        )
    return room // stride + 1


@overload
def same_padding(kernel_size: int, dilation: int = 1) -> LeftRight: ...
@overload
def same_padding(kernel_size: Ints, dilation: Ints = 1) -> LeftRight | tuple[LeftRight, ...]: ...
def same_padding(kernel_size: Ints, dilation: Ints = 1) -> LeftRight | tuple[LeftRight, ...]:
    """``(left, right)`` padding that keeps the size at stride 1; one pair per dimension if a tuple is given.

    A span of even length (even kernel, odd dilation) has no middle: the extra step goes to the right, as in torch.
    """
    spans = effective_kernel_size(kernel_size, dilation)
    if isinstance(spans, tuple):
        return tuple(((span - 1) // 2, span // 2) for span in spans)
    return (spans - 1) // 2, spans // 2


@overload
def causal_padding(kernel_size: int, dilation: int = 1) -> LeftRight: ...
@overload
def causal_padding(kernel_size: Ints, dilation: Ints = 1) -> LeftRight | tuple[LeftRight, ...]: ...
def causal_padding(kernel_size: Ints, dilation: Ints = 1) -> LeftRight | tuple[LeftRight, ...]:
    """``(left, 0)`` padding that keeps the size at stride 1 and never reads the future.

    One pair per dimension if a tuple is given; of these, mostly the last dimension alone is one of time.
    """
    spans = effective_kernel_size(kernel_size, dilation)
    return tuple((span - 1, 0) for span in spans) if isinstance(spans, tuple) else (spans - 1, 0)


@overload
def padding_for(kind: str, kernel_size: int, dilation: int = 1) -> LeftRight: ...
@overload
def padding_for(kind: str, kernel_size: Ints, dilation: Ints = 1) -> LeftRight | tuple[LeftRight, ...]: ...
def padding_for(kind: str, kernel_size: Ints, dilation: Ints = 1) -> LeftRight | tuple[LeftRight, ...]:
    """The padding of the kind ``"causal"`` or ``"same"``. Raises ConfigError for any other kind."""
    if kind not in ("causal", "same"):
        raise ConfigError(f"padding is {kind!r}", remedy="give 'causal' or 'same'")
    return causal_padding(kernel_size, dilation) if kind == "causal" else same_padding(kernel_size, dilation)


@overload
def receptive_field(kernel_size: int, dilations: Iterable[int]) -> int: ...
@overload
def receptive_field(kernel_size: Ints, dilations: Iterable[Ints]) -> Ints: ...
def receptive_field(kernel_size: Ints, dilations: Iterable[Ints]) -> Ints:
    """Input steps that one output step of a stack of stride-1 layers reads: ``1 + (k - 1) * sum(dilations)``.

    A tuple, one entry per dimension, if the kernel size or a dilation is one. Kernel 3 with dilations 1, 2, 4 gives 3,
    7 and 15 after each layer: 7 steps on either side of the middle. Some texts print 16 for the last, which is wrong.
    """
    spans = [effective_kernel_size(kernel_size, dilation) for dilation in dilations]
    if not any(isinstance(span, tuple) for span in spans):
        return 1 + sum(span - 1 for span in spans if isinstance(span, int))
    return tuple(1 + sum(span - 1 for span in of_layers) for of_layers in _per_dimension(*spans))


def _per_dimension(*arguments: Any) -> Iterator[tuple[Any, ...]]:
    """The arguments of each dimension in turn; one that is not a tuple is the same in every dimension."""
    lengths = sorted({len(argument) for argument in arguments if isinstance(argument, tuple)})
    if len(lengths) > 1:
        raise ConfigError(
            f"arguments for {' and '.join(map(str, lengths))} dimensions",
            remedy="give one entry per dimension in each tuple",
        )
    return zip(*(a if isinstance(a, tuple) else (a,) * lengths[0] for a in arguments), strict=True)


def _whole(**named: Any) -> Any:
    """A number, or a list of numbers or pairs as tuples; raises ConfigError for anything but whole numbers."""
    ((name, value),) = named.items()
    if isinstance(value, list | tuple):
        return tuple(_whole(**{name: entry}) for entry in value)
    try:
        return operator.index(value)  # also numpy's integers
    except TypeError as error:
        raise ConfigError(f"{name} is {value!r}", remedy="give a whole number, or a tuple of them") from error


def _require_positive(**values: int) -> None:
    for name, value in values.items():
        if value < 1:
            raise ConfigError(f"{name} is {value}", remedy="give a whole number of at least 1")
