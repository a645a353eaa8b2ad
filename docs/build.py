"""Build the documentation site: the pages of this folder, the README, one page per diagnosis with a real plot.

usage: python docs/build.py OUT     needs the extra ``docs``; offline; every internal link is checked
"""

from __future__ import annotations

import io
import re
import shutil
import sys
import tempfile
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

from sphinx.cmd.build import build_main

import analyzer
from analyzer.features import specs
from analyzer.model import Finding, Rule, RunReport
from analyzer.report.figure import figure, quietly
from analyzer.rulebook import load_rules
from analyzer.rulebook.fill import fill_code
from analyzer.rulebook.pages import NAMES, page

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
# Chapters of the table of contents; every page is in one of them, or Sphinx complains.
CHAPTERS: Mapping[str, tuple[str, ...]] = {
    "Use": ("diagnoses", "reports", "checkpoints", "audit", "python", "ci", "remote"),
    "Your own rules": ("writing-rules", "rules", "features"),
    "What to expect": (
        "accuracy",
        "formats",
        "checkpoint-statistics",
        "reading-events",
        "reading-tables",
        "scale",
    ),
    "How it is built": ("architecture", "dependencies"),
}


def main(arguments: list[str]) -> int:
    if len(arguments) != 1 or arguments[0].startswith("-"):
        print(__doc__)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder)
        write_source(source)
        return build_main(["-q", "-W", "--keep-going", "-b", "html", str(source), arguments[0]])


def write_source(source: Path) -> None:
    """All pages, written and generated, as Sphinx wants them."""
    for file in HERE.iterdir():
        if file.suffix in (".md", ".png", ".py") and file != Path(__file__).resolve():
            shutil.copy(file, source)
    for file in source.glob("*.md"):  # what lies elsewhere in the repository is named, not linked
        text = re.sub(r"\[([^]]+)\]\(\.\./([^)]+)\)", r"`\2`", file.read_text(encoding="utf-8"))
        file.write_text(text, encoding="utf-8")
    (source / "index.md").write_text(start_page(source), encoding="utf-8")
    rules = sorted(load_rules(), key=lambda r: (r.family, r.id))
    (source / "diagnoses").mkdir()
    for rule in rules:
        write_diagnosis(rule, source / "diagnoses")
    table = (HERE / "diagnoses.md").read_text(encoding="utf-8")
    table = re.sub(r"^\| `([a-z0-9-]+)` \|", r"| [`\1`](diagnoses/\1.md) |", table, flags=re.MULTILINE)
    (source / "diagnoses.md").write_text(
        table + contents("", [f"diagnoses/{r.id}" for r in rules]), encoding="utf-8"
    )


def start_page(source: Path) -> str:
    """The README, its links as seen from the site, and the table of contents."""
    text = (ROOT / "README.md").read_text(encoding="utf-8").replace("](docs/", "](")
    chapters = [
        contents(title, [name for name in names if (source / f"{name}.md").exists()])
        for title, names in CHAPTERS.items()
    ]
    return text + "".join(chapters)


def contents(title: str, names: Iterable[str]) -> str:
    caption = f":caption: {title}\n" if title else ""
    return f"\n```{{toctree}}\n:hidden:\n{caption}\n" + "\n".join(names) + "\n```\n"


@cache
def stories() -> tuple[RunReport, ...]:
    """The sample runs, diagnosed."""
    return analyzer.analyze(ROOT / "sample_logs").runs


def write_diagnosis(rule: Rule, folder: Path) -> None:
    shows_first = (run for run in stories() if run.findings and run.findings[0].rule == rule.id)
    shows = (run for run in stories() if rule.id in {finding.rule for finding in run.findings})
    story = next(shows_first, None) or next(shows, None)
    (folder / f"{rule.id}.md").write_text(diagnosis(rule, story), encoding="utf-8")
    if story:
        (folder / f"{rule.id}.svg").write_bytes(plot(story))


def diagnosis(rule: Rule, story: RunReport | None) -> str:
    """Causes and remedies as the sample run's finding words them, where there is one."""
    shown = next((f for f in story.findings if f.rule == rule.id), None) if story else None
    causes = shown.causes if shown else rule.causes
    remedies = [
        f"### {i}. {r.title}\n\n{r.text}\n\n{snippets(r.snippets)}"
        for i, r in enumerate(shown.remedies if shown else rule.remedies, 1)
    ]
    parts = [
        f"# {rule.id}",
        f"**{rule.title}.** Severity {rule.severity}; speaks of a {rule.scope}.",
        f":::{{admonition}} Why it matters\n{rule.why}\n:::",
        example(rule.id, shown) if shown else "",
        "## Likely causes\n\n" + bullets(cause.text for cause in causes) if causes else "",
        "## What to do",
        *remedies,
        "## When it may be wrong\n\n" + bullets(rule.false_positives),
        f"## Conditions and thresholds\n\n```text\n{conditions(rule)}\n```",
        "## References\n\n" + bullets(f"<{reference}>" for reference in rule.references),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def example(rule: str, finding: Finding) -> str:
    return (
        f"## What it looks like\n\n![Curves of a run with {rule}, the evidence marked]({rule}.svg)\n\n"
        f"A sample run of a small model: *{finding.summary}*. What follows has its values filled in."
    )


def snippets(by_framework: Mapping[str, str]) -> str:
    """One tab per framework, with default values filled in."""
    tabs = [
        f":::{{tab-item}} {NAMES.get(framework, framework)}\n```python\n{fill_code(code, {}, specs()).rstrip()}\n```\n:::"
        for framework, code in by_framework.items()
    ]
    return "::::{tab-set}\n" + "\n".join(tabs) + "\n::::"


def conditions(rule: Rule) -> str:
    """The part of the rule's page in text that says when it fires."""
    wanted = ("Applies when", "Fires when", "Thresholds", "Measured")
    return "\n\n".join(section for section in page(rule, specs()).split("\n\n") if section.startswith(wanted))


def bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def plot(story: RunReport) -> bytes:
    """The run's curves with the evidence drawn on them, as SVG."""
    buffer = io.BytesIO()
    quietly(figure(story).savefig, buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
