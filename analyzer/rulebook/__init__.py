"""Rules: YAML files that turn features into findings. See ``docs/rules.md``.

The functions here work on the rules and features of the installation; those in the modules
take rules, features and their specifications as parameters.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from analyzer import features
from analyzer.model import Rule
from analyzer.rulebook.check import check
from analyzer.rulebook.evaluate import diagnose, evaluate
from analyzer.rulebook.examples import AssignRoles, ExampleResult, run_example
from analyzer.rulebook.folders import builtin_rules_dir
from analyzer.rulebook.load import load, read_rules
from analyzer.rulebook.pages import page
from analyzer.rulebook.ranking import rank
from analyzer.rulebook.selection import selected
from analyzer.rulebook.verdict import verdict

__all__ = [
    "ExampleResult",
    "builtin_rules_dir",
    "check_rules",
    "diagnose",
    "evaluate",
    "explain",
    "load_rules",
    "rank",
    "run_examples",
    "selected",
    "verdict",
]


def load_rules(folders: Iterable[Path] = ()) -> tuple[Rule, ...]:
    """The built-in rules, then those in ``folders``; RuleError lists every mistake."""
    return load([builtin_rules_dir(), *folders], features.specs())


def check_rules(folder: Path | None = None) -> tuple[Rule, ...]:
    """The rules in ``folder`` (default: the built-in ones), checked in full; else RuleError."""
    builtin = builtin_rules_dir()
    if folder is None:
        return check([builtin], features.specs(), known={})
    loaded, _ = read_rules([builtin], features.specs())
    return check([folder], features.specs(), known={one.rule.id: one.rule.path for one in loaded})


def run_examples(rules: Iterable[Rule], assign: AssignRoles | None = None) -> list[ExampleResult]:
    """Run every test embedded in ``rules``; ``assign`` gives ``tag:`` series their roles."""
    specs = features.specs()
    return [run_example(rule, t, features.compute, specs, assign) for rule in rules for t in rule.tests]


def explain(rule: Rule) -> str:
    """Everything a rule says about itself, as plain text."""
    return page(rule, features.specs())
