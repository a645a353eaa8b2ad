"""Rule files -> rules; every mistake in every file is reported at once."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import yaml

from analyzer.errors import RuleError, RuleProblem
from analyzer.model import (
    SEVERITIES,
    All,
    AnyOf,
    Cause,
    Condition,
    Measurement,
    Not,
    Param,
    Remedy,
    Rule,
    RuleTest,
    Scalar,
    Severity,
    SomeOf,
    Unless,
    Variant,
)
from analyzer.rulebook.conditions import ALWAYS, LeafError, leaves, parse_leaf
from analyzer.rulebook.fill import Specs, placeholder_mistakes
from analyzer.rulebook.nodes import (
    MAX_BYTES,
    Source,
    choice,
    compose,
    did_you_mean,
    entries,
    items,
    mapping,
    number,
    plain,
    text,
    texts,
)

REQUIRED = (
    "id", "title", "severity", "scope", "why", "when", "evidence", "confidence",
    "remedies", "false_positives", "references", "tests",
)  # fmt: skip
OPTIONAL = ("params", "applies_when", "causes", "explains", "variants")
JUNCTIONS: dict[str, type[All] | type[AnyOf] | type[SomeOf]] = {"all": All, "any": AnyOf, "some": SomeOf}
SCOPES = ("run", "checkpoint", "layer")
EFFORTS = ("low", "medium", "high")
FRAMEWORKS = ("pytorch", "lightning", "keras", "transformers")
EXPECTATIONS = ("fires", "quiet", "not_applicable")
KEBAB = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
INF = float("inf")


@dataclass(frozen=True, slots=True)
class Loaded:
    """A rule with the place of each of its parts, for further checks."""

    rule: Rule
    source: Source
    nodes: Mapping[str, yaml.Node]


def load(paths: Iterable[Path], specs: Specs) -> tuple[Rule, ...]:
    """The rules in ``paths`` (folders or files), by path; RuleError lists every mistake."""
    loaded, problems = read_rules(paths, specs)
    if problems:
        raise RuleError(problems)
    return tuple(one.rule for one in loaded)


def read_rules(paths: Iterable[Path], specs: Specs) -> tuple[list[Loaded], list[RuleProblem]]:
    """What could be read, and every mistake found."""
    loaded: list[Loaded] = []
    problems: list[RuleProblem] = []
    for path in _each_once(paths, problems):
        source = Source(str(path))
        one = _read_file(source, path, specs)
        if one:
            loaded.append(one)
        problems += source.problems
    return loaded, [*problems, *_duplicates(loaded), *_cycles(loaded)]


def _each_once(paths: Iterable[Path], problems: list[RuleProblem]) -> Iterator[Path]:
    """Every rule file once, though a folder may be given twice or lie in another one."""
    seen: set[Path] = set()
    for root in paths:
        files = list(rule_files(root))
        if not files:
            problems.append(RuleProblem(str(root), 1, 1, "no rule files (*.yaml) here"))
        for path in files:
            if path.resolve() not in seen:
                seen.add(path.resolve())
                yield path


def rule_files(root: Path) -> Iterator[Path]:
    """The rule files of a folder, sorted; a file is itself."""
    if root.is_file():
        yield root
    else:
        yield from sorted(p for p in root.rglob("*") if p.suffix in (".yaml", ".yml") and p.is_file())


def _read_file(source: Source, path: Path, specs: Specs) -> Loaded | None:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            source.wrong(None, f"larger than {MAX_BYTES >> 20} MiB")
            return None
        root = compose(source, content.decode("utf-8-sig"))
    except OSError as error:
        source.wrong(None, f"cannot be read: {error.strerror}")
        return None
    except UnicodeDecodeError:
        source.wrong(None, "is not UTF-8 text")
        return None
    return read_rule(source, root, path, specs) if root else None


def read_rule(source: Source, root: yaml.Node, path: Path, specs: Specs) -> Loaded:
    """One rule; where ``source.problems`` is not empty afterwards, parts of it are stand-ins."""
    nodes = mapping(source, root, "a rule", REQUIRED, OPTIONAL)
    params = _params(source, nodes.get("params"))

    def condition(key: str, otherwise: Condition) -> Condition:
        return _condition(source, nodes[key], specs, params) if key in nodes else otherwise

    rule = Rule(
        id=_identity(source, nodes.get("id"), path.stem),
        title=text(source, nodes.get("title"), "title"),
        family=path.absolute().parent.name,
        severity=cast(Severity, choice(source, nodes.get("severity"), "severity", SEVERITIES)),
        scope=choice(source, nodes.get("scope"), "scope", SCOPES),
        why=text(source, nodes.get("why"), "why"),
        when=condition("when", ALWAYS),
        applies_when=condition("applies_when", ALWAYS),
        evidence=_prose(source, nodes.get("evidence"), "evidence", specs),
        confidence=number(source, nodes.get("confidence"), "confidence", 0, 1),
        params=params,
        causes=_causes(source, nodes.get("causes"), specs, params),
        remedies=_remedies(source, nodes.get("remedies"), specs),
        false_positives=_filled(source, nodes.get("false_positives"), "false_positives"),
        references=_filled(source, nodes.get("references"), "references"),
        explains=texts(source, nodes.get("explains"), "explains"),
        tests=_tests(source, nodes.get("tests"), specs),
        path=source.path,
        variants=_variants(source, nodes.get("variants"), specs, params),
    )
    _unused_params(source, rule, nodes)
    return Loaded(rule, source, nodes)


def _identity(source: Source, node: yaml.Node | None, stem: str) -> str:
    name = text(source, node, "id")
    if name and not KEBAB.fullmatch(name):
        source.wrong(node, f"id '{name}' is not in kebab-case (lower-case words joined by '-')")
    elif name and name != stem:
        source.wrong(node, f"id '{name}' differs from the file's name '{stem}'")
    return name


def _filled(source: Source, node: yaml.Node | None, what: str) -> tuple[str, ...]:
    """A list of texts with at least one entry."""
    found = texts(source, node, what)
    if isinstance(node, yaml.SequenceNode) and not found:
        source.wrong(node, f"{what} is empty")
    return found


def _params(source: Source, node: yaml.Node | None) -> dict[str, Param]:
    params = {}
    for name, _, value in entries(source, node, "params"):
        found = mapping(source, value, f"parameter '{name}'", ("value", "unit", "why"))
        params[name] = Param(
            value=number(source, found.get("value"), f"value of '{name}'", -INF, INF),
            unit=text(source, found.get("unit"), f"unit of '{name}'"),
            why=text(source, found.get("why"), f"why of '{name}'"),
        )
    return params


def _condition(source: Source, node: yaml.Node, specs: Specs, params: Mapping[str, Param]) -> Condition:
    """A leaf, a list (all of it) or a mapping with one of all, any, not."""
    if isinstance(node, yaml.ScalarNode):
        return _leaf(source, node, specs, params)
    if isinstance(node, yaml.SequenceNode):
        return All(_conditions(source, node, specs, params))
    if not isinstance(node, yaml.MappingNode) or len(node.value) != 1:
        source.wrong(node, "a condition has exactly one of the keys all, any, some, not, unless")
        return ALWAYS
    key, value = node.value[0]
    if key.value == "not":
        return Not(_condition(source, value, specs, params))
    if key.value == "unless":
        return Unless(_condition(source, value, specs, params))
    if key.value in JUNCTIONS:
        return JUNCTIONS[key.value](_conditions(source, value, specs, params))
    hint = did_you_mean(key.value, (*JUNCTIONS, "not", "unless"))
    source.wrong(key, f"unknown key '{key.value}' in a condition: all, any, some, not or unless", hint)
    return ALWAYS


def _variants(
    source: Source, node: yaml.Node | None, specs: Specs, params: Mapping[str, Param]
) -> tuple[Variant, ...]:
    """Other words or another severity for some of the rule's findings."""
    found = []
    for item in items(source, node, "variants"):
        nodes = mapping(source, item, "a variant", ("when",), ("severity", "title", "evidence"))
        severity = nodes.get("severity")
        found.append(
            Variant(
                when=_condition(source, nodes["when"], specs, params) if "when" in nodes else ALWAYS,
                severity=cast(Severity, choice(source, severity, "severity", SEVERITIES))
                if severity
                else None,
                title=text(source, nodes["title"], "title") if "title" in nodes else "",
                evidence=_prose(source, nodes["evidence"], "evidence", specs) if "evidence" in nodes else "",
            )
        )
    return tuple(found)


def _leaf(source: Source, node: yaml.ScalarNode, specs: Specs, params: Mapping[str, Param]) -> Condition:
    try:
        leaf = parse_leaf(node.value, specs, params)
    except LeafError as error:
        source.wrong(node, error.message, error.hint, error.offset)
        return ALWAYS
    spec = specs[leaf.feature]
    if not spec.low <= leaf.threshold <= spec.high:
        message = f"threshold {leaf.threshold:g} is outside the range of {leaf.feature}, {spec.low:g} to {spec.high:g}"
        source.wrong(node, message)
    return leaf


def _conditions(
    source: Source, node: yaml.Node, specs: Specs, params: Mapping[str, Param]
) -> tuple[Condition, ...]:
    parts = items(source, node, "the conditions of all or any")
    if isinstance(node, yaml.SequenceNode) and not parts:
        source.wrong(node, "an empty list of conditions")
    return tuple(_condition(source, part, specs, params) for part in parts)


def _prose(source: Source, node: yaml.Node | None, what: str, specs: Specs) -> str:
    """Text with ``{feature}`` placeholders."""
    found = text(source, node, what)
    for message, hint in dict.fromkeys(placeholder_mistakes(found, specs)):
        source.wrong(node, message, hint)
    return found


def _causes(
    source: Source, node: yaml.Node | None, specs: Specs, params: Mapping[str, Param]
) -> tuple[Cause, ...]:
    causes: list[Cause] = []
    for item in items(source, node, "causes"):
        found = mapping(
            source, item, "a cause", ("id", "text"), ("weight", "more_likely_when", "less_likely_when")
        )
        more, less = (
            _condition(source, found[key], specs, params) if key in found else None
            for key in ("more_likely_when", "less_likely_when")
        )
        weight = number(source, found.get("weight"), "weight", 0, 1) if "weight" in found else 0.5
        name = text(source, found.get("id"), "id of a cause")
        if name and not KEBAB.fullmatch(name):
            source.wrong(found["id"], f"id '{name}' is not in kebab-case")
        if name in {c.id for c in causes}:
            source.wrong(found["id"], f"duplicate cause '{name}'")
        words = _prose(source, found.get("text"), "text of a cause", specs)
        causes.append(Cause(name, words, weight, more, less))
    return tuple(causes)


def _remedies(source: Source, node: yaml.Node | None, specs: Specs) -> tuple[Remedy, ...]:
    remedies = []
    for item in items(source, node, "remedies"):
        found = mapping(source, item, "a remedy", ("title", "effort", "snippets"), ("text",))
        remedies.append(
            Remedy(
                title=_prose(source, found.get("title"), "title of a remedy", specs),
                effort=choice(source, found.get("effort"), "effort", EFFORTS),
                snippets=_snippets(source, found.get("snippets"), specs),
                text=_prose(source, found.get("text"), "text of a remedy", specs),
            )
        )
    if isinstance(node, yaml.SequenceNode) and not remedies:
        source.wrong(node, "remedies is empty")
    return tuple(remedies)


def _snippets(source: Source, node: yaml.Node | None, specs: Specs) -> dict[str, str]:
    if node is None:
        return {}
    found = mapping(source, node, "snippets", FRAMEWORKS[:1], FRAMEWORKS[1:])
    snippets = {}
    for framework, value in found.items():
        snippets[framework] = text(source, value, f"the {framework} snippet")
        for message, hint in dict.fromkeys(placeholder_mistakes(snippets[framework], specs, code=True)):
            source.wrong(value, message, hint)
    return snippets


def _tests(source: Source, node: yaml.Node | None, specs: Specs) -> tuple[RuleTest, ...]:
    tests: list[RuleTest] = []
    for item in items(source, node, "tests"):
        test = _test(source, item, specs)
        if test.name in {t.name for t in tests}:
            source.wrong(item, f"duplicate test '{test.name}'")
        tests.append(test)
    absent = [kind for kind in EXPECTATIONS if kind not in {t.expect for t in tests}]
    if absent and isinstance(node, yaml.SequenceNode):
        source.wrong(node, f"no test with expect: {', '.join(absent)}")
    return tuple(tests)


def _test(source: Source, node: yaml.Node, specs: Specs) -> RuleTest:
    found = mapping(source, node, "a test", ("name", "expect"), ("series", "features", "hyperparameters"))
    series = {key: plain(value) for key, _, value in entries(source, found.get("series"), "series")}
    given = entries(source, found.get("hyperparameters"), "hyperparameters")
    for key, _, value in given:
        if not isinstance(value, yaml.ScalarNode):
            source.wrong(value, f"hyperparameter '{key}' must be a single value")
    return RuleTest(
        name=text(source, found.get("name"), "name of a test"),
        expect=choice(source, found.get("expect"), "expect", EXPECTATIONS),
        series=series,
        features=_given_features(source, found.get("features"), specs),
        hyperparameters={key: cast(Scalar, plain(value)) for key, _, value in given},
        line=node.start_mark.line + 1,
    )


def _given_features(source: Source, node: yaml.Node | None, specs: Specs) -> dict[str, float]:
    """Values given by a test: a number, null (missing), or a mapping of a measurement's parts."""
    given: dict[str, object] = {}
    for name, key, value in entries(source, node, "features"):
        if name not in specs:
            source.wrong(key, f"unknown feature '{name}'", did_you_mean(name, specs))
        elif isinstance(value, yaml.MappingNode):
            given[name] = _given_measurement(source, value)
        elif plain(value) is None:
            given[name] = None
        else:
            given[name] = _any_number(source, value)
    return cast(dict[str, float], given)


def _given_measurement(source: Source, node: yaml.Node) -> Measurement:
    found = mapping(source, node, "a feature", ("value",), ("where", "items", "steps", "role"))
    steps = [_any_number(source, step) for step in items(source, found.get("steps"), "steps")]
    if "steps" in found and len(steps) != 2:
        source.wrong(found["steps"], "steps must be two numbers, first and last")
    return Measurement(
        value=_any_number(source, found.get("value")),
        steps=(steps[0], steps[1]) if len(steps) == 2 else None,
        role=text(source, found.get("role"), "role"),
        where=text(source, found.get("where"), "where"),
        items=texts(source, found.get("items"), "items"),
    )


def _any_number(source: Source, node: yaml.Node | None) -> float:
    """A number that may also be .nan or .inf, or true or false for a flag."""
    value = plain(node) if isinstance(node, yaml.ScalarNode) else None
    if isinstance(value, int | float):
        return float(value)
    if node is not None:
        source.wrong(node, "must be a number")
    return 0.0


def _unused_params(source: Source, rule: Rule, nodes: Mapping[str, yaml.Node]) -> None:
    conditions = [rule.when, rule.applies_when, *(variant.when for variant in rule.variants)]
    conditions += [c for cause in rule.causes for c in (cause.more_likely_when, cause.less_likely_when) if c]
    used = {leaf.param for condition in conditions for leaf in leaves(condition)}
    for name, key, _ in entries(Source(""), nodes.get("params"), "params"):
        if name not in used and not source.problems:
            source.wrong(key, f"parameter '{name}' is never used")


def _duplicates(loaded: Sequence[Loaded]) -> list[RuleProblem]:
    first: dict[str, Loaded] = {}
    problems = []
    for one in loaded:
        other = first.setdefault(one.rule.id, one)
        if one.rule.id and other is not one:
            problems.append(
                problem_at(one, "id", f"duplicate rule id '{one.rule.id}', already in {other.source.path}")
            )
    return problems


def _cycles(loaded: Sequence[Loaded]) -> list[RuleProblem]:
    """Rules that explain themselves, directly or through others."""
    explains = {one.rule.id: one.rule.explains for one in loaded}
    return [
        problem_at(one, "explains", f"'{one.rule.id}' explains itself, directly or through other rules")
        for one in loaded
        if one.rule.id in _reached(one.rule.id, explains)
    ]


def _reached(start: str, explains: Mapping[str, Collection[str]]) -> set[str]:
    reached: set[str] = set()
    waiting = [start]
    while waiting:
        for name in explains.get(waiting.pop(), ()):
            if name not in reached:
                reached.add(name)
                waiting.append(name)
    return reached


def problem_at(one: Loaded, key: str, message: str, hint: str = "") -> RuleProblem:
    """A problem at the place of a rule's top-level ``key``."""
    place = Source(one.source.path)
    place.wrong(one.nodes.get(key), message, hint)
    return place.problems[0]
