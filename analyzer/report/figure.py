"""One run as a figure of matplotlib, with the evidence drawn on it: for papers, notebooks and paper.

Needs matplotlib, the extra ``plots``; it is imported when a figure is asked for.
"""

from __future__ import annotations

import textwrap
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from analyzer.errors import AnalyzerError
from analyzer.model import Finding, Mark, Report, RunReport, Series
from analyzer.report import curves, panels, wording
from analyzer.report.escape import clip, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 9.0  # inches
TALL, SMALL, GAP, HEAD, MARGIN = 2.9, 1.25, 0.68, 1.2, 0.4  # inches
LINE = 0.185  # inches of a line of text
COLUMNS = 112  # characters of a line of text
NAME = 70  # characters of a name; its middle is cut out
NOISY = 400  # points; above it a median line is drawn over the raw one
NEAR = 0.03  # of the width; numbers of marks nearer than that stand above each other
COLORS = ("#2563c9", "#c85a05", "#0f7a63", "#8646bd", "#b13a75", "#626a78")
INK, FAINT, BROKEN = "#1b2230", "#566072", "#b3202a"
SEVERITY = {"critical": "#b3202a", "warning": "#8a4f00", "info": "#1a5fb4"}


@dataclass(frozen=True, slots=True)
class Note:
    """A mark with its number in the figure and its finding's severity."""

    number: int
    mark: Mark
    severity: str


def sick(report: Report) -> list[RunReport]:
    """The runs worth a page: those with a finding that asks for a change, else all of them."""
    found = [run for run in report.runs if run.verdict in ("critical", "warning")]
    return found or list(report.runs)


def figure(report: RunReport) -> Figure:
    """The run's charts on one step axis, below them its findings in words."""
    made = _new_figure()
    shown = panels.run_panels(report, others=False)
    notes = _notes(report)
    lines = list(_words(report, notes))
    heights = [TALL if i == 0 else SMALL for i in range(len(shown))]
    total = HEAD + sum(heights) + GAP * len(heights) + LINE * len(lines) + MARGIN
    made.set_size_inches(WIDTH, total)
    _head(made, report, total)
    top = total - HEAD
    first: Axes | None = None
    for panel, height in zip(shown, heights, strict=True):
        box = (0.085, (top - height) / total, 0.885, height / total)
        share = first if first is not None and panel.axis == shown[0].axis else None
        axes = made.add_axes(box, sharex=share)
        first = first or axes
        _draw(axes, panel, [n for n in notes if n.mark.role in {s.role for s in panel.series}])
        top -= height + GAP
    for i, (text, color, weight) in enumerate(lines):
        y = (top + GAP * 0.4 - LINE * i) / total
        _text(made, 0.03, y, text, color=color, weight=weight, fontsize=8.5, va="top")
    return made


def cover(report: Report) -> Figure:
    """What the pages after it hold: the verdict and the runs, worst first."""
    made = _new_figure()
    rows = [f"{wording.VERDICT_WORDS[r.verdict]:>12}   {_named(r)}" for r in report.runs[:60]]
    if len(report.runs) > len(rows):
        rows.append(f"{'':>12}   and {len(report.runs) - len(rows)} more")
    total = HEAD + MARGIN + LINE * len(rows)
    made.set_size_inches(WIDTH, total)
    _text(made, 0.03, 1 - 0.3 / total, wording.headline(report), fontsize=14, weight="bold", va="top")
    for i, row in enumerate(rows):
        _text(made, 0.03, 1 - (HEAD + LINE * i) / total, row, fontsize=8, family="monospace", va="top")
    return made


def quietly(draw: Any, *arguments: Any, **options: Any) -> Any:
    """Calls without matplotlib's remarks about characters that its font lacks."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return draw(*arguments, **options)


def _new_figure() -> Figure:
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        message = "drawing needs matplotlib: pip install 'training-log-analyzer[plots]'"
        raise AnalyzerError(message) from error
    return Figure(facecolor="white")


def _named(run: RunReport) -> str:
    top = f": {run.findings[0].title}" if run.findings else ""
    return clip(plain(run.run.name + top), COLUMNS)


def _head(made: Figure, report: RunReport, total: float) -> None:
    color = SEVERITY.get(report.verdict, INK)
    facts = f"{wording.VERDICT_WORDS[report.verdict]}, {wording.size(report)}"
    name = clip(plain(report.run.name), NAME)
    _text(made, 0.03, 1 - 0.16 / total, name, fontsize=13, weight="bold", color=color, va="top")
    _text(made, 0.03, 1 - 0.42 / total, facts, fontsize=9, color=FAINT, va="top")


def _text(place: Any, x: float, y: float, text: str, **style: Any) -> None:
    """Text as it is: a dollar sign begins no formula."""
    place.text(x, y, text, parse_math=False, **{"color": INK, **style})


def _notes(report: RunReport) -> list[Note]:
    """The marks of findings that ask for a change, or of the first with any; none twice."""
    marked = [f for f in report.findings if f.marks]
    chosen = [f for f in marked if f.severity != "info"] or marked[:1]
    found: dict[Mark, str] = {}
    for finding in chosen:
        for mark in finding.marks:
            if np.isfinite([mark.first, mark.last]).all():
                found.setdefault(mark, finding.severity)
    return [Note(i, mark, severity) for i, (mark, severity) in enumerate(found.items(), start=1)]


def _words(report: RunReport, notes: Sequence[Note]) -> Iterator[tuple[str, str, str]]:
    """(line, colour, weight) of what the figure says below its charts."""
    for note in notes:
        where = wording.step_range((note.mark.first, note.mark.last))
        yield clip(plain(f"{note.number}  {note.mark.label} ({where})"), COLUMNS), FAINT, "normal"
    for finding, _ in wording.nested(report.findings):
        yield "", INK, "normal"
        title = f"{finding.severity}: {finding.title} ({wording.percent(finding.confidence)} confidence)"
        yield clip(plain(title), COLUMNS), SEVERITY[finding.severity], "bold"
        for line in _told(finding):
            yield line, INK, "normal"


def _told(finding: Finding) -> Iterator[str]:
    remedy = [f"Try: {finding.remedies[0].title}"] if finding.remedies else []
    for text in (finding.summary, *remedy):
        yield from textwrap.wrap(plain(text), COLUMNS)[:4]


def _draw(axes: Axes, panel: panels.Panel, notes: Sequence[Note]) -> None:
    if panel.log:
        axes.set_yscale("log")
    for place, series in enumerate(panel.series):
        _curve(axes, series, COLORS[place % len(COLORS)])
    axes.margins(x=0.01)
    axes.grid(color="#e0e5ec", linewidth=0.6)
    axes.tick_params(labelsize=8, colors=FAINT, length=0)
    for side in axes.spines.values():
        side.set_visible(False)
    axes.set_xlabel(panel.axis, fontsize=8, color=FAINT, labelpad=1)
    handles = axes.get_lines()[: len(panel.series)]
    legend = axes.legend(
        handles, [clip(plain(s.tag), NAME) for s in panel.series],
        fontsize=8, frameon=False, loc="lower right", bbox_to_anchor=(1, 1), ncols=3, borderaxespad=0.1,
    )  # fmt: skip
    for text in legend.get_texts():
        text.set_parse_math(False)
    rows = _evidence(axes, panel, notes)
    title = panel.title.capitalize()
    axes.set_title(title, fontsize=9, loc="left", color=INK, weight="bold", pad=5 + 11 * rows)


def _curve(axes: Axes, series: Series, color: str) -> None:
    steps, values = curves.ordered(series)
    bounded = np.where(np.isfinite(values), np.clip(values, -1e150, 1e150), np.nan)
    noisy = len(values) > NOISY
    label = clip(plain(series.tag), NAME)
    marker = "." if len(values) <= 60 else None
    (line,) = axes.plot(
        steps, bounded, color=color, lw=0.7 if noisy else 1.4, label=label, marker=marker, ms=4
    )
    if noisy:
        line.set_alpha(0.45)
        axes.plot(*curves.medians(steps, bounded, 120), color=color, lw=1.6, label=f"{label} (median)")
    broken = steps[~np.isfinite(values)]
    if len(broken):
        axes.plot(
            broken, np.ones(len(broken)), "s", color=BROKEN, ms=3, clip_on=False,
            transform=axes.get_xaxis_transform(), label=f"{label} (NaN or Inf)",
        )  # fmt: skip


def _evidence(axes: Axes, panel: panels.Panel, notes: Sequence[Note]) -> int:
    """Draws the notes; how many rows their numbers take above the plot."""
    low, high = axes.get_xlim()
    rows: list[float] = []
    for note in sorted(notes, key=lambda n: n.mark.first):
        mark, color = note.mark, SEVERITY[note.severity]
        if mark.first < mark.last:
            axes.axvspan(mark.first, mark.last, color=color, alpha=0.08, lw=0)
        axes.axvline(mark.first, color=color, lw=0.8, ls=(0, (3, 3)))
        place = (mark.first - low) / (high - low)
        row = next((i for i, taken in enumerate(rows) if place - taken > NEAR), len(rows))
        rows[row : row + 1] = [place]
        axes.annotate(
            str(note.number), (mark.first, 1), xycoords=("data", "axes fraction"), xytext=(0, 5 + 11 * row),
            textcoords="offset points", ha="center", va="center", fontsize=7, color="white", weight="bold",
            bbox={"boxstyle": "circle,pad=0.22", "color": color},
        )  # fmt: skip
        _ring(axes, panel, mark, color)
    return len(rows)


def _ring(axes: Axes, panel: panels.Panel, mark: Mark, color: str) -> None:
    if mark.first != mark.last:
        return
    steps, values = curves.ordered(next(s for s in panel.series if s.role == mark.role))
    value = values[int(np.abs(steps - mark.first).argmin())] if len(steps) else np.nan
    if np.isfinite(value):
        axes.plot([mark.first], [value], "o", mfc="none", mec=color, mew=1.6, ms=8, label="_")
