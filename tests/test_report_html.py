"""The HTML report: one inert, self-contained file whose charts lose no extreme."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser
from itertools import pairwise

import numpy as np
import pytest
import report_fixtures as fixtures
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from analyzer.model import Mark, Report, Run, RunReport
from analyzer.report import axes, charts, curves, render

REPORTS = fixtures.every_report()
VOID = {"meta", "input", "img", "br", "link"}
ADDRESSES = {"src", "href", "action", "formaction", "poster", "data", "srcset", "xlink:href", "background"}


class Page(HTMLParser):
    """What a browser would make of the page: elements with their attributes, and texts by element."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[tuple[str, str]] = []
        self.stack: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {k: v or "" for k, v in attrs}))
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {k: v or "" for k, v in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.stack and self.stack[-1] == tag, f"</{tag}> closes {self.stack[-3:]}"
        self.stack.pop()

    def handle_data(self, data: str) -> None:
        self.texts.append((self.stack[-1] if self.stack else "", data))

    def all(self, tag: str, style: str = "") -> list[dict[str, str]]:
        return [
            a for t, a in self.elements if t == tag and (not style or style in a.get("class", "").split())
        ]

    @property
    def text(self) -> str:
        return " ".join(" ".join(t for tag, t in self.texts if tag not in ("style", "script")).split())


def page(report: Report) -> Page:
    return Page(render(report, "html"))


def digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


@pytest.mark.parametrize("name", REPORTS)
def test_every_report_is_well_formed_and_inert(name: str) -> None:
    found = page(REPORTS[name])
    assert not found.stack
    assert {t for t, _ in found.elements} <= {
        "html", "head", "meta", "title", "style", "script", "body", "header", "main", "footer", "section",
        "article", "div", "span", "p", "h1", "h2", "h3", "h4", "b", "small", "code", "pre", "a", "ul", "ol",
        "li", "table", "thead", "tbody", "tr", "th", "td", "details", "summary", "figure", "figcaption",
        "input", "label", "button", "svg", "g", "path", "line", "rect", "circle", "text",
    }  # fmt: skip
    for tag, attributes in found.elements:
        assert not any(key.startswith("on") or key == "style" for key in attributes), (tag, attributes)
        for key in ADDRESSES & set(attributes):
            assert tag == "a" and re.match(r"https?://|#run-\d+$", attributes[key]), (tag, attributes)


@pytest.mark.parametrize("name", ["mixed", "hostile-0", "hostile-7"])
def test_the_policy_admits_exactly_our_style_and_script(name: str) -> None:
    text = render(REPORTS[name], "html")
    policy = next(a["content"] for a in Page(text).all("meta") if "http-equiv" in a)
    styles = re.findall(r"<style>(.*?)</style>", text, re.S)
    scripts = re.findall(r"<script>(.*?)</script>", text, re.S)
    assert len(styles) == len(scripts) == 1
    assert policy == (
        f"default-src 'none'; style-src '{digest(styles[0])}'; script-src '{digest(scripts[0])}'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


@pytest.mark.parametrize("text", fixtures.HOSTILE)
def test_hostile_text_is_shown_and_does_nothing(text: str) -> None:
    found = page(fixtures.report(fixtures.hostile_report(text)))
    clean = page(fixtures.report(fixtures.hostile_report("harmless")))
    links = [a for a in found.all("a") if not a["href"].startswith("#")]
    assert all(a["href"].startswith("https://") for a in links)
    assert [t for t, _ in found.elements if t != "a"] == [t for t, _ in clean.elements if t != "a"]
    shown = "".join(t for _, t in found.texts)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", shown)


def test_a_template_expression_in_a_name_is_not_evaluated() -> None:
    found = page(fixtures.report(fixtures.hostile_report("{{ 7919*7919 }}")))
    assert "{{ 7919*7919 }}" in found.text and "62710561" not in found.text


def test_banner_and_table_put_the_worst_first() -> None:
    found = page(REPORTS["mixed"])
    assert "2 of 7 runs have a critical finding" in found.text
    assert "2 critical 1 warning 2 healthy 2 not assessed" in found.text
    rows = [a["data-verdict"] for a in found.all("tr") if "data-verdict" in a]
    assert rows == ["critical", "critical", "warning", "healthy", "healthy", "not-assessed", "not-assessed"]
    targets = {a["id"] for _, a in found.elements if "id" in a}
    assert {a["href"][1:] for a in found.all("a") if a["href"].startswith("#")} <= targets


@pytest.mark.parametrize(
    ("run", "sentence"),
    [
        (fixtures.nan_report(), "The run has a critical finding"),
        (fixtures.overfitting_report(), "The run would gain from a change"),
        (fixtures.healthy_report(), "The run looks healthy"),
        (fixtures.unassessed_report(), "The run logged too little to be judged"),
    ],
)
def test_one_run_is_judged_in_a_sentence_and_unfolded(run: RunReport, sentence: str) -> None:
    found = page(fixtures.report(run))
    assert sentence in found.text
    assert "open" in found.all("details")[0]
    assert not found.all("table", "runs")


def test_a_finding_shows_all_that_is_known_of_it() -> None:
    text = page(REPORTS["one"]).text
    for part in (
        "Validation loss is 42 % above its minimum (step 375) while training loss still falls.",
        "93% confidence",
        "val_loss.rise_from_min val loss is 42 % above its minimum 0.42 ≥ 0.05 +740%",
        "Possible causes hypotheses, not measurements No regularisation is switched on 70%",
        "Keep the best checkpoint and stop early low effort The best step was 375. PyTorch Lightning Keras",
        "torch.save(model.state_dict(), 'best.pt')",
        "The training loss includes a penalty that the validation loss does not.",
        "The finding above explains",
        "Not checked: 2 rules (lacking: activations, checkpoint)",
        "no activations were logged",
        "runs/exp3/events.1 the last record is cut short truncated",
        "Curves with no known role (1) misc/odd",
        "Hyperparameters (5) amp True lr 0.001",
    ):
        assert part in text, part


def test_framework_tabs_are_one_group_per_remedy_with_one_chosen() -> None:
    groups: dict[str, list[bool]] = {}
    for radio in page(REPORTS["mixed"]).all("input"):
        if radio["type"] == "radio":
            groups.setdefault(radio["name"], []).append("checked" in radio)
    assert sorted({len(g) for g in groups.values()}) == [1, 4]
    assert all(sum(g) == 1 and g[0] for g in groups.values())


def test_tensors_come_worst_first_with_their_numbers() -> None:
    text = page(REPORTS["checkpoint"]).text
    assert "3 tensors, 1 finding" in text
    table = text[text.index("Tensor Shape") :]
    places = [table.index(name) for name in ("encoder.1.weight", "head.weight", "encoder.0.weight")]
    assert places == sorted(places)
    assert "64×32×3×3 float32 0.001 0.05 -0.3 0.31 0% 12" in table


def test_many_healthy_runs_get_small_charts_and_the_others_do_not() -> None:
    healthy = fixtures.healthy_report(points=3000)
    few = render(Report((healthy,) * 3), "html")
    many = render(Report((fixtures.nan_report(), *(healthy,) * 201)), "html")
    heights = {int(a["height"]) for a in Page(few).all("svg", "plot")}
    small = {int(a["height"]) for a in Page(many).all("svg", "plot")[2:]}
    assert max(small) < min(heights)
    assert "first NaN" in many


# The charts


def panels(*series: fixtures.Series, marks: tuple[Mark, ...] = ()) -> list[charts.Panel]:
    found = (fixtures.finding(marks=marks),) if marks else ()
    return charts.run_panels(RunReport(Run("r", "r", series), "warning", found))


def drawn(panel: charts.Panel, style: str = "s0") -> np.ndarray:
    """The corners of a panel's path: columns x and y, y downwards."""
    paths = [a["d"] for a in Page(panel.svg).all("path", style)]
    corners = re.findall(r"[ML](\d+) (\d+)", paths[0])
    return np.array(corners, dtype=float)


def test_train_and_validation_share_a_chart_and_a_step_axis() -> None:
    found = panels(*fixtures.overfitting_series())
    assert [p.title for p in found] == ["train loss, val loss", "learning rate", "grad norm"]
    assert [entry.label for entry in found[0].legend] == ["Loss/train", "Loss/val"]
    train, val = drawn(found[0], "s0"), drawn(found[0], "s1")
    assert train[-1, 0] == 1000 and abs(val[-1, 0] - 976) <= 1


def test_no_spike_is_lost_among_many_points() -> None:
    found = panels(*fixtures.spike_report(200_000).run.series)
    corners = drawn(found[0])
    assert len(corners) < 2500
    top = corners[corners[:, 1].argmin()]
    assert abs(top[0] - 617) <= 1
    assert top[1] < 100 and np.sort(corners[:, 1])[1] > 900


@given(
    arrays.arrays(np.float64, st.integers(1, 3000), elements=st.floats(-1e6, 1e6) | st.just(float("nan"))),
    st.integers(1, 50),
)
@settings(max_examples=60, deadline=None)
def test_thinning_keeps_the_extremes_of_every_column(values: np.ndarray, count: int) -> None:
    column = curves.columns(np.linspace(0, 1, len(values)), count)
    kept = curves.envelope(column, values)
    assert len(kept) <= 4 * count
    assert np.all(np.diff(kept) > 0)
    for one in np.unique(column):
        inside = values[(column == one) & np.isfinite(values)]
        if len(inside):
            thinned = values[kept[column[kept] == one]]
            assert (thinned.min(), thinned.max()) == (inside.min(), inside.max())


def test_log_scale_only_for_positive_values_over_many_decades() -> None:
    assert panels(fixtures.series("train_loss", np.geomspace(1, 1e-4, 50)))[0].log
    assert not panels(fixtures.series("train_loss", np.geomspace(1, 1e-2, 50)))[0].log
    assert not panels(fixtures.series("train_loss", np.append(np.geomspace(1, 1e-4, 50), 0.0)))[0].log
    assert not panels(fixtures.series("train_loss", -np.geomspace(1, 1e-4, 50)))[0].log
    corners = drawn(panels(fixtures.series("train_loss", np.geomspace(1e4, 1e-4, 200)))[0])
    assert np.ptp(np.diff(corners[:, 1]) / np.diff(corners[:, 0])) < 0.5  # a straight line


def test_not_a_number_breaks_the_line_and_is_marked() -> None:
    values = np.ones(100)
    values[40:60] = np.nan
    values[80] = np.inf
    svg = panels(fixtures.series("train_loss", values))[0].svg
    line = next(a["d"] for a in Page(svg).all("path", "s0"))
    assert line.count("M") == 3
    assert "21 of 100 points are NaN or Inf, steps 40–80" in svg
    spans = re.findall(r'<rect x="([\d.]+)%" y="\d+" width="([\d.]+)%" height="6"/>', svg)
    assert [(round(float(x)), round(float(w))) for x, w in spans] == [(40, 19), (81, 0)]


@pytest.mark.parametrize(
    "values",
    [
        [],
        [1.0],
        [np.nan],
        [np.nan] * 500,
        [np.inf, -np.inf],
        [5.0] * 9,
        [1e308, -1e308],
        [1e6, 1e6 + 1e-9],
        [0, 5e-324],
    ],
)
def test_odd_curves_are_drawn_without_a_complaint(values: list[float]) -> None:
    with np.errstate(all="raise", under="ignore"):
        text = render(
            Report((RunReport(Run("r", "r", (fixtures.series("val_loss", values),)), "healthy"),)), "html"
        )
    coordinates = re.findall(r' (?:x|y|x1|x2|y1|y2|cx|cy|width|d)="([^"]*)"', text)
    assert not any("nan" in c or "inf" in c for c in coordinates)


def test_a_point_is_ringed_and_a_stretch_is_shaded() -> None:
    at, over = Mark("train_loss", 25, 25, "the point"), Mark("train_loss", 50, 100, "the stretch")
    series = fixtures.series("train_loss", np.linspace(1, 0, 101))
    panel = panels(series, marks=(at, over, at))[0]
    found = Page(panel.svg)
    assert [float(a["cx"].rstrip("%")) for a in found.all("circle", "ring")] == [25.0]
    assert len(found.all("g", "band")) == 1
    band = re.search(
        r'class="band warning"><title>[^<]*</title><rect x="([\d.]+)%"[^>]*width="([\d.]+)%"', panel.svg
    )
    assert band and (float(band[1]), float(band[2])) == (50.0, 50.0)
    assert "the point" in found.text and "the stretch" in found.text
    assert [note.mark for note in panel.notes] == [at, over]


def test_evidence_on_another_curve_brings_that_curve_in() -> None:
    loss = fixtures.series("train_loss", [3, 2, 1])
    scale = fixtures.series("loss_scale", [65536, 1024, 1])
    assert [p.title for p in panels(loss, scale)] == ["train loss"]
    marked = panels(loss, scale, marks=(Mark("loss_scale", 1, 2, "collapses"),))
    assert [p.title for p in marked] == ["train loss", "loss scale"]
    assert "collapses" in marked[1].svg and "collapses" not in marked[0].svg


def test_labels_of_marks_do_not_overlap() -> None:
    marks = tuple(Mark("train_loss", i * 10, i * 10, f"something worth knowing {i}") for i in range(11))
    panel = panels(fixtures.series("train_loss", np.arange(101.0)), marks=marks)[0]
    across = axes.step_scale(0, 100)
    lanes = charts._lanes(panel.notes, across)
    assert lanes
    for lane in set(lanes.values()):
        extents = sorted(charts._extent(n, across) for n in panel.notes if lanes.get(n.number) == lane)
        assert all(a[1] <= b[0] for a, b in pairwise(extents))
    assert len(panel.notes) == 11  # what has no room in the chart is still listed below it


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1000, ["0", "200", "400", "600", "800", "1000"]),
        (0, 50_000, ["0", "10k", "20k", "30k", "40k", "50k"]),
        (-1, 1, ["-1", "-0.5", "0", "0.5", "1"]),
        (0, 4e-5, ["0", "1e-5", "2e-5", "3e-5", "4e-5"]),
        (1000.0, 1000.4, ["1000", "1000.1", "1000.2", "1000.3", "1000.4"]),
    ],
)
def test_ticks_are_round_and_told_apart(low: float, high: float, expected: list[str]) -> None:
    assert [label for _, label in axes.ticks(axes.Scale(low, high))] == expected


@given(st.floats(-1e12, 1e12), st.floats(1e-9, 1e12))
@settings(max_examples=200, deadline=None)
def test_ticks_lie_within_the_scale_and_are_distinct(low: float, width: float) -> None:
    found = axes.ticks(axes.step_scale(low, low + width))
    assert 1 <= len(found) <= 12
    assert all(-1e-6 <= place <= 1 + 1e-6 for place, _ in found)
    assert len({label for _, label in found}) == len(found)


def test_the_story_is_told_by_the_loss_then_the_reward_then_a_metric() -> None:
    loss, reward = fixtures.series("val_loss", [1, 2]), fixtures.series("reward", [1, 2])
    policy, accuracy = fixtures.series("rl_loss", [1, 2]), fixtures.series("val_accuracy", [1, 2])
    rate = fixtures.series("learning_rate", [1, 2])
    main = [
        curves.main_curves(Run("r", "r", s))
        for s in ((rate, accuracy, reward, loss), (rate, policy, accuracy, reward), (rate, accuracy), (rate,))
    ]
    assert [[s.role for s in m] for m in main] == [["val_loss"], ["reward"], ["val_accuracy"], []]
