"""Features against slow oracles, and their invariances."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import analyzer
from analyzer.features import CURVE_ROLES, compute, specs
from analyzer.features.curves import Curve
from analyzer.features.robust import (
    block_medians,
    lag_correlation,
    mad_sigma,
    mann_kendall_z,
    point_noise,
    running_median,
    theil_sen,
)
from analyzer.model import Measurement, Missing, Run, Series

RNG = np.random.default_rng(0)
finite_lists = st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=40)


def series(role, values, steps=None, direction="lower", **more):
    values = np.asarray(values, dtype=float)
    steps = np.arange(len(values), dtype=float) if steps is None else np.asarray(steps, dtype=float)
    return Series(role, steps, values, role=role, direction=direction, **more)


def measure(name, **curves):
    found = compute(Run("r", "r", tuple(series(role, v) for role, v in curves.items())))[name]
    assert isinstance(found, Measurement), found
    return found


def falling(n=200, noise=0.01, start=2.3, end=0.3, seed=1):
    rng = np.random.default_rng(seed)
    return end + (start - end) * np.exp(-np.arange(n) / (n / 6)) + noise * rng.standard_normal(n)


def overfit(n=60, noise=0.005, seed=2):
    t = np.arange(n) / n
    rng = np.random.default_rng(seed)
    return 0.5 + 1.5 * np.exp(-10 * t) + 0.8 * np.clip(t - 0.3, 0, None) + noise * rng.standard_normal(n)


@given(finite_lists)
def test_theil_sen_is_the_median_of_all_slopes(y):
    x = np.arange(len(y), dtype=float)
    slopes = [(y[j] - y[i]) / (j - i) for i, j in itertools.combinations(range(len(y)), 2)]
    assert theil_sen(x, np.array(y)) == pytest.approx(np.median(slopes), rel=1e-9, abs=1e-9)


def test_theil_sen_agrees_with_scipy_and_ignores_outliers():
    x = np.sort(RNG.uniform(0, 10, 80))
    y = 3 * x + RNG.normal(0, 0.1, 80)
    y[::10] += 100
    assert theil_sen(x, y) == pytest.approx(stats.theilslopes(y, x)[0])
    assert theil_sen(x, y) == pytest.approx(3, abs=0.2)


@given(finite_lists, st.integers(1, 15))
def test_running_median_is_the_median_of_each_symmetric_window(y, width):
    half = min(width // 2, (len(y) - 1) // 2)
    expected = []
    for i in range(len(y)):
        reach = min(half, i, len(y) - 1 - i)
        expected.append(np.median(y[i - reach : i + reach + 1]))
    assert running_median(np.array(y), width) == pytest.approx(expected)


@given(finite_lists, st.integers(1, 50))
def test_blocks_cover_every_point_once(y, blocks):
    y = np.array(y)
    edges = np.linspace(0, len(y), min(len(y), blocks) + 1).astype(int)
    expected = [np.median(y[a:b]) for a, b in itertools.pairwise(edges)]
    assert block_medians(y, blocks) == pytest.approx(expected)


def test_noise_estimates_recover_sigma_under_a_trend_and_outliers():
    noise = RNG.normal(0, 0.5, 20_000)
    assert mad_sigma(noise) == pytest.approx(0.5, rel=0.05)
    trend = np.linspace(0, 100, 20_000)
    spiked = trend + noise
    spiked[::500] += 50
    assert point_noise(spiked) == pytest.approx(0.5, rel=0.05)


def test_mann_kendall_matches_its_definition_on_white_noise_and_is_calibrated():
    z = [mann_kendall_z(np.random.default_rng(i).standard_normal(60)) for i in range(300)]
    assert np.mean(np.abs(z) > 1.96) < 0.09
    y = np.arange(20.0) + RNG.normal(0, 0.1, 20)
    tau, p = stats.kendalltau(np.arange(20), y)
    assert tau == pytest.approx(1, abs=0.02)
    assert mann_kendall_z(y) > 4 and p < 1e-4
    assert mann_kendall_z(-y) == pytest.approx(-mann_kendall_z(y))


def test_mann_kendall_is_not_fooled_by_a_random_walk_as_by_white_noise():
    walks = [np.cumsum(np.random.default_rng(i).standard_normal(100)) for i in range(100)]
    naive = [stats.kendalltau(np.arange(100), w).pvalue < 0.001 for w in walks]
    ours = [abs(mann_kendall_z(w)) > 3.3 for w in walks]
    assert np.mean(ours) < 0.5 * np.mean(naive)


def test_lag_correlation_of_a_sine_is_one_period_later_near_one():
    sine = np.sin(2 * np.pi * np.arange(400) / 20)
    assert lag_correlation(sine, 20) > 0.9
    assert lag_correlation(sine, 10) < -0.9


# Compare with ln K, in nats; or take steps that count by one for what they are.
ABSOLUTE = {"train_loss.guess_distance", "train_loss.chance_distance", "train_loss.per_epoch", "run.steps"}


@settings(deadline=None, max_examples=25)
@given(st.sampled_from([1e-6, 1e-3, 10.0, 1e6]), st.sampled_from([1, 7, 1000]))
def test_ratios_do_not_depend_on_the_scale_of_loss_or_steps(scale, every):
    train, val = falling(60), overfit()
    steps = np.arange(60.0)
    plain = compute(Run("r", "r", (series("train_loss", train, steps), series("val_loss", val, steps))))
    other = compute(
        Run(
            "r",
            "r",
            (
                series("train_loss", scale * train, every * steps),
                series("val_loss", scale * val, every * steps),
            ),
        )
    )
    for name, spec in specs().items():
        if (
            spec.unit in ("ratio", "sigma", "count", "flag")
            and name not in ABSOLUTE
            and spec.family != "hyperparameters"
        ):
            a, b = plain[name], other[name]
            assert isinstance(a, Missing) == isinstance(b, Missing), name
            if isinstance(a, Measurement) and isinstance(b, Measurement):
                assert a.value == pytest.approx(b.value, rel=1e-6, abs=1e-9), name


def test_shape_features_do_not_depend_on_an_offset_that_makes_the_loss_negative():
    for shift in (-5.0, -1.0):
        plain = measure("val_loss.regain", val_loss=overfit()).value
        shifted = measure("val_loss.regain", val_loss=overfit() + shift).value
        assert shifted == pytest.approx(plain)
        assert measure("val_loss.rise_z", val_loss=overfit() + shift).value == pytest.approx(
            measure("val_loss.rise_z", val_loss=overfit()).value
        )


def test_an_accuracy_is_measured_in_its_own_direction():
    accuracy = 1 - overfit() / 3
    run = Run("r", "r", (series("val_accuracy", accuracy, direction="higher"),))
    features = compute(run)
    loss = compute(Run("r", "r", (series("val_loss", -accuracy),)))
    assert features["val_metric.min_step"].value == loss["val_loss.min_step"].value
    assert features["val_metric.regain"].value == pytest.approx(loss["val_loss.regain"].value)
    assert features["val_metric.min"].value == pytest.approx(accuracy.max(), abs=0.01)


def test_rise_is_large_for_overfitting_and_nothing_for_noise():
    assert measure("val_loss.rise_z", val_loss=overfit()).value > 10
    assert measure("val_loss.regain", val_loss=overfit()).value > 0.3
    flat = [
        measure("val_loss.rise_z", val_loss=0.5 + 0.05 * np.random.default_rng(i).standard_normal(80)).value
        for i in range(60)
    ]
    assert np.mean(np.array(flat) > 2) < 0.05


def test_an_accuracy_learned_from_a_tenth_to_a_half_does_not_tell_of_two_classes():
    loss = series("train_loss", np.geomspace(2.3, 0.7, 30))
    flat, risen = (
        compute(Run("r", "r", (loss, series("val_accuracy", a, direction="higher"))))
        for a in (np.full(30, 0.51), np.linspace(0.1, 0.53, 30))
    )
    assert flat["train_loss.chance_distance"].value == pytest.approx(0.03, abs=0.03)
    assert isinstance(risen["train_loss.chance_distance"], Missing)


def test_a_spike_where_smoothed_validation_is_best_hides_no_rise():
    val = np.concatenate([np.geomspace(2.0, 1.0, 15), [1.0], np.linspace(1.0, 1.5, 25)])
    spiked = val.copy()
    spiked[15] += 1.0
    train = np.geomspace(2.0, 0.1, 41)
    for name in ("gap.val_rise", "gap.growth"):
        calm, rough = (measure(name, train_loss=train, val_loss=v).value for v in (val, spiked))
        assert rough == pytest.approx(calm, abs=0.1)


def test_a_noisy_last_point_is_no_rise():
    val = falling(40, noise=0.002)
    val[-1] += 1
    assert measure("val_loss.regain", val_loss=val).value < 0.02


def test_tail_trend_is_negative_while_falling_and_zero_when_flat():
    line = np.linspace(2, 1, 100)
    assert measure("train_loss.tail_trend", train_loss=line).value == pytest.approx(-0.3, abs=0.02)
    assert abs(measure("train_loss.tail_trend", train_loss=falling(400)).value) < 0.02


def test_slope_decay_is_one_for_a_line_and_small_for_an_exponential():
    assert measure("train_loss.slope_decay", train_loss=np.linspace(2, 1, 90)).value == pytest.approx(1)
    assert measure("train_loss.slope_decay", train_loss=falling(90, noise=0)).value < 0.1


def test_plateau_share_measures_the_flat_end():
    rng = np.random.default_rng(3)
    curve = np.concatenate([np.linspace(2, 1, 100), np.ones(300)]) + 0.01 * rng.standard_normal(400)
    found = measure("train_loss.plateau_share", train_loss=curve)
    assert found.value == pytest.approx(0.75, abs=0.06)
    assert found.steps[0] == pytest.approx(100, abs=20)
    assert measure("train_loss.plateau_share", train_loss=np.linspace(2, 1, 400)).value < 0.1


def test_batch_noise_is_no_swing_and_real_swings_are():
    rng = np.random.default_rng(4)
    n = 4800
    noisy = falling(n, noise=0.3)
    swinging = falling(n, noise=0.05) + 0.5 * np.sin(np.arange(n) / n * 2 * np.pi * 12)
    assert measure("train_loss.swing", train_loss=noisy).value < 0.1
    assert measure("train_loss.swing", train_loss=swinging).value > 0.2
    assert measure("train_loss.swing_decay", train_loss=swinging).value > 0.6
    damped = (
        falling(n, noise=0.0) + np.exp(-np.arange(n) / 600) * np.sin(np.arange(n) / 40) + 0 * rng.normal()
    )
    assert measure("train_loss.swing_decay", train_loss=damped).value < 0.3


def test_spikes_are_counted_where_they_are():
    curve = falling(500, noise=0.01)
    for at in (150, 320):
        curve[at] += 3
    found = measure("train_loss.spike_count", train_loss=curve)
    assert found.value == 2
    assert set(found.items) == {"150", "320"}
    assert measure("train_loss.spike_onesidedness", train_loss=curve).value == 1
    assert measure("train_loss.spike_count", train_loss=falling(500, noise=0.05)).value == 0


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("points", [8, 12, 23])
def test_a_burst_among_few_points_is_a_spike(points, seed):
    rng = np.random.default_rng(seed)
    curve = falling(points, noise=0) * np.exp(rng.normal(0, 0.05, points))
    burst = curve.copy()
    at = int(rng.integers(1, points - 3))
    burst[at] *= 30
    burst[at + 1] *= rng.choice([1, 4])
    assert measure("train_loss.spike_count", train_loss=curve).value == 0
    found = measure("train_loss.spike_count", train_loss=burst)
    assert found.items == (str(at),)
    assert measure("train_loss.spike_rise", train_loss=burst).value > 10


def test_what_a_short_log_starts_or_ends_with_is_no_spike():
    falls = 100.0 * 0.3 ** np.arange(12)
    assert measure("train_loss.spike_count", train_loss=falls).value == 0
    lost = np.concatenate([falls[:9], [90.0, 95.0, 80.0]])
    assert measure("train_loss.spike_count", train_loss=lost).value == 0


def test_few_batches_of_heavy_tailed_noise_have_no_spikes():
    rng = np.random.default_rng(3)
    found = [
        measure("train_loss.spike_count", train_loss=falling(n, noise=0) * rng.gamma(1.0, 1.0, n)).value
        for n in (8, 12, 16, 20)
        for _ in range(50)
    ]
    assert np.mean(np.array(found) > 0) < 0.05


def test_a_learning_rate_step_down_is_no_spike():
    curve = np.concatenate([np.full(250, 1.0), np.full(250, 0.4)]) + 0.01 * RNG.standard_normal(500)
    assert measure("train_loss.spike_count", train_loss=curve).value == 0


def test_nan_features_name_first_step_and_last_finite_value():
    curve = falling(100)
    curve[60:] = np.nan
    assert measure("train_loss.first_nonfinite_step", train_loss=curve).value == 60
    assert measure("train_loss.last_finite", train_loss=curve).value == curve[59]
    assert measure("train_loss.nonfinite_share", train_loss=curve).value == 1
    assert measure("train_loss.nonfinite", train_loss=curve).value == 40


def test_epoch_period_is_found_for_sorted_data_only():
    rng = np.random.default_rng(5)
    n, epoch = 2000, 100
    saw = 0.3 * ((np.arange(n) % epoch) / epoch - 0.5)
    base = falling(n, noise=0)
    epochs = series("epoch", np.arange(n) // epoch)

    def strength(loss):
        run = Run("r", "r", (series("train_loss", loss), epochs))
        return compute(run)["data.epoch_period"].value

    assert strength(base + saw + 0.03 * rng.standard_normal(n)) > 0.6
    assert strength(base + 0.1 * rng.standard_normal(n)) < 0.1


def test_learning_rate_cut_response_and_near_zero_share():
    rng = np.random.default_rng(6)
    lr = np.where(np.arange(400) < 200, 0.1, 0.01)
    loss = np.where(np.arange(400) < 200, 1.0, 0.5) + 0.02 * rng.standard_normal(400)
    loss[:20] += np.linspace(1, 0, 20)
    found = measure("lr.cut_response", train_loss=loss, learning_rate=lr)
    assert found.value > 0.3 and found.steps == (200, 200)
    assert measure("lr.cuts", train_loss=loss, learning_rate=lr).value == 1
    gone = np.where(np.arange(400) < 100, 0.1, 1e-5)
    assert measure("lr.zero_share", learning_rate=gone).value == pytest.approx(0.75, abs=0.01)
    cosine = 0.05 * (1 + np.cos(np.pi * np.arange(400) / 400))
    assert measure("lr.zero_share", learning_rate=cosine).value < 0.1
    restarts = 0.05 * (1 + np.cos(np.pi * (np.arange(400) % 100) / 100))
    assert measure("lr.restarts", learning_rate=restarts).value == 3


def test_layer_ratio_orders_layers_by_depth():
    layers = tuple(
        series("grad_norm_layer", np.full(10, 10.0**-k), subject=f"layers.{9 - k}.weight") for k in range(9)
    )
    found = compute(Run("r", "r", layers))["grad.layer_ratio"]
    assert found.value == pytest.approx(1e-6, rel=1e-6)
    assert found.where == "layers.1.weight"


def test_parts_of_a_loss_are_added_up():
    box, cls = falling(50), falling(50, seed=9)
    run = Run(
        "r",
        "r",
        (series("train_loss_part", box, subject="box"), series("train_loss_part", cls, subject="cls")),
    )
    assert compute(run)["train_loss.start"].value == pytest.approx((box + cls)[0])


def test_what_is_missing_says_what_it_needs():
    found = compute(Run("r", "r", (series("train_loss", falling()),)))["gap.end"]
    assert isinstance(found, Missing) and found.needs == ("val_loss",)


def test_no_feature_fails_on_degenerate_curves():
    shapes = [
        [],
        [1.0],
        [1.0, 1.0],
        [np.nan] * 9,
        [np.inf, 1, 2],
        [0.0] * 30,
        [1e300, -1e300] * 8,
        [5.0] * 200,
    ]
    for values in shapes:
        curves = tuple(
            series(role, values) for role in (*CURVE_ROLES, "learning_rate", "grad_norm", "loss_scale")
        )
        features = compute(Run("r", "r", curves))
        for name in specs():
            assert isinstance(features[name], Measurement | Missing)


def test_values_are_plain_floats_so_that_comparisons_give_plain_booleans():
    features = compute(Run("r", "r", (series("train_loss", falling()), series("val_loss", overfit(200)))))
    found = [features[name] for name in specs()]
    assert {type(f.value) for f in found if isinstance(f, Measurement)} == {float}


def test_values_stay_within_the_registered_range():
    run = Run("r", "r", (series("train_loss", falling()), series("val_loss", np.resize(overfit(), 200))))
    features = compute(run)
    for name, spec in specs().items():
        found = features[name]
        if isinstance(found, Measurement):
            assert spec.low - 1e-9 <= found.value <= spec.high + 1e-9, name


def test_a_million_points_are_measured_from_blocks():
    curve = Curve("train_loss", "loss", "step", "lower", np.arange(1e6), falling(1_000_000, noise=0.2))
    assert len(curve.blocks) == 200
    assert curve.end == pytest.approx(0.3, abs=0.02)


def test_a_checkpoint_s_batch_norm_tells_which_channels_never_fire(tmp_path):
    torch = pytest.importorskip("torch")
    import analyzer

    net = torch.nn.Sequential(torch.nn.Linear(4, 10), torch.nn.BatchNorm1d(10), torch.nn.ReLU())
    with torch.no_grad():
        net[1].bias[:7] = -5.0
    torch.save(net.state_dict(), tmp_path / "net.pt")
    run = analyzer.read(tmp_path / "net.pt")[0]
    found = compute(run)["weights.inactive_channels"]
    assert isinstance(found, Measurement)
    assert found.value == pytest.approx(0.7) and found.where == "1"


def test_updates_and_gradients_come_from_adam_s_state(tmp_path):
    torch = pytest.importorskip("torch")
    import analyzer
    from analyzer.checkpoints.statistics import layer_stats

    torch.manual_seed(0)
    net = torch.nn.Sequential(*[torch.nn.Linear(8, 8) for _ in range(6)])
    adam = torch.optim.Adam(net.parameters(), lr=1e-3)
    for _ in range(20):
        adam.zero_grad()
        (net(torch.randn(32, 8)) ** 2).mean().backward()
        adam.step()
    torch.save({"model": net.state_dict(), "optimizer": adam.state_dict()}, tmp_path / "last.pt")
    run = analyzer.read(tmp_path / "last.pt")[0]
    features = compute(run, list(layer_stats(run.checkpoints[0])))
    moments = [adam.state[p]["exp_avg_sq"].mean().sqrt() for p in net.parameters() if p.ndim > 1]
    expected = float((moments[0] * moments[1]) ** 0.5 / (moments[-2] * moments[-1]) ** 0.5)
    assert features["optimizer.layer_ratio"].value == pytest.approx(expected, rel=1e-3)
    assert 1e-4 < features["update.ratio"].value < 0.1


def test_a_rise_lasts_from_the_best_point_on_whatever_dips_it_has():
    values = [*np.linspace(2, 0.5, 10), *[1.1] * 8, *[0.8] * 4, *[1.2] * 15]
    assert measure("val_loss.rise_share", val_loss=values).value > 0.7
    assert measure("val_loss.rise_share", val_loss=[3.0, 2.0, 1.0, 0.5, 0.4, 0.4, 0.41]).value < 0.2


def test_what_is_called_dead_counts_as_units_unless_it_looks_like_zeros():
    def dead(*values):
        logged = Series("dead/relu1", np.arange(len(values)), np.array(values), role="activation_dead_units")
        return compute(Run("r", "r", (logged,)))["act.dead_units"]

    assert dead(0.0, 0.4, 0.66, 0.66).value == 0.66
    assert dead(0, 40, 66, 66).value == 0.66  # percent
    assert dead(0.5, 0.55, 0.7, 0.7) == Missing(
        "no share of dead units was logged, and the model was not run", ("activations",)
    )
    assert dead(0.9, 0.95, 0.95, 0.95).value == 0.95
    assert isinstance(dead(12, 200, 310, 330), Missing)  # a count


def test_values_of_layers_that_are_negative_are_no_gradient_norms():
    layers = [
        Series(f"grads/fc{i}", np.arange(9.0), np.full(9, value), role="grad_norm_layer", subject=f"fc{i}")
        for i, value in enumerate((-1e-6, 1e-6, 1.0, 1.0))
    ]
    assert compute(Run("r", "r", tuple(layers)))["grad.layer_ratio"].value == pytest.approx(1e-6)
    assert isinstance(compute(Run("r", "r", tuple(layers[:3])))["grad.layer_ratio"], Missing)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    ("first", "every", "axis", "expected"),
    [(249, 1, "epoch", 1.0), (1, 1, "epoch", 0.0), (5, 5, "epoch", 0.0), (7680, 640, "step", 1.0)],
)
def test_a_log_that_begins_late_is_the_rest_of_a_run(first, every, axis, expected, seed) -> None:
    steps = first + every * np.arange(12 + seed)
    loss = falling(len(steps), seed=seed)
    run = Run("r", "r", (series("train_loss", loss, steps, axis=axis),))
    found = compute(run)["run.continued"]
    assert isinstance(found, Measurement)
    assert found.value == expected


@pytest.mark.parametrize("seed", range(5))
def test_norms_that_overflow_now_and_then_are_a_remark_while_the_finite_ones_are_calm(seed) -> None:
    rng = np.random.default_rng(seed)
    n = 40 + 20 * seed
    calm = 15 * np.exp(0.2 * rng.standard_normal(n))
    calm[rng.choice(np.arange(n // 20, n), n // 10, replace=False)] = np.inf
    wild = calm * np.where(np.arange(n) % 9 == 8, 60, 1)
    loss = falling(n, seed=seed)
    for norms, severity in ((calm, "info"), (wild, "warning")):
        found = {f.rule: f for f in analyzer.diagnose({"train_loss": loss, "grad_norm": norms})}
        assert found["exploding-gradients"].severity == severity


@pytest.mark.parametrize("seed", range(5))
def test_a_policy_that_turns_nan_is_found_without_a_training_loss(seed) -> None:
    rng = np.random.default_rng(seed)
    dies = 20 + 5 * seed
    policy, value = rng.normal(0, 0.02, 60), 10 * np.exp(rng.normal(0, 0.2, 60))
    sound = analyzer.diagnose({"policy_loss": policy, "value_loss": value})
    policy, value = policy.copy(), value.copy()
    policy[dies:] = value[dies:] = np.nan
    (found,) = [
        f for f in analyzer.diagnose({"policy_loss": policy, "value_loss": value}) if f.rule == "nan-loss"
    ]
    assert found.severity == "critical"
    assert f"step {dies}" in found.summary
    assert "nan-loss" not in {f.rule for f in sound}


@pytest.mark.parametrize("seed", range(5))
def test_a_loss_back_up_in_training_and_validation_diverged_however_high_its_first_point(seed) -> None:
    rng = np.random.default_rng(seed)
    top = 6000 + 1000 * seed
    down = 2000 + (top - 2000) * np.exp(-np.arange(30) / 6)
    up = np.concatenate([np.linspace(2400, top, 6), np.full(12, top)])
    train = np.concatenate([[3 * top], np.concatenate([down, up]) * np.exp(rng.normal(0, 0.01, 48))])
    val = np.interp(np.arange(6, 49, 6), np.arange(49), train) / 3
    recovered = np.concatenate([train[:31], 2000 * np.exp(rng.normal(0, 0.01, 18))])

    def found(loss):
        steps = dict(zip(range(6, 49, 6), val, strict=True))
        rows = [{"step": i, "train_loss": float(v)} for i, v in enumerate(loss)]
        rows += [{"step": s, "val_loss": float(v)} for s, v in steps.items()]
        return {f.rule for f in analyzer.diagnose(sorted(rows, key=lambda row: row["step"]))}

    assert "loss-divergence" in found(train)
    assert "loss-divergence" not in found(recovered)


@pytest.mark.parametrize("seed", range(5))
def test_an_accuracy_that_rises_to_the_majority_as_recall_dies_is_no_learning(seed) -> None:
    rng = np.random.default_rng(seed)
    n = 16 + 4 * seed
    accuracy = 0.9 - 0.5 * np.exp(-np.arange(n) / 2) + rng.normal(0, 0.001, n)
    dying = np.where(np.arange(n) < 4, 0.4 - 0.1 * np.arange(n), 0.0)
    kept = 0.4 + 0.3 * np.arange(n) / n + rng.normal(0, 0.01, n)
    loss = falling(n, start=0.7, seed=seed)
    for recall, imbalanced in ((dying, True), (kept, False), (np.zeros(n), False)):
        curves = {"train_loss": loss, "val_loss": loss, "val_accuracy": accuracy, "val_recall": recall}
        assert ("class-imbalance" in {f.rule for f in analyzer.diagnose(curves)}) == imbalanced


@pytest.mark.parametrize("frozen", [("0.bias",), ("0.weight", "0.bias")])
def test_a_bias_before_a_normalisation_is_not_untrained_beside_a_weight_that_moved(tmp_path, frozen) -> None:
    torch = pytest.importorskip("torch")
    nn = torch.nn
    net = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 4))
    torch.save(net.state_dict(), tmp_path / "model_step_0.pt")
    for name, values in net.named_parameters():
        values.data += 0 if name in frozen else 0.1 * torch.randn_like(values)
    torch.save(net.state_dict(), tmp_path / "model_step_100.pt")
    findings = [f.rule for run in analyzer.analyze(tmp_path).runs for f in run.findings]
    assert ("untrained-layer" in findings) == (len(frozen) > 1)
