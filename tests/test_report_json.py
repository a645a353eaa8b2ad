"""The JSON report is a contract: strict, complete, stable, and described by its schema."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

import numpy as np
import pytest
import report_fixtures as fixtures
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

from analyzer.model import Evidence, Finding, Report, Run, RunReport
from analyzer.report import json_report, render

REPORTS = fixtures.every_report()


def refuse(token: str) -> None:
    raise AssertionError(f"not strict JSON: {token}")


def parsed(report: Report) -> Any:
    return json.loads(render(report, "json"), parse_constant=refuse)


@pytest.fixture(scope="module")
def validator() -> Draft202012Validator:
    path = resources.files("analyzer.report") / "assets" / "report.schema.json"
    schema = json.loads(path.read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


@pytest.mark.parametrize("name", REPORTS)
def test_every_report_is_strict_json_of_the_schema(name: str, validator: Draft202012Validator) -> None:
    validator.validate(parsed(REPORTS[name]))


@pytest.mark.parametrize("name", REPORTS)
def test_same_report_gives_the_same_bytes_in_ascii(name: str) -> None:
    text = render(REPORTS[name], "json")
    assert text == render(REPORTS[name], "json")
    assert text.isascii()
    assert "\x1b" not in text and "\x00" not in text


@pytest.mark.parametrize("key", ["verdict", "findings", "not_applicable", "series", "unmapped"])
def test_schema_notices_a_missing_key(key: str, validator: Draft202012Validator) -> None:
    document = parsed(REPORTS["one"])
    del document["runs"][0][key]
    with pytest.raises(ValidationError):
        validator.validate(document)


def test_the_keys_of_the_contract() -> None:
    document = parsed(REPORTS["one"])
    assert document["schema_version"] == 1
    assert document["tool"] == {"name": "analyzer", "version": "0.1.0"}
    run = document["runs"][0]
    assert (run["name"], run["path"], run["verdict"]) == ("exp3", "runs/exp3", "warning")
    first, late = run["findings"]
    assert first["rule"] == "overfitting" and first["explained_by"] is None
    assert first["scope"] == {"kind": "run", "name": None}
    assert first["steps"] == {"from": 375, "to": 999}
    assert first["evidence"][0] == {
        "feature": "val_loss.rise_from_min",
        "value": 0.42,
        "op": ">=",
        "threshold": 0.05,
        "text": "val loss is 42 % above its minimum",
    }
    assert first["causes"][0] == {
        "id": "no-regularisation",
        "text": "No regularisation is switched on",
        "likelihood": 0.7,
    }
    assert list(first["remedies"][0]) == ["title", "effort", "snippets"]
    assert list(first["remedies"][0]["snippets"]) == ["pytorch", "lightning", "keras", "transformers"]
    assert late["explained_by"] == "overfitting"
    assert run["not_applicable"][0] == {"rule": "dead-relu", "missing": ["activations"]}
    assert run["problems"] == [
        {"path": "runs/exp3/events.1", "kind": "truncated", "message": "the last record is cut short"}
    ]
    assert run["series"][0] == {
        "role": "train_loss",
        "tag": "Loss/train",
        "points": 1000,
        "first_step": 0,
        "last_step": 999,
    }
    assert run["unmapped"] == ["misc/odd"]
    assert run["hyperparameters"] == {
        "amp": True,
        "lr": 0.001,
        "note": None,
        "optimizer": "adamw",
        "weight_decay": 0,
    }


def test_whole_numbers_are_written_as_integers_and_only_exact_ones() -> None:
    assert json_report.strict([3.0, 2.5, True, 1e300, np.float64(7)]) == [3, 2.5, True, 1e300, 7]
    assert json.dumps(json_report.strict(1000.0)) == "1000"
    assert json.dumps(json_report.strict(1e300)) == "1e+300"
    assert json.dumps(json_report.strict(True)) == "true"


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf"), np.float64("nan")])
def test_what_is_no_number_is_null(bad: float) -> None:
    evidence = Evidence("train_loss.last", bad, ">", 1.0, "text")
    finding = Finding("nan-loss", "t", "critical", bad, "s", "w", steps=(bad, 3.0), evidence=(evidence,))
    run = RunReport(Run("r", "r", hyperparameters={"lr": bad}), "critical", (finding,))
    out = parsed(Report((run,)))["runs"][0]
    assert out["findings"][0]["confidence"] is None
    assert out["findings"][0]["steps"] is None
    assert out["findings"][0]["evidence"][0]["value"] is None
    assert out["hyperparameters"] == {"lr": None}


def test_series_of_a_nan_step_and_of_no_points() -> None:
    nowhere = fixtures.series("train_loss", [1.0, 2.0], [float("nan"), 4.0])
    empty = fixtures.series("val_loss", [])
    out = parsed(Report((RunReport(Run("r", "r", (nowhere, empty)), "not-assessed"),)))
    steps = [(s["points"], s["first_step"], s["last_step"]) for s in out["runs"][0]["series"]]
    assert steps == [(2, None, 4), (0, None, None)]


@pytest.mark.parametrize("text", fixtures.HOSTILE)
def test_text_of_files_arrives_unchanged_unless_it_is_no_unicode(text: str) -> None:
    out = parsed(fixtures.report(fixtures.hostile_report(text)))["runs"][0]
    legal = text.encode("utf-8", "backslashreplace").decode("utf-8")
    assert out["name"] == legal
    assert out["findings"][0]["evidence"][0]["feature"] == legal
    assert out["series"][0]["tag"] == legal


def test_a_checkpoint_lists_its_tensors_and_findings() -> None:
    document = json_report.checkpoint_document(fixtures.checkpoint_report())
    out = json.loads(json_report.dumps(document), parse_constant=refuse)
    assert [f["rule"] for f in out["findings"]] == ["nan-weights"]
    assert [t["name"] for t in out["tensors"]] == ["encoder.0.weight", "encoder.1.weight", "head.weight"]
    assert out["tensors"][1]["nan"] == 12
    assert out["tensors"][0]["shape"] == [64, 32, 3, 3]
    assert {"dtype", "count", "mean", "std", "min", "max"} <= set(out["tensors"][0])
