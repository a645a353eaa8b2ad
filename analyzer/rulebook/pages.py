"""A rule as a page of plain text."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Iterator

from analyzer.model import All, AnyOf, Cause, Condition, Leaf, Not, Remedy, Rule, SomeOf, Unless
from analyzer.rulebook.conditions import leaves
from analyzer.rulebook.fill import Specs, fill_code

WIDTH = 96
PLACEHOLDER = re.compile(r"\{([^{}:]*)(?::[^{}]*)?\}")
EXPECTED = {"fires": "fires", "quiet": "stays quiet", "not_applicable": "not checked"}
NAMES = {
    "pytorch": "PyTorch",
    "lightning": "Lightning",
    "keras": "Keras",
    "transformers": "Hugging Face Trainer",
}
JOINED = {
    All: "all of",
    AnyOf: "any of",
    SomeOf: "any that can be decided of",
    Not: "not",
    Unless: "unless known that",
}


def page(rule: Rule, specs: Specs) -> str:
    """Everything a rule says about itself, and what the features it looks at measure."""
    sections = [
        [f"{rule.id}: {rule.title}"],
        [f"{rule.severity}, {rule.family}; speaks of a {rule.scope}; confidence {rule.confidence:.0%}"],
        _wrapped(rule.why),
        _titled("Likely causes", _listed(_cause(cause) for cause in rule.causes)),
        _titled("What to do", [line for remedy in rule.remedies for line in _remedy(remedy, specs)]),
        _titled("May be wrong when", _listed(rule.false_positives)),
        _titled("Examples", _examples(rule)),
        _titled("Applies when", _condition_lines(rule, rule.applies_when)),
        _titled("Fires when", _condition_lines(rule, rule.when)),
        _titled("Thresholds", _thresholds(rule)),
        _titled("Measured", _measured(rule, specs)),
        _titled("Explains", _listed(rule.explains)),
        _titled("To leave it out, or to look for nothing else", _choices(rule)),
        _titled("References", [f"  - {reference}" for reference in rule.references]),
    ]
    return "\n\n".join("\n".join(lines) for lines in sections if lines) + "\n"


def _titled(title: str, lines: list[str]) -> list[str]:
    return [title, *lines] if lines else []


def _wrapped(text: str, indent: str = "", first: str | None = None) -> list[str]:
    head = indent if first is None else first
    return textwrap.wrap(text, WIDTH, initial_indent=head, subsequent_indent=indent, break_long_words=False)


def _listed(texts: Iterable[str]) -> list[str]:
    return [line for text in texts for line in _wrapped(text, "    ", "  - ")]


def _condition_lines(rule: Rule, condition: Condition) -> list[str]:
    return [] if condition == All(()) else list(_tree(rule, condition, "  "))


def _tree(rule: Rule, condition: Condition, indent: str) -> Iterator[str]:
    """One line per comparison, indented below the words that join them."""
    if isinstance(condition, Leaf):
        yield f"{indent}{_comparison(rule, condition)}"
        return
    yield f"{indent}{JOINED[type(condition)]}"
    parts = (condition.item,) if isinstance(condition, Not | Unless) else condition.items
    for part in parts:
        yield from _tree(rule, part, indent + "  ")


def _comparison(rule: Rule, leaf: Leaf) -> str:
    name = f" (${leaf.param})" if leaf.param in rule.params else ""
    return f"{leaf.feature} {leaf.op} {leaf.threshold:g}{name}"


def _thresholds(rule: Rule) -> list[str]:
    return _listed(f"${name} = {p.value:g} {p.unit}: {p.why}" for name, p in rule.params.items())


def _measured(rule: Rule, specs: Specs) -> list[str]:
    used = dict.fromkeys(leaf.feature for leaf in (*leaves(rule.applies_when), *leaves(rule.when)))
    return _listed(f"{name}: {specs[name].meaning} [{specs[name].unit}]" for name in used)


def _cause(cause: Cause) -> str:
    return f"{_unfilled(cause.text)} (before the evidence: {cause.weight:.0%})"


def _unfilled(text: str) -> str:
    """The text with its placeholders as the names of what a run's report has there."""
    return PLACEHOLDER.sub(r"<\1>", text)


def _examples(rule: Rule) -> list[str]:
    """The rule's own tests: what it must say of which curves."""
    return [f"  {EXPECTED[test.expect]:<13}{test.name}" for test in rule.tests if test.expect in EXPECTED]


def _choices(rule: Rule) -> list[str]:
    return [f"  analyze PATH --ignore {rule.id}", f"  analyze PATH --select {rule.id}"]


def _remedy(remedy: Remedy, specs: Specs) -> Iterator[str]:
    yield from _wrapped(f"{_unfilled(remedy.title)} (effort: {remedy.effort})", "    ", "  - ")
    yield from _wrapped(_unfilled(remedy.text), "    ")
    for framework, code in remedy.snippets.items():
        yield f"    {NAMES.get(framework, framework)}:"
        yield from textwrap.indent(fill_code(code, {}, specs), "      ").splitlines()
