"""The report as one HTML file: no network, no scripts but its own, and a summary without any."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from importlib import resources
from typing import TYPE_CHECKING, Any

from analyzer.model import Report, RunReport, Verdict
from analyzer.report import wording
from analyzer.report.escape import clip, plain_block
from analyzer.report.html_data import NAME_LENGTH, PROBLEMS, embedded

if TYPE_CHECKING:
    from jinja2 import Template

NAME = "html"
SUFFIX = ".html"
DEFAULT_FILE = "report.html"
STYLES = ("theme", "page", "table", "chart", "detail", "paper")
SCRIPTS = (
    "data", "elements", "state", "theme", "scales", "lines", "evidence", "chart", "steering", "code",
    "layers", "detail", "overview", "compare", "main",
)  # fmt: skip
SUMMARIES = 3  # findings of a run that the summary without scripts tells


def render(report: Report, *, title: str = "Training report", **_: object) -> str:
    css = styles(f"page/{name}" for name in STYLES)
    script = scripts(f"page/{name}" for name in SCRIPTS)
    return template("page/page").render(
        title=title,
        css=markup(css),
        script=markup(script),
        data=markup(embedded(report)),
        policy=policy(css, script, "img-src data:"),
        version=report.version,
        headline=_headline(report),
        worst=_worst(report),
        counts={k: n for k, n in wording.verdict_counts(report).items() if n},
        runs=[_summary(run) for run in report.runs],
        problems=report.problems[:PROBLEMS],
    )


def _summary(report: RunReport) -> dict[str, Any]:
    return {
        "name": report.run.name,
        "verdict": report.verdict,
        "findings": report.findings[:SUMMARIES],
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


# --------------------------------------------------------------------------- what every page is made of


def styles(names: Iterable[str]) -> str:
    return "\n".join(_asset(f"{name}.css") for name in names)


def scripts(names: Iterable[str]) -> str:
    return '"use strict";\n(() => {\n' + "\n".join(_asset(f"{name}.js") for name in names) + "})();\n"


def template(name: str) -> Template:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, finalize=shown, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(
        name=lambda text: clip(text, NAME_LENGTH),
        word=wording.VERDICT_WORDS.__getitem__,
        icon=wording.ICONS.__getitem__,
        thousands=lambda count: f"{count:,}",
    )
    return environment.from_string(_asset(f"{name}.html.j2"))


def _asset(name: str) -> str:
    return resources.files("analyzer.report").joinpath("assets", *name.split("/")).read_text(encoding="utf-8")


def policy(css: str, script: str, *more: str) -> str:
    """A content security policy under which nothing but these two texts, and ``more``, has any effect.

    Trusted types are asked for and none is allowed: not even our script can turn text into markup.
    """
    parts = (
        "default-src 'none'",
        f"style-src '{digest(css)}'",
        f"script-src '{digest(script)}'",
        *more,
        "base-uri 'none'",
        "form-action 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
    return "; ".join(parts)


def digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def shown(value: object) -> object:
    """Whatever a template prints: text with its hidden characters spelled out, markup as it is."""
    from markupsafe import Markup

    return plain_block(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def markup(text: str) -> str:
    """Marks our own, already escaped text as such."""
    from markupsafe import Markup

    return Markup(text)
