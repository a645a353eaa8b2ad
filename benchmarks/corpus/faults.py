"""Faults: each changes one thing of an ordinary training, and says what its true curve must then show."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.corpus.programs import Program, stack
from benchmarks.corpus.training import Recipe, Record, constant, cosine, smooth
from benchmarks.make_sample_logs import random

CUT = ((0.6, 0.7), (0.75, 0.85))  # shares of the run

Inject = Callable[[Recipe, bool], None]
Shows = Callable[[Record], bool]


@dataclass(frozen=True)
class Fault:
    """``must`` holds ids, alternatives joined by ``|``; ``needs`` the curves without which nobody can tell."""

    name: str
    inject: Inject
    must: tuple[str, ...]
    may: tuple[str, ...]
    needs: frozenset[str]
    fits: Callable[[Program], bool]
    shows: Shows


FAULTS: dict[str, Fault] = {}


def anything(program: Program) -> bool:
    return True


def classes(program: Program) -> bool:
    return program.kind == "classification"


def numbers(program: Program) -> bool:
    """Inputs that can be scaled, and targets beside them."""
    return program.kind != "language" and program.name != "ring-mixture"


def layered(program: Program) -> bool:
    return program.plain


def dense(program: Program) -> bool:
    return program.name.endswith("-mlp") or program.name in ("digits-autoencoder", "curve-density")


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
    slopes = [np.polyfit(np.arange(len(t)), t, 1)[0] for t in np.array_split(record.losses, 3)]
    return bool(slopes[2] < 0.5 * slopes[0] < 0)


def freed_by_cut(record: Record) -> bool:
    """The loss falls by a tenth of the whole way or more when the rate is cut at 70 %."""
    before, after = (record.losses[int(a * len(record.losses)) : int(b * len(record.losses))] for a, b in CUT)
    return bool(np.median(before) - np.median(after) > 0.1 * abs(record.truth[0] - record.good))


def apart_at_once(record: Record) -> bool:
    """The logged held-out loss is above the right one by half of the whole way from the first epochs on."""
    apart = [row["val_loss"] - t for row, t in zip(record.epochs, record.truth[1:], strict=True)]
    return min(apart[:2]) > 0.5 * abs(record.truth[0] - record.good)


def solved_at_once(record: Record) -> bool:
    return max(row["val_loss"] for row in record.epochs[1:3]) < 0.02 * record.truth[0]


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
    best = int(np.argmin(record.truth))
    means = [row["train_loss"] for row in record.epochs]
    improves = best <= len(means) - 4 and means[-1] < means[max(0, best - 1)]
    return improves and regained(record) >= much


def stuck(much: float) -> Shows:
    return lambda record: left(record) >= much


def excursions(record: Record) -> np.ndarray:
    """How far each step's loss is above its neighbourhood, in robust standard deviations."""
    away = record.losses - smooth(record.losses, 0.02)
    return np.asarray(away / (1.4826 * np.nanmedian(np.abs(away)) + 1e-12))


def swings(record: Record) -> bool:
    """The second half moves, averaged over a fiftieth of it, by a tenth of the way up and down again."""
    half = record.losses[len(record.losses) // 2 :]
    if not np.isfinite(half).all():
        return False
    means = np.array([part.mean() for part in np.array_split(half, 50)])
    rises = np.diff(means).clip(min=0).sum() / abs(record.truth[0] - record.good)
    return bool(rises >= 1.0 and means[-10:].mean() > 0.5 * means[:10].mean())


def blows_up(record: Record) -> bool:
    losses = record.losses
    if not np.isfinite(losses[-1]):
        return True
    level = smooth(losses)
    way = record.truth[0] - level.min()
    return bool(level[-1] - level.min() > max(0.5 * way, 0.5 * abs(record.truth[0] - record.good)))


def not_finite(record: Record) -> bool:
    return not np.isfinite(record.losses).all()


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
) -> Callable[[Inject], Inject]:
    def register(inject: Inject) -> Inject:
        musts = tuple((must or name).split())
        FAULTS[name] = Fault(name, inject, musts, tuple(may.split()), frozenset(needs.split()), fits, shows)
        return inject

    return register


STUCK = "underfitting loss-plateau loss-not-decreasing slow-convergence undertrained lr-too-low lr-too-high"
VIOLENT = (
    "lr-too-high exploding-gradients loss-divergence oscillating-loss loss-spikes loss-plateau underfitting"
)
VIOLENT += " exploding-weights dead-relu loss-not-decreasing overfitting"


@fault("overfitting", needs="val", shows=overfits)
def overfitting(r: Recipe, strong: bool) -> None:
    r.n, r.epochs, r.weight_decay, r.width = (80, 120, 0, 2.0) if strong else (120, 90, 0, 1.5)
    r.batch, r.rate = min(r.batch, 20), constant


@fault("underfitting", "underfitting|loss-plateau", STUCK, "val", shows=stuck(0.35))
def too_small(r: Recipe, strong: bool) -> None:
    r.width = 0.01 if strong else 0.04
    r.epochs = int(1.5 * r.epochs)


@fault("over-regularised", "underfitting|loss-plateau", STUCK, "val", shows=stuck(0.35))
def over_regularised(r: Recipe, strong: bool) -> None:
    r.optimizer, r.weight_decay = "adamw", 60.0 if strong else 25.0
    r.epochs = int(1.5 * r.epochs)


@fault("train-val-mismatch", may="overfitting", needs="val", fits=numbers, shows=apart_at_once)
def other_preprocessing(r: Recipe, strong: bool) -> None:
    factor, offset = (4.0, 3.0) if strong else (2.0, 1.0)
    r.dataset, r.other_held_out = lambda x, y, vx, vy: (x, y, factor * vx + offset, vy), True


@fault("label-leakage", may="undertrained", needs="val", fits=classes, shows=solved_at_once)
def answer_among_inputs(r: Recipe, strong: bool) -> None:
    """The target is written into the inputs, of training and held-out data alike."""

    def leak(x: Tensor, y: Tensor, vx: Tensor, vy: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        k = int(y.max()) + 1
        x, vx = x.clone(), vx.clone()
        for inputs, targets in ((x, y), (vx, vy)):
            inputs.flatten(1)[:, :k] = (12 if strong else 6) * F.one_hot(targets, k).float()
        return x, y, vx, vy

    r.dataset = leak


@fault("loss-not-decreasing", may=STUCK, fits=numbers, shows=stuck(0.8))
def labels_without_inputs(r: Recipe, strong: bool) -> None:
    if strong:
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
def steps_go_nowhere(r: Recipe, strong: bool) -> None:
    """After some progress the optimizer goes on with a copy: the model that gives the loss stays as it is."""
    start, hold = 0.02 if strong else 0.06, keep_still()
    r.rate = constant
    r.after_step = lambda step, steps, model: hold(step, steps, model) if step > start * steps else None


@fault(
    "lr-too-low",
    "lr-too-low|slow-convergence|undertrained",
    STUCK,
    "lr",
    shows=lambda r: 0.3 <= left(r) <= 0.97 and steady(r),
)
def tiny_rate(r: Recipe, strong: bool) -> None:
    r.rate, r.lr_factor = constant, 5e-3 if strong else 0.02
    r.optimizer = "sgd" if r.optimizer == "sgd" else "adamw"


@fault(
    "slow-convergence",
    "slow-convergence|lr-too-low|undertrained",
    STUCK,
    shows=lambda r: 0.25 <= left(r) <= 0.97 and steady(r),
)
def plain_sgd(r: Recipe, strong: bool) -> None:
    r.optimizer, r.rate, r.lr_factor = "sgd", constant, 0.01 if strong else 0.03


@fault(
    "undertrained", "undertrained", STUCK, "steps", shows=lambda r: still_falling(r) > 0.04 and left(r) > 0.03
)
def stopped_early(r: Recipe, strong: bool) -> None:
    r.rate, r.lr_factor = constant, 0.4 if strong else 0.6
    r.epochs = max(2, r.epochs // 6)
    r.batch = max(8, r.batch // 2)


@fault(
    "lr-schedule-decays-early",
    may=STUCK + " converged",
    needs="lr",
    shows=lambda r: left(r) >= 0.1,
)
def short_schedule(r: Recipe, strong: bool) -> None:
    over = 0.15 if strong else 0.25
    r.rate, r.lr_factor = (lambda done: cosine(min(1.0, done / over))), 0.4


@fault("loss-divergence", "loss-divergence|lr-too-high|nan-loss", VIOLENT, shows=blows_up)
def rising_rate(r: Recipe, strong: bool) -> None:
    """A warm-up that never ends."""
    r.optimizer, base = "momentum", 1.5 if strong else 1.2
    r.rate, r.lr_factor = (lambda done: min(base ** (40 * max(0.0, done - 0.3)), 1e4)), 1.0


@fault("lr-too-high", "lr-too-high|oscillating-loss|loss-plateau", VIOLENT, "lr", shows=freed_by_cut)
def high_until_cut(r: Recipe, strong: bool) -> None:
    """Much too high for 70 % of the run; the cut then frees the loss at once."""
    factor = {"adamw": 20, "momentum": 10, "sgd": 8}[r.optimizer] * (1.5 if strong else 1.0)
    r.lr_factor, r.rate = factor, lambda done: 1.0 if done < 0.7 else 0.03


@fault(
    "oscillating-loss",
    "oscillating-loss|lr-too-high|loss-divergence",
    VIOLENT,
    "steps",
    fits=lambda p: p.kind in ("classification", "regression"),
    shows=swings,
)
def heavy_momentum(r: Recipe, strong: bool) -> None:
    r.optimizer, r.momentum, r.rate = "momentum", 0.999 if strong else 0.998, constant
    r.lr_factor = 0.3


def bad_batches(at: Callable[[int], bool], factor: float) -> Callable[..., tuple[Tensor, Tensor]]:
    return lambda step, steps, x, y: (factor * x.flip(-1) + factor / 2, y) if at(step) else (x, y)


@fault(
    "loss-spikes",
    "loss-spikes|data-outliers",
    "exploding-gradients lr-too-high",
    "steps",
    fits=numbers,
    shows=lambda r: int((excursions(r) > 12).sum()) >= 2,
)
def stray_batches(r: Recipe, strong: bool) -> None:
    gen = random(r.seed)
    steps = r.epochs * math.ceil(r.n / r.batch)
    chosen = set((steps // 6 + torch.randint(5 * steps // 6, (7,), generator=gen)).tolist())
    r.feed, r.clip = bad_batches(lambda step: step in chosen, 8.0 if strong else 4.0), 1.0


@fault(
    "data-outliers",
    "data-outliers|loss-spikes|unshuffled-data",
    "exploding-gradients lr-too-high unshuffled-data",
    "steps",
    fits=numbers,
    shows=lambda r: int((excursions(r) > 8).sum()) >= 4,
)
def bad_shard(r: Recipe, strong: bool) -> None:
    r.shuffle, r.clip, per_epoch = False, 1.0, math.ceil(r.n / r.batch)
    r.feed = bad_batches(lambda step: step % per_epoch == per_epoch * 2 // 3, 8.0 if strong else 4.0)


@fault("unshuffled-data", "unshuffled-data", VIOLENT + " data-outliers", "steps", fits=numbers)
def sorted_data(r: Recipe, strong: bool) -> None:
    r.shuffle = False

    def order(x: Tensor, y: Tensor, vx: Tensor, vy: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        by = y.flatten(1)[:, 0] if y.is_floating_point() else y.float()
        noise = 0.0 if strong else 0.5 * by.std() * torch.randn(len(by), generator=random(r.seed))
        index = (by + noise).argsort(stable=True)
        return x[index], y[index], vx, vy

    r.dataset = order


@fault("nan-loss", may=VIOLENT + " nan-weights", fits=anything, shows=not_finite)
def log_of_zero(r: Recipe, strong: bool) -> None:
    """A term 0/0 from a batch on; mildly: two losses are NaN, but no gradient is."""
    count = iter(range(10**9))
    steps = r.epochs * math.ceil(r.n / r.batch)
    loss_of = r.program.loss

    def broken(output: Tensor, target: Tensor) -> Tensor:
        loss, step = loss_of(output, target), next(count)
        if strong and step > 0.6 * steps:
            return loss + (output * 0).sum() / torch.zeros(())
        if not strong and step in (int(0.4 * steps), int(0.7 * steps)):
            return loss + math.nan
        return loss

    r.train_loss = broken
    r.watch |= {"steps"}


@fault("nan-weights", needs="checkpoints", may="nan-loss " + VIOLENT)
def broken_weights(r: Recipe, strong: bool) -> None:
    def spoil(step: int, steps: int, model: nn.Module) -> None:
        if step == steps - 1:
            with torch.no_grad():
                worst = list(model.parameters())[0 if strong else -1]
                worst.view(-1)[: 50 if strong else 1] = math.nan

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
def deep_and_wild(r: Recipe, strong: bool) -> None:
    """Eight hidden layers, initialised too wide, without normalisation or clipping."""
    deepen(r, 8, nn.ReLU)
    r.init, r.lr_factor = scaled(5.0 if strong else 4.0), 0.3


def deepen(r: Recipe, depth: int, act: type[nn.Module]) -> None:
    first = r.program.model(1.0, 0.0, nn.ReLU)
    sizes = [layer for layer in first.modules() if isinstance(layer, nn.Linear)]
    r.model = lambda: stack([sizes[0].in_features, *[24] * depth, sizes[-1].out_features], 0.0, act)


@fault(
    "vanishing-gradients", may=STUCK + " saturated-activations untrained-layer", needs="layers", fits=dense
)
def deep_sigmoid(r: Recipe, strong: bool) -> None:
    deepen(r, 8 if strong else 5, nn.Sigmoid)


@fault(
    "dead-relu", may=STUCK + " vanishing-gradients untrained-layer", needs="zeros checkpoints", fits=layered
)
def negative_biases(r: Recipe, strong: bool) -> None:
    def init(model: nn.Module) -> None:
        layers = [m for m in model.modules() if isinstance(m, (nn.Linear, nn.Conv2d, nn.Conv1d))]
        with torch.no_grad():
            layers[-2].bias -= 12.0 if strong else 5.0

    r.init = init


@fault(
    "saturated-activations",
    may=STUCK + " " + VIOLENT,
    needs="saturation",
    fits=lambda p: p.plain and numbers(p),
)
def raw_inputs(r: Recipe, strong: bool) -> None:
    r.act, factor = nn.Tanh, 100.0 if strong else 30.0
    r.dataset = lambda x, y, vx, vy: (factor * x + factor, y, factor * vx + factor, vy)


@fault(
    "class-imbalance", needs="val", fits=lambda p: classes(p) and p.name != "digits-cnn", may="label-leakage"
)
def rare_class(r: Recipe, strong: bool) -> None:
    """A rare class that inputs hardly tell."""
    rare = 0.02 if strong else 0.04

    def skew(x: Tensor, y: Tensor, vx: Tensor, vy: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        gen = random(r.seed)
        found = [(torch.rand(len(t), generator=gen) < rare).long() for t in (y, vy)]
        inputs = [x + 0.15 * found[0].view(-1, *[1] * (x.dim() - 1)), vx]
        return inputs[0], found[0], inputs[1] + 0.15 * found[1].view(-1, *[1] * (x.dim() - 1)), found[1]

    r.dataset, r.epochs, r.lr_factor = skew, r.epochs // 2, 0.3


@fault("mixed-precision-instability", may=STUCK + " " + VIOLENT, needs="scale", shows=scale_suffers)
def restless_scale(r: Recipe, strong: bool) -> None:
    """The scale is doubled far too often; strongly: gradients grow until they overflow at any useful scale."""
    r.scale_growth = 2000 if strong else 12
    if not strong:
        return
    r.optimizer, count = "adamw", iter(range(10**9))
    steps = r.epochs * math.ceil(r.n / r.batch)
    loss_of = r.program.loss

    def summed(output: Tensor, target: Tensor) -> Tensor:
        factor = 2.0 ** (30 * max(0.0, next(count) / steps - 0.3))
        output.register_hook(lambda grad: grad * factor)  # the loss that is logged stays as it is
        return loss_of(output, target)

    r.train_loss = summed


@fault("untrained-layer", may=STUCK, needs="checkpoints", fits=lambda p: p.name != "ring-mixture")
def forgotten_parameters(r: Recipe, strong: bool) -> None:
    names = [n for n, p in r.program.model(1.0, 0.0, nn.ReLU).named_parameters() if p.dim() > 1]
    r.leave_out = (names[0] if strong else names[len(names) // 2]).rpartition(".")[0] or names[0]


@fault("bad-initialization", "bad-initialization", VIOLENT, "checkpoints", fits=dense)
def unit_variance(r: Recipe, strong: bool) -> None:
    def init(model: nn.Module) -> None:
        layers = [m for m in model.modules() if isinstance(m, nn.Linear)]
        for layer in layers if strong else layers[:1]:
            nn.init.normal_(layer.weight, std=1.0 if strong else 12 / layer.in_features**0.5)

    r.init = init


@fault("exploding-weights", may=VIOLENT, needs="checkpoints", fits=lambda p: p.name != "ring-mixture")
def decay_of_wrong_sign(r: Recipe, strong: bool) -> None:
    """Weights are pushed away from zero instead of towards it: 15 or 60 times in all, but for the gradient."""
    r.rate = constant

    def grow(step: int, steps: int, model: nn.Module) -> None:
        with torch.no_grad():
            for p in model.parameters():
                if p.dim() > 1:
                    p *= (60.0 if strong else 15.0) ** (1 / steps)

    r.after_step = grow
