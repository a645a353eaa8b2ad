"""Figures for paper: the same curves and evidence as the page, every name nothing but text."""

from __future__ import annotations

import io
import warnings

import numpy as np
import pytest
import report_fixtures as fixtures

from analyzer.model import Mark, Report, Run, RunReport
from analyzer.report import render
from analyzer.report.figure import cover, figure, quietly, sick

matplotlib = pytest.importorskip("matplotlib")


def texts(made: object) -> str:
    from matplotlib.text import Text

    return "\n".join(t.get_text() for t in made.findobj(Text))  # type: ignore[attr-defined]


def test_the_figure_has_a_panel_a_family_on_one_step_axis() -> None:
    made = figure(fixtures.overfitting_report())
    assert [a.get_title(loc="left") for a in made.axes] == [
        "Train loss, val loss",
        "Learning rate",
        "Grad norm",
    ]
    assert len({a.get_xlim() for a in made.axes}) == 1
    series = fixtures.overfitting_report().run.series[1]
    val = next(line for line in made.axes[0].lines if line.get_label() == "Loss/val")
    assert np.array_equal(val.get_ydata(), series.values)


def test_evidence_is_drawn_on_its_curve_and_told_below() -> None:
    made = figure(fixtures.overfitting_report())
    rings = [line for line in made.axes[0].lines if line.get_marker() == "o" and len(line.get_xdata()) == 1]
    assert [float(line.get_xdata()[0]) for line in rings] == [375]
    assert not [line for axes in made.axes[1:] for line in axes.lines if line.get_marker() == "o"]
    told = texts(made)
    assert "1  lowest validation loss (step 375)" in told
    assert "warning: Validation loss rises while training loss still falls (93% confidence)" in told
    assert "Try: Keep the best checkpoint and stop early" in told


def test_what_is_not_finite_is_marked_at_the_top() -> None:
    made = figure(fixtures.nan_report())
    broken = next(line for line in made.axes[0].lines if "NaN or Inf" in str(line.get_label()))
    assert broken.get_xdata().min() == 258 and len(broken.get_xdata()) == 142


@pytest.mark.parametrize("text", [*fixtures.HOSTILE, r"$\frac{1}{0}$", r"$\undefined", "_hidden"])
def test_names_are_drawn_as_they_are(text: str) -> None:
    made = figure(fixtures.hostile_report(text))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        quietly(made.savefig, io.BytesIO(), format="svg")


@pytest.mark.parametrize(
    "values", [[], [1.0], [np.nan] * 5, [np.inf, -np.inf], [1e308, -1e308], [0.0, 5e-324]]
)
def test_odd_curves_are_drawn(values: list[float]) -> None:
    marks = (Mark("train_loss", 0, 0, "a"), Mark("train_loss", 3, 9, "b"), Mark("train_loss", np.nan, 9, "c"))
    run = Run("r", "r", (fixtures.series("train_loss", values),))
    made = figure(RunReport(run, "warning", (fixtures.finding(marks=marks),)))
    quietly(made.savefig, io.BytesIO(), format="png", dpi=40)


def test_a_page_for_each_sick_run_and_a_cover() -> None:
    report = fixtures.mixed()
    assert [run.run.name for run in sick(report)] == ["fp16-lr3e-3", "epoch3.pt", "exp3"]
    assert "7 runs: 2 critical" in texts(cover(report))
    made = render(report, "pdf")
    assert isinstance(made, bytes) and made.startswith(b"%PDF")
    assert made.count(b"/Type /Page\n") + made.count(b"/Type /Page ") == 4


def test_a_picture_of_healthy_runs_shows_them_and_one_of_nothing_says_so() -> None:
    from matplotlib.image import imread

    def height(report: Report) -> int:
        return int(imread(io.BytesIO(render(report, "png"))).shape[0])  # type: ignore[arg-type]

    one, two = (height(fixtures.report(*[fixtures.healthy_report()] * n)) for n in (1, 2))
    assert two == 2 * one > 0
    assert height(fixtures.report()) > 0


def test_without_matplotlib_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from analyzer.errors import AnalyzerError

    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(AnalyzerError, match=r"pip install 'training-log-analyzer\[plots\]'"):
        figure(fixtures.healthy_report())
