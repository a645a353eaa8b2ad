"""Conditions: parsing, three-valued logic, margins, and what evaluation makes of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analyzer.model import (
    All,
    AnyOf,
    Cause,
    Condition,
    Features,
    Finding,
    Leaf,
    Mark,
    Measurement,
    Missing,
    Not,
    NotApplicable,
    Param,
    Remedy,
    Rule,
    SomeOf,
    Unless,
)
from analyzer.rulebook.conditions import (
    OPERATORS,
    OPPOSITE,
    Decided,
    LeafError,
    decide,
    leaves,
    margin,
    parse_leaf,
    truth,
)
from analyzer.rulebook.evaluate import diagnose, evaluate, likely_causes
from analyzer.rulebook.fill import fill, fill_code, number_text, sentence


@dataclass(frozen=True)
class Spec:
    unit: str = "value"
    low: float = -math.inf
    high: float = math.inf
    meaning: str = "some measure"
    label: str = ""


SPECS: dict[str, Spec] = {
    "a.x": Spec("ratio", meaning="rise of the loss; 1 is a doubling", label="rise of the loss"),
    "a.y": Spec(meaning="slope"),
    "a.count": Spec("count", meaning="spikes"),
    "a.flag": Spec("flag", meaning="1 where the loss is summed"),
    "a.step": Spec("step", meaning="step of the best loss"),
    "a.layer": Spec(meaning="share of dead units"),
}
PARAMS = {"limit": Param(0.05, "ratio", "measured")}
NAMES = st.sampled_from(sorted(SPECS))
THRESHOLDS = st.sampled_from([-1.0, 0.0, 0.5, 2.0])
LEAVES = st.builds(Leaf, NAMES, st.sampled_from(sorted(OPERATORS)), THRESHOLDS)
CONDITIONS: st.SearchStrategy[Condition] = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.builds(lambda items: All(tuple(items)), st.lists(inner, min_size=1, max_size=3)),
        st.builds(lambda items: AnyOf(tuple(items)), st.lists(inner, min_size=1, max_size=3)),
        st.builds(Not, inner),
    ),
    max_leaves=12,
)
EVERY_KIND: st.SearchStrategy[Condition] = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        *(
            st.builds(lambda items, kind=kind: kind(tuple(items)), st.lists(inner, min_size=1, max_size=3))
            for kind in (All, AnyOf, SomeOf)
        ),
        st.builds(Not, inner),
        st.builds(Unless, inner),
    ),
    max_leaves=12,
)
VALUES = st.one_of(st.none(), st.sampled_from([-math.inf, -1.0, 0.0, 0.5, 1.0, 2.0, 3.0, math.inf, math.nan]))
MEASURED = st.fixed_dictionaries(dict.fromkeys(SPECS, VALUES))


def features_of(values: Mapping[str, float | None]) -> Features:
    return {k: Missing(f"no {k}") if v is None else Measurement(v) for k, v in values.items()}


def slow_oracle(condition: Condition, values: Mapping[str, float | None]) -> float:
    """Kleene's logic with false, unknown, true as 0, 0.5, 1."""
    if isinstance(condition, Leaf):
        value = values[condition.feature]
        if value is None or math.isnan(value):
            return 0.5
        order = (value > condition.threshold) - (value < condition.threshold)
        return float(
            order
            in {">=": (0, 1), ">": (1,), "<=": (0, -1), "<": (-1,), "==": (0,), "!=": (1, -1)}[condition.op]
        )
    if isinstance(condition, Not):
        return 1 - slow_oracle(condition.item, values)
    parts = [slow_oracle(item, values) for item in condition.items]
    return min(parts) if isinstance(condition, All) else max(parts)


class Asked(dict[str, Measurement | Missing]):
    """Features that remember what they were asked for, in order."""

    def __init__(self, known: Features):
        super().__init__(known)
        self.names: list[str] = []

    def get(self, name: str, default: object = None) -> object:
        self.names.append(name)
        return super().get(name, default)


@given(EVERY_KIND, MEASURED)
def test_the_truth_alone_is_what_deciding_comes_to_and_asks_for_the_same(
    condition: Condition, values: Mapping[str, float | None]
) -> None:
    quick, slow = Asked(features_of(values)), Asked(features_of(values))
    assert truth(condition, quick) is decide(condition, slow).value
    assert quick.names == slow.names


@pytest.mark.parametrize("op", OPERATORS)
def test_a_comparison_with_a_number_and_with_a_parameter(op: str) -> None:
    assert parse_leaf(f"a.x {op} 1e-3", SPECS, PARAMS) == Leaf("a.x", op, 0.001)
    assert parse_leaf(f" a.x{op}$limit ", SPECS, PARAMS) == Leaf("a.x", op, 0.05, "limit")


@pytest.mark.parametrize(
    ("line", "message", "hint", "offset"),
    [
        ("a.z > 1", "unknown feature 'a.z'", "did you mean 'a.", 0),
        ("a.x => 1", "unknown operator '=>'", "use one of", 4),
        ("a.x > $limt", "unknown parameter '$limt'", "did you mean 'limit'?", 6),
        ("a.x > 1.2.3", "'1.2.3' is not a number", "write a number", 6),
        ("a.x > a.y", "'a.y' is not a number", "write a number", 6),
        ("a.x > .nan", "a threshold must be finite", "", 6),
        ("a.x", "not of the form", "", 0),
        ("a.x > 1 + 2", "not of the form", "", 0),
        ("0 < a.x < 1", "not of the form", "", 0),
        ("__import__('os') > 1", "unknown feature", "", 0),
    ],
)
def test_what_is_no_comparison_is_named(line: str, message: str, hint: str, offset: int) -> None:
    with pytest.raises(LeafError) as caught:
        parse_leaf(line, SPECS, PARAMS)
    assert message in caught.value.message
    assert hint in caught.value.hint
    assert caught.value.offset == offset


@given(CONDITIONS, MEASURED)
def test_logic_agrees_with_kleene(condition: Condition, values: Mapping[str, float | None]) -> None:
    expected = {0.0: False, 0.5: None, 1.0: True}[slow_oracle(condition, values)]
    assert decide(condition, features_of(values)).value is expected


@given(CONDITIONS, MEASURED)
def test_the_leaves_named_are_what_decided(condition: Condition, values: Mapping[str, float | None]) -> None:
    outcome = decide(condition, features_of(values))
    names = {leaf.feature for leaf in leaves(condition)}
    for decided in outcome.leaves:
        holds = OPERATORS[decided.leaf.op](decided.measurement.value, decided.leaf.threshold)
        assert holds is outcome.value
        assert decided.leaf.feature in names
    assert bool(outcome.leaves) == (outcome.value is not None)
    assert bool(outcome.missing) == (outcome.value is None)
    for name, _ in outcome.missing:
        value = values[name]
        assert value is None or math.isnan(value)


@given(CONDITIONS, MEASURED)
def test_learning_more_never_reverses_a_decision(
    condition: Condition, values: Mapping[str, float | None]
) -> None:
    before = decide(condition, features_of(values)).value
    known = {k: 0.5 if v is None or math.isnan(v) else v for k, v in values.items()}
    after = decide(condition, features_of(known)).value
    assert after is not None
    assert before is None or before is after


def test_under_a_not_the_opposite_comparison_is_the_evidence() -> None:
    outcome = decide(
        Not(AnyOf((Leaf("a.x", ">", 1), Leaf("a.y", "<=", 0)))), features_of({"a.x": 0, "a.y": 3})
    )
    assert outcome.value is True
    assert [(d.leaf.feature, d.leaf.op) for d in outcome.leaves] == [("a.x", "<="), ("a.y", ">")]
    assert {OPPOSITE[OPPOSITE[op]] for op in OPERATORS} == set(OPERATORS)


def test_only_what_held_is_evidence_of_an_any() -> None:
    either = AnyOf((Leaf("a.x", ">", 1), Leaf("a.y", ">", 1), Leaf("a.count", ">", 1)))
    outcome = decide(either, features_of({"a.x": 0, "a.y": 3, "a.count": None}))
    assert [d.leaf.feature for d in outcome.leaves] == ["a.y"]
    undecided = decide(either, features_of({"a.x": 0, "a.y": None, "a.count": None}))
    assert [name for name, _ in undecided.missing] == ["a.y", "a.count"]


def test_all_stops_measuring_at_the_first_failure() -> None:
    asked: list[str] = []

    class Recording(dict[str, Measurement | Missing]):
        def get(self, name: str, default: object = None) -> Measurement | Missing:  # type: ignore[override]
            asked.append(name)
            return self[name]

    both = All((Leaf("a.x", ">", 1), Leaf("a.y", ">", 1)))
    assert decide(both, Recording(features_of({"a.x": 0, "a.y": 3}))).value is False
    assert asked == ["a.x"]


@pytest.mark.parametrize(
    ("value", "op", "threshold", "expected"),
    [
        (0.05, ">=", 0.05, 0),
        (0.10, ">=", 0.05, 1),
        (0.0, "<", 0.5, 1),
        (-3.0, "<", -1.0, 2),
        (-0.5, ">", -1.0, 0.5),
        (0.3, ">", 0.0, 0.3),
        (-2.0, "<", 0.0, 2),
        (math.inf, ">", 1.0, 1e6),
        (-math.inf, "<", 0.0, 1e6),
        (1e300, ">", 1e-300, 1e6),
    ],
)
def test_the_margin_is_relative_and_bounded(value: float, op: str, threshold: float, expected: float) -> None:
    assert margin(Decided(Leaf("a.x", op, threshold), Measurement(value))) == pytest.approx(expected)


def test_the_margin_of_a_tree_is_its_weakest_need_and_its_best_alternative() -> None:
    weak, strong = Leaf("a.x", ">", 1), Leaf("a.y", ">", 1)
    known = features_of({"a.x": 1.5, "a.y": 4})
    assert decide(All((weak, strong)), known).margin == pytest.approx(0.5)
    assert decide(AnyOf((weak, strong)), known).margin == pytest.approx(3)


# What evaluation makes of a rule.

RULE = Rule(
    id="rising",
    title="Rising",
    family="x",
    severity="warning",
    scope="run",
    why="why",
    when=All((Leaf("a.x", ">=", 0.05, "limit"), Leaf("a.y", "<", 0))),
    applies_when=Leaf("a.count", ">=", 8),
    evidence="up {a.x:.0%} from step {a.step}",
    confidence=0.8,
    params=PARAMS,
    causes=(),
    remedies=(Remedy("Stop after {a.step}", "low", {"pytorch": "stop(<<a.step|10>>)"}),),
    false_positives=("noise",),
    references=("https://example.org",),
    explains=(),
    tests=(),
    path="rules/x/rising.yaml",
)
KNOWN: dict[str, Measurement | Missing] = {
    "a.x": Measurement(0.42, (100, 400), "val_loss", "fc1", ("fc1", "fc2")),
    "a.y": Measurement(-0.5, (200, 500), "val_loss"),
    "a.count": Measurement(20),
    "a.step": Measurement(1234, (1234, 1234), "val_loss"),
    "a.flag": Missing("not logged", ("flags",)),
}


def finding(rule: Rule = RULE, features: Features = KNOWN) -> Finding:
    result = evaluate(rule, features, SPECS)
    assert isinstance(result, Finding)
    return result


def test_a_finding_says_what_was_measured() -> None:
    found = finding()
    assert (found.rule, found.severity, found.scope_kind, found.scope_name) == (
        "rising",
        "warning",
        "run",
        None,
    )
    assert found.summary == "up 42% from step 1,234"
    assert [(e.feature, e.value, e.op, e.threshold) for e in found.evidence] == [
        ("a.x", 0.42, ">=", 0.05),
        ("a.y", -0.5, "<", 0.0),
    ]
    assert found.evidence[0].text == "rise of the loss: 42 % in fc1 (threshold: at least 5 %)"
    assert found.evidence[0].margin == pytest.approx(7.4)
    assert found.steps == (100, 500)
    assert found.remedies == (Remedy("Stop after 1,234", "low", {"pytorch": "stop(1234)"}),)
    assert (found.false_positives, found.references) == (("noise",), ("https://example.org",))


def test_what_is_absent_is_told_after_what_is_there() -> None:
    rule = replace(RULE, when=All((Leaf("a.flag", "==", 0), Leaf("a.x", ">=", 0.05), Leaf("a.y", "<=", 0))))
    found = finding(rule, KNOWN | {"a.flag": Measurement(0), "a.y": Measurement(-1)})
    assert [e.feature for e in found.evidence] == ["a.x", "a.y", "a.flag"]


def test_what_merely_does_not_speak_against_is_told_last() -> None:
    rule = replace(RULE, when=All((Unless(Leaf("a.y", ">", 0)), Leaf("a.x", ">=", 0.05))))
    assert [e.feature for e in finding(rule).evidence] == ["a.x", "a.y"]


def test_marks_are_the_places_spoken_of_once_each() -> None:
    twice = replace(RULE, evidence="{a.step} and {a.step:.0f} of {a.x}")
    assert finding(twice).marks == (
        Mark("val_loss", 100, 400, "rise of the loss"),
        Mark("val_loss", 200, 500, "slope"),
        Mark("val_loss", 1234, 1234, "step of the best loss"),
    )


def test_steps_of_another_curve_are_not_mixed_in() -> None:
    assert finding(features=KNOWN | {"a.y": Measurement(-1, (0, 9999), "train_loss")}).steps == (100, 400)


@pytest.mark.parametrize("scope", ["layer", "checkpoint"])
def test_a_layers_finding_names_it(scope: str) -> None:
    assert finding(replace(RULE, scope=scope)).scope_name == "fc1"
    assert finding(replace(RULE, scope=scope), KNOWN | {"a.x": Measurement(1)}).scope_name is None


def test_a_rule_that_applies_and_does_not_hold_says_nothing() -> None:
    assert evaluate(RULE, KNOWN | {"a.x": Measurement(0.01)}, SPECS) is None


@pytest.mark.parametrize(
    ("changed", "missing", "reason"),
    [
        ({"a.count": Measurement(3)}, ("a.count",), "spikes: 3 (threshold: at least 8)"),
        ({"a.count": Missing("no losses", ("val_loss",))}, ("val_loss",), "no losses"),
        ({"a.x": Missing("too short")}, ("a.x",), "too short"),
        ({"a.x": Measurement(math.nan)}, ("a.x",), "a.x is not a number"),
        (
            {"a.x": Missing("no b", ("b", "c")), "a.y": Missing("no c", ("c",))},
            ("b", "c"),
            "no b; no c",
        ),
    ],
)
def test_what_cannot_be_judged_says_why(changed: Features, missing: tuple[str, ...], reason: str) -> None:
    assert evaluate(RULE, {**KNOWN, **changed}, SPECS) == NotApplicable("rising", missing, reason)


def test_a_failing_rule_is_a_problem_and_not_a_clean_bill() -> None:
    class Broken(dict[str, Measurement | Missing]):
        def get(self, name: str, default: object = None) -> Measurement | Missing:  # type: ignore[override]
            if name == "a.count":
                raise ZeroDivisionError("by zero")
            return self[name]

    other = replace(RULE, id="other", applies_when=All(()))
    findings, absent, problems = diagnose([RULE, other], Broken(KNOWN), SPECS)
    assert [f.rule for f in findings] == ["other"]
    assert [a.rule for a in absent] == ["rising"]
    assert (problems[0].path, problems[0].kind) == ("rules/x/rising.yaml", "rule-error")
    assert "ZeroDivisionError: by zero" in problems[0].message


@pytest.mark.parametrize(
    "when",
    [
        Leaf("a.flag", "==", 1),
        Leaf("a.flag", ">=", 1),
        Leaf("a.count", ">=", 1),
        Leaf("a.count", ">", 0),
        Leaf("a.y", "<", 0),
    ],
)
def test_flags_presence_and_signs_leave_the_prior_alone(when: Leaf) -> None:
    known = features_of({"a.flag": 1, "a.count": 1, "a.y": -1e-9})
    assert finding(replace(RULE, when=when, applies_when=All(())), known).confidence == 0.8


def test_a_close_call_is_less_certain_than_a_clear_one() -> None:
    close, clear = (finding(features=KNOWN | {"a.x": Measurement(x)}) for x in (0.051, 0.5))
    assert close.confidence < 0.8 < clear.confidence
    assert close.margin == pytest.approx(0.02)


def test_causes_are_moved_by_evidence_and_ordered() -> None:
    causes = (
        Cause("plain", "plain", 0.2),
        Cause("backed", "backed", 0.2, more_likely_when=Leaf("a.x", ">", 0.1)),
        Cause("refuted", "refuted", 0.2, less_likely_when=Leaf("a.y", "<", 0)),
        Cause("unknown", "unknown", 0.2, more_likely_when=Leaf("a.flag", ">", 0)),
        Cause("unmet", "unmet", 0.2, more_likely_when=Leaf("a.x", ">", 1)),
    )
    found = likely_causes(causes, KNOWN, SPECS)
    assert [c.id for c in found] == ["backed", "plain", "unknown", "unmet", "refuted"]
    assert found[0].likelihood / found[1].likelihood == pytest.approx((3 / 7) / 0.2)
    assert found[4].likelihood / found[1].likelihood == pytest.approx((1 / 13) / 0.2)
    assert sum(c.likelihood for c in found) == pytest.approx(1)
    assert found[0].evidence == ("for: rise of the loss: 42 % in fc1 (threshold: above 10 %)",)
    assert found[4].evidence == ("against: slope: -0.5 (threshold: below 0)",)
    assert found[1].evidence == found[2].evidence == ()


@pytest.mark.parametrize(("weight", "expected"), [(0.0, 0.0), (0.3, 9 / 16), (1.0, 1.0)])
def test_a_lone_cause_is_not_scaled_up(weight: float, expected: float) -> None:
    (cause,) = likely_causes([Cause("c", "c", weight, Leaf("a.x", ">", 0))], KNOWN, SPECS)
    assert cause.likelihood == pytest.approx(expected)


# Texts.


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.42, "ratio", "42 %"),
        (-0.0123, "ratio", "-1.23 %"),
        (1.257, "ratio", "126 %"),
        (8.571, "ratio", "8.57×"),
        (-1857.0, "ratio", "-1,857×"),
        (9.67e24, "factor", "9.67e+24×"),
        (12345.0, "count", "12,345"),
        (5.234, "sigma", "5.23 σ"),
        (1349.4, "sigma", "1,349 σ"),
        (1, "flag", "yes"),
        (0, "flag", "no"),
        (1200.4, "step", "1,200"),
        (3e-5, "value", "3e-05"),
        (math.nan, "ratio", "NaN"),
        (math.inf, "count", "infinite"),
        (-math.inf, "value", "minus infinite"),
    ],
)
def test_values_in_their_units(value: float, unit: str, text: str) -> None:
    assert number_text(value, unit) == text


@pytest.mark.parametrize(
    ("value", "threshold", "text"),
    [(12.34, 0.05, "1,234 % (threshold: above 5 %)"), (4.0, 2.0, "4× (threshold: above 2×)")],
)
def test_a_ratio_and_its_threshold_are_written_alike(value: float, threshold: float, text: str) -> None:
    decided = Decided(Leaf("a.x", ">", threshold), Measurement(value))
    assert sentence(decided, SPECS["a.x"]) == f"rise of the loss: {text}"


def test_a_flags_sentence_has_no_threshold() -> None:
    decided = Decided(Leaf("a.flag", "==", 1), Measurement(1))
    assert sentence(decided, SPECS["a.flag"]) == "the loss is summed: yes"


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{a.x}", "42 %"),
        ("{a.x:.1%}", "42.0%"),
        ("{a.x:.2f}", "0.42"),
        ("{a.step:d} {a.step:,} {a.step:,d}", "1234 1,234 1,234"),
        ("{a.x.where}: {a.x.items}", "fc1: fc1, fc2"),
        ("{a.step:d sudden drop}, {a.x:d step} or {a.flag:d step}", "1,234 sudden drops, 0 steps or unknown"),
        ("{a.x.step} {a.x.first:.0f}-{a.x.last:.1f}", "100 100-400.0"),
        ("{a.flag} {a.flag:.2f} {a.flag.where} {a.flag.items} {a.flag.step}", " ".join(["unknown"] * 5)),
        ("{a.count.where} {a.count.items} {a.count.first}", "unknown unknown unknown"),
        ("{a.x:>99999999999}", "unknown"),
        ("{a.x.__class__} {0} {}", "unknown unknown unknown"),
        ("no {braces", "no {braces"),
    ],
)
def test_prose_is_filled_by_substitution_alone(template: str, text: str) -> None:
    assert fill(template, KNOWN, SPECS) == text


def test_one_of_a_kind_is_told_in_the_singular() -> None:
    assert fill("{a.count:d spike}", {"a.count": Measurement(1)}, SPECS) == "1 spike"
    assert fill("{a.count:d spike}", {"a.count": Measurement(2)}, SPECS) == "2 spikes"


def test_values_that_are_no_numbers_still_read() -> None:
    known = features_of({"a.x": math.nan, "a.step": math.inf})
    assert fill("{a.x:.0%} {a.step:d} {a.x}", known, SPECS) == "NaN infinite NaN"


def test_many_items_are_cut_and_names_are_one_short_line() -> None:
    names = tuple(f"l{i}" for i in range(8))
    known = {"a.x": Measurement(1, where="a\n\x1b[31m" + "x" * 200, items=names)}
    assert fill("{a.x.items}", known, SPECS) == "l0, l1, l2, l3, l4 and 3 more"
    shown = fill("{a.x.where}", known, SPECS)
    assert len(shown) <= 80
    assert shown.isprintable()


@pytest.mark.parametrize(
    ("snippet", "code"),
    [
        ("f(<<a.x|1>>)", "f(0.42)"),
        ("f(<<a.step|1>>)", "f(1234)"),
        ("f(<<a.flag|1e-3>>)", "f(1e-3)"),
        ("'<<a.x.where|conv>>'", "'fc1'"),
        ("'<<a.flag.where|conv>>'", "'conv'"),
        ('["<<a.x.items|conv>>"]', '["fc1", "fc2"]'),
        ("# <<a.x.items|conv>>", "# fc1, fc2"),
        ("f(<<a.x.first|0>>)", "f(100)"),
        ("x << 3 | y >> 1", "x << 3 | y >> 1"),
        ("d = {'a': 1}", "d = {'a': 1}"),
    ],
)
def test_code_is_filled_with_the_runs_values(snippet: str, code: str) -> None:
    assert fill_code(snippet, KNOWN, SPECS) == code


def test_code_is_never_filled_with_what_is_no_number() -> None:
    known = features_of({"a.x": math.nan, "a.y": math.inf})
    assert fill_code("f(<<a.x|1>>, <<a.y|2>>)", known, SPECS) == "f(1, 2)"


@given(st.text())
def test_a_name_cannot_leave_its_quotes(name: str) -> None:
    known = {"a.layer": Measurement(1, where=name, items=(name, name))}
    code = fill_code('f("<<a.layer.where|fc>>", ["<<a.layer.items|fc>>"])', known, SPECS)
    compile(code, "snippet", "eval")
    assert code.count('"') == (4 if not name else 6)
    assert "\n" not in code


SOME = SomeOf((Leaf("a.x", ">", 1), Leaf("a.y", ">", 1)))


@pytest.mark.parametrize(
    ("x", "y", "expected"),
    [(2, 0, True), (0, 0, False), (0, None, False), (2, None, True), (None, None, None)],
)
def test_some_is_decided_by_what_was_measured(x, y, expected) -> None:
    values = {"a.x": x, "a.y": y}
    features = {k: Missing("not logged") if v is None else Measurement(float(v)) for k, v in values.items()}
    assert decide(SOME, features).value is expected
    negated = decide(Not(SOME), features).value
    assert negated is (None if expected is None else not expected)


@pytest.mark.parametrize(("x", "expected"), [(2.0, False), (0.0, True), (None, True)])
def test_unless_holds_against_anything_but_a_measurement(x, expected) -> None:
    features = {"a.x": Missing("not logged") if x is None else Measurement(x)}
    assert decide(Unless(Leaf("a.x", ">", 1)), features).value is expected
    assert decide(Not(Unless(Leaf("a.x", ">", 1))), features).value is not expected


def test_a_cause_that_knows_nothing_is_left_out() -> None:
    silent = Cause("silent", "The rate fell to {a.none} of its highest.", 0.9)
    told = Cause("told", "It rose by {a.x:.0%}. The rate was {a.none}.", 0.5)
    causes = finding(replace(RULE, causes=(silent, told))).causes
    assert [c.id for c in causes] == ["told"]
    assert "unknown" not in causes[0].text
