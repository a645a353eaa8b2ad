"""Healthy runs that look suspicious to a careless rule."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.corpus.faults import anything, classes, go_back, numbers, rarely
from benchmarks.corpus.programs import PROGRAMS, Program
from benchmarks.corpus.training import (
    Recipe,
    Record,
    constant,
    one_cycle,
    step_decay,
    warm_restarts,
    warmup_cosine,
)
from benchmarks.make_sample_logs import random

Change = Callable[[Recipe], None]


@dataclass(frozen=True)
class Trap:
    """``needs`` are curves that are always logged, ``style`` forces how, ``shown`` changes what is written."""

    name: str
    change: Change
    fits: Callable[[Program], bool] = anything
    needs: frozenset[str] = frozenset()
    style: str = ""
    shown: Callable[[Record], None] = lambda record: None


def nothing(r: Recipe) -> None:
    pass


def schedule(rate: Callable[[float], float]) -> Change:
    def change(r: Recipe) -> None:
        r.rate = rate

    return change


def small_batches(r: Recipe) -> None:
    r.batch, r.epochs, r.lr_factor = 1 + r.seed % 4, 4, 0.3 if r.seed % 4 else 0.1


def dropout(r: Recipe) -> None:
    r.dropout, r.width = 0.4, 1.5


def tiny_held_out(r: Recipe) -> None:
    r.held_out = 12


def label_smoothing(r: Recipe) -> None:
    """The training loss has a floor, which the held-out loss has not."""
    r.train_loss = lambda output, target: F.cross_entropy(output, target, label_smoothing=0.1)


def augmented(r: Recipe) -> None:
    """Training inputs are disturbed afresh in every batch, held-out ones are not."""
    r.feed = lambda step, steps, x, y: (x + 0.3 * x.std() * torch.randn_like(x), y)


def rare_but_learned(r: Recipe) -> None:
    r.dataset = rarely(r, 0.15, 3.0)


def clip_often(r: Recipe) -> None:
    r.clip = 1.0


def tanh(r: Recipe) -> None:
    r.act = nn.Tanh


def single_examples(r: Recipe) -> None:
    """Some 12,000 steps of two examples."""
    r.n, r.batch, r.epochs, r.lr_factor, r.optimizer = 1500, 2, 16, 0.1, "momentum"


def few_points(r: Recipe) -> None:
    r.batch, r.epochs, r.lr_factor = 10, 5, 0.7


def many_points(r: Recipe) -> None:
    r.batch, r.epochs, r.lr_factor = 8, 16, 0.5


def long_run(r: Recipe) -> None:
    r.n = 2 * r.n


def times(factor: float) -> Callable[[Record], None]:
    def scale(record: Record) -> None:
        for row in (*record.steps, *record.epochs):
            for key in {"train_loss", "val_loss", "grad_norm"} & set(row):
                row[key] *= factor

    return scale


def higher_is_better(record: Record) -> None:
    """A log-likelihood instead of its negative."""
    for row in (*record.steps, *record.epochs):
        for split in ("train", "val"):
            if f"{split}_loss" in row:
                row[f"{split}/log_likelihood"] = -row.pop(f"{split}_loss")


def accuracy_only(record: Record) -> None:
    for row in (*record.steps, *record.epochs):
        row.pop("train_loss"), row.pop("val_loss", None)


def begins_late(record: Record) -> None:
    """The first tenth of the run was not logged."""
    del record.steps[: len(record.steps) // 10], record.epochs[: len(record.epochs) // 10]


def train_only(record: Record) -> None:
    for row in record.epochs:
        for key in [k for k in row if k.startswith("val_")]:
            del row[key]


def overlapping(record: Record) -> None:
    go_back(record, 0.6, 0.5)


def parts(record: Record) -> None:
    for row in (*record.steps, *record.epochs):
        for split in ("train", "val"):
            if f"{split}_loss" in row:
                total = row.pop(f"{split}_loss")
                row |= {f"{split}/box_loss": 0.5 * total, f"{split}/cls_loss": 0.3 * total}
                row[f"{split}/dfl_loss"] = 0.2 * total


def zeros_until_computed(record: Record) -> None:
    """Validation columns are 0 until the first evaluation, and then repeated."""
    last = {k: 0.0 for k in record.epochs[0] if k.startswith("val_")}
    at = {int(row["step"]): row for row in record.epochs[len(record.epochs) // 4 :]}
    for row in record.steps:
        if row["step"] in at:
            last = {k: at[int(row["step"])][k] for k in last}
        row |= last
    record.epochs.clear()


TRAPS = {
    t.name: t
    for t in (
        Trap("ordinary", nothing),
        Trap("warm-up", schedule(warmup_cosine), needs=frozenset({"lr"})),
        Trap("warm-restarts", schedule(warm_restarts), style="steps"),
        Trap("one-cycle", schedule(one_cycle), needs=frozenset({"lr"})),
        Trap("constant-rate", schedule(constant)),
        Trap("steps-and-epochs", nothing, style="both", needs=frozenset({"val"})),
        Trap("label-smoothing", label_smoothing, classes, frozenset({"val"})),
        Trap("augmented", augmented, numbers, frozenset({"val"})),
        Trap(
            "rare-but-learned",
            rare_but_learned,
            lambda p: classes(p) and not p.tokens,
            frozenset({"val", "accuracy"}),
        ),
        Trap("clipped", clip_often, needs=frozenset({"grads", "hparams"})),
        Trap("tanh-watched", tanh, lambda p: p.plain, frozenset({"layers", "saturation"})),
        Trap(
            "accuracy-only",
            nothing,
            lambda p: p.labelled,
            frozenset({"val", "accuracy"}),
            shown=accuracy_only,
        ),
        Trap("begins-late", nothing, shown=begins_late),
        Trap(
            "fifty-thousand-values",
            single_examples,
            lambda p: p.name in ("teacher-mlp", "waves-mlp"),
            frozenset({"grads", "lr"}),
            "every-step",
        ),
        Trap("step-decay", schedule(step_decay)),
        Trap("small-batches", small_batches, style="steps"),
        Trap("dropout", dropout, needs=frozenset({"val"})),
        Trap("negative-loss", nothing, fits=lambda p: p.good < 0),
        Trap("scale-1e6", nothing, shown=times(1e6)),
        Trap("scale-1e-6", nothing, shown=times(1e-6)),
        Trap("higher-is-better", nothing, shown=higher_is_better, fits=lambda p: p.kind == "density"),
        Trap("five-points", few_points, style="epochs"),
        Trap("thousands-of-points", many_points, style="every-step", fits=lambda p: not p.tokens),
        Trap("train-only", nothing, shown=train_only),
        Trap("resumed", long_run, shown=overlapping, style="steps"),
        Trap("tiny-validation-set", tiny_held_out, needs=frozenset({"val"})),
        Trap("summed-parts", nothing, shown=parts),
        Trap("zeros-until-computed", nothing, shown=zeros_until_computed, style="steps"),
        Trap("unnamed-columns", nothing, style="unnamed"),
        Trap("mixed-precision", lambda r: setattr(r, "scale_growth", 300), needs=frozenset({"scale"})),
        Trap("layers-watched", nothing, needs=frozenset({"layers", "zeros", "checkpoints"})),
    )
}


# ---------------------------------------------------------------------------------------------
# Curves of which lower is not better


def record_of(steps: list[dict[str, float]]) -> Record:
    return Record(steps, [], [0.0], [], {"optimizer": "adam", "lr": 1e-3}, 0.0)


def descend(opt: torch.optim.Optimizer, loss: Tensor) -> None:
    opt.zero_grad()
    loss.backward()
    opt.step()


def gan(seed: int) -> Record:
    """A generator of points on a ring against a discriminator; both losses hover when it goes well."""
    torch.manual_seed(seed)
    real = PROGRAMS["ring-mixture"].data(4000, seed)[0]
    make, judge = (
        nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 2)),
        nn.Sequential(nn.Linear(2, 32), nn.LeakyReLU(0.2), nn.Linear(32, 1)),
    )
    opts = [torch.optim.Adam(m.parameters(), lr=2e-3, betas=(0.5, 0.999)) for m in (make, judge)]
    rows, loss_of = [], nn.BCEWithLogitsLoss()
    for step in range(1500):
        fake, pick = make(torch.randn(64, 4)), real[torch.randint(len(real), (64,))]
        d = loss_of(judge(pick), torch.full((64, 1), 0.9)) + loss_of(judge(fake.detach()), torch.zeros(64, 1))
        descend(opts[1], d)
        g = loss_of(judge(fake), torch.ones(64, 1))
        descend(opts[0], g)
        rows.append({"step": step, "loss_D": d.item(), "loss_G": g.item()})
    return record_of(rows)


def bandit(seed: int) -> Record:
    """Policy gradient with a learned baseline on a contextual bandit: the reward rises, losses mean nothing."""
    torch.manual_seed(seed)
    best = torch.randn(6, 4, generator=random(seed))
    policy, value = nn.Linear(6, 4), nn.Linear(6, 1)
    opt = torch.optim.Adam([*policy.parameters(), *value.parameters()], lr=0.01)
    rows, running = [], 0.0
    for step in range(900):
        x = torch.randn(32, 6)
        chosen = torch.distributions.Categorical(logits=policy(x))
        action = chosen.sample()
        reward = (x @ best).gather(1, action[:, None])[:, 0] + torch.randn(32)
        ahead = reward - value(x)[:, 0]
        losses: tuple[Tensor, Tensor] = (
            -(chosen.log_prob(action) * ahead.detach()).mean(),
            ahead.square().mean(),
        )
        descend(opt, losses[0] + 0.5 * losses[1] - 0.01 * chosen.entropy().mean())
        running += (1 if step == 0 else 0.05) * (float(reward.mean()) - running)
        row = {"rollout/ep_rew_mean": running, "train/policy_gradient_loss": losses[0].item()}
        row |= {"train/value_loss": losses[1].item(), "train/entropy_loss": -chosen.entropy().mean().item()}
        rows.append({"step": step} | row)
    return record_of(rows)


def critic(seed: int) -> Record:
    """A Wasserstein critic with a gradient penalty: its loss is negative and comes nearer to zero."""
    torch.manual_seed(seed)
    make, judge = (
        nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 1)),
        nn.Sequential(nn.Linear(1, 32), nn.LeakyReLU(0.2), nn.Linear(32, 1)),
    )
    opts = [torch.optim.Adam(m.parameters(), lr=1e-3, betas=(0.0, 0.9)) for m in (make, judge)]
    rows = []
    for step in range(1000):
        real = torch.where(torch.rand(64, 1) < 0.4, 3.0, -1.0) + 0.3 * torch.randn(64, 1)
        fake = make(torch.randn(64, 4)).detach()
        between = torch.lerp(real, fake, torch.rand(64, 1)).requires_grad_()
        slope = torch.autograd.grad(judge(between).sum(), between, create_graph=True)[0]
        away = judge(fake).mean() - judge(real).mean()
        descend(opts[1], away + 10 * (slope.abs() - 1).square().mean())
        row = {"step": step, "critic_loss": away.item()}
        if step % 3 == 0:
            g = -judge(make(torch.randn(64, 4))).mean()
            descend(opts[0], g)
            row["generator_loss"] = g.item()
        rows.append(row)
    return record_of(rows)


def q_learning(seed: int) -> Record:
    """Deep Q-learning of a walk along a corridor: returns rise, and the loss rises with the values learned."""
    torch.manual_seed(seed)
    length, gen = 8, random(seed)
    net = nn.Sequential(nn.Linear(length, 32), nn.ReLU(), nn.Linear(32, 2))
    opt, eye = torch.optim.Adam(net.parameters(), lr=2e-3), torch.eye(length)
    memory: list[tuple[int, int, float, int, float]] = []
    rows, total = [], 0
    for episode in range(220):
        at, gained, explore = 0, 0.0, max(0.05, 1 - episode / 100)
        for _ in range(30):
            free = float(torch.rand((), generator=gen)) < explore
            action = int(torch.randint(2, (), generator=gen)) if free else int(net(eye[at]).argmax())
            then = min(length - 1, max(0, at + (1 if action else -1)))
            reward = 1.0 if then == length - 1 else -0.02
            memory.append((at, action, reward, then, float(then == length - 1)))
            at, gained, total = then, gained + reward, total + 1
            pick = torch.randint(len(memory), (16,), generator=gen).tolist()
            state, took, paid, new, over = (
                torch.tensor(v) for v in zip(*(memory[i] for i in pick), strict=True)
            )
            with torch.no_grad():
                goal = paid + 0.95 * (1 - over) * net(eye[new]).amax(1)
            loss = (net(eye[state]).gather(1, took[:, None])[:, 0] - goal).square().mean()
            descend(opt, loss)
            if then == length - 1:
                break
        row = {"step": total, "rollout/ep_rew_mean": gained, "train/loss": loss.item()}
        rows.append(row | {"rollout/exploration_rate": explore})
    return record_of(rows)


WITHOUT_PROGRAM: dict[str, dict[str, Callable[[int], Record]]] = {
    "tune": {"gan": gan, "bandit": bandit},
    "report": {"critic": critic, "q-learning": q_learning},
}
