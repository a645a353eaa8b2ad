"""The page of an audit: ten thousand runs in one file that opens at once, details unpacked on demand.

The index holds a few facts of each run in columns; the details are compressed in chunks. Where all that
is more than a browser likes, the details of the less sick runs go to further pages of the same kind.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeGuard

import numpy as np

from analyzer.model import Association, Cohort, Insight, Member, Prevalence, Problem, Scalar
from analyzer.report import comparison, wording
from analyzer.report.escape import clip, plain_block
from analyzer.report.html import markup, policy, scripts, styles, template

VERDICTS = wording.VERDICTS
CHUNK = 50  # runs whose details are unpacked together
MOST_BYTES = 9_500_000  # of one page
MOST_ROWS = 20_000  # of the table
BARS, FIRST_BARS, COHORTS, STRIPS, PROBLEMS, SUMMARIES = 60, 12, 30, 6, 500, 50
CURVES = 3  # of a run
EVIDENCE, CAUSES, REMEDIES = 6, 3, 4  # of a finding
THUMB = 24  # columns
DOTS = 300  # of one strip
CLIPPED = 300  # characters of a text from a file
DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

Document = Mapping[str, Any]


@dataclass(slots=True)
class Packed:
    """Runs in columns, their details in chunks, and the rules they speak of."""

    columns: dict[str, list[Any]] = field(
        default_factory=lambda: {
            key: [] for key in ("name", "verdict", "rules", "steps", "hours", "wasted", "thumb")
        }
    )
    chunks: list[str] = field(default_factory=list)
    rules: dict[str, int] = field(default_factory=dict)

    def rule(self, finding: Document) -> int:
        """The number of a finding's rule, whose name is kept once."""
        return self.rules.setdefault(finding["rule"], len(self.rules))


def pack(runs: Iterable[tuple[Member, Document]]) -> Packed:
    """What the page says of each run, worst first as they come."""
    packed = Packed()
    chunk: list[Any] = []
    for member, document in runs:
        _add_row(packed, member, document)
        chunk.append(_details(packed, document))
        if len(chunk) == CHUNK:
            packed.chunks.append(_compressed(chunk))
            chunk = []
    if chunk:
        packed.chunks.append(_compressed(chunk))
    return packed


def _add_row(packed: Packed, member: Member, document: Document) -> None:
    findings = document["findings"]
    row = {
        "name": _text(document["name"]),
        "verdict": VERDICTS.index(document["verdict"]),
        "rules": list(dict.fromkeys(packed.rule(f) for f in findings)),
        "steps": _short(member.steps),
        "hours": _short(member.hours),
        "wasted": _short(member.waste.share, 3) if member.waste else None,
        "thumb": thumbnail(document["sketches"][0]) if document["sketches"] else "",
    }
    for key, value in row.items():
        packed.columns[key].append(value)


def _details(packed: Packed, document: Document) -> list[Any]:
    return [
        _text(document["path"]),
        [_finding(packed, finding) for finding in document["findings"]],
        len(document["not_applicable"]),
        [_text(f"{p['path']}: {p['message']}") for p in document["problems"][:20]],
        [[_text(key), _text(value) if isinstance(value, str) else value] for key, value in document["hyperparameters"].items()][:60],
        [_curve(sketch) for sketch in document["sketches"][:CURVES]],
    ]  # fmt: skip


def _finding(packed: Packed, finding: Document) -> list[Any]:
    steps = finding["steps"]
    causes = sorted(finding["causes"], key=lambda cause: -(cause["likelihood"] or 0.0))
    return [
        packed.rule(finding),
        VERDICTS.index(finding["severity"]),
        round(finding["confidence"] or 0.0, 2),
        _text(finding["title"]),
        _text(finding["summary"]),
        wording.step_range((steps["from"], steps["to"])) if steps else "",
        [_text(evidence["text"]) for evidence in finding["evidence"][:EVIDENCE]],
        [[_text(cause["text"]), round(cause["likelihood"] or 0.0, 2)] for cause in causes[:CAUSES]],
        [_text(remedy["title"]) for remedy in finding["remedies"][:REMEDIES]],
        finding["explained_by"],
    ]


def _curve(sketch: Document) -> list[Any]:
    steps, values = _finite(sketch)
    if not len(values):
        return [sketch["role"], _text(sketch["tag"]), None, None, None, None, ""]
    ends = [float(end) for end in (values.min(), values.max(), steps[0], steps[-1])]
    across = _levels(steps, ends[2], ends[3], 4095)
    up = _levels(values, ends[0], ends[1], 4095)
    points = "".join(DIGITS[n >> 6] + DIGITS[n & 63] for point in zip(across, up, strict=True) for n in point)
    return [sketch["role"], _text(sketch["tag"]), *ends, points]


def thumbnail(sketch: Document) -> str:
    """One digit for the mean height of each of 24 stretches of a curve, a space where there is none."""
    steps, values = _finite(sketch)
    if not len(values):
        return ""
    column = np.array(_levels(steps, float(steps[0]), float(steps[-1]), THUMB - 1))
    heights = np.array(_levels(values, float(values.min()), float(values.max()), 63))
    sums, counts = np.bincount(column, heights, THUMB), np.bincount(column, minlength=THUMB)
    filled = np.flatnonzero(counts)
    means = np.interp(np.arange(THUMB), filled, sums[filled] / counts[filled], right=-1.0)
    return "".join(DIGITS[int(mean)] if mean >= 0 else " " for mean in means.tolist()).rstrip()


def _finite(sketch: Document) -> tuple[np.ndarray, np.ndarray]:
    steps, values = np.array(sketch["steps"], np.float64), np.array(sketch["values"], np.float64)
    kept = np.isfinite(steps) & np.isfinite(values)
    return steps[kept], values[kept]


def _levels(values: np.ndarray, low: float, high: float, top: int) -> list[int]:
    span = high - low
    if not 0 < span < np.inf:
        return [top // 2] * len(values)
    found: list[int] = np.clip((values - low) / span * top, 0, top).round().astype(int).tolist()
    return found


def _short(value: float | None, digits: int = 4) -> float | None:
    return None if value is None or not np.isfinite(value) else float(f"{value:.{digits}g}")


def _text(text: str) -> str:
    return clip(plain_block(text), CLIPPED)


def _compressed(chunk: Sequence[Any]) -> str:
    return base64.b64encode(zlib.compress(json.dumps(chunk, separators=(",", ":")).encode(), 9)).decode(
        "ascii"
    )


# --------------------------------------------------------------------------- pages


@dataclass(frozen=True, slots=True)
class Head:
    """What the page says above the table."""

    title: str
    headline: str
    work: str
    counts: Mapping[str, int]
    insight: Insight
    members: Sequence[Member]  # worst first
    problems: Sequence[Problem]
    version: str


def pages(head: Head, packed: Packed, stem: str) -> Iterator[tuple[str, str]]:
    """(name, text) of the index, then of the pages with the details it has no room for."""
    room = MOST_BYTES - len(_embedded(_data(packed, 0, len(packed.columns["name"]), [], [])))
    own = _fitting(packed.chunks, 0, room)
    names, bounds = [], []
    first = own
    while first < len(packed.chunks):
        count = max(1, _fitting(packed.chunks, first, MOST_BYTES // 2))
        bounds.append((first, first + count))
        names += [f"{stem}_runs/part-{len(bounds):03}.html"] * count
        first += count
    everything = (0, len(packed.columns["name"]))
    yield f"{stem}.html", _page(head, _data(packed, *everything, packed.chunks[:own], [""] * own + names))
    for number, (first, last) in enumerate(bounds, start=1):
        runs = (first * CHUNK, min(last * CHUNK, everything[1]))
        part = f"{stem}_runs/part-{number:03}.html"
        yield part, _page(head, _data(packed, *runs, packed.chunks[first:last], []), whole=False)


def _fitting(chunks: Sequence[str], first: int, room: int) -> int:
    """How many chunks from ``first`` on go into so many bytes."""
    sizes = np.cumsum([len(chunk) + 3 for chunk in chunks[first:]])
    return int(np.searchsorted(sizes, room, side="right"))


def _data(
    packed: Packed, first: int, last: int, chunks: Sequence[str], elsewhere: Sequence[str]
) -> dict[str, Any]:
    return {
        "icons": wording.ICONS,
        "words": wording.VERDICT_WORDS,
        "verdicts": VERDICTS,
        "rule": list(packed.rules),
        **{key: column[first:last] for key, column in packed.columns.items()},
        "chunk": CHUNK,
        "chunks": chunks,
        "elsewhere": elsewhere,
        "first": first,
    }


def _embedded(data: Mapping[str, Any]) -> str:
    """As JSON that cannot end the element it is in."""
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False)
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return (
        text.replace("<", "\\u003c")
        .replace(">", "\\u003e")
        .replace("\u2028", "\\u2028")
        .replace("\u2029", "\\u2029")
    )


def _page(head: Head, data: Mapping[str, Any], whole: bool = True) -> str:
    css = styles(("page/theme", "page/page", "audit/audit"))
    script = scripts(("audit/packed", "page/elements", "page/theme", "audit/runs", "audit/drawer"))
    insight = head.insight
    shown = len(data["name"])
    text: str = template("audit/audit").render(
        title=head.title,
        headline=head.headline,
        work=head.work,
        worst=next((v for v in VERDICTS if head.counts.get(v)), "not-assessed"),
        counts={v: head.counts[v] for v in VERDICTS if head.counts.get(v)},
        policy=policy(css, script),
        css=markup(css),
        script=markup(script),
        data=markup(_embedded(data)),
        prevalence=_bars(insight.prevalence[:BARS]) if whole else [],
        first_bars=FIRST_BARS,
        sections=comparison.sections(insight) if whole else [],
        strips=list(_strips(insight, head.members)) if whole else [],
        cohorts=[_cohort(c) for c in insight.cohorts[:COHORTS]] if whole else [],
        more_cohorts=max(0, len(insight.cohorts) - COHORTS),
        left_out=whole and shown < sum(head.counts.values()),
        shown=shown,
        summaries=[_summary(member) for member in head.members[:SUMMARIES]],
        problems=head.problems[:PROBLEMS] if whole else [],
        problem_count=len(head.problems),
        version=head.version,
    )
    return text


def _bars(prevalence: Sequence[Prevalence]) -> list[dict[str, Any]]:
    """Each finding's share in words, and as a bar: the most frequent one's is full."""
    most = max((found.runs for found in prevalence), default=1)
    return [
        {
            "rule": found.rule,
            "severity": found.severity,
            "runs": found.runs,
            "of": found.of,
            "share": f"{found.runs / found.of:.1%}",
            "width": f"{100 * found.runs / most:.2f}",
        }
        for found in prevalence
    ]


def _cohort(cohort: Cohort) -> dict[str, Any]:
    common = [f"{p.rule} ({wording.percent(p.runs / p.of)})" for p in cohort.prevalence[:3]]
    best = cohort.winners[0] if cohort.winners else None
    return {
        "runs": len(cohort.runs),
        "example": cohort.runs[0],
        "varying": ", ".join(cohort.varying[:6]) + (", …" if len(cohort.varying) > 6 else "")
        or "nothing that was logged, seeds apart",
        "findings": ", ".join(common) or "none",
        "best": f"{best.run}: {best.metric} {wording.number(best.value)}" if best else "–",
    }


def _summary(member: Member) -> dict[str, str]:
    return {
        "name": member.name,
        "verdict": member.verdict,
        "rules": ", ".join(rule for rule, _ in member.findings) or "no finding",
    }


# --------------------------------------------------------------------------- associations drawn


def _strips(insight: Insight, members: Sequence[Member]) -> Iterator[dict[str, Any]]:
    """A dot a run for the hyperparameters that separate the runs with a finding from those without."""
    by_name = {member.name: member for member in members}
    drawn = [(a, c) for c in insight.cohorts for a in c.associations if not a.value]
    for found, cohort in drawn[:STRIPS]:
        yield from _strip(found, [by_name[name] for name in cohort.runs if name in by_name])


def _strip(found: Association, members: Sequence[Member]) -> Iterator[dict[str, Any]]:
    valued = [(m, m.hyperparameters.get(found.hyperparameter)) for m in members]
    known = [(m, float(value)) for m, value in valued if _is_number(value)]
    values = np.array([value for _, value in known])
    if len(values) < 2 or values.min() == values.max():
        return
    logarithmic = bool(values.min() > 0 and values.max() / values.min() > 30)
    places = np.log(values) if logarithmic else values
    places = 75 + 215 * (places - places.min()) / (places.max() - places.min())
    has = [_has(member, found.rule) for member, _ in known]
    what = found.rule or "any finding"
    yield {
        "title": f"{found.hyperparameter} of runs with and without {what}"
        + (" (logarithmic)" if logarithmic else ""),
        "low": wording.number(float(values.min())),
        "high": wording.number(float(values.max())),
        "rows": [
            _row(
                label, y, verdict, [x for x, sick in zip(places.tolist(), has, strict=True) if sick == wanted]
            )
            for label, y, verdict, wanted in (
                ("with", 16, "critical", True),
                ("without", 44, "healthy", False),
            )
        ],
    }


def _is_number(value: Scalar) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and np.isfinite(value)


def _has(member: Member, rule: str) -> bool:
    if not rule:
        return member.verdict in ("critical", "warning")
    return any(held == rule and severity != "info" for held, severity in member.findings)


def _row(label: str, y: int, verdict: str, places: Sequence[float]) -> dict[str, Any]:
    """A row of dots, those at one place spread a little up and down."""
    every = -(-len(places) // DOTS) or 1
    dots = [{"x": f"{x:.1f}", "y": y + (k * 7) % 19 - 9} for k, x in enumerate(places[::every])]
    return {"label": label, "y": y, "verdict": verdict, "dots": dots}
