"""The functions of the package, as they are used from Python."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from small_runs import events, falling, overfitting, rising_late, table

import analyzer
from analyzer.errors import IngestError, RuleError
from analyzer.model import Finding, Report, Run
from analyzer.rulebook import load_rules
from analyzer.rulebook.conditions import leaves

STEPS = np.arange(60)
TRAIN = [falling(x) for x in STEPS]
VAL = [rising_late(x) for x in STEPS]


def rules_of(findings: list[Finding] | tuple[Finding, ...]) -> set[str]:
    return {finding.rule for finding in findings}


# --- read -----------------------------------------------------------------------------------------


def test_read_gives_runs_with_their_series(tmp_path: Path) -> None:
    events(tmp_path / "exp", tags=("Loss/train",), steps=range(10))
    for given in (tmp_path, str(tmp_path), [tmp_path]):
        (run,) = analyzer.read(given)
        (series,) = run.series
        assert (series.tag, series.role) == ("Loss/train", "train_loss")
        assert series.steps.tolist() == list(range(10))
        assert series.values == pytest.approx([falling(x) for x in range(10)], rel=1e-6)
        assert series.wall_times is not None and len(series.wall_times) == 10


def test_read_takes_roles_by_hand(tmp_path: Path) -> None:
    table(tmp_path / "metrics.csv", {"odd": falling})
    assert analyzer.read(tmp_path)[0].series[0].role == ""
    assert analyzer.read(tmp_path, roles={"odd": "val_loss"})[0].series[0].role == "val_loss"


def test_read_says_why_there_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(IngestError, match="no such file") as missing:
        analyzer.read(tmp_path / "nope")
    assert missing.value.path == str(tmp_path / "nope") and missing.value.kind == "missing"
    bad = tmp_path / "metrics.csv"
    bad.write_bytes(b"\0\1" * 50)
    with pytest.raises(IngestError, match="binary content"):
        analyzer.read(bad)


def test_read_of_a_folder_without_logs_is_an_empty_list(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("# nothing here")
    assert analyzer.read(tmp_path) == []


def test_a_bad_file_does_not_cost_the_good_run(tmp_path: Path) -> None:
    table(tmp_path / "good" / "metrics.csv")
    (tmp_path / "bad.csv").write_bytes(b"\0\1" * 50)
    assert [run.name for run in analyzer.read(tmp_path)] == ["good"]


# --- analyze --------------------------------------------------------------------------------------


def test_analyze_takes_paths_runs_and_both(tmp_path: Path) -> None:
    overfitting(tmp_path / "a" / "metrics.csv")
    table(tmp_path / "b" / "metrics.csv")
    report = analyzer.analyze(tmp_path)
    assert isinstance(report, Report) and report.version == analyzer.__version__
    by_name = {r.run.name: r for r in report.runs}
    assert "overfitting" in rules_of(by_name["a"].findings) - rules_of(by_name["b"].findings)

    runs = analyzer.read(tmp_path)
    again = {r.run.name: r for r in analyzer.analyze(runs).runs}
    assert {name: rules_of(r.findings) for name, r in again.items()} == {
        name: rules_of(r.findings) for name, r in by_name.items()
    }
    assert rules_of(analyzer.analyze(runs[0]).findings) == rules_of(by_name[runs[0].name].findings)
    mixed = analyzer.analyze([str(tmp_path / "b"), runs[0]])
    assert sorted(r.run.name for r in mixed.runs) == ["a", "b"]
    assert mixed.runs[0].run.name == "a"  # the worst first, whence ever it came


def test_analyze_of_a_missing_path_is_a_report_that_says_so(tmp_path: Path) -> None:
    report = analyzer.analyze(tmp_path / "nope")
    assert report.runs == () and [p.kind for p in report.problems] == ["missing"]


def test_analyze_of_nothing_is_an_empty_report() -> None:
    assert analyzer.analyze([]).runs == ()


def test_a_broken_rule_is_an_error_that_lists_every_mistake(tmp_path: Path) -> None:
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "x.yaml").write_text("id: x\nseverty: warning\n")
    with pytest.raises(RuleError, match="severty") as error:
        analyzer.analyze(tmp_path, rules=[tmp_path / "rules"])
    assert len(error.value.problems) > 1
    with pytest.raises(RuleError):
        analyzer.analyze(tmp_path, rules=[str(tmp_path / "rules")])


# --- diagnose -------------------------------------------------------------------------------------


def test_diagnose_takes_curves_by_role_or_by_tag() -> None:
    assert "overfitting" in rules_of(analyzer.diagnose({"train_loss": TRAIN, "val_loss": VAL}))
    assert "overfitting" in rules_of(analyzer.diagnose({"Loss/train": TRAIN, "Loss/val": VAL}))
    assert "overfitting" not in rules_of(analyzer.diagnose({"train_loss": TRAIN, "val_loss": TRAIN}))


def test_diagnose_reports_the_steps_that_were_given() -> None:
    findings = analyzer.diagnose({"train_loss": TRAIN, "val_loss": VAL}, steps=STEPS * 100)
    (found,) = [f for f in findings if f.rule == "overfitting"]
    assert found.steps is not None
    assert 1000 <= found.steps[0] <= 3000 and found.steps[1] == 5900


def test_diagnose_puts_points_in_order() -> None:
    back = slice(None, None, -1)
    findings = analyzer.diagnose({"train_loss": TRAIN[back], "val_loss": VAL[back]}, steps=STEPS[back])
    assert rules_of(findings) == rules_of(analyzer.diagnose({"train_loss": TRAIN, "val_loss": VAL}))


def test_diagnose_takes_a_curve_shorter_than_the_steps_and_gaps() -> None:
    findings = analyzer.diagnose({"train_loss": [*TRAIN[:30], float("nan")]}, steps=STEPS)
    assert "nan-loss" in rules_of(findings)


def test_diagnose_uses_hyperparameters() -> None:
    curves = {"train_loss": TRAIN, "val_loss": VAL}
    with_rate = analyzer.diagnose(curves, hyperparameters={"weight_decay": 0.125})
    assert rules_of(with_rate) == rules_of(analyzer.diagnose(curves))
    snippets = [s for f in with_rate for remedy in f.remedies for s in remedy.snippets.values()]
    assert snippets


@pytest.mark.parametrize(
    ("curves", "steps", "message"),
    [
        ({"train_loss": [1.0, 2.0, 3.0]}, [0, 1], "3 values and only 2 steps"),
        ({"train_loss": [[1.0, 2.0]]}, None, "one axis"),
        ({"train_loss": ["high", "low"]}, None, "not all of its values are numbers"),
    ],
)
def test_diagnose_refuses_what_is_no_curve(curves: dict, steps: list[int] | None, message: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(ValueError, match=message):
        analyzer.diagnose(curves, steps=steps)


def test_diagnose_of_nothing_finds_nothing() -> None:
    assert analyzer.diagnose({}) == []
    assert analyzer.diagnose({"train_loss": []}) == []


# --- checkpoints ----------------------------------------------------------------------------------


def test_inspect_checkpoint_gives_contents_and_statistics(tmp_path: Path) -> None:
    import torch

    weights = torch.linspace(-1, 1, 12).reshape(3, 4)
    torch.save({"state_dict": {"fc.weight": weights}, "epoch": 7}, tmp_path / "model.pt")
    for given in (tmp_path / "model.pt", str(tmp_path / "model.pt")):
        checkpoint, (layer,) = analyzer.inspect_checkpoint(given)
        assert checkpoint.epoch == 7
        assert (layer.name, layer.shape, layer.count) == ("fc.weight", (3, 4), 12)
        assert layer.std == pytest.approx(float(weights.std(correction=0)), rel=1e-5)
        assert (layer.min, layer.max) == (-1.0, 1.0)


@pytest.mark.parametrize("content", [None, b"", b"text\n" * 50])
def test_inspect_checkpoint_says_why_it_cannot(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "model.pt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(IngestError) as error:
        analyzer.inspect_checkpoint(path)
    assert str(path) in str(error.value)


def test_the_package_offers_what_it_names() -> None:
    for name in analyzer.__all__:
        assert getattr(analyzer, name)
    assert isinstance(Run("x", "x"), Run)


def test_every_spike_is_marked_where_it_is() -> None:
    """The worst first, one mark each; the finding speaks of the stretch from the first to the last."""
    loss = [2 * np.exp(-i / 40) + 0.5 + 0.01 * np.sin(i * 7.7) for i in range(300)]
    for step, height in ((100, 3.0), (160, 5.0), (240, 4.0)):
        loss[step] += height
    found = next(f for f in analyzer.diagnose({"train_loss": loss}) if f.rule == "loss-spikes")
    spikes = [mark.first for mark in found.marks if mark.first == mark.last]
    assert spikes == [160, 240, 100]
    assert found.steps == (100, 240)


def test_a_measurement_is_told_once_against_its_hardest_threshold() -> None:
    """Two branches of the rule ask for the same rise at different thresholds."""
    found = next(
        f for f in analyzer.diagnose({"train_loss": TRAIN, "val_loss": VAL}) if f.rule == "overfitting"
    )
    told = [(e.feature, e.op) for e in found.evidence]
    assert len(told) == len(set(told))
    significance = next(e for e in found.evidence if e.feature == "val_loss.rise_z")
    rule = next(r for r in load_rules() if r.id == "overfitting")
    asked = [leaf.threshold for leaf in leaves(rule.when) if leaf.feature == "val_loss.rise_z"]
    assert len(asked) > 1 and significance.threshold == max(asked)
