"""When values are better shown on a logarithmic scale."""

from __future__ import annotations

import math

import numpy as np

from analyzer.model import FloatArray

LOG_SPAN = 2.5  # decades; beyond it a linear scale shows only the top
CROWDED = 0.1  # of the highest value; half of the values lie below it
LIMIT = 1e300  # so that a difference of two bounds is finite


def use_log(values: FloatArray) -> bool:
    """Whether the values (finite, at least one) are positive, span more than 2.5 decades, and mostly
    lie where a linear scale would show them as zero: a cosine schedule to nothing does not."""
    lowest, highest = float(values.min()), float(values.max())
    if lowest <= 0 or math.log10(highest) - math.log10(lowest) <= LOG_SPAN:
        return False
    return float(np.median(values)) <= CROWDED * highest
