"""What the optimizer's and the loss scaler's state tell of the steps that were taken.

Adam's two moments forget at different rates, so their ratio is a clock: it tells how long ago a
unit's gradient stopped. The moments are of the gradient as the optimizer got it: after clipping, and
with the weight decay of an Adam that adds it to the gradient, which hides units without one.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from analyzer.checkpoints.evidence import SMALLEST_MEDIAN, number
from analyzer.checkpoints.statistics import lookup_table
from analyzer.model import Checkpoint, FloatArray, LayerStats

FORGOTTEN = 1e-9  # of the living units' m²/v: after about a hundred steps without gradient at Adam's defaults
STILL = 1e-6  # of the median second moment, for units whose first moment is zero
LATELY = 1e-6  # of m²/v: below, some sixty steps passed without gradient at Adam's defaults
INITIAL_SCALE = 65536.0  # torch.amp.GradScaler's default


@dataclass(frozen=True, slots=True)
class StoppedUnits:
    """Output units of a weight whose gradient stopped.

    ``never`` of the ``stopped`` never had one. ``steps_ago`` is the median over the others, None
    where there is none.
    """

    layer: str
    units: int
    stopped: int
    never: int
    steps_ago: float | None

    @property
    def share(self) -> float:
        return self.stopped / self.units if self.units else 0.0


def stopped_units(checkpoint: Checkpoint, stats: Iterable[LayerStats]) -> tuple[StoppedUnits, ...]:
    """Every weight with both of Adam's moments, stopped units or not; lookup tables left out.

    Without gradient m shrinks by β₁ and v by β₂ a step, so m²/v by β₁²/β₂. Against the living
    units' ratio that gives the steps since; once m has underflowed, v against the living units'
    does, on the assumption that the unit's gradients were of usual size before. Rows of a matrix
    without bias that never had a gradient are not counted: they may be those of a lookup table whose
    name does not tell, for tokens or positions that the data do not have.
    """
    beta1, beta2 = (number(checkpoint.optimizer, key) for key in ("beta1", "beta2"))
    rates = (0.9, 0.999) if beta1 is None or beta2 is None else (beta1, beta2)
    if not 0 < rates[0] ** 2 < rates[1] < 1:
        return ()
    stats = list(stats)
    names = {s.name for s in stats}
    table = [s for s in stats if s.unit_norms is not None and s.count and not lookup_table(s.name)]
    seconds = {s.name: s for s in table if s.slot == "exp_avg_sq"}
    rows = []
    for first in table:
        second = seconds.get(first.name)
        if first.slot == "exp_avg" and second is not None and first.shape == second.shape:
            stem = re.sub(r"(weight|kernel)$", "", first.name)
            biased = stem != first.name and f"{stem}bias" in names
            rows.append(_stopped(first, second, *rates, biased))
    return tuple(rows)


def _stopped(first: LayerStats, second: LayerStats, beta1: float, beta2: float, biased: bool) -> StoppedUnits:
    assert first.unit_norms is not None and second.unit_norms is not None
    length = math.sqrt(first.count / len(first.unit_norms))
    m, v = first.unit_norms / length, second.unit_norms / length
    with np.errstate(all="ignore"):
        ratio = np.where(v > 0, m * m / v, 0.0)
        living = ratio > 0
        usual = float(np.median(ratio[living])) if living.any() else 0.0
        usual_v = float(np.median(v[v > 0])) if np.any(v > 0) else 0.0
        # squares of tiny gradients underflow themselves and tell nothing
        told = (v > 0) & (usual_v > SMALLEST_MEDIAN)
        forgotten = told & (m > 0) & (ratio < FORGOTTEN * usual)
        underflowed = told & (m == 0) & (v < STILL * usual_v)
        never = (v == 0) & (m == 0) & (biased and usual_v > SMALLEST_MEDIAN)
        ago = np.concatenate(
            [
                np.log(ratio[forgotten] / usual) / math.log(beta1 * beta1 / beta2),
                np.log(v[underflowed] / usual_v) / math.log(beta2),
            ]
        )
    stopped = int(forgotten.sum() + underflowed.sum() + never.sum())
    return StoppedUnits(first.name, len(m), stopped, int(never.sum()), _median(ago))


def learning(stats: Iterable[LayerStats]) -> frozenset[str]:
    """Weights that had a gradient lately: Adam's first moment is not nothing beside its second."""
    stats = list(stats)
    squares = {s.name: s.l1 for s in stats if s.slot == "exp_avg_sq"}
    return frozenset(
        s.name
        for s in stats
        if s.slot == "exp_avg" and s.l2 and (total := squares.get(s.name)) and s.l2**2 >= LATELY * total
    )


def _median(values: FloatArray) -> float | None:
    return float(np.median(values)) if len(values) else None


# --- steps that were left out ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LateParameter:
    """A parameter that the optimizer stepped less often than others: without gradient at times."""

    layer: str
    steps: int
    most: int

    @property
    def missed(self) -> float:
        return 1 - self.steps / self.most


def late_parameters(stats: Iterable[LayerStats]) -> tuple[LateParameter, ...]:
    """Parameters with fewer steps than the most, by the counters that the optimizer keeps of each."""
    steps = {s.name: int(s.mean) for s in stats if s.slot == "step" and s.mean is not None and s.count == 1}
    most = max(steps.values(), default=0)
    return tuple(LateParameter(name, taken, most) for name, taken in steps.items() if taken < most)


def skipped_steps(checkpoint: Checkpoint) -> int | None:
    """Steps of training that the optimizer did not take; None where either counter is not known.

    A loss scaler leaves out the step when a gradient is not finite. Counters of micro-batches, or
    an optimizer that was made anew, show the same, so a difference speaks only where a scaler is.
    """
    taken = number(checkpoint.optimizer, "step")
    if taken is None or checkpoint.step is None or "loss_scale" not in checkpoint.metadata:
        return None
    skipped = checkpoint.step - int(taken)
    return skipped if 0 <= skipped < checkpoint.step else None


@dataclass(frozen=True, slots=True)
class LossScale:
    """``halvings`` below the scaler's usual start; ``clean_steps`` since it last changed."""

    scale: float
    halvings: float
    clean_steps: int | None


def loss_scale(checkpoint: Checkpoint) -> LossScale | None:
    """State of the loss scaler, None where there was none or it was switched off."""
    scale = number(checkpoint.metadata, "loss_scale")
    if scale is None or scale <= 0:
        return None
    clean = number(checkpoint.metadata, "loss_scale_growth_tracker")
    halvings = max(0.0, math.log2(INITIAL_SCALE / scale))
    return LossScale(scale, halvings, None if clean is None else int(clean))
