"""Random numbers addressed by position, so that they do not depend on chunking, batch or device."""

import torch
from torch import Tensor


def _signed(word: int) -> int:
    """The int64 with the bits of an unsigned 64-bit ``word``; torch has no uint64 arithmetic."""
    return word - (1 << 64) if word >> 63 else word


_GOLDEN_GAMMA = _signed(0x9E3779B97F4A7C15)
_MIX_1 = _signed(0xBF58476D1CE4E5B9)
_MIX_2 = _signed(0x94D049BB133111EB)


def _shift_right(z: Tensor, bits: int) -> Tensor:
    # ``>>`` on int64 copies the sign bit into the upper bits; the mask clears them, as in an unsigned shift.
    return (z >> bits).bitwise_and_((1 << (64 - bits)) - 1)


def _mix(z: Tensor) -> Tensor:
    """Change ``z`` by the output function of splitmix64, a bijection; the products of int64 are modulo 2^64."""
    z.bitwise_xor_(_shift_right(z, 30)).mul_(_MIX_1)
    z.bitwise_xor_(_shift_right(z, 27)).mul_(_MIX_2)
    return z.bitwise_xor_(_shift_right(z, 31))


def uniform_noise(
    seed: Tensor, start: int | Tensor, count: int, draws: int, device: torch.device | str = "cpu"
) -> Tensor:
    """Uniform numbers in the open interval (0, 1), addressed by position instead of drawn one after another.

    Each number is a pure function of seed, absolute sample index and draw index, so chunking, batch and device do not
    change a bit of it. A stateful generator cannot do that: ``torch.randn`` drawn as 7 + 1017 differs from 1024, and a
    batch of two differs from two batches of one.

    Draw ``d`` of an item is the splitmix64 stream (Steele, Lea & Flood 2014) that starts at a hash of the item's seed
    and ``d``; the sample index is the position in that stream. The hash separates the streams of adjacent seeds. The
    number of draws is not hashed, so asking for more draws does not change the earlier ones.

    Args:
        seed: int64 ``[batch]``, a seed per item.
        start: absolute index of the first sample; also an int64 tensor of one number, on the device.
        count: number of samples.
        draws: numbers per sample.
        device: the device to compute on.

    Returns:
        float32 ``[batch, draws, count]``, odd multiples of 2^-24.
    """
    index = torch.arange(1, count + 1, device=device) + start
    bits = _mix(noise_streams(seed, draws, device)[:, :, None] + index * _GOLDEN_GAMMA)
    # 23 bits, not 24: (k + 1/2) / 2^23 needs 24 significant bits, all that float32 has. With one more bit the upper
    # half of the numbers would be rounded, and the largest would become 1.0, whose normal quantile is infinite.
    return _shift_right(bits, 41).to(torch.float32).add(0.5).mul(2.0**-23)


def noise_streams(seed: Tensor, draws: int, device: torch.device | str = "cpu") -> Tensor:
    """The hashes at which the streams of ``uniform_noise`` begin, int64 ``[batch, draws]``."""
    draw = torch.arange(1, draws + 1, device=device)
    return _mix(_mix(seed.to(device, torch.int64) + _GOLDEN_GAMMA)[:, None] + draw * _GOLDEN_GAMMA)


def coloured_noise(seed: Tensor, start: int, count: int, taps: Tensor, device: torch.device | str = "cpu") -> Tensor:
    """Uniform numbers whose normal quantiles have a spectrum; each alone is distributed as those of ``uniform_noise``.

    They are addressed by position too, and no bit depends on the chunk: each is a sum of its own, in a fixed order.

    Args:
        seed, start, count, device: those of ``uniform_noise``.
        taps: float64 ``[taps]``, an odd number of them: a filter, centred, whose squares add up to 1.

    Returns:
        float32 ``[batch, count]``.
    """
    reach = len(taps) // 2
    white = uniform_noise(seed, start - reach, count + 2 * reach, 1, device)[:, 0]
    normal = normal_quantile(white, torch.float64)
    total = torch.zeros_like(normal[:, :count])
    for i, tap in enumerate(taps.tolist()):
        total += tap * normal[:, i : i + count]
    return torch.special.ndtr(total).float().clamp(2.0**-24, 1 - 2.0**-24)


def high_pass(cutoff_hz: float, sample_rate_hz: int, taps: int = 33) -> Tensor:
    """A filter for ``coloured_noise``, ``[taps]``, that leaves out what lies below a frequency: a windowed sinc."""
    n = torch.arange(taps, dtype=torch.float64) - taps // 2
    low = torch.sinc(2 * cutoff_hz / sample_rate_hz * n) * torch.kaiser_window(taps, False, 3.0, dtype=torch.float64)
    high = -low / low.sum()
    high[taps // 2] += 1
    return high / high.square().sum().sqrt()


def normal_quantile(u: Tensor, dtype: torch.dtype) -> Tensor:
    """Standard normal numbers for uniform ones in (0, 1), in ``dtype``."""
    # Computed in float64: devices differ in the last bits of ndtri, and rounding to float32 hides nearly all of that.
    return torch.special.ndtri(u.double()).to(dtype)


def normal_noise(seed: Tensor, start: int, count: int, draws: int, device: torch.device | str = "cpu") -> Tensor:
    """Standard normal numbers: the normal quantile of ``uniform_noise``, with the same arguments and shape.

    They do not depend on chunking or batch, bit for bit, and differ between devices only by float32 rounding. All are
    within ±5.3.
    """
    return normal_quantile(uniform_noise(seed, start, count, draws, device), torch.float32)
