"""Which hyperparameters separate runs with a finding from those without: association, not cause."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby

import numpy as np

from analyzer.hyperparameters import number_of
from analyzer.insight.configuration import value_text
from analyzer.model import Association, FloatArray, Member

EACH = 4  # runs needed with the finding, and as many without
WORDS = 12  # more different words are names, not choices
STRONG = 0.3  # |effect| below it is not worth a person's time, however certain
RATE = 0.05  # false discovery rate

ANY = ""


def associations(members: Sequence[Member], varying: Sequence[str]) -> tuple[Association, ...]:
    """For every finding of warning or worse, and for any at all, what it goes along with.

    Numbers are compared by the Mann-Whitney test, words by Fisher's exact test of each word against
    the others. Kept are effects of at least 0.3 at a false discovery rate of 5 % over all
    comparisons of the cohort. Sick runs that never got so far as to have a finding count as they are.
    """
    assessed = [m for m in members if m.verdict != "not-assessed"]
    choices = [(key, equal, _column(assessed, key)) for key, equal in _distinct(assessed, varying)]
    found = [
        association
        for rule, sick in _rules(assessed)
        for key, equal, column in choices
        for association in _compare(column, sick, rule, key, equal)
    ]
    kept = [a for a in adjusted(found) if abs(a.effect) >= STRONG and a.p <= RATE]
    return tuple(sorted(kept, key=lambda a: (a.rule != ANY, -abs(a.effect), a.p, a.hyperparameter)))


def _rules(members: Sequence[Member]) -> list[tuple[str, np.ndarray]]:
    """Findings that enough runs have and enough have not, "" for any of them, and which runs have them."""
    rules = {rule for m in members for rule, severity in m.findings if severity != "info"}
    sick = {rule: np.array([holds(m, rule) for m in members], bool) for rule in [ANY, *sorted(rules)]}
    return [(rule, has) for rule, has in sick.items() if EACH <= has.sum() <= len(members) - EACH]


def holds(member: Member, rule: str) -> bool:
    if rule == ANY:
        return member.verdict in ("critical", "warning")
    return any(held == rule and severity != "info" for held, severity in member.findings)


def _distinct(members: Sequence[Member], varying: Sequence[str]) -> list[tuple[str, tuple[str, ...]]]:
    """Hyperparameters that vary, those that vary exactly alike named together."""
    alike: dict[tuple[int, ...], list[str]] = defaultdict(list)
    for key in varying:
        codes: dict[str, int] = {}
        column = tuple(codes.setdefault(value_text(m.hyperparameters.get(key)), len(codes)) for m in members)
        if len(codes) > 1:
            alike[column].append(key)
    return [(keys[0], tuple(keys[1:])) for keys in alike.values()]


def _column(members: Sequence[Member], key: str) -> np.ndarray:
    """A hyperparameter of every run: as float64 where all are numbers, else as text."""
    numbers = [number_of(m.hyperparameters.get(key)) for m in members]
    if all(n is not None for n in numbers):
        return np.array(numbers, dtype=np.float64)
    return np.array([value_text(m.hyperparameters.get(key)) for m in members])


def _compare(
    column: np.ndarray, sick: np.ndarray, rule: str, key: str, equal: tuple[str, ...]
) -> Iterator[Association]:
    if column.dtype == np.float64:
        with_finding, without = column[sick], column[~sick]
        effect, p = mann_whitney(with_finding, without)
        medians = float(np.median(with_finding)), float(np.median(without))
        yield Association(rule, key, effect, p, len(with_finding), len(without), *medians, equal=equal)
        return
    if 1 < len(set(column)) <= WORDS:
        yield from _compare_words(column, sick, rule, key, equal)


def _compare_words(
    words: np.ndarray, sick: np.ndarray, rule: str, key: str, equal: tuple[str, ...]
) -> Iterator[Association]:
    """Each word against the rest; of two words the one that goes along with the finding."""
    rows = []
    for word in sorted(set(words)):
        has = words == word
        share, rest = float(sick[has].mean()), float(sick[~has].mean())
        p = fisher(int((sick & has).sum()), int((sick & ~has).sum()), int((~sick & has).sum()), len(sick))
        counts = int(sick.sum()), int((~sick).sum())
        rows.append(Association(rule, key, share - rest, p, *counts, share, rest, str(word), equal))
    yield from [max(rows, key=lambda a: a.effect)] if len(rows) == 2 else rows


def mann_whitney(a: FloatArray, b: FloatArray) -> tuple[float, float]:
    """Cliff's delta of ``a`` against ``b``, and the two-sided p-value of Mann and Whitney's U.

    Normal approximation with correction for ties and continuity; doi.org/10.1214/aoms/1177730491.
    """
    values = np.concatenate([a, b])
    order = np.argsort(values, kind="stable")
    ranks = np.empty(len(values))
    at, ties = 0, 0.0
    for _, group in groupby(values[order]):
        size = len(list(group))
        ranks[order[at : at + size]] = at + (size + 1) / 2
        at, ties = at + size, ties + size**3 - size
    n, m, total = len(a), len(b), len(values)
    u = float(ranks[:n].sum()) - n * (n + 1) / 2
    variance = n * m / 12 * (total + 1 - ties / (total * (total - 1)))
    if variance <= 0:
        return 0.0, 1.0
    z = max(abs(u - n * m / 2) - 0.5, 0.0) / math.sqrt(variance)
    return 2 * u / (n * m) - 1, math.erfc(z / math.sqrt(2))


def fisher(both: int, sick_only: int, has_only: int, total: int) -> float:
    """Two-sided p-value of Fisher's exact test for a 2 by 2 table that sums to ``total``."""
    sick, has = both + sick_only, both + has_only
    low, high = max(0, sick + has - total), min(sick, has)
    logs = [_log_choose(has, k) + _log_choose(total - has, sick - k) for k in range(low, high + 1)]
    seen, top = logs[both - low], max(logs)
    rarer = sum(math.exp(x - top) for x in logs if x <= seen + 1e-7)
    return min(1.0, rarer / sum(math.exp(x - top) for x in logs))


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def adjusted(found: Sequence[Association]) -> list[Association]:
    """With p-values adjusted by Benjamini and Hochberg's procedure."""
    ranked = sorted(found, key=lambda a: a.p)
    least, result = 1.0, []
    for i in range(len(ranked), 0, -1):
        least = min(least, ranked[i - 1].p * len(ranked) / i)
        result.append(replace(ranked[i - 1], p=least))
    return result[::-1]
