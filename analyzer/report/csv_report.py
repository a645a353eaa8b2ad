"""The findings as CSV: one row each, safe to open in a spreadsheet."""

from __future__ import annotations

import csv
import io
import math

from analyzer.model import Finding, Report, RunReport
from analyzer.report.escape import plain

NAME = "csv"
SUFFIX = ".csv"
COLUMNS = (
    "run", "path", "verdict", "severity", "rule", "title", "confidence", "scope", "scope_name", "first_step",
    "last_step", "summary", "evidence", "cause", "likelihood", "remedy", "explained_by",
)  # fmt: skip
# A cell that begins so is a formula to a spreadsheet; the second half are their full-width twins.
_FORMULA = ("=", "+", "-", "@", "＝", "＋", "－", "＠")

Cell = str | float | None


def render(report: Report, **_: object) -> str:
    """One row per finding; a run without findings has none."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for run in report.runs:
        for finding in run.findings:
            writer.writerow([cell(value) for value in _row(run, finding)])
    return text.getvalue()


def _row(run: RunReport, finding: Finding) -> tuple[Cell, ...]:
    first, last = finding.steps or (None, None)
    cause = finding.causes[0] if finding.causes else None
    return (
        run.run.name,
        run.run.path,
        run.verdict,
        finding.severity,
        finding.rule,
        finding.title,
        finding.confidence,
        finding.scope_kind,
        finding.scope_name,
        first,
        last,
        finding.summary,
        "; ".join(f"{e.feature} {e.value:.6g} {e.op} {e.threshold:.6g}" for e in finding.evidence),
        cause.text if cause else None,
        cause.likelihood if cause else None,
        finding.remedies[0].title if finding.remedies else None,
        finding.explained_by,
    )


def cell(value: Cell) -> str | int | float:
    """Text that no spreadsheet takes for a formula; numbers as numbers, empty where there is none."""
    if value is None:
        return ""
    if isinstance(value, str):
        text = plain(value)
        return f"'{text}" if text.lstrip().startswith(_FORMULA) else text
    if not math.isfinite(value):
        return ""
    return int(value) if float(value).is_integer() else value
