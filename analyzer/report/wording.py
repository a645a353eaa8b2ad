"""The words, signs and number formats that all reports for people share."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from analyzer.model import Evidence, Finding, Report, RunReport, Verdict

VERDICTS: tuple[Verdict, ...] = ("critical", "warning", "info", "healthy", "not-assessed")
VERDICT_WORDS: dict[str, str] = {
    "critical": "critical",
    "warning": "warning",
    "info": "info",
    "healthy": "healthy",
    "not-assessed": "not assessed",
}
ICONS = {"critical": "✖", "warning": "▲", "info": "●", "healthy": "✔", "not-assessed": "○"}
ASCII_ICONS = {"critical": "X", "warning": "!", "info": "i", "healthy": "+", "not-assessed": "?"}
FRAMEWORKS = {
    "pytorch": "PyTorch",
    "lightning": "Lightning",
    "keras": "Keras",
    "transformers": "HF Trainer",
}
REMARKS = frozenset({"passed-over", "no-logs"})  # problems by kind that are none: said, but nothing is lost
OPERATORS = {">=": "≥", "<=": "≤", "!=": "≠", "==": "="}


def number(value: float | None, digits: int = 4) -> str:
    """``digits`` significant digits, plain where that is short."""
    if value is None:
        return "–"
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if value == int(value) and abs(value) < 1e7:
        return f"{int(value):,}" if abs(value) >= 1e4 else str(int(value))
    return f"{value:.{digits}g}"


def percent(share: float) -> str:
    return f"{share:.0%}" if math.isfinite(share) else "–"


def counted(count: int, noun: str) -> str:
    """``1 run``, ``2 runs``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def framework(key: str) -> str:
    return FRAMEWORKS.get(key, key)


def comparison(evidence: Evidence) -> str:
    """``0.42 ≥ 0.05``: the measurement against its threshold."""
    sign = OPERATORS.get(evidence.op, evidence.op)
    return f"{number(evidence.value)} {sign} {number(evidence.threshold)}"


def beyond(evidence: Evidence) -> str:
    """How far beyond its threshold a measurement lies: ``+740%``, ``far``, ``at it``."""
    margin = evidence.margin
    return f"+{percent(margin)}" if 0 < margin < 100 else "far" if margin >= 100 else "at it"


def step_range(steps: tuple[float, float] | None) -> str:
    """``step 100``, ``steps 100–400`` or nothing."""
    if steps is None or not all(map(math.isfinite, steps)):
        return ""
    first, last = steps
    return f"step {number(first)}" if first == last else f"steps {number(first)}–{number(last)}"


def scope(finding: Finding) -> str:
    """``layer encoder.0``; nothing for the run as a whole."""
    return f"{finding.scope_kind} {finding.scope_name}" if finding.scope_name else ""


def verdict_counts(report: Report) -> dict[Verdict, int]:
    """Verdict -> how many runs have it, worst first, none left out."""
    counts = Counter(r.verdict for r in report.runs)
    return {verdict: counts[verdict] for verdict in VERDICTS}


def headline(report: Report) -> str:
    """One line that says how it stands: ``3 runs: 1 critical, 2 healthy``."""
    if not report.runs:
        return "No run was found"
    counts = verdict_counts(report)
    parts = [f"{n} {VERDICT_WORDS[verdict]}" for verdict, n in counts.items() if n]
    return f"{counted(len(report.runs), 'run')}: {', '.join(parts)}"


def points(run: RunReport) -> int:
    """How many points the run logged, over all its series."""
    return sum(s.points for s in run.run.series)


def size(run: RunReport) -> str:
    """``1 200 points``, or ``34 tensors`` for a checkpoint on its own."""
    if run.layers and not run.run.series:
        return counted(len(run.layers), "tensor")
    return f"{number(points(run))} {'point' if points(run) == 1 else 'points'}"


def not_checked(run: RunReport, limit: int = 6) -> str:
    """``Not checked: 12 rules (lacking: grad_norm, …; too short or flat: train_loss)``, or nothing."""
    if not run.not_applicable:
        return ""
    needs = [need for need, _ in Counter(n for e in run.not_applicable for n in e.missing).most_common()]
    logged = {s.role for s in run.run.series if s.points}
    parts = [
        ("lacking", [need for need in needs if need not in logged]),
        ("too short or flat", [need for need in needs if need in logged]),
    ]
    told = "; ".join(
        f"{what}: {', '.join(names[:limit])}{', …' * (len(names) > limit)}" for what, names in parts if names
    )
    return f"Not checked: {counted(len(run.not_applicable), 'rule')}" + (f" ({told})" if told else "")


def unmapped(run: RunReport, limit: int = 6) -> str:
    """The tags that no role was found for, and what to do about it; or nothing."""
    tags = sorted({s.tag for s in run.run.series if not s.role})
    if not tags:
        return ""
    more = ", …" if len(tags) > limit else ""
    return f"Not recognised: {', '.join(tags[:limit])}{more} (say what they are with --role ROLE=TAG)"


def nested(findings: Sequence[Finding]) -> list[tuple[Finding, list[Finding]]]:
    """Findings in order, each with those it explains, directly or through another one.

    A finding whose explanation is absent, is itself or goes round in a circle stands alone.
    """
    by_rule: dict[str, Finding] = {}
    for finding in findings:
        by_rule.setdefault(finding.rule, finding)
    groups: dict[int, list[Finding]] = {}
    for finding in findings:
        root = _root(finding, by_rule)
        children = groups.setdefault(id(root), [])
        if root is not finding:
            children.append(finding)
    return [(f, groups[id(f)]) for f in findings if _root(f, by_rule) is f]


def _root(finding: Finding, by_rule: dict[str, Finding]) -> Finding:
    seen = {finding.rule}
    current = finding
    while current.explained_by is not None:
        above = by_rule.get(current.explained_by)
        if above is None:
            return current
        if above.rule in seen:
            return finding
        seen.add(above.rule)
        current = above
    return current
