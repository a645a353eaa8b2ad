"""Several runs together: who is comparable, what goes along with what, what was wasted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

import analyzer
from analyzer.insight import insight, member
from analyzer.insight.association import adjusted, fisher, mann_whitney
from analyzer.insight.configuration import configuration, matters
from analyzer.model import Association, Best, Member, Run, Series, Severity, Waste
from analyzer.report.comparison import names, sections

TAGS = frozenset({"train/loss", "val/loss"})


def a_member(
    i: int, *, rules: tuple[str, ...] = (), severity: Severity = "warning", **hyperparameters: object
) -> Member:
    return Member(
        name=f"run{i}",
        path=f"runs/run{i}",
        verdict=severity if rules else "healthy",
        findings=tuple((rule, severity) for rule in rules),
        hyperparameters=hyperparameters,  # type: ignore[arg-type]
        tags=TAGS,
        best={"val_loss": Best(0.5 + 0.001 * (i % 7), 100.0, "lower")},
        points=100,
        steps=1000.0,
    )


def sweep(count: int = 24) -> list[Member]:
    """High learning rates diverge; the batch size has nothing to do with it."""
    rates = [10 ** (-4 + 3 * i / (count - 1)) for i in range(count)]
    return [
        a_member(
            i,
            rules=("loss-divergence",) if rate > 0.01 else (),
            severity="critical",
            lr=rate,
            batch_size=(16, 32, 64)[i % 3],
            optimizer="sgd",
        )
        for i, rate in enumerate(rates)
    ]


def test_the_learning_rate_that_separates_sick_from_healthy_is_named() -> None:
    (cohort,) = insight(sweep()).cohorts
    assert {a.hyperparameter for a in cohort.associations} == {"lr"}
    found = next(a for a in cohort.associations if a.rule == "loss-divergence")
    assert found.effect == 1 and found.p < 0.01
    assert found.with_finding > 0.01 > found.without
    assert (found.sick, found.healthy) == (8, 16)


def test_shuffled_hyperparameters_rarely_separate_anything() -> None:
    false = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        runs = sweep()
        for key in ("lr", "batch_size"):
            values = rng.permutation([m.hyperparameters[key] for m in runs])
            runs = [
                replace(m, hyperparameters={**m.hyperparameters, key: float(v)})
                for m, v in zip(runs, values, strict=True)
            ]
        false += any(c.associations for c in insight(runs).cohorts)
    assert false <= 6  # 5 % of 40 are 2


def test_a_word_that_separates_is_named_with_its_shares() -> None:
    runs = [
        a_member(i, rules=("nan-loss",) if i % 2 else (), precision="fp16" if i % 2 else "bf16")
        for i in range(20)
    ]
    (cohort,) = insight(runs).cohorts
    found = next(a for a in cohort.associations if a.rule == "nan-loss")
    assert (found.value, found.with_finding, found.without) == ("fp16", 1.0, 0.0)


def test_hyperparameters_that_vary_alike_are_told_as_one() -> None:
    runs = [
        replace(m, hyperparameters={**m.hyperparameters, "warmup": float(m.hyperparameters["lr"]) * 10})  # type: ignore[arg-type]
        for m in sweep()
    ]
    (cohort,) = insight(runs).cohorts
    assert {(a.hyperparameter, a.equal) for a in cohort.associations} == {("lr", ("warmup",))}


def test_few_runs_are_no_evidence() -> None:
    assert not insight(sweep(5)).cohorts[0].associations


@pytest.mark.parametrize("seed", range(5))
def test_mann_whitney_agrees_with_scipy(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.integers(0, 6, 15).astype(float), rng.integers(1, 8, 11).astype(float)
    effect, p = mann_whitney(a, b)
    reference = stats.mannwhitneyu(a, b, method="asymptotic", use_continuity=True)
    assert p == pytest.approx(reference.pvalue)
    assert effect == pytest.approx(2 * reference.statistic / (len(a) * len(b)) - 1)


@pytest.mark.parametrize(
    ("both", "sick_only", "has_only", "neither"), [(8, 2, 1, 9), (0, 5, 5, 0), (3, 3, 3, 3)]
)
def test_fisher_agrees_with_scipy(both: int, sick_only: int, has_only: int, neither: int) -> None:
    total = both + sick_only + has_only + neither
    reference = stats.fisher_exact([[both, sick_only], [has_only, neither]]).pvalue
    assert fisher(both, sick_only, has_only, total) == pytest.approx(reference)


def test_correction_for_many_comparisons_agrees_with_scipy() -> None:
    values = [0.001, 0.02, 0.03, 0.2, 0.8, 0.8]
    found = [Association("x", str(i), 1.0, p, 5, 5, 1.0, 0.0) for i, p in enumerate(values)]
    assert [a.p for a in adjusted(found)] == pytest.approx(list(stats.false_discovery_control(values)))


def test_seeds_of_one_configuration_are_grouped_and_compared() -> None:
    runs = [
        a_member(i, rules=("overfitting", "loss-spikes") if i == 0 else ("overfitting",), lr=0.1, seed=i)
        for i in range(3)
    ]
    other = [a_member(10 + i, lr=0.2, seed=i) for i in range(2)]
    groups = insight(runs + other).cohorts[0].replicates
    assert [(g.runs, g.always, g.sometimes) for g in groups] == [
        (("run0", "run1", "run2"), ("overfitting",), {"loss-spikes": 1}),
        (("run10", "run11"), (), {}),
    ]


def test_where_a_run_writes_does_not_make_it_another_configuration() -> None:
    one = configuration({"lr": 0.1, "output_dir": "a", "run_name": "x", "seed": 1, "trainer.log_dir": "z"})
    two = configuration({"lr": 0.1, "output_dir": "b", "run_name": "y", "seed": 2, "trainer.log_dir": "w"})
    assert one == two != configuration({"lr": 0.2, "output_dir": "a"})
    assert matters("_name_or_path") and matters("model_name") and matters("data.dataset_path")


def test_a_run_far_worse_than_its_cohort_is_an_outlier_and_a_better_one_is_not() -> None:
    runs = [a_member(i, lr=0.1, depth=i) for i in range(10)]
    far = {"val_loss": Best(0.6, 50.0, "lower")}
    better = {"val_loss": Best(0.3, 50.0, "lower")}
    found = insight([*runs[:8], replace(runs[8], best=far), replace(runs[9], best=better)]).cohorts[0]
    assert [o.run for o in found.outliers] == ["run8"]
    assert [w.run for w in found.winners] == ["run9"]


def test_higher_is_better_turns_outliers_and_winners_round() -> None:
    runs = [
        replace(a_member(i, lr=0.1), best={"val_metric": Best(0.9 + 0.001 * (i % 5), 10.0, "higher")})
        for i in range(9)
    ]
    runs[3] = replace(runs[3], best={"val_metric": Best(0.5, 10.0, "higher")})
    runs[4] = replace(runs[4], best={"val_metric": Best(0.99, 10.0, "higher")})
    found = insight(runs).cohorts[0]
    assert [o.run for o in found.outliers] == ["run3"]
    assert found.winners[0].run == "run4"


def test_a_run_that_stopped_before_validation_is_compared_with_its_siblings() -> None:
    runs = sweep()
    short = replace(runs[-1], tags=frozenset({"train/loss"}), best={})
    (cohort,) = insight([*runs[:-1], short]).cohorts
    assert short.name in cohort.runs


def test_runs_of_unknown_configuration_are_comparable_only_side_by_side() -> None:
    here = [replace(a_member(i), path=f"a/run{i}") for i in range(2)]
    there = [replace(a_member(i + 5), path=f"b/run{i}") for i in range(2)]
    assert [c.runs for c in insight(here + there).cohorts] == [("run0", "run1"), ("run5", "run6")]
    assert all(not c.replicates for c in insight(here + there).cohorts)


def test_crashed_and_short_runs_are_told() -> None:
    runs = [a_member(i, lr=0.1 * i) for i in range(6)]
    runs[2] = replace(runs[2], steps=50.0)
    runs[3] = replace(runs[3], crashed=True)
    runs[4] = replace(runs[4], points=1)
    runs[5] = replace(runs[5], rewinds=4)
    told = insight(runs)
    assert (told.died_early, told.never_started, told.resumed) == (("run2", "run3"), ("run4",), ("run5",))


def curves(bad_from: int | None = None) -> Run:
    steps = np.arange(200.0)
    loss = 2 * np.exp(-steps / 40) + 0.01 * np.random.default_rng(0).normal(size=200)
    if bad_from is not None:
        loss[bad_from:] = np.nan
    walls = 1e9 + 36.0 * steps
    walls[150:] += 50_000  # a night between stop and resumption
    series = Series("loss", steps, loss, walls, role="train_loss", direction="lower")
    return Run("r", "r", (series,))


def test_what_comes_after_nan_is_wasted_and_pauses_are_not_work() -> None:
    report = analyzer.analyze([curves(bad_from=100)]).runs[0]
    assert report.waste is not None
    assert report.waste.rule == "nan-loss"
    assert report.waste.share == pytest.approx(0.5, abs=0.01)
    assert report.waste.steps == pytest.approx(99)
    assert report.waste.hours == pytest.approx(98 * 36 / 3600, rel=0.02)
    assert member(report).hours == pytest.approx(198 * 36 / 3600, rel=0.01)


def test_a_healthy_run_wastes_nothing() -> None:
    assert analyzer.analyze([curves()]).runs[0].waste is None


def test_waste_adds_up_over_runs() -> None:
    runs = [
        replace(a_member(0), waste=Waste("overfitting", 0.5, 500.0, 2.0), hours=4.0),
        replace(a_member(1), waste=Waste("nan-loss", 0.9, 900.0, None), hours=6.0),
        a_member(2),
    ]
    total = insight(runs).waste
    assert (total.runs, total.hours, total.of_hours, total.steps) == (3, 2.0, 10.0, 1400.0)
    assert total.share == pytest.approx(1.4 / 3)
    assert total.by_rule == {"overfitting": (1, 500.0, 2.0), "nan-loss": (1, 900.0, 0.0)}


def test_equal_curves_are_duplicates() -> None:
    one, two = curves(), replace(curves(), name="copy", path="copy")
    other = replace(curves(bad_from=100), name="other", path="other")
    report = analyzer.analyze([one, two, other])
    assert report.insight is not None
    assert [sorted(names) for names in report.insight.duplicates] == [["copy", "r"]]


def test_one_run_alone_is_compared_with_nothing() -> None:
    assert analyzer.analyze([curves()]).insight is None


def test_sentences_carry_the_numbers_and_call_an_association_one() -> None:
    told = dict(sections(insight(sweep())))
    (title,) = (t for t in told if "association" in t)
    text = " ".join(told[title])
    assert "loss-divergence have a higher lr" in text and "8 with, 16 without" in text


def test_many_sentences_are_cut_with_their_number() -> None:
    runs = [a_member(i, lr=0.1 * (i // 2), seed=i) for i in range(20)]
    lines = dict(sections(insight(runs)))["Seeds of one configuration"]
    assert lines[-1] == "… and 5 more like these"


def test_a_folder_that_runs_share_is_named_once() -> None:
    assert names(["sweep/a/run1", "sweep/a/run2"]) == "run1, run2 in sweep/a"
    assert names(["sweep/a", "sweep/b", "sweep/c", "sweep/d"]) == "a, b, c and 1 more in sweep"
    assert names(["s/a", "s/b", "s/c", "other/d"]) == "s/a, s/b, s/c and 1 more"
    assert names(["sweep/a", "swept/a"]) == "sweep/a, swept/a"
    assert names(["sweep/a"]) == "sweep/a"
