"""What ``compiled`` compiles: loops in which one number depends on the one before, or that would cross memory often.

The functions compute in place, and with the types of their arguments.
"""

from typing import Any

STEPS_AT_ONCE = 64  # of Levinson's recursion, side by side in vectors; those of order 32 fit the first-level cache


def all_pole(samples: Any, coefficients: Any, order: Any) -> None:
    """Filter an excitation: ``x[t] += Σ a[k] x[t-k]``.

    Args:
        samples: array ``[rows, order + samples]``: the samples before, then the excitation, which becomes the output.
        coefficients: array ``[rows, sub-frames, order]``, the last one of each predictor first.
        order: number of coefficients; the sub-frames divide the samples evenly.
    """
    rows, sub_frames, _ = coefficients.shape
    length = (samples.shape[1] - order) // sub_frames
    for row in range(0, rows, 2):  # two rows at once: while one waits for its sum, the other goes on
        other = min(row + 1, rows - 1)
        x, y = samples[row], samples[other]
        for sub_frame in range(sub_frames):
            a, b = coefficients[row, sub_frame], coefficients[other, sub_frame]
            for t in range(sub_frame * length, (sub_frame + 1) * length):
                of_x = of_y = samples.dtype.type(0)
                for k in range(order):
                    of_x += x[t + k] * a[k]
                    of_y += y[t + k] * b[k]
                x[t + order] += of_x
                if other > row:
                    y[t + order] += of_y


def interpolate_frames(x: Any, positions: Any, result: Any) -> None:
    """See ``wavegen.source.linear_prediction.interpolate_frames``; positions are an array."""
    batch, channels, frames = x.shape
    count = len(positions)
    for item in range(batch):
        for channel in range(channels):
            row, out = x[item, channel], result[item, channel]
            for frame in range(frames):
                for i in range(count):
                    near = max(frame - 1, 0) if positions[i] < 0 else min(frame + 1, frames - 1)
                    out[frame * count + i] = row[frame] + abs(positions[i]) * (row[near] - row[frame])


def levinson(r: Any, a: Any, error: Any) -> None:
    """Solve the normal equations; see ``wavegen.source.linear_prediction.levinson``.

    Args:
        r: array ``[batch, order + 1, steps]``, the autocorrelation.
        a: array ``[batch, order, steps]``, the resulting coefficients.
        error: array ``[batch, steps]``, the resulting power of the prediction error.
    """
    batch, order, steps = a.shape
    for item in range(batch):
        for first in range(0, steps, STEPS_AT_ONCE):
            end = min(first + STEPS_AT_ONCE, steps)
            e = error[item]
            for s in range(first, end):
                e[s] = r[item, 0, s]
            for i in range(order):
                reflection = a[item, i]  # the next coefficient is the reflection coefficient
                for s in range(first, end):
                    reflection[s] = r[item, i + 1, s]
                for j in range(i):
                    known, lag = a[item, j], r[item, i - j]
                    for s in range(first, end):
                        reflection[s] -= known[s] * lag[s]
                for s in range(first, end):
                    reflection[s] /= e[s]
                    e[s] *= 1 - reflection[s] * reflection[s]
                for j in range(i // 2):  # the predictor's own mirror image, two coefficients at a time
                    left, right = a[item, j], a[item, i - 1 - j]
                    for s in range(first, end):
                        x = left[s]
                        left[s] = x - reflection[s] * right[s]
                        right[s] -= reflection[s] * x
                if i % 2:
                    middle = a[item, i // 2]
                    for s in range(first, end):
                        middle[s] -= reflection[s] * middle[s]


def uniform_noise(streams: Any, first: Any, noise: Any) -> None:
    """The numbers of ``wavegen.noise.uniform_noise``, bit for bit.

    Args:
        streams: int64 array ``[batch, draws]``, see ``wavegen.noise.noise_streams``.
        first: index of the first sample.
        noise: array ``[batch, draws, samples]``, the result.
    """
    batch, draws, count = noise.shape
    for item in range(batch):
        for draw in range(draws):
            stream, result = streams[item, draw], noise[item, draw]
            for t in range(count):
                z = stream + (first + t + 1) * GOLDEN_GAMMA
                z = (z ^ ((z >> 30) & MASK_30)) * MIX_1
                z = (z ^ ((z >> 27) & MASK_27)) * MIX_2
                z ^= (z >> 31) & MASK_31
                result[t] = (((z >> 41) & MASK_41) + 0.5) * 2.0**-23


GOLDEN_GAMMA = 0x9E3779B97F4A7C15 - (1 << 64)
MIX_1 = 0xBF58476D1CE4E5B9 - (1 << 64)
MIX_2 = 0x94D049BB133111EB - (1 << 64)
MASK_30, MASK_27, MASK_31, MASK_41 = (1 << 34) - 1, (1 << 37) - 1, (1 << 33) - 1, (1 << 23) - 1


def pulse_train(f0: Any, units: Any, unit: Any, sample_rate: Any, highest: Any, pulses: Any) -> None:
    """The pulses of ``wavegen.source.excitation.pulse_train``.

    Args:
        f0: float64 array ``[batch, samples]``.
        units: int64 array ``[batch, 1 + samples]``: the phase before the first sample, then the resulting phases.
        unit: number of units of a cycle, a power of 2, float64.
        sample_rate: sample rate, float64.
        highest: limit of the harmonics, float64.
        pulses: array ``[batch, samples]``, the result.
    """

    def sine(x: Any) -> Any:
        """sin(x) for 0 <= x < 10^5: a Taylor series of what is left beyond the nearest multiple of π."""
        n = (x * (1 / PI) + ROUND) - ROUND
        r = x - n * PI_HIGH - n * PI_LOW
        s = r * r
        p = s * (-1 / 121645100408832000) + 1 / 355687428096000
        p = p * s - 1 / 1307674368000
        p = p * s + 1 / 6227020800
        p = p * s - 1 / 39916800
        p = p * s + 1 / 362880
        p = p * s - 1 / 5040
        p = p * s + 1 / 120
        p = p * s - 1 / 6
        odd = n - 2 * ((n * 0.5 + ROUND) - ROUND)  # 0, 1 or -1
        return (r + r * s * p) * (1 - 2 * odd * odd)

    mask = int(unit) - 1
    for item in range(len(f0)):
        own, phases, result = f0[item], units[item], pulses[item]
        for t in range(len(own)):
            advance = own[t] / sample_rate * unit
            phases[t + 1] = (phases[t] + int((advance + ROUND) - ROUND)) & mask
        for t in range(len(own)):
            phase = min(max(phases[t + 1] / unit, 3e-8), 1 - 3e-8)
            harmonics = highest / own[t]
            whole = (harmonics + ROUND) - ROUND
            twice = 2 * max(whole - 1 if whole > harmonics else whole, 1.0)
            result[t] = (sine((twice + 1) * (PI * phase)) / sine(PI * phase) - 1) / twice**0.5


# Adding and subtracting this rounds a float64 to an integer, to an even one in the middle.
ROUND = 1.5 * 2.0**52
# π in two parts; the first has few digits, so that its product with an integer is exact.
PI, PI_HIGH, PI_LOW = 3.141592653589793, 3.1415926534682512, 1.2154201013012384e-10
