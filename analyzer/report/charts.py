"""Curves as inline SVG, drawn by hand, with a finding's evidence marked on them.

Places along the step axis are percentages and places along the value axis are pixels, so a chart
fills the width it is given while its text keeps its size. Colours are the style sheet's: every
element carries a class and no style of its own.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from analyzer.model import FloatArray, IntArray, Mark, RunReport, Series
from analyzer.report import axes, curves, wording
from analyzer.report.escape import clip, plain

TALL, SMALL = 240, 92  # pixels
BESIDE = ("accuracy", "reward", "learning_rate", "grad_norm")  # shown below the main curves
COLUMNS, FEW_COLUMNS = 600, 150
SMOOTH_COLUMNS = 120
NOISY = 400  # points; above it a median line is drawn over the raw one
SPARSE = 60  # points; up to this many each is a dot
GRID = 1000  # units of a line's own coordinates, along both axes
LANE = 20  # pixels of one row of labels
LANES = 4
LABEL = 40  # characters of a label
REFERENCE = 620  # pixels; the plot's width that labels are kept apart for
CHARACTER = 6.3  # pixels
AXIS = 22  # pixels below the plot for the step ticks


@dataclass(frozen=True, slots=True)
class Note:
    """A mark with the severity of its finding and its number in the panel."""

    number: int
    mark: Mark
    severity: str


@dataclass(frozen=True, slots=True)
class Legend:
    style: str
    label: str
    detail: str


@dataclass(frozen=True, slots=True)
class Panel:
    """One plot: ``svg`` is safe HTML, the rest is plain text."""

    title: str
    svg: str
    legend: tuple[Legend, ...]
    notes: tuple[Note, ...]
    log: bool


@dataclass(frozen=True, slots=True)
class Frame:
    """Where a panel's plot lies: pixels down from the top, scales across and up."""

    top: int
    height: int
    across: axes.Scale
    up: axes.Scale
    columns: int

    @property
    def bottom(self) -> int:
        return self.top + self.height

    def x(self, step: float) -> float:
        """Percent of the width."""
        return 100 * min(max(float(self.across.unit(np.float64(step))), 0.0), 1.0)  # type: ignore[arg-type]

    def y(self, value: float) -> float:
        """Pixels."""
        place = min(max(float(self.up.unit(np.float64(value))), 0.0), 1.0)  # type: ignore[arg-type]
        return self.bottom - place * self.height


def run_panels(report: RunReport, compact: bool = False) -> list[Panel]:
    """The run's charts: its main curves, then those that findings point at, on one step axis."""
    groups = _groups(report, compact)
    panels: list[Panel] = []
    for axis in dict.fromkeys(g[0].axis for g in groups):
        shared = [tuple(s for s in g if s.axis == axis) for g in groups if g[0].axis == axis]
        across = _across(s for group in shared for s in group)
        for group in shared:
            height = SMALL if compact or panels else TALL
            last = group is shared[-1]
            panels.append(_panel(report, group, across, height, last, FEW_COLUMNS if compact else COLUMNS))
    return panels


def thumbnail(report: RunReport) -> str:
    """The main curve in the space of a word; nothing where there is no curve."""
    series = curves.main_curve(report.run)
    if series is None:
        return ""
    frame = Frame(2, 24, _across([series]), axes.value_scale(series.values), 60)
    steps, values = curves.ordered(series)
    places = np.clip(frame.across.unit(steps), 0, 1)
    path = _path(frame, places, values, curves.envelope(curves.columns(places, frame.columns), values))
    box = f'viewBox="0 0 {GRID} {GRID}" preserveAspectRatio="none" aria-hidden="true"'
    return f'<svg class="thumbnail" {box}><path class="line s0" d="{path}"/></svg>'


def _groups(report: RunReport, compact: bool) -> list[tuple[Series, ...]]:
    run = report.run
    main = curves.main_curves(run)
    if compact:
        return [main[:2]] if main else []
    marked = (curves.family(m.role) for f in report.findings for m in f.marks if m.role)
    wanted = dict.fromkeys([*BESIDE, *marked])
    told = curves.family(main[0].role) if main else None
    groups = [main, *(curves.of_family(run, name) for name in wanted if name != told)]
    return [group for group in groups if group]


def _across(series: Iterable[Series]) -> axes.Scale:
    steps = [s.steps[np.isfinite(s.steps)] for s in series]
    known = [s for s in steps if len(s)]
    if not known:
        return axes.step_scale(0.0, 1.0)
    return axes.step_scale(min(float(s.min()) for s in known), max(float(s.max()) for s in known))


def _panel(
    report: RunReport, group: tuple[Series, ...], across: axes.Scale, height: int, last: bool, count: int
) -> Panel:
    notes = _notes(report, group)
    lanes = _lanes(notes, across)
    top = 8 + LANE * (1 + max(lanes.values(), default=-1))
    up = axes.value_scale(np.concatenate([s.values for s in group]))
    frame = Frame(top, height, across, up, count)
    layers = [
        *(_band(frame, note) for note in notes if not _is_point(note.mark)),
        *_grid(frame, group[0].axis if last else ""),
        *(_curve(frame, s, i) for i, s in enumerate(group)),
        *(_broken(frame, s) for s in group),
        *(_note(frame, note, lanes.get(note.number), group) for note in notes),
    ]
    total = frame.bottom + (AXIS if last else 6)
    name = " and ".join(s.tag for s in group[:2])
    body = "".join(layers)
    described = f'role="img" aria-label="{_safe(name)}"'
    svg = f'<svg class="plot" width="100%" height="{total}" {described}>{body}</svg>'
    return Panel(_title(group), svg, tuple(map(_legend, range(len(group)), group)), notes, up.log)


def _title(group: tuple[Series, ...]) -> str:
    roles = list(dict.fromkeys(s.role.replace("_", " ") for s in group if s.role))
    return ", ".join(roles[:3]) or "curves with no known role"


def _legend(index: int, series: Series) -> Legend:
    known = series.values[np.isfinite(series.values)]
    if len(known) == 0:
        return Legend(f"s{index}", series.tag, "never a number")
    parts = [f"last {wording.number(float(series.values[-1]))}"]
    if len(known) > 1:
        parts.append(f"range {wording.number(float(known.min()))} … {wording.number(float(known.max()))}")
    return Legend(f"s{index}", series.tag, ", ".join(parts))


def _notes(report: RunReport, group: tuple[Series, ...]) -> tuple[Note, ...]:
    """The marks that belong on these curves, none twice, in the order of their findings."""
    roles = {s.role for s in group}
    found: dict[Mark, str] = {}
    for finding in report.findings:
        for mark in finding.marks:
            if mark.role in roles and np.isfinite([mark.first, mark.last]).all():
                found.setdefault(mark, finding.severity)
    return tuple(Note(i, mark, severity) for i, (mark, severity) in enumerate(found.items(), start=1))


def _is_point(mark: Mark) -> bool:
    return mark.first == mark.last


def _lanes(notes: Sequence[Note], across: axes.Scale) -> dict[int, int]:
    """Note number -> the row its label goes in, 0 nearest the plot; left out where no row is free."""
    ends: list[list[tuple[float, float]]] = [[] for _ in range(LANES)]
    lanes = {}
    for note in notes:
        left, right = _extent(note, across)
        free = (i for i, taken in enumerate(ends) if all(right < a or left > b for a, b in taken))
        lane = next(free, None)
        if lane is not None:
            ends[lane].append((left, right))
            lanes[note.number] = lane
    return lanes


def _extent(note: Note, across: axes.Scale) -> tuple[float, float]:
    """Where the label begins and ends, in pixels of a plot of the reference width."""
    at, anchored_left = _anchor(note.mark, across)
    width = 24 + CHARACTER * len(clip(plain(note.mark.label), LABEL))
    start = at * REFERENCE
    return (start, start + width) if anchored_left else (start - width, start)


def _anchor(mark: Mark, across: axes.Scale) -> tuple[float, bool]:
    """The place 0…1 of a mark's label, and whether the text goes right from there."""
    first, last = np.clip(across.unit(np.array([mark.first, mark.last])), 0, 1)
    return (float(first), True) if first <= 0.58 else (float(last), False)


def _grid(frame: Frame, axis_name: str) -> list[str]:
    parts = []
    for place, label in axes.ticks(frame.up, 5 if frame.height > 150 else 2):
        y = _n(frame.bottom - place * frame.height)
        parts.append(f'<line class="grid" x1="0" x2="100%" y1="{y}" y2="{y}"/>')
        parts.append(f'<text class="tick" x="-8" y="{y}" dy="4" text-anchor="end">{_safe(label)}</text>')
    for place, label in axes.ticks(frame.across, 6):
        x = f"{_n(100 * place)}%"
        parts.append(f'<line class="grid" x1="{x}" x2="{x}" y1="{frame.top}" y2="{frame.bottom}"/>')
        if axis_name:
            parts.append(_step_label(x, place, frame.bottom + 16, label))
    if axis_name:
        left = f'x="-8" y="{frame.bottom + 16}" text-anchor="end"'
        parts.append(f'<text class="tick" {left}>{axis_name}</text>')
    return parts


def _step_label(x: str, place: float, y: int, label: str) -> str:
    anchor = "end" if place > 0.98 else "start" if place < 0.02 else "middle"
    return f'<text class="tick" x="{x}" y="{y}" text-anchor="{anchor}">{_safe(label)}</text>'


def _curve(frame: Frame, series: Series, index: int) -> str:
    steps, values = curves.ordered(series)
    places = np.clip(frame.across.unit(steps), 0, 1)
    column = curves.columns(places, frame.columns)
    kept = curves.envelope(column, values)
    if len(kept) == 0:
        return ""
    noisy = series.points > NOISY
    path = _path(frame, places, values, kept)
    lines = f'<path class="line{" raw" if noisy else ""} s{index}" d="{path}"/>'
    if noisy:
        lines += f'<path class="line s{index}" d="{_median_path(frame, places, values)}"/>'
    title = f"<title>{_safe(series.tag)}</title>"
    box = f'y="{frame.top}" width="100%" height="{frame.height}" viewBox="0 0 {GRID} {GRID}"'
    drawn = f'<svg {box} preserveAspectRatio="none"><g>{title}{lines}</g></svg>'
    return drawn + (_dots(frame, steps, values, index) if len(values) <= SPARSE else "")


def _path(frame: Frame, places: FloatArray, values: FloatArray, kept: IntArray) -> str:
    """The line through the kept points, lifted wherever a NaN or Inf lies between two of them."""
    xs = np.rint(places[kept] * GRID).astype(int)
    ys = _ys(frame, values[kept])
    gaps = np.cumsum(~np.isfinite(values))[kept]
    lifted = np.flatnonzero(np.diff(gaps, prepend=-1))
    starts = set(lifted.tolist())
    pairs = zip(xs.tolist(), ys.tolist(), strict=True)
    return "".join(f"{'M' if i in starts else 'L'}{x} {y}" for i, (x, y) in enumerate(pairs))


def _median_path(frame: Frame, places: FloatArray, values: FloatArray) -> str:
    column = curves.columns(places, SMOOTH_COLUMNS)
    filled, middle = curves.medians(column, values)
    xs = np.rint((filled + 0.5) / SMOOTH_COLUMNS * GRID).astype(int)
    gaps = np.diff(filled, prepend=-9) > _usual_gap(filled)
    pairs = zip(gaps, xs, _ys(frame, middle), strict=True)
    return "".join(f"{'M' if gap else 'L'}{x} {y}" for gap, x, y in pairs)


def _usual_gap(filled: IntArray) -> float:
    """More empty columns than this in a row are a gap in the curve."""
    return 3 * float(np.median(np.diff(filled))) if len(filled) > 2 else GRID


def _ys(frame: Frame, values: FloatArray) -> IntArray:
    ys: IntArray = np.rint((1 - np.clip(frame.up.unit(values), 0, 1)) * GRID).astype(np.int64)
    return ys


def _dots(frame: Frame, steps: FloatArray, values: FloatArray, index: int) -> str:
    circles = (
        f'<circle class="dot s{index}" cx="{_n(frame.x(s))}%" cy="{_n(frame.y(v))}" r="2.5">'
        f"<title>{_safe(wording.number(s))}: {_safe(wording.number(v))}</title></circle>"
        for s, v in zip(steps.tolist(), values.tolist(), strict=True)
        if np.isfinite(v)
    )
    return "".join(circles)


def _broken(frame: Frame, series: Series) -> str:
    """The stretches where a NaN or Inf was logged, along the top of the plot."""
    steps, values = curves.ordered(series)
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad) == 0:
        return ""
    firsts, lasts = bad[np.diff(bad, prepend=-2) > 1], bad[np.diff(bad, append=len(values) + 1) > 1]
    column = curves.columns(np.clip(frame.across.unit(steps), 0, 1), frame.columns)
    spans = np.unique(np.stack([column[firsts], column[lasts]], axis=1), axis=0).tolist()
    known = wording.step_range((float(steps[bad[0]]), float(steps[bad[-1]])))
    count = f"{len(bad)} of {len(values)} points are NaN or Inf"
    title = f"<title>{_safe(series.tag)}: {count}, {_safe(known)}</title>"
    return f'<g class="nan">{title}{"".join(_broken_span(frame, *span) for span in spans)}</g>'


def _broken_span(frame: Frame, first: int, last: int) -> str:
    left, width = 100 * first / frame.columns, 100 * (last - first + 1) / frame.columns
    return f'<rect x="{_n(left)}%" y="{frame.top}" width="{_n(max(width, 0.5))}%" height="6"/>'


def _band(frame: Frame, note: Note) -> str:
    left, right = frame.x(note.mark.first), frame.x(note.mark.last)
    size = f'width="{_n(max(right - left, 0.2))}%" height="{frame.height}"'
    rect = f'<rect x="{_n(left)}%" y="{frame.top}" {size}/>'
    return f'<g class="band {note.severity}"><title>{_spoken(note)}</title>{rect}</g>'


def _note(frame: Frame, note: Note, lane: int | None, group: tuple[Series, ...]) -> str:
    at, rightwards = _anchor(note.mark, frame.across)
    x = f"{_n(100 * at)}%"
    y = frame.top - 10 - LANE * (lane or 0)
    line = f'<line class="lead" x1="{x}" x2="{x}" y1="{y}" y2="{frame.bottom}"/>'
    ring = _ring(frame, note.mark, group) if _is_point(note.mark) else ""
    label = _label(note, x, y, rightwards) if lane is not None else ""
    return f'<g class="note {note.severity}"><title>{_spoken(note)}</title>{line}{ring}{label}</g>'


def _label(note: Note, x: str, y: int, rightwards: bool) -> str:
    side, anchor = (13, "start") if rightwards else (-13, "end")
    words = _safe(clip(plain(note.mark.label), LABEL))
    place = f'x="{x}" y="{y}" dy="4"'
    badge = f'<circle cx="{x}" cy="{y}" r="8"/><text class="badge" {place}>{note.number}</text>'
    return f'{badge}<text class="label" {place} dx="{side}" text-anchor="{anchor}">{words}</text>'


def _ring(frame: Frame, mark: Mark, group: tuple[Series, ...]) -> str:
    """A ring on the curve at the marked step, or at the top where it has no number there."""
    series = next(s for s in group if s.role == mark.role)
    steps, values = curves.ordered(series)
    if len(steps) == 0:
        return ""
    value = float(values[int(np.abs(steps - mark.first).argmin())])
    y = frame.y(value) if np.isfinite(value) else frame.top + 3
    return f'<circle class="ring" cx="{_n(frame.x(mark.first))}%" cy="{_n(y)}" r="5"/>'


def _spoken(note: Note) -> str:
    where = wording.step_range((note.mark.first, note.mark.last))
    return _safe(f"{note.mark.label} ({where})")


def _n(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")


def _safe(text: str) -> str:
    return html.escape(plain(text))
