"""The HTML report as a file: inert, self-contained, and losing nothing of a curve that matters.

What it does in a browser is tested in ``tests/browser``.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
import report_fixtures as fixtures
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from analyzer.model import Evidence, Histograms, Insight, LayerStats, Mark, Report, Run, RunReport, WasteTotal
from analyzer.report import comparison, curves, html_data, panels, render

REPORTS = fixtures.every_report()
VOID = {"meta", "input", "img", "br", "link"}


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

    def handle_endtag(self, tag: str) -> None:
        assert self.stack and self.stack[-1] == tag, f"</{tag}> closes {self.stack[-3:]}"
        self.stack.pop()

    def handle_data(self, data: str) -> None:
        self.texts.append((self.stack[-1] if self.stack else "", data))

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for found, attributes in self.elements if found == tag]

    @property
    def text(self) -> str:
        return " ".join(" ".join(t for tag, t in self.texts if tag not in ("style", "script")).split())


def page(report: Report) -> Page:
    return Page(render(report, "html"))


def digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


class Data:
    """The embedded document as the page's scripts see it."""

    def __init__(self, text: str) -> None:
        found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)
        assert found
        self.document: dict[str, Any] = json.loads(found[1])
        self.runs: list[dict[str, Any]] = self.document["runs"]

    def pooled(self, index: int) -> Any:
        return self.document["pool"][index]

    def texts(self, index: int) -> list[str]:
        return [self.pooled(i) for i in self.pooled(index)]

    def snippets(self, remedy: int) -> dict[str, str]:
        found = (self.pooled(s) for s in self.pooled(self.pooled(remedy)[3]))
        return {self.pooled(name): "\n".join(self.texts(lines)) for name, lines in found}

    def strings(self) -> list[str]:
        return [text for text in self.document["pool"] if isinstance(text, str)]


def data(*runs: RunReport) -> Data:
    return Data(render(fixtures.report(*runs), "html"))


def unpacked(curve: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    values = np.frombuffer(base64.b64decode(curve["y"]), dtype="<f4").astype(float)
    first, kind, *gaps = curve["x"]
    if not gaps:
        return first + kind * np.arange(len(values)), values
    deltas = np.frombuffer(base64.b64decode(gaps[0]), dtype=f"<{kind}").astype(float)
    return first + np.concatenate([[0.0], np.cumsum(deltas)]), values


# --- the file ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", REPORTS)
def test_every_report_is_well_formed_and_needs_nothing_from_elsewhere(name: str) -> None:
    found = page(REPORTS[name])
    assert not found.stack
    for tag, attributes in found.elements:
        assert tag not in ("img", "link", "iframe", "object", "embed", "form", "base")
        assert not any(key.startswith("on") or key in ("style", "src", "href") for key in attributes)


@pytest.mark.parametrize("name", ["mixed", "hostile-0", "hostile-7"])
def test_the_policy_admits_exactly_our_style_and_script(name: str) -> None:
    text = render(REPORTS[name], "html")
    policy = next(a["content"] for a in Page(text).all("meta") if "http-equiv" in a)
    styles = re.findall(r"<style>(.*?)</style>", text, re.S)
    scripts = re.findall(r"<script>(.*?)</script>", text, re.S)
    assert len(styles) == len(scripts) == 1
    assert policy == (
        f"default-src 'none'; style-src '{digest(styles[0])}'; script-src '{digest(scripts[0])}'; "
        "img-src data:; base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'; "
        "trusted-types 'none'"
    )


@pytest.mark.parametrize("text", [*fixtures.HOSTILE, "<!--<script>", "\u2028\u2029</script>"])
def test_hostile_text_stays_text(text: str) -> None:
    html = render(fixtures.report(fixtures.hostile_report(text)), "html")
    clean = page(fixtures.report(fixtures.hostile_report("harmless")))
    assert Page(html).elements == clean.elements
    embedded = re.search(r'id="data">(.*?)</script>', html, re.S)
    assert embedded and not set(embedded[1]) & set("<>&\u2028\u2029") and embedded[1].isascii()
    hidden = "[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
    found = Data(html)
    shown = [t for _, t in Page(html).texts] + found.strings() + [run["name"] for run in found.runs]
    assert not any(re.search(hidden, part) for part in shown)


def test_a_template_expression_in_a_name_is_not_evaluated() -> None:
    text = render(fixtures.report(fixtures.hostile_report("{{ 7919*7919 }}")), "html")
    assert "{{ 7919*7919 }}" in text and "62710561" not in text


def test_banner_and_summary_put_the_worst_first() -> None:
    found = page(REPORTS["mixed"])
    assert "2 of 7 runs have a critical finding" in found.text
    assert "2 critical ▲ 1 warning ✔ 2 healthy ○ 2 not assessed" in found.text
    names = [run.run.name for run in REPORTS["mixed"].runs]
    assert [text for tag, text in found.texts if tag == "th"][3:] == names


@pytest.mark.parametrize(
    ("run", "sentence"),
    [
        (fixtures.nan_report(), "The run has a critical finding"),
        (fixtures.overfitting_report(), "The run would gain from a change"),
        (fixtures.healthy_report(), "The run looks healthy"),
        (fixtures.unassessed_report(), "The run logged too little to be judged"),
    ],
)
def test_one_run_is_judged_in_a_sentence(run: RunReport, sentence: str) -> None:
    assert sentence in page(fixtures.report(run)).text


def test_without_scripts_the_findings_are_still_told() -> None:
    text = page(REPORTS["mixed"]).text
    assert "Validation loss is 42 % above its minimum (step 375) while training loss still falls." in text
    assert "40 GB is more than the limit of 8 GB" in text


# --- the data ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("rise of the loss: 42 % (threshold: at least 5 %)", ["42 %", "≥ 5 %", "rise of the loss"]),
        ("dead units: 1,234 in fc.1 (threshold: above 1)", ["1,234", "≥ 1", "dead units"]),
        ("a sentence of its own", ["0.42", "≥ 0.05", "a sentence of its own"]),
        ("the loss is summed: yes", ["0.42", "≥ 0.05", "the loss is summed: yes"]),
    ],
)
def test_measurements_are_in_the_units_of_their_sentence(text: str, shown: list[str]) -> None:
    evidence = Evidence("val_loss.rise_from_min", 0.42, ">=", 0.05, text, 7.4)
    report = fixtures.overfitting_report()
    found = data(replace(report, findings=(replace(report.findings[0], evidence=(evidence,)),)))
    _, value, limit, _, label = found.runs[0]["findings"][0]["evidence"][0]
    assert [value, limit, found.pooled(label)] == shown


def test_a_finding_is_there_with_all_that_is_known_of_it() -> None:
    found = data(fixtures.overfitting_report())
    run = found.runs[0]
    first, late = run["findings"]
    assert (first["explained"], late["explained"]) == (False, True)
    assert first["confidence"] == "93%"
    feature, *values, _ = first["evidence"][0]
    assert [found.pooled(feature), *values] == ["val_loss.rise_from_min", "0.42", "≥ 0.05", "+740%"]
    assert first["causes"][0][1] == "70%"
    snippets = found.snippets(first["remedies"][0])
    assert list(snippets) == ["pytorch", "lightning", "keras", "transformers"]
    assert snippets["pytorch"].endswith("torch.save(model.state_dict(), 'best.pt')")
    skipped = [found.texts(entry) for entry in found.pooled(run["skipped"])]
    assert skipped[0] == ["dead-relu", "no activations were logged"]
    assert found.texts(run["unmapped"]) == ["misc/odd"]
    assert [[found.pooled(i) for i in p] for p in run["problems"]["shown"]] == [
        ["runs/exp3/events.1", "the last record is cut short", "truncated"]
    ]
    parameters = {found.pooled(key): found.pooled(value) for key, value in run["parameters"]}
    assert parameters == {
        "amp": "True",
        "lr": "0.001",
        "note": "None",
        "optimizer": "adamw",
        "weight_decay": "0",
    }


def test_a_text_is_stored_once_however_many_runs_say_it() -> None:
    one, many = (render(Report((fixtures.overfitting_report(),) * n), "html") for n in (1, 40))
    sentence = "The training loss includes a penalty"
    assert one.count(sentence) == many.count(sentence) == 1
    assert many.count("torch.save(model.state_dict()") == 1


def test_lines_of_code_that_differ_between_runs_stay_apart() -> None:
    runs = [fixtures.overfitting_report(), fixtures.nan_report()]
    found = data(*runs)
    for document, run in zip(found.runs, runs, strict=True):
        for finding, original in zip(document["findings"], run.findings, strict=True):
            for remedy, written in zip(finding["remedies"], original.remedies, strict=True):
                expected = {k: v.strip("\n") for k, v in written.snippets.items()}
                assert found.snippets(remedy) == expected


def test_a_thousand_long_runs_stay_within_ten_megabytes() -> None:
    report = Report((fixtures.overfitting_report(),) * 1000, version="1")
    assert len(render(report, "html").encode()) < 10e6


def test_what_the_runs_tell_together_is_told() -> None:
    waste = WasteTotal(2, 0.3, 0.0, 0.0, 100.0, 400.0, {"overfitting": (1, 100.0, 0.0)})
    runs = (fixtures.overfitting_report(), fixtures.healthy_report())
    report = Report(runs, insight=Insight(cohorts=(), prevalence=(), waste=waste))
    found = Data(render(report, "html"))
    told = [(found.pooled(title), found.texts(sentences)) for title, sentences in found.document["together"]]
    assert report.insight and told == comparison.sections(report.insight) and told[0][0] == "Wasted compute"


# --- curves -----------------------------------------------------------------------------------------

CURVES = arrays.arrays(
    np.float64,
    st.integers(0, 3000),
    elements=st.floats(-1e6, 1e6) | st.sampled_from([float("nan"), float("inf"), -float("inf")]),
)


@given(CURVES, st.integers(4, 400))
@settings(max_examples=80)
def test_thinning_keeps_ends_extremes_and_what_is_not_finite(values: np.ndarray, most: int) -> None:
    kept = curves.thin(values, most)
    assert np.all(np.diff(kept) > 0)
    assert len(kept) <= 1.5 * most + 12
    if len(values):
        assert kept[0] == 0 and kept[-1] == len(values) - 1
    finite = values[np.isfinite(values)]
    thinned = values[kept]
    if len(finite):
        known = thinned[np.isfinite(thinned)]
        assert (known.min(), known.max()) == (finite.min(), finite.max())
    assert np.isfinite(thinned).all() == np.isfinite(values).all()


@given(st.integers(1, 5000), st.integers(0, 4999), st.integers(40, 300))
def test_a_single_spike_or_nan_survives_wherever_it_is(count: int, at: int, most: int) -> None:
    values = np.zeros(count)
    values[at % count] = 9.0
    assert at % count in curves.thin(values, most)
    values[at % count] = np.nan
    assert at % count in curves.thin(values, most)


@given(
    arrays.arrays(np.float64, st.integers(0, 200), elements=st.floats(0, 1e9)),
    st.sampled_from([1.0, 0.5, 100.0]),
    st.booleans(),
)
def test_packed_steps_come_back(gaps: np.ndarray, by: float, even: bool) -> None:
    steps = 7.0 + np.cumsum(np.full(len(gaps), by) if even else np.floor(gaps) * by)
    packed = {"x": html_data.packed_steps(steps), "y": html_data.packed(np.zeros(len(steps)))}
    found, _ = unpacked(packed)
    np.testing.assert_allclose(found, steps, rtol=1e-12)


def test_packed_values_keep_what_is_finite_finite() -> None:
    values = np.array([1.5, np.nan, np.inf, -np.inf, 1e300, -1e300])
    _, found = unpacked({"x": [0, 1], "y": html_data.packed(values)})
    assert found[0] == 1.5 and np.isnan(found[1]) and found[2] == np.inf and found[3] == -np.inf
    assert np.isfinite(found[4:]).all() and found[4] > 1e38 and found[5] < -1e38


def test_a_spike_among_many_points_is_in_the_page() -> None:
    found = data(fixtures.spike_report(200_000))
    steps, values = unpacked(found.runs[0]["panels"][0]["series"][0])
    assert len(values) < 5000
    assert steps[values.argmax()] == 123_457 and values.max() == 9
    assert np.sort(values)[-2] == 1


def test_a_noisy_curve_brings_its_median_line() -> None:
    rng = np.random.default_rng(0)
    values = np.linspace(5, 1, 3000) + rng.normal(0, 0.3, 3000)
    run = Run("r", "r", (fixtures.series("train_loss", values), fixtures.series("val_loss", values[:300])))
    series = data(RunReport(run, "healthy")).runs[0]["panels"][0]["series"]
    assert "median" in series[0] and "median" not in series[1]
    steps, middle = unpacked(series[0]["median"])
    assert np.abs(middle - np.interp(steps, np.arange(3000), np.linspace(5, 1, 3000))).max() < 0.2


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
def test_odd_curves_are_packed_without_a_complaint(values: list[float]) -> None:
    with np.errstate(all="raise", under="ignore"):
        found = data(RunReport(Run("r", "r", (fixtures.series("val_loss", values),)), "healthy"))
    for panel in found.runs[0]["panels"]:
        assert len(unpacked(panel["series"][0])[1]) == min(len(values), 500)


# --- panels -----------------------------------------------------------------------------------------


def titles(*series: fixtures.Series, marks: tuple[Mark, ...] = (), others: bool = False) -> list[str]:
    found = (fixtures.finding(marks=marks),) if marks else ()
    return [p.title for p in panels.run_panels(RunReport(Run("r", "r", series), "warning", found), others)]


def test_train_and_validation_share_a_panel_above_rate_and_gradient_norm() -> None:
    assert titles(*fixtures.overfitting_series()) == ["train loss, val loss", "learning rate", "grad norm"]


def test_evidence_on_another_curve_brings_that_curve_into_the_story() -> None:
    loss = fixtures.series("train_loss", [3, 2, 1])
    scale = fixtures.series("loss_scale", [65536, 1024, 1])
    assert titles(loss, scale) == ["train loss"]
    assert titles(loss, scale, others=True) == ["train loss", "loss scale"]
    assert titles(loss, scale, marks=(Mark("loss_scale", 1, 2, "collapses"),)) == ["train loss", "loss scale"]


def test_every_other_curve_can_be_asked_for_once() -> None:
    series = (*fixtures.overfitting_series(), fixtures.series("epoch", [1, 2]))
    found = panels.run_panels(RunReport(Run("r", "r", series), "healthy"))
    assert [p.series[0].tag for p in found if not p.story] == ["misc/odd"]


def log(*values: object) -> bool:
    series = tuple(fixtures.series("train_loss", v) for v in values)  # type: ignore[arg-type]
    return panels.Panel("loss", series).log


def test_log_scale_only_where_it_flattens_no_curve() -> None:
    wide = np.geomspace(1, 1e-4, 50)
    assert log(wide)
    assert not log(np.geomspace(1, 1e-2, 50))
    assert not log(np.append(wide, 0.0)) and not log(-wide)
    assert not log(wide, np.linspace(1.3, 1.7, 50))  # the other curve's rise would be hidden
    assert log(wide, 2 * wide) and log([np.nan], wide)
    assert log(*(np.linspace(2, 1, 50) * 10.0**-i for i in range(6)))  # gradients of layers, say


def test_cuts_of_the_learning_rate_are_told_and_schedules_are_not() -> None:
    def changes(rates: object) -> list[tuple[float, float]]:
        run = Run("r", "r", (fixtures.series("learning_rate", rates),))  # type: ignore[arg-type]
        return panels.rate_changes(RunReport(run, "healthy"))

    cut = changes([0.1] * 30 + [0.01] * 30 + [0.001] * 30)
    assert [step for step, _ in cut] == [30, 60]
    assert [factor for _, factor in cut] == pytest.approx([0.1, 0.1])
    assert changes(1e-3 * (1 + np.cos(np.linspace(0, np.pi, 200)))) == []
    assert changes(np.linspace(1e-6, 1e-3, 50)) == []
    assert changes([0.1] * 50) == [] and changes([0.0, 0.1, np.nan]) == []


def test_the_story_is_told_by_the_loss_then_the_reward_then_a_metric() -> None:
    loss, reward = fixtures.series("val_loss", [1, 2]), fixtures.series("reward", [1, 2])
    policy, accuracy = fixtures.series("rl_loss", [1, 2]), fixtures.series("val_accuracy", [1, 2])
    rate = fixtures.series("learning_rate", [1, 2])
    main = [
        curves.main_curves(Run("r", "r", s))
        for s in ((rate, accuracy, reward, loss), (rate, policy, accuracy, reward), (rate, accuracy), (rate,))
    ]
    assert [[s.role for s in m] for m in main] == [["val_loss"], ["reward"], ["val_accuracy"], []]


# --- layers and histograms --------------------------------------------------------------------------


def test_tensors_come_worst_first_with_their_place_in_depth() -> None:
    found = data(fixtures.checkpoint_report())
    rows = found.runs[0]["layers"]["rows"]
    assert [found.pooled(row[1]) for row in rows] == ["encoder.1.weight", "head.weight", "encoder.0.weight"]
    assert [row[0] for row in rows] == [1, 2, 0]
    assert rows[0][9] == 12 and rows[1][8] == 1
    assert rows[2][10] == pytest.approx(0.05 * np.sqrt(288), rel=1e-3)


def test_growth_is_told_against_the_first_checkpoint() -> None:
    def at(checkpoint: str, norm: float) -> LayerStats:
        base = fixtures.layer("w")
        values = {name: getattr(base, name) for name in LayerStats.__slots__}
        return LayerStats(**{**values, "l2": norm, "checkpoint": checkpoint})

    run = RunReport(Run("r", "r"), "healthy", layers=(at("a.pt", 2.0), at("b.pt", 9.0)))
    rows = data(run).runs[0]["layers"]["rows"]
    assert [row[12] for row in rows] == [4.5]


def test_a_logged_histogram_becomes_shares_over_the_steps() -> None:
    histograms = Histograms(
        tag="h", steps=np.array([0.0, 1.0]), wall_times=np.zeros(2), minimum=np.array([0.0, 0.0]),
        maximum=np.array([4.0, 4.0]), count=np.array([4.0, 8.0]), total=np.zeros(2), total_squares=np.zeros(2),
        offsets=np.array([0, 2, 4]), edges_left=np.array([0.0, 2.0, 0.0, 2.0]),
        edges_right=np.array([2.0, 4.0, 2.0, 4.0]), counts=np.array([4.0, 0.0, 2.0, 6.0]),
    )  # fmt: skip
    run = RunReport(Run("r", "r", histograms=(histograms,)), "healthy")
    found = data(run).runs[0]["histograms"][0]
    assert (found["low"], found["high"], found["steps"]) == (0, 4, [0, 1])
    shares = np.frombuffer(base64.b64decode(found["shares"]), dtype=np.uint8).reshape(2, -1)
    half = shares.shape[1] // 2
    assert (shares[0, :half] == 255).all() and (shares[0, half:] == 0).all()
    assert (shares[1, :half] == 85).all() and (shares[1, half:] == 255).all()
