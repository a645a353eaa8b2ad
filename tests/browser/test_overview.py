"""The table of runs: search, filters, sorting, links to a view, and the comparison."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import report_fixtures as fixtures
from playwright.sync_api import expect

from analyzer.model import Report, RunReport


def with_parameters(run: RunReport, name: str, **parameters: object) -> RunReport:
    return replace(run, run=replace(run.run, name=name, hyperparameters=parameters))


def sweep() -> Report:
    """Twelve runs whose learning rate and optimizer differ; every third overfits."""
    runs = []
    for i in range(12):
        run = fixtures.overfitting_report() if i % 3 == 0 else fixtures.healthy_report(seed=i)
        rate = 10.0 ** (-1 - i // 4)
        runs.append(with_parameters(run, f"run-{i}", lr=rate, optimizer="adam" if i % 2 else "sgd", seed=7))
    order = ["critical", "warning", "info", "healthy", "not-assessed"]
    return Report((fixtures.nan_report(), *sorted(runs, key=lambda r: order.index(r.verdict))), version="1")


SWEEP = sweep()


def names(page: Any) -> list[str]:
    return [text.strip() for text in page.locator("#runs tbody th").all_text_contents()]


@pytest.fixture
def page(opened: Callable[..., Any]) -> Any:
    return opened("sweep", SWEEP).page


def test_the_worst_come_first_with_their_verdict_in_words(page: Any) -> None:
    assert names(page)[0] == "fp16-lr3e-3"
    assert page.locator("h1").inner_text() == "✖ 1 of 13 runs has a critical finding"
    badges = page.locator("#runs tbody .badge").all_inner_texts()
    assert [b.split()[-1] for b in badges] == ["critical"] + ["warning"] * 4 + ["healthy"] * 8


def test_search_looks_at_names_findings_and_hyperparameters(page: Any) -> None:
    page.fill("#search", "run-1")
    expect(page.locator("#runs tbody tr")).to_have_count(3)
    assert sorted(names(page)) == ["run-1", "run-10", "run-11"]
    page.fill("#search", "optimizer=adam validation loss")
    expect(page.locator("#runs tbody tr")).to_have_count(2)
    assert sorted(names(page)) == ["run-3", "run-9"]
    page.fill("#search", "no such run")
    expect(page.locator("#runs tbody tr")).to_have_count(0)
    expect(page.get_by_text("No run matches.")).to_be_visible()


def test_verdicts_filter_from_the_banner(page: Any) -> None:
    page.click('[data-verdict="warning"]')
    assert names(page) == ["run-0", "run-3", "run-6", "run-9"]
    assert page.locator('[data-verdict="warning"]').get_attribute("aria-pressed") == "true"
    page.click('[data-verdict="critical"]')
    assert len(names(page)) == 5
    page.go_back()
    expect(page.locator("#runs tbody tr")).to_have_count(4)


def test_a_diagnosis_can_be_chosen(page: Any) -> None:
    page.select_option('select[aria-label="Diagnosis"]', "overfitting")
    assert names(page) == ["run-0", "run-3", "run-6", "run-9"]
    page.select_option('select[aria-label="Diagnosis"]', "exploding-gradients")
    assert names(page) == ["fp16-lr3e-3"]


@pytest.mark.parametrize(
    ("name", "query", "count"),
    [
        ("lr", "0.1", 4), ("lr", ">= 0.01", 8), ("lr", "<0.01", 4), ("lr", "1e-3..1e-2", 8), ("lr", "!=0.1", 8),
        ("optimizer", "ada", 6), ("optimizer", "= SGD", 6), ("lr", "", 13), ("lr", "nonsense", 0),
    ],
)  # fmt: skip
def test_hyperparameters_filter_by_value_and_range(page: Any, name: str, query: str, count: int) -> None:
    page.select_option('select[aria-label="Hyperparameter"]', name)
    page.fill("#parameter-value", query)
    assert len(names(page)) == count


def test_only_hyperparameters_that_differ_are_offered(page: Any) -> None:
    offered = page.locator('select[aria-label="Hyperparameter"] option').all_text_contents()
    assert offered == ["Any hyperparameter", "lr", "optimizer", "seed"]  # one run has no seed at all


def test_columns_sort_both_ways_and_back(page: Any) -> None:
    before = names(page)
    page.click('[data-sort="name"]')
    assert names(page) == ["fp16-lr3e-3", *(f"run-{i}" for i in range(12))]  # 10 after 9
    head = page.locator("th:has([data-sort='name'])")
    assert head.get_attribute("aria-sort") == "ascending"
    page.click('[data-sort="name"]')
    assert names(page)[0] == "run-11" and head.get_attribute("aria-sort") == "descending"
    page.click('[data-sort="name"]')
    assert names(page) == before
    page.select_option('select[aria-label="Hyperparameter"]', "lr")
    page.click('[data-sort="hp"]')
    rates = [float(t) for t in page.locator("#runs tbody .parameter").all_text_contents() if t != "–"]
    assert len(rates) == 12 and rates == sorted(rates)


def test_a_view_is_in_its_address(page: Any, opened: Callable[..., Any]) -> None:
    page.select_option('select[aria-label="Hyperparameter"]', "optimizer")
    page.fill("#parameter-value", "sgd")
    page.fill("#search", "run")
    page.click('[data-sort="name"]')
    page.click('[data-verdict="healthy"]')
    shown = names(page)
    again = opened("sweep", SWEEP, re.sub(r"^[^#]*", "", page.url)).page
    assert names(again) == shown == ["run-2", "run-4", "run-8", "run-10"]
    assert again.input_value("#search") == "run" and again.input_value("#parameter-value") == "sgd"
    assert again.locator('[data-verdict="healthy"]').get_attribute("aria-pressed") == "true"


def test_a_run_opens_and_back_returns_to_the_same_view(page: Any) -> None:
    page.fill("#search", "overfitting")
    expect(page.locator("#runs tbody tr")).to_have_count(4)
    page.click("text=run-3")
    expect(page.locator("section.run h2")).to_have_text("run-3")
    assert page.evaluate("document.activeElement.tagName") == "H2"
    page.keyboard.press("j")
    expect(page.locator("section.run h2")).to_have_text("run-6")
    page.keyboard.press("k")
    page.click("text=← All runs")
    expect(page.locator("#runs tbody tr")).to_have_count(4)
    assert names(page) == ["run-0", "run-3", "run-6", "run-9"]
    page.go_back()
    expect(page.locator("section.run h2")).to_have_text("run-3")


def test_chosen_runs_are_compared(page: Any, opened: Callable[..., Any]) -> None:
    button = page.get_by_role("button", name="Compare", exact=True)
    for name in ("run-0", "run-1"):
        page.check(f'input[aria-label="Compare {name}"]')
        assert button.is_enabled() == (name == "run-1")
    button.click()
    assert page.locator("h2").first.inner_text() == "2 runs compared"
    first = page.locator("figure.panel").first
    assert first.locator(".legend .tag").all_text_contents() == ["run-0", "run-1"]
    expect(first.locator("g[data-line]")).to_have_count(2)
    table = page.locator("table.differences")
    assert "optimizersgdadam" in "".join(table.locator("tr", has_text="optimizer").all_text_contents())
    expect(table.locator("tr", has_text="seed")).to_have_count(0)  # the same in both
    again = opened("sweep", SWEEP, re.sub(r"^[^#]*", "", page.url)).page
    assert again.locator("h2").first.inner_text() == "2 runs compared"


@pytest.mark.parametrize(
    "hash_", ["#run=gone", "#compare=gone&compare=run-1", "#run=%00&zoom=x..y&sort=nonsense"]
)
def test_a_link_to_what_is_not_there_says_so_and_shows_the_table(
    hash_: str, opened: Callable[..., Any]
) -> None:
    page = opened("sweep", SWEEP, hash_).page
    expect(page.get_by_text("Not in this report: ")).to_be_visible()
    assert len(names(page)) == 13


def test_the_table_works_by_keyboard_alone(page: Any) -> None:
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "search"
    page.keyboard.type("run-7")
    expect(page.locator("#runs tbody tr")).to_have_count(1)
    for _ in range(30):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent") == "run-7":
            break
    page.keyboard.press("Enter")
    expect(page.locator("section.run h2")).to_have_text("run-7")


def test_runs_of_the_same_name_are_told_apart(opened: Callable[..., Any]) -> None:
    twins = Report(
        (fixtures.overfitting_report(), fixtures.overfitting_report(), *[fixtures.healthy_report()] * 3)
    )
    page = opened("twins", twins).page
    links = page.locator("#runs tbody th a").evaluate_all("links => links.map((a) => a.hash)")
    assert len(set(links)) == 5


def test_few_runs_are_all_shown_below_the_table(opened: Callable[..., Any]) -> None:
    page = opened("two", fixtures.report(fixtures.overfitting_report(), fixtures.healthy_report())).page
    expect(page.locator("section.run")).to_have_count(2)
    page = opened("one", fixtures.report(fixtures.overfitting_report())).page
    assert page.locator("#runs").count() == 0 and page.locator("section.run").count() == 1
