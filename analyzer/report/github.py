"""The report as workflow commands: GitHub shows them as annotations of the job that printed them."""

from __future__ import annotations

from collections.abc import Iterator

from analyzer.model import Finding, Problem, Report, RunReport
from analyzer.report import wording
from analyzer.report.escape import clip, plain

NAME = "github"
SUFFIX = ".github.txt"
LEVELS = {"critical": "error", "warning": "warning", "info": "notice"}
TITLE, MESSAGE = 120, 1000  # characters


def render(report: Report, **_: object) -> str:
    """Worst first, since GitHub shows ten of each level; the headline last, as plain output."""
    findings = [(f, r) for r in report.runs for f, _ in wording.nested(r.findings)]
    ranked = sorted(findings, key=lambda pair: list(LEVELS).index(pair[0].severity))
    lines = [_annotation(finding, run) for finding, run in ranked]
    lines += [*map(_problem, report.problems), wording.headline(report)]
    return "\n".join(lines) + "\n"


def _annotation(finding: Finding, run: RunReport) -> str:
    title = f"{run.run.name}: {finding.title} [{finding.rule}]"
    return _command(LEVELS[finding.severity], title, ". ".join(_sentences(finding)))


def _sentences(finding: Finding) -> Iterator[str]:
    where = ", ".join(filter(None, (wording.scope(finding), wording.step_range(finding.steps))))
    yield finding.summary.rstrip(".") + (f" ({where})" if where else "")
    if finding.remedies:
        yield f"Try: {finding.remedies[0].title}"
    yield f"Confidence {wording.percent(finding.confidence)}"


def _problem(problem: Problem) -> str:
    level = "notice" if problem.kind in wording.REMARKS else "warning"
    return _command(level, f"{problem.path} ({problem.kind})", problem.message)


def _command(level: str, title: str, message: str) -> str:
    return f"::{level} title={_property(clip(plain(title), TITLE))}::{_data(clip(plain(message), MESSAGE))}"


def _data(text: str) -> str:
    """A command's message: one line, whatever it holds."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
