"""The tests embedded in the shipped rules, and the curves such tests describe."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from analyzer import features
from analyzer.model import Features, Leaf, Measurement, Missing, Rule, RuleTest, Run, Series
from analyzer.roles import ROLES, with_roles
from analyzer.rulebook import check_rules, load_rules
from analyzer.rulebook.check import check
from analyzer.rulebook.example_curves import curve
from analyzer.rulebook.examples import example_features, example_series, run_example

SHIPPED = load_rules()


@pytest.mark.parametrize(
    ("rule", "test"),
    [pytest.param(r, t, id=f"{r.id}: {t.name}") for r in SHIPPED for t in r.tests],
)
def test_shipped_rule(rule: Rule, test: RuleTest) -> None:
    result = run_example(rule, test, features.compute, features.specs(), with_roles)
    assert result.passed, f"{rule.path}:{test.line}: expected {test.expect}, got {result.detail}"


def test_shipped_rules_pass_the_whole_check() -> None:
    assert {rule.id for rule in check_rules()} == {rule.id for rule in SHIPPED}


def test_shipped_examples_speak_of_known_roles() -> None:
    """A misspelt role would make a rule look not applicable."""
    keys = {key for rule in SHIPPED for test in rule.tests for key in test.series}
    assert {key.partition("[")[0] for key in keys if not key.startswith("tag:")} <= set(ROLES)


@dataclass(frozen=True)
class Spec:
    unit: str = "value"
    low: float = -math.inf
    high: float = math.inf
    meaning: str = "last value"


SPECS = {"train_loss.last": Spec(), "val_loss.last": Spec()}


def last_values(run: Run) -> Features:
    """``role.last`` of each role of ``SPECS``."""

    def last(name: str) -> Measurement | Missing:
        found = run.by_role(name.partition(".")[0])
        return Measurement(float(found[0].values[-1])) if found else Missing("not logged")

    return {name: last(name) for name in SPECS}


def rule_for(**conditions: Leaf) -> Rule:
    return Rule(
        "high", "High", "x", "info", "run", "", conditions["when"], conditions["when"], "", 0.5,
        {}, (), (), (), (), (), (),
    )  # fmt: skip


HIGH = replace(rule_for(when=Leaf("train_loss.last", ">=", 2)), applies_when=Leaf("train_loss.last", ">", -1))


@pytest.mark.parametrize(
    ("series", "given", "got"),
    [
        ({"train_loss": [1, 2, 3]}, {}, "fires"),
        ({"train_loss": [3, 2, 1]}, {}, "quiet"),
        ({"val_loss": [3, 2, 1]}, {}, "not_applicable"),
        ({"train_loss": [3, -1]}, {}, "not_applicable"),
        ({"train_loss": [1, 2, 3]}, {"train_loss.last": 1.0}, "quiet"),
        ({}, {"train_loss.last": Measurement(5)}, "fires"),
        ({"train_loss": [1, 2, 3]}, {"train_loss.last": None}, "not_applicable"),
        ({"train_loss": [1, "x"]}, {}, "error"),
    ],
)
def test_an_example_says_what_the_rule_says(
    series: Mapping[str, object], given: Mapping[str, float], got: str
) -> None:
    for expect in ("fires", "quiet", "not_applicable"):
        result = run_example(HIGH, RuleTest("t", expect, series, given), last_values, SPECS)
        assert (result.got, result.passed) == (got, got == expect)
        assert result.detail.startswith(got)


def test_hyperparameters_reach_the_run() -> None:
    seen: list[Run] = []

    def compute(run: Run) -> Features:
        seen.append(run)
        return {}

    example_features(RuleTest("t", "fires", {}, {}, {"lr": 0.1}), compute)
    assert seen[0].hyperparameters == {"lr": 0.1}


def test_series_keys_are_roles_parts_or_tags() -> None:
    loss = example_series("val_loss", [1, 2])
    assert (loss.role, loss.direction, loss.subject) == ("val_loss", "lower", "")
    assert example_series("val_accuracy", [1]).direction == "higher"
    assert example_series("learning_rate", [1]).direction == "unknown"
    layer = example_series("grad_norm_layer[layers.0]", [1])
    assert (layer.role, layer.subject) == ("grad_norm_layer", "layers.0")
    assert example_series("tag:Loss/val", [1]).tag == "Loss/val"
    with pytest.raises(ValueError, match="write role, role"):
        example_series("val loss", [1])


def test_tags_are_given_roles_together() -> None:
    seen: list[str] = []

    def assign(series: Sequence[Series]) -> list[Series]:
        seen.extend(s.tag for s in series)
        return [replace(s, role="train_loss") for s in series]

    test = RuleTest("t", "fires", {"tag:a/b": [5], "tag:c": [6], "val_loss": [1]})
    assert run_example(HIGH, test, last_values, SPECS, assign).passed
    assert seen == ["a/b", "c"]
    assert run_example(HIGH, test, last_values, SPECS).got == "not_applicable"


def test_numbers_are_points_at_steps_from_zero() -> None:
    steps, values = curve([3, math.nan, math.inf])
    assert steps.tolist() == [0, 1, 2]
    assert values[0] == 3
    assert math.isnan(values[1])
    assert values[2] == math.inf


@pytest.mark.parametrize("shape", ["linear", "exponential"])
def test_a_falling_piece_goes_from_start_to_end(shape: str) -> None:
    steps, values = curve({"points": 50, "start": 2, "end": 0.5, "shape": shape, "every": 10})
    assert steps.tolist() == [10 * i for i in range(50)]
    assert (values[0], values[-1]) == (2, pytest.approx(0.5))
    assert (np.diff(values) < 0).all()
    half_way = (2 - values[24]) / 1.5
    assert half_way == pytest.approx(24 / 49) if shape == "linear" else half_way > 0.9


def test_a_step_and_a_constant() -> None:
    assert curve({"points": 4, "start": 2, "end": 1, "shape": "step"})[1].tolist() == [2, 2, 1, 1]
    assert curve({"points": 3, "start": 2, "end": 1, "shape": "constant"})[1].tolist() == [2, 2, 2]
    assert curve({"points": 3, "start": 2})[1].tolist() == [2, 2, 2]


def test_noise_is_of_the_given_size_and_repeats() -> None:
    piece = {"points": 4000, "start": 1, "noise": 0.2, "seed": 3}
    values = curve(piece)[1]
    assert np.std(values) == pytest.approx(0.2, rel=0.1)
    assert np.array_equal(values, curve(piece)[1])
    assert not np.array_equal(values, curve({**piece, "seed": 4})[1])


def test_a_period_returns() -> None:
    values = curve({"points": 40, "start": 1, "period": 10, "amplitude": 0.3})[1]
    assert values[:30] == pytest.approx(values[10:])
    assert np.ptp(values) == pytest.approx(0.6, rel=0.1)


def test_jumps_add_to_single_points() -> None:
    values = curve({"points": 4, "start": 1, "jumps": {1: 4.0, -1: math.nan}})[1]
    assert values[:3].tolist() == [1, 5, 1]
    assert math.isnan(values[3])


def test_pieces_are_joined_end_to_end() -> None:
    steps, values = curve(
        [{"points": 3, "start": 1, "every": 5}, 9, {"points": 2, "start": 2, "from_step": 100, "every": 2}]
    )
    assert steps.tolist() == [0, 5, 10, 15, 100, 102]
    assert values.tolist() == [1, 1, 1, 9, 2, 2]


@pytest.mark.parametrize(
    "described",
    [
        [],
        "text",
        {"points": 3},
        {"points": 0, "start": 1},
        {"points": 3, "start": 1, "every": 0},
        {"points": 3, "start": "1"},
        {"points": 3, "start": 1, "jumps": {7: 1}},
        {"points": 3, "start": 1, "jumps": [1]},
        {"points": math.inf, "start": 1},
        {"points": 3, "start": 1, "every": math.nan},
        {"points": 3, "start": 1, "seed": -1, "noise": 1},
        True,
    ],
    ids=str,
)
def test_what_is_no_curve_is_refused(described: object) -> None:
    with pytest.raises(ValueError, match=r"\w+"):
        curve(described)


def test_the_rule_in_the_documentation_works(tmp_path: Path) -> None:
    text = (Path(__file__).parent.parent / "docs" / "rules.md").read_text(encoding="utf-8")
    path = tmp_path / "validation-rebound.yaml"
    path.write_text(text.partition("```yaml\n")[2].partition("```")[0], encoding="utf-8")
    (rule,) = check([path], features.specs())
    assert {test.expect for test in rule.tests} == {"fires", "quiet", "not_applicable"}
    for test in rule.tests:
        result = run_example(rule, test, features.compute, features.specs())
        assert result.passed, result
