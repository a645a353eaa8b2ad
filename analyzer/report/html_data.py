"""What the page shows, as one compact JSON document that its scripts read.

Every text, and every remedy made of them, is stored once in ``pool`` and named by its index: of a thousand
runs with the same finding only the numbers differ. Curves are thinned without losing an extreme and
packed as base64 of little-endian arrays.
"""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from analyzer.model import (
    Evidence,
    Finding,
    FloatArray,
    Histograms,
    LayerStats,
    Problem,
    Remedy,
    Report,
    RunReport,
    Scalar,
    Series,
)
from analyzer.report import comparison, curves, layers, panels, wording
from analyzer.report.escape import clip, plain_block
from analyzer.report.json_report import strict

Document = dict[str, Any]

POINTS = 600_000  # of all curves together
MOST, LEAST = 4000, 160  # points of one curve
NOISY = 400  # points; above it a median line is drawn over the raw one
MEDIANS = 120
OTHERS = 240  # curves of a run outside its story
FEW = 60  # runs; with more, only curves and histograms that tell the story are kept
LAYERS, LAYERS_EACH = 40_000, (20, 400)  # rows of tensors: in all, and at least and at most in one run
HISTOGRAMS, FRAMES, BUCKETS = 24, 32, 28
PROBLEMS = 200
NAME_LENGTH = 200  # characters of a name; its middle is cut out
# value and threshold have columns of their own
_MEASURED = re.compile(r"(.*): ([^:()]*?)(?: in [^:()]*)? \(threshold: (?:[a-z ]+ )?([^()]*)\)")
FLOAT32 = float(np.finfo(np.float32).max)


@dataclass(slots=True)
class Pool:
    """Texts, and lists of what is in the pool already, each stored once."""

    values: list[str | list[int]] = field(default_factory=list)
    _places: dict[str | tuple[int, ...], int] = field(default_factory=dict)

    def text(self, text: str) -> int:
        return self._place(text, plain_block(text)) if text not in self._places else self._places[text]

    def name(self, text: str) -> int:
        return self.text(clip(text, NAME_LENGTH))

    def row(self, items: Iterable[int]) -> int:
        key = tuple(items)
        return self._place(key, list(key)) if key not in self._places else self._places[key]

    def texts(self, texts: Iterable[str]) -> int:
        return self.row([self.text(text) for text in texts])

    def _place(self, key: str | tuple[int, ...], value: str | list[int]) -> int:
        self._places[key] = len(self.values)
        self.values.append(value)
        return self._places[key]


@dataclass(frozen=True, slots=True)
class Limits:
    """How much of each run fits, given how many there are."""

    points: int
    layers: int
    others: bool  # curves outside the story, and histograms


def embedded(report: Report) -> str:
    """The document as JSON that no HTML parser takes for markup, whatever the texts say."""
    text = json.dumps(strict(document(report)), separators=(",", ":"), allow_nan=False)
    for char in "<>&":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return text  # ASCII: U+2028 and U+2029 are escapes already


def document(report: Report) -> Document:
    pool, limits = Pool(), _limits(report)
    return {
        "version": report.version,
        "runs": [_run(pool, run, limits) for run in report.runs],
        "together": [
            [pool.text(title), pool.texts(told)]
            for title, told in (comparison.sections(report.insight) if report.insight else ())
        ],
        "problems": _problems(pool, report.problems),
        "words": wording.VERDICT_WORDS,
        "icons": wording.ICONS,
        "frameworks": wording.FRAMEWORKS,
        "pool": pool.values,
    }


def _limits(report: Report) -> Limits:
    count = max(1, len(report.runs))
    few = count <= FEW
    drawn = sum(len(panel.series) for run in report.runs for panel in _shown(run, few)[0])
    least, most = LAYERS_EACH
    return Limits(
        points=min(MOST, max(LEAST, POINTS // max(1, drawn))),
        layers=min(most, max(least, LAYERS // count)),
        others=few,
    )


def _shown(report: RunReport, others: bool) -> tuple[list[panels.Panel], int]:
    """The run's panels, and how many curves outside the story are too many for a page."""
    found = panels.run_panels(report, others)
    story = [panel for panel in found if panel.story]
    rest = found[len(story) :]
    return story + rest[:OTHERS], len(rest[OTHERS:])


def _run(pool: Pool, report: RunReport, limits: Limits) -> Document:
    run = report.run
    drawn, left_out = _shown(report, limits.others)
    return {
        "name": clip(plain_block(run.name), NAME_LENGTH),
        "path": pool.name(run.path),
        "verdict": report.verdict,
        "points": wording.points(report),
        "size": wording.size(report),
        "findings": _findings(pool, report),
        "panels": [_panel(pool, panel, limits) for panel in drawn],
        "undrawn": left_out,
        "rates": [[step, wording.number(factor, 2)] for step, factor in panels.rate_changes(report)],
        "skipped": pool.row(
            pool.texts((n.rule, n.reason or ", ".join(n.missing))) for n in report.not_applicable
        ),
        "lacking": pool.text(wording.not_checked(report)),
        "problems": _problems(pool, report.problems),
        "unmapped": pool.row(pool.name(t) for t in sorted({s.tag for s in run.series if not s.role})),
        "parameters": [
            [pool.name(key), pool.name(_parameter(value))]
            for key, value in sorted(run.hyperparameters.items())
        ],
        "layers": _layers(pool, report.layers, limits.layers),
        "histograms": [_histogram(pool, h) for h in _told(run.histograms, limits)],
    }


def _parameter(value: Scalar) -> str:
    """``64`` for 64.0, as it was most likely given."""
    whole = isinstance(value, float) and value.is_integer() and abs(value) < 1e15
    return str(int(value)) if whole and value is not None else str(value)


# --- findings ---------------------------------------------------------------------------------------


def _findings(pool: Pool, report: RunReport) -> list[Document]:
    """In order, those that another explains right after it."""
    found = []
    for finding, explained in wording.nested(report.findings):
        found.append(_finding(pool, finding, False))
        found += [_finding(pool, child, True) for child in explained]
    return found


def _finding(pool: Pool, finding: Finding, explained: bool) -> Document:
    return {
        "rule": pool.name(finding.rule),
        "title": pool.name(finding.title),
        "severity": finding.severity,
        "explained": explained,
        "confidence": wording.percent(finding.confidence),
        "summary": pool.text(finding.summary),
        "why": pool.text(finding.why),
        "scope": pool.name(wording.scope(finding)),
        "steps": wording.step_range(finding.steps),
        "evidence": [_evidence(pool, e) for e in sorted(finding.evidence, key=_is_count)],
        "causes": [
            [pool.text(c.text), wording.percent(c.likelihood), pool.texts(c.evidence)] for c in finding.causes
        ],
        "remedies": [_remedy(pool, r) for r in finding.remedies],
        "doubts": pool.texts(finding.false_positives),
        "references": pool.texts(finding.references),
        "marks": [
            [pool.name(m.role), m.first, m.last, pool.name(m.label)]
            for m in finding.marks
            if math.isfinite(m.first) and math.isfinite(m.last)
        ],
    }


def _is_count(evidence: Evidence) -> bool:
    """Whether it only says that enough was logged: true, and the least telling."""
    return evidence.feature.endswith(".points")


def _evidence(pool: Pool, evidence: Evidence) -> list[Any]:
    """Feature, value, threshold, margin, label: in the units of the sentence, where it is one of a measurement."""
    found = _MEASURED.fullmatch(evidence.text)
    numbers = wording.number(evidence.value), wording.number(evidence.threshold)
    label, value, limit = found.groups() if found else (evidence.text, *numbers)
    sign = wording.OPERATORS.get(evidence.op, evidence.op)
    return [
        pool.name(evidence.feature),
        value,
        f"{sign} {limit}",
        wording.beyond(evidence),
        pool.text(label),
    ]


def _remedy(pool: Pool, remedy: Remedy) -> int:
    """Code is kept line by line: the lines that hold a run's own values are few."""
    snippets = [
        pool.row([pool.name(name), pool.texts(code.strip("\n").split("\n"))])
        for name, code in remedy.snippets.items()
    ]
    head = [pool.text(remedy.title), pool.name(remedy.effort), pool.text(remedy.text)]
    return pool.row([*head, pool.row(snippets)])


def _problems(pool: Pool, problems: Sequence[Problem]) -> Document:
    shown = [[pool.name(p.path), pool.text(p.message), pool.name(p.kind)] for p in problems[:PROBLEMS]]
    return {"count": len(problems), "shown": shown}


# --- curves -----------------------------------------------------------------------------------------


def _panel(pool: Pool, panel: panels.Panel, limits: Limits) -> Document:
    return {
        "title": pool.name(panel.title),
        "family": pool.name(panel.family),
        "axis": panel.axis,
        "log": panel.log,
        "story": panel.story,
        "series": [_curve(pool, series, limits.points) for series in panel.series],
    }


def _curve(pool: Pool, series: Series, most: int) -> Document:
    steps, values = curves.ordered(series)
    kept = curves.thin(values, most)
    curve: Document = {
        "tag": pool.name(series.tag),
        "role": pool.name(series.role),
        "better": series.direction,
        "points": series.points,
        "broken": int(np.count_nonzero(~np.isfinite(values))),
        "x": packed_steps(steps[kept]),
        "y": packed(values[kept]),
    }
    if len(values) > NOISY:
        middle_steps, middle = curves.medians(steps, values, min(MEDIANS, most // 2))
        curve["median"] = {"x": packed_steps(middle_steps), "y": packed(middle)}
    return curve


def packed(values: FloatArray) -> str:
    """Base64 of float32: NaN and Inf stay what they are, what is finite stays finite."""
    bounded = np.where(np.isinf(values), values, np.clip(values, -FLOAT32, FLOAT32))
    return _base64(bounded, "<f4")


def packed_steps(steps: FloatArray) -> list[float | str]:
    """Ascending steps: ``[first, by]`` where they are even, else ``[first, kind, base64 of the gaps]``."""
    if len(steps) == 0:
        return [0.0, 1.0]
    first, gaps = float(steps[0]), np.diff(steps)
    by = float(steps[-1] - first) / max(1, len(gaps))
    if np.all(np.abs(gaps - by) <= 1e-9 * abs(by)):
        return [first, by]
    if np.all(gaps == np.floor(gaps)) and gaps.max() < 1 << 16:
        return [first, "u2", _base64(gaps, "<u2")]
    return [first, "f8", _base64(gaps, "<f8")]


def _base64(values: FloatArray, kind: str) -> str:
    return base64.b64encode(values.astype(kind).tobytes()).decode("ascii")


# --- layers -----------------------------------------------------------------------------------------


def _layers(pool: Pool, found: Sequence[LayerStats], most: int) -> Document:
    """The last checkpoint's tensors, worst first, each with its place in depth and its growth."""
    last = layers.final_weights(found)
    first = {(s.name, s.group, s.slot): s.l2 for s in reversed(found) if s.checkpoint != last[-1].checkpoint}
    depth = {id(layer): place for place, layer in enumerate(last)}
    rows = [_layer(pool, s, depth[id(s)], first) for s in layers.worst_first(last)[:most]]
    return {"count": len(last), "rows": rows}


def _layer(
    pool: Pool, stats: LayerStats, place: int, first: dict[tuple[str, str, str], float | None]
) -> list[Any]:
    start = first.get((stats.name, stats.group, stats.slot))
    fan_scale = None
    if stats.std is not None and stats.fan_in:
        fan_scale = stats.std * math.sqrt(stats.fan_in)
    dead = None
    if stats.dead_units is not None and stats.shape and stats.shape[0]:
        dead = stats.dead_units / stats.shape[0]
    return [
        place,
        pool.name(layers.label(stats)),
        pool.text("×".join(map(str, stats.shape)) or "scalar"),
        pool.name(stats.dtype),
        *(_short(v) for v in (stats.mean, stats.std, stats.min, stats.max)),
        _short(layers.share(stats.zeros, stats)),
        stats.nan + stats.inf,
        _short(fan_scale),
        _short(dead),
        _short(stats.l2 / start) if start and stats.l2 is not None else None,
        [_short(stats.quantiles[q]) for q in sorted(stats.quantiles)],
    ]


def _short(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(f"{value:.4g}")


# --- histograms -------------------------------------------------------------------------------------


def _told(histograms: Sequence[Histograms], limits: Limits) -> Sequence[Histograms]:
    return [h for h in histograms if len(h.steps)][:HISTOGRAMS] if limits.others else ()


def _histogram(pool: Pool, histograms: Histograms) -> Document:
    """Frames over steps as shares of each bucket between the overall lowest and highest value."""
    frames = np.unique(np.linspace(0, len(histograms.steps) - 1, FRAMES).round().astype(int))
    low, high = _bounds(histograms)
    edges = np.linspace(low, high, BUCKETS + 1)
    shares = np.concatenate([_shares(histograms, frame, edges) for frame in frames])
    return {
        "tag": pool.name(histograms.tag),
        "steps": histograms.steps[frames].tolist(),
        "low": low,
        "high": high,
        "shares": _base64(np.rint(shares * 255), "u1"),
    }


def _bounds(histograms: Histograms) -> tuple[float, float]:
    used = histograms.counts > 0
    ends = np.concatenate([histograms.edges_left[used], histograms.edges_right[used]])
    lows, highs = histograms.minimum, histograms.maximum
    ends = ends[np.isfinite(ends) & (np.abs(ends) < 1e300)]
    known = [*lows[np.isfinite(lows)], *highs[np.isfinite(highs)]] or [*ends] or [0.0]
    low, high = float(min(known)), float(max(known))
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _shares(histograms: Histograms, frame: int, edges: FloatArray) -> FloatArray:
    """The frame's share of elements in each bucket, the fullest bucket scaled to one."""
    inside = slice(int(histograms.offsets[frame]), int(histograms.offsets[frame + 1]))
    counts = np.nan_to_num(histograms.counts[inside])
    left = np.clip(np.nan_to_num(histograms.edges_left[inside]), edges[0], edges[-1])
    right = np.clip(np.nan_to_num(histograms.edges_right[inside]), edges[0], edges[-1])
    total = np.zeros(len(edges) - 1)
    for a, b, n in zip(left, right, counts, strict=True):
        if n > 0:
            overlap = np.clip(np.minimum(b, edges[1:]) - np.maximum(a, edges[:-1]), 0, None)
            if overlap.sum() > 0:
                total += n * overlap / overlap.sum()
            else:
                total[min(len(total) - 1, int(np.searchsorted(edges, a, "right")) - 1)] += n
    return total / total.max() if total.max() > 0 else total
