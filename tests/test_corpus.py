"""The labelled corpus and the scoreboard: what a label means, and how a finding is counted."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("tensorboard")
sys.path.append(str(Path(__file__).parents[1]))  # the benchmarks are no part of the package

import analyzer  # noqa: E402
from benchmarks.corpus.faults import FAULTS, overfits, still_falling  # noqa: E402
from benchmarks.corpus.generate import Plan, generate, label, plans  # noqa: E402
from benchmarks.corpus.programs import PROGRAMS  # noqa: E402
from benchmarks.corpus.training import Recipe, Record, fit  # noqa: E402
from benchmarks.corpus.traps import TRAPS  # noqa: E402
from benchmarks.diagnosis import Found, calibration, macro_f1, rates, score  # noqa: E402


def plan(fault: str, strength: str, program: str = "teacher-mlp") -> Plan:
    return Plan(f"{fault}-{strength}", program, PROGRAMS[program].part, fault, strength, 1)


def record(train: list[float], held_out: list[float], good: float = 0.0) -> Record:
    steps = [{"step": i, "epoch": i, "train_loss": v} for i, v in enumerate(train)]
    return Record(steps, steps, held_out, [], {}, good)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    out = tmp_path_factory.mktemp("corpus")
    chosen = [plan("nan-loss", "strong"), plan("healthy", "summed-parts"), plan("healthy", "train-only")]
    return out, {made.run: made for made in generate(out, chosen)}


def test_labels_are_kept_apart_from_what_is_analysed(made):
    out, labels = made
    lines = [json.loads(line) for line in (out / "labels.jsonl").read_text().splitlines()]
    assert {line["run"] for line in lines} == set(labels) == {p.name for p in (out / "runs").iterdir()}
    assert not list((out / "runs").rglob("labels*"))


def test_an_injected_fault_is_in_the_log_and_must_be_found(made):
    out, labels = made
    assert labels["nan-loss-strong"].must == ("nan-loss",)
    (run,) = analyzer.read(out / "runs" / "nan-loss-strong")
    loss = next(s for s in run.series if s.role == "train_loss").values
    assert np.isfinite(loss[0]) and not np.isfinite(loss[-1])


def test_healthy_runs_have_nothing_to_find_and_show_their_trap(made):
    out, labels = made
    assert labels["healthy-train-only"].must == labels["healthy-summed-parts"].must == ()
    (alone,) = analyzer.read(out / "runs" / "healthy-train-only")
    assert not [s for s in alone.series if s.role.startswith("val")]
    (parts,) = analyzer.read(out / "runs" / "healthy-summed-parts")
    assert sum(s.role == "train_loss_part" for s in parts.series) == 3


def test_the_same_plan_gives_the_same_curve():
    first, second = (fit(Recipe(PROGRAMS["teacher-mlp"], 3, n=80, epochs=2)) for _ in range(2))
    assert np.array_equal(first.losses, second.losses)


def test_a_fault_that_does_not_show_is_dropped():
    fine = record([4, 3, 2, 1, 0.5, 0.2, 0.1, 0.1, 0.1, 0.1], [4, 3, 2, 1, 0.5, 0.3, 0.2, 0.2, 0.2, 0.2, 0.2])
    must, _ = label(plan("overfitting", "mild"), fine, held_out=True)
    assert must is None
    must, _ = label(plan("healthy", "ordinary"), fine, held_out=True)
    assert must == ()


def test_overfitting_is_labelled_whatever_was_injected_where_it_can_be_seen():
    memorises = record(list(np.linspace(4, 0, 20)), [4, 3, 2, 1, *np.linspace(1, 3, 17)])
    assert overfits(memorises)
    assert label(plan("untrained-layer", "mild"), memorises, held_out=True)[0] == (
        "untrained-layer",
        "overfitting",
    )
    must, may = label(plan("untrained-layer", "mild"), memorises, held_out=False)
    assert must == ("untrained-layer",) and "overfitting" in may


def test_a_run_cut_short_is_not_healthy():
    short = record(list(np.linspace(4, 0.5, 40)), list(np.linspace(4, 0.5, 41)))
    assert still_falling(short) > 0.1
    assert label(plan("healthy", "ordinary"), short, held_out=True)[0] is None


def test_every_fault_asks_for_known_diagnoses_and_every_part_has_each_trap():
    from analyzer.rulebook import load_rules

    known = {rule.id for rule in load_rules()}
    for fault in FAULTS.values():
        assert {i for entry in (*fault.must, *fault.may) for i in entry.split("|")} <= known, fault.name
    planned = {(p.strength, p.part) for p in plans(1) if p.fault == "healthy"}
    assert {(name, part) for name in TRAPS for part in ("tune", "report")} <= planned


def test_alternatives_and_permitted_findings():
    asked = {"fault": "x", "must": ["loss-divergence|lr-too-high", "nan-loss"], "may": ["loss-spikes"]}
    found = [Found(i, "warning", 0.8) for i in ("lr-too-high", "loss-spikes", "overfitting")]
    result = score(asked, [*found, Found("converged", "info", 0.5), Found("dead-relu", "info", 0.5)])
    assert result.right == ("lr-too-high",)
    assert result.missed == ("nan-loss",)
    assert result.wrong == ("overfitting",)
    assert result.top_hit and result.alarms == ["overfitting"]


def test_rates_count_over_runs():
    asked = {"fault": "x", "must": ["nan-loss"], "may": []}
    healthy = {"fault": "healthy", "must": [], "may": []}
    alarm = [Found("nan-loss", "critical", 0.9)]
    table = rates([score(asked, alarm), score(asked, []), score(healthy, alarm), score(healthy, [])])
    assert (table["nan-loss"].precision, table["nan-loss"].recall) == (0.5, 0.5)
    assert macro_f1(table) == 0.5


def test_calibration_is_zero_only_where_confidence_is_the_share_of_right():
    honest = [(0.75, True)] * 3 + [(0.75, False)]
    assert calibration(honest)[1] == pytest.approx(0)
    assert calibration([(0.75, False)] * 4)[1] == pytest.approx(0.75)
    assert calibration(honest)[0] == pytest.approx(0.75 * 0.25)
