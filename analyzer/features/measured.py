"""What a forward pass of the model showed, where one was asked for."""

from __future__ import annotations

import numpy as np

from analyzer.features import Context, Value, feature
from analyzer.features.curves import Unavailable
from analyzer.model import Measurement

MANY = 0.3  # share of a layer's units from which it is named


@feature(
    "act.dead_units",
    "ratio",
    "largest share of a rectified layer's units that fired for none of the inputs the model was run on",
    low=0,
    high=1,
    label="units that never fire",
)
def dead_units(context: Context) -> Value:
    found = context.run.by_role("activation_dead_units")
    if not found:
        raise Unavailable("the model was not run", ("activations",))
    shares = [float(series.values[-1]) for series in found]
    worst = int(np.argmax(shares))
    many = tuple(series.subject for series, share in zip(found, shares, strict=True) if share >= MANY)
    return Measurement(shares[worst], where=found[worst].subject, items=many)
