"""Draws a sample from the output of WaveNet's sample loop, compiled by numba; equal to ``wavegen.distributions``."""

import math
from typing import Any

import numpy as np
from numba import njit

from wavegen.distributions.logistic_mixture import CLOSE_ENOUGH, LARGEST_LOG_SCALE, LONGEST_SEARCH, NEWTON_STEPS
from wavegen.engines.autoregressive.packing import GAUSSIAN, MU_LAW, Model
from wavegen.engines.simd import LANES, exp, largest_lane, largest_of, load, splat, store

SUM_GROUP = 8
"""Classes whose probabilities are added up together; divides the padded number of classes."""
_EXP_LIMIT = np.float32(-87)  # e^-87 is about the smallest number that float32 holds without losing digits
_NEVER = 1e-37  # a probability up to this one counts as zero: see _EXP_LIMIT
_LARGEST_UNIFORM = 1 - 2.0**-24


@njit
def draw(model: Model, work: Any, item: int, noise: Any, n: int, temperature: float) -> Any:
    """Draw an item's value, or its class if the network reads classes; ``work`` is a ``sample_loop.Workspace``."""
    output = work.output[item * model.outputs : (item + 1) * model.outputs]
    if model.distribution == MU_LAW:
        drawn = _draw_class(work, output, model.classes, noise[n], temperature)
        return np.float32(drawn) if model.reads_classes else model.levels[drawn]
    if model.distribution == GAUSSIAN:
        value = _value_at(output[0], output[1], noise[n], temperature, model.log_scale_min)
    else:
        value = _draw_from_mixture(model, work, output, noise[n], temperature)
    return np.float32(min(max(value, -model.limit), model.limit))


@njit(forceinline=True)
def _draw_class(work: Any, logits: Any, classes: int, uniform: float, temperature: float) -> int:
    """Return the first class whose cumulative probability exceeds ``uniform``.

    The search goes through sums of groups first, then through the classes of one group. The exponentials are float32
    with a relative error of up to 3e-7, like the logits; all sums are float64, as in the reference.
    """
    probability, group = work.probability, work.group
    if temperature == 0:  # the mode
        best = 0
        for i in range(1, classes):
            if logits[i] > logits[best]:
                best = i
        return best
    # Probabilities relative to the largest, and their sums by group.
    largest = load(logits, 0)
    for i in range(LANES, len(logits), LANES):
        largest = largest_of(largest, load(logits, i))
    largest, sharpness = splat(largest_lane(largest)), splat(np.float32(1 / temperature))
    for i in range(0, len(logits), LANES):
        below = (load(logits, i) - largest) * sharpness
        store(probability, i, exp(largest_of(below, splat(_EXP_LIMIT))))
    groups, total = len(probability) // SUM_GROUP, 0.0
    for g in range(groups):
        group[g] = 0.0
        for i in range(g * SUM_GROUP, (g + 1) * SUM_GROUP):
            group[g] += probability[i]
        total += group[g]
    # The group in which the cumulative probability passes the threshold, then the class.
    threshold = min(uniform, _LARGEST_UNIFORM) * total
    g, cumulative = 0, 0.0
    while cumulative + group[g] <= threshold and g < groups - 1:
        cumulative += group[g]
        g += 1
    # Sums within the group round differently, so the group may end before the threshold. Then its last class is drawn.
    chosen = g * SUM_GROUP
    for i in range(g * SUM_GROUP, (g + 1) * SUM_GROUP):
        if probability[i] > _NEVER:
            chosen = i
        cumulative += probability[i]
        if cumulative > threshold:
            break
    return chosen


@njit
def _draw_from_mixture(model: Model, work: Any, output: Any, uniform: float, temperature: float) -> float:
    """Return a quantile of a mixture of logistics, see ``LogisticMixture``.

    ``output`` is ``[logit weights | means | log scales]``.
    """
    components = model.classes
    weight, mean, sharpness = work.mixture[0], work.mixture[1], work.mixture[2]
    largest, peak, highest = -math.inf, -math.inf, 0
    for c in range(components):
        log_scale = max(float(output[2 * components + c]), model.log_scale_min)
        if output[c] - log_scale > peak:
            peak, highest = output[c] - log_scale, c
        if temperature > 0:
            weight[c] = output[c] / temperature + log_scale * (1 - 1 / temperature)
            largest = max(largest, weight[c])
            sharpness[c] = math.exp(-min(log_scale, LARGEST_LOG_SCALE)) / temperature
        mean[c] = output[components + c]
    if temperature == 0:
        return mean[highest]

    # The quantile lies between the lowest and the highest of the components' own.
    wanted, total = math.log(uniform) - math.log1p(-uniform), 0.0
    low, high, x = model.limit, -model.limit, 0.0
    for c in range(components):
        weight[c] = math.exp(weight[c] - largest)
        total += weight[c]
        value = min(max(mean[c] + wanted / sharpness[c], -model.limit), model.limit)
        low, high, x = min(low, value), max(high, value), x + weight[c] * value
    x /= total

    # Newton's method on the log-odds, then bisection.
    for step in range(LONGEST_SEARCH):
        below, above, density = 0.0, 0.0, 0.0
        for c in range(components):
            z = (x - mean[c]) * sharpness[c]
            tail = math.exp(-abs(z))
            larger = weight[c] / (1 + tail)
            smaller = larger * tail
            below += larger if z > 0 else smaller
            above += smaller if z > 0 else larger
            density += smaller / (1 + tail) * sharpness[c]
        odds = math.log(below) - math.log(above) if below > 0 and above > 0 else math.copysign(math.inf, below - above)
        excess = odds - wanted
        if abs(excess) <= CLOSE_ENOUGH or high - low <= CLOSE_ENOUGH:
            break
        if excess < 0:
            low = x
        else:
            high = x
        newton = x - excess * below * above / (density * total) if density > 0 else low
        x = newton if low < newton < high and step < NEWTON_STEPS else (low + high) / 2
    return x


@njit(forceinline=True)
def _value_at(mean: Any, log_scale: Any, quantile: float, temperature: float, log_scale_min: float) -> Any:
    """Return the value at a standard quantile of a distribution with location and scale."""
    return mean + temperature * math.exp(max(float(log_scale), log_scale_min)) * quantile
