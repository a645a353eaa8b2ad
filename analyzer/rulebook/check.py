"""The whole check of rule files: what loading checks, and what would slow every run down."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path

import yaml

from analyzer.errors import RuleError
from analyzer.model import Measurement, Rule
from analyzer.rulebook.example_curves import curve
from analyzer.rulebook.fill import Specs, fill_code
from analyzer.rulebook.load import Loaded, read_rules
from analyzer.rulebook.nodes import Source, did_you_mean, plain

STANDARD = Measurement(0.5, (1.0, 2.0), "train_loss", "layers.0", ("layers.0", "layers.1"))


def check(paths: Iterable[Path], specs: Specs, known: Mapping[str, str] | None = None) -> tuple[Rule, ...]:
    """The rules in ``paths``; RuleError lists every mistake in them.

    ``known`` are the rules outside ``paths`` (id -> path), whose ids are taken and which
    ``explains`` may name; with None, ``explains`` may name anything.
    """
    loaded, problems = read_rules(paths, specs)
    ids = {one.rule.id for one in loaded}.union(known or ())
    for one in loaded:
        source = Source(one.source.path)
        _check_snippets(source, one, specs)
        _check_series(source, one)
        if known is not None:
            _check_explains(source, one, ids)
            _check_taken(source, one, known)
        problems += source.problems
    if problems:
        raise RuleError(sorted(problems, key=lambda p: (p.path, p.line, p.column)))
    return tuple(one.rule for one in loaded)


def _check_taken(source: Source, one: Loaded, known: Mapping[str, str]) -> None:
    other = known.get(one.rule.id)
    if other and Path(other).resolve() != Path(source.path).resolve():
        source.wrong(one.nodes.get("id"), f"duplicate rule id '{one.rule.id}', already in {other}")


def _check_snippets(source: Source, one: Loaded, specs: Specs) -> None:
    standard = dict.fromkeys(specs, STANDARD)
    for node in _values(one.nodes.get("remedies"), "snippets"):
        for value in _scalars(node):
            reason = _syntax_error(fill_code(value.value, {}, specs))
            if reason:
                source.wrong(value, f"the snippet is not valid Python: {reason}")
            elif reason := _syntax_error(fill_code(value.value, standard, specs)):
                source.wrong(
                    value,
                    f"the snippet is not valid Python once filled: {reason}",
                    "put quotes around a placeholder for names such as layers.0",
                )


def _syntax_error(code: str) -> str:
    """What is wrong with a piece of Python, with its line; empty when it parses."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)
            ast.parse(code)
    except SyntaxError as error:
        return f"{error.msg} (line {error.lineno} of the snippet)"
    except (ValueError, RecursionError, MemoryError) as error:
        return str(error) or type(error).__name__
    return ""


def _check_series(source: Source, one: Loaded) -> None:
    for node in _values(one.nodes.get("tests"), "series"):
        for described in _mapped(node):
            try:
                curve(plain(described))
            except ValueError as error:
                source.wrong(described, str(error))


def _check_explains(source: Source, one: Loaded, ids: Collection[str]) -> None:
    node = one.nodes.get("explains")
    for item in node.value if isinstance(node, yaml.SequenceNode) else ():
        if isinstance(item, yaml.ScalarNode) and item.value not in ids:
            source.wrong(item, f"unknown rule '{item.value}'", did_you_mean(item.value, ids))


def _values(node: yaml.Node | None, key: str) -> Iterator[yaml.Node]:
    """The value of ``key`` in each mapping of a list."""
    for item in node.value if isinstance(node, yaml.SequenceNode) else ():
        for name, value in item.value if isinstance(item, yaml.MappingNode) else ():
            if name.value == key:
                yield value


def _mapped(node: yaml.Node) -> Iterator[yaml.Node]:
    for _, value in node.value if isinstance(node, yaml.MappingNode) else ():
        yield value


def _scalars(node: yaml.Node) -> Iterator[yaml.ScalarNode]:
    return (value for value in _mapped(node) if isinstance(value, yaml.ScalarNode))
