"""The all-pole filters of a shaped source, as compiled code: two signals at once, a vector of sums to come for each.

The sums are what the samples so far contribute to those to come: ``s[i] = Σ a[k] x[t+i-k]`` over the known samples.
Then ``x[t] = e[t] + s[0]``, and the sums move by one place and gain ``a[i+1] x[t]``. So a sample costs a few vector
operations, of which only one addition and one multiplication wait for the sample before.
"""

from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from wavegen.engines.simd import FUSE, INT32, INT64, load_at, pointer_to

LARGEST_ORDER = 32
_FLOAT = ir.FloatType()
_SUMS = ir.VectorType(_FLOAT, LARGEST_ORDER)  # LLVM splits it into registers
_SIGNALS = 2


def _in_all(b: ir.IRBuilder, x: Any) -> Any:
    undefined = ir.Constant(_SUMS, ir.Undefined)
    first = b.insert_element(undefined, x, ir.Constant(INT32, 0))
    return b.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(INT32, LARGEST_ORDER), [0] * LARGEST_ORDER))


@intrinsic
def _filter_pair(
    typing: Any, samples: Any, first: Any, stride: Any, coefficients: Any, at: Any, scale: Any, count: Any
) -> Any:
    """Filter ``count`` elements of two signals in place.

    Args:
        typing: numba's context.
        samples: flat float32 array. The signals begin at ``first`` and at ``first + stride``, each behind the
            ``LARGEST_ORDER`` samples before.
        first, stride: see ``samples``.
        coefficients: flat float32 array with ``a[1]`` at ``at`` and ``2 * LARGEST_ORDER`` elements from there on, 0
            beyond the order.
        at: see ``coefficients``.
        scale: factor of the excitation.
        count: number of samples.
    """

    def emit(context: Any, b: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        first, stride, at, scale, count = (arguments[i] for i in (1, 2, 4, 5, 6))

        def address(array: int, element: Any) -> Any:
            return pointer_to(context, b, signature.args[array], arguments[array], element)

        def constant(n: int) -> ir.Constant:
            return ir.Constant(INT64, n)

        zero = ir.Constant(_SUMS, [0.0] * LARGEST_ORDER)
        starts = [b.add(first, b.mul(stride, constant(i))) for i in range(_SIGNALS)]
        sums = [cgutils.alloca_once_value(b, zero) for _ in starts]
        for member in sums:
            b.store(zero, member)
        with cgutils.for_range(b, constant(LARGEST_ORDER)) as loop:
            later = load_at(b, address(3, b.add(at, loop.index)), _SUMS)
            for start, member in zip(starts, sums, strict=True):
                x = b.load(address(0, b.sub(start, b.add(loop.index, constant(1)))))
                product = b.fmul(later, _in_all(b, x), flags=FUSE)
                b.store(b.fadd(b.load(member), product, flags=FUSE), member)

        own = load_at(b, address(3, at), _SUMS)
        moved = ir.Constant(ir.VectorType(INT32, LARGEST_ORDER), list(range(1, LARGEST_ORDER + 1)))
        with cgutils.for_range(b, count) as loop:
            for start, member in zip(starts, sums, strict=True):
                place, before = address(0, b.add(start, loop.index)), b.load(member)
                excitation = b.fmul(b.load(place), scale, flags=FUSE)
                x = b.fadd(excitation, b.extract_element(before, ir.Constant(INT32, 0)), flags=FUSE)
                b.store(x, place)
                b.store(
                    b.fadd(b.shuffle_vector(before, zero, moved), b.fmul(own, _in_all(b, x), flags=FUSE), flags=FUSE),
                    member,
                )
        return context.get_dummy_value()

    return types.void(samples, types.intp, types.intp, coefficients, types.intp, types.float32, types.intp), emit


@njit
def all_pole(samples: Any, length: int, coefficients: Any, scale: Any) -> None:
    """Filter the two excitations of each item in place.

    Args:
        samples: flat float32 array of ``[items, 2, LARGEST_ORDER + sub-frames * length]``: the samples before, then the
            excitation, which becomes the output.
        length: samples of a sub-frame.
        coefficients: flat float32 array of ``[items, sub-frames, 2 * LARGEST_ORDER]``, 0 beyond the order.
        scale: factors of the excitation, ``[items, sub-frames]``.
    """
    items, sub_frames = scale.shape
    stride = LARGEST_ORDER + sub_frames * length
    for item in range(items):
        for i in range(sub_frames):
            first = 2 * item * stride + LARGEST_ORDER + i * length
            at = (item * sub_frames + i) * 2 * LARGEST_ORDER
            _filter_pair(samples, first, stride, coefficients, at, scale[item, i], length)
