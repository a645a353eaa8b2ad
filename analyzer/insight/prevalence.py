"""How common each finding is."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from analyzer.model import SEVERITIES, Member, Prevalence, Severity


def prevalence(members: Sequence[Member]) -> tuple[Prevalence, ...]:
    """Every rule that holds somewhere: worst severity first, then the most frequent."""
    found: dict[str, list[Severity]] = defaultdict(list)
    for member in members:
        for rule, severity in dict(reversed(member.findings)).items():
            found[rule].append(severity)
    rows = [
        Prevalence(rule, min(severities, key=SEVERITIES.index), len(severities), len(members))
        for rule, severities in found.items()
    ]
    return tuple(sorted(rows, key=lambda p: (SEVERITIES.index(p.severity), -p.runs, p.rule)))
