"""Markdown, JUnit and CSV: the same findings, and text of files that stays text."""

from __future__ import annotations

import csv
import io
import re
from importlib import import_module
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote
from xml.etree import ElementTree

import pytest
import report_fixtures as fixtures
from markdown_it import MarkdownIt

import analyzer.report
from analyzer.model import Problem, Report, Run, RunReport
from analyzer.report import formats, render
from analyzer.report.escape import ascii_only, clip, plain

REPORTS = fixtures.every_report()
MARKDOWN = MarkdownIt("gfm-like", {"html": True, "linkify": False})


def test_every_format_is_found_by_its_name() -> None:
    found = formats()
    assert list(found) == ["csv", "github", "html", "json", "junit", "markdown", "pdf", "png", "terminal"]
    assert len({module.SUFFIX for module in found.values()}) == len(found)


def test_a_new_format_is_one_new_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = 'NAME = "count"\nSUFFIX = ".n"\ndef render(report, **_):\n    return str(len(report.runs))\n'
    (tmp_path / "count_report.py").write_text(source)
    monkeypatch.setattr(analyzer.report, "__path__", [*analyzer.report.__path__, str(tmp_path)])
    formats.cache_clear()
    try:
        assert render(REPORTS["mixed"], "count") == "7"
    finally:
        formats.cache_clear()


@pytest.mark.parametrize(
    "module", [m for m in formats().values() if m.NAME not in ("pdf", "png")], ids=lambda m: m.NAME
)
def test_options_of_one_format_do_not_disturb_another(module: ModuleType) -> None:
    assert module.render(REPORTS["one"], width=80, color=False, verbose=False, ascii_only=False)


def test_hidden_characters_are_spelled_out_and_others_kept() -> None:
    assert plain("a\x1b[31m\u202eb\u200b\x9b") == r"a\x1b[31m\u202eb\u200b\x9b"
    assert plain("naïve 名前 👩‍💻 café") == "naïve 名前 👩‍💻 café"
    assert ascii_only("≥ 0.5 → é") == r">= 0.5 -> \xe9"
    assert clip("abcdefghij", 5) == "ab…ij" and clip("abc", 5) == "abc"


# Markdown


def tokens(text: str) -> list[tuple[str, str]]:
    """(type, content) of every token of the document, those inside paragraphs too."""
    found = []
    for token in MARKDOWN.parse(text):
        found.append((token.type, token.content))
        found += [(child.type, child.content) for child in token.children or []]
    return found


def test_markdown_tells_the_findings() -> None:
    text = render(REPORTS["mixed"], "markdown")
    assert "**7 runs: 2 critical, 1 warning, 2 healthy, 2 not assessed**" in text
    assert "### ✖ critical: Training loss became NaN" in text
    assert "| `val_loss.rise_from_min` | 0.42 | ≥ 0.05 |" in text
    assert "- 70% No regularisation is switched on (weight\\_decay is 0)" in text
    assert "```python\nbest = float('inf')" in text
    assert "- explains info: **62 % of the run came after its best point**" in text


@pytest.mark.parametrize("text", fixtures.HOSTILE)
def test_hostile_text_makes_no_markdown(text: str) -> None:
    hostile = tokens(render(fixtures.report(fixtures.hostile_report(text)), "markdown"))
    harmless = tokens(render(fixtures.report(fixtures.hostile_report("harmless")), "markdown"))
    ours = ("text", "text_special")  # escaped characters split a text
    assert [k for k, _ in hostile if k not in ours] == [k for k, _ in harmless if k not in ours]
    folds = re.compile(r"<details><summary>[^<>]*</summary>|</details>")
    html = [content for kind, content in hostile if kind.startswith("html")]
    assert all(not folds.sub("", content).strip() for content in html)


@pytest.mark.parametrize("name", REPORTS)
def test_markdown_tables_keep_their_columns(name: str) -> None:
    for row in re.findall(r"^\|.*\|$", render(REPORTS[name], "markdown"), re.M):
        cells = len(re.findall(r"(?<!\\)\|", row)) - 1
        assert cells in (3, 5, 8), row


def test_markdown_breaks_links_and_mentions() -> None:
    hostile = "see https://evil.example and www.evil.example, @everyone"
    run = RunReport(Run("r", "r"), "warning", (fixtures.finding(title=hostile),))
    text = render(Report((run,)), "markdown")
    title = next(line for line in text.splitlines() if line.startswith("###"))
    assert "://" not in title.replace("\\://", "") and "www." not in title
    assert "@everyone" not in title


def test_many_runs_stay_short_in_markdown() -> None:
    many = Report(tuple(fixtures.nan_report() for _ in range(150)))
    text = render(many, "markdown")
    assert "130 more runs with findings in the table only." in text
    assert "and 50 more" in text


# JUnit


def suites(report: Report) -> list[ElementTree.Element]:
    return list(ElementTree.fromstring(render(report, "junit").encode()))


@pytest.mark.parametrize("name", REPORTS)
def test_junit_is_valid_xml_whose_counts_add_up(name: str) -> None:
    root = ElementTree.fromstring(render(REPORTS[name], "junit").encode())
    counted = {"tests": "testcase", "failures": "failure", "errors": "error", "skipped": "skipped"}
    for node in [root, *root]:
        for key, tag in counted.items():
            assert int(node.get(key, "-1")) == len(list(node.iter(tag)))


def test_junit_fails_for_what_asks_for_a_change_only() -> None:
    suite = suites(REPORTS["one"])[0]
    results = {case.get("name"): [child.tag for child in case] for case in suite.iter("testcase")}
    assert results == {
        "verdict": ["system-out"],
        "overfitting": ["failure"],
        "no-early-stopping": ["system-out"],
        "dead-relu": ["skipped"],
        "nan-weights": ["skipped"],
    }
    failure = suite.find(".//failure")
    assert failure is not None and failure.get("type") == "warning"
    assert "val_loss.rise_from_min: 0.42 ≥ 0.05" in (failure.text or "")


def test_junit_shows_every_run_and_every_problem() -> None:
    found = suites(REPORTS["mixed"])
    assert [s.get("name") for s in found][-2:] == ["broken", "problems"]
    assert len(found) == 8
    assert found[4].get("failures") == "0" and found[4].get("tests") == "1"
    error = found[-1].find(".//error")
    assert error is not None and error.get("type") == "too-large"


def test_files_that_are_nothing_of_ours_turn_no_build_red() -> None:
    report = Report((), (Problem("runs/README.md", "passed-over", "neither log nor checkpoint"),))
    suite = suites(report)[0]
    assert (suite.get("errors"), suite.get("skipped")) == ("0", "1")
    assert [level for level, *_ in annotations(report)] == ["notice"]


# GitHub's workflow commands


def annotations(report: Report) -> list[tuple[str, str, str]]:
    """(level, title, message) of each, as the runner reads them; every other line is output."""
    found = []
    for line in render(report, "github").splitlines():
        match = re.fullmatch(r"::(\w+) title=([^:,]*)::(.*)", line)
        if match:
            found.append((match[1], unquote(match[2]), unquote(match[3])))
        else:
            assert "::" not in line
    return found


def test_annotations_come_worst_first_and_say_what_to_do() -> None:
    found = annotations(REPORTS["mixed"])
    assert [level for level, _, _ in found] == ["error", "error", "warning", "warning"]
    assert found[0][1] == "fp16-lr3e-3: Training loss became NaN [nan-loss]"
    title, message = found[2][1:]
    assert title.startswith("exp3: Validation loss rises")
    assert "Try: Keep the best checkpoint and stop early" in message and "Confidence 93%" in message
    assert found[3][1] == "runs/huge.csv (too-large)"
    assert render(REPORTS["mixed"], "github").endswith(
        "7 runs: 2 critical, 1 warning, 2 healthy, 2 not assessed\n"
    )


@pytest.mark.parametrize(
    "text", [*fixtures.HOSTILE, "a::error::b", "x\n::error title=owned::y", "100%0A::stop-commands::z"]
)
def test_no_text_becomes_a_command_of_its_own(text: str) -> None:
    hostile = annotations(fixtures.report(fixtures.hostile_report(text)))
    harmless = annotations(fixtures.report(fixtures.hostile_report("harmless")))
    assert [level for level, _, _ in hostile] == [level for level, _, _ in harmless]


# CSV


def rows(report: Report) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(render(report, "csv"))))


def test_csv_has_one_row_per_finding() -> None:
    found = rows(REPORTS["mixed"])
    assert [(r["run"], r["rule"], r["severity"]) for r in found] == [
        ("fp16-lr3e-3", "nan-loss", "critical"),
        ("fp16-lr3e-3", "exploding-gradients", "critical"),
        ("epoch3.pt", "nan-weights", "critical"),
        ("exp3", "overfitting", "warning"),
        ("exp3", "no-early-stopping", "info"),
    ]
    row = found[3]
    assert (row["first_step"], row["last_step"], row["confidence"]) == ("375", "999", "0.93")
    assert row["evidence"].startswith("val_loss.rise_from_min 0.42 >= 0.05; ")
    assert row["remedy"] == "Keep the best checkpoint and stop early"


@pytest.mark.parametrize("text", [*fixtures.HOSTILE, "-2+3", "\t=1", "\r=1", " =1", "＝1", "\n+1"])
def test_no_cell_of_text_is_a_formula(text: str) -> None:
    found = rows(fixtures.report(fixtures.hostile_report(text)))
    assert len(found) == 2
    for row in found:
        for name in ("run", "path", "title", "scope_name", "summary", "cause", "remedy"):
            assert not row[name].lstrip().startswith(("=", "+", "-", "@", "\t", "\r", "＝"))
            assert all(c.isprintable() or c in "\u200c\u200d" for c in row[name])


def test_negative_steps_stay_numbers() -> None:
    run = RunReport(Run("r", "r"), "info", (fixtures.finding(steps=(-5.0, 2.5)),))
    row = rows(Report((run,)))[0]
    assert (row["first_step"], row["last_step"]) == ("-5", "2.5")


def test_no_output_format_loads_a_heavy_library() -> None:
    names = [
        "panels",
        "html_data",
        "figure",
        "pdf",
        "png",
        "github",
        "curves",
        "axes",
        "wording",
        "escape",
        "html",
        "terminal",
        "markdown",
        "junit",
    ]
    heavy = ("torch", "pandas", "scipy", "rich", "jinja2", "matplotlib")
    for name in names:
        module = import_module(f"analyzer.report.{name}")
        assert not {m for m in heavy if m in vars(module)}
