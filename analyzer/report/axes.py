"""Scales from values to 0…1, and ticks at round numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from analyzer.model import FloatArray

LOG_SPAN = 2.5  # decades; beyond it a linear scale shows only the top
LIMIT = 1e300  # so that a difference of two bounds is finite
TINY = 1e-290  # what is nearer to zero counts as zero
_PADDING = 0.05


@dataclass(frozen=True, slots=True)
class Scale:
    """An interval of values, or of their decimal logarithms, mapped onto 0…1."""

    low: float
    high: float
    log: bool = False

    def unit(self, values: FloatArray) -> FloatArray:
        bounded = np.clip(values, -LIMIT, LIMIT)
        placed: FloatArray = np.log10(bounded) if self.log else bounded
        return (placed - self.low) / (self.high - self.low)


def use_log(values: FloatArray) -> bool:
    """Whether the values (finite, at least one) are positive and span more than 2.5 decades."""
    lowest, highest = float(values.min()), float(values.max())
    return lowest > 0 and math.log10(highest) - math.log10(lowest) > LOG_SPAN


def value_scale(values: FloatArray) -> Scale:
    """A scale with some room above and below; logarithmic where :func:`use_log` says so."""
    finite = np.clip(values[np.isfinite(values)], -LIMIT, LIMIT)
    if len(finite) == 0:
        return Scale(0.0, 1.0)
    log = use_log(finite)
    placed = np.log10(finite) if log else finite
    low, high = _apart(float(placed.min()), float(placed.max()))
    room = (high - low) * _PADDING
    return Scale(low - room, high + room, log)


def step_scale(low: float, high: float) -> Scale:
    return Scale(*_apart(low, high))


def ticks(scale: Scale, count: int = 5) -> list[tuple[float, str]]:
    """(position 0…1, label) of about ``count`` round values within the scale."""
    if scale.log:
        return _decades(scale, count)
    values = _round_values(scale.low, scale.high, count)
    positions = ((v - scale.low) / (scale.high - scale.low) for v in values)
    return list(zip(positions, labels(values), strict=True))


def labels(values: Sequence[float]) -> list[str]:
    """The shortest numbers that keep neighbours apart; thousands as k, millions as M."""
    unit, suffix = _unit(max(map(abs, values), default=0.0))
    scaled = [v / unit for v in values]
    gap = min((abs(b - a) for a, b in pairwise(scaled)), default=abs(sum(scaled)))
    for digits in range(1, 17):
        texts = [f"{v:.{digits}g}" for v in scaled]
        if all(abs(float(t) - v) <= gap / 50 for t, v in zip(texts, scaled, strict=True)):
            break
    return [_tidy(t) + (suffix if float(t) else "") for t in texts] if values else []


def _apart(low: float, high: float) -> tuple[float, float]:
    """The bounds, moved apart where they are too close for a float to tell ticks between them."""
    size = max(abs(low), abs(high))
    if high - low > max(size * 1e-12, TINY):
        return low, high
    half = size * 0.1 if size > TINY else 0.5
    return low - half, high + half


def _round_values(low: float, high: float, count: int) -> list[float]:
    rough = (high - low) / count
    magnitude = 10.0 ** math.floor(math.log10(rough))
    step = next(f * magnitude for f in (1, 2, 5, 10) if f * magnitude >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [i * step for i in range(first, last + 1)]


def _decades(scale: Scale, count: int) -> list[tuple[float, str]]:
    first, last = math.ceil(scale.low), math.floor(scale.high)
    stride = max(1, math.ceil((last - first + 1) / (count + 1)))
    powers = range(first, last + 1, stride)
    return [((p - scale.low) / (scale.high - scale.low), _power(p)) for p in powers]


def _power(exponent: int) -> str:
    return f"{10.0**exponent:g}" if -3 <= exponent <= 4 else f"1e{exponent}"


def _unit(largest: float) -> tuple[float, str]:
    if 1e4 <= largest < 1e6:
        return 1e3, "k"
    if 1e6 <= largest < 1e9:
        return 1e6, "M"
    return 1.0, ""


def _tidy(number: str) -> str:
    """``100`` for ``1e+02``, ``1e-5`` for ``1e-05``, and no negative zero."""
    mantissa, _, exponent = number.partition("e")
    if float(number) == 0:
        return "0"
    if not exponent:
        return mantissa
    return f"{float(number):.0f}" if 0 < int(exponent) < 5 else f"{mantissa}e{int(exponent)}"
