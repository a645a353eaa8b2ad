"""Findings in the order they are worth reading, each below the finding that explains it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from analyzer.model import SEVERITIES, Finding, Rule

Key = tuple[int, float, str]


def rank(findings: Iterable[Finding], rules: Iterable[Rule]) -> tuple[Finding, ...]:
    """Order by severity, then confidence and margin, then id.

    Among findings of one severity, an explained one follows its explanation directly. A finding
    is explained only by one at least as severe, so that the most severe always come first.
    """
    ordered = sorted(findings, key=key)
    explainer = _explainers(ordered, rules)
    named = [replace(finding, explained_by=explainer.get(finding.rule)) for finding in ordered]
    return tuple(f for severity in SEVERITIES for f in _level([n for n in named if n.severity == severity]))


def _level(findings: list[Finding]) -> list[Finding]:
    """Findings of one severity, each followed by those of them that it explains."""
    here = {finding.rule for finding in findings}
    below: dict[str | None, list[Finding]] = {}
    for finding in findings:
        parent = finding.explained_by if finding.explained_by in here else None
        below.setdefault(parent, []).append(finding)
    return _group(None, below)


def key(finding: Finding) -> Key:
    """Sorts best first. The score is bounded: a huge margin at most doubles it."""
    score = finding.confidence * (1 + finding.margin / (1 + finding.margin))
    return SEVERITIES.index(finding.severity), -score, finding.rule


def _explainers(ordered: Iterable[Finding], rules: Iterable[Rule]) -> dict[str, str]:
    """Finding -> the best finding that explains it; never in a circle."""
    ordered = list(ordered)
    explains = {rule.id: rule.explains for rule in rules}
    explainer: dict[str, str] = {}
    for finding in ordered:
        for other in ordered:
            explained = finding.rule in explains.get(other.rule, ())
            explained = explained and SEVERITIES.index(other.severity) <= SEVERITIES.index(finding.severity)
            if explained and finding.rule not in _chain(other.rule, explainer):
                explainer[finding.rule] = other.rule
                break
    return explainer


def _chain(name: str | None, explainer: Mapping[str, str]) -> list[str]:
    """A finding and all that explain it, nearest first."""
    chain = []
    while name is not None:
        chain.append(name)
        name = explainer.get(name)
    return chain


def _group(parent: str | None, below: Mapping[str | None, list[Finding]]) -> list[Finding]:
    """What hangs below ``parent``: each finding followed by its own group, best group first."""
    groups = [[finding, *_group(finding.rule, below)] for finding in below.get(parent, [])]
    groups.sort(key=lambda group: min(map(key, group)))
    return [finding for group in groups for finding in group]
