"""What several runs tell together: cohorts, seeds, associations, outliers and wasted compute.

Works on :class:`analyzer.model.Member`, the little that comparing needs of a run, so that ten
thousand runs are compared without one of their logs in memory.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from analyzer.insight.cohorts import cohorts
from analyzer.insight.member import member
from analyzer.insight.prevalence import prevalence
from analyzer.insight.waste import total, waste
from analyzer.model import Insight, Member

__all__ = ["insight", "member", "waste"]

STARTED = 2  # points: a run with fewer has not trained
EARLY = 0.2  # of the cohort's usual length
RESUMED = 3  # times the steps went back


def insight(members: Iterable[Member]) -> Insight:
    """Compare runs, given in the order in which they shall be named."""
    listed = list(members)
    grouped = cohorts(listed)
    never = tuple(m.name for m in listed if m.points < STARTED and not m.checkpoints)
    return Insight(
        cohorts=tuple(cohort for cohort, _ in grouped),
        prevalence=prevalence(listed),
        waste=total(listed),
        duplicates=duplicates(listed),
        never_started=never,
        died_early=tuple(n for _, runs in grouped for n in died_early(runs) if n not in never),
        resumed=tuple(m.name for m in listed if m.rewinds >= RESUMED),
    )


def duplicates(members: Sequence[Member]) -> tuple[tuple[str, ...], ...]:
    """Runs whose curves are equal, point by point."""
    alike: dict[str, list[str]] = defaultdict(list)
    for m in members:
        if m.digest and m.points >= STARTED:
            alike[m.digest].append(m.name)
    return tuple(tuple(names) for names in alike.values() if len(names) > 1)


def died_early(cohort: Sequence[Member]) -> list[str]:
    """Runs that crashed, or stopped before a fifth of what most of their cohort went through."""
    usual = _usual_length(cohort)
    return [
        m.name for m in cohort if m.crashed or (usual and m.steps is not None and m.steps < EARLY * usual)
    ]


def _usual_length(cohort: Sequence[Member]) -> float:
    """The length shared by most of at least four runs; 0 where they have none in common."""
    lengths = Counter(m.steps for m in cohort if m.steps)
    if not lengths:
        return 0.0
    length, count = lengths.most_common(1)[0]
    return float(length) if count >= 4 and count > len(cohort) / 2 else 0.0
