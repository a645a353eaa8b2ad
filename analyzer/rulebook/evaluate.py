"""One rule and the features of one run -> a finding, nothing, or why it does not apply."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from analyzer.model import (
    Cause,
    Evidence,
    Features,
    Finding,
    LikelyCause,
    Mark,
    Measurement,
    NotApplicable,
    Problem,
    Remedy,
    Rule,
)
from analyzer.rulebook.conditions import Decided, Outcome, decide, margin, truth
from analyzer.rulebook.confidence import confidence
from analyzer.rulebook.fill import Specs, fill, fill_code, name_text, references, sentence, tells
from analyzer.rulebook.ranking import rank

EXACT_UNITS = ("flag", "name")
FOR, AGAINST = 3.0, 1 / 3.0  # what evidence does to the odds of a cause


def diagnose(
    rules: Iterable[Rule], features: Features, specs: Specs
) -> tuple[tuple[Finding, ...], tuple[NotApplicable, ...], tuple[Problem, ...]]:
    """Ranked findings, the rules that do not apply, and the rules that failed.

    A rule that raises is a problem of kind ``rule-error`` and listed as not applicable: it
    neither stops the others nor counts as having found nothing.
    """
    rules = tuple(rules)
    findings: list[Finding] = []
    absent: list[NotApplicable] = []
    problems: list[Problem] = []
    for rule in rules:
        try:
            result = evaluate(rule, features, specs)
        except Exception as error:  # user rules and features of plugins must not stop a run
            message = f"rule '{rule.id}' failed: {type(error).__name__}: {error}"
            problems.append(Problem(rule.path, "rule-error", message))
            absent.append(NotApplicable(rule.id, (), message))
            continue
        if isinstance(result, Finding):
            findings.append(result)
        elif result:
            absent.append(result)
    return rank(findings, rules), tuple(absent), tuple(problems)


def evaluate(rule: Rule, features: Features, specs: Specs) -> Finding | NotApplicable | None:
    """What ``rule`` says of a run; None when it applies and does not fire."""
    if not truth(rule.applies_when, features):
        return _not_applicable(rule, decide(rule.applies_when, features), specs)
    if truth(rule.when, features) is False:  # of most rules: then nobody asks for reasons
        return None
    outcome = decide(rule.when, features, lambda decided: _weigh(decided, specs))
    return (
        _finding(rule, outcome, features, specs) if outcome.value else _not_applicable(rule, outcome, specs)
    )


def _not_applicable(rule: Rule, outcome: Outcome, specs: Specs) -> NotApplicable:
    if outcome.value is False:
        failed = tuple(dict.fromkeys(d.leaf.feature.removesuffix(".points") for d in outcome.leaves))
        reasons = [sentence(d, specs[d.leaf.feature]) for d in outcome.leaves]
        return NotApplicable(rule.id, failed, "; ".join(reasons))
    needs = (need for name, missing in outcome.missing for need in missing.needs or (name,))
    reasons = list(dict.fromkeys(missing.reason for _, missing in outcome.missing))
    return NotApplicable(rule.id, tuple(dict.fromkeys(needs)), "; ".join(reasons))


def _finding(rule: Rule, outcome: Outcome, features: Features, specs: Specs) -> Finding:
    held = outcome.leaves
    rule = _variant(rule, features)
    return Finding(
        rule=rule.id,
        title=rule.title,
        severity=rule.severity,
        confidence=confidence(rule.id, rule.confidence, outcome.margin),
        summary=fill(rule.evidence, features, specs),
        why=rule.why,
        scope_kind=rule.scope,
        scope_name=_scope_name(rule, held),
        steps=_span(held),
        evidence=tuple(
            _evidence(d, specs) for d in sorted(_strictest(held), key=lambda d: _absent(d, specs))
        ),
        marks=_marks(rule, held, features, specs),
        causes=likely_causes(rule.causes, features, specs),
        remedies=tuple(_filled(remedy, features, specs) for remedy in rule.remedies),
        false_positives=rule.false_positives,
        references=rule.references,
        margin=1.0 if outcome.margin is None else outcome.margin,  # a fact without a margin is clear
    )


def _variant(rule: Rule, features: Features) -> Rule:
    """The rule in the words, and of the severity, of its variants that hold; of each the first that gives it."""
    held = [variant for variant in rule.variants if truth(variant.when, features)]
    return replace(
        rule,
        severity=next((v.severity for v in held if v.severity), rule.severity),
        title=next((v.title for v in held if v.title), rule.title),
        evidence=next((v.evidence for v in held if v.evidence), rule.evidence),
    )


def _weigh(decided: Decided, specs: Specs) -> float | None:
    """A comparison's margin; None for flags, equalities, signs and mere presence."""
    leaf, unit = decided.leaf, specs[decided.leaf.feature].unit
    presence = unit == "count" and leaf.op in (">", ">=") and leaf.threshold <= 1
    if unit in EXACT_UNITS or leaf.op in ("==", "!=") or leaf.threshold == 0 or presence:
        return None
    return margin(decided)


def _strictest(held: Iterable[Decided]) -> list[Decided]:
    """Of comparisons of one feature in one direction that held, the hardest to meet, in the first one's place."""
    kept: dict[tuple[str, str], Decided] = {}
    for decided in held:
        leaf = decided.leaf
        key = (leaf.feature, f"=={leaf.threshold}" if leaf.op in ("==", "!=") else leaf.op[0])
        other = kept.get(key)
        harder = other and (leaf.threshold - other.leaf.threshold) * (1 if key[1] == ">" else -1) > 0
        if other is None or harder:
            kept[key] = decided
    return list(kept.values())


def _absent(decided: Decided, specs: Specs) -> bool:
    """Whether it says that something else is not there: worth less than what is, so told last."""
    if decided.guard:
        return True
    leaf, value = decided.leaf, decided.measurement.value
    return value == 0 and (
        specs[leaf.feature].unit == "flag" or (leaf.op in ("==", "<=") and leaf.threshold == 0)
    )


def _evidence(decided: Decided, specs: Specs) -> Evidence:
    leaf = decided.leaf
    words = sentence(decided, specs[leaf.feature])
    return Evidence(leaf.feature, decided.measurement.value, leaf.op, leaf.threshold, words, margin(decided))


def _scope_name(rule: Rule, held: Iterable[Decided]) -> str | None:
    if rule.scope == "run":
        return None
    return next((name_text(d.measurement.where) for d in held if d.measurement.where), None)


def _span(held: Iterable[Decided]) -> tuple[float, float] | None:
    """The steps from first to last of the measurements on the curve the first of them speaks of."""
    placed = [d.measurement for d in held if d.measurement.steps]
    steps = [step for m in placed if m.role == placed[0].role for step in (*(m.steps or ()), *m.points)]
    return (min(steps), max(steps)) if steps else None


def _marks(rule: Rule, held: Iterable[Decided], features: Features, specs: Specs) -> tuple[Mark, ...]:
    """What to draw: measurements with steps among the evidence or in its text, once each."""
    marks: list[Mark] = []
    for name, found in _spoken_of(rule, held, features, specs):
        if found.steps and found.role:
            places = [(step, step) for step in found.points] or [found.steps]
            drawn = (Mark(found.role, *place, label=_label(name, specs)) for place in places)
            marks += [mark for mark in drawn if not any(_alike(mark, other) for other in marks)]
    return tuple(marks)


def _alike(a: Mark, b: Mark) -> bool:
    """Whether two marks would be drawn over each other: nearly the same stretch of one chart."""
    slack = 0.05 * max(a.last - a.first, b.last - b.first)
    return abs(a.first - b.first) <= slack and abs(a.last - b.last) <= slack


def _spoken_of(
    rule: Rule, held: Iterable[Decided], features: Features, specs: Specs
) -> Iterator[tuple[str, Measurement]]:
    for decided in held:
        yield decided.leaf.feature, decided.measurement
    for name in references(rule.evidence, specs):
        found = features.get(name)
        if isinstance(found, Measurement):
            yield name, found


def _label(name: str, specs: Specs) -> str:
    """A few words for a place on a curve."""
    spec = specs[name]
    words: str = getattr(spec, "label", "") or spec.meaning
    return words if len(words) <= 40 else words[:39].rsplit(" ", 1)[0] + "…"


def likely_causes(causes: Iterable[Cause], features: Features, specs: Specs) -> tuple[LikelyCause, ...]:
    """Causes, most likely first, with what speaks for and against each in this run.

    A cause starts at its weight; its odds are tripled by what makes it more likely and divided
    by three by what makes it less likely, where these hold. Undecided evidence moves nothing.
    Likelihoods are scaled down to add up to one where they exceed it. A cause that would speak of
    missing values only is left out.
    """
    weighed = [_weighed(cause, features, specs) for cause in causes if tells(cause.text, features, specs)]
    scale = max(1.0, sum(c.likelihood for c in weighed))
    scaled = [LikelyCause(c.id, c.text, c.likelihood / scale, c.evidence) for c in weighed]
    return tuple(sorted(scaled, key=lambda c: -c.likelihood))


def _weighed(cause: Cause, features: Features, specs: Specs) -> LikelyCause:
    likelihood, evidence = cause.weight, []
    for condition, factor in ((cause.more_likely_when, FOR), (cause.less_likely_when, AGAINST)):
        outcome = decide(condition, features) if condition else None
        if outcome and outcome.value:
            likelihood = likelihood * factor / (1 - likelihood + likelihood * factor)
            word = "for" if factor > 1 else "against"
            evidence += [f"{word}: {sentence(d, specs[d.leaf.feature])}" for d in outcome.leaves]
    return LikelyCause(cause.id, fill(cause.text, features, specs), likelihood, tuple(evidence))


def _filled(remedy: Remedy, features: Features, specs: Specs) -> Remedy:
    snippets = {name: fill_code(code, features, specs) for name, code in remedy.snippets.items()}
    return Remedy(
        fill(remedy.title, features, specs), remedy.effort, snippets, fill(remedy.text, features, specs)
    )
