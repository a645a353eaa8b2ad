"""A finding's words and severity where several variants of its rule hold."""

from __future__ import annotations

import pytest

import analyzer
from analyzer.model import Leaf, Measurement, Rule, Variant
from analyzer.rulebook.evaluate import _variant


def made(*variants: Variant) -> Rule:
    leaf = Leaf("a.x", ">", 0)
    rest: tuple[()] = ()
    return Rule(
        "r", "plain", "f", "warning", "run", "", leaf, leaf, "text", 0.5, {}, *[rest] * 6, variants=variants
    )


def test_each_of_title_severity_and_evidence_comes_from_the_first_variant_that_gives_it() -> None:
    holds, fails = Leaf("a.x", ">", 0), Leaf("a.x", "<", 0)
    rule = made(
        Variant(fails, "info", "never", "never"),
        Variant(holds, None, "first title", ""),
        Variant(holds, "critical", "second title", "second text"),
    )
    said = _variant(rule, {"a.x": Measurement(1.0)})
    assert (said.title, said.severity, said.evidence) == ("first title", "critical", "second text")
    assert _variant(rule, {"a.x": Measurement(0.0)}) == rule


@pytest.mark.parametrize(
    ("loss", "severity"), [([2.303] * 60, "critical"), ([2.3 * 0.95**i for i in range(60)], "warning")]
)
def test_a_root_cause_is_as_severe_as_what_it_did_to_the_run(loss, severity) -> None:
    layers = {f"grad_norm/layers.{i}": [10.0 ** (i - 6)] * 60 for i in range(7)}
    findings = analyzer.diagnose({"train_loss": loss, **layers})
    found = {finding.rule: finding for finding in findings}
    assert found["vanishing-gradients"].severity == severity
    assert findings[0].rule == "vanishing-gradients"
    if "loss-not-decreasing" in found:
        assert found["loss-not-decreasing"].explained_by == "vanishing-gradients"


def test_a_test_loss_stands_in_for_a_validation_loss_never_logged() -> None:
    curves = {"train_loss": [1.5 * 0.8**i for i in range(20)]}
    worse = [1.2, 0.9, 0.7, *(0.65 + 0.04 * i for i in range(17))]
    rules = [finding.rule for finding in analyzer.diagnose({**curves, "test_loss": worse})]
    assert "overfitting" in rules
