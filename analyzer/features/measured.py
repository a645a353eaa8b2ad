"""Units that never fire, as logged or as a forward pass showed where one was asked for."""

from __future__ import annotations

import numpy as np

from analyzer.features import Context, Value, feature
from analyzer.features.curves import Unavailable
from analyzer.model import Measurement, Series

MANY = 0.3  # share of a layer's units from which it is named
HALF, NEARLY_ALL = 0.3, 0.85  # zeros make half of what any rectified layer gives out


@feature(
    "act.dead_units",
    "ratio",
    "largest share of a rectified layer's units that never fire, as logged late in the run or measured by running the "
    "model",
    low=0,
    high=1,
    label="units that never fire",
)
def dead_units(context: Context) -> Value:
    found = [s for s in context.run.by_role("activation_dead_units") if np.isfinite(s.values).any()]
    shares = {series.subject or series.tag: _dead_share(series) for series in found}
    known = {name: share for name, share in shares.items() if share is not None}
    if not known:
        raise Unavailable("no share of dead units was logged, and the model was not run", ("activations",))
    worst = max(known, key=lambda name: known[name])
    return Measurement(
        known[worst], where=worst, items=tuple(name for name, share in known.items() if share >= MANY)
    )


def _dead_share(series: Series) -> float | None:
    """Late level; None where it may as well be a share of zeros: about a half from the first point on."""
    values = series.values[np.isfinite(series.values)]
    if np.max(values) > 100:
        return None  # a count
    values = values / 100 if np.max(values) > 1 else values
    late = float(np.median(values[-max(1, len(values) // 5) :]))
    zeros = series.source != "measured" and float(values[0]) > HALF and late < NEARLY_ALL
    return None if zeros else late
