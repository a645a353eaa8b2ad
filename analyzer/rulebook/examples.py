"""Runs the tests embedded in rules."""

from __future__ import annotations

import re
from collections import ChainMap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import cast

from analyzer.model import (
    Direction,
    Features,
    Finding,
    Measurement,
    Missing,
    NotApplicable,
    Rule,
    RuleTest,
    Run,
    Series,
)
from analyzer.rulebook.conditions import decide
from analyzer.rulebook.evaluate import evaluate
from analyzer.rulebook.example_curves import curve
from analyzer.rulebook.fill import Specs, sentence

Compute = Callable[[Run], Features]
AssignRoles = Callable[[Sequence[Series]], Iterable[Series]]
LOWER = ("loss", "perplexity", "error")
HIGHER = ("accuracy", "metric", "reward", "score")
_ROLE = re.compile(r"(\w+)(?:\[(.+)\])?")


@dataclass(frozen=True, slots=True)
class ExampleResult:
    """``rule`` and ``test`` are names; ``got`` is fires, quiet, not_applicable or error."""

    rule: str
    test: str
    passed: bool
    got: str
    detail: str


def run_example(
    rule: Rule, test: RuleTest, compute: Compute, specs: Specs, assign: AssignRoles | None = None
) -> ExampleResult:
    """Whether ``rule`` says of the described run what it should; ``detail`` tells why it said so.

    ``assign`` gives ``tag:`` series their roles.
    """
    try:
        got, detail = _outcome(rule, example_features(test, compute, assign), specs)
    except ValueError as error:
        got, detail = "error", str(error)
    return ExampleResult(rule.id, test.name, got == test.expect, got, f"{got}: {detail}")


def _outcome(rule: Rule, features: Features, specs: Specs) -> tuple[str, str]:
    result = evaluate(rule, features, specs)
    if isinstance(result, Finding):
        return "fires", "; ".join(e.text for e in result.evidence)
    if isinstance(result, NotApplicable):
        return "not_applicable", result.reason
    failed = decide(rule.when, features).leaves
    return "quiet", "; ".join(sentence(d, specs[d.leaf.feature]) for d in failed)


def example_features(test: RuleTest, compute: Compute, assign: AssignRoles | None = None) -> Features:
    """The features of the run a test describes, those it gives itself replaced."""
    series = [example_series(key, described) for key, described in test.series.items()]
    named = [s for s in series if s.role]
    bare = [s for s in series if not s.role]
    run = Run(
        test.name,
        "",
        series=(*named, *(assign(bare) if assign else bare)),
        hyperparameters=test.hyperparameters,
    )
    given = {name: _given(value) for name, value in test.features.items()}
    return cast(Features, ChainMap(given, cast(dict[str, Measurement | Missing], compute(run))))


def _given(value: object) -> Measurement | Missing:
    if isinstance(value, Measurement):
        return value
    if value is None:
        return Missing("left out by the test")
    return Measurement(float(cast(float, value)))


def example_series(key: str, described: object) -> Series:
    """``role``, ``role[subject]`` or ``tag:name`` and the description of its curve.

    A ``tag:`` series has no role yet.
    """
    try:
        steps, values = curve(described)
    except ValueError as error:
        raise ValueError(f"series '{key}': {error}") from None
    if key.startswith("tag:"):
        return Series(key.removeprefix("tag:"), steps, values)
    match = _ROLE.fullmatch(key)
    if not match:
        raise ValueError(f"series '{key}': write role, role[subject] or tag:name")
    role, subject = match[1], match[2] or ""
    return Series(key, steps, values, role=role, subject=subject, direction=_direction(role))


def _direction(role: str) -> Direction:
    if any(word in role for word in HIGHER):
        return "higher"
    return "lower" if any(word in role for word in LOWER) else "unknown"
