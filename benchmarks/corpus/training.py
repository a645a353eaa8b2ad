"""One training loop for every run, with the places where a fault can be put in."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.corpus.programs import Program
from benchmarks.make_sample_logs import accuracy, random

HELD_OUT = 500
AVERAGED = ("train_loss", "train_acc", "grad_norm")  # over an epoch


def constant(done: float) -> float:
    return 1.0


def cosine(done: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * done))


def step_decay(done: float) -> float:
    return 0.1 ** ((done > 0.6) + (done > 0.85))


def warmup_cosine(done: float) -> float:
    return done / 0.1 if done < 0.1 else cosine((done - 0.1) / 0.9)


def warm_restarts(done: float) -> float:
    """Three cycles, each twice as long as the one before."""
    ends = (0.0, 1 / 7, 3 / 7, 1.0)
    begun, ended = next(((a, b) for a, b in itertools.pairwise(ends) if done < b), (0.0, 1.0))
    return cosine((done - begun) / (ended - begun))


def linear(done: float) -> float:
    return 1.0 - 0.98 * done


def exponential(done: float) -> float:
    return 0.02**done


def one_cycle(done: float) -> float:
    return 0.05 + 0.95 * done / 0.3 if done < 0.3 else max(1e-3, cosine((done - 0.3) / 0.7))


SCHEDULES = {
    f.__name__: f
    for f in (constant, cosine, step_decay, warmup_cosine, linear, exponential, one_cycle, warm_restarts)
}


@dataclass
class Recipe:
    """A training about to be done. The defaults are ordinary; faults and traps change fields.

    ``rate`` is the learning rate's factor at the done share of the run; ``dataset`` changes training and
    held-out data before, ``feed`` each batch; ``watch`` asks for layers, zeros, saturation or checkpoints.
    """

    program: Program
    seed: int
    optimizer: str = "adamw"
    rate: Callable[[float], float] = cosine
    lr_factor: float = 1.0
    n: int = 0
    held_out: int = HELD_OUT  # size of the set whose loss is logged
    epochs: int = 0
    batch: int = 0
    width: float = 1.0
    dropout: float = 0.0
    weight_decay: float = 0.01
    momentum: float = 0.9
    clip: float = math.inf
    shuffle: bool = True
    act: type[nn.Module] = nn.ReLU
    model: Callable[[], nn.Module] | None = None
    init: Callable[[nn.Module], None] = lambda model: None
    dataset: Callable[..., tuple[Tensor, Tensor, Tensor, Tensor]] = lambda *data: data
    other_held_out: bool = False  # the held-out data that is logged is not what the model is meant for
    feed: Callable[[int, int, Tensor, Tensor], tuple[Tensor, Tensor]] = lambda step, steps, x, y: (x, y)
    train_loss: Callable[[Tensor, Tensor], Tensor] | None = None
    after_step: Callable[[int, int, nn.Module], None] = lambda step, steps, model: None
    leave_out: str = ""  # parameters whose name starts so are not given to the optimizer
    scale_growth: int = 0  # steps between doublings of the fp16 loss scale; 0: no mixed precision
    watch: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.n = self.n or self.program.n
        self.epochs = self.epochs or self.program.epochs
        self.batch = self.batch or self.program.batch

    @property
    def lr(self) -> float:
        rates = self.program.rates
        return rates["adamw" if self.optimizer == "adam" else self.optimizer] * self.lr_factor


@dataclass
class Record:
    """What happened: a row per optimizer step, one per epoch, checkpoints, and the truth labels need.

    ``truth`` holds the loss on a large and right held-out set before training and after every epoch;
    ``state`` what is true of the model itself (:func:`probe`), whatever was logged of it.
    """

    steps: list[dict[str, float]]
    epochs: list[dict[str, float]]
    truth: list[float]
    checkpoints: list[dict[str, Any]]
    hparams: dict[str, Any]
    good: float
    state: dict[str, float] = field(default_factory=dict)
    twin: float = math.nan  # how much of the way the same run with another learning rate left

    @property
    def losses(self) -> np.ndarray:
        return np.array([row["train_loss"] for row in self.steps])


def make_optimizer(r: Recipe, model: nn.Module) -> torch.optim.Optimizer:
    trained = [
        p for name, p in model.named_parameters() if not r.leave_out or not name.startswith(r.leave_out)
    ]
    if r.optimizer == "adam":
        return torch.optim.Adam(trained, lr=r.lr, foreach=True)
    if r.optimizer == "adamw":
        return torch.optim.AdamW(trained, lr=r.lr, weight_decay=r.weight_decay, foreach=True)
    momentum = r.momentum if r.optimizer == "momentum" else 0.0
    return torch.optim.SGD(trained, lr=r.lr, momentum=momentum, weight_decay=r.weight_decay / 10)


def watch_layers(model: nn.Module, what: set[str]) -> dict[str, float]:
    """A dictionary that every forward pass fills with shares of zero or saturated activations."""
    seen: dict[str, float] = {}

    def look(name: str, measure: str, share: Callable[[Tensor], Tensor]) -> Callable[..., None]:
        def hook(_: nn.Module, __: Any, output: Tensor) -> None:
            seen[f"activations/{name}/{measure}"] = share(output).float().mean().item()

        return hook

    for name, layer in model.named_modules():
        if "zeros" in what and isinstance(layer, nn.ReLU):
            layer.register_forward_hook(look(name, "zero_fraction", lambda o: o == 0))
        if "saturation" in what and isinstance(layer, (nn.Tanh, nn.Sigmoid)):
            layer.register_forward_hook(look(name, "saturated_fraction", lambda o: o.abs() > 0.97))
    return seen


@torch.no_grad()
def measure(r: Recipe, model: nn.Module, x: Tensor, y: Tensor) -> dict[str, float]:
    """Loss and, for classes, accuracy, recall and F1 of class 1 where there are two."""
    model.eval()
    output = model(x)
    row = {"val_loss": r.program.loss(output, y).item()}
    if r.program.labelled:
        row["val_acc"] = accuracy(output, y)
    if y.dim() == 1 and not y.is_floating_point() and int(y.max()) == 1:
        said = output.argmax(-1)
        hits = float(((said == 1) & (y == 1)).sum())
        row["val_recall"] = hits / max(1.0, float((y == 1).sum()))
        row["val_f1"] = 2 * hits / max(1.0, float((said == 1).sum() + (y == 1).sum()))
    return row


@torch.no_grad()
def probe(r: Recipe, model: nn.Module, began: Mapping[str, Tensor], x: Tensor, y: Tensor) -> dict[str, float]:
    """What is true of the trained model on held-out inputs, the worst layer of each.

    ``dead``: share of ReLU units or channels that no input activates; ``saturated``: share of tanh and
    sigmoid outputs at a limit; ``growth``: norm of a weight matrix against its start; ``rank``: effective
    rank (exponential of the entropy of the squared singular values) against the possible one; ``recall``
    of class 1 where there are two; ``ordinary_start``: the loss of an ordinary network before training;
    ``scale``: root mean square of a matrix against one over the root of its inputs; ``broken``: whether a
    parameter is not finite.
    """
    state = {"dead": 0.0, "saturated": 0.0, "growth": 0.0, "scale": 0.0, "rank": 1.0}
    state["broken"] = float(any(not p.isfinite().all() for p in model.parameters()))

    def look(layer: nn.Module, _: Any, output: Tensor) -> None:
        if isinstance(layer, nn.ReLU):
            units = output.transpose(0, 1).flatten(1)
            state["dead"] = max(state["dead"], float((units.amax(1) <= 0).float().mean()))
        else:
            limit = output.abs() if isinstance(layer, nn.Tanh) else (2 * output - 1).abs()
            state["saturated"] = max(state["saturated"], float((limit > 0.97).float().mean()))

    looked = [m for m in model.modules() if isinstance(m, (nn.ReLU, nn.Tanh, nn.Sigmoid))]
    hooks = [m.register_forward_hook(look) for m in looked]
    state["recall"] = measure(r, model, x, y).get("val_recall", math.nan)
    for hook in hooks:
        hook.remove()
    for name, p in model.named_parameters():
        if p.dim() > 1 and bool(p.isfinite().all()):
            state["growth"] = max(state["growth"], float(p.norm() / (began[name].norm() + 1e-12)))
            if "enter" not in name:  # embeddings have a scale of their own
                state["scale"] = max(state["scale"], float(p.norm() / p.shape[0] ** 0.5))
            if min(p.shape[0], p.shape[1:].numel()) >= 8:
                power = torch.linalg.svdvals(p.flatten(1)).square()
                share = (power / power.sum()).clamp(1e-12)
                state["rank"] = min(state["rank"], float((-(share * share.log()).sum()).exp() / len(power)))
    state["ordinary_start"] = measure(r, r.program.model(1.0, 0.0, nn.ReLU), x, y)["val_loss"]
    return state


def half_precision(model: nn.Module, scale: float) -> bool:
    """Round the gradients as fp16 with this loss scale would; false where they overflow."""
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    halves = [(g * scale).half() for g in grads]
    if not all(bool(h.isfinite().all()) for h in halves):
        return False
    for g, h in zip(grads, halves, strict=True):
        g.copy_(h.float() / scale)
    return True


def snapshot(model: nn.Module, opt: torch.optim.Optimizer, step: int) -> dict[str, Any]:
    state = {name: value.clone() for name, value in model.state_dict().items()}
    held = {
        k: {n: v.clone() if isinstance(v, Tensor) else v for n, v in s.items()}
        for k, s in opt.state_dict()["state"].items()
    }
    groups = {"state": held, "param_groups": opt.state_dict()["param_groups"]}
    return {"model_state_dict": state, "optimizer_state_dict": groups, "step": step}


def fit(r: Recipe) -> Record:
    torch.manual_seed(r.seed)
    clean = r.program.data(HELD_OUT, 900 + r.seed)
    x, y, vx, vy = r.dataset(*r.program.data(r.n, 100 + r.seed), *clean)
    if not r.other_held_out:
        clean = vx, vy
    vx, vy = vx[: r.held_out], vy[: r.held_out]
    model = r.model() if r.model else r.program.model(r.width, r.dropout, r.act)
    r.init(model)
    opt, seen, gen = make_optimizer(r, model), watch_layers(model, r.watch), random(r.seed)
    loss_of = r.train_loss or r.program.loss
    classes = r.program.labelled
    per_epoch = math.ceil(len(x) / r.batch)
    total = per_epoch * r.epochs
    record = Record([], [], [measure(r, model, *clean)["val_loss"]], [], hyperparameters(r), r.program.good)
    began = {name: p.detach().clone() for name, p in model.named_parameters()}
    keep = {0, total // 3, 2 * total // 3, total - 1} if "checkpoints" in r.watch else set()
    scale, calm = 2.0**14, 0
    for epoch in range(r.epochs):
        order = torch.randperm(len(x), generator=gen) if r.shuffle else torch.arange(len(x))
        for i, pick in enumerate(order.split(r.batch)):
            step = epoch * per_epoch + i
            if step in keep:
                record.checkpoints.append(snapshot(model, opt, step))
            opt.param_groups[0]["lr"] = lr = r.lr * r.rate(step / total)
            bx, by = r.feed(step, total, x[pick], y[pick])
            model.train()
            output = model(bx)
            loss = loss_of(output, by)
            opt.zero_grad()
            loss.backward()
            row = {"step": step, "epoch": epoch, "train_loss": loss.item(), "lr": lr}
            if classes:
                row["train_acc"] = accuracy(output.detach(), by)
            taken = True
            if r.scale_growth:
                row["loss_scale"] = scale
                taken, calm = half_precision(model, scale), calm + 1
                if not taken or calm >= r.scale_growth:
                    scale, calm = scale * (2.0 if taken else 0.5), 0
            row["grad_norm"] = float(nn.utils.clip_grad_norm_(model.parameters(), r.clip))
            if "layers" in r.watch:
                row |= layer_norms(model)
            if taken:
                opt.step()
            r.after_step(step, total, model)
            record.steps.append(row | seen)
        last = record.steps[-per_epoch:]
        means = {k: float(np.mean([row[k] for row in last])) for k in AVERAGED if k in last[0]}
        record.epochs.append(record.steps[-1] | means | measure(r, model, vx, vy))
        record.truth.append(measure(r, model, *clean)["val_loss"])
    if keep:
        record.checkpoints.append(snapshot(model, opt, total))
    record.state = probe(r, model, began, *clean)
    return record


def layer_norms(model: nn.Module) -> dict[str, float]:
    weights = ((n.removesuffix(".weight"), p.grad) for n, p in model.named_parameters() if p.dim() > 1)
    return {f"grad_norm/{name}": float(grad.norm()) for name, grad in weights if grad is not None}


def hyperparameters(r: Recipe) -> dict[str, Any]:
    found = {"optimizer": r.optimizer, "lr": r.lr, "batch_size": r.batch, "epochs": r.epochs}
    found |= {"weight_decay": r.weight_decay, "dropout": r.dropout}
    if r.optimizer == "momentum":
        found["momentum"] = r.momentum
    if math.isfinite(r.clip):
        found["gradient_clip_val"] = r.clip
    if r.scale_growth:
        found["precision"] = "16-mixed"
    return found


def smooth(values: np.ndarray, share: float = 0.05) -> np.ndarray:
    """Running medians over a share of the curve, at least three points."""
    half = max(1, int(len(values) * share / 2))
    return np.array([np.median(values[max(0, i - half) : i + half + 1]) for i in range(len(values))])
