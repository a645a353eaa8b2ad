"""One run: charts with the evidence on them, zoom and cursor, tabs, copying, folds, the keyboard."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import report_fixtures as fixtures
from playwright.sync_api import expect

from analyzer.model import Mark, Report, Run, RunReport

OVERFITTING = fixtures.report(fixtures.overfitting_report())


@pytest.fixture
def page(opened: Callable[..., Any]) -> Any:
    return opened("one", OVERFITTING).page


def panel(page: Any, title: str) -> Any:
    return page.locator("figure.panel").filter(
        has=page.locator(".panel-title", has_text=re.compile(f"^{title}", re.I))
    )


def corners(panel: Any, line: int = 0) -> np.ndarray:
    """The corners of a curve's path: columns x and y in pixels, y downwards."""
    path = panel.locator(f"g[data-line='{line}'] path.line").first.get_attribute("d")
    return np.array(re.findall(r"[ML]([\d.-]+) ([\d.-]+)", path), dtype=float)


def drag(page: Any, plot: Any, start: float, end: float) -> None:
    box = plot.bounding_box()
    y = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + start * box["width"], y)
    page.mouse.down()
    page.mouse.move(box["x"] + end * box["width"], y, steps=4)
    page.mouse.up()


def steps_shown(panel: Any) -> tuple[float, float]:
    plot = panel.locator(".plot")
    return float(plot.get_attribute("aria-valuemin")), float(plot.get_attribute("aria-valuemax"))


def test_panels_share_their_steps_and_have_a_description(page: Any) -> None:
    titles = page.locator(".panel-title").all_inner_texts()
    assert titles == ["Train loss, val loss", "Learning rate", "Grad norm"]
    assert {steps_shown(panel(page, t)) for t in titles} == {(0, 999)}
    assert "Loss/val: from" in panel(page, "Train loss").locator("p.unseen").text_content()
    assert "Marked: lowest validation loss, step 375." in panel(page, "Train loss").text_content()


def test_the_curve_is_drawn_where_it_was_logged(page: Any) -> None:
    found = corners(panel(page, "Learning rate"))
    lr = OVERFITTING.runs[0].run.series[2]
    steps = np.interp(found[:, 0], [found[0, 0], found[-1, 0]], [0, 999])
    height = np.interp(
        found[:, 1], [found[:, 1].min(), found[:, 1].max()], [lr.values.max(), lr.values.min()]
    )
    assert np.abs(height - np.interp(steps, lr.steps, lr.values)).max() < 0.02 * lr.values.max()


def test_evidence_stands_on_the_curve_it_speaks_of(page: Any) -> None:
    losses, rate = panel(page, "Train loss"), panel(page, "Learning rate")
    assert losses.locator(".band").count() == 1 and losses.locator(".ring").count() == 1
    assert losses.locator(".note .label").all_text_contents() == [
        "lowest validation loss",
        "validation loss rises 42 %",
    ]
    expect(rate.locator(".note")).to_have_count(0)
    ring = float(losses.locator(".ring").get_attribute("cx"))
    line = corners(losses, 0)
    assert np.interp(ring, [line[0, 0], line[-1, 0]], [0, 999]) == pytest.approx(375, abs=1.5)
    page.get_by_role("button", name="On chart").click()
    expect(losses.locator(".note, .band")).to_have_count(0)


def test_nan_is_marked_and_breaks_the_line(opened: Callable[..., Any]) -> None:
    page = opened("nan", fixtures.report(fixtures.nan_report())).page
    loss = panel(page, "Train loss")
    assert loss.locator("rect.nan title").text_content() == "loss: NaN or Inf, step 258–399"
    bar, line = loss.locator("rect.nan"), corners(loss)
    assert float(bar.get_attribute("x")) > line[-1, 0]
    expect(panel(page, "Grad norm").locator("rect.nan")).to_have_count(1)


def test_a_spike_among_two_hundred_thousand_points_reaches_the_top(opened: Callable[..., Any]) -> None:
    page = opened("spike", fixtures.report(fixtures.spike_report())).page
    line = corners(panel(page, "Train loss"))
    top = line[line[:, 1].argmin()]
    place = np.interp(top[0], [line[0, 0], line[-1, 0]], [0, 199_999])
    assert place == pytest.approx(123_457, rel=2e-3)
    assert np.sort(line[:, 1])[1] - top[1] > 150


def test_zoom_is_shared_linked_and_undone(page: Any, opened: Callable[..., Any]) -> None:
    losses, rate = panel(page, "Train loss"), panel(page, "Learning rate")
    drag(page, losses.locator(".plot"), 0.5, 0.75)
    low, high = steps_shown(losses)
    assert 400 < low < 520 and 650 < high < 800
    assert steps_shown(rate) == (low, high)
    again = opened("one", OVERFITTING, re.sub(r"^[^#]*", "", page.url)).page
    assert steps_shown(panel(again, "Learning rate")) == pytest.approx((low, high))
    losses.locator(".plot").dblclick()
    assert steps_shown(rate) == (0, 999)
    assert "zoom" not in page.url


def test_the_cursor_tells_the_values_of_every_panel(page: Any) -> None:
    losses, rate = panel(page, "Train loss"), panel(page, "Learning rate")
    box = losses.locator(".plot").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 60)
    told = losses.locator(".plot").get_attribute("aria-valuetext")
    step = int(re.match(r"step ([\d,]+):", told)[1].replace(",", ""))
    value = OVERFITTING.runs[0].run.series[0].values[step]
    assert float(re.search(r"Loss/train ([\d.e-]+)", told)[1]) == pytest.approx(value, rel=1e-3)
    expect(rate.locator(".cursor circle")).to_have_count(1)
    assert not rate.locator(".legend .value").inner_text().startswith("last")
    page.mouse.move(5, 5)
    assert rate.locator(".legend .value").inner_text().startswith("last")


def test_charts_obey_the_keyboard(page: Any) -> None:
    plot = panel(page, "Learning rate").locator(".plot")
    plot.focus()
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert plot.get_attribute("aria-valuenow") == "2"
    assert plot.get_attribute("aria-valuetext").startswith("step 2: lr 0.00")
    page.keyboard.press("+")
    page.keyboard.press("+")
    assert steps_shown(panel(page, "Train loss"))[1] == pytest.approx(999 / 4, rel=0.05)
    page.keyboard.press("Escape")
    assert steps_shown(panel(page, "Train loss")) == (0, 999)
    page.keyboard.press("End")
    assert plot.get_attribute("aria-valuenow") == "999"


def test_log_scale_and_smoothing_are_switched_and_linked(page: Any, opened: Callable[..., Any]) -> None:
    losses = panel(page, "Train loss")
    before = corners(losses)
    page.get_by_role("button", name="Log scale").click()
    assert losses.locator("figcaption small").inner_text() == "log scale"
    assert not np.allclose(corners(losses)[:, 1], before[:, 1])
    smooth = page.get_by_role("button", name="Smooth")
    assert smooth.get_attribute("aria-pressed") == "true"  # a thousand noisy points
    raw = losses.locator("path.raw").count()
    smooth.click()
    assert raw == 1 and losses.locator("path.raw").count() == 0
    again = opened("one", OVERFITTING, re.sub(r"^[^#]*", "", page.url)).page
    assert panel(again, "Train loss").locator("figcaption small").inner_text() == "log scale"
    expect(panel(again, "Train loss").locator("path.raw")).to_have_count(0)


def test_a_curve_can_be_hidden(page: Any) -> None:
    losses = panel(page, "Train loss")
    losses.get_by_role("button", name="Loss/train").click()
    expect(losses.locator("g[data-line]")).to_have_count(1)
    assert losses.get_by_role("button", name="Loss/train").get_attribute("aria-pressed") == "false"


def test_a_cut_of_the_learning_rate_is_drawn_through_every_panel(opened: Callable[..., Any]) -> None:
    rates = np.repeat([0.1, 0.01], 50)
    series = (fixtures.series("train_loss", np.linspace(2, 1, 100)), fixtures.series("learning_rate", rates))
    page = opened("cut", fixtures.report(RunReport(Run("cut", "cut", series), "healthy"))).page
    expect(page.locator(".rate")).to_have_count(2)
    assert panel(page, "Learning rate").locator(".rate text").text_content() == "×0.1"


def test_other_curves_come_when_asked_for(page: Any) -> None:
    page.get_by_role("button", name="Show 1 more curve").click()
    assert panel(page, "No known role").locator("path.line").count() >= 1


def test_hundreds_of_other_curves_come_in_portions(opened: Callable[..., Any]) -> None:
    odd = tuple(fixtures.series("", [1, 2, 3], tag=f"misc/{i}") for i in range(300))
    run = Run("r", "r", (fixtures.series("train_loss", [3, 2, 1]), *odd))
    page = opened("many-curves", fixtures.report(RunReport(run, "healthy"))).page
    for drawn in range(24, 241, 24):
        expect(page.locator("figure.panel")).to_have_count(drawn - 23)
        page.locator(".charts > button.plain").click()
    expect(page.locator("figure.panel")).to_have_count(241)
    expect(page.get_by_text("60 further curves had no room in this page.")).to_be_visible()


def test_values_are_there_as_a_table(page: Any) -> None:
    page.get_by_text("Values as a table").click()
    table = page.get_by_role("region", name="Values of train loss, val loss").locator("table")
    loss = OVERFITTING.runs[0].run.series[0].values
    cells = table.locator("tbody td:nth-of-type(1)").all_text_contents()
    numbers = [float(c) for c in cells if c]
    assert min(numbers) == pytest.approx(loss.min(), rel=1e-4) and max(numbers) == pytest.approx(
        loss.max(), rel=1e-4
    )


def test_measurements_stand_against_their_thresholds(page: Any) -> None:
    row = page.locator("table.evidence tbody tr").first
    assert row.locator("td").all_inner_texts()[1:] == ["0.42", "≥ 0.05", "+740%"]
    assert page.locator(".causes li").first.inner_text().startswith("No regularisation is switched on")


def test_code_is_coloured_and_copied_as_it_is(page: Any) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    snippet = OVERFITTING.runs[0].findings[0].remedies[0].snippets["pytorch"].strip("\n")
    code = page.locator(".code:visible").first
    assert code.locator("code").text_content() == snippet
    keywords = code.locator(".t-keyword").all_text_contents()
    assert "for" in keywords and "if" in keywords and "best" not in keywords
    assert "'best.pt'" in code.locator(".t-string").all_text_contents()
    code.get_by_role("button", name="Copy").click()
    expect(page.locator(".copy").first).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == snippet


def test_the_framework_chosen_once_is_chosen_everywhere(page: Any) -> None:
    page.locator(".remedy summary").nth(1).click()
    page.get_by_role("tab", name="Lightning").first.click()
    assert "EarlyStopping('val_loss'" in page.locator(".code:visible").first.inner_text()
    page.get_by_role("tab", name="Lightning").first.press("ArrowRight")
    tabs = page.locator('[role="tab"][aria-selected="true"]').all_inner_texts()
    assert tabs[0] == "Keras" and page.evaluate("document.activeElement.textContent") == "Keras"
    assert "keras.callbacks.EarlyStopping" in page.locator(".code:visible").first.inner_text()


def test_an_explained_finding_is_folded_below_the_one_that_explains_it(page: Any) -> None:
    fold = page.locator("details.explained")
    expect(fold.locator("article")).to_have_count(0)
    fold.locator("> summary").click()
    assert fold.locator("h3").inner_text() == "62 % of the run came after its best point"


def test_what_was_not_checked_and_what_was_wrong_with_the_log_is_told(page: Any) -> None:
    page.get_by_text("Not checked: 2 rules").click()
    expect(page.get_by_text("no activations were logged")).to_be_visible()
    expect(page.get_by_text("the last record is cut short")).to_be_visible()
    page.get_by_text("Hyperparameters (5)").click()
    expect(page.locator("table.parameters tr")).to_have_count(5)


def test_tensors_have_strips_and_a_table(opened: Callable[..., Any]) -> None:
    page = opened("checkpoint", fixtures.report(fixtures.checkpoint_report())).page
    strip = page.get_by_role("img", name=re.compile("^NaN or Inf of 3 tensors"))
    degrees = strip.locator("rect").evaluate_all(
        "cells => cells.map((c) => Number(c.getAttribute('fill-opacity')))"
    )
    assert degrees[1] == 1 and max(degrees[0], degrees[2]) < 0.1
    assert page.locator("table.layers tbody th").all_inner_texts()[0] == "encoder.1.weight"


def test_labels_of_marks_do_not_overlap(opened: Callable[..., Any]) -> None:
    marks = tuple(Mark("train_loss", i * 10, i * 10, f"something worth knowing {i}") for i in range(11))
    run = Run("r", "r", (fixtures.series("train_loss", np.arange(101.0)),))
    page = opened("labels", Report((RunReport(run, "warning", (fixtures.finding(marks=marks),)),))).page
    boxes = [label.bounding_box() for label in page.locator(".note .label").all()]
    assert 4 <= len(boxes) <= 11
    for i, a in enumerate(boxes):
        for b in boxes[i + 1 :]:
            apart = a["x"] + a["width"] <= b["x"] + 1 or b["x"] + b["width"] <= a["x"] + 1
            assert apart or abs(a["y"] - b["y"]) > 10


@pytest.mark.parametrize(
    "values",
    [
        [], [1.0], [np.nan], [np.nan] * 500, [np.inf, -np.inf], [5.0] * 9, [1e308, -1e308], [1e6, 1e6 + 1e-9],
        [0, 5e-324], [1e-300, 1.0], list(np.geomspace(1e-30, 1e30, 500)),
    ],
)  # fmt: skip
def test_odd_curves_are_drawn_without_a_complaint(values: list[float], opened: Callable[..., Any]) -> None:
    run = Run("r", "r", (fixtures.series("train_loss", values), fixtures.series("val_loss", values)))
    page = opened(f"odd-{len(values)}-{hash(str(values))}", fixtures.report(RunReport(run, "healthy"))).page
    page.get_by_role("button", name="Log scale").count() and page.get_by_role(
        "button", name="Log scale"
    ).click()
    drawn = page.evaluate("document.querySelector('main').outerHTML")
    assert not re.search(r'="[^"]*(NaN|Infinity|undefined)', drawn)
