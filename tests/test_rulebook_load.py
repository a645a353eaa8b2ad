"""Rule files: what is read, and that every mistake is named at its place."""

from __future__ import annotations

import math
import textwrap
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analyzer.errors import AnalyzerError, RuleError
from analyzer.model import All, AnyOf, Leaf, Measurement, Missing, Not
from analyzer.rulebook.check import check
from analyzer.rulebook.evaluate import diagnose, evaluate
from analyzer.rulebook.folders import builtin_rules_dir
from analyzer.rulebook.load import load
from analyzer.rulebook.nodes import Source, compose, parse_number, plain
from analyzer.rulebook.pages import page
from analyzer.rulebook.selection import selected


@dataclass(frozen=True)
class Spec:
    unit: str = "ratio"
    low: float = -math.inf
    high: float = math.inf
    meaning: str = "something"


SPECS = {
    "val_loss.rise": Spec(meaning="rise of the validation loss"),
    "val_loss.points": Spec("count", 0),
    "train_loss.trend": Spec("value"),
    "layers.dead_share": Spec("ratio", 0, 1),
    "hparam.lr": Spec("value"),
}

RULE = """\
id: overfitting
title: Validation loss rises
severity: warning
scope: run
why: Later checkpoints generalise worse.
confidence: 0.8
params:
  rise: {value: 5e-2, unit: ratio, why: above the spread between seeds}
applies_when:
  all: [val_loss.points >= 8]
when:
  all:
    - val_loss.rise >= $rise
    - any:
        - train_loss.trend < 0
        - not: layers.dead_share > 0.5
evidence: >-
  val loss is {val_loss.rise:.0%} above its minimum
causes:
  - id: few-data
    text: too little data
    weight: 0.3
    more_likely_when: [val_loss.rise >= 0.5]
remedies:
  - title: Stop early
    effort: low
    snippets:
      pytorch: |
        if loss > best:
            stop(<<hparam.lr|1e-3>>, "<<layers.dead_share.where|fc1>>")
false_positives:
  - A penalty in the training loss only
references: [https://doi.org/10.1007/3-540-49430-8_3]
tests:
  - name: rises
    expect: fires
    series: {val_loss: [1, .nan, {points: 3, start: 1}]}
    features: {val_loss.rise: 1, layers.dead_share: {value: 0.1, where: fc1}, train_loss.trend: null}
  - {name: flat, expect: quiet}
  - {name: nothing, expect: not_applicable, hyperparameters: {lr: 1e-3, name: adam}}
"""


def write(folder: Path, text: str = RULE, name: str = "overfitting") -> Path:
    path = folder / "generalization" / f"{name}.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def mistakes(folder: Path, known: dict[str, str] | None = None) -> list[str]:
    """line:column: message of every mistake."""
    with pytest.raises(RuleError) as caught:
        check([folder], SPECS, known)
    return [str(p).partition(".yaml:")[2] for p in caught.value.problems]


def test_a_rule_is_read_with_everything_in_it(tmp_path: Path) -> None:
    path = write(tmp_path)
    (rule,) = load([tmp_path], SPECS)
    assert (rule.id, rule.family, rule.severity, rule.scope) == (
        "overfitting",
        "generalization",
        "warning",
        "run",
    )
    assert rule.path == str(path)
    assert rule.confidence == 0.8
    assert rule.params["rise"].value == 0.05
    assert rule.when == All(
        (
            Leaf("val_loss.rise", ">=", 0.05, "rise"),
            AnyOf((Leaf("train_loss.trend", "<", 0.0), Not(Leaf("layers.dead_share", ">", 0.5)))),
        )
    )
    assert rule.applies_when == All((Leaf("val_loss.points", ">=", 8.0),))
    assert rule.causes[0].more_likely_when == All((Leaf("val_loss.rise", ">=", 0.5),))
    assert rule.causes[0].weight == 0.3
    assert rule.remedies[0].snippets["pytorch"].startswith("if loss > best:\n    stop(")
    fires, _, absent = rule.tests
    assert fires.line == RULE.splitlines().index("  - name: rises") + 1
    assert fires.features["layers.dead_share"] == Measurement(0.1, where="fc1")
    assert fires.features["train_loss.trend"] is None
    assert absent.hyperparameters == {"lr": 1e-3, "name": "adam"}
    series = fires.series["val_loss"]
    assert isinstance(series, list)
    assert math.isnan(series[1])


def test_a_rule_without_mistakes_passes_the_whole_check(tmp_path: Path) -> None:
    write(tmp_path)
    assert [rule.id for rule in check([tmp_path], SPECS, {})] == ["overfitting"]


@pytest.mark.parametrize(
    ("written", "wrong", "expected"),
    [
        ("severity: warning", "severety: warning", "unknown key 'severety' in a rule; did you mean 'severity'?"),
        ("severity: warning", "", "a rule lacks the key 'severity'"),
        ("severity: warning", "severity: warn", "severity must be one of"),
        ("scope: run", "scope: epoch", "scope must be one of run, checkpoint, layer, not 'epoch'"),
        ("confidence: 0.8", "confidence: 1.8", "confidence must be a finite number from 0 to 1, not 1.8"),
        ("confidence: 0.8", "confidence: yes", "confidence must be a number"),
        ("id: overfitting", "id: over_fitting", "id 'over_fitting' is not in kebab-case"),
        ("id: overfitting", "id: over-fitting", "id 'over-fitting' differs from the file's name 'overfitting'"),
        ("title: Validation loss rises", "title: ''", "title is empty"),
        ("title: Validation loss rises", "title: [a]", "title must be text"),
        ("value: 5e-2", "value: five", "value of 'rise' must be a number"),
        ("value: 5e-2", "value: .nan", "value of 'rise' must be a finite number"),
        ("why: above the spread between seeds", "why: ''", "why of 'rise' is empty"),
        (", why: above the spread between seeds", "", "parameter 'rise' lacks the key 'why'"),
        (">= $rise", ">= 0.05", "parameter 'rise' is never used"),
        (">= $rise", ">= $rize", "unknown parameter '$rize'; did you mean 'rise'?"),
        (">= $rise", "=> $rise", "unknown operator '=>'; use one of >= > <= < == !="),
        (">= $rise", ">= high", "'high' is not a number"),
        (">= $rise", ">= .inf", "a threshold must be finite"),
        (">= $rise", ">=", "is not of the form 'feature op number'"),
        ("val_loss.rise >= $rise", "val_loss.rize >= $rise", "did you mean 'val_loss.rise'?"),
        ("layers.dead_share > 0.5", "layers.dead_share > 50", "outside the range of layers.dead_share, 0 to 1"),
        ("- any:", "- anny:", "unknown key 'anny' in a condition: all, any, some, not or unless; did you mean 'any'?"),
        ("all: [val_loss.points >= 8]", "all: []", "an empty list of conditions"),
        ("all: [val_loss.points >= 8]", "{}", "exactly one of the keys all, any, some, not, unless"),
        ("more_likely_when: [val_loss.rise >= 0.5]", "more_likely_when: [a >= 1]", "unknown feature 'a'"),
        ("weight: 0.3", "weight: 3", "weight must be a finite number from 0 to 1"),
        ("id: few-data", "id: Few data", "id 'Few data' is not in kebab-case"),
        ("{val_loss.rise:.0%}", "{val_loss.rize:.0%}", "unknown feature 'val_loss.rize' in '{val_loss.rize:.0%}'"),
        ("{val_loss.rise:.0%}", "{val_loss.rise:>99999999}", "format '>99999999'"),
        ("{val_loss.rise:.0%}", "{val_loss.rise.__class__}", "unknown feature 'val_loss.rise.__class__'"),
        ("{val_loss.rise:.0%}", "{val_loss.rise", "unmatched brace"),
        ("text: too little data", "text: too little {data}", "unknown feature 'data' in '{data}'"),
        ("effort: low", "effort: tiny", "effort must be one of low, medium, high, not 'tiny'"),
        ("pytorch: |", "keras: |", "snippets lacks the key 'pytorch'"),
        ("pytorch: |", "pytorhc: |", "unknown key 'pytorhc' in snippets; did you mean 'pytorch'?"),
        ("if loss > best:", "if loss > best", "the snippet is not valid Python: expected ':' (line 1"),
        ("<<hparam.lr|1e-3>>", "<<hparam.ir|1e-3>>", "unknown feature 'hparam.ir'"),
        ("<<hparam.lr|1e-3>>", "<<hparam.lr>>", "needs a default; write <<hparam.lr|value>>"),
        ('"<<layers.dead_share.where|fc1>>"', "m.<<layers.dead_share.where|fc1>>", "not valid Python once filled"),
        ("false_positives:\n  - A penalty in the training loss only\n", "", "lacks the key 'false_positives'"),
        ("references: [https://doi.org/10.1007/3-540-49430-8_3]", "references: []", "references is empty"),
        ("remedies:\n", "remedies: []\nunused:\n", "remedies is empty"),
        ("name: flat, expect: quiet", "name: flat, expect: silent", "expect must be one of"),
        ("  - {name: flat, expect: quiet}\n", "", "no test with expect: quiet"),
        ("name: flat,", "name: rises,", "duplicate test 'rises'"),
        ("{points: 3, start: 1}", "{points: 3, begin: 1}", "unknown key 'begin' in a piece"),
        ("{points: 3, start: 1}", "{points: 1e9, start: 1}", "a piece has 1 to 1,000,000 points"),
        ("{points: 3, start: 1}", "{points: 3, start: 1, shape: sine}", "unknown shape 'sine'"),
        ("{points: 3, start: 1}", "high", "'high' is neither a number nor the description of a piece"),
        ("train_loss.trend: null", "train_loss.trent: null", "did you mean 'train_loss.trend'?"),
        ("{lr: 1e-3, name: adam}", "{lr: [1e-3]}", "hyperparameter 'lr' must be a single value"),
        ("train_loss.trend: null", "train_loss.trend: down", "must be a number"),
    ],
)  # fmt: skip
def test_each_mistake_is_named(tmp_path: Path, written: str, wrong: str, expected: str) -> None:
    assert written in RULE
    write(tmp_path, RULE.replace(written, wrong, 1))
    found = mistakes(tmp_path)
    assert any(expected in line for line in found), found


def test_the_place_is_that_of_the_mistake(tmp_path: Path) -> None:
    write(
        tmp_path,
        RULE.replace("val_loss.rise >= $rise", "val_loss.rise >= $rize").replace("run\n", "rum\n", 1),
    )
    lines = RULE.splitlines()
    scope = lines.index("scope: run") + 1
    leaf = lines.index("    - val_loss.rise >= $rise")
    column = lines[leaf].index("$rise") + 1
    found = mistakes(tmp_path)
    assert found[0].startswith(f"{scope}:8: scope")
    assert found[1].startswith(f"{leaf + 1}:{column}: unknown parameter")


def test_mistakes_of_all_files_come_together(tmp_path: Path) -> None:
    write(tmp_path, RULE.replace("scope: run", "scope: rum").replace("effort: low", "effort: lo"))
    write(tmp_path, RULE.replace("id: overfitting", "id: other").replace("title:", "titel:", 1), "other")
    with pytest.raises(RuleError) as caught:
        load([tmp_path], SPECS)
    assert [(Path(p.path).name, p.message.split()[0]) for p in caught.value.problems] == [
        ("other.yaml", "unknown"),
        ("other.yaml", "a"),
        ("overfitting.yaml", "scope"),
        ("overfitting.yaml", "effort"),
    ]


def test_loading_leaves_the_slow_checks_to_check(tmp_path: Path) -> None:
    write(tmp_path, RULE.replace("if loss > best:", "if loss > best"))
    assert load([tmp_path], SPECS)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "the file is empty"),
        (b"- 1\n", "a rule must be a mapping"),
        (b"id: [", "not valid YAML"),
        (b"id: a\n---\nid: b\n", "not valid YAML"),
        (b"\xff\xfe\x00", "is not UTF-8 text"),
        (b"id: \x00", "not valid YAML"),
        (b"id: !!python/object/apply:os.system [echo]\n", "the tag 'tag:yaml.org,2002:python/object/apply"),
        (b"id: a\nid: b\n", "duplicate key 'id'"),
        (b"? [a]\n: b\n", "a key must be a word"),
        (b"#" + b"a" * (1 << 20), "larger than 1 MiB"),
        (b"id: &a [*a]\n", "expands to more than"),
        (b"a: " + b"[" * 200_000, "nested more than 40 levels deep"),
        (b"- " * 200_000, "nested more than 40 levels deep"),
        (b"a: " + b"[" * 60 + b"]" * 60, "expands to more than"),
    ],
    ids=lambda value: str(value)[:24],
)
def test_hostile_files_are_refused(tmp_path: Path, content: bytes, expected: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_bytes(content)
    assert any(expected in line for line in mistakes(tmp_path))


def test_aliases_may_repeat_a_value_but_not_explode(tmp_path: Path) -> None:
    source = Source("a.yaml")
    root = compose(source, "a: &x [1, 2]\nb: *x\n")
    assert root is not None
    assert plain(root) == {"a": [1, 2], "b": [1, 2]}
    laughs = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    laughs += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    assert compose(source, "\n".join(laughs)) is None
    assert "expands to more than" in source.problems[0].message


def test_a_folder_without_rules_and_a_missing_one_are_named(tmp_path: Path) -> None:
    with pytest.raises(RuleError, match="no rule files"):
        load([tmp_path / "absent"], SPECS)
    with pytest.raises(RuleError, match="no rule files"):
        load([tmp_path], SPECS)


def test_an_id_taken_twice_is_named_but_the_same_file_counts_once(tmp_path: Path) -> None:
    path = write(tmp_path)
    assert len(load([tmp_path, path], SPECS)) == 1
    (tmp_path / "mine").mkdir()
    write(tmp_path / "mine")
    with pytest.raises(RuleError, match="duplicate rule id 'overfitting', already in") as caught:
        load([tmp_path], SPECS)
    assert len(caught.value.problems) == 1


def test_explains_must_name_known_rules_and_never_go_round(tmp_path: Path) -> None:
    write(tmp_path, RULE + "explains: [no-early-stoping]\n")
    assert load([tmp_path], SPECS)
    assert mistakes(tmp_path, known={"no-early-stopping": "x.yaml"}) == [
        f"{len(RULE.splitlines()) + 1}:12: unknown rule 'no-early-stoping'; did you mean 'no-early-stopping'?"
    ]
    write(tmp_path, RULE + "explains: [other]\n")
    write(tmp_path, RULE.replace("id: overfitting", "id: other") + "explains: [overfitting]\n", "other")
    with pytest.raises(RuleError, match="'other' explains itself"):
        load([tmp_path], SPECS)


def test_a_users_rule_may_not_take_a_built_in_id(tmp_path: Path) -> None:
    path = write(tmp_path)
    assert check([tmp_path], SPECS, {"overfitting": str(path)})
    assert (
        "duplicate rule id 'overfitting', already in other.yaml"
        in mistakes(tmp_path, {"overfitting": "other.yaml"})[0]
    )


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("1e5", 1e5),
        (".5", 0.5),
        ("5.", 5.0),
        ("1_000", 1000),
        ("-2.5E+3", -2500.0),
        ("+7", 7),
        (".inf", math.inf),
        ("-.inf", -math.inf),
        ("true", True),
        ("yes", "yes"),
        ("1.2.3", "1.2.3"),
        ("0x10", "0x10"),
        ("1:30", "1:30"),
        ("2024-01-01", "2024-01-01"),
        ("'1e-3'", "1e-3"),
        ("~", None),
        ("9" * 5000, math.inf),
    ],
    ids=lambda value: str(value)[:12],
)
def test_scalars_are_read_as_people_mean_them(text: str, value: object) -> None:
    root = compose(Source("a.yaml"), f"a: {text}\n")
    assert root is not None
    read = plain(root)
    assert isinstance(read, dict)
    assert (read["a"], type(read["a"])) == (value, type(value))


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_float_is_read_as_itself(value: float) -> None:
    assert parse_number(repr(value)) == value


def test_built_in_rules_are_those_of_the_wheel_then_those_of_the_checkout(tmp_path: Path) -> None:
    package = tmp_path / "analyzer"
    package.mkdir()
    with pytest.raises(AnalyzerError, match="install the package again"):
        builtin_rules_dir(package)
    (tmp_path / "rules").mkdir()
    assert builtin_rules_dir(package) == tmp_path / "rules"
    (package / "_rules").mkdir()
    assert builtin_rules_dir(package) == package / "_rules"


def test_selection_names_unknown_rules(tmp_path: Path) -> None:
    write(tmp_path)
    write(tmp_path, RULE.replace("id: overfitting", "id: other"), "other")
    rules = load([tmp_path], SPECS)
    assert [r.id for r in selected(rules)] == ["other", "overfitting"]
    assert [r.id for r in selected(rules, ["overfitting"])] == ["overfitting"]
    assert [r.id for r in selected(rules, [], ["overfitting"])] == ["other"]
    with pytest.raises(AnalyzerError, match="unknown rule 'overfiting'; did you mean 'overfitting'"):
        selected(rules, ["overfiting"])


def test_the_page_of_a_rule_says_everything(tmp_path: Path) -> None:
    write(tmp_path)
    (rule,) = load([tmp_path], SPECS)
    shown = page(rule, SPECS)
    assert shown.startswith("overfitting: Validation loss rises\n\nwarning, generalization;")
    conditions = """\
        Fires when
          all of
            val_loss.rise >= 0.05 ($rise)
            any of
              train_loss.trend < 0
              not
                layers.dead_share > 0.5
        """
    assert textwrap.dedent(conditions) in shown
    for part in (
        "$rise = 0.05 ratio: above the spread between seeds",
        "val_loss.rise: rise of the validation loss [ratio]",
        "too little data",
        "Stop early (effort: low)",
        'stop(1e-3, "fc1")',
        "A penalty in the training loss only",
        "https://doi.org/10.1007/3-540-49430-8_3",
    ):
        assert part in shown


def test_a_loaded_rule_diagnoses(tmp_path: Path) -> None:
    write(tmp_path)
    rules = load([tmp_path], SPECS)
    features = {
        "val_loss.points": Measurement(20),
        "val_loss.rise": Measurement(0.42, (10, 19), "val_loss"),
        "train_loss.trend": Measurement(-1.0),
        "layers.dead_share": Measurement(0.9, where='fc"); import os #'),
        "hparam.lr": Measurement(0.0003),
    }
    findings, absent, problems = diagnose(rules, features, SPECS)
    assert (absent, problems) == ((), ())
    (finding,) = findings
    assert finding.summary == "val loss is 42% above its minimum"
    assert finding.steps == (10, 19)
    assert finding.remedies[0].snippets["pytorch"].endswith('stop(0.0003, "fc____import_os__")')
    assert evaluate(rules[0], features | {"val_loss.rise": Measurement(0.01)}, SPECS) is None
    assert diagnose(rules, {"val_loss.points": Missing("no val_loss", ("val_loss",))}, SPECS)[1][
        0
    ].missing == ("val_loss",)
