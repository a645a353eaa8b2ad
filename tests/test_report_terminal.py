"""The terminal report: verdict first, sane at any width, and nothing a file says steers the terminal."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
import report_fixtures as fixtures
from rich.cells import cell_len

from analyzer.model import Evidence, NotApplicable, Problem, Report, Run, RunReport, Series
from analyzer.report import curves, render, wording
from analyzer.report.sparkline import ASCII_BLOCKS, BLOCKS, sparkline
from analyzer.report.terminal import rule_page

REPORTS = fixtures.every_report()
ANSI = re.compile(r"\x1b\[[0-9;]*m")
BIDI = "\u202a\u202b\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f"


def lines(report: Report, **options: object) -> list[str]:
    return render(report, "terminal", **options).splitlines()


def test_verdict_comes_first_and_runs_worst_first() -> None:
    text = lines(REPORTS["mixed"], width=80)
    assert text[0] == "✖ 7 runs: 2 critical, 1 warning, 2 healthy, 2 not assessed"
    table = [line for line in text if re.match(r"[✖▲✔○] (critical|warning|healthy|not assessed) ", line)]
    assert [line.split()[1] for line in table[:3]] == ["critical", "critical", "warning"]
    assert len(table) == 7


def test_a_finding_shows_evidence_causes_and_one_remedy() -> None:
    text = render(REPORTS["one"], "terminal", width=80)
    assert "▲ warning: Validation loss rises while training loss still falls" in text
    assert "· val loss is 42 % above its minimum" in text
    assert "70% No regularisation is switched on" in text
    assert "Try: Keep the best checkpoint and stop early (effort: low)" in text
    assert "torch.save(model.state_dict(), 'best.pt')" in text
    assert "weight_decay=0.01" not in text and "1 more remedy with --verbose" in text
    assert "Not checked: 2 rules (lacking: activations, checkpoint)" in text
    assert "runs/exp3/events.1: the last record is cut short (truncated)" in text


def test_what_was_logged_is_not_called_lacking() -> None:
    series = (fixtures.series("train_loss", [1.0, 0.5]),)
    absent = (NotApplicable("a", ("train_loss", "val_loss"), ""), NotApplicable("b", ("val_loss",), ""))
    run = RunReport(Run("r", "r", series), "healthy", not_applicable=absent)
    expected = "Not checked: 2 rules (lacking: val_loss; too short or flat: train_loss)"
    assert wording.not_checked(run) == expected


def test_the_curve_shown_is_the_longest_of_its_role() -> None:
    short, long = (fixtures.series("train_loss", np.ones(points)) for points in (2, 9))
    assert curves.main_curve(Run("r", "r", (short, long))) is long
    assert curves.main_curve(Run("r", "r", ())) is None


def test_verbose_shows_all_of_it() -> None:
    text = render(REPORTS["one"], "terminal", width=100, verbose=True)
    assert "weight_decay=0.01" in text
    assert "EarlyStoppingCallback" in text and "HF Trainer" in text
    assert "False alarm when: The training loss includes a penalty" in text


def test_an_explained_finding_stands_beneath_the_one_that_explains_it() -> None:
    text = lines(REPORTS["one"], width=100)
    above = next(i for i, line in enumerate(text) if "[overfitting]" in line)
    below = next(i for i, line in enumerate(text) if "explained by overfitting" in line)
    assert above < below
    assert text[below].startswith("    ↳ ● info: 62 % of the run")


def test_findings_that_explain_each_other_are_both_shown() -> None:
    pair = (fixtures.finding("a", explained_by="b"), fixtures.finding("b", explained_by="a"))
    report = fixtures.report(fixtures.RunReport(fixtures.Run("r", "r"), "warning", pair))
    text = render(report, "terminal", width=120)
    assert "[a]" in text and "[b]" in text


def test_many_runs_are_in_the_table_and_only_those_with_findings_in_full() -> None:
    text = render(REPORTS["sixty"], "terminal", width=80)
    assert "and 20 more runs" in text
    assert "58 more runs in the table only" in text
    assert "Training loss became NaN (step 258" in text
    assert "seed-057" not in text
    assert "seed-057" in render(REPORTS["sixty"], "terminal", width=80, verbose=True)


def test_names_too_long_for_the_table_lose_their_middle_once() -> None:
    long = [f"experiments/2026/resnet50-wd1e-4-batch256-lr{i}/version_{i}" for i in range(6)]
    runs = tuple(
        RunReport(Run(name, name), "warning", (fixtures.finding("exploding-gradients"),)) for name in long
    )
    for width in (80, 120):
        rows = [line for line in lines(Report(runs), width=width) if line.startswith("▲ warning  ")][:6]
        names = [line.split()[2] for line in rows]
        assert [name[-9:] for name in names] == [f"version_{i}" for i in range(6)]
        assert all(name.count("…") == 1 and name.startswith("experi") for name in names)


def test_measurements_are_few_unless_all_are_wanted() -> None:
    measured = tuple(
        Evidence(f"val_loss.{name}", 1.0, ">=", 0.5, f"measured {name}", 1.0)
        for name in ("points", "a", "b", "c", "d", "e", "f")
    )
    finding = replace(fixtures.finding(), evidence=measured)
    report = fixtures.report(RunReport(Run("r", "r"), "warning", (finding,)))
    text = render(report, "terminal", width=80)
    assert "measured a" in text and "measured d" in text
    assert "measured e" not in text and "measured points" not in text and "2 more measurements" in text
    everything = render(report, "terminal", width=80, verbose=True)
    assert "measured f" in everything and "measured points" in everything


def test_the_page_of_a_rule_has_headings_and_code_and_loses_nothing() -> None:
    page = "overfitting: x\n\nProse that goes on.\n\nWhat to do\n  - a → b\n      code = [1]\n"
    assert rule_page(page) == page
    coloured = rule_page(page, color=True)
    assert ANSI.sub("", coloured) == page
    assert "\x1b[1mWhat to do\x1b[0m" in coloured and "\x1b[1mProse" not in coloured
    assert rule_page(page, ascii_only=True) == page.replace("→", "->")


def test_a_healthy_and_a_short_run_say_so() -> None:
    report = fixtures.report(fixtures.healthy_report(), fixtures.unassessed_report())
    text = render(report, "terminal")
    assert "Nothing found." in text
    assert "Too little was logged to judge this run." in text


def test_a_checkpoint_lists_tensors_worst_first() -> None:
    text = render(REPORTS["checkpoint"], "terminal", width=110)
    order = [text.index(f"- {name}") for name in ("encoder.1.weight", "head.weight", "encoder.0.weight")]
    assert order == sorted(order)
    assert "12 NaN" in text and "100% zeros" in text


@pytest.mark.parametrize("width", [40, 80, 120])
@pytest.mark.parametrize("name", REPORTS)
def test_no_line_is_wider_than_the_terminal_except_code(name: str, width: int) -> None:
    code = {line.strip() for r in REPORTS[name].runs for line in _code(r)}
    for line in lines(REPORTS[name], width=width):
        assert cell_len(line) <= width or line.strip() in code


def _code(run: fixtures.RunReport) -> list[str]:
    from analyzer.report.escape import plain_block

    snippets = [s for f in run.findings for r in f.remedies for s in r.snippets.values()]
    return [line for s in snippets for line in plain_block(s).expandtabs(4).splitlines()]


@pytest.mark.parametrize("name", REPORTS)
@pytest.mark.parametrize("color", [False, True])
def test_nothing_of_a_file_reaches_the_terminal_as_a_command(name: str, color: bool) -> None:
    text = render(REPORTS[name], "terminal", width=80, color=color, verbose=True)
    bare = ANSI.sub("", text) if color else text
    assert all(c.isprintable() or c == "\n" for c in bare)
    assert not set(bare) & set(BIDI)
    text.encode("utf-8")


def test_markup_of_rich_is_shown_as_it_is() -> None:
    markup = fixtures.HOSTILE[3]
    text = render(fixtures.report(fixtures.hostile_report(markup)), "terminal", width=120, color=True)
    assert "[bold red]boo[/bold red]" in ANSI.sub("", text)
    assert "evil.example\x1b\\" not in text and "\x1b]8" not in text


def test_colour_only_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "\x1b" not in render(REPORTS["mixed"], "terminal")
    monkeypatch.setenv("NO_COLOR", "1")
    assert ANSI.search(render(REPORTS["mixed"], "terminal", color=True))


@pytest.mark.parametrize("name", REPORTS)
def test_ascii_holds_for_every_text(name: str) -> None:
    assert render(REPORTS[name], "terminal", width=80, ascii_only=True, verbose=True).isascii()


def test_ascii_keeps_the_meaning() -> None:
    text = render(REPORTS["one"], "terminal", ascii_only=True)
    assert text.startswith("! 1 run: 1 warning")
    assert "- val loss is 42 % above its minimum" in text


def test_sparkline_follows_the_curve() -> None:
    assert sparkline(np.arange(8.0), 8) == BLOCKS
    assert sparkline(np.arange(8.0), 8, ascii_only=True) == ASCII_BLOCKS
    assert sparkline(np.array([1.0, np.nan, 2.0]), 10) == "▁×█"
    assert sparkline(np.full(9, 5.0), 3) == "▅▅▅"
    assert sparkline(np.geomspace(1, 1e7, 8), 8) == BLOCKS
    assert sparkline(np.full(4, np.inf), 2) == "××"
    assert sparkline(np.array([]), 5) == ""
    assert len(sparkline(np.arange(100_000.0), 24)) == 24


def test_tags_without_a_role_are_named_with_what_to_do() -> None:
    odd = Series("my/odd tag\x1b[31m", np.arange(3.0), np.arange(3.0))
    run = Run("r", "r", (odd,))
    text = render(Report((RunReport(run, "not-assessed"),)), "terminal", width=80)
    assert "Not recognised: my/odd tag" in text and "--role" in text
    assert "\x1b" not in text


def test_a_damaged_file_is_not_said_to_be_sound() -> None:
    run = fixtures.healthy_report()
    cut = (Problem("runs/baseline/model.pt", "truncated", "cut off"),)
    assert "Nothing found." in render(Report((replace(run, findings=()),)), "terminal")
    damaged = render(Report((replace(run, findings=(), problems=cut),)), "terminal")
    assert "Nothing found in what could be read" in damaged


def test_the_path_of_a_run_is_never_broken() -> None:
    run = fixtures.healthy_report()
    path = "/experiments/" + "a-folder-with-a-long-name/" * 5 + "run"
    text = render(Report((replace(run, run=replace(run.run, path=path)),)), "terminal", width=80)
    assert path in text
