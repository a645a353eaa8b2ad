"""The report as GitHub-flavoured Markdown, for a pull request or a notebook."""

from __future__ import annotations

import re
from collections.abc import Iterable

from analyzer.model import Finding, LikelyCause, Problem, Remedy, Report, RunReport
from analyzer.report import comparison, curves, layers, wording
from analyzer.report.escape import clip, plain, plain_block
from analyzer.report.sparkline import sparkline

NAME = "markdown"
SUFFIX = ".md"
TABLE_ROWS = 100
IN_FULL = 20  # runs with findings that are shown in full
LAYER_ROWS = 20
NAME_LENGTH = 120
_STRUCTURE = re.compile(r"([\\`*_{}\[\]<>|~#$&!])")
_LINK = re.compile(r"(?i)(?<=[a-z])(://)|\b(www)\.")
_BLOCK = re.compile(r"^(\s*)([-+=]|\d+[.)])")
_LANGUAGES = ("python", "pytorch", "lightning", "keras", "transformers")


def render(report: Report, **_: object) -> str:
    shown = [r for r in report.runs if r.findings or r.problems or r.layers][:IN_FULL]
    parts = ["# Training report", f"**{wording.headline(report)}**"]
    if report.runs:
        parts.append(_table(report))
    for run in shown:
        parts += _run(run)
    rest = sum(1 for r in report.runs if r.findings) - sum(1 for r in shown if r.findings)
    if rest:
        parts.append(f"{wording.counted(rest, 'more run')} with findings in the table only.")
    for title, sentences in comparison.sections(report.insight) if report.insight else ():
        parts += [f"## {title}", "\n".join(f"- {prose(sentence)}" for sentence in sentences)]
    if report.problems:
        parts += ["## Problems", _problems(report.problems)]
    return "\n\n".join(parts) + "\n"


def prose(text: str) -> str:
    """The text as one line that is nothing but text: no markup, link, mention or HTML."""
    flat = _STRUCTURE.sub(r"\\\1", plain(text))
    flat = _LINK.sub(lambda m: r"\://" if m[1] else rf"{m[2]}\.", flat)
    flat = flat.replace("@", "@\u2060")  # a word joiner: what follows is no longer a user's name
    return _BLOCK.sub(r"\1\\\2", flat)


def code(text: str) -> str:
    """The text as a code span, fenced by more backticks than it holds; safe in a table's cell."""
    flat = clip(plain(text), NAME_LENGTH)
    fence = "`" * (_longest_backticks(flat) + 1)
    padded = f" {flat} " if flat.startswith(("`", " ")) or flat.endswith(("`", " ")) or not flat else flat
    return f"{fence}{padded}{fence}".replace("|", "\\|")


def block(text: str, language: str = "") -> str:
    """The text as a fenced block."""
    body = plain_block(text).strip("\n")
    fence = "`" * max(3, _longest_backticks(body) + 1)
    return f"{fence}{language}\n{body}\n{fence}"


def _longest_backticks(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)


def _table(report: Report) -> str:
    lines = ["| verdict | run | top finding | main curve | points |", "|---|---|---|---|--:|"]
    for run in report.runs[:TABLE_ROWS]:
        main = curves.main_curve(run.run)
        spark = sparkline(curves.ordered(main)[1], 16) if main else ""
        verdict = f"{wording.ICONS[run.verdict]} {wording.VERDICT_WORDS[run.verdict]}"
        top = prose(run.findings[0].title) if run.findings else "–"
        points = wording.number(wording.points(run))
        lines.append(f"| {verdict} | {code(run.run.name)} | {top} | {spark} | {points} |")
    if len(report.runs) > TABLE_ROWS:
        lines.append(f"| | and {len(report.runs) - TABLE_ROWS} more | | | |")
    return "\n".join(lines)


def _run(run: RunReport) -> list[str]:
    name = code(run.run.name).replace("\\|", "|")  # a heading is no table
    parts = [f"## {wording.ICONS[run.verdict]} {name}"]
    for finding, explained in wording.nested(run.findings):
        parts += _finding(finding)
        if explained:
            parts.append("\n".join(_explained(child) for child in explained))
    if run.layers:
        parts.append(_layers(run))
    if run.not_applicable:
        parts.append(f"_{prose(wording.not_checked(run))}_")
    if wording.unmapped(run):
        parts.append(f"_{prose(wording.unmapped(run))}_")
    if run.problems:
        parts += ["**Problems while reading**", _problems(run.problems)]
    return parts


def _finding(finding: Finding) -> list[str]:
    facts = [wording.scope(finding), wording.step_range(finding.steps)]
    facts.append(f"{wording.percent(finding.confidence)} confidence")
    sign = f"{wording.ICONS[finding.severity]} {finding.severity}"
    rule = code(finding.rule).replace("\\|", "|")
    parts = [f"### {sign}: {prose(finding.title)}", f"{prose(', '.join(filter(None, facts)))} · {rule}"]
    parts.append(prose(finding.summary))
    if finding.evidence:
        parts.append(_evidence(finding))
    if finding.causes:
        parts += ["**Possible causes** (hypotheses)", "\n".join(map(_cause, finding.causes))]
    for remedy in finding.remedies:
        parts.append(_remedy(remedy))
    if finding.false_positives:
        parts.append("\n".join(f"- False alarm when: {prose(text)}" for text in finding.false_positives))
    return parts


def _explained(finding: Finding) -> str:
    return f"- explains {finding.severity}: **{prose(finding.title)}**: {prose(finding.summary)}"


def _evidence(finding: Finding) -> str:
    lines = ["| measurement | value | threshold |", "|---|--:|--:|"]
    for e in finding.evidence:
        sign = wording.OPERATORS.get(e.op, prose(e.op))
        lines.append(
            f"| {code(e.feature)} | {wording.number(e.value)} | {sign} {wording.number(e.threshold)} |"
        )
    return "\n".join(lines)


def _cause(cause: LikelyCause) -> str:
    reasons = f" ({prose('; '.join(cause.evidence))})" if cause.evidence else ""
    return f"- {wording.percent(cause.likelihood)} {prose(cause.text)}{reasons}"


def _remedy(remedy: Remedy) -> str:
    """One remedy, its snippets folded away: a report in a pull request has to stay short."""
    lines = [f"**Try: {prose(remedy.title)}** ({prose(remedy.effort)} effort)"]
    if remedy.text:
        lines.append(prose(remedy.text))
    for name, snippet in remedy.snippets.items():
        language = "python" if name in _LANGUAGES else ""
        summary = _html(wording.framework(name))
        folded = f"<details><summary>{summary}</summary>\n\n{block(snippet, language)}\n\n</details>"
        lines.append(folded)
    return "\n\n".join(lines)


def _layers(run: RunReport) -> str:
    lines = [
        "| tensor | shape | mean | std | min | max | zeros | NaN, Inf |",
        "|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    ranked = layers.worst_first(layers.final_weights(run.layers))
    for layer in ranked[:LAYER_ROWS]:
        numbers = (wording.number(v) for v in (layer.mean, layer.std, layer.min, layer.max))
        shape = "×".join(map(str, layer.shape)) or "scalar"
        zeros = wording.percent(layers.share(layer.zeros, layer))
        cells = [code(layers.label(layer)), shape, *numbers, zeros, str(layer.nan + layer.inf)]
        lines.append(f"| {' | '.join(cells)} |")
    if len(ranked) > LAYER_ROWS:
        lines.append(f"| and {len(ranked) - LAYER_ROWS} more | | | | | | | |")
    return "\n".join(lines)


def _problems(problems: Iterable[Problem]) -> str:
    return "\n".join(
        f"- {prose(clip(p.path, NAME_LENGTH))}: {prose(p.message)} ({prose(p.kind)})" for p in problems
    )


def _html(text: str) -> str:
    import html

    return html.escape(clip(plain(text), NAME_LENGTH)).replace("@", "@\u2060")
