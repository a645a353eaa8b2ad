"""The report in Python and notebooks."""

from __future__ import annotations

import html
import re
from pathlib import Path

import pytest
from small_runs import overfitting, table

import analyzer
from analyzer.notebook import Report


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    runs = tmp_path_factory.mktemp("runs")
    overfitting(runs / "sick<i id=x>" / "metrics.csv")
    table(runs / "fine" / "metrics.csv")
    return analyzer.analyze(runs)


def test_the_frame_has_every_finding_and_every_run(report: Report) -> None:
    frame = report.to_frame()
    assert set(frame["run"]) == {"sick<i id=x>", "fine"}
    assert frame["rule"].notna().sum() == len(report.findings) > 0
    worst = frame.iloc[0]
    assert (worst["run"], worst["rule"], worst["severity"]) == ("sick<i id=x>", "overfitting", "warning")
    assert 0 < worst["confidence"] <= 1 and worst["first_step"] <= worst["last_step"]


def test_a_run_is_found_by_name_and_by_rank(report: Report) -> None:
    assert report.of("fine") is report.of(-1)
    assert report.of(0).run.name == "sick<i id=x>"
    for absent in ("nope", 7):
        with pytest.raises(KeyError):
            report.of(absent)


def test_the_plot_draws_the_curves_and_the_evidence(report: Report, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    figure = report.plot("sick<i id=x>")
    drawn = [line.get_label() for axes in figure.axes for line in axes.lines]
    assert {"loss", "val_loss"} <= {str(label).split(" ")[0] for label in drawn}
    figure.savefig(tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 5000


def test_a_notebook_shows_the_page_in_a_frame_that_cannot_reach_out(report: Report) -> None:
    shown = report._repr_html_()
    frame = re.fullmatch(r'<iframe [^>]*sandbox="allow-scripts"[^>]*srcdoc="([^"]*)"></iframe>', shown)
    assert frame
    page = html.unescape(frame[1])
    assert "overfitting" in page and "<i id=x>" not in page
