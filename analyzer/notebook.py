"""The report as Python and notebooks want it: a table, a plot, a page below the cell."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from analyzer import model
from analyzer.model import Finding, RunReport

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

COLUMNS = (
    "run", "path", "verdict", "rule", "severity", "confidence", "title", "summary", "first_step",
    "last_step", "explained_by",
)  # fmt: skip
FRAME_HEIGHT = 640  # pixels of a notebook's page that the report takes before it scrolls


@dataclass(frozen=True, slots=True, eq=False)
class Report(model.Report):
    """A report with the conveniences of a notebook; what it holds is :class:`analyzer.model.Report`."""

    def to_frame(self) -> DataFrame:
        """One row per finding, best first; a run without any has one row with its verdict alone."""
        import pandas as pd

        rows = [_row(run, finding) for run in self.runs for finding in (run.findings or (None,))]
        return pd.DataFrame(rows, columns=list(COLUMNS))

    def plot(self, run: str | int = 0) -> Figure:
        """The curves of one run, by name or by rank (worst first), with the evidence drawn on them.

        Raises KeyError for a run that is not there. Needs matplotlib (the extra ``plots``).
        """
        from analyzer.report.figure import figure

        return figure(self.of(run))

    def of(self, run: str | int) -> RunReport:
        """One run's part of the report, by name or by rank; KeyError where there is none such."""
        if isinstance(run, int):
            if not -len(self.runs) <= run < len(self.runs):
                raise KeyError(f"there are {len(self.runs)} runs; no number {run}")
            return self.runs[run]
        for found in self.runs:
            if found.run.name == run:
                return found
        raise KeyError(f"no run is called {run!r}")

    def _repr_html_(self) -> str:
        """The whole page in a frame of its own: its styles and scripts stay inside, the notebook's outside."""
        from analyzer.report.html import render

        return (
            f'<iframe title="Training report" sandbox="allow-scripts" style="width:100%;height:{FRAME_HEIGHT}px;'
            f'border:1px solid #8888" srcdoc="{escape(render(self))}"></iframe>'
        )


def of(report: model.Report) -> Report:
    return Report(report.runs, report.problems, report.version, report.insight)


def _row(run: RunReport, finding: Finding | None) -> tuple[Any, ...]:
    about = (run.run.name, run.run.path, run.verdict)
    if finding is None:
        return (*about, *(None for _ in COLUMNS[len(about) :]))
    first, last = finding.steps or (None, None)
    return (
        *about, finding.rule, finding.severity, finding.confidence, finding.title, finding.summary, first,
        last, finding.explained_by,
    )  # fmt: skip
