"""One run as the audit keeps it: plain and small, enough to rank, group and compare runs without their logs.

Of each run the ledger keeps three texts: its record, read by every audit; its document, the run of the
JSON report; and its features, from which it is judged anew when rules change.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any

import numpy as np

from analyzer.insight import member
from analyzer.model import (
    SEVERITIES,
    Best,
    Features,
    FloatArray,
    Measurement,
    Member,
    Missing,
    Run,
    RunReport,
    Series,
    Waste,
)
from analyzer.report.json_report import run_document, strict

Document = dict[str, Any]

VERDICTS = (*SEVERITIES, "healthy", "not-assessed")
PARTS = 16  # of a sketched curve; at most four points are kept of each
SKETCHES = 5  # curves of a run
SKETCHED = (
    "train_loss", "val_loss", "reward", "val_accuracy", "train_accuracy", "val_metric", "train_metric",
    "gan_loss", "rl_loss", "train_loss_part", "val_loss_part", "learning_rate", "grad_norm",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Record:
    """What every audit needs of one run.

    ``findings`` have rule, title, severity, confidence and the rule that explains them, best first;
    ``problems`` as in the JSON report. ``last_step`` is of the curves on a step axis.
    """

    member: Member
    findings: tuple[Document, ...] = ()
    problems: tuple[Document, ...] = ()
    points: int = 0  # of all curves
    last_step: float | None = None

    @property
    def name(self) -> str:
        return self.member.name

    @property
    def path(self) -> str:
        return self.member.path

    @property
    def verdict(self) -> str:
        return self.member.verdict


def record(report: RunReport, document: Document) -> Record:
    """The record of a run that was read and diagnosed; ``document`` is that of :func:`document`."""
    series = report.run.series
    return Record(
        member=member(report),
        findings=tuple(light_finding(f) for f in document["findings"]),
        problems=tuple(document["problems"]),
        points=sum(s.points for s in series),
        last_step=max((float(s.steps[-1]) for s in series if s.points and s.axis == "step"), default=None),
    )


def light_finding(document: Mapping[str, Any]) -> Document:
    return {key: document[key] for key in ("rule", "title", "severity", "confidence", "explained_by")}


def ranked(records: Iterable[Record]) -> list[Record]:
    """Worst first, as in a report: by verdict, then number and confidence of the worst findings, then name."""
    return sorted(records, key=badness)


def badness(record: Record) -> tuple[int, int, float, str, str]:
    worst = [f for f in record.findings if f["severity"] == record.verdict and f["explained_by"] is None]
    top = max((float(f["confidence"]) for f in worst), default=0.0)
    return (VERDICTS.index(record.verdict), -len(worst), -top, record.name, record.path)


# --------------------------------------------------------------------------- as text


def record_text(record: Record) -> str:
    return json.dumps(record, default=_parts, separators=(",", ":"))


def _parts(value: Any) -> Any:
    """What JSON has no notation for: fields by name, sets in order."""
    if isinstance(value, frozenset):
        return sorted(value)
    return {field.name: getattr(value, field.name) for field in fields(value)}


def record_of(text: str) -> Record:
    document = json.loads(text)
    document["member"] = _member(document["member"])
    values: Document = {key: tuple(v) if isinstance(v, list) else v for key, v in document.items()}
    return Record(**values)


def _member(document: Document) -> Member:
    document["findings"] = tuple((rule, severity) for rule, severity in document["findings"])
    document["tags"] = frozenset(document["tags"])
    document["best"] = {role: Best(**best) for role, best in document["best"].items()}
    document["waste"] = document["waste"] and Waste(**document["waste"])
    document["checkpoints"] = tuple((path, step) for path, step in document["checkpoints"])
    return Member(**document)


def features_text(features: Mapping[str, Measurement | Missing]) -> str:
    """Every measurement; what is missing with the reason."""
    return json.dumps({name: _plain(found) for name, found in features.items()}, separators=(",", ":"))


def _plain(found: Measurement | Missing) -> list[Any]:
    if isinstance(found, Missing):
        return [found.reason, found.needs]
    bare = [found.value, found.steps, found.role, found.where, found.items, found.points]
    while len(bare) > 1 and not bare[-1]:
        bare.pop()
    return bare


def features_of(text: str) -> Features:
    return {name: _found(parts) for name, parts in json.loads(text).items()}


def _found(parts: list[Any]) -> Measurement | Missing:
    if isinstance(parts[0], str):
        return Missing(parts[0], tuple(parts[1]))
    rest: tuple[Any, ...] = (None, "", "", (), ())
    value, steps, role, where, items, points = (*parts, *rest[len(parts) - 1 :])
    return Measurement(value, steps and (steps[0], steps[1]), role, where, tuple(items), tuple(points))


# --------------------------------------------------------------------------- the document


def document(report: RunReport) -> Document:
    """The run of the JSON report, with sketches of its main curves."""
    found: Document = strict(run_document(report))
    return {**found, "sketches": [sketch(s) for s in _sketched(report.run)]}


def _sketched(run: Run) -> list[Series]:
    """A few curves that tell the run's story: of each role the first, the most telling roles first."""
    first = {s.role: s for s in reversed(run.series) if s.role in SKETCHED and s.points > 1}
    return [first[role] for role in SKETCHED if role in first][:SKETCHES]


def sketch(series: Series) -> Document:
    """A curve in at most 64 points, its extremes among them, its numbers to five digits."""
    finite = np.flatnonzero(np.isfinite(series.values) & np.isfinite(series.steps))
    kept = finite[_telling(series.values[finite])]
    return {
        "role": series.role,
        "tag": series.tag,
        "steps": rounded(series.steps[kept]),
        "values": rounded(series.values[kept]),
    }


def _telling(values: FloatArray) -> list[int]:
    """Indices of the first, last, lowest and highest of each of sixteen stretches of finite values."""
    n = len(values)
    if n <= 4 * PARTS:
        return list(range(n))
    edges = [n * part // PARTS for part in range(PARTS + 1)]
    found = set(edges[:-1]).union(edge - 1 for edge in edges[1:])
    for first, past in pairwise(edges):
        stretch = values[first:past]
        found.add(first + int(stretch.argmin()))
        found.add(first + int(stretch.argmax()))
    return sorted(found)


def rounded(values: FloatArray) -> list[float]:
    return [float(f"{value:.5g}") for value in values.tolist()]
