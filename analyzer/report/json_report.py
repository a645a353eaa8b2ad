"""The report as strict JSON: a contract, described by ``assets/report.schema.json``."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from analyzer.model import (
    Evidence,
    Finding,
    Insight,
    LayerStats,
    NotApplicable,
    Problem,
    Report,
    RunReport,
    Series,
)

NAME = "json"
SUFFIX = ".json"
SCHEMA_VERSION = 1
_EXACT = 2.0**53  # beyond it a float no longer names one integer

Document = dict[str, Any]


def render(report: Report, *, indent: int | None = 2, **_: object) -> str:
    """The report as one JSON object; NaN and Inf are null. ASCII only, so any stream can carry it."""
    return dumps(report_document(report), indent)


def dumps(document: Document, indent: int | None = 2) -> str:
    return json.dumps(strict(document), indent=indent, allow_nan=False) + "\n"


def report_document(report: Report) -> Document:
    return {
        "schema_version": SCHEMA_VERSION,
        "tool": {"name": "analyzer", "version": report.version},
        "runs": [run_document(r) for r in report.runs],
        "problems": _problems(report.problems),
        "insight": None if report.insight is None else insight_document(report.insight),
    }


def run_document(report: RunReport) -> Document:
    run = report.run
    return {
        "name": run.name,
        "path": run.path,
        "verdict": report.verdict,
        "findings": [finding_document(f) for f in report.findings],
        "not_applicable": [_not_applicable(n) for n in report.not_applicable],
        "problems": _problems(report.problems),
        "series": [_series(s) for s in run.series],
        "unmapped": sorted({s.tag for s in run.series if not s.role}),
        "hyperparameters": dict(sorted(run.hyperparameters.items())),
        "waste": None if report.waste is None else asdict(report.waste),
    }


def finding_document(finding: Finding) -> Document:
    return {
        "rule": finding.rule,
        "title": finding.title,
        "severity": finding.severity,
        "confidence": finding.confidence,
        "summary": finding.summary,
        "scope": {"kind": finding.scope_kind, "name": finding.scope_name},
        "steps": _steps(finding.steps),
        "evidence": [_evidence(e) for e in finding.evidence],
        "causes": [{"id": c.id, "text": c.text, "likelihood": c.likelihood} for c in finding.causes],
        "remedies": [
            {"title": r.title, "effort": r.effort, "snippets": dict(r.snippets)} for r in finding.remedies
        ],
        "explained_by": finding.explained_by,
    }


def insight_document(insight: Insight) -> Document:
    """What the runs tell together, field by field as in :class:`analyzer.model.Insight`."""
    return asdict(insight)


def checkpoint_document(report: RunReport) -> Document:
    """One checkpoint: every tensor's statistics, and the findings as in a run."""
    whole = run_document(report)
    kept = ("name", "path", "verdict", "findings", "not_applicable", "problems")
    return {
        "schema_version": SCHEMA_VERSION,
        **{key: whole[key] for key in kept},
        "tensors": [tensor_document(layer) for layer in report.layers],
        "activations": [asdict(layer) for layer in report.activations],
    }


def tensor_document(layer: LayerStats) -> Document:
    names = (
        "name", "group", "slot", "shape", "dtype", "count", "mean", "std", "min", "max", "abs_max", "l1",
        "l2", "zeros", "nan", "inf", "skew", "kurtosis", "quantiles", "fan_in", "unit_norm_min",
        "unit_norm_median", "unit_norm_max", "dead_units", "duplicate_units", "subnormal", "outliers",
        "histogram", "histogram_range", "checkpoint",
    )  # fmt: skip
    spectrum = asdict(layer.spectrum) if layer.spectrum else None
    return {**{name: getattr(layer, name) for name in names}, "spectrum": spectrum}


def strict(value: Any) -> Any:
    """The value in strict JSON's terms: no NaN, no lone surrogates, whole numbers as integers."""
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-8", "backslashreplace").decode("utf-8")
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, dict) or hasattr(value, "items"):
        return {strict(str(key)): strict(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [strict(item) for item in value]
    return _number(value)


def _number(value: float) -> int | float | None:
    if isinstance(value, int):
        return value
    value = float(value)
    if not math.isfinite(value):
        return None
    return int(value) if value.is_integer() and abs(value) <= _EXACT else value


def _steps(steps: tuple[float, float] | None) -> Document | None:
    if steps is None or not all(map(math.isfinite, steps)):
        return None
    return {"from": steps[0], "to": steps[1]}


def _evidence(evidence: Evidence) -> Document:
    return {
        "feature": evidence.feature,
        "value": evidence.value,
        "op": evidence.op,
        "threshold": evidence.threshold,
        "text": evidence.text,
    }


def _not_applicable(entry: NotApplicable) -> Document:
    return {"rule": entry.rule, "missing": list(entry.missing)}


def _problems(problems: Iterable[Problem]) -> list[Document]:
    return [{"path": p.path, "kind": p.kind, "message": p.message} for p in problems]


def _series(series: Series) -> Document:
    first, last = (series.steps[0], series.steps[-1]) if series.points else (None, None)
    return {
        "role": series.role,
        "tag": series.tag,
        "points": series.points,
        "first_step": first,
        "last_step": last,
    }
