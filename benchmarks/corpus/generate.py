"""Choosing, training, labelling and writing the runs of the corpus."""

from __future__ import annotations

import json
import shutil
import sys
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch

from benchmarks.corpus.faults import FAULTS, left, not_finite, overfits, regained, still_falling
from benchmarks.corpus.programs import PROGRAMS, Program
from benchmarks.corpus.training import SCHEDULES, Recipe, Record, fit
from benchmarks.corpus.traps import TRAPS, WITHOUT_PROGRAM
from benchmarks.corpus.writers import FORMATS, chosen_rows, write, write_checkpoints, write_hparams

PARTS = ("tune", "report")
COLUMNS = {"grads": "grad_norm", "layers": "grad_norm/", "scale": "loss_scale", "lr": "lr"}


@dataclass(frozen=True)
class Label:
    """One line of labels.jsonl; see the package's rules."""

    run: str
    program: str
    part: str
    fault: str  # "healthy" for runs without one
    strength: str  # mild or strong; the trap's name of a healthy run
    must: tuple[str, ...]
    may: tuple[str, ...] = ()
    made: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    name: str
    program: str
    part: str
    fault: str
    strength: str
    seed: int


def plans(seeds: int) -> Iterator[Plan]:
    """Every fault at both strengths and every trap, on one fitting program of each part per seed."""
    for seed in range(seeds):
        for i, fault in enumerate(FAULTS.values()):
            for j, strength in enumerate(("mild", "strong")):
                for program in rotated([p for p in PROGRAMS.values() if fault.fits(p)], i + j + seed):
                    name = f"{fault.name}-{strength}-{program.name}-{seed}"
                    yield Plan(name, program.name, program.part, fault.name, strength, seed)
        for i, trap in enumerate(TRAPS.values()):
            for turn in range(2):
                for program in rotated([p for p in PROGRAMS.values() if trap.fits(p)], i + 2 * seed + turn):
                    name = f"healthy-{trap.name}-{program.name}-{2 * seed + turn}"
                    yield Plan(name, program.name, program.part, "healthy", trap.name, 10 + 2 * seed + turn)
        for name in WITHOUT_PROGRAM:
            for part in PARTS:
                yield Plan(
                    f"healthy-{name}-{part}-{seed}", name, part, "healthy", name, 2 * seed + PARTS.index(part)
                )


def rotated(fitting: Sequence[Program], turn: int) -> Iterator[Program]:
    for part in PARTS:
        candidates = [p for p in fitting if p.part == part]
        if candidates:
            yield candidates[turn % len(candidates)]


def make(plan: Plan, runs: Path) -> Label | None:
    """Train and write one run; None where what it is meant to be did not come out."""
    dice = np.random.default_rng(zlib.crc32(plan.name.encode()))
    if plan.strength in WITHOUT_PROGRAM:
        record = WITHOUT_PROGRAM[plan.strength](plan.seed)
        made = put(runs / plan.name, record, "steps", lambda key: True, dice)
        return Label(plan.name, plan.program, plan.part, "healthy", plan.strength, (), (), made)
    program = PROGRAMS[plan.program]
    r = Recipe(
        program, plan.seed, optimizer=str(dice.choice(["adamw", "momentum", "sgd"], p=[0.5, 0.3, 0.2]))
    )
    if program.kind != "regression" and r.optimizer == "sgd":
        r.optimizer = "momentum"
    r.rate = SCHEDULES[str(dice.choice(["cosine", "warmup_cosine", "step_decay"]))]
    style = str(dice.choice(["steps", "epochs", "sparse"], p=[0.5, 0.35, 0.15]))
    if plan.fault == "healthy":
        trap = TRAPS[plan.strength]
        needs, style = trap.needs, trap.style or style
        trap.change(r)
    else:
        fault = FAULTS[plan.fault]
        needs = fault.needs
        fault.inject(r, plan.strength == "strong")
    style = "steps" if {"steps", "layers", "zeros", "saturation", "scale", "grads"} & needs else style
    shown = columns(needs, dice)
    r.watch |= needs
    record = fit(r)
    must, may = label(plan, record, "val" in shown)
    if must is None:
        shares = (
            f"left {left(record):.2f}, regained {regained(record):.2f}, falling {still_falling(record):.2f}"
        )
        print(f"{plan.name} shows {shares}", file=sys.stderr)
        return None
    if plan.fault == "healthy":
        trap.shown(record)
    made = {"optimizer": r.optimizer, "schedule": getattr(r.rate, "__name__", "own")}
    made |= put(runs / plan.name, record, style, lambda key: any(wanted(key, s) for s in shown), dice)
    return Label(plan.name, program.name, program.part, plan.fault, plan.strength, must, may, made)


def columns(needs: frozenset[str], dice: np.random.Generator) -> set[str]:
    """What is logged besides the training loss: what must be, and by chance."""
    usual = {"val": 0.8, "lr": 0.6, "grads": 0.4, "accuracy": 0.5}
    return {"train", *needs, *(name for name, chance in usual.items() if dice.random() < chance)}


def wanted(key: str, what: str) -> bool:
    if what == "val":
        return key.startswith(("val_", "val/"))
    if what == "accuracy":
        return key == "train_acc"
    if what == "train":
        return key == "train_loss" or key.startswith("train/")
    if what in ("zeros", "saturation"):
        return key.startswith("activations/")
    pattern = COLUMNS.get(what, "?")
    return key.startswith(pattern) if pattern.endswith("/") else key == pattern


def label(plan: Plan, record: Record, held_out: bool) -> tuple[tuple[str, ...] | None, tuple[str, ...]]:
    """``must`` (None: drop the run) and ``may`` by the package's rules."""
    if plan.fault == "healthy":
        ordinary = left(record) < 0.33 and not overfits(record, 0.1) and still_falling(record) < 0.04
        if not ordinary:
            return None, ()
        must, may = [], []
    else:
        fault = FAULTS[plan.fault]
        if not fault.shows(record):
            return None, ()
        must, may = list(fault.must), list(fault.may)
    if overfits(record, 0.3) and held_out and "overfitting" not in (*must, *may):
        must.append("overfitting")
    if not_finite(record) and "nan-loss" not in (*must, *may):
        must, may = [*must, "nan-loss"], [*may, "nan-weights"]
    if overfits(record, 0.05):
        may.append("overfitting")
    if still_falling(record) > 0.03:
        may.append("undertrained")
    return tuple(must), tuple(sorted(set(may)))


def put(
    out: Path, record: Record, style: str, shown: Callable[[str], bool], dice: np.random.Generator
) -> dict[str, str]:
    """Write the run's folder; returns how it was logged."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    kinds = ["csv"] if style == "unnamed" else [k for k in FORMATS if style != "epochs" or k != "events"]
    kind = str(dice.choice(kinds))
    dialects = [d for d in FORMATS[kind] if d != "keras" or style == "epochs"]
    dialect = str(dice.choice(dialects))
    rows = chosen_rows(record, style, shown)
    write(out, rows, kind, dialect, unnamed=style == "unnamed")
    if dice.random() < 0.7:
        write_hparams(out, record.hparams, kind)
    write_checkpoints(out, record)
    return {"style": style, "format": kind, "dialect": dialect, "points": str(len(rows))}


def work(job: tuple[Plan, Path]) -> tuple[Plan, Label | None, float]:
    torch.set_num_threads(1)
    began = time.perf_counter()
    return job[0], make(*job), time.perf_counter() - began


def generate(out: Path, chosen: Sequence[Plan], jobs: int = 1) -> list[Label]:
    """Make the runs and add their lines to labels.jsonl, in place of older ones of the same name."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / "labels.jsonl"
    names = {plan.name for plan in chosen}
    lines = path.read_text().splitlines() if path.exists() else []
    kept = [line for line in lines if json.loads(line)["run"] not in names]
    path.write_text("".join(line + "\n" for line in kept))
    labels, dropped = [], Counter[str]()
    with path.open("a") as file:
        for plan, made, seconds in results([(plan, out / "runs") for plan in chosen], jobs):
            print(
                f"{plan.name}: {seconds:.1f} s{'' if made else ', dropped: does not show'}", file=sys.stderr
            )
            if made is None:
                dropped[plan.fault] += 1
                shutil.rmtree(out / "runs" / plan.name, ignore_errors=True)
            else:
                labels.append(made)
                print(json.dumps(asdict(made)), file=file, flush=True)
    print(f"{len(labels)} runs; dropped: {dict(dropped)}", file=sys.stderr)
    return labels


def results(work_to_do: list[tuple[Plan, Path]], jobs: int) -> Iterator[tuple[Plan, Label | None, float]]:
    if jobs == 1:
        yield from map(work, work_to_do)
    else:
        with ProcessPoolExecutor(jobs) as pool:
            yield from pool.map(work, work_to_do)
