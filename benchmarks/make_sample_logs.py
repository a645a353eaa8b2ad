"""Make ``sample_logs/``: real trainings of small models, one known story per folder.

    python benchmarks/make_sample_logs.py                     # all stories, README.md and the expectations
    python benchmarks/make_sample_logs.py --only healthy-cnn  # one story (repeatable)

Nothing is drawn: where a story is about a fault, the fault is in the training code or in the data
(look for the comments starting with "Fault:") and the curves are what came out. Data is generated,
seeds are fixed and one thread is used, so the same machine and library versions give the same
numbers. Logs and checkpoints are written by the frameworks' own writers. Wall times come from a
simulated clock that a training step advances, which keeps the files reproducible.
"""

from __future__ import annotations

import argparse
import copy
import csv
import itertools
import json
import math
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import yaml
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.tensorboard import SummaryWriter

ROOT = Path(__file__).resolve().parents[1] / "sample_logs"
EXPECTED = ROOT.parent / "tests" / "sample_stories.yaml"
EVENT_FILE = "events.out.tfevents.1700000000.host.1.0"
MEGABYTE = 1_000_000


# ---------------------------------------------------------------------------------------------
# Stories


@dataclass(frozen=True)
class Story:
    """One folder: what is wrong in it, and which diagnosis ids are right at rank 1 (none: healthy)."""

    folder: str
    expect: tuple[str, ...]
    format: str
    wrong: str
    make: Callable[[Path], None]


STORIES: dict[str, Story] = {}


def story(folder: str, *expect: str, format: str, wrong: str) -> Callable[[Callable[[Path], None]], Any]:
    def register(make: Callable[[Path], None]) -> Callable[[Path], None]:
        STORIES[folder] = Story(folder, expect, format, wrong, make)
        return make

    return register


class Clock:
    """A clock that only training steps advance."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now

    def tick(self, seconds: float) -> None:
        self.now += seconds


CLOCK = Clock()


# ---------------------------------------------------------------------------------------------
# Data

DIGITS = (
    "01110 10001 10011 10101 11001 10001 01110",
    "00100 01100 00100 00100 00100 00100 01110",
    "01110 10001 00001 00010 00100 01000 11111",
    "11111 00010 00100 00010 00001 10001 01110",
    "00010 00110 01010 10010 11111 00010 00010",
    "11111 10000 11110 00001 00001 10001 01110",
    "00110 01000 10000 11110 10001 10001 01110",
    "11111 00001 00010 00100 01000 01000 01000",
    "01110 10001 10001 01110 10001 10001 01110",
    "01110 10001 10001 01111 00001 00010 01100",
)


def random(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def digit_images(n: int, seed: int, noise: float = 0.3, shift: int = 5) -> tuple[Tensor, Tensor]:
    """Images [n, 1, 12, 12] of 5x7 digits, moved by up to ``shift`` pixels, in noise; labels [n]."""
    gen = random(seed)
    font = torch.tensor([[[float(c) for c in row] for row in glyph.split()] for glyph in DIGITS])
    labels = torch.randint(10, (n,), generator=gen)
    down = (5 - shift) // 2 + torch.randint(shift + 1, (n,), generator=gen)
    right = 1 + (5 - shift) // 2 + torch.randint(shift + 1, (n,), generator=gen)
    contrast = 0.7 + 0.6 * torch.rand(n, generator=gen)
    images = noise * torch.randn(n, 1, 12, 12, generator=gen)
    for i in range(n):
        images[i, 0, down[i] : down[i] + 7, right[i] : right[i] + 5] += contrast[i] * font[labels[i]]
    return (images - 0.12) / 0.5, labels


def flat_digits(n: int, seed: int, noise: float = 0.5) -> tuple[Tensor, Tensor]:
    """As :func:`digit_images`, near the centre of the image and flattened to [n, 144]."""
    images, labels = digit_images(n, seed, noise, shift=1)
    return images.flatten(1), labels


def teacher_regression(n: int, seed: int, inputs: int = 16, noise: float = 0.1) -> tuple[Tensor, Tensor]:
    """Inputs [n, inputs] and the noisy answers [n, 1] of one fixed random network, variance about 1."""
    fixed, gen = random(7), random(seed)
    first = torch.randn(inputs, 12, generator=fixed) / inputs**0.5
    second = torch.randn(12, 1, generator=fixed)
    x = torch.randn(n, inputs, generator=gen)
    y = torch.tanh(2 * x @ first) @ second / 2.2
    return x, y + noise * torch.randn(n, 1, generator=gen)


def blobs(
    n: int, seed: int, classes: int = 8, inputs: int = 20, spread: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Gaussian classes: inputs [n, inputs], labels [n]."""
    centres = torch.randn(classes, inputs, generator=random(11))
    gen = random(seed)
    labels = torch.randint(classes, (n,), generator=gen)
    return centres[labels] + spread * torch.randn(n, inputs, generator=gen), labels


WORDS = {
    "det": ["the", "a", "every", "some"],
    "adj": ["red", "small", "quiet", "old", "bright", "cold"],
    "noun": ["fox", "house", "river", "child", "stone", "bird", "garden", "lamp"],
    "verb": ["sees", "finds", "follows", "keeps", "paints"],
    "adv": ["slowly", "again", "today"],
}
SENTENCE = "det adj noun verb det noun adv"
ALPHABET = "\n abcdefghijklmnopqrstuvwxyz."


def grammar_text(sentences: int, seed: int) -> Tensor:
    """Letters of generated sentences as indices into ALPHABET."""
    gen = random(seed)
    text: list[str] = []
    for _ in range(sentences):
        kinds = SENTENCE.split()
        chosen = [WORDS[k][int(torch.randint(len(WORDS[k]), (), generator=gen))] for k in kinds]
        text.append(" ".join(chosen) + ".\n")
    return torch.tensor([ALPHABET.index(c) for c in "".join(text)])


def windows(text: Tensor, length: int, n: int, seed: int) -> Tensor:
    """Random stretches [n, length] of a text."""
    starts = torch.randint(len(text) - length, (n,), generator=random(seed))
    return torch.stack([text[s : s + length] for s in starts])


# ---------------------------------------------------------------------------------------------
# Models


def mlp(*sizes: int, act: type[nn.Module] = nn.ReLU, dropout: float = 0.0) -> nn.Sequential:
    layers: list[nn.Module] = []
    for i, (a, b) in enumerate(itertools.pairwise(sizes)):
        layers.append(nn.Linear(a, b))
        if i < len(sizes) - 2:
            layers.append(act())
            if dropout:
                layers.append(nn.Dropout(dropout))
    return nn.Sequential(*layers)


def small_cnn(dropout: float = 0.0) -> nn.Sequential:
    """[n, 1, 12, 12] -> [n, 10]."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(dropout),
        nn.Linear(144, 10),
    )


# ---------------------------------------------------------------------------------------------
# Training

Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Step:
    """After one optimizer step. ``epoch`` counts from 0; the means are over the epoch so far."""

    number: int
    epoch: int
    loss: float
    grad_norm: float
    ends_epoch: bool
    mean_loss: float
    mean_accuracy: float


def shuffled(n: int, batch: int, gen: torch.Generator, shuffle: bool = True) -> Iterator[Tensor]:
    order = torch.randperm(n, generator=gen) if shuffle else torch.arange(n)
    yield from order.split(batch)


def accuracy(output: Tensor, target: Tensor) -> float:
    if target.is_floating_point() or output.dim() < 2:
        return math.nan
    return float((output.argmax(-1) == target).float().mean())


def train(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss_of: Loss,
    x: Tensor,
    y: Tensor,
    *,
    epochs: int,
    batch: int,
    seed: int = 0,
    shuffle: bool = True,
    clip: float = math.inf,
    seconds: float = 0.02,
    scheduler: torch.optim.lr_scheduler.LRScheduler | None = None,
) -> Iterator[Step]:
    """The ordinary loop, handing over after every optimizer step; the scheduler is stepped per step."""
    gen, number = random(seed), 0
    for epoch in range(epochs):
        picks = list(shuffled(len(x), batch, gen, shuffle))
        losses: list[float] = []
        right: list[float] = []
        for i, pick in enumerate(picks):
            model.train()
            output = model(x[pick])
            loss = loss_of(output, y[pick])
            optimizer.zero_grad()
            loss.backward()
            norm = nn.utils.clip_grad_norm_(model.parameters(), clip)
            optimizer.step()
            if scheduler is not None:
                scheduler.step()
            losses.append(loss.item())
            right.append(accuracy(output.detach(), y[pick]))
            CLOCK.tick(seconds)
            means = sum(losses) / len(losses), sum(right) / len(right)
            yield Step(number, epoch, losses[-1], float(norm), i == len(picks) - 1, *means)
            number += 1


@torch.no_grad()
def evaluate(model: nn.Module, loss_of: Loss, x: Tensor, y: Tensor) -> tuple[float, float]:
    """Loss and accuracy in eval mode."""
    model.eval()
    output = model(x)
    CLOCK.tick(0.2)
    return loss_of(output, y).item(), accuracy(output, y)


def warmup_cosine(optimizer: torch.optim.Optimizer, warmup: int, total: int) -> Any:
    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / (total - warmup))))

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def rate(optimizer: torch.optim.Optimizer) -> float:
    return float(optimizer.param_groups[0]["lr"])


# ---------------------------------------------------------------------------------------------
# Writers


@contextmanager
def event_log(folder: Path, name: str = EVENT_FILE) -> Iterator[SummaryWriter]:
    """A SummaryWriter whose file carries neither this machine's name nor a process number."""
    before = set(folder.rglob("events.out.tfevents.*"))
    writer = SummaryWriter(str(folder))
    yield writer
    writer.close()
    for path in sorted(set(folder.rglob("events.out.tfevents.*")) - before):
        path.rename(path.with_name(name))


@contextmanager
def json_lines(path: Path) -> Iterator[Callable[[dict[str, Any]], None]]:
    with path.open("w") as file:
        yield lambda row: print(json.dumps(row), file=file)


def write_yaml(path: Path, values: dict[str, Any]) -> None:
    path.write_text(yaml.safe_dump(values, sort_keys=False))


def write_json(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2) + "\n")


def save(path: Path, model: nn.Module, **extra: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"model_state_dict": model.state_dict(), **extra}, path)


# ---------------------------------------------------------------------------------------------
# Healthy


@story(
    "healthy-cnn",
    format="TensorBoard events (torch SummaryWriter, with histograms and hparams), .pt",
    wrong="nothing: warm-up then cosine, per-step loss with mini-batch noise, dropout",
)
def healthy_cnn(out: Path) -> None:
    torch.manual_seed(1)
    x, y = digit_images(3200, seed=1)
    vx, vy = digit_images(800, seed=2)
    hparams = {"lr": 6e-3, "weight_decay": 0.01, "batch_size": 64, "dropout": 0.2, "epochs": 24}
    model = small_cnn(hparams["dropout"])
    opt = torch.optim.AdamW(model.parameters(), lr=hparams["lr"], weight_decay=hparams["weight_decay"])
    schedule = warmup_cosine(opt, warmup=100, total=50 * 24)
    loss_of = nn.CrossEntropyLoss()
    with event_log(out) as log:
        steps = train(model, opt, loss_of, x, y, epochs=24, batch=64, clip=5.0, scheduler=schedule)
        for s in steps:
            if s.number % 5 == 0:
                log.add_scalar("train/loss", s.loss, s.number)
                log.add_scalar("train/lr", rate(opt), s.number)
                log.add_scalar("train/grad_norm", s.grad_norm, s.number)
            if s.ends_epoch:
                loss, right = evaluate(model, loss_of, vx, vy)
                log.add_scalar("val/loss", loss, s.number)
                log.add_scalar("val/accuracy", right, s.number)
                if s.epoch % 8 == 7:
                    for name, p in model.named_parameters():
                        if p.dim() > 1:
                            log.add_histogram(name, p, s.number)
        log.add_hparams(hparams, {"hparam/val_accuracy": right, "hparam/val_loss": loss})
    save(out / "checkpoint.pt", model, optimizer_state_dict=opt.state_dict(), epoch=24)


@story(
    "healthy-lightning-regression",
    format="Lightning CSVLogger, hparams.yaml, .ckpt",
    wrong="nothing: the learning rate is cut twice (the curve shows the steps), validation wobbles",
)
def healthy_lightning_regression(out: Path) -> None:
    torch.manual_seed(2)
    hparams = {"lr": 0.02, "momentum": 0.9, "weight_decay": 1e-4, "batch_size": 64, "hidden": 32}
    net = mlp(16, 32, 32, 1)
    opt = torch.optim.SGD(net.parameters(), lr=0.02, momentum=0.9, weight_decay=1e-4)
    fit_lightning(
        out,
        hparams,
        net,
        opt,
        F.mse_loss,
        teacher_regression(4000, seed=1, noise=0.3),
        teacher_regression(500, seed=2, noise=0.3),
        epochs=30,
        measures=lightning_mae,
        scheduler=torch.optim.lr_scheduler.MultiStepLR(opt, [18, 25], gamma=0.2),
    )


@story(
    "healthy-transformer-lm",
    format="Hugging Face trainer_state.json, config.json, model.safetensors",
    wrong="nothing: a small language model with linear warm-up and decay that approaches the text's entropy",
)
def healthy_transformer_lm(out: Path) -> None:
    fit_language_model(out, lr=6e-3, epochs=10, warmup=60, decay=True, seed=3)


@story(
    "healthy-keras-dropout",
    format="Keras CSVLogger, .weights.h5, config.json",
    wrong="nothing: dropout holds the training loss above the validation loss; step decay; a wobble",
)
def healthy_keras(out: Path) -> None:
    config = {"learning_rate": 2e-3, "batch_size": 100, "epochs": 30, "dropout": 0.4, "optimizer": "adam"}
    data = flat_digits(5000, seed=1, noise=0.35), flat_digits(400, seed=2, noise=0.35)
    fit_keras(out, config, *data, hidden=[22], seed=4, decay=lambda epoch: 0.3 ** (epoch // 12), weights=True)


@story(
    "healthy-density-nll",
    format="JSON lines, config.json",
    wrong="nothing: a density model whose negative log-likelihood goes below zero",
)
def healthy_density(out: Path) -> None:
    torch.manual_seed(31)
    gen = random(1)
    x = torch.rand(3000, 1, generator=gen) * 4 - 2
    y = torch.sin(2 * x) + 0.05 * torch.randn(x.shape, generator=gen)
    config = {"optimizer": "Adam", "lr": 1.5e-3, "batch_size": 128, "epochs": 50, "weight_decay": 0.0}
    write_json(out / "config.json", config)
    model = mlp(1, 32, 32, 2, act=nn.Tanh)
    opt = torch.optim.Adam(model.parameters(), lr=1.5e-3)
    schedule = warmup_cosine(opt, warmup=50, total=20 * 50)

    def nll(output: Tensor, target: Tensor) -> Tensor:
        mean, log_std = output.chunk(2, -1)
        return (0.5 * ((target - mean) / log_std.exp()) ** 2 + log_std + 0.919).mean()

    with json_lines(out / "history.jsonl") as write:
        steps = train(model, opt, nll, x[:2500], y[:2500], epochs=50, batch=128, clip=1.0, scheduler=schedule)
        for s in steps:
            if s.ends_epoch:
                val = evaluate(model, nll, x[2500:], y[2500:])[0]
                write({"epoch": s.epoch, "train_nll": s.mean_loss, "val_nll": val, "lr": rate(opt)})


@story(
    "healthy-warm-restarts",
    format="CSV written by hand, args.yaml",
    wrong="nothing: cosine warm restarts make the loss rise a little at each restart",
)
def healthy_warm_restarts(out: Path) -> None:
    torch.manual_seed(32)
    x, y = flat_digits(5000, seed=1, noise=0.4)
    vx, vy = flat_digits(1000, seed=2, noise=0.4)
    args = {"optimizer": "SGD", "lr0": 0.1, "momentum": 0.9, "weight_decay": 2e-3, "batch": 125}
    write_yaml(out / "args.yaml", args | {"dropout": 0.25, "epochs": 60})
    model = mlp(144, 32, 10, dropout=0.25)
    opt = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(opt, T_0=40 * 15)
    loss_of = nn.CrossEntropyLoss()
    with (out / "results.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["epoch", "train/loss", "val/loss", "metrics/accuracy", "lr/pg0"])
        for s in train(model, opt, loss_of, x, y, epochs=60, batch=125, scheduler=schedule):
            if s.ends_epoch:
                loss, right = evaluate(model, loss_of, vx, vy)
                rows.writerow([s.epoch + 1, *(f"{v:.5f}" for v in (s.mean_loss, loss, right, rate(opt)))])


@story(
    "healthy-resumed",
    format="two TensorBoard event files with overlapping steps",
    wrong="nothing: the job was killed at step 900 and went on from its checkpoint of step 750",
)
def healthy_resumed(out: Path) -> None:
    torch.manual_seed(35)
    x, y = teacher_regression(4000, seed=1, noise=0.3)
    vx, vy = teacher_regression(800, seed=2, noise=0.3)
    model = mlp(16, 24, 1, act=nn.Tanh)
    opt = torch.optim.Adam(model.parameters(), lr=8e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(opt, 50 * 30)
    loss_of = nn.MSELoss()

    def part(log: SummaryWriter, first: int, last: int) -> None:
        parts = {"model": model, "opt": opt, "schedule": schedule}
        steps = train(model, opt, loss_of, x, y, epochs=30, batch=80, seed=first, scheduler=schedule)
        for s in steps:
            step = first + s.number
            if step % 5 == 0:
                log.add_scalar("loss/train", s.loss, step)
                log.add_scalar("learning_rate", rate(opt), step)
            if s.ends_epoch:
                log.add_scalar("loss/val", evaluate(model, loss_of, vx, vy)[0], step)
            if step == 749:
                kept.update({k: copy.deepcopy(v.state_dict()) for k, v in parts.items()})
            if step == last - 1:
                return

    kept: dict[str, Any] = {}
    with event_log(out) as log:
        part(log, 0, 900)
    model.load_state_dict(kept["model"])
    opt.load_state_dict(kept["opt"])
    schedule.load_state_dict(kept["schedule"])
    CLOCK.tick(600)
    with event_log(out, "events.out.tfevents.1700000700.host.2.0") as log:
        part(log, 750, 1500)


@story(
    "healthy-gan",
    format="TensorBoard events (torch SummaryWriter)",
    wrong="nothing: the discriminator loss rises to 2 ln 2 and the generator loss to ln 2, their balance",
)
def healthy_gan(out: Path) -> None:
    torch.manual_seed(33)
    gen = random(1)
    g, d = mlp(8, 48, 48, 2), mlp(2, 48, 48, 1, act=nn.LeakyReLU)
    opt_g = torch.optim.Adam(g.parameters(), lr=1e-3, betas=(0.5, 0.999))
    opt_d = torch.optim.Adam(d.parameters(), lr=4e-3, betas=(0.5, 0.999))
    bce = nn.BCEWithLogitsLoss()
    one, zero = torch.ones(128, 1), torch.zeros(128, 1)
    with event_log(out) as log:
        for step in range(2500):
            angle = 2 * math.pi * torch.rand(128, 1, generator=gen)
            real = torch.cat([angle.cos(), angle.sin()], 1) + 0.1 * torch.randn(128, 2, generator=gen)
            fake = g(torch.randn(128, 8, generator=gen))
            score_real, score_fake = d(real), d(fake.detach())
            loss_d = bce(score_real, one) + bce(score_fake, zero)
            opt_d.zero_grad()
            loss_d.backward()
            opt_d.step()
            score = d(fake)
            loss_g = bce(score, one)
            opt_g.zero_grad()
            loss_g.backward()
            opt_g.step()
            CLOCK.tick(0.03)
            if step % 10 == 0:
                log.add_scalar("Loss_D", loss_d.item(), step)
                log.add_scalar("Loss_G", loss_g.item(), step)
                log.add_scalar("D(x)", score_real.sigmoid().mean().item(), step)
                log.add_scalar("D(G(z))", score.sigmoid().mean().item(), step)


@story(
    "healthy-rl-gridworld",
    format="progress.csv with Stable-Baselines3's columns",
    wrong="nothing: the reward rises to its best; losses that grow first are normal in reinforcement learning",
)
def healthy_rl(out: Path) -> None:
    torch.manual_seed(34)
    policy, value = mlp(50, 32, 4), mlp(50, 32, 1)
    opt = torch.optim.Adam([*policy.parameters(), *value.parameters()], lr=3e-3)
    world = GridWorld(envs=16, seed=1)
    columns = [
        "rollout/ep_len_mean",
        "rollout/ep_rew_mean",
        "time/fps",
        "time/iterations",
        "time/time_elapsed",
        "time/total_timesteps",
        "train/entropy_loss",
        "train/explained_variance",
        "train/learning_rate",
        "train/n_updates",
        "train/policy_loss",
        "train/value_loss",
    ]
    with (out / "progress.csv").open("w", newline="") as file:
        rows = csv.DictWriter(file, columns)
        rows.writeheader()
        for update in range(1, 601):
            row = actor_critic_update(world, policy, value, opt)
            if update % 5 == 0 and world.returns:
                row["rollout/ep_len_mean"] = world.mean_length()
                row["rollout/ep_rew_mean"] = world.mean_return()
                row |= {"time/fps": 4000, "time/time_elapsed": update * 256 // 4000}
                row |= {"time/iterations": update, "time/total_timesteps": update * 256}
                rows.writerow(row | {"train/learning_rate": rate(opt), "train/n_updates": update - 1})


class GridWorld:
    """Copies of a 5x5 world: start in one corner, +10 at a random goal, -0.1 a step, 30 steps at most."""

    moves = torch.tensor([[0, 1], [1, 0], [0, -1], [-1, 0]])

    def __init__(self, envs: int, seed: int) -> None:
        self.gen = random(seed)
        self.envs = envs
        self.place, self.goal = torch.zeros(envs, 2).long(), torch.zeros(envs, 2).long()
        self.length, self.total = torch.zeros(envs), torch.zeros(envs)
        self.returns: list[tuple[float, float]] = []
        self.restart(torch.ones(envs).bool())

    def restart(self, which: Tensor) -> None:
        fresh = torch.randint(5, (self.envs, 2), generator=self.gen)
        fresh[(fresh.sum(1) == 0)] = 4
        self.place[which], self.goal[which] = 0, fresh[which]
        self.length[which], self.total[which] = 0, 0

    def observe(self) -> Tensor:
        here = F.one_hot(self.place[:, 0] * 5 + self.place[:, 1], 25)
        there = F.one_hot(self.goal[:, 0] * 5 + self.goal[:, 1], 25)
        return torch.cat([here, there], 1).float()

    def step(self, action: Tensor) -> tuple[Tensor, Tensor]:
        self.place = (self.place + self.moves[action]).clamp(0, 4)
        found = (self.place == self.goal).all(1)
        reward = torch.where(found, 10.0, -0.1)
        self.length += 1
        self.total += reward
        done = found | (self.length >= 30)
        self.returns += list(zip(self.total[done].tolist(), self.length[done].tolist(), strict=True))
        self.restart(done)
        return reward, done

    def mean_return(self) -> float:
        return sum(r for r, _ in self.returns[-100:]) / len(self.returns[-100:])

    def mean_length(self) -> float:
        return sum(n for _, n in self.returns[-100:]) / len(self.returns[-100:])


def actor_critic_update(
    world: GridWorld, policy: nn.Module, value: nn.Module, opt: torch.optim.Optimizer
) -> dict[str, float]:
    """One advantage actor-critic update from 16 steps of every copy of the world."""
    seen, chosen, rewards, ends = [], [], [], []
    for _ in range(16):
        seen.append(world.observe())
        with torch.no_grad():
            chosen.append(torch.multinomial(policy(seen[-1]).softmax(-1), 1, generator=world.gen)[:, 0])
        reward, done = world.step(chosen[-1])
        rewards.append(reward)
        ends.append(done.float())
    with torch.no_grad():
        ahead = value(world.observe())[:, 0]
    targets = []
    for reward, done in zip(rewards[::-1], ends[::-1], strict=True):
        ahead = reward + 0.97 * (1 - done) * ahead
        targets.insert(0, ahead)
    states, actions, target = torch.cat(seen), torch.cat(chosen), torch.cat(targets)
    guess = value(states)[:, 0]
    log_p = policy(states).log_softmax(-1)
    advantage = target - guess.detach()
    advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
    policy_loss = -(log_p.gather(1, actions[:, None])[:, 0] * advantage).mean()
    entropy_loss = (log_p.exp() * log_p).sum(-1).mean()
    value_loss = F.mse_loss(guess, target)
    opt.zero_grad()
    (policy_loss + 0.02 * entropy_loss + 0.5 * value_loss).backward()
    opt.step()
    CLOCK.tick(0.064)
    explained = 1 - (target - guess).var() / (target.var() + 1e-8)
    return {
        "train/entropy_loss": entropy_loss.item(),
        "train/explained_variance": explained.item(),
        "train/policy_loss": policy_loss.item(),
        "train/value_loss": value_loss.item(),
    }


# ---------------------------------------------------------------------------------------------
# Frameworks


def fit_lightning(
    out: Path,
    hparams: dict[str, Any],
    net: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss_of: Loss,
    data: tuple[Tensor, Tensor],
    val: tuple[Tensor, Tensor],
    *,
    epochs: int,
    measures: Callable[[Tensor, Tensor], dict[str, Tensor]],
    scheduler: torch.optim.lr_scheduler.LRScheduler | None = None,
) -> None:
    """A training under lightning's own Trainer, CSVLogger, monitor and checkpoint callback."""
    import logging
    import warnings

    import lightning as L
    from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint
    from lightning.pytorch.loggers import CSVLogger
    from torch.utils.data import DataLoader, TensorDataset

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")

    class Module(L.LightningModule):
        def __init__(self, **hyperparameters: Any) -> None:
            super().__init__()
            self.save_hyperparameters()
            self.net = net

        def training_step(self, batch: Any, _: int) -> Tensor:
            loss = loss_of(self.net(batch[0]), batch[1])
            self.log("train_loss", loss, on_step=True, on_epoch=True)
            CLOCK.tick(0.02)
            return loss

        def validation_step(self, batch: Any, _: int) -> None:
            output = self.net(batch[0])
            self.log("val_loss", loss_of(output, batch[1]))
            self.log_dict(measures(output, batch[1]))

        def configure_optimizers(self) -> Any:
            return [optimizer], [scheduler] if scheduler else []

    trainer = L.Trainer(
        max_epochs=epochs,
        logger=CSVLogger(out),
        accelerator="cpu",
        callbacks=[LearningRateMonitor("epoch"), ModelCheckpoint(monitor="val_loss")],
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=8,
        deterministic=True,
        num_sanity_val_steps=0,
    )
    trainer.fit(
        Module(**hparams),
        DataLoader(TensorDataset(*data), hparams["batch_size"], shuffle=True, generator=random(1)),
        DataLoader(TensorDataset(*val), len(val[0])),
    )


def fit_keras(
    out: Path,
    config: dict[str, Any],
    data: tuple[Tensor, Tensor],
    val: tuple[Tensor, Tensor],
    *,
    hidden: list[int],
    seed: int,
    decay: Callable[[int], float] | None = None,
    weights: bool = False,
) -> None:
    """A ten-class MLP under Keras' own fit() and CSVLogger."""
    os.environ["KERAS_BACKEND"] = "torch"
    import keras

    keras.utils.set_random_seed(seed)
    layers: list[Any] = [keras.Input((data[0].shape[1],))]
    for units in hidden:
        layers.append(keras.layers.Dense(units, activation="relu"))
        if config["dropout"]:
            layers.append(keras.layers.Dropout(config["dropout"]))
    model = keras.Sequential([*layers, keras.layers.Dense(10)])
    model.compile(
        optimizer=keras.optimizers.get({"class_name": config["optimizer"], "config": {}}),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    model.optimizer.learning_rate = config["learning_rate"]
    callbacks: list[Any] = [keras.callbacks.CSVLogger(str(out / "training.csv"))]
    if decay:
        start = config["learning_rate"]
        callbacks.insert(0, keras.callbacks.LearningRateScheduler(lambda e, _: start * decay(e)))
    if weights:
        callbacks.append(keras.callbacks.ModelCheckpoint(out / "model.weights.h5", save_weights_only=True))
    write_json(out / "config.json", config)
    model.fit(
        data[0].numpy(),
        data[1].numpy(),
        validation_data=(val[0].numpy(), val[1].numpy()),
        batch_size=config["batch_size"],
        epochs=config["epochs"],
        callbacks=callbacks,
        verbose=0,
    )


def fit_language_model(
    out: Path, *, lr: float, epochs: int, warmup: int, decay: bool, seed: int, stop_at: int | None = None
) -> None:
    """A tiny GPT-2 on generated text; the Trainer's state is written by its own TrainerState."""
    from transformers import GPT2Config, GPT2LMHeadModel, logging
    from transformers.trainer_callback import TrainerState

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.manual_seed(seed)
    text = windows(grammar_text(3000, seed=1), 48, 1600, seed=1)
    held_out = windows(grammar_text(400, seed=2), 48, 200, seed=2)
    config = GPT2Config(
        vocab_size=len(ALPHABET),
        n_positions=48,
        n_embd=20,
        n_layer=2,
        n_head=2,
        bos_token_id=0,
        eos_token_id=0,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
    )
    model = GPT2LMHeadModel(config)
    opt = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.01)
    batch, per_epoch = 16, 100
    total = epochs * per_epoch

    def factor(step: int) -> float:
        falling = max(0.0, (total - step) / (total - warmup)) if decay else 1.0
        return min(1.0, (step + 1) / warmup) if step < warmup else falling

    schedule = torch.optim.lr_scheduler.LambdaLR(opt, factor)
    history: list[dict[str, float]] = []
    gen, losses, began, step = random(seed), [], CLOCK.now, 0
    while step < (stop_at or total):
        for pick in shuffled(len(text), batch, gen):
            loss = model(input_ids=text[pick], labels=text[pick]).loss
            opt.zero_grad()
            loss.backward()
            norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            used = rate(opt)
            opt.step()
            schedule.step()
            CLOCK.tick(0.05)
            step += 1
            losses.append(loss.item())
            if step % 10 == 0:
                row = {"epoch": step / per_epoch, "grad_norm": norm.item(), "learning_rate": used}
                history.append(row | {"loss": sum(losses[-10:]) / 10, "step": step})
            if step % 50 == 0:
                history.append(language_model_eval(model, held_out, step, step / per_epoch))
            if step == stop_at:
                break
    took = CLOCK.now - began
    flops = 6.0 * model.num_parameters() * step * batch * 48
    summary = {"epoch": step / per_epoch, "step": step, "total_flos": flops}
    summary |= {"train_loss": sum(losses) / step, "train_runtime": round(took, 4)}
    summary |= {"train_samples_per_second": round(step * batch / took, 3)}
    history.append(summary | {"train_steps_per_second": round(step / took, 3)})
    state = TrainerState(
        epoch=step / per_epoch,
        global_step=step,
        max_steps=step,
        logging_steps=10,
        eval_steps=50,
        train_batch_size=batch,
        num_train_epochs=math.ceil(step / per_epoch),
        total_flos=flops,
        log_history=history,
    )
    state.save_to_json(str(out / "trainer_state.json"))
    model.save_pretrained(out)


@torch.no_grad()
def language_model_eval(model: nn.Module, held_out: Tensor, step: int, epoch: float) -> dict[str, float]:
    model.eval()
    loss = model(input_ids=held_out, labels=held_out).loss.item()
    model.train()
    CLOCK.tick(0.5)
    speed = {"eval_runtime": 0.5, "eval_samples_per_second": 400.0, "eval_steps_per_second": 26.0}
    return {"epoch": epoch, "eval_loss": loss, **speed, "step": step}


# ---------------------------------------------------------------------------------------------
# Generalization


@story(
    "overfitting-mlp",
    "overfitting",
    format="TensorBoard events (torch SummaryWriter), best.pt and last.pt, hparams.yaml",
    wrong="300 noisy training images for a wide MLP without regularisation, trained far too long",
)
def overfitting_mlp(out: Path) -> None:
    torch.manual_seed(3)
    # Fault: far too little data for the model, no dropout, no weight decay, no early stopping.
    x, y = flat_digits(300, seed=1, noise=0.45)
    vx, vy = flat_digits(800, seed=2, noise=0.45)
    write_yaml(
        out / "hparams.yaml",
        {
            "model": "mlp",
            "hidden": 80,
            "optimizer": "Adam",
            "learning_rate": 2e-3,
            "weight_decay": 0.0,
            "dropout": 0.0,
            "batch_size": 32,
            "epochs": 100,
        },
    )
    model = mlp(144, 80, 10)
    opt = torch.optim.Adam(model.parameters(), lr=2e-3)
    loss_of, best = nn.CrossEntropyLoss(), math.inf
    with event_log(out) as log:
        for s in train(model, opt, loss_of, x, y, epochs=100, batch=32):
            if not s.ends_epoch:
                continue
            loss, right = evaluate(model, loss_of, vx, vy)
            log.add_scalar("Loss/train", s.mean_loss, s.epoch)
            log.add_scalar("Loss/val", loss, s.epoch)
            log.add_scalar("Accuracy/train", s.mean_accuracy, s.epoch)
            log.add_scalar("Accuracy/val", right, s.epoch)
            if loss < best:
                best = loss
                save(out / "best.pt", model, epoch=s.epoch, val_loss=loss)
    save(out / "last.pt", model, epoch=99, val_loss=loss)


@story(
    "underfitting-tiny-model",
    "underfitting",
    format="Keras CSVLogger, config.json",
    wrong="one hidden unit for ten classes: training and validation both flat at a poor level",
)
def underfitting(out: Path) -> None:
    # Fault: a bottleneck of a single unit for ten classes.
    config = {"learning_rate": 0.01, "batch_size": 100, "epochs": 45, "dropout": 0.0, "optimizer": "adam"}
    data = flat_digits(2500, seed=1, noise=0.4), flat_digits(800, seed=2, noise=0.4)
    fit_keras(out, config, *data, hidden=[1], seed=9)


@story(
    "train-val-mismatch-normalisation",
    "train-val-mismatch",
    format="Lightning CSVLogger, hparams.yaml, .ckpt",
    wrong="training targets are standardised, validation targets are not: far off from the first epoch on",
)
def train_val_mismatch(out: Path) -> None:
    torch.manual_seed(10)
    x, y = teacher_regression(3000, seed=1, noise=0.2)
    vx, vy = teacher_regression(600, seed=2, noise=0.2)
    hparams = {"lr": 3e-3, "weight_decay": 0.01, "batch_size": 64, "hidden": 24, "optimizer": "AdamW"}
    net = mlp(16, 24, 1, act=nn.Tanh)
    opt = torch.optim.AdamW(net.parameters(), lr=3e-3, weight_decay=0.01)
    # Fault: validation keeps its raw units while the training targets were standardised.
    raw = vy * 2.0 + 3.0
    fit_lightning(out, hparams, net, opt, F.mse_loss, (x, y), (vx, raw), epochs=25, measures=lightning_mae)


def lightning_mae(output: Tensor, y: Tensor) -> dict[str, Tensor]:
    return {"val_mae": F.l1_loss(output, y)}


@story(
    "label-leakage-target-in-features",
    "label-leakage",
    format="CSV written by hand, config.json",
    wrong="a column derived from the target is left in the features: validation is perfect at once",
)
def label_leakage(out: Path) -> None:
    torch.manual_seed(12)
    config = {"optimizer": "Adam", "lr": 1e-2, "batch_size": 32, "epochs": 25, "dropout": 0.3}
    write_json(out / "config.json", config)

    def table(n: int, seed: int) -> tuple[Tensor, Tensor]:
        x, y = blobs(n, seed, classes=4, spread=4.0)
        # Fault: "risk band", computed from the label itself, is one of the columns.
        band = 6.0 * F.one_hot(y, 4) + 0.05 * torch.randn(n, 4, generator=random(seed + 50))
        return torch.cat([x, band], 1), y

    x, y = table(3000, seed=1)
    vx, vy = table(800, seed=2)
    model = mlp(24, 32, 4, dropout=0.3)
    opt = torch.optim.Adam(model.parameters(), lr=1e-2)
    loss_of = nn.CrossEntropyLoss()
    with (out / "history.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["epoch", "train_loss", "train_acc", "val_loss", "val_acc"])
        for s in train(model, opt, loss_of, x, y, epochs=25, batch=32):
            if s.ends_epoch:
                loss, right = evaluate(model, loss_of, vx, vy)
                rows.writerow([s.epoch + 1, s.mean_loss, s.mean_accuracy, loss, right])


# ---------------------------------------------------------------------------------------------
# Convergence


@story(
    "oscillating-loss-momentum",
    "oscillating-loss",
    format="JSON lines, config.json",
    wrong="momentum 0.998 with a high learning rate: the loss swings over and over and does not settle",
)
def oscillating_loss(out: Path) -> None:
    torch.manual_seed(5)
    x, y = teacher_regression(2000, seed=1, noise=0.3)
    vx, vy = teacher_regression(500, seed=2, noise=0.3)
    # Fault: 0.998 for 0.98, a slip of the finger, makes the effective step ten times larger.
    config = {"optimizer": "SGD", "lr": 0.05, "momentum": 0.998, "batch_size": 2000, "epochs": 150}
    write_json(out / "config.json", config)
    model = mlp(16, 16, 1, act=nn.Tanh)
    opt = torch.optim.SGD(model.parameters(), lr=config["lr"], momentum=config["momentum"])
    loss_of = nn.MSELoss()
    with json_lines(out / "log.jsonl") as write:
        for s in train(model, opt, loss_of, x, y, epochs=150, batch=2000):
            if s.ends_epoch:
                row = {"epoch": s.epoch + 1, "step": s.number + 1, "train_loss": s.mean_loss}
                row |= {"val_loss": evaluate(model, loss_of, vx, vy)[0], "lr": rate(opt)}
                write(row | {"grad_norm": s.grad_norm})


@story(
    "loss-divergence-high-lr",
    "loss-divergence",
    "lr-too-high",
    format="CSV written by hand, config.yaml",
    wrong="the learning rate ramps up far beyond what is stable: the loss falls, then rises and stays up",
)
def loss_divergence(out: Path) -> None:
    torch.manual_seed(5)
    x, y = flat_digits(2048, seed=1)
    model = mlp(144, 64, 64, 10, act=nn.Tanh)
    # Fault: the warm-up ends at a learning rate a hundred times too high.
    top, total = 1.0, 32 * 25
    write_yaml(
        out / "config.yaml",
        {"optimizer": "Adam", "lr": top, "warmup_steps": 400, "batch_size": 64, "epochs": 25},
    )
    opt = torch.optim.Adam(model.parameters(), lr=top)
    schedule = torch.optim.lr_scheduler.LambdaLR(opt, lambda i: 1e-3 * 1000 ** min(1, i / 400))
    with (out / "train_log.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["step", "epoch", "loss", "lr", "grad_norm"])
        steps = train(
            model,
            opt,
            nn.CrossEntropyLoss(),
            x,
            y,
            epochs=total // 32,
            batch=64,
            scheduler=schedule,
        )
        for s in steps:
            if s.number % 4 == 0:
                rows.writerow([s.number, s.epoch, f"{s.loss:.5f}", f"{rate(opt):.6g}", f"{s.grad_norm:.5g}"])


@story(
    "loss-plateau-parity",
    "loss-plateau",
    format="TensorBoard events (torch SummaryWriter), hparams.yaml",
    wrong="half of the answer is easy, half is a parity that plain SGD never finds: flat for most of the run",
)
def loss_plateau(out: Path) -> None:
    torch.manual_seed(13)
    # Fault: two of four output bits are parities of eight inputs each: no slope leads there.
    x = torch.randint(2, (6000, 24), generator=random(1)).float() * 2 - 1
    bits = [x[:, 0] + x[:, 1] + x[:, 2] > 0, x[:, 3] + x[:, 4] + x[:, 5] > 0]
    bits += [x[:, 6:14].prod(1) > 0, x[:, 14:22].prod(1) > 0]
    y = sum(bit.long() << i for i, bit in enumerate(bits))
    hparams = {"lr": 0.05, "momentum": 0.9, "optimizer": "SGD", "batch_size": 100, "epochs": 20}
    write_yaml(out / "hparams.yaml", hparams | {"hidden": 24, "weight_decay": 0.0})
    model = mlp(24, 24, 16)
    opt = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    with event_log(out) as log:
        for s in train(model, opt, nn.CrossEntropyLoss(), x, y, epochs=20, batch=100):
            if s.number % 4 == 0:
                log.add_scalar("train/loss", s.loss, s.number)
                log.add_scalar("train/grad_norm", s.grad_norm, s.number)
                log.add_scalar("train/lr", rate(opt), s.number)


@story(
    "loss-not-decreasing-shuffled-labels",
    "loss-not-decreasing",
    format="Keras CSVLogger, config.json",
    wrong="inputs and labels were shuffled apart: the loss stays at ln 10 and accuracy at chance",
)
def loss_not_decreasing(out: Path) -> None:
    x, y = blobs(20000, seed=1, classes=10)
    vx, vy = blobs(1000, seed=2, classes=10)
    # Fault: the labels are permuted, the inputs are not.
    y, vy = y[torch.randperm(len(y), generator=random(5))], vy[torch.randperm(len(vy), generator=random(6))]
    config = {"learning_rate": 1e-3, "batch_size": 128, "epochs": 12, "dropout": 0.0, "optimizer": "adam"}
    fit_keras(out, config, (0.2 * x, y), (0.2 * vx, vy), hidden=[6], seed=14)


@story(
    "undertrained-language-model",
    "undertrained",
    format="Hugging Face trainer_state.json, config.json, model.safetensors",
    wrong="the training was stopped after 250 steps while the loss still fell steeply at a useful rate",
)
def undertrained(out: Path) -> None:
    # Fault: the budget ends where the model has just begun to learn.
    fit_language_model(out, lr=3e-3, epochs=10, warmup=20, decay=False, seed=15, stop_at=250)


@story(
    "loss-spikes-bad-batches",
    "loss-spikes",
    "data-outliers",
    format="TensorBoard events (torch SummaryWriter), config.yaml",
    wrong="seven isolated batches hold corrupted inputs: the loss jumps and recovers",
)
def loss_spikes(out: Path) -> None:
    torch.manual_seed(16)
    x, y = flat_digits(4000, seed=1, noise=0.35)
    config = {"optimizer": "SGD", "lr": 0.05, "momentum": 0.9, "batch_size": 50, "epochs": 10, "clip": 1.0}
    write_yaml(out / "config.yaml", config)
    model = mlp(144, 32, 10)
    opt = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    bad = {141, 236, 377, 452, 583, 641, 738}
    seen = itertools.count()

    def damaged(module: nn.Module, inputs: tuple[Tensor]) -> Any:
        # Fault: the reader now and then hands over a block with its scale lost.
        return (inputs[0].flip(1) * 3,) if next(seen) in bad else None

    model.register_forward_pre_hook(damaged)
    with event_log(out) as log:
        for s in train(model, opt, F.cross_entropy, x, y, epochs=10, batch=50, clip=1.0):
            log.add_scalar("train_loss", s.loss, s.number)
            if s.number % 10 == 0:
                log.add_scalar("lr", rate(opt), s.number)


@story(
    "no-early-stopping-flat-tail",
    "no-early-stopping",
    "converged",
    format="Keras CSVLogger, config.json",
    wrong="nothing is gained after the first fifth of the run; the rest of the compute is wasted",
)
def no_early_stopping(out: Path) -> None:
    # Fault: 100 epochs where a dozen are enough, and no early stopping.
    config = {"learning_rate": 2e-3, "batch_size": 100, "epochs": 100, "dropout": 0.0, "optimizer": "adam"}
    data = blobs(2500, seed=1, classes=10, spread=2.0), blobs(1000, seed=2, classes=10, spread=2.0)
    fit_keras(out, config, *data, hidden=[], seed=17)


# ---------------------------------------------------------------------------------------------
# Learning rate


@story(
    "lr-too-low-sgd",
    "lr-too-low",
    format="JSON lines, config.json",
    wrong="SGD with a learning rate hundreds of times too low: a near-linear, unfinished descent",
)
def lr_too_low(out: Path) -> None:
    torch.manual_seed(6)
    x, y = blobs(2000, seed=1)
    vx, vy = blobs(500, seed=2)
    # Fault: 2e-4 where 0.1 trains this model in a few epochs.
    config = {
        "model": "mlp",
        "optimizer": "SGD",
        "lr": 2e-4,
        "momentum": 0.0,
        "batch_size": 100,
        "epochs": 60,
    }
    write_json(out / "config.json", config)
    model = mlp(20, 32, 8)
    opt = torch.optim.SGD(model.parameters(), lr=config["lr"])
    loss_of = nn.CrossEntropyLoss()
    with json_lines(out / "metrics.jsonl") as write:
        for s in train(model, opt, loss_of, x, y, epochs=60, batch=100):
            if s.ends_epoch:
                weight = math.sqrt(sum(float(p.detach().square().sum()) for p in model.parameters()))
                loss, right = evaluate(model, loss_of, vx, vy)
                row = {"epoch": s.epoch, "step": s.number + 1, "train_loss": s.mean_loss, "val_loss": loss}
                row |= {"val_accuracy": right, "lr": rate(opt), "grad_norm": s.grad_norm}
                write(row | {"update_ratio": rate(opt) * s.grad_norm / weight})


@story(
    "lr-schedule-decays-early",
    "lr-schedule-decays-early",
    format="TensorBoard events (torch SummaryWriter), hparams.yaml",
    wrong="the scheduler is stepped per batch instead of per epoch: no learning rate is left after a few epochs",
)
def lr_schedule_decays_early(out: Path) -> None:
    torch.manual_seed(19)
    x, y = digit_images(3200, seed=1)
    vx, vy = digit_images(800, seed=2)
    hparams = {"lr": 4e-3, "optimizer": "Adam", "scheduler": "ExponentialLR", "gamma": 0.98}
    write_yaml(out / "hparams.yaml", hparams | {"batch_size": 64, "epochs": 20, "weight_decay": 0.0})
    model = small_cnn()
    opt = torch.optim.Adam(model.parameters(), lr=4e-3)
    # Fault: gamma was meant per epoch; train() steps the scheduler after every batch.
    schedule = torch.optim.lr_scheduler.ExponentialLR(opt, gamma=0.98)
    loss_of = nn.CrossEntropyLoss()
    with event_log(out) as log:
        for s in train(model, opt, loss_of, x, y, epochs=20, batch=64, scheduler=schedule):
            if s.number % 5 == 0:
                log.add_scalar("train/loss", s.loss, s.number)
                log.add_scalar("lr", rate(opt), s.number)
            if s.ends_epoch:
                loss, right = evaluate(model, loss_of, vx, vy)
                log.add_scalar("val/loss", loss, s.number)
                log.add_scalar("val/acc", right, s.number)


@story(
    "lr-too-high-until-cut",
    "lr-too-high",
    "oscillating-loss",
    format="CSV written by hand, args.yaml",
    wrong="the loss hovers high and restless, and falls sharply the moment the learning rate is cut",
)
def lr_too_high(out: Path) -> None:
    torch.manual_seed(4)
    x, y = teacher_regression(2000, seed=1)
    vx, vy = teacher_regression(500, seed=2)
    # Fault: Adam at twenty times the learning rate that works, until the schedule steps in at epoch 40.
    args = {"optimizer": "Adam", "lr0": 0.2, "batch": 50, "epochs": 60, "lr_step": 40, "lr_gamma": 0.05}
    write_yaml(out / "args.yaml", args)
    model = mlp(16, 32, 1, act=nn.Tanh)
    opt = torch.optim.Adam(model.parameters(), lr=0.2)
    schedule = torch.optim.lr_scheduler.MultiStepLR(opt, [40 * 40], gamma=0.05)
    loss_of = nn.MSELoss()
    with (out / "results.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["epoch", "train/loss", "val/loss", "grad_norm", "lr"])
        for s in train(model, opt, loss_of, x, y, epochs=60, batch=50, scheduler=schedule):
            if s.ends_epoch:
                val = evaluate(model, loss_of, vx, vy)[0]
                rows.writerow([s.epoch + 1, s.mean_loss, val, s.grad_norm, rate(opt)])


# ---------------------------------------------------------------------------------------------
# Numerics


@story(
    "nan-loss-log-of-zero",
    "nan-loss",
    format="TensorBoard events (torch SummaryWriter), hparams.yaml",
    wrong="a hand-written cross entropy takes log(0) once the model is sure: NaN from one step on",
)
def nan_loss(out: Path) -> None:
    torch.manual_seed(7)
    x, y = blobs(2000, seed=1, classes=2, spread=1.6)
    hparams = {"lr": 0.003, "optimizer": "Adam", "batch_size": 32, "epochs": 12, "hidden": 32}
    write_yaml(out / "hparams.yaml", hparams)
    model = mlp(20, 32, 1)
    opt = torch.optim.Adam(model.parameters(), lr=hparams["lr"])

    def loss_of(output: Tensor, target: Tensor) -> Tensor:
        # Fault: sigmoid and log apart: p rounds to 1, log(1 - p) is -inf, and 0 * -inf is NaN.
        p, t = torch.sigmoid(output[:, 0]), target.float()
        return -(t * p.log() + (1 - t) * (1 - p).log()).mean()

    with event_log(out) as log:
        for s in train(model, opt, loss_of, x, y, epochs=12, batch=32):
            log.add_scalar("loss", s.loss, s.number)
            if s.number % 5 == 0:
                log.add_scalar("grad_norm", s.grad_norm, s.number)


@story(
    "nan-weights-batchnorm",
    "nan-weights",
    format="JSON lines, config.json, two .pt",
    wrong="the curve is clean, but a damaged batch has put NaN into the running statistics of a BatchNorm",
)
def nan_weights(out: Path) -> None:
    torch.manual_seed(18)
    x, y = digit_images(2560, seed=1)
    config = {"optimizer": "AdamW", "lr": 4e-3, "weight_decay": 0.01, "batch_size": 64, "epochs": 12}
    write_json(out / "config.json", config)
    model = small_cnn()
    opt = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=0.01)
    # Fault: one image is Inf. The step is skipped, but BatchNorm has already averaged it in.
    poisoned = x.clone()
    poisoned[7] = math.inf
    with json_lines(out / "train_log.jsonl") as write:
        for s in guarded_steps(model, opt, x, poisoned, y, epochs=12):
            if s.number % 10 == 9:
                write({"step": s.number + 1, "epoch": s.epoch, "loss": s.loss, "lr": rate(opt)})
            if s.ends_epoch and s.epoch in (5, 11):
                save(out / f"checkpoint_epoch{s.epoch + 1:02d}.pt", model, epoch=s.epoch + 1)


def guarded_steps(
    model: nn.Module, opt: torch.optim.Optimizer, x: Tensor, last_x: Tensor, y: Tensor, epochs: int
) -> Iterator[Step]:
    """A loop that skips steps with a loss that is not finite; the last epoch reads ``last_x``."""
    gen, number = random(3), 0
    for epoch in range(epochs):
        picks = list(shuffled(len(x), 64, gen))
        for i, pick in enumerate(picks):
            source = last_x if epoch == epochs - 1 else x
            loss = F.cross_entropy(model(source[pick]), y[pick])
            if torch.isfinite(loss):
                opt.zero_grad()
                loss.backward()
                opt.step()
            CLOCK.tick(0.02)
            yield Step(number, epoch, loss.item(), 0.0, i == len(picks) - 1, loss.item(), 0.0)
            number += 1


@story(
    "mixed-precision-loss-scale",
    "mixed-precision-instability",
    format="JSON lines, config.json",
    wrong="an epsilon that is zero in fp16 makes gradients NaN on padded rows: GradScaler backs off and off",
)
def mixed_precision(out: Path) -> None:
    torch.manual_seed(20)
    x, y = flat_digits(4000, seed=1, noise=0.4)
    config = {"optimizer": "AdamW", "lr": 1e-3, "batch_size": 50, "epochs": 10, "precision": "fp16"}
    write_json(out / "config.json", config | {"grad_scaler_init_scale": 65536.0})
    x[torch.randperm(len(x), generator=random(2))[:10]] = 0.0
    body, head = nn.Linear(144, 48, bias=False), nn.Linear(49, 10)
    opt = torch.optim.AdamW([*body.parameters(), *head.parameters()], lr=1e-3)
    scaler = torch.amp.GradScaler("cpu", growth_interval=200)
    gen = random(4)
    skipped = 0
    with json_lines(out / "train.jsonl") as write:
        for step, pick in enumerate(itertools.chain(*(shuffled(4000, 50, gen) for _ in range(10)))):
            half = x[pick].half()
            hidden = F.linear(half, body.weight.half()).tanh()
            # Fault: 1e-8 rounds to 0 in fp16, and the slope of sqrt at 0 is infinite.
            length = (hidden.square().sum(1, keepdim=True) / 48 + 1e-8).sqrt()
            output = F.linear(torch.cat([hidden, length], 1), head.weight.half(), head.bias.half())
            loss = F.cross_entropy(output.float(), y[pick])
            opt.zero_grad()
            scaler.scale(loss).backward()
            before = scaler.get_scale()
            scaler.step(opt)
            scaler.update()
            skipped += scaler.get_scale() < before
            CLOCK.tick(0.02)
            if step % 4 == 0:
                row = {"step": step, "train/loss": loss.item(), "train/loss_scale": scaler.get_scale()}
                write(row | {"train/skipped_steps": skipped, "lr": rate(opt)})


# ---------------------------------------------------------------------------------------------
# Gradients


@story(
    "vanishing-gradients-sigmoid",
    "vanishing-gradients",
    format="TensorBoard events (torch SummaryWriter), .pt",
    wrong="ten sigmoid layers: the first receive gradients many orders below the last and nothing is learned",
)
def vanishing_gradients(out: Path) -> None:
    torch.manual_seed(8)
    x, y = flat_digits(2000, seed=1)
    # Fault: saturating activations in depth, no normalisation, no residuals.
    model = nn.Module()
    model.layers = nn.ModuleList(nn.Linear(a, b) for a, b in [(144, 32)] + [(32, 32)] * 8 + [(32, 10)])

    def forward(h: Tensor) -> Tensor:
        for layer in model.layers[:-1]:
            h = torch.sigmoid(layer(h))
        return model.layers[-1](h)

    model.forward = forward
    opt = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    with event_log(out) as log:
        for s in train(model, opt, nn.CrossEntropyLoss(), x, y, epochs=16, batch=50):
            if s.number % 10:
                continue
            log.add_scalar("train/loss", s.loss, s.number)
            log.add_scalar("train/lr", rate(opt), s.number)
            for name, p in model.named_parameters():
                if p.dim() > 1:
                    log.add_scalar(f"grad_norm/{name}", p.grad.norm(), s.number)
    save(out / "last.pt", model, epoch=16)


@story(
    "exploding-gradients-recurrent",
    "exploding-gradients",
    "loss-divergence",
    "lr-too-high",
    format="CSV written by hand, config.yaml",
    wrong="a recurrence of 100 steps without clipping: gradient norms rise by five orders and wreck the model",
)
def exploding_gradients(out: Path) -> None:
    torch.manual_seed(21)
    x, y = flat_digits(3000, seed=1)
    config = {"model": "recurrent", "depth": 100, "optimizer": "Adam", "lr": 0.1, "batch_size": 60}
    write_yaml(out / "config.yaml", config | {"epochs": 6, "grad_clip": None})
    model = Recurrent(100)
    # Fault: no clipping and a high learning rate with a hundred products of one matrix.
    opt = torch.optim.Adam(model.parameters(), lr=0.1)
    with (out / "log.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["step", "train_loss", "grad_norm", "lr"])
        for s in train(model, opt, nn.CrossEntropyLoss(), x, y, epochs=6, batch=60):
            rows.writerow([s.number, s.loss, s.grad_norm, rate(opt)])


class Recurrent(nn.Module):
    """One tanh layer applied to itself ``depth`` times, reminded of its input at every turn."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.depth = depth
        self.enter, self.turn, self.leave = nn.Linear(144, 32), nn.Linear(32, 32), nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        seen = self.enter(x)
        state = torch.tanh(seen)
        for _ in range(self.depth):
            state = torch.tanh(self.turn(state) + 0.1 * seen)
        return self.leave(state)


@story(
    "exploding-gradients-irnn",
    "exploding-gradients",
    format="TensorBoard events (torch SummaryWriter), hparams.yaml",
    wrong="recurrent weights start 12 % above the identity, over 60 steps: norms above 1,000 all the way",
)
def exploding_gradients_irnn(out: Path) -> None:
    torch.manual_seed(21)
    gen, length, n = random(1), 60, 1600
    marks = torch.zeros(n, length, 1)
    for row in marks:
        row[torch.randperm(length, generator=gen)[:2]] = 1
    values = torch.rand(n, length, 1, generator=gen)
    x, y = torch.cat([values, marks], 2), (values * marks).sum(1)
    hparams = {"optimizer": "Adam", "lr": 1e-4, "batch_size": 32, "epochs": 8, "hidden": 32}
    write_yaml(out / "hparams.yaml", hparams | {"nonlinearity": "relu", "seq_len": length})
    model = Adder()
    opt = torch.optim.Adam(model.parameters(), lr=1e-4)
    with event_log(out) as log:
        for s in train(model, opt, nn.MSELoss(), x, y, epochs=8, batch=32):
            log.add_scalar("loss/train", s.loss, s.number)
            log.add_scalar("grad_norm", s.grad_norm, s.number)


class Adder(nn.Module):
    """A ReLU recurrent network that reads [n, length, 2] and answers [n, 1]."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.RNN(2, 32, batch_first=True, nonlinearity="relu")
        self.head = nn.Linear(32, 1)
        # Fault: 1.12 to the power of 60 is 900.
        nn.init.eye_(self.rnn.weight_hh_l0)
        self.rnn.weight_hh_l0.data *= 1.12

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(x)[0][:, -1])


# ---------------------------------------------------------------------------------------------
# Layers


@story(
    "dead-relu-high-lr",
    "dead-relu",
    format="TensorBoard events (torch SummaryWriter), .pt, hparams.yaml",
    wrong="a learning rate far too high in the first steps drives the ReLUs of deep layers below zero for good",
)
def dead_relu(out: Path) -> None:
    torch.manual_seed(24)
    x, y = flat_digits(2000, seed=1)
    hparams = {
        "optimizer": "Adam",
        "lr": 0.1,
        "lr_after": 0.002,
        "batch_size": 50,
        "epochs": 12,
        "activation": "relu",
    }
    write_yaml(out / "hparams.yaml", hparams)
    model = mlp(144, 32, 32, 32, 10)
    # Fault: Adam starts at 0.1, without warm-up; by the time it is cut the units are gone.
    opt = torch.optim.Adam(model.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.MultiStepLR(opt, [60], gamma=0.02)
    share: dict[str, float] = {}

    def watch(name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        def hook(_: nn.Module, __: Any, output: Tensor) -> None:
            share[name] = float((output == 0).float().mean())

        return hook

    for i, name in enumerate(("relu1", "relu2", "relu3")):
        model[2 * i + 1].register_forward_hook(watch(name))
    with event_log(out) as log:
        for s in train(model, opt, nn.CrossEntropyLoss(), x, y, epochs=12, batch=50, scheduler=schedule):
            if s.number % 5 == 0:
                log.add_scalar("train/loss", s.loss, s.number)
                log.add_scalar("train/lr", rate(opt), s.number)
                for name, value in share.items():
                    log.add_scalar(f"activations/{name}/zero_fraction", value, s.number)
    save(out / "last.pt", model, epoch=12)


@story(
    "untrained-layer-forgotten",
    "untrained-layer",
    format="JSON lines, config.json, two .pt with optimizer state",
    wrong="one block was left out of the optimizer's parameters: its weights never change",
)
def untrained_layer(out: Path) -> None:
    torch.manual_seed(23)
    x, y = flat_digits(5000, seed=1, noise=0.35)
    vx, vy = flat_digits(600, seed=2, noise=0.35)
    config = {"optimizer": "AdamW", "lr": 2e-3, "weight_decay": 0.01, "batch_size": 60, "epochs": 12}
    write_json(out / "config.json", config)
    parts = {"backbone": nn.Linear(144, 20), "neck": nn.Linear(20, 20), "head": nn.Linear(20, 10)}
    model = nn.Sequential()
    for name, part in parts.items():
        model.add_module(name, part)
        if name != "head":
            model.add_module(f"{name}_act", nn.ReLU())
    # Fault: the neck, added later, is missing here.
    trained = [*model.backbone.parameters(), *model.head.parameters()]
    opt = torch.optim.AdamW(trained, lr=2e-3, weight_decay=0.01)
    loss_of = nn.CrossEntropyLoss()
    with json_lines(out / "log.jsonl") as write:
        for s in train(model, opt, loss_of, x, y, epochs=12, batch=60):
            if s.ends_epoch:
                loss, right = evaluate(model, loss_of, vx, vy)
                row = {"epoch": s.epoch + 1, "train_loss": s.mean_loss, "val_loss": loss, "val_acc": right}
                write(row | {"lr": rate(opt)})
                if s.epoch in (0, 11):
                    state = {"optimizer_state_dict": opt.state_dict(), "epoch": s.epoch + 1}
                    save(out / f"epoch_{s.epoch + 1:02d}.pt", model, **state)


@story(
    "exploding-weights-no-decay",
    "exploding-weights",
    format="TensorBoard events (torch SummaryWriter), five .safetensors, config.json",
    wrong="a high learning rate without weight decay before LayerNorm: the loss is fine, the norms grow and grow",
)
def exploding_weights(out: Path) -> None:
    from safetensors.torch import save_file

    torch.manual_seed(24)
    x, y = flat_digits(4000, seed=1, noise=0.35)
    # Fault: LayerNorm hides the scale of the weights from the loss, and nothing holds them back.
    config = {"optimizer": "Adam", "lr": 0.1, "weight_decay": 0.0, "batch_size": 50, "epochs": 16}
    write_json(out / "config.json", config)
    model = nn.Sequential(
        nn.Linear(144, 32),
        nn.LayerNorm(32, elementwise_affine=False),
        nn.ReLU(),
        nn.Linear(32, 32),
        nn.LayerNorm(32, elementwise_affine=False),
        nn.ReLU(),
        nn.Linear(32, 10),
    )
    opt = torch.optim.Adam(model.parameters(), lr=0.1)
    with event_log(out) as log:
        for s in train(model, opt, nn.CrossEntropyLoss(), x, y, epochs=16, batch=50):
            if s.number % 10 == 0:
                log.add_scalar("loss/train", s.loss, s.number)
                log.add_scalar("lr", rate(opt), s.number)
            if s.number in (0, 99, 319, 639, 1279):
                path = out / f"step_{s.number + 1:05d}.safetensors"
                save_file(model.state_dict(), path, metadata={"step": str(s.number + 1)})


@story(
    "bad-initialization-std-one",
    "bad-initialization",
    format="JSON lines, config.json, init.pt and last.pt",
    wrong="all weights drawn with standard deviation 1: the first loss is two orders above chance",
)
def bad_initialization(out: Path) -> None:
    torch.manual_seed(25)
    x, y = flat_digits(3000, seed=1, noise=0.4)
    config = {"optimizer": "Adam", "lr": 3e-3, "batch_size": 50, "epochs": 12, "init": "normal"}
    write_json(out / "config.json", config)
    model = mlp(144, 40, 40, 10)
    for layer in model:
        if isinstance(layer, nn.Linear):
            # Fault: the standard deviation should be about sqrt(2 / fan-in), 0.1 here.
            nn.init.normal_(layer.weight, std=1.0)
    save(out / "init.pt", model, step=0)
    opt = torch.optim.Adam(model.parameters(), lr=3e-3)
    with json_lines(out / "log.jsonl") as write:
        for s in train(model, opt, nn.CrossEntropyLoss(), x, y, epochs=12, batch=50):
            if s.number % 5 == 0:
                write({"step": s.number, "loss": s.loss, "grad_norm": s.grad_norm, "lr": rate(opt)})
    save(out / "last.pt", model, step=s.number + 1)


@story(
    "saturated-activations-raw-pixels",
    "saturated-activations",
    "loss-not-decreasing",
    format="TensorBoard events (torch SummaryWriter, with activation histograms), .pt, hparams.yaml",
    wrong="pixels of 0 to 255 go into a tanh network as they are: nearly all hidden units sit at -1 or 1",
)
def saturated_activations(out: Path) -> None:
    torch.manual_seed(29)
    x, y = flat_digits(3000, seed=1)
    # Fault: no normalisation of the input.
    x = (x * 50 + 100).clamp(0, 255).round()
    hparams = {"optimizer": "SGD", "lr": 0.02, "momentum": 0.9, "batch_size": 60, "epochs": 10}
    write_yaml(out / "hparams.yaml", hparams | {"activation": "tanh"})
    model = mlp(144, 40, 40, 10, act=nn.Tanh)
    opt = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    seen: dict[str, Tensor] = {}
    for name, layer in (("tanh1", model[1]), ("tanh2", model[3])):
        layer.register_forward_hook(lambda _, __, output, name=name: seen.update({name: output.detach()}))
    with event_log(out) as log:
        for s in train(model, opt, nn.CrossEntropyLoss(), x, y, epochs=10, batch=60):
            if s.number % 5 == 0:
                log.add_scalar("train/loss", s.loss, s.number)
                for name, output in seen.items():
                    share = (output.abs() > 0.97).float().mean()
                    log.add_scalar(f"activations/{name}/saturated_fraction", share, s.number)
            if s.number % 100 == 0:
                for name, output in seen.items():
                    log.add_histogram(f"activations/{name}", output, s.number)
    save(out / "last.pt", model, epoch=10)


# ---------------------------------------------------------------------------------------------
# Data and logs


@story(
    "class-imbalance-majority",
    "class-imbalance",
    format="Lightning CSVLogger, hparams.yaml, .ckpt",
    wrong="97 of 100 examples are of one class: accuracy 97 %, recall and F1 of the other stay near zero",
)
def class_imbalance(out: Path) -> None:
    torch.manual_seed(26)

    def skewed(n: int, seed: int) -> tuple[Tensor, Tensor]:
        # Fault: 3 % positives, little signal, an unweighted loss.
        gen = random(seed)
        y = (torch.rand(n, generator=gen) < 0.03).long()
        x = torch.randn(n, 12, generator=gen)
        x[:, :3] += 0.5 * y[:, None]
        return x, y

    def measures(output: Tensor, y: Tensor) -> dict[str, Tensor]:
        said = output.argmax(-1)
        hits, claimed, real = ((said == 1) & (y == 1)).sum(), (said == 1).sum(), (y == 1).sum()
        found = {"val_acc": (said == y).float().mean(), "val_recall": hits / real}
        return found | {"val_f1": 2 * hits / (claimed + real)}

    hparams = {"lr": 1e-3, "weight_decay": 0.01, "batch_size": 128, "hidden": 16, "optimizer": "AdamW"}
    net = mlp(12, 16, 2)
    opt = torch.optim.AdamW(net.parameters(), lr=1e-3, weight_decay=0.01)
    data = skewed(6000, seed=1), skewed(2000, seed=2)
    fit_lightning(out, hparams, net, opt, F.cross_entropy, *data, epochs=20, measures=measures)


@story(
    "unshuffled-data-sorted",
    "unshuffled-data",
    format="TensorBoard events (torch SummaryWriter), hparams.yaml",
    wrong="the data is sorted by class and read in order: the step loss repeats with every epoch",
)
def unshuffled_data(out: Path) -> None:
    torch.manual_seed(27)
    x, y = flat_digits(2000, seed=1, noise=0.4)
    hparams = {"lr": 0.01, "momentum": 0.0, "optimizer": "SGD", "batch_size": 50, "epochs": 25}
    write_yaml(out / "hparams.yaml", hparams | {"shuffle": False})
    # Fault: sorted files and no shuffling.
    order = y.argsort(stable=True)
    model = mlp(144, 32, 10)
    opt = torch.optim.SGD(model.parameters(), lr=0.01)
    with event_log(out) as log:
        loss_of = nn.CrossEntropyLoss()
        for s in train(model, opt, loss_of, x[order], y[order], epochs=25, batch=50, shuffle=False):
            log.add_scalar("loss", s.loss, s.number)
            if s.ends_epoch:
                log.add_scalar("epoch", s.epoch, s.number)


@story(
    "data-outliers-bad-shard",
    "data-outliers",
    "loss-spikes",
    format="JSON lines, config.json",
    wrong="one damaged shard, read at the same place of every epoch: the loss jumps there each time",
)
def data_outliers(out: Path) -> None:
    torch.manual_seed(30)
    x, y = flat_digits(2400, seed=1)
    # Fault: the rows of batch 31 lost their normalisation, and the order of batches is fixed.
    x[31 * 40 : 32 * 40] = 6 * x[31 * 40 : 32 * 40].flip(1) + 4
    config = {"optimizer": "SGD", "lr": 0.02, "momentum": 0.9, "batch_size": 40, "epochs": 14}
    write_json(out / "config.json", config | {"grad_clip": 1.0, "shuffle": False})
    model = mlp(144, 32, 10)
    opt = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    with json_lines(out / "train.jsonl") as write:
        loss_of = nn.CrossEntropyLoss()
        for s in train(model, opt, loss_of, x, y, epochs=14, batch=40, shuffle=False, clip=1.0):
            write({"step": s.number, "epoch": s.epoch, "loss": s.loss, "grad_norm": s.grad_norm})


@story(
    "log-damaged-truncated",
    "log-damaged",
    format="TensorBoard events, cut off",
    wrong="the disk was full: the event file of a good run ends in the middle of a record",
)
def log_damaged(out: Path) -> None:
    torch.manual_seed(28)
    x, y = teacher_regression(3000, seed=1, noise=0.3)
    vx, vy = teacher_regression(600, seed=2, noise=0.3)
    model = mlp(16, 24, 1, act=nn.Tanh)
    opt = torch.optim.Adam(model.parameters(), lr=5e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(opt, 60 * 24)
    loss_of = nn.MSELoss()
    with event_log(out) as log:
        for s in train(model, opt, loss_of, x, y, epochs=24, batch=50, scheduler=schedule):
            if s.number % 5 == 0:
                log.add_scalar("Loss/train", s.loss, s.number)
            if s.ends_epoch:
                log.add_scalar("Loss/val", evaluate(model, loss_of, vx, vy)[0], s.number)
    # Fault: the last stretch never reached the disk.
    content = (out / EVENT_FILE).read_bytes()
    (out / EVENT_FILE).write_bytes(content[: int(len(content) * 0.82) + 5])


# ---------------------------------------------------------------------------------------------
# The command


def make(chosen: Story) -> None:
    """Make one story's folder anew."""
    folder = ROOT / chosen.folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    CLOCK.now = 1_700_000_000.0
    # From inside the folder, because Lightning writes the paths it was given into its checkpoints.
    with mock.patch("time.time", CLOCK), chdir(folder):
        chosen.make(Path())


def size_of(folder: Path) -> int:
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())


def write_expected() -> None:
    lines = [
        "# Written by benchmarks/make_sample_logs.py: the diagnosis that is right at rank 1 (any of several).",
        "# healthy: nothing of warning or worse holds.",
    ]
    for s in STORIES.values():
        lines.append(f"{s.folder}: {'[' + ', '.join(s.expect) + ']' if s.expect else 'healthy'}")
    EXPECTED.write_text("\n".join(lines) + "\n")


INTRODUCTION = """\
# Sample logs

Real trainings of small models on generated data, one known story a folder, made by
`benchmarks/make_sample_logs.py` with fixed seeds on one thread. Where something is wrong, the fault is
in the training code or in its data, as the script's comments starting with "Fault:" show; no curve is
drawn by hand. The logs and checkpoints are written by the frameworks' own writers, with tags as people use
them; only the wall times come from a simulated clock, so that files can be reproduced.

    python benchmarks/make_sample_logs.py                 # all of them
    python benchmarks/make_sample_logs.py --only NAME     # one folder

`tests/sample_stories.yaml` holds the same expectations for the tests: where several ids are listed each is right.

| folder | format | what is wrong | expected |
|---|---|---|---|
"""


def write_readme() -> None:
    rows = []
    for s in STORIES.values():
        expected = " or ".join(f"`{e}`" for e in s.expect) or "healthy"
        rows.append(f"| `{s.folder}` | {s.format} | {s.wrong} | {expected} |\n")
    (ROOT / "README.md").write_text(INTRODUCTION + "".join(rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only", action="append", choices=sorted(STORIES), metavar="STORY")
    chosen = parser.parse_args().only or list(STORIES)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    ROOT.mkdir(exist_ok=True)
    for folder in chosen:
        began = time.perf_counter()
        make(STORIES[folder])
        took, size = time.perf_counter() - began, size_of(ROOT / folder) / 1000
        print(f"{folder}: {took:.1f} s, {size:.0f} kB", file=sys.stderr)
    write_expected()
    write_readme()
    print(f"{len(chosen)} of {len(STORIES)} stories, {size_of(ROOT) / MEGABYTE:.2f} MB", file=sys.stderr)


if __name__ == "__main__":
    main()
