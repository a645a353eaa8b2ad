"""Runs that can be compared with each other, and what comparing them shows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence
from pathlib import PurePath

import numpy as np

from analyzer.hyperparameters import named
from analyzer.insight.association import associations
from analyzer.insight.configuration import configuration, is_seed, matters, varying
from analyzer.insight.prevalence import prevalence
from analyzer.model import Cohort, Member, Outlier, Replicates, Winner

COMPARABLE = 6  # runs: with fewer, one far off the others may be as usual as any
FAR = 3.0  # scaled MADs
SAME = 1e-3  # of the median: cohorts whose runs agree to this have no outliers worth a word
METRICS = ("val_metric", "val_loss", "reward", "train_loss")  # what runs are compared by, most wanted first
NEAR = 0.1  # of the best step: a checkpoint further off is not of the best point


def cohorts(members: Sequence[Member]) -> list[tuple[Cohort, list[Member]]]:
    """Groups of at least two runs, largest first, each with its members."""
    groups = [group for group in comparable(members) if len(group) > 1]
    return [(cohort(group), group) for group in sorted(groups, key=lambda g: -len(g))]


def comparable(members: Sequence[Member]) -> list[list[Member]]:
    """Runs with the same curves and the same hyperparameters, by name, of one model and data set.

    A run that has the hyperparameters but lacks some of the curves, as one does that stopped before its
    first validation, goes with those that have them. Where no hyperparameters are known, runs of the
    same curves are comparable only side by side in one folder.
    """
    keyed: dict[Hashable, dict[frozenset[str], list[Member]]] = defaultdict(dict)
    for member in members:
        keyed[_kind(member)].setdefault(member.tags, []).append(member)
    return [
        group
        for kind, by_tags in keyed.items()
        for group in (by_tags.values() if isinstance(kind, PurePath) else _joined(by_tags))
    ]


def _kind(member: Member) -> Hashable:
    keys = frozenset(k for k in member.hyperparameters if matters(k) and not is_seed(k))
    if not keys:
        return PurePath(member.path).parent
    return keys, *(named(word, member.hyperparameters) for word in ("model", "dataset"))


def _joined(by_tags: dict[frozenset[str], list[Member]]) -> list[list[Member]]:
    """Groups whose curves another group has too join the largest such."""
    hosts: dict[frozenset[str], list[Member]] = {}
    for tags in sorted(by_tags, key=lambda t: (-len(t), -len(by_tags[t]), sorted(t))):
        wider = [host for host in hosts if tags <= host] if tags else []
        host = max(wider, key=lambda h: len(by_tags[h]), default=tags)
        hosts.setdefault(host, []).extend(by_tags[tags])
    return list(hosts.values())


def cohort(members: Sequence[Member]) -> Cohort:
    keys = varying(members)
    return Cohort(
        runs=tuple(m.name for m in members),
        varying=keys,
        replicates=replicates(members),
        prevalence=prevalence(members),
        associations=associations(members, keys),
        outliers=outliers(members),
        winners=winners(members),
    )


def replicates(members: Sequence[Member]) -> tuple[Replicates, ...]:
    """Runs of equal configuration; where no seed is known, only those side by side in one folder."""
    alike: dict[Hashable, list[Member]] = defaultdict(list)
    for member in members:
        if known := configuration(member.hyperparameters):
            seeded = any(map(is_seed, member.hyperparameters))
            alike[known, None if seeded else PurePath(member.path).parent].append(member)
    return tuple(_replicates(group) for group in alike.values() if len(group) > 1)


def _replicates(group: Sequence[Member]) -> Replicates:
    holds = [{rule for rule, severity in m.findings if severity != "info"} for m in group]
    counts = {rule: sum(rule in rules for rules in holds) for rule in sorted(set().union(*holds))}
    metric = next((name for name in METRICS if all(name in m.best for m in group)), "")
    return Replicates(
        runs=tuple(m.name for m in group),
        always=tuple(rule for rule, count in counts.items() if count == len(group)),
        sometimes={rule: count for rule, count in counts.items() if count < len(group)},
        metric=metric,
        values=tuple(m.best[metric].value for m in group) if metric else (),
    )


def outliers(members: Sequence[Member]) -> tuple[Outlier, ...]:
    """Runs whose best value is over 3 scaled MADs worse than their cohort's median.

    By the first metric that at least six of them have; on a log scale where all values are positive and
    span more than a decade.
    """
    for metric in METRICS:
        having = [m for m in members if metric in m.best]
        if len(having) >= COMPARABLE:
            return _outliers(having, metric)
    return ()


def _outliers(members: Sequence[Member], metric: str) -> tuple[Outlier, ...]:
    values = np.array([m.best[metric].value for m in members])
    sign = -1.0 if members[0].best[metric].direction == "higher" else 1.0
    wide = values.min() > 0 and values.max() > 10 * values.min()
    cost = sign * (np.log(values) if wide else values)
    middle = float(np.median(cost))
    spread = 1.4826 * float(np.median(np.abs(cost - middle)))
    if spread <= SAME * (1.0 if wide else abs(middle)):
        return ()
    distance = (cost - middle) / spread
    usual = float(np.median(values))
    return tuple(
        Outlier(members[i].name, metric, float(values[i]), usual, float(distance[i]))
        for i in np.argsort(-distance)
        if distance[i] > FAR
    )


def winners(members: Sequence[Member]) -> tuple[Winner, ...]:
    """The best run by each metric that at least two of them have."""
    return tuple(
        _winner([m for m in members if metric in m.best], metric)
        for metric in METRICS
        if sum(metric in m.best for m in members) > 1
    )


def _winner(members: Sequence[Member], metric: str) -> Winner:
    choose = max if members[0].best[metric].direction == "higher" else min
    best = choose(members, key=lambda m: m.best[metric].value)
    point = best.best[metric]
    return Winner(metric, best.name, point.value, point.step, _checkpoint_near(best, point.step))


def _checkpoint_near(member: Member, step: float) -> str:
    known = [(abs(at - step), path) for path, at in member.checkpoints if at is not None]
    distance, path = min(known, default=(float("inf"), ""))
    return path if distance <= NEAR * max(abs(step), 1.0) else ""
