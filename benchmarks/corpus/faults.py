"""Faults: each changes one thing of an ordinary training, and says what its true curve must then show."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.corpus.programs import Program, stack
from benchmarks.corpus.training import Recipe, Record, constant, cosine, smooth
from benchmarks.make_sample_logs import random

STRENGTHS = ("mild", "medium", "strong")
CUT = ((0.6, 0.7), (0.75, 0.85))  # shares of the run

Inject = Callable[[Recipe, int], None]  # the recipe and the index of the strength
Shows = Callable[[Record], bool]


def keep(record: Record) -> None:
    """Shown as it is."""


@dataclass(frozen=True)
class Fault:
    """``must`` holds ids, alternatives joined by ``|``; ``needs`` the curves without which nobody can tell.

    ``shows`` decides from the whole record whether the fault took; ``twin`` changes the recipe of a second
    run to compare with; ``shown`` changes what is written and ``spoil`` the files that were written.
    """

    name: str
    inject: Inject
    must: tuple[str, ...]
    may: tuple[str, ...]
    needs: frozenset[str]
    fits: Callable[[Program], bool]
    shows: Shows
    twin: float = 0.0  # factor of the learning rate of the run to compare with
    shown: Callable[[Record], None] = keep
    spoil: Callable[[Path], None] | None = None
    style: str = ""
    cause: tuple[str, ...] = ()  # what was done, where that has a name of its own: true whatever it led to


FAULTS: dict[str, Fault] = {}


def anything(program: Program) -> bool:
    return True


def classes(program: Program) -> bool:
    return program.kind == "classification"


def numbers(program: Program) -> bool:
    """Inputs that can be scaled, and targets beside them."""
    return not program.tokens and program.name not in ("ring-mixture", "digits-vae", "digits-autoencoder")


def scalable(program: Program) -> bool:
    return not program.tokens and program.name != "ring-mixture"


def layered(program: Program) -> bool:
    return program.plain


def dense(program: Program) -> bool:
    return program.name.endswith("-mlp") or program.name in ("digits-autoencoder", "curve-density")


def networks(program: Program) -> bool:
    return program.name != "ring-mixture"


# ---------------------------------------------------------------------------------------------
# What the true curves show


def left(record: Record) -> float:
    """Share of the way from the untrained loss to an ordinary run's that the training loss has not gone."""
    losses = record.losses
    end = np.median(losses[-max(1, len(losses) // 20) :])
    return float((end - record.good) / (record.truth[0] - record.good)) if np.isfinite(end) else math.inf


def still_falling(record: Record) -> float:
    """What the training loss falls over the last quarter, as a share of the whole way; medians of its halves."""
    tail = record.losses[-max(4, len(record.losses) // 4) :]
    before, after = (np.median(half) for half in np.array_split(tail, 2))
    fall = 2 * (before - after) / abs(record.truth[0] - record.good)
    return float(fall) if np.isfinite(fall) else 0.0


def steady(record: Record) -> bool:
    """Whether the last third still falls half as fast as the first."""
    if not np.isfinite(record.losses).all():
        return False
    slopes = [np.polyfit(np.arange(len(t)), t, 1)[0] for t in np.array_split(record.losses, 3)]
    return bool(slopes[2] < 0.5 * slopes[0] < 0)


def freed_by_cut(record: Record) -> bool:
    """The loss falls by a tenth of the whole way or more when the rate is cut at 70 %."""
    before, after = (record.losses[int(a * len(record.losses)) : int(b * len(record.losses))] for a, b in CUT)
    return bool(np.median(before) - np.median(after) > 0.1 * abs(record.truth[0] - record.good))


def twin_better(much: float) -> Shows:
    """The same run with another rate ended nearer to an ordinary loss, by this share of the way."""
    return lambda record: min(left(record), 1.0) - record.twin >= much


def apart(record: Record) -> np.ndarray:
    """How far the held-out loss of each epoch that is logged is above the right one, by the whole way."""
    seen = np.array([row["val_loss"] for row in record.epochs])
    return np.asarray((seen - np.array(record.truth[1:])) / abs(record.truth[0] - record.good))


def apart_at_once(record: Record) -> bool:
    """The logged held-out loss is above the right one by half of the whole way from the second epoch on."""
    return bool(len(record.epochs) > 2 and apart(record)[1:].min() > 0.5)


def solved_at_once(record: Record) -> bool:
    solved = [row["val_loss"] < 0.02 * record.truth[0] for row in record.epochs[1:3]]
    return bool(solved) and all(solved) and record.truth[0] > 0


def scale_suffers(record: Record) -> bool:
    scales = np.array([row["loss_scale"] for row in record.steps])
    return bool((np.diff(scales) < 0).mean() > 0.02 or scales[-1] < 2**-7 * scales[0])


def regained(record: Record) -> float:
    """Share of the best fall of the true held-out loss that is lost again at the end."""
    truth = np.array(record.truth)
    end, best = np.median(truth[-max(1, min(3, len(truth) // 4)) :]), truth.min()
    way = max(truth[0] - best, 0.1 * abs(truth[0] - record.good))
    return float((end - best) / way) if np.isfinite(truth).all() else 0.0


def overfits(record: Record, much: float = 0.15) -> bool:
    """What had been learned is lost again: nothing is where the untrained model was best."""
    best = int(np.argmin(record.truth))
    if record.truth[0] - record.truth[best] < 0.1 * abs(record.truth[0] - record.good):
        return False
    means = [row["train_loss"] for row in record.epochs]
    improves = best <= len(means) - 4 and means[-1] < means[max(0, best - 1)]
    return improves and regained(record) >= much


def stuck(much: float) -> Shows:
    return lambda record: left(record) >= much


def excursions(record: Record) -> np.ndarray:
    """How far each step's loss is above its neighbourhood, in robust standard deviations."""
    away = record.losses - smooth(record.losses, 0.02)
    return np.asarray(away / (1.4826 * np.nanmedian(np.abs(away)) + 1e-12))


def spikes(record: Record) -> bool:
    """Two steps or more stand out far, and by a tenth of the way, after the first tenth of the run."""
    rise = (record.losses - smooth(record.losses, 0.02)) / abs(record.truth[0] - record.good)
    out = (excursions(record) > 12) & (rise > 0.1)
    return int(out[len(out) // 10 :].sum()) >= 2


def swings(record: Record) -> bool:
    """The second half, averaged over ten steps or a fiftieth of it, rises by the whole way or more in all."""
    half = record.losses[len(record.losses) // 2 :]
    if not np.isfinite(half).all():
        return False
    means = np.array([np.median(part) for part in np.array_split(half, max(4, min(50, len(half) // 10)))])
    rises = np.diff(means).clip(min=0).sum() / abs(record.truth[0] - record.good)
    return bool(rises >= 1.0 and means[-len(means) // 5 :].mean() > 0.5 * means[: len(means) // 5].mean())


def blows_up(record: Record) -> bool:
    losses = record.losses
    if not np.isfinite(losses[-1]):
        return True
    level = smooth(losses)
    way = record.truth[0] - level.min()
    return bool(level[-1] - level.min() > max(0.5 * way, 0.5 * abs(record.truth[0] - record.good)))


def not_finite(record: Record) -> bool:
    return not np.isfinite(record.losses).all()


def placed(record: Record) -> float:
    """Share of the variance of detrended step losses that the position within the epoch explains,
    beyond what it would of noise; over the second half of the run."""
    steps = record.steps[len(record.steps) // 2 :]
    first = {row["epoch"]: row["step"] for row in reversed(record.steps)}
    away = np.array([row["train_loss"] for row in steps])
    away = away - smooth(away, 0.2)
    at = np.array([int(row["step"] - first[row["epoch"]]) for row in steps])
    groups = [away[at == i] for i in range(at.max() + 1)]
    within = sum(((g - g.mean()) ** 2).sum() for g in groups if len(g))
    freedom = (len(away) - 1) / max(1, len(away) - len(groups))
    return float(1 - freedom * within / (((away - away.mean()) ** 2).sum() + 1e-12))


def grows(record: Record) -> bool:
    norms = np.array([row.get("grad_norm", math.nan) for row in record.steps])
    norms = norms[np.isfinite(norms)]
    return bool(len(norms) and norms[len(norms) // 2 :].max() > 100 * np.median(norms[: len(norms) // 4]))


def faint_below(much: float) -> Shows:
    """Gradients of the first layer against the last, over the second half of the run, as medians."""

    def shows(record: Record) -> bool:
        tail = record.steps[len(record.steps) // 2 :]
        names = [k for k in tail[0] if k.startswith("grad_norm/")]
        first, last = (np.median([row[k] for row in tail]) for k in (names[0], names[-1]))
        return bool(first < much * last)

    return shows


def state_is(name: str, least: float) -> Shows:
    return lambda record: record.state[name] >= least


def wild_start(record: Record) -> bool:
    """The untrained loss is far above that of an ordinary network."""
    ordinary = record.state["ordinary_start"]
    return bool(record.truth[0] - ordinary > abs(ordinary - record.good))


def clipped(record: Record) -> bool:
    norms = np.array([row["grad_norm"] for row in record.steps])
    return bool((norms > record.hparams["gradient_clip_val"]).mean() >= 0.85)


def flat_end(record: Record) -> bool:
    """Fell nearly all of the way, and not at all over the last two fifths."""
    tail = record.losses[int(0.6 * len(record.losses)) :]
    before, after = (np.median(half) for half in np.array_split(tail, 2))
    flat = abs(before - after) < 0.01 * abs(record.truth[0] - record.good)
    return bool(flat and left(record) < 0.1 and not overfits(record, 0.05))


def late_best(record: Record) -> bool:
    """The true held-out loss has not improved over the second half of the run, by a hundredth of the way."""
    truth = np.array(record.truth)
    half = len(truth) // 2
    return bool(truth[half:].min() > truth[:half].min() - 0.01 * abs(truth[0] - record.good))


def always(record: Record) -> bool:
    return True


# ---------------------------------------------------------------------------------------------
# The faults


def fault(
    name: str,
    must: str = "",
    may: str = "",
    needs: str = "",
    fits: Callable[[Program], bool] = anything,
    shows: Shows = always,
    twin: float = 0.0,
    shown: Callable[[Record], None] = keep,
    spoil: Callable[[Path], None] | None = None,
    style: str = "",
    cause: str = "",
) -> Callable[[Inject], Inject]:
    def register(inject: Inject) -> Inject:
        musts, mays, need = tuple((must or name).split()), tuple(may.split()), frozenset(needs.split())
        causes = tuple(cause.split())
        FAULTS[name] = Fault(name, inject, musts, mays, need, fits, shows, twin, shown, spoil, style, causes)
        return inject

    return register


STUCK = "underfitting loss-plateau loss-not-decreasing slow-convergence undertrained lr-too-low lr-too-high"
VIOLENT = (
    "lr-too-high exploding-gradients loss-divergence oscillating-loss loss-spikes loss-plateau underfitting"
)
VIOLENT += " exploding-weights dead-relu loss-not-decreasing overfitting"


@fault("overfitting", needs="val", shows=overfits)
def overfitting(r: Recipe, level: int) -> None:
    r.n, r.epochs, r.width = (
        (160, 70, 1.0) if level == 0 else (120, 90, 1.5) if level == 1 else (80, 120, 2.0)
    )
    r.weight_decay, r.batch, r.rate = 0, min(r.batch, 20), constant
    r.optimizer = "adam" if level else r.optimizer


@fault("overfitting-noisy-labels", "overfitting", needs="val", fits=numbers, shows=overfits)
def noisy_labels(r: Recipe, level: int) -> None:
    """A share of the training targets belongs to other inputs; a wide network learns them by heart."""
    share = (0.2, 0.35, 0.5)[level]
    r.n, r.epochs, r.width, r.weight_decay, r.rate = 400, 60, 3.0, 0, constant

    def mix(x: Tensor, y: Tensor, vx: Tensor, vy: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        gen = random(r.seed)
        wrong = torch.rand(len(y), generator=gen) < share
        other = y[torch.randperm(len(y), generator=gen)]
        return x, torch.where(wrong.view(-1, *[1] * (y.dim() - 1)), other, y), vx, vy

    r.dataset = mix


POOR = "underfitting|loss-plateau|loss-not-decreasing"


@fault("underfitting", POOR, STUCK, "val", shows=stuck(0.35))
def too_small(r: Recipe, level: int) -> None:
    r.width = (0.04, 0.02, 0.01)[level]
    r.epochs = int(1.5 * r.epochs)


@fault("over-regularised", POOR, STUCK, "val", shows=stuck(0.35))
def over_regularised(r: Recipe, level: int) -> None:
    r.optimizer, r.weight_decay = "adamw", (25.0, 40.0, 60.0)[level]
    r.epochs = int(1.5 * r.epochs)


@fault("train-val-mismatch", may="overfitting", needs="val", fits=scalable, shows=apart_at_once)
def other_preprocessing(r: Recipe, level: int) -> None:
    factor, offset = ((3.0, 2.0), (4.0, 3.0), (5.0, 4.0))[level]
    r.dataset, r.other_held_out = lambda x, y, vx, vy: (x, y, factor * vx + offset, vy), True


@fault(
    "other-encoding",
    "train-val-mismatch",
    "overfitting",
    "val",
    fits=lambda p: classes(p) or p.tokens,
    shows=apart_at_once,
)
def other_encoding(r: Recipe, level: int) -> None:
    """Classes, or letters, of the held-out data are numbered otherwise: all, half or a third of them."""

    def renumber(x: Tensor, y: Tensor, vx: Tensor, vy: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        k = int(y.max()) + 1
        moved = torch.arange(k)[:: (3, 2, 1)[level]]
        names = torch.arange(k)
        names[moved] = moved.roll(1)
        return x, y, vx, names[vy]

    r.dataset, r.other_held_out = renumber, True


@fault(
    "label-leakage",
    may="undertrained",
    needs="val",
    fits=lambda p: classes(p) and not p.tokens,
    shows=solved_at_once,
)
def answer_among_inputs(r: Recipe, level: int) -> None:
    """The target is written into the inputs, of training and held-out data alike."""

    def leak(x: Tensor, y: Tensor, vx: Tensor, vy: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        k = int(y.max()) + 1
        x, vx = x.clone(), vx.clone()
        for inputs, targets in ((x, y), (vx, vy)):
            inputs.flatten(1)[:, :k] = (5, 8, 12)[level] * F.one_hot(targets, k).float()
        return x, y, vx, vy

    r.dataset = leak


@fault("loss-not-decreasing", may=STUCK + " untrained-layer", fits=networks, shows=stuck(0.8))
def nothing_to_learn(r: Recipe, level: int) -> None:
    """Targets of other inputs in every batch; a learning rate of nothing; an optimizer of another model."""
    if level == 2:
        r.after_step = keep_still()
    elif level == 1:
        r.lr_factor = 1e-6
    elif r.program.kind == "language" or not numbers(r.program):
        r.after_step = keep_still()
    else:
        r.feed = lambda step, steps, x, y: (x, y[torch.randperm(len(y))])


def keep_still() -> Callable[[int, int, nn.Module], None]:
    """The optimizer works on copies: the model that is trained stays as it was."""
    first: dict[str, Tensor] = {}

    def restore(step: int, steps: int, model: nn.Module) -> None:
        if not first:
            first.update({k: v.clone() for k, v in model.state_dict().items()})
        model.load_state_dict(first)

    return restore


@fault("loss-plateau", "loss-plateau|underfitting", STUCK, shows=lambda record: 0.35 <= left(record) <= 0.93)
def steps_go_nowhere(r: Recipe, level: int) -> None:
    """After some progress the optimizer goes on with a copy: the model that gives the loss stays as it is."""
    start, hold = (0.06, 0.04, 0.02)[level], keep_still()
    r.rate = constant
    r.after_step = lambda step, steps, model: hold(step, steps, model) if step > start * steps else None


@fault(
    "lr-too-low",
    "lr-too-low|slow-convergence|undertrained",
    STUCK,
    "lr",
    shows=lambda r: 0.3 <= left(r) <= 0.97 and steady(r) and twin_better(0.2)(r),
    twin=10.0,
)
def tiny_rate(r: Recipe, level: int) -> None:
    r.rate, r.lr_factor = constant, (0.02, 0.01, 5e-3)[level]


@fault(
    "slow-convergence",
    "slow-convergence|lr-too-low|undertrained",
    STUCK,
    shows=lambda r: 0.25 <= left(r) <= 0.97 and steady(r),
)
def plain_sgd(r: Recipe, level: int) -> None:
    r.optimizer, r.rate, r.lr_factor = "sgd", constant, (0.03, 0.02, 0.01)[level]


@fault(
    "undertrained", "undertrained", STUCK, "steps", shows=lambda r: still_falling(r) > 0.04 and left(r) > 0.03
)
def stopped_early(r: Recipe, level: int) -> None:
    r.rate, r.lr_factor = constant, (0.7, 0.5, 0.35)[level]
    r.epochs = max(2, r.epochs // (5, 6, 7)[level])
    r.batch = max(8, r.batch // 2)


@fault("lr-schedule-decays-early", may=STUCK + " converged", needs="lr", shows=stuck(0.1))
def short_schedule(r: Recipe, level: int) -> None:
    over = (0.25, 0.2, 0.12)[level]
    r.rate, r.lr_factor = (lambda done: cosine(min(1.0, done / over))), 0.4


@fault("loss-divergence", "loss-divergence|lr-too-high|nan-loss", VIOLENT, shows=blows_up)
def rising_rate(r: Recipe, level: int) -> None:
    """A warm-up that never ends."""
    r.optimizer, base = "momentum", (1.2, 1.35, 1.5)[level]
    r.rate, r.lr_factor = (lambda done: min(base ** (40 * max(0.0, done - 0.3)), 1e4)), 1.0


@fault(
    "gradients-grow",
    "exploding-gradients|loss-divergence|lr-too-high|nan-loss",
    VIOLENT,
    "grads",
    shows=lambda r: grows(r) and (blows_up(r) or swings(r)),
)
def rising_rate_watched(r: Recipe, level: int) -> None:
    rising_rate(r, level)


@fault("lr-too-high", "lr-too-high|oscillating-loss|loss-plateau", VIOLENT, "lr", shows=freed_by_cut)
def high_until_cut(r: Recipe, level: int) -> None:
    """Much too high for 70 % of the run; the cut then frees the loss at once."""
    usual = {"adamw": 20, "adam": 20, "momentum": 10, "sgd": 8}[r.optimizer]
    r.lr_factor, r.rate = usual * (1.0, 1.3, 1.7)[level], lambda done: 1.0 if done < 0.7 else 0.03


@fault(
    "lr-too-high-throughout",
    "lr-too-high|oscillating-loss|loss-plateau|underfitting|loss-divergence|loss-not-decreasing|loss-spikes",
    VIOLENT + " nan-loss",
    "lr grads",
    shows=twin_better(0.25),
    twin=0.05,
)
def high_throughout(r: Recipe, level: int) -> None:
    usual = {"adamw": 25, "adam": 25, "momentum": 12, "sgd": 8}[r.optimizer]
    r.lr_factor, r.rate = usual * (1.0, 1.5, 2.5)[level], constant


@fault(
    "oscillating-loss",
    "oscillating-loss|lr-too-high|loss-divergence",
    VIOLENT,
    "steps",
    fits=lambda p: p.kind in ("classification", "regression"),
    shows=swings,
)
def heavy_momentum(r: Recipe, level: int) -> None:
    r.optimizer, r.momentum, r.rate = "momentum", (0.998, 0.9985, 0.999)[level], constant
    r.lr_factor = 0.3


def bad_batches(at: Callable[[int], bool], factor: float) -> Callable[..., tuple[Tensor, Tensor]]:
    return lambda step, steps, x, y: (factor * x.flip(-1) + factor / 2, y) if at(step) else (x, y)


@fault(
    "loss-spikes",
    "loss-spikes|data-outliers",
    "exploding-gradients lr-too-high",
    "steps",
    fits=numbers,
    shows=spikes,
)
def stray_batches(r: Recipe, level: int) -> None:
    gen = random(r.seed)
    steps = r.epochs * math.ceil(r.n / r.batch)
    chosen = set((steps // 6 + torch.randint(5 * steps // 6, (7,), generator=gen)).tolist())
    r.feed, r.clip = bad_batches(lambda step: step in chosen, (4.0, 6.0, 8.0)[level]), 1.0


@fault(
    "rate-glitches",
    "loss-spikes",
    "exploding-gradients lr-too-high data-outliers oscillating-loss",
    "steps",
    shows=lambda r: spikes(r) and left(r) < 0.5,
    cause="lr-too-high",
)
def rate_glitches(r: Recipe, level: int) -> None:
    """The rate is far too high for single steps, from which the run recovers."""
    usual, smoothly = {"adamw": 15, "adam": 15, "momentum": 15, "sgd": 25}[r.optimizer], r.rate
    places, width = (0.3, 0.47, 0.71, 0.83), 1.0 / (r.epochs * math.ceil(r.n / r.batch))
    factor = usual * (1.0, 1.5, 2.0)[level]
    r.clip = 1.0

    def rate(done: float) -> float:
        return factor if any(p <= done < p + width for p in places) else smoothly(done)

    r.rate = rate


@fault(
    "data-outliers",
    "data-outliers|loss-spikes|unshuffled-data",
    "exploding-gradients lr-too-high unshuffled-data",
    "steps",
    fits=numbers,
    shows=lambda r: int((excursions(r) > 8).sum()) >= 4,
)
def bad_shard(r: Recipe, level: int) -> None:
    r.shuffle, r.clip, per_epoch = False, 1.0, math.ceil(r.n / r.batch)
    r.feed = bad_batches(lambda step: step % per_epoch == per_epoch * 2 // 3, (4.0, 6.0, 8.0)[level])


@fault(
    "unshuffled-data",
    "unshuffled-data",
    VIOLENT + " data-outliers",
    "steps",
    fits=lambda p: numbers(p) or p.kind == "classification",
    shows=lambda r: placed(r) >= 0.25,
)
def sorted_data(r: Recipe, level: int) -> None:
    r.shuffle = False

    def order(x: Tensor, y: Tensor, vx: Tensor, vy: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        by = y.flatten(1).float().mean(1) if y.dim() > 1 else y.float()
        noise = (0.7, 0.4, 0.0)[level] * by.std() * torch.randn(len(by), generator=random(r.seed))
        index = (by + noise).argsort(stable=True)
        return x[index], y[index], vx, vy

    r.dataset = order


@fault("nan-loss", may=VIOLENT + " nan-weights", shows=not_finite)
def log_of_zero(r: Recipe, level: int) -> None:
    """A term 0/0 from a batch on; an overflow; mildly: two losses are NaN, but no gradient is."""
    count = iter(range(10**9))
    steps = r.epochs * math.ceil(r.n / r.batch)
    loss_of = r.program.loss

    def broken(output: Tensor, target: Tensor) -> Tensor:
        loss, step = loss_of(output, target), next(count)
        if level == 2 and step > 0.6 * steps:
            return loss + (output * 0).sum() / torch.zeros(())
        if level == 1 and step > 0.35 * steps:
            return loss + torch.exp(1e3 * (1 + output.abs().mean())) * 1e-9
        if level == 0 and step in (int(0.4 * steps), int(0.7 * steps)):
            return loss + math.nan
        return loss

    r.train_loss = broken
    r.watch |= {"steps"}


@fault("nan-input", "nan-loss", VIOLENT + " nan-weights", fits=numbers, shows=not_finite)
def infinite_input(r: Recipe, level: int) -> None:
    """One value of one batch is NaN, and every weight with it from then on."""
    steps = r.epochs * math.ceil(r.n / r.batch)
    bad = int((0.85, 0.5, 0.15)[level] * steps)

    def feed(step: int, steps: int, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        if step == bad:
            x = x.clone()
            x.view(-1)[3] = math.nan
        return x, y

    r.feed = feed


def lose_validation(record: Record) -> None:
    for row in record.epochs[len(record.epochs) // 2 :]:
        row["val_loss"] = math.nan


@fault("nan-in-validation", "nan-loss", "log-damaged", "val", shown=lose_validation)
def division_by_nothing(r: Recipe, level: int) -> None:
    """The validation loss is NaN from the middle on, while all else is fine."""


@fault("nan-weights", needs="checkpoints", may="nan-loss " + VIOLENT)
def broken_weights(r: Recipe, level: int) -> None:
    def spoil(step: int, steps: int, model: nn.Module) -> None:
        if step == steps - 1:
            with torch.no_grad():
                worst = list(model.parameters())[0 if level else -1]
                worst.view(-1)[: (1, 5, 50)[level]] = math.nan

    r.after_step = spoil


def scaled(factor: float) -> Callable[[nn.Module], None]:
    def init(model: nn.Module) -> None:
        with torch.no_grad():
            for p in model.parameters():
                if p.dim() > 1:
                    p *= factor

    return init


@fault(
    "exploding-gradients",
    "exploding-gradients|bad-initialization|loss-divergence|nan-loss",
    VIOLENT,
    "grads",
    fits=dense,
    shows=lambda r: r.steps[0]["grad_norm"] > 300 * max(1.0, abs(r.good)),
)
def deep_and_wild(r: Recipe, level: int) -> None:
    """Eight hidden layers, initialised too wide, without normalisation or clipping."""
    deepen(r, 8, nn.ReLU)
    r.init, r.lr_factor = scaled((4.0, 4.5, 5.0)[level]), 0.3


def deepen(r: Recipe, depth: int, act: type[nn.Module]) -> None:
    first = r.program.model(1.0, 0.0, nn.ReLU)
    sizes = [layer for layer in first.modules() if isinstance(layer, nn.Linear)]
    r.model = lambda: stack([sizes[0].in_features, *[24] * depth, sizes[-1].out_features], 0.0, act)


@fault(
    "vanishing-gradients",
    may=STUCK + " saturated-activations untrained-layer bad-initialization",
    needs="layers",
    fits=dense,
    shows=faint_below(0.02),
)
def deep_sigmoid(r: Recipe, level: int) -> None:
    deepen(r, (5, 8, 10)[level], nn.Sigmoid)


@fault(
    "dead-relu",
    may=STUCK + " vanishing-gradients untrained-layer",
    needs="zeros checkpoints",
    fits=layered,
    shows=state_is("dead", 0.5),
)
def negative_biases(r: Recipe, level: int) -> None:
    def init(model: nn.Module) -> None:
        layers = [m for m in model.modules() if isinstance(m, (nn.Linear, nn.Conv2d, nn.Conv1d))]
        with torch.no_grad():
            layers[-2].bias -= (5.0, 8.0, 12.0)[level]

    r.init = init


@fault(
    "dead-after-first-steps",
    "dead-relu",
    STUCK + " " + VIOLENT + " vanishing-gradients untrained-layer",
    "zeros",
    fits=layered,
    shows=state_is("dead", 0.5),
    cause="lr-too-high",
)
def violent_start(r: Recipe, level: int) -> None:
    """A rate of hundreds of times the usual one over the first steps kills units for good."""
    usual, factor = r.rate, (100.0, 300.0, 1000.0)[level]
    r.optimizer = "adam" if r.optimizer == "sgd" else r.optimizer
    r.rate = lambda done: factor if done < 0.01 else usual(done)


@fault(
    "saturated-activations",
    may=STUCK + " " + VIOLENT,
    needs="saturation",
    fits=lambda p: p.plain and numbers(p),
    shows=state_is("saturated", 0.6),
)
def raw_inputs(r: Recipe, level: int) -> None:
    r.act, factor = nn.Tanh, (20.0, 50.0, 100.0)[level]
    r.dataset = lambda x, y, vx, vy: (factor * x + factor, y, factor * vx + factor, vy)


@fault(
    "class-imbalance",
    needs="val",
    fits=lambda p: classes(p) and not p.tokens,
    may="label-leakage",
    shows=lambda r: r.state["recall"] < 0.2,
)
def rare_class(r: Recipe, level: int) -> None:
    """A rare class that inputs hardly tell."""
    r.dataset, r.epochs, r.lr_factor = rarely(r, (0.05, 0.03, 0.02)[level], 0.12), r.epochs // 2, 0.3


def rarely(r: Recipe, rare: float, told: float) -> Callable[..., tuple[Tensor, Tensor, Tensor, Tensor]]:
    def skew(x: Tensor, y: Tensor, vx: Tensor, vy: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        gen = random(r.seed)
        made = []
        for inputs, targets in ((x, y), (vx, vy)):
            found = (torch.rand(len(targets), generator=gen) < rare).long()
            made += [inputs + told * found.view(-1, *[1] * (inputs.dim() - 1)), found]
        return made[0], made[1], made[2], made[3]

    return skew


@fault("mixed-precision-instability", may=STUCK + " " + VIOLENT, needs="scale", shows=scale_suffers)
def restless_scale(r: Recipe, level: int) -> None:
    """The scale is doubled far too often; strongly: gradients grow until they overflow at any useful scale."""
    r.scale_growth = (12, 6, 2000)[level]
    if level < 2:
        return
    r.optimizer, count = "adamw", iter(range(10**9))
    steps = r.epochs * math.ceil(r.n / r.batch)
    loss_of = r.program.loss

    def summed(output: Tensor, target: Tensor) -> Tensor:
        factor = 2.0 ** (30 * max(0.0, next(count) / steps - 0.3))
        output.register_hook(lambda grad: grad * factor)  # the loss that is logged stays as it is
        return loss_of(output, target)

    r.train_loss = summed


@fault("untrained-layer", may=STUCK, needs="checkpoints", fits=networks)
def forgotten_parameters(r: Recipe, level: int) -> None:
    names = [n for n, p in r.program.model(1.0, 0.0, nn.ReLU).named_parameters() if p.dim() > 1]
    r.leave_out = names[(len(names) // 2, -1, 0)[level]].rpartition(".")[0] or names[0]


@fault("bad-initialization", "bad-initialization", VIOLENT, "checkpoints", fits=dense, shows=wild_start)
def unit_variance(r: Recipe, level: int) -> None:
    def init(model: nn.Module) -> None:
        layers = [m for m in model.modules() if isinstance(m, nn.Linear)]
        for layer in layers if level == 2 else layers[:1]:
            nn.init.normal_(layer.weight, std=1.0 if level == 2 else (8, 14)[level] / layer.in_features**0.5)

    r.init = init


@fault("exploding-weights", may=VIOLENT, needs="checkpoints", fits=networks, shows=state_is("growth", 10))
def decay_of_wrong_sign(r: Recipe, level: int) -> None:
    """Weights are pushed away from zero instead of towards it: 15 to 60 times in all, but for the gradient."""
    r.rate, factor = constant, (15.0, 30.0, 60.0)[level]

    def grow(step: int, steps: int, model: nn.Module) -> None:
        with torch.no_grad():
            for p in model.parameters():
                if p.dim() > 1:
                    p *= factor ** (1 / steps)

    r.after_step = grow


@fault(
    "low-rank-layer",
    may=STUCK,
    needs="checkpoints",
    fits=lambda p: p.plain and p.name != "signal-cnn",
    shows=lambda r: r.state["rank"] < 0.2,
)
def flattened(r: Recipe, level: int) -> None:
    """Every so often the second matrix loses all but its strongest directions: 4, 2 or 1."""
    rank = (4, 2, 1)[level]

    def project(step: int, steps: int, model: nn.Module) -> None:
        if step % 10 and step != steps - 1:
            return
        with torch.no_grad():
            weight = [p for p in model.parameters() if p.dim() > 1][1]
            u, s, v = torch.linalg.svd(weight.flatten(1), full_matrices=False)
            s[rank:] = 0
            weight.copy_(((u * s) @ v).view_as(weight))

    r.after_step = project


@fault(
    "clipping-saturated", needs="grads hparams", shows=clipped, may="undertrained lr-too-low slow-convergence"
)
def tight_clip(r: Recipe, level: int) -> None:
    r.clip = (0.05, 0.02, 0.01)[level]
    r.optimizer = "adamw" if r.optimizer == "sgd" else r.optimizer


@fault("converged", "converged|no-early-stopping", "loss-plateau", shows=flat_end)
def long_flat_end(r: Recipe, level: int) -> None:
    r.epochs, over, n = int((1.6, 2.0, 2.5)[level] * r.epochs), (0.6, 0.5, 0.4)[level], r.n
    r.rate, r.n = (lambda done: max(0.003, cosine(min(1.0, done / over)))), n


@fault(
    "no-early-stopping",
    "no-early-stopping|converged|overfitting",
    "overfitting lr-schedule-decays-early",
    "val",
    shows=late_best,
)
def far_too_long(r: Recipe, level: int) -> None:
    r.n, r.epochs, r.batch = int(0.4 * r.n), (5, 6, 8)[level] * r.epochs // 2, r.batch // 2
    over = (0.4, 0.3, 0.25)[level]
    r.rate = lambda done: max(0.01, cosine(min(1.0, done / over)))


def go_back(record: Record, stopped: float = 0.7, resumed: float = 0.5) -> None:
    """Stopped at 70 % and resumed from a checkpoint of 50 %: the steps between are written twice.

    In other batches, so that the losses of the second time differ by a few percent.
    """
    dice = np.random.default_rng(len(record.steps))
    for rows in (record.steps, record.epochs):
        again = [
            {k: v * (1 + 0.03 * dice.standard_normal()) if k.endswith("_loss") else v for k, v in row.items()}
            for row in rows[int(resumed * len(rows)) : int(stopped * len(rows))]
        ]
        rows[:] = rows[: int(stopped * len(rows))] + again + rows[int(stopped * len(rows)) :]


def freeze_a_metric(record: Record) -> None:
    for row in (*record.steps, *record.epochs):
        row["val_f1" if "val_loss" in row else "train_f1"] = 0.0


def cut_or_garble(folder: Path) -> None:
    """The last record of an event file is cut short; a line amid a text file is garbage."""
    for path in sorted(folder.iterdir()):
        if path.name.startswith("events."):
            path.write_bytes(path.read_bytes()[:-9])
        elif path.name == "log.jsonl":
            lines = path.read_bytes().splitlines(keepends=True)
            lines.insert(len(lines) // 2, b'{"step": 12, "train_lo\x00\x00\x00\x00\n')
            path.write_bytes(b"".join(lines))


@fault("broken-file", "log-damaged", style="breakable", spoil=cut_or_garble)
def broken_file(r: Recipe, level: int) -> None:
    """An ordinary run whose file was damaged."""


@fault("rewound", "log-damaged", "unshuffled-data", style="steps", shown=go_back)
def rewound(r: Recipe, level: int) -> None:
    """An ordinary run, a part of which was written twice."""


@fault("constant-metric", "log-damaged", "class-imbalance", "val", fits=classes, shown=freeze_a_metric)
def constant_metric(r: Recipe, level: int) -> None:
    """An ordinary run with a metric that is always zero."""
