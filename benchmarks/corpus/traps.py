"""Healthy runs that look suspicious to a careless rule."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchmarks.corpus.faults import anything
from benchmarks.corpus.programs import PROGRAMS, Program
from benchmarks.corpus.training import Recipe, Record, step_decay, warm_restarts, warmup_cosine
from benchmarks.make_sample_logs import random

Change = Callable[[Recipe], None]


@dataclass(frozen=True)
class Trap:
    """``style`` forces a logging style, ``shown`` changes the record before it is written."""

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


def train_only(record: Record) -> None:
    for row in record.epochs:
        for key in [k for k in row if k.startswith("val_")]:
            del row[key]


def overlapping(record: Record) -> None:
    """Stopped at 60 % and resumed from a checkpoint of 50 %: the steps between are written twice."""
    n, m = len(record.steps), len(record.epochs)
    record.steps[:] = record.steps[: int(0.6 * n)] + record.steps[n // 2 :]
    record.epochs[:] = record.epochs[: int(0.6 * m)] + record.epochs[m // 2 :]


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
        Trap("step-decay", schedule(step_decay)),
        Trap("small-batches", small_batches, style="steps"),
        Trap("dropout", dropout, needs=frozenset({"val"})),
        Trap("negative-loss", nothing, fits=lambda p: p.kind == "density"),
        Trap("scale-1e6", nothing, shown=times(1e6)),
        Trap("scale-1e-6", nothing, shown=times(1e-6)),
        Trap("higher-is-better", nothing, shown=higher_is_better, fits=lambda p: p.kind == "density"),
        Trap("five-points", few_points, style="epochs"),
        Trap("thousands-of-points", many_points, style="every-step", fits=lambda p: "letters" not in p.name),
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


WITHOUT_PROGRAM = {"gan": gan, "bandit": bandit}
