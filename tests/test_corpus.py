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
from analyzer.rulebook import load_rules  # noqa: E402
from benchmarks import judged_logs, rivals  # noqa: E402
from benchmarks.calibrate import Case, counted, fit, written  # noqa: E402
from benchmarks.corpus import training  # noqa: E402
from benchmarks.corpus.faults import FAULTS, STRENGTHS, overfits, still_falling  # noqa: E402
from benchmarks.corpus.generate import generate, label, plan, plans  # noqa: E402
from benchmarks.corpus.programs import PROGRAMS  # noqa: E402
from benchmarks.corpus.training import Recipe, Record  # noqa: E402
from benchmarks.corpus.traps import TRAPS, WITHOUT_PROGRAM  # noqa: E402
from benchmarks.corpus.writers import chosen_rows  # noqa: E402
from benchmarks.diagnosis import (  # noqa: E402
    Found,
    calibration,
    labels_of,
    macro_f1,
    rates,
    score,
    score_corpus,
    scoreboard,
    summary,
)

CLEAR = ("nan-loss", "nan-weights", "loss-divergence", "label-leakage", "exploding-weights", "overfitting")
CALM = ("summed-parts", "train-only", "scale-1e6", "one-cycle", "resumed")


def planned(fault: str, strength: str, program: str = "teacher-mlp"):
    return plan(fault, strength, PROGRAMS[program], 0)


def record(train: list[float], held_out: list[float], good: float = 0.0) -> Record:
    steps = [{"step": i, "epoch": i, "train_loss": v} for i, v in enumerate(train)]
    epochs = [row | {"val_loss": held_out[min(i + 1, len(held_out) - 1)]} for i, row in enumerate(steps)]
    return Record(steps, epochs, held_out, [], {}, good)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A small corpus: clear faults and traps on the fastest programs."""
    out = tmp_path_factory.mktemp("corpus")
    faults = [planned(f, "strong", "digits-mlp" if f == "label-leakage" else "teacher-mlp") for f in CLEAR]
    return out, {
        made.strength + "/" + made.fault: made for made in generate(out, [*faults, *map(calm, CALM)])
    }


def calm(trap: str):
    return planned("healthy", trap)


def test_labels_are_kept_apart_from_what_is_analysed(made):
    out, labels = made
    lines = [json.loads(line) for line in (out / "labels.jsonl").read_text().splitlines()]
    names = {line["run"] for line in lines}
    assert names == {one.run for one in labels.values()} == {p.name for p in (out / "runs").iterdir()}
    assert not list((out / "runs").rglob("labels*"))


def test_clear_faults_are_found_and_healthy_runs_are_left_in_peace(made):
    figures = summary(score_corpus(made[0], labels_of(made[0])))
    assert figures.faulty >= 5 and figures.healthy >= 4
    assert figures.complete >= 0.8
    assert figures.alarmed == 0


def test_an_injected_fault_is_in_the_log_and_must_be_found(made):
    out, labels = made
    one = labels["strong/nan-loss"]
    assert one.must == ("nan-loss",)
    (run,) = analyzer.read(out / "runs" / one.run)
    loss = next(s for s in run.series if s.role == "train_loss").values
    assert np.isfinite(loss[0]) and not np.isfinite(loss[-1])


def test_healthy_runs_have_nothing_to_find_and_show_their_trap(made):
    out, labels = made
    assert labels["train-only/healthy"].must == labels["summed-parts/healthy"].must == ()
    (alone,) = analyzer.read(out / "runs" / labels["train-only/healthy"].run)
    assert not [s for s in alone.series if s.role.startswith("val")]
    (parts,) = analyzer.read(out / "runs" / labels["summed-parts/healthy"].run)
    assert sum(s.role == "train_loss_part" for s in parts.series) == 3


def test_a_pass_goes_on_where_it_stopped(made, monkeypatch):
    def trained_again(*_):
        raise AssertionError

    monkeypatch.setattr("benchmarks.corpus.generate.make", trained_again)
    assert generate(made[0], [planned("nan-loss", "strong"), calm("train-only")]) == []


def test_the_same_plan_gives_the_same_curve():
    first, second = (training.fit(Recipe(PROGRAMS["teacher-mlp"], 3, n=80, epochs=2)) for _ in range(2))
    assert np.array_equal(first.losses, second.losses)


def test_a_faint_fault_in_a_healthy_run_is_labelled_healthy():
    fine = record([4, 3, 2, 1, 0.5, 0.2, 0.1, 0.1, 0.1, 0.1], [4, 3, 2, 1, 0.5, 0.3, 0.2, 0.2, 0.2, 0.2, 0.2])
    fault, strength, must, may = label(planned("overfitting", "mild"), fine, held_out=True)
    assert (fault, strength, must) == ("healthy", "faint-overfitting", ())
    assert "overfitting" in may
    assert label(planned("healthy", "ordinary"), fine, held_out=True)[2] == ()


def test_what_happened_is_asked_for_where_something_else_was_meant():
    broken = record([4, 3, 2, 2, 2, 2, 2, float("nan"), float("nan")], [4, 3, 3, 3, 3, 3, 3, 3, 3, 3])
    fault, strength, must, _ = label(planned("slow-convergence", "mild"), broken, held_out=True)
    assert (fault, strength, must) == ("nan-loss", "from-slow-convergence", ("nan-loss",))


def test_neither_a_fault_nor_health_is_dropped():
    halfway = record(list(np.linspace(4, 2, 5)) + [2.0] * 15, list(np.linspace(4, 2, 5)) + [2.0] * 16)
    assert label(planned("overfitting", "mild"), halfway, held_out=True) is None
    assert label(planned("healthy", "ordinary"), halfway, held_out=True) is None


def test_overfitting_is_labelled_whatever_was_injected_where_it_can_be_seen():
    memorises = record(list(np.linspace(4, 0, 20)), [4, 3, 2, 1, *np.linspace(1, 3, 17)])
    assert overfits(memorises)
    asked = label(planned("untrained-layer", "mild"), memorises, held_out=True)
    assert asked[2] == ("untrained-layer", "overfitting")
    hidden = label(planned("untrained-layer", "mild"), memorises, held_out=False)
    assert hidden[2] == ("untrained-layer",) and "overfitting" in hidden[3]


def test_a_run_cut_short_is_not_healthy():
    short = record(list(np.linspace(4, 0.5, 40)), list(np.linspace(4, 0.5, 41)))
    assert still_falling(short) > 0.1
    assert label(planned("healthy", "ordinary"), short, held_out=True) is None


def test_a_resumed_run_is_written_in_the_order_in_which_it_was_trained():
    twice = record([5, 4, 3, 2, 1], [5, 5, 4, 3, 2, 1])
    twice.steps[:], twice.epochs[:] = twice.steps[:4] + twice.steps[2:], twice.epochs[:4] + twice.epochs[2:]
    steps = [row["step"] for row in chosen_rows(twice, "every-step", lambda key: True)]
    assert [s for i, s in enumerate(steps) if i == 0 or s != steps[i - 1]] == [0, 1, 2, 3, 2, 3, 4]


def test_every_fault_asks_for_known_diagnoses():
    known = {rule.id for rule in load_rules()} | {"low-rank-layer"}
    for fault in FAULTS.values():
        assert {i for entry in (*fault.must, *fault.may) for i in entry.split("|")} <= known, fault.name


def test_every_diagnosis_is_asked_for_somewhere():
    asked = {i for fault in FAULTS.values() for entry in fault.must for i in entry.split("|")}
    assert {rule.id for rule in load_rules() if not rule.id.startswith("unsafe")} <= asked


def test_every_part_has_each_trap_and_no_program_is_in_both():
    turn = list(plans(1))
    in_part = {part: {p.program for p in turn if p.part == part} for part in ("tune", "report")}
    assert not in_part["tune"] & in_part["report"]
    traps = {(p.strength, p.part) for p in turn if p.fault == "healthy"}
    assert {(name, part) for name in TRAPS for part in WITHOUT_PROGRAM} <= traps
    assert {p.strength for p in turn if p.fault != "healthy"} == set(STRENGTHS)
    assert len({p.name for p in turn}) == len(turn)


# ---------------------------------------------------------------------------------------------
# Counting


def test_alternatives_and_permitted_findings():
    asked = {"fault": "x", "must": ["loss-divergence|lr-too-high", "nan-loss"], "may": ["loss-spikes"]}
    found = [Found(i, "warning", 0.8) for i in ("lr-too-high", "loss-spikes", "overfitting")]
    result = score(asked, [*found, Found("converged", "info", 0.5), Found("dead-relu", "info", 0.5)])
    assert result.right == ("lr-too-high",)
    assert result.missed == ("nan-loss",)
    assert result.wrong == ("overfitting",)
    assert result.top_hit and result.alarms == ["overfitting"]


def test_what_the_curves_bear_out_is_right_but_not_asked_for():
    asked = {"fault": "x", "must": ["dead-relu"], "may": [], "true": ["loss-not-decreasing"]}
    alone = score(asked, [Found("loss-not-decreasing", "critical", 0.9)])
    assert alone.top_hit and alone.missed == ("dead-relu",) and not alone.wrong
    assert score(asked, [Found("dead-relu", "warning", 0.9)]).missed == ()


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


def test_the_scoreboard_gives_the_report_part_no_names():
    def one(part: str, run: str):
        asked = {"run": run, "fault": "x", "part": part, "must": ["nan-loss"], "may": [], "program": "p"}
        return score(asked, [Found("overfitting", "warning", 0.9)])

    text = scoreboard({"analyzer": [one("report", "secret"), one("tune", "open")]}, {})
    assert "secret" not in text
    assert text.count("nan-loss → overfitting") == 1


# ---------------------------------------------------------------------------------------------
# Confidence


def test_a_fit_follows_the_counts_and_trusts_estimates_where_they_hold():
    programs = ("a", "b", "c")
    sound = [Case(p, "sound", 1.5, True) for p in programs for _ in range(20)]
    shaky = [Case(p, "shaky", 0.5, i % 2 == 0) for p in programs for i in range(20)]
    fitted = fit([*sound, *shaky], {"sound": 0.7, "shaky": 0.7})
    assert fitted.counts == {"sound": (60, 0), "shaky": (30, 30)}
    assert json.loads(written(fitted, {}))["rules"]["shaky"] == {"right": 30, "wrong": 30}
    assert counted(sound[:1]) == {"sound": (1, 0)}


# ---------------------------------------------------------------------------------------------
# Other tools and real logs


def test_another_tools_check_is_read_in_its_favour():
    asked = {"must": ["lr-too-high"], "may": ["loss-spikes"], "true": []}
    options = rivals.MEANS["runmedic"]["divergence"].split()
    assert rivals.choose(options, rivals.preferences(asked)) == "lr-too-high"
    assert rivals.choose(options, []) == options[0]


def test_checks_of_other_tools_stand_for_known_diagnoses():
    known = {rule.id for rule in load_rules()}
    for tool in rivals.MEANS.values():
        assert {name for meaning in tool.values() for name in meaning.split()} <= known


def test_a_tool_that_fails_has_read_nothing(tmp_path, monkeypatch):
    def broken(run):
        raise ValueError(run)
        yield

    monkeypatch.setitem(rivals.RIVALS, "losslint", broken)
    assert rivals.findings("losslint", tmp_path, []) is None


@pytest.mark.parametrize(
    ("words", "found", "expected"),
    [
        ({"healthy"}, [], "healthy: quiet"),
        ({"healthy"}, [("overfitting", "warning")], "healthy: alarm"),
        ({"healthy"}, [("overfitting", "info")], "healthy: quiet"),
        ({"healthy", "plateau"}, [("loss-plateau", "warning")], "healthy: quiet"),
        ({"overfitting", "plateau"}, [("overfitting", "warning")], "fault: found"),
        ({"nan", "overfitting"}, [("nan-loss", "critical")], "fault: in part"),
        ({"nan"}, [], "fault: missed"),
        ({"unfinished"}, [], "soft"),
        ({"nan"}, None, "fault: not read"),
        ({"healthy"}, None, "healthy: not read"),
    ],
)
def test_a_judgement_is_met_by_any_of_the_diagnoses_it_stands_for(words, found, expected):
    assert judged_logs.outcome(frozenset(words), found) == expected
