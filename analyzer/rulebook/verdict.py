"""The one word for a run."""

from __future__ import annotations

from collections.abc import Iterable

from analyzer.model import Finding, NotApplicable, Rule, Verdict

VOUCHING = ("generalization", "convergence", "layers")  # families whose silence speaks for a run


def verdict(
    findings: Iterable[Finding], rules: Iterable[Rule], not_applicable: Iterable[NotApplicable]
) -> Verdict:
    """The worst finding's severity; healthy only where enough could be judged.

    Silence is no health: without a warning, at least one rule that could have warned about
    generalization, convergence or layers must have been decided.
    """
    severities = {finding.severity for finding in findings}
    if "critical" in severities:
        return "critical"
    if "warning" in severities:
        return "warning"
    undecided = {absent.rule for absent in not_applicable}
    if any(_vouches(rule) and rule.id not in undecided for rule in rules):
        return "healthy"
    return "info" if severities else "not-assessed"


def _vouches(rule: Rule) -> bool:
    return rule.family in VOUCHING and rule.severity != "info"
