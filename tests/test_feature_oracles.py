"""Measurements against slow and independent computations, and what must not move them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from analyzer.features import compute
from analyzer.features.robust import bend, bootstrap_slopes, running_median, window_medians
from analyzer.memory import run_of
from analyzer.model import Measurement, Missing, Run, Series

LOSSES = ("train_loss", "val_loss")
numbers = st.lists(st.floats(1, 500), min_size=9, max_size=60)


def series(role, values, steps=None, **more):
    values = np.asarray(values, dtype=float)
    steps = np.arange(len(values), dtype=float) if steps is None else np.asarray(steps, dtype=float)
    higher = role.endswith("accuracy") or role == "reward"
    return Series(role, steps, values, role=role, direction="higher" if higher else "lower", **more)


def features_of(**curves):
    """Features of curves by role; a pair is steps and values."""
    made = [series(r, *reversed(c)) if isinstance(c, tuple) else series(r, c) for r, c in curves.items()]
    return compute(Run("r", "r", tuple(made)))


def value(name, **curves):
    found = features_of(**curves)[name]
    assert isinstance(found, Measurement), found
    return found.value


def noise(n, seed=0, size=1.0):
    return size * np.random.default_rng(seed).standard_normal(n)


def falling(n, top=2.3, floor=0.3, tau=0.15):
    return floor + (top - floor) * np.exp(-np.arange(n) / n / tau)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40), st.data())
def test_window_medians_are_the_medians_of_the_windows(values, data):
    values = np.array(values)
    index = st.integers(0, len(values))
    windows = data.draw(st.lists(st.tuples(index, index).map(sorted), min_size=1, max_size=8))
    first, past = (np.array(column) for column in zip(*windows, strict=True))
    expected = [np.median(values[a:b]) if b > a else np.nan for a, b in windows]
    assert window_medians(values, first, past) == pytest.approx(expected, nan_ok=True)


def test_a_long_window_is_measured_as_a_short_one_would_be():
    n, width = 20_000, 2001
    values = np.sin(np.arange(n) / 3000) + noise(n, size=0.3)
    some = range(width, n - width, 997)
    exact = [np.median(values[i - width // 2 : i + width // 2 + 1]) for i in some]
    assert running_median(values, width)[list(some)] == pytest.approx(exact, abs=0.05)


@pytest.mark.parametrize("kink", [20, 50, 75])
def test_a_bend_is_found_where_the_slope_changes(kink):
    x = np.arange(100.0)
    y = 5 - 0.03 * x + 0.08 * np.maximum(0, x - kink) + noise(100, kink, 0.05)
    assert bend(x, y) == pytest.approx(kink, abs=4)
    assert bend(7 * x + 3, -1e6 * y) == bend(x, y)


def test_a_bend_is_the_break_of_the_least_squared_error():
    x = np.sort(np.random.default_rng(5).uniform(size=40))
    y = np.maximum(0, x - 0.6) + noise(40, 3, 0.2)

    def error(k):
        design = np.column_stack([np.ones(40), x, np.maximum(0, x - x[k])])
        return np.linalg.lstsq(design, y, rcond=None)[1][0]

    assert bend(x, y) == min(range(2, 38), key=error)


def test_bootstrapped_slopes_are_those_of_lines_through_the_resamples():
    y, samples = 0.02 * np.arange(50) + noise(50), 7
    fit = stats.linregress(np.arange(50), y)
    residual = y - fit.intercept - fit.slope * np.arange(50)
    starts = np.random.default_rng(0).integers(0, 50 - 4 + 1, (samples, 13))
    resampled = [np.concatenate([residual[s : s + 4] for s in row])[:50] for row in starts]
    expected = [fit.slope + stats.linregress(np.arange(50), r).slope for r in resampled]
    assert bootstrap_slopes(y, samples) == pytest.approx(expected)


def test_bootstrapped_slopes_lie_around_the_line_s_and_scatter_as_theory_says():
    y = 0.02 * np.arange(150) + noise(150)
    fit = stats.linregress(np.arange(150), y)
    slopes = bootstrap_slopes(y, 2000)
    assert np.mean(slopes) == pytest.approx(fit.slope, abs=3 * fit.stderr / np.sqrt(2000))
    assert np.std(slopes) == pytest.approx(fit.stderr, rel=0.25)
    assert bootstrap_slopes(y, 2000) == pytest.approx(slopes)


def test_bootstrapped_slopes_scatter_more_where_the_noise_wanders():
    wander = np.convolve(noise(210), np.ones(10) / 10, mode="valid")[:200]
    naive = stats.linregress(np.arange(200), wander).stderr
    assert np.std(bootstrap_slopes(wander)) > 1.5 * naive


@given(numbers)
def test_shape_of_a_fall_by_its_definition(values):
    third = len(values) // 3
    early, middle, late = (
        np.median(part) for part in (values[:third], values[third : len(values) - third], values[-third:])
    )
    features = features_of(train_loss=values)
    straight, head = features["train_loss.straightness"], features["train_loss.head_fall"]
    if early - middle > 1e-3:
        assert straight.value == pytest.approx((middle - late) / (early - middle), rel=1e-6)
    if early - late > 1e-3:
        first = np.median(values[: max(1, len(values) // 20)])
        assert head.value == pytest.approx((first - early) / (early - late), rel=1e-6, abs=1e-9)


def test_a_line_is_straight_and_a_learning_curve_is_not():
    assert value("train_loss.straightness", train_loss=np.linspace(2, 1, 300)) == pytest.approx(1, abs=0.02)
    assert value("train_loss.head_fall", train_loss=np.linspace(2, 1, 300)) == pytest.approx(0.21, abs=0.02)
    assert value("train_loss.straightness", train_loss=falling(300)) < 0.15
    early_then_line = np.concatenate([np.linspace(6, 2, 20), np.linspace(2, 1.8, 280)])
    assert value("train_loss.head_fall", train_loss=early_then_line) > 2


@pytest.mark.parametrize("name", ["train_loss.fall_z", "train_loss.start_z"])
def test_falls_of_mere_noise_are_standard_normal(name):
    z = [value(name, train_loss=5 + noise(400, seed)) for seed in range(150)]
    assert np.mean(z) == pytest.approx(0, abs=0.35)
    assert np.std(z) == pytest.approx(1, abs=0.3)
    assert value(name, train_loss=5 + falling(400) + noise(400, 1, 0.3)) > 6


@given(numbers)
def test_the_rising_run_is_counted_from_the_end(values):
    run = 0
    while run < len(values) - 1 and values[-1 - run] > values[-2 - run]:
        run += 1
    assert value("val_loss.rising_run", val_loss=values) == run


def test_rise_tau_is_kendall_s_after_the_best():
    y = np.concatenate([falling(20, floor=0.5), 0.5 + 0.02 * np.arange(15) + noise(15, 4, 0.03)])
    best = int(features_of(val_loss=y)["val_loss.min_step"].value)
    assert value("val_loss.rise_tau", val_loss=y) == pytest.approx(
        stats.kendalltau(np.arange(len(y) - best), y[best:])[0], abs=1e-9
    )


def test_a_loss_that_goes_up_and_down_has_no_novel_rise():
    square = 1 + 0.5 * ((np.arange(400) // 40) % 2) + noise(400, size=0.02)
    assert value("train_loss.rise_novelty", train_loss=square) < 1.5
    diverged = np.concatenate([falling(200), np.full(200, 3.0)]) + noise(400, size=0.02)
    assert value("train_loss.rise_novelty", train_loss=diverged) > 10


def test_a_late_spike_has_recovered_and_a_divergence_has_not():
    healing = np.concatenate([falling(300), 0.3 + 3 * np.exp(-np.arange(100) / 25)])
    assert value("train_loss.recovered", train_loss=healing) > 0.7
    assert value("train_loss.recovered", train_loss=np.concatenate([falling(300), np.full(100, 3.0)])) < 0.1


def test_the_last_slope_is_a_tenth_of_a_run_whatever_the_number_of_points():
    for n in (20, 200, 5000):
        line = np.linspace(2, 1, n)
        assert value("train_loss.last_trend", train_loss=line) == pytest.approx(-0.1, abs=0.012)
        assert value("train_loss.tail_trend", train_loss=line) == pytest.approx(-0.3, abs=0.035)


def test_one_outlier_is_no_swing():
    curve = falling(300) + noise(300, size=0.01)
    plain = value("train_loss.swing", train_loss=curve)
    curve[[180, 240]] += 30
    assert value("train_loss.swing", train_loss=curve) == pytest.approx(plain, abs=0.03)


def test_swings_are_related_to_the_level_where_there_is_one():
    curve = 4 + 0.4 * np.sin(np.arange(400) / 8)
    assert value("train_loss.swing_level", train_loss=curve) == pytest.approx(2 * 0.4 * 0.95 / 4, abs=0.03)
    assert isinstance(features_of(train_loss=curve - 4)["train_loss.swing_level"], Missing)


def test_noise_with_a_heavy_tail_is_a_crowd_and_a_few_jumps_stand_out_of_it():
    heavy = falling(3000) * np.random.default_rng(3).gamma(0.8, 1, 3000)
    features = features_of(train_loss=heavy)
    assert features["train_loss.spike_count"].value == 0 or not features["train_loss.spikes_isolated"].value
    rare = 0.02 * np.random.default_rng(4).lognormal(0, 1.2, 3000) + falling(3000, floor=0.0)
    rare[[1500, 2200]] = 6
    found = features_of(train_loss=rare)
    assert found["train_loss.spikes_isolated"].value == 1
    assert set(found["train_loss.spike_count"].items) == {"1500", "2200"}


def test_a_spike_is_seen_on_the_linear_scale_of_a_curve_of_many_decades():
    rng = np.random.default_rng(5)
    curve = 10 ** (-4 * np.minimum(1, np.arange(800) / 600)) * rng.lognormal(0, 1, 800)
    curve[650] = 4
    assert "650" in features_of(train_loss=curve)["train_loss.spike_count"].items


def test_what_lies_between_two_spikes_is_no_dip():
    curve = falling(120) + noise(120, size=0.01)
    for at in (50, 57, 64):
        curve[at : at + 12] += 2 * np.exp(-np.arange(12) / 2.5)
    assert value("train_loss.spike_onesidedness", train_loss=curve) == 1


def test_noise_in_proportion_to_the_loss_has_no_spikes_while_the_loss_is_high():
    curve = falling(600, top=5) * np.exp(noise(600, 6, 0.3))
    assert value("train_loss.spike_count", train_loss=curve) == 0


def test_the_gap_widens_for_sure_where_it_does_and_not_where_it_wanders():
    n = 60
    t = np.arange(n) / n
    train = 0.1 + 2 * np.exp(-t / 0.1)
    val = 0.8 + 1.4 * np.exp(-t / 0.06) + 1.2 * np.clip(t - 0.3, 0, None) + noise(n, 7, 0.02)
    features = features_of(train_loss=train, val_loss=val)
    assert features["gap.growth_confidence"].value > 0.99
    assert 5 < features["gap.onset"].value < 30
    wandering = [
        features_of(train_loss=1 + noise(n, seed, 0.01), val_loss=1.5 + noise(n, 100 + seed, 0.05))
        for seed in range(40)
    ]
    found = [features["gap.growth_confidence"] for features in wandering]
    assert 0.2 < np.mean([f.value for f in found if isinstance(f, Measurement)]) < 0.8


def test_gaps_do_not_depend_on_scale_or_interval():
    n = 60
    t = np.arange(n) / n
    curves = [0.1 + 2 * np.exp(-t / 0.1), 0.8 + 1.4 * np.exp(-t / 0.06) + 1.2 * np.clip(t - 0.3, 0, None)]
    names = ("gap.growth_confidence", "gap.val_rise", "gap.closed", "gap.growth")
    plain = features_of(**dict(zip(LOSSES, curves, strict=True)))
    for scale, every in ((1e-6, 1), (1e6, 250), (-1.0, 3)):
        steps = every * np.arange(n)
        moved = [c * scale if scale > 0 else c - 10 for c in curves]  # the last: negative losses
        other = features_of(**{role: (steps, c) for role, c in zip(LOSSES, moved, strict=True)})
        assert [other[x].value for x in names] == pytest.approx([plain[x].value for x in names], abs=1e-6)


def test_noise_closes_no_gap():
    rng = np.random.default_rng(8)
    train = falling(40, top=1.4, floor=0.1)
    val = 3 * np.exp(0.12 * rng.standard_normal(40))
    assert value("gap.closed", train_loss=train, val_loss=val) < 0.15
    following = train + 1
    assert value("gap.closed", train_loss=train, val_loss=following) > 0.8


def test_validation_is_compared_with_the_untrained_model_only_where_that_was_logged():
    train = (np.arange(1000), falling(1000, floor=0.1))
    late = (np.arange(99, 1000, 100), np.linspace(2.4, 6, 10))
    assert value("gap.val_best_level", train_loss=train, val_loss=late) == pytest.approx(2.4 / 2.3, rel=0.02)
    per_epoch = features_of(train_loss=falling(20), val_loss=falling(20))["gap.val_best_level"]
    assert isinstance(per_epoch, Missing)


def test_only_the_same_metric_makes_a_gap():
    run = Run(
        "r",
        "r",
        (
            series("train_accuracy", 1 - falling(20) / 3),
            Series("val/map", np.arange(20.0), 0.4 - falling(20) / 9, role="val_metric", direction="higher", subject="map"),
        ),
    )  # fmt: skip
    found = compute(run)["metric_gap.start"]
    assert isinstance(found, Missing) and "val/map" in found.reason
    train, val = 1 - falling(20) / 3, 0.5 * (1 - falling(20) / 3)
    assert value("metric_gap.score_ratio", train_accuracy=train, val_accuracy=val) == pytest.approx(2)


def test_a_cut_helps_although_the_loss_swung_before_it():
    rng = np.random.default_rng(9)
    swings = np.convolve(rng.standard_normal(1060), np.ones(60) / 60, mode="valid")[:1000]
    before = 1.5 + 3 * swings[:600]
    loss = np.concatenate([before, 0.4 + np.exp(-np.arange(400) / 20)]) + noise(1000, size=0.05)
    rate = np.where(np.arange(1000) < 600, 0.5, 0.05)
    assert value("lr.cut_response", train_loss=loss, learning_rate=rate) > 0.2


def test_the_end_of_a_cosine_is_no_cut():
    for n in (20, 100, 1000):
        assert value("lr.cuts", learning_rate=0.05 * (1 + np.cos(np.pi * np.arange(n) / n))) == 0
    steps = 0.1 * 0.1 ** (np.arange(90) // 30)
    assert value("lr.cuts", learning_rate=steps) == 2


@pytest.mark.parametrize("climb", [1, 5, 20])
def test_a_restart_counts_once_however_slowly_it_climbs(climb):
    cycle = np.concatenate([np.linspace(0.001, 0.1, climb + 1)[1:], 0.1 * np.cos(np.linspace(0, 1.55, 80))])
    assert value("lr.restarts", learning_rate=np.tile(cycle, 4)) == 3


def test_a_pattern_that_shrinks_with_the_loss_still_repeats():
    epoch, epochs = 50, 12
    place = np.arange(epoch * epochs) % epoch
    level = falling(epoch * epochs, floor=0.05)
    loss = level * (1 + 0.8 * np.sin(2 * np.pi * place / epoch)) * np.exp(noise(epoch * epochs, size=0.1))
    run = {"train_loss": loss, "epoch": np.arange(epoch * epochs) // epoch}
    assert value("data.epoch_period", **run) > 0.6
    assert value("data.period_order_z", **run) > 4
    shuffled = dict(run, train_loss=level * np.exp(noise(epoch * epochs, 2, 0.3)))
    assert value("data.epoch_period", **shuffled) < 0.15


def test_few_epochs_lower_no_correlation():
    pattern = noise(60, 3)
    run = {"train_loss": 3 + np.tile(pattern, 4) + noise(240, 4, 0.05), "epoch": np.arange(240) // 60}
    assert value("data.epoch_correlation", **run) > 0.85


def test_values_carried_on_until_the_next_evaluation_count_once():
    evaluated = falling(12, floor=0.5)
    carried = np.repeat(evaluated, 25)
    features = features_of(train_loss=falling(300), val_loss=carried)
    assert features["val_loss.points"].value == 12
    coarse = np.round(np.clip(noise(60, 5, 0.04) + 0.8, 0, 1) * 20) / 20
    assert value("val_metric.points", val_accuracy=coarse) == 60


def test_a_noisy_accuracy_and_the_loss_together_tell_the_chance_level():
    loss = np.log(5) + noise(40, size=0.004)
    accuracy = 0.17 + noise(40, 2, 0.01)
    assert value("train_loss.chance_distance", train_loss=loss, val_accuracy=accuracy) < 0.01
    assert value("train_loss.never_beyond_chance", train_loss=loss, val_accuracy=accuracy) == 1
    learned = np.linspace(0.001, 0.5, 40)
    found = features_of(train_loss=falling(40, 6.9, 2.0), val_accuracy=learned)
    assert isinstance(found["train_loss.never_beyond_chance"], Missing), (
        "half right of a thousand classes, not of two"
    )


def test_a_flat_stretch_that_creeps_on_shows_its_trend():
    language = 2 + 8 * (1 + np.arange(2000) / 10) ** -0.6 + noise(2000, size=0.02)
    stuck = np.concatenate([np.linspace(8, 4, 100), np.full(1900, 4.0)]) + noise(2000, size=0.02)
    assert value("train_loss.plateau_trend", train_loss=language) < -5
    assert abs(value("train_loss.plateau_trend", train_loss=stuck)) < 3


def test_the_trend_since_the_best_leaves_the_best_out():
    level = np.concatenate([falling(20, floor=0.5), np.full(5, 0.4), np.full(30, 0.5)])
    flat = [value("val_loss.rise_trend_z", val_loss=level + noise(55, seed, 0.01)) for seed in range(100)]
    assert np.mean(np.array(flat) > 1.6) < 0.12
    turned = np.concatenate([falling(20, floor=0.5), 0.5 + 0.02 * np.arange(15)]) + noise(35, 4, 0.03)
    assert value("val_loss.rise_trend_z", val_loss=turned) > 2


def test_validation_is_held_against_the_training_that_follows():
    train, val = [40.0, 0.4, 0.2, 0.1, 0.1], [0.3, 0.18, 0.12, 0.11, 0.1]
    pairs = [v / t for v, t in zip(val[:-1], train[1:], strict=True)]
    assert value("gap.next_ratio", train_loss=train, val_loss=val) == pytest.approx(np.quantile(pairs, 0.75))


def test_equal_accuracies_are_counted():
    accuracy = [0.6, 0.6, 0.58, 0.6, 0.6, 0.59, 0.6, 0.6]
    assert value("class.same_answer", val_accuracy=accuracy) == 6 / 8
    assert value("class.train_accuracy_range", train_accuracy=[66, 67, 68, 67]) == pytest.approx(
        np.ptp(np.percentile([0.66, 0.67, 0.68, 0.67], [5, 95]))
    )


@given(st.lists(st.floats(0.1, 10), min_size=8, max_size=60))
def test_the_floor_rise_compares_the_lowest_of_late_and_early(values):
    late = len(values) // 4
    expected = min(values[-late:]) / min(values[:-late]) - 1
    assert value("val_loss.floor_rise", val_loss=values) == pytest.approx(expected, abs=1e-9)


def test_upward_spikes_leave_the_floor_where_it_is():
    curve = np.concatenate([falling(30, floor=0.5), np.full(30, 0.6)])
    spiked = curve + np.where(np.arange(60) % 3 == 0, 2.0, 0.0)
    assert value("val_loss.floor_rise", val_loss=spiked) == pytest.approx(
        value("val_loss.floor_rise", val_loss=curve), abs=0.02
    )


def test_metrics_that_lost_and_scores_that_never_were_right_are_told():
    up, turned = (
        np.linspace(0.2, 0.8, 20),
        np.concatenate([np.linspace(0.2, 0.8, 10), np.linspace(0.8, 0.5, 10)]),
    )
    assert compute(run_of({"val_accuracy": up, "val_f1": turned}))["class.metrics_lost"].value == 0.5
    assert value("class.nothing_right", val_accuracy=np.zeros(6)) == 1
    wandering = [
        0.47,
        0.48,
        0.51,
        0.49,
        0.51,
        0.545,
        0.543,
        0.44,
        0.564,
        0.51,
        0.545,
        0.563,
    ]  # its last is its best
    assert value("class.metrics_lost", val_accuracy=wandering) == 0
    for rates, right in (([1.0, 1.0, 0.7, 0.6], 0), ([1.0, 1.0, 1.0, 0.99], 1)):
        assert compute(run_of({"val_wer": rates}))["class.nothing_right"].value == right


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("share", [0.6, 0.73, 0.95])
def test_the_loss_of_one_answer_for_all_is_that_of_the_majority(share, seed):
    rng = np.random.default_rng(seed)
    labels = rng.random(20000) < share
    sure = 1 / (1 + np.exp(-rng.logistic(0, 3, 20000)))  # of each case what is known of it, which is much
    known = rng.random(20000) < sure
    curves = {
        "guessing": (np.mean(labels), -np.mean(np.log(np.where(labels, share, 1 - share)))),
        "knowing": (
            np.mean(known == (sure > 0.5)),
            -np.mean(np.log(np.clip(np.where(known, sure, 1 - sure), 1e-9, 1))),
        ),
    }
    found = {
        name: value(
            "class.loss_over_majority", val_accuracy=accuracy + np.zeros(6), val_loss=loss + np.zeros(6)
        )
        for name, (accuracy, loss) in curves.items()
    }
    assert found["guessing"] == pytest.approx(1, abs=0.05)
    assert found["knowing"] < 0.9


@pytest.mark.parametrize("scale", [1, 100])
def test_a_setback_is_what_the_first_evaluation_knew_and_the_next_ones_lost(scale):
    ruined = scale * np.array([0.8, 0.4, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.78, 0.82, 0.85])
    assert value("val_metric.setback", val_accuracy=ruined) == pytest.approx(1 - 0.5 / 0.8)
    assert value("val_metric.setback_end", val_accuracy=ruined) == pytest.approx(0.9)
    lost = np.concatenate([ruined[:1], np.minimum(ruined[1:], 0.7 * scale)])
    assert value("val_metric.setback_end", val_accuracy=lost) == 1
    rises = scale * np.linspace(0.3, 0.9, 12)
    rises[2] = 0.1 * scale  # one bad evaluation
    assert value("val_metric.setback", val_accuracy=rises) == 0


@pytest.mark.parametrize("seed", range(5))
def test_a_growing_weight_is_told_from_a_constant_one(seed):
    rng = np.random.default_rng(seed)
    n, t = 60, np.arange(60)
    reconstruction = (100 + 90 * np.exp(-t / 6)) * np.exp(rng.normal(0, 0.01, n))
    divergence = 30 * (1 - np.exp(-(t + 1) / 4)) * np.exp(rng.normal(0, 0.02, n))

    def features(weight):
        logged = {"recon_loss": reconstruction, "kl_loss": divergence}
        return compute(run_of({"loss": reconstruction + weight * divergence, **logged}))

    for ends in (0.2, 0.5, 1.0):
        growing = features(np.minimum(1, t / (ends * n)))
        assert growing["train_loss.annealed"].value == pytest.approx(30 / 130, abs=0.08)
        assert growing["train_loss.parts_descent"].value == pytest.approx(90 / 190, abs=0.05)
        assert growing["train_loss.parts_regain"].value < 0.05
    assert features(np.ones(n))["train_loss.annealed"].value == 0
    assert isinstance(features(np.zeros(n))["train_loss.annealed"], Missing)


def test_a_term_logged_at_other_steps_is_not_weighed_against_the_loss():
    t = np.arange(60)
    reconstruction, divergence = 100 + 90 * np.exp(-t / 6), 30 * (1 - np.exp(-(t + 1) / 4))
    loss = reconstruction + np.minimum(1, t / 30) * divergence
    run = run_of({"loss": loss, "recon_loss": reconstruction, "kl_loss": divergence})
    moved = tuple(replace(s, steps=2 * s.steps) if s.role == "regularizer" else s for s in run.series)
    assert compute(run)["train_loss.annealed"].value > 0.1
    assert isinstance(compute(replace(run, series=moved))["train_loss.annealed"], Missing)


@pytest.mark.parametrize("seed", range(3))
def test_a_jump_where_the_run_was_resumed_is_told_from_one_within_it(seed):
    loss = falling(60, top=2.0, floor=0.5) + noise(60, seed, 0.02)

    def jump(at):
        curve = loss + np.where(np.arange(60) >= at, 1.5, 0.0)
        logged = series("train_loss", curve, rewinds=(40.0,), superseded=3)
        return compute(Run("r", "r", (logged,)))["train_loss.resume_jump"]

    found = jump(40)
    assert found.value > 0.85 and found.steps == (40, 40)
    assert jump(25).value < 0.2 and jump(55).value < 0.2
    assert isinstance(compute(run_of({"train_loss": loss}))["train_loss.resume_jump"], Missing)


@pytest.mark.parametrize("unit", [1.0, 1e3, 1e6])
def test_the_steepness_of_a_squared_error_does_not_depend_on_the_unit_of_the_targets(unit):
    """Of outputs W x with weights of size 1, dL/dW is the mean of 2 e x."""
    rng = np.random.default_rng(0)
    x, error = rng.standard_normal((200, 5)), unit * rng.standard_normal(200)
    loss, norm = np.mean(error**2), np.linalg.norm(np.mean(2 * error[:, None] * x, axis=0))
    known = value("grad.start_over_root_loss", train_loss=loss + np.zeros(6), grad_norm=norm + np.zeros(6))
    assert known == pytest.approx(np.linalg.norm(np.mean(error[:, None] * x, axis=0)) / np.sqrt(loss))


@pytest.mark.parametrize("epoch, every", [(1000, 250), (390, 350), (1000, 850), (117, 100)])
@pytest.mark.parametrize("seed", range(3))
def test_a_pattern_of_the_epoch_shows_where_few_points_or_less_than_one_fall_into_it(epoch, every, seed):
    steps = np.arange(every, 160 * every, every)
    base, place = 0.6 + 1.7 * np.exp(-steps / steps[-1] * 8), steps % epoch / epoch
    ends = np.arange(epoch, steps[-1], epoch)

    def strength(pattern):
        loss = base * (1 + pattern) * np.exp(noise(len(steps), seed, 0.08))
        found = features_of(train_loss=(steps, loss), val_loss=(ends, np.linspace(1, 0.5, len(ends))))
        return found["data.epoch_period"].value, found["data.epoch_correlation"].value

    assert min(strength(0.3 * np.sin(2 * np.pi * place + 1))) > 0.4
    assert strength(np.zeros(len(steps)))[0] < 0.3


def test_no_place_in_the_epoch_is_told_where_every_point_has_the_same():
    steps = np.arange(200, 20000, 200)
    loss = (steps, 0.6 + noise(len(steps), 1, 0.1))
    known = features_of(train_loss=loss, val_loss=(np.arange(100, 20000, 100), np.linspace(1, 0.5, 199)))
    assert isinstance(known["data.epoch_period"], Missing)


def test_the_tail_of_what_peaks_at_the_start_is_no_spike():
    curve = 0.5 + noise(120, 1, 0.005)
    curve[:9] += [2.0, 2.4, 2.6, 2.2, 1.6, 1.1, 0.8, 0.6, 0.4]  # highest before the part that counts begins
    assert value("train_loss.spike_count", train_loss=curve) == 0
    curve[60] += 2
    assert value("train_loss.spike_count", train_loss=curve) == 1


def test_an_accuracy_of_a_half_beside_a_loss_that_learned_tells_no_classes():
    learned = {"train_loss": falling(30, top=1.6, floor=1.1), "val_accuracy": 0.55 + noise(30, 1, 0.01)}
    assert isinstance(features_of(**learned)["train_loss.chance_distance"], Missing)
    stuck = {"train_loss": 0.70 + noise(30, 2, 0.003), "val_accuracy": 0.5 + noise(30, 1, 0.01)}
    assert value("train_loss.chance_distance", **stuck) < 0.02


def test_losses_of_last_batches_are_no_means_of_epochs():
    val = falling(60) + noise(60, 1, 0.002)
    assert value("train_loss.per_epoch", train_loss=falling(60) + noise(60, 2, 0.01), val_loss=val) == 1
    assert value("train_loss.per_epoch", train_loss=falling(60) + noise(60, 2, 0.2), val_loss=val) == 0
