"""The order of findings, what explains what, and the verdict."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analyzer.model import SEVERITIES, Finding, Leaf, NotApplicable, Rule, Severity
from analyzer.rulebook.ranking import rank
from analyzer.rulebook.verdict import verdict


def rule(name: str, *explains: str, severity: Severity = "warning", family: str = "convergence") -> Rule:
    leaf = Leaf("a.x", ">", 0)
    return Rule(
        name, name, family, severity, "run", "", leaf, leaf, "", 0.5, {}, (), (), (), (), explains, ()
    )


def found(name: str, severity: Severity = "warning", confidence: float = 0.5, margin: float = 0.0) -> Finding:
    return Finding(name, name, severity, confidence, "", "", margin=margin)


def order(findings: list[Finding], *rules: Rule) -> list[tuple[str, str | None]]:
    return [(f.rule, f.explained_by) for f in rank(findings, rules)]


def test_severity_comes_before_confidence_and_margin_before_id() -> None:
    findings = [
        found("sure", "info", 1.0, 1e6),
        found("b", confidence=0.6),
        found("a", confidence=0.6),
        found("clear", confidence=0.6, margin=1.0),
        found("bad", "critical", 0.1),
    ]
    assert [name for name, _ in order(findings)] == ["bad", "clear", "a", "b", "sure"]


def test_a_huge_margin_cannot_make_up_for_a_doubtful_rule() -> None:
    assert (
        order([found("doubtful", confidence=0.3, margin=1e6), found("sure", confidence=0.9)])[0][0] == "sure"
    )


def test_what_is_explained_follows_its_explanation() -> None:
    findings = [
        found("cause", confidence=0.5),
        found("effect", confidence=0.9),
        found("other", confidence=0.7),
    ]
    assert order(findings, rule("cause", "effect")) == [("cause", None), ("effect", "cause"), ("other", None)]


def test_an_explanation_that_did_not_fire_explains_nothing() -> None:
    assert order([found("effect")], rule("cause", "effect")) == [("effect", None)]


def test_a_milder_finding_explains_nothing_more_severe() -> None:
    findings = [found("nan", "critical"), found("lr", "info"), found("leak", "warning", 0.9)]
    ranked = rank(findings, [rule("lr", "nan")])
    assert [(f.rule, f.explained_by) for f in ranked] == [("nan", None), ("leak", None), ("lr", None)]


def test_the_most_severe_come_first_even_where_a_finding_explains_a_milder_one() -> None:
    findings = [found("overfit", "warning"), found("waste", "info"), found("leak", "warning", 0.1)]
    ranked = rank(findings, [rule("overfit", "waste")])
    assert [(f.rule, f.explained_by) for f in ranked] == [
        ("overfit", None),
        ("leak", None),
        ("waste", "overfit"),
    ]


def test_chains_nest_depth_first() -> None:
    findings = [found("a"), found("b"), found("c"), found("d", confidence=0.9)]
    rules = [rule("c", "b", "d"), rule("b", "a")]
    assert order(findings, *rules) == [("c", None), ("d", "c"), ("b", "c"), ("a", "b")]


def test_of_two_explanations_the_better_one_holds() -> None:
    findings = [found("effect"), found("weak", confidence=0.2), found("strong", confidence=0.4)]
    ranked = order(findings, rule("weak", "effect"), rule("strong", "effect"))
    assert ranked == [("strong", None), ("effect", "strong"), ("weak", None)]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(SEVERITIES), st.floats(0, 1), st.floats(0, 1e6), st.sets(st.integers(0, 7))
        ),
        max_size=8,
    ),
    st.randoms(),
)
def test_ranking_holds_for_any_explanations(
    given_findings: list[tuple[Severity, float, float, set[int]]], shuffle: random.Random
) -> None:
    """Even where explanations go round in circles, as rules of several folders together may."""
    findings = [found(f"r{i}", s, c, m) for i, (s, c, m, _) in enumerate(given_findings)]
    rules = [rule(f"r{i}", *(f"r{j}" for j in e)) for i, (*_, e) in enumerate(given_findings)]
    ranked = rank(findings, rules)
    assert sorted(f.rule for f in ranked) == [f.rule for f in findings]
    place = {f.rule: i for i, f in enumerate(ranked)}
    for f in ranked:
        assert f.explained_by is None or place[f.explained_by] < place[f.rule]
    roots = [f for f in ranked if f.explained_by is None]
    assert roots or not ranked
    shuffle.shuffle(findings)
    assert rank(findings, rules) == ranked
    assert rank(ranked, rules) == ranked


RULES = [
    rule("loss"),
    rule("converged", severity="info"),
    rule("grad", family="gradients"),
    rule("nan", family="numerics", severity="critical"),
]


@pytest.mark.parametrize(
    ("findings", "undecided", "expected"),
    [
        ([found("loss"), found("nan", "critical")], [], "critical"),
        ([found("loss"), found("converged", "info")], [], "warning"),
        ([found("converged", "info")], [], "healthy"),
        ([], [], "healthy"),
        ([], ["grad", "nan", "converged"], "healthy"),
        ([found("converged", "info")], ["loss"], "info"),
        ([], ["loss"], "not-assessed"),
        ([], ["loss", "converged", "grad", "nan"], "not-assessed"),
        ([found("grad")], ["loss", "converged", "nan"], "warning"),
    ],
)
def test_the_verdict(findings: list[Finding], undecided: list[str], expected: str) -> None:
    absent = [NotApplicable(name, (), "") for name in undecided]
    assert verdict(findings, RULES, absent) == expected


@pytest.mark.parametrize("family", ["generalization", "convergence", "layers"])
def test_only_rules_that_can_warn_vouch_for_health(family: str) -> None:
    warns = replace(RULES[0], family=family)
    assert verdict([], [warns], []) == "healthy"
    assert verdict([], [replace(warns, severity="info")], []) == "not-assessed"
    assert verdict([], [replace(warns, family="logs")], []) == "not-assessed"
    assert verdict([], [], []) == "not-assessed"
