"""Conditions: one line per comparison, trees of them, and their three-valued evaluation.

A condition is True, False or None (cannot be decided, because a measurement is missing);
``all``, ``any`` and ``not`` combine the three values as in Kleene's strong logic.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from analyzer.model import All, Condition, Features, Leaf, Measurement, Missing, Not, Param, SomeOf, Unless
from analyzer.rulebook.nodes import did_you_mean, parse_number

OPERATORS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    ">": operator.gt,
    "<=": operator.le,
    "<": operator.lt,
    "==": operator.eq,
    "!=": operator.ne,
}
OPPOSITE = {">=": "<", "<": ">=", ">": "<=", "<=": ">", "==": "!=", "!=": "=="}
MARGIN_MAX = 1e6
ALWAYS = All(())
_LEAF = re.compile(r"\s*([^\s<>=!~]+)\s*([<>=!~]+)\s*([^\s<>=!~]\S*)\s*")


class LeafError(ValueError):
    """A comparison that cannot be read; ``offset`` is the character where it goes wrong."""

    def __init__(self, message: str, hint: str = "", offset: int = 0):
        super().__init__(message)
        self.message, self.hint, self.offset = message, hint, offset


class Decided(NamedTuple):
    """A comparison that was decided; under a ``not``, ``leaf`` is the opposite comparison.

    ``guard``: it stood under an ``unless``, and so only did not speak against.
    """

    leaf: Leaf
    measurement: Measurement
    guard: bool = False


class Outcome(NamedTuple):
    """What a condition came to, and why.

    ``leaves`` are the comparisons that held (True) or failed (False) and so decided it;
    ``missing`` are (feature, why) where it could not be decided. ``margin`` is how far the
    weakest needed comparison is beyond its threshold, None when there is none to speak of.
    """

    value: bool | None
    leaves: tuple[Decided, ...] = ()
    missing: tuple[tuple[str, Missing], ...] = ()
    margin: float | None = None


Weigh = Callable[[Decided], float | None]


def parse_leaf(line: str, known: Mapping[str, object], params: Mapping[str, Param]) -> Leaf:
    """``feature op number`` or ``feature op $param``; LeafError says what is wrong where."""
    match = _LEAF.fullmatch(line)
    if not match:
        raise LeafError(f"'{line.strip()}' is not of the form 'feature op number' or 'feature op $param'")
    feature, op, threshold = match.groups()
    if feature not in known:
        raise LeafError(f"unknown feature '{feature}'", did_you_mean(feature, known), match.start(1))
    if op not in OPERATORS:
        raise LeafError(f"unknown operator '{op}'", f"use one of {' '.join(OPERATORS)}", match.start(2))
    if not threshold.startswith("$"):
        return Leaf(feature, op, _number(threshold, match.start(3)))
    name = threshold[1:]
    if name not in params:
        raise LeafError(f"unknown parameter '${name}'", did_you_mean(name, params), match.start(3))
    return Leaf(feature, op, params[name].value, name)


def _number(text: str, offset: int) -> float:
    try:
        value = float(parse_number(text))
    except ValueError as error:
        raise LeafError(str(error), "write a number or $param", offset) from None
    if not math.isfinite(value):
        raise LeafError("a threshold must be finite", "", offset)
    return value


def leaves(condition: Condition | None) -> Iterator[Leaf]:
    """Every comparison in a condition, as written."""
    if isinstance(condition, Leaf):
        yield condition
    elif isinstance(condition, Not | Unless):
        yield from leaves(condition.item)
    elif condition is not None:
        for item in condition.items:
            yield from leaves(item)


def truth(condition: Condition, features: Features, negated: bool = False) -> bool | None:
    """The value that :func:`decide` would come to, after asking for the same features, without the reasons."""
    if isinstance(condition, Leaf):
        found = features.get(condition.feature)
        if not isinstance(found, Measurement) or math.isnan(found.value):
            return None
        return bool(OPERATORS[condition.op](found.value, condition.threshold)) is not negated
    if isinstance(condition, Not):
        return truth(condition.item, features, not negated)
    if isinstance(condition, Unless):
        value = truth(condition.item, features, not negated)
        return not negated if value is None else value
    if isinstance(condition, SomeOf):
        known = [v for v in (truth(item, features, negated) for item in condition.items) if v is not None]
        return None if not known else all(known) if negated else any(known)
    if isinstance(condition, All) is not negated:
        return _every(truth(item, features, negated) for item in condition.items)
    values = [truth(item, features, negated) for item in condition.items]
    return True if True in values else None if None in values else False


def _every(values: Iterator[bool | None]) -> bool | None:
    decided: bool | None = True
    for value in values:
        if value is False:
            return False
        decided = decided and value
    return decided


def decide(
    condition: Condition, features: Features, weigh: Weigh | None = None, negated: bool = False
) -> Outcome:
    """Decide ``condition``; ``all`` stops at the first part that fails.

    ``weigh`` gives a comparison's margin, or None where a margin says nothing.
    """
    if isinstance(condition, Leaf):
        return _leaf(condition, features, weigh or margin, negated)
    if isinstance(condition, Not):
        return decide(condition.item, features, weigh, not negated)
    if isinstance(condition, Unless):
        return _unless(condition, features, weigh, negated)
    if isinstance(condition, SomeOf):
        return _some([decide(item, features, weigh, negated) for item in condition.items], negated)
    outcomes = (decide(item, features, weigh, negated) for item in condition.items)
    return _all(outcomes) if isinstance(condition, All) != negated else _any(list(outcomes))


def _unless(condition: Unless, features: Features, weigh: Weigh | None, negated: bool) -> Outcome:
    """Always decided; what held against a bound adds no margin, since it might have been missing."""
    found = decide(condition.item, features, weigh, not negated)
    if found.value is None:
        return Outcome(not negated)
    return Outcome(found.value, tuple(d._replace(guard=True) for d in found.leaves))


def _leaf(leaf: Leaf, features: Features, weigh: Weigh, negated: bool) -> Outcome:
    found = features.get(leaf.feature)
    if not isinstance(found, Measurement):
        return Outcome(None, missing=((leaf.feature, found or Missing(f"{leaf.feature} was not measured")),))
    if math.isnan(found.value):
        return Outcome(None, missing=((leaf.feature, Missing(f"{leaf.feature} is not a number")),))
    if negated:
        leaf = Leaf(leaf.feature, OPPOSITE[leaf.op], leaf.threshold, leaf.param)
    decided = Decided(leaf, found)
    holds = bool(OPERATORS[leaf.op](found.value, leaf.threshold))
    return Outcome(holds, (decided,), margin=weigh(decided) if holds else None)


def _all(outcomes: Iterator[Outcome]) -> Outcome:
    seen = []
    for outcome in outcomes:
        if outcome.value is False:
            return outcome
        seen.append(outcome)
    undecided = _missing(seen)
    if undecided:
        return Outcome(None, missing=undecided)
    margins = [o.margin for o in seen if o.margin is not None]
    return Outcome(True, _leaves(seen), margin=min(margins, default=None))


def _any(outcomes: list[Outcome]) -> Outcome:
    held = [o for o in outcomes if o.value]
    if held:
        margins = [o.margin for o in held if o.margin is not None]
        return Outcome(True, _leaves(held), margin=max(margins, default=None))
    undecided = _missing(outcomes)
    return Outcome(None, missing=undecided) if undecided else Outcome(False, _leaves(outcomes))


def _some(outcomes: list[Outcome], negated: bool) -> Outcome:
    """``any`` (negated: ``all``) of the parts that could be decided; unknown when none could."""
    decided = [o for o in outcomes if o.value is not None]
    if not decided:
        return Outcome(None, missing=_missing(outcomes))
    return _all(iter(decided)) if negated else _any(decided)


def _leaves(outcomes: list[Outcome]) -> tuple[Decided, ...]:
    if len(outcomes) == 1:
        return outcomes[0].leaves
    return tuple(dict.fromkeys(leaf for o in outcomes for leaf in o.leaves))


def _missing(outcomes: list[Outcome]) -> tuple[tuple[str, Missing], ...]:
    undecided = [o.missing for o in outcomes if o.value is None]
    return tuple(dict.fromkeys(m for missing in undecided for m in missing)) if undecided else ()


def margin(decided: Decided) -> float:
    """How far beyond its threshold a comparison holds: 0 at it, 1 at twice it, at most 1e6.

    The distance is relative to the threshold's size, or as it is when the threshold is 0.
    """
    value, threshold = decided.measurement.value, decided.leaf.threshold
    distance = abs(value - threshold) / (abs(threshold) or 1.0)
    return min(distance, MARGIN_MAX)
