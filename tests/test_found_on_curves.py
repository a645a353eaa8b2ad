"""What the shipped rules find in curves generated with several seeds, and not in their healthy counterparts."""

from __future__ import annotations

import numpy as np
import pytest

from analyzer.memory import run_of
from analyzer.pipeline import diagnose_run
from analyzer.rulebook import load_rules

RULES = load_rules()
SEEDS = range(5)


def found(curves, **hyperparameters):
    """Diagnoses of curves by tag that are a warning or worse."""
    report = diagnose_run(run_of(curves, hyperparameters=hyperparameters), RULES)
    return {finding.rule for finding in report.findings if finding.severity != "info"}


def noisy(values, seed, size=0.02):
    """Values times noise of the given relative size."""
    return np.asarray(values) * np.exp(size * np.random.default_rng(seed).standard_normal(len(values)))


def falling(points, start, end, share=0.2):
    """An exponential that covers all but e^(-1 / share) of its way."""
    return end + (start - end) * np.exp(-np.arange(points) / points / share)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("points", [12, 40])
def test_validation_on_another_scale_is_a_mismatch_though_half_of_the_first_gap_closed(points, seed):
    train = noisy(falling(points, 1.0, 0.1), seed)
    other_scale = noisy(falling(points, 4.0, 2.2), seed + 50)
    same_kind = noisy(falling(points, 1.05, 0.3), seed + 50)
    assert "train-val-mismatch" in found({"train_loss": train, "val_loss": other_scale})
    assert "train-val-mismatch" not in found({"train_loss": train, "val_loss": same_kind})


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("points", [60, 400])
def test_a_high_floor_is_the_learning_rate_s_where_it_is_far_beyond_the_usual(points, seed):
    floor = noisy(falling(points, 4.2, 2.4, 0.03), seed)
    low = noisy(falling(points, 4.2, 0.4, 0.03), seed)

    def at(rate, loss):
        return found({"train_loss": loss, "lr": np.full(points, rate)}, optimizer="Adam")

    assert "lr-too-high" in at(0.15, floor)
    assert "lr-too-high" not in at(0.003, floor)
    assert "lr-too-high" not in at(0.15, low)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("epochs", [4, 5, 8])
def test_few_evaluations_each_better_than_the_one_before_are_an_unfinished_run(epochs, seed):
    straight, levelled = np.linspace(2.6, 2.0, epochs), falling(epochs, 1.2, 0.6, 0.2)

    def of(values):
        return found(
            {"train_loss": noisy(values * 1.05, seed, 0.004), "val_loss": noisy(values, seed + 50, 0.004)}
        )

    assert "undertrained" in of(straight)
    assert "undertrained" not in of(levelled)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_loss_of_noisy_batches_is_not_called_flat_while_each_evaluation_is_better(seed):
    steps = np.arange(10, 250, 10)
    losses = noisy(np.interp(steps, [0, 60, 240], [3.6, 3.32, 3.3]), seed, 0.01)
    train = [{"step": step, "loss": loss} for step, loss in zip(steps, losses.tolist(), strict=True)]

    def of(evaluations):
        val = [{"step": 60 * (i + 1), "eval_loss": loss} for i, loss in enumerate(evaluations)]
        return found(sorted(train + val, key=lambda row: row["step"]))

    assert "underfitting" in of([3.31, 3.30, 3.32, 3.29])
    assert "underfitting" not in of([3.36, 3.31, 3.27, 3.24])


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("points", [44, 70])
def test_the_noise_of_some_dozens_of_batches_hides_no_fall(points, seed):
    falls = noisy(np.linspace(0.9, 0.55, points), seed, 0.06)
    assert "undertrained" in found({"train_loss": falls})


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("points", [30, 300])
def test_a_shallow_fall_is_slow_though_a_decaying_learning_rate_bends_it(points, seed):
    rate = np.linspace(2e-5, 0, points)
    shallow = noisy(4.3 - 0.4 * np.cumsum(rate) / rate.sum(), seed, 0.001)
    ordinary = noisy(falling(points, 4.3, 3.9, 0.12), seed, 0.001)
    assert "slow-convergence" in found({"train_loss": shallow, "lr": rate})
    assert "slow-convergence" not in found({"train_loss": ordinary, "lr": rate})


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("cycles", ["fixed", "drifting", "learning rate", "too high a rate"])
def test_a_loss_that_repeats_tells_the_epoch_where_validation_comes_by_steps(cycles, seed):
    steps, rng = np.arange(560), np.random.default_rng(seed)
    drift = 0.6 * np.cumsum(rng.standard_normal(560)) * (cycles == "drifting")
    wave = np.sin(2 * np.pi * steps / 56 + drift)
    losses = noisy(falling(560, 2.5, 1.2) * (1 + 0.4 * wave), seed, 0.05)
    rate = 1e-3 * (1 + 0.8 * wave) if cycles == "learning rate" else np.full(560, 1e-3)
    rate = 300 * rate if cycles == "too high a rate" else rate
    rows = [{"step": i, "loss": losses[i], "lr": rate[i]} for i in steps]
    rows += [{"step": i, "eval_loss": losses[i - 60 : i + 1].mean()} for i in range(99, 560, 25)]
    sorted_rows = sorted(rows, key=lambda row: row["step"])
    assert ("unshuffled-data" in found(sorted_rows)) == (cycles == "fixed")


def test_a_step_decay_calms_noisy_batches_at_a_sound_rate_too():
    """Of so few of them none can say whether more than their noise swung before the cut."""
    rate = np.where(np.arange(76) < 38, 0.05, 0.005)
    for seed in SEEDS:
        level = np.where(np.arange(76) < 38, falling(76, 1.5, 0.75, 0.1), 0.5)
        assert "lr-too-high" not in found({"train_loss": noisy(level, seed, 0.25), "lr": rate})


@pytest.mark.parametrize("seed", SEEDS)
def test_a_validation_that_never_moves_while_training_halves_its_loss_is_a_mismatch(seed):
    train = noisy(falling(12, 1.1, 0.2, 0.4), seed, 0.01)
    assert "train-val-mismatch" in found(
        {"train_loss": train, "val_loss": noisy(np.full(12, 1.47), seed + 50, 0.01)}
    )
    assert "train-val-mismatch" not in found(
        {"train_loss": train, "val_loss": noisy(falling(12, 1.47, 0.6, 0.4), seed + 50, 0.01)}
    )
