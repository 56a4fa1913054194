"""Draws a sample from the output of WaveNet's sample loop, compiled by numba; equal to ``wavegen.distributions``."""

import math
from typing import Any

import numpy as np
from numba import njit

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
        drawn = _draw_class(work, output, model.classes, noise[0, n], temperature)
        return np.float32(drawn) if model.reads_classes else model.levels[drawn]
    if model.distribution == GAUSSIAN:
        value = _value_at(output[0], output[1], noise[0, n], temperature, model.log_scale_min)
    else:
        value = _draw_from_mixture(
            work, output, model.classes, noise[0, n], noise[1, n], temperature, model.log_scale_min
        )
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
def _draw_from_mixture(
    work: Any, output: Any, components: int, uniform: float, level: float, temperature: float,
    log_scale_min: float,
) -> Any:  # fmt: skip
    """Draw a component, then a value from it; ``output`` is ``[logit weights | means | log scales]``."""
    weight = work.group
    largest, best = -math.inf, 0
    for c in range(components):
        log_scale = max(float(output[2 * components + c]), log_scale_min)
        # Temperature 0 takes the highest peak, weight / scale.
        tempered = output[c] - log_scale
        if temperature > 0:
            tempered = output[c] / temperature + log_scale * (1 - 1 / temperature)
        weight[c] = tempered
        if tempered > largest:
            largest, best = tempered, c
    if temperature > 0:
        total = 0.0
        for c in range(components):
            weight[c] = math.exp(weight[c] - largest)
            total += weight[c]
        threshold, cumulative = min(uniform, _LARGEST_UNIFORM) * total, 0.0
        for c in range(components):
            cumulative += weight[c]
            if cumulative > threshold and weight[c] > 0:
                best = c
                break
    quantile = math.log(level) - math.log1p(-level)
    mean, log_scale = output[components + best], output[2 * components + best]
    return _value_at(mean, log_scale, quantile, temperature, log_scale_min)


@njit(forceinline=True)
def _value_at(mean: Any, log_scale: Any, quantile: float, temperature: float, log_scale_min: float) -> Any:
    """Return the value at a standard quantile of a distribution with location and scale."""
    return mean + temperature * math.exp(max(float(log_scale), log_scale_min)) * quantile
