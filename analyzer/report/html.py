"""The report as one HTML file: no network, no scripts but its own, readable without any."""

from __future__ import annotations

import base64
import hashlib
from importlib import resources
from typing import TYPE_CHECKING, Any

from analyzer.model import Evidence, LayerStats, Report, RunReport, Verdict
from analyzer.report import charts, layers, wording
from analyzer.report.escape import clip, plain_block

if TYPE_CHECKING:
    from jinja2 import Template

NAME = "html"
SUFFIX = ".html"
OPEN = 3  # runs unfolded when the page opens
MANY = 200  # runs; beyond it the healthy ones get small charts
ROWS = 200  # of a long list or table; the rest is counted
NAME_LENGTH = 200  # characters of a name; its middle is cut out


def render(report: Report, *, title: str = "Training report", **_: object) -> str:
    css, script = _asset("report.css"), _asset("report.js")
    return _template().render(
        title=title,
        css=_markup(css),
        script=_markup(script),
        policy=_policy(css, script),
        report=report,
        headline=_headline(report),
        worst=_worst(report),
        counts={k: n for k, n in wording.verdict_counts(report).items() if n},
        runs=_runs(report),
    )


def _runs(report: Report) -> list[dict[str, Any]]:
    many = len(report.runs) > MANY
    return [_run(run, index, len(report.runs), many) for index, run in enumerate(report.runs, start=1)]


def _run(report: RunReport, index: int, total: int, many: bool) -> dict[str, Any]:
    healthy = report.verdict in ("healthy", "not-assessed")
    run = report.run
    return {
        "index": index,
        "name": run.name,
        "path": run.path,
        "verdict": report.verdict,
        "rank": wording.VERDICTS.index(report.verdict),
        "top": report.findings[0].title if report.findings else "",
        "size": wording.size(report),
        "points": wording.points(report),
        "open": index <= OPEN and (total <= OPEN or not healthy),
        "thumbnail": _markup(charts.thumbnail(report)),
        "panels": charts.run_panels(report, compact=many and healthy),
        "findings": wording.nested(report.findings),
        "count": len(report.findings),
        "layers": layers.worst_first(layers.final_weights(report.layers)),
        "not_checked": wording.not_checked(report),
        "not_applicable": report.not_applicable,
        "problems": report.problems,
        "unmapped": sorted({s.tag for s in run.series if not s.role}),
        "hyperparameters": dict(sorted(run.hyperparameters.items())),
    }


def _headline(report: Report) -> str:
    """The verdict in a sentence."""
    total, worst = len(report.runs), _worst(report)
    if not total:
        return "No run was found"
    if total == 1:
        return f"The run {_ONE[worst]}"
    count = wording.verdict_counts(report)[worst]
    if worst == "critical":
        return f"{count} of {total} runs {'has' if count == 1 else 'have'} a critical finding"
    return f"{count} of {total} runs would gain from a change" if worst == "warning" else _MANY[worst]


_ONE: dict[Verdict, str] = {
    "critical": "has a critical finding",
    "warning": "would gain from a change",
    "info": "needs no change",
    "healthy": "looks healthy",
    "not-assessed": "logged too little to be judged",
}
_MANY: dict[Verdict, str] = {
    "info": "Nothing that calls for a change",
    "healthy": "Nothing that calls for a change",
    "not-assessed": "Too little was logged to judge",
}


def _worst(report: Report) -> Verdict:
    return next((v for v, n in wording.verdict_counts(report).items() if n), "not-assessed")


def _policy(css: str, script: str) -> str:
    """A content security policy under which nothing but these two texts has any effect."""
    parts = (
        "default-src 'none'",
        f"style-src '{_digest(css)}'",
        f"script-src '{_digest(script)}'",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
    )
    return "; ".join(parts)


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _asset(name: str) -> str:
    return resources.files("analyzer.report").joinpath("assets", name).read_text(encoding="utf-8")


def _template() -> Template:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, finalize=_shown, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(
        number=wording.number,
        percent=wording.percent,
        beyond=_beyond,
        comparison=wording.comparison,
        scope=wording.scope,
        steps=wording.step_range,
        framework=wording.framework,
        name=lambda text: clip(text, NAME_LENGTH),
        safe_link=_is_link,
        markup=_markup,
        label=layers.label,
        shape=_shape,
        word=wording.VERDICT_WORDS.__getitem__,
        icon=wording.ICONS.__getitem__,
    )
    environment.globals.update(ROWS=ROWS, operators=wording.OPERATORS)
    return environment.from_string(_asset("report.html.j2"))


def _shown(value: object) -> object:
    """Whatever a template prints: text with its hidden characters spelled out, markup as it is."""
    from markupsafe import Markup

    return plain_block(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _markup(text: str) -> str:
    """Marks our own, already escaped HTML as such."""
    from markupsafe import Markup

    return Markup(text)


def _beyond(evidence: Evidence) -> str:
    margin = evidence.margin
    return f"+{wording.percent(margin)}" if 0 < margin < 100 else "far" if margin >= 100 else "at it"


def _is_link(text: str) -> bool:
    return text.startswith(("https://", "http://"))


def _shape(layer: LayerStats) -> str:
    return "×".join(map(str, layer.shape)) or "scalar"
