"""Confidence: an estimate, corrected by what was counted, moved by the margin."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analyzer.rulebook import load_rules
from analyzer.rulebook.confidence import FILE, Calibration, bounded, confidence, parse, precision, shipped

KNOWN = Calibration({"sound": (99, 1), "shaky": (5, 5)}, trust=4, slope=1.0, usual=0.5)

shares = st.floats(0, 1)
margins = st.floats(0, 1e6)


@given(st.sampled_from(["sound", "shaky", "unknown"]), shares, margins, margins)
def test_confidence_rises_with_the_margin_and_stays_a_probability(
    rule: str, estimate: float, m: float, n: float
) -> None:
    low, high = sorted((m, n))
    assert 0 < confidence(rule, estimate, low, KNOWN) <= confidence(rule, estimate, high, KNOWN) + 1e-12 < 1


@given(st.floats(0.05, 0.95))
def test_a_rule_that_was_never_measured_keeps_its_estimate(estimate: float) -> None:
    assert confidence("unknown", estimate, None, KNOWN) == pytest.approx(estimate)
    assert confidence("unknown", estimate, 1.0, KNOWN) == pytest.approx(estimate)  # the usual margin


def test_counts_outweigh_the_estimate_the_more_there_are() -> None:
    few, many = precision(0.9, 1, 1, 4), precision(0.9, 100, 100, 4)
    assert 0.5 < many < few < 0.9
    assert confidence("shaky", 0.9, None, KNOWN) < confidence("sound", 0.5, None, KNOWN)


def test_what_was_shipped_speaks_of_rules_that_exist_and_says_where_it_comes_from() -> None:
    assert set(shipped().counts) <= {rule.id for rule in load_rules()}
    assert json.loads(FILE.read_text(encoding="utf-8"))["provenance"]["part"] == "tune"
    assert shipped() == parse(FILE.read_text(encoding="utf-8"))
    assert shipped().slope > 0 and 0 < shipped().usual < 1


def test_the_margin_is_bounded() -> None:
    assert bounded(0) == 0 and bounded(1) == 0.5 and bounded(1e6) < 1
