"""Which of a run's curves share a chart, in which order, and where its learning rate was changed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from analyzer.model import FloatArray, RunReport, Series
from analyzer.report import axes, curves

BESIDE = ("accuracy", "reward", "learning_rate", "grad_norm")  # shown below the main curves
ASIDE = ("epoch", "counter", "system")  # roles that tell nothing of learning
CHANGES = 12  # of the learning rate; with more it is a schedule and its own curve tells it better
LEAST_CHANGE = 1.4  # factor
LEAST_SPAN = 5  # factor between a curve's ends; below it a logarithmic scale hides its shape
HIDDEN = 0.1  # of the highest value; what stays below it is hardly seen on a linear scale


@dataclass(frozen=True, slots=True)
class Panel:
    """Curves of one family on one axis; ``story`` where they belong in view without being asked for."""

    family: str
    series: tuple[Series, ...]
    story: bool = True

    @property
    def axis(self) -> str:
        return self.series[0].axis

    @property
    def title(self) -> str:
        roles = list(dict.fromkeys(s.role.replace("_", " ") for s in self.series if s.role))
        return ", ".join(roles[:3]) or "no known role"

    @property
    def log(self) -> bool:
        """Whether a logarithmic scale shows more of most curves: they span decades, or a linear one hides them."""
        known = [s.values[np.isfinite(s.values)] for s in self.series]
        known = [np.clip(values, -axes.LIMIT, axes.LIMIT) for values in known if len(values)]
        if not known or not axes.use_log(np.concatenate(known)):
            return False
        highest = max(float(values.max()) for values in known)
        gaining = [_is_wide(values) or bool(values.max() < HIDDEN * highest) for values in known]
        return 2 * gaining.count(True) > len(gaining)


def _is_wide(values: FloatArray) -> bool:
    return bool(values.max() >= LEAST_SPAN * values.min())


def run_panels(report: RunReport, others: bool = True) -> list[Panel]:
    """The main curves, those beside them and those that findings point at; then ``others``."""
    run = report.run
    main = curves.main_curves(run)
    told = curves.family(main[0].role) if main else None
    marked = (curves.family(m.role) for f in report.findings for m in f.marks if m.role)
    names = [name for name in dict.fromkeys([*BESIDE, *marked]) if name != told]
    panels = [Panel(told or "", main), *(Panel(name, curves.of_family(run, name)) for name in names)]
    panels = [panel for panel in panels if panel.series]
    if others:
        shown = {id(s) for panel in panels for s in panel.series}
        rest = [s for s in run.series if s.points > 1 and id(s) not in shown]
        panels += [Panel(s.role, (s,), story=False) for s in rest if s.role not in ASIDE]
    return panels


def rate_changes(report: RunReport) -> list[tuple[float, float]]:
    """(step, factor) of each sudden lasting change of the learning rate; none where it changes all the time."""
    series = next((s for s in report.run.series if s.role == "learning_rate" and s.points > 2), None)
    if series is None:
        return []
    steps, rates = curves.ordered(series)
    known = np.isfinite(rates) & (rates > 0)
    steps, jumps = steps[known], np.diff(np.log(rates[known]), prepend=np.nan)
    found = np.flatnonzero(_isolated(jumps) & (np.abs(jumps) > np.log(LEAST_CHANGE)))
    if len(found) > CHANGES:
        return []
    return [(float(steps[i]), float(np.exp(jumps[i]))) for i in found]


def _isolated(jumps: FloatArray) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Where a jump dwarfs its neighbours: a step of a schedule, no part of a ramp."""
    size = np.nan_to_num(np.abs(jumps))
    around = np.maximum(np.append(size[1:], 0.0), np.append(0.0, size[:-1]))
    alone: np.ndarray[tuple[int], np.dtype[np.bool_]] = size > 8 * around
    return alone
