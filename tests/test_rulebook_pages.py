"""What ``analyze explain`` says of a rule: enough to understand, judge and silence it."""

from __future__ import annotations

import re

import pytest

from analyzer.rulebook import explain, load_rules

RULES = load_rules()


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.id)
def test_every_page_explains_advises_and_says_how_to_leave_the_rule_out(rule) -> None:  # type: ignore[no-untyped-def]
    page = explain(rule)
    sections = [part.splitlines()[0] for part in page.split("\n\n")]
    for title in ("Likely causes", "What to do", "May be wrong when", "Examples", "Fires when"):
        assert title in sections
    assert sections.index("What to do") < sections.index("Fires when")  # advice before machinery
    assert f"analyze PATH --ignore {rule.id}" in page
    assert all(test.name in page for test in rule.tests)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.id)
def test_no_placeholder_of_a_run_is_left_in_prose(rule) -> None:  # type: ignore[no-untyped-def]
    prose = [line for line in explain(rule).splitlines() if not line.startswith("      ")]
    assert not re.findall(r"\{[a-z_]+\.[^{}]*\}", "\n".join(prose))
