"""Choosing, training, labelling and writing the runs of the corpus."""

from __future__ import annotations

import json
import shutil
import sys
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch

from benchmarks.corpus.faults import (
    FAULTS,
    STRENGTHS,
    STUCK,
    VIOLENT,
    Fault,
    apart,
    apart_at_once,
    blows_up,
    grows,
    left,
    not_finite,
    overfits,
    solved_at_once,
    spikes,
    still_falling,
    swings,
)
from benchmarks.corpus.programs import PROGRAMS, Program
from benchmarks.corpus.training import HELD_OUT, SCHEDULES, Recipe, Record, fit
from benchmarks.corpus.traps import TRAPS, WITHOUT_PROGRAM, Trap
from benchmarks.corpus.writers import FORMATS, chosen_rows, write, write_checkpoints, write_hparams

PARTS = ("tune", "report")
COLUMNS = {"grads": "grad_norm", "layers": "grad_norm/", "scale": "loss_scale", "lr": "lr"}
STEPWISE = {"steps", "layers", "zeros", "saturation", "scale", "grads"}  # needs that ask for steps


@dataclass(frozen=True)
class Label:
    """One line of labels.jsonl; see README.md."""

    run: str
    program: str
    part: str
    fault: str  # "healthy" for runs without one
    strength: str  # of the fault; the trap's name of a healthy run
    must: tuple[str, ...]
    may: tuple[str, ...] = ()
    true: tuple[str, ...] = ()  # what the true curves show besides
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
    """Every fault at every strength and every trap twice, on one fitting program of each part, per turn."""
    for turn in range(seeds):
        for i, fault in enumerate(FAULTS.values()):
            for j, strength in enumerate(STRENGTHS):
                for program in rotated([p for p in PROGRAMS.values() if fault.fits(p)], i + j + 3 * turn):
                    yield plan(fault.name, strength, program, turn)
        for i, trap in enumerate(TRAPS.values()):
            for k in (2 * turn, 2 * turn + 1):
                for program in rotated([p for p in PROGRAMS.values() if trap.fits(p)], i + k):
                    yield plan("healthy", trap.name, program, k)
        for name, part in ((name, part) for part, names in WITHOUT_PROGRAM.items() for name in names):
            for k in (2 * turn, 2 * turn + 1):
                full = f"healthy-{name}-{k}"
                yield Plan(full, name, part, "healthy", name, zlib.crc32(full.encode()) % 100_000)


def plan(fault: str, strength: str, program: Program, turn: int) -> Plan:
    name = f"{fault}-{strength}-{program.name}-{turn}"
    return Plan(name, program.name, program.part, fault, strength, zlib.crc32(name.encode()) % 100_000)


def rotated(fitting: Sequence[Program], turn: int) -> Iterator[Program]:
    for part in PARTS:
        candidates = [p for p in fitting if p.part == part]
        if candidates:
            yield candidates[turn % len(candidates)]


def recipe(plan: Plan, dice: np.random.Generator) -> Recipe:
    """An ordinary training, its optimizer and schedule by chance, with the plan's fault or trap put in."""
    program = PROGRAMS[plan.program]
    optimizer = str(dice.choice(["adamw", "adam", "momentum", "sgd"], p=[0.35, 0.15, 0.3, 0.2]))
    if program.kind != "regression" and optimizer == "sgd":
        optimizer = "momentum"
    if program.adaptive and not optimizer.startswith("adam"):
        optimizer = "adamw"
    r = Recipe(program, plan.seed, optimizer=optimizer)
    ordinary = ["cosine", "warmup_cosine", "step_decay", "linear", "exponential", "one_cycle"]
    r.rate = SCHEDULES[str(dice.choice(ordinary))]
    r.held_out = int(dice.choice([150, 300, HELD_OUT]))
    r.epochs = int(r.epochs * dice.choice([0.8, 1.0, 1.5]))
    if plan.fault == "healthy":
        TRAPS[plan.strength].change(r)
    else:
        FAULTS[plan.fault].inject(r, STRENGTHS.index(plan.strength))
    return r


def make(plan: Plan, runs: Path) -> Label | None:
    """Train and write one run; None where nothing can be said of what came out."""
    seed = zlib.crc32(plan.name.encode())
    dice = np.random.default_rng(seed)
    if plan.program not in PROGRAMS:
        record = WITHOUT_PROGRAM[plan.part][plan.program](plan.seed)
        made = put(runs / plan.name, record, "steps", lambda key: True, dice)
        return Label(plan.name, plan.program, plan.part, "healthy", plan.strength, (), (), (), made)
    chosen: Fault | Trap = TRAPS[plan.strength] if plan.fault == "healthy" else FAULTS[plan.fault]
    r = recipe(plan, dice)
    style = str(dice.choice(["steps", "epochs", "sparse", "both"], p=[0.4, 0.3, 0.15, 0.15]))
    style = chosen.style or ("steps" if STEPWISE & chosen.needs else style)
    shown = columns(chosen.needs, dice)
    r.watch |= chosen.needs | ({"checkpoints"} if dice.random() < 0.15 else set())
    record = fit(r)
    if isinstance(chosen, Fault) and chosen.twin:
        twin = recipe(plan, np.random.default_rng(seed))
        twin.lr_factor *= chosen.twin
        record.twin = left(fit(twin))
    described, facts = label(plan, record, "val" in shown), true(record)
    facts += chosen.cause if isinstance(chosen, Fault) and described and described[0] != "healthy" else ()
    if described is None:
        return None
    chosen.shown(record)
    made = {"optimizer": r.optimizer, "schedule": getattr(r.rate, "__name__", "own")}
    made |= put(
        runs / plan.name,
        record,
        style,
        lambda key: any(wanted(key, s) for s in shown),
        dice,
        hparams="hparams" in shown,
    )
    if isinstance(chosen, Fault) and chosen.spoil:
        chosen.spoil(runs / plan.name)
    fault, strength, must, may = described
    return Label(plan.name, plan.program, plan.part, fault, strength, must, may, facts, made)


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
        return key.startswith(("train_loss", "train/"))
    if what in ("zeros", "saturation"):
        return key.startswith("activations/")
    pattern = COLUMNS.get(what, "?")
    return key.startswith(pattern) if pattern.endswith("/") else key == pattern


# ---------------------------------------------------------------------------------------------
# Labels: fault, strength, must, may; by the rules of README.md

Described = tuple[str, str, tuple[str, ...], tuple[str, ...]]


def label(plan: Plan, record: Record, held_out: bool) -> Described | None:
    """What the run is, or None where neither a fault nor health can be vouched for."""
    fault = FAULTS.get(plan.fault)
    if fault and fault.shows(record):
        return plan.fault, plan.strength, *beside(fault.must, fault.may, record, held_out)
    if healthy(record) and (fault is None or abs(apart(record)[-3:]).max() < 0.15):
        strength = plan.strength if fault is None else f"faint-{plan.fault}"
        permitted = [name for entry in (fault.must if fault else ()) for name in entry.split("|")]
        return "healthy", strength, *beside((), permitted, record, held_out)
    if fault is None:
        return None
    must = happened(record, held_out)
    if not must:
        return None
    named = [name for entry in fault.must for name in entry.split("|")]
    may = (*named, *fault.may, *STUCK.split(), *VIOLENT.split())
    return must.split("|")[0], f"from-{plan.fault}", *beside((must,), may, record, held_out)


def healthy(record: Record) -> bool:
    """Went two thirds of an ordinary run's way or more, ended calm, and kept what it had learned."""
    told = not record.state.get("recall", 1.0) < 0.7
    level = not overfits(record, 0.1) and still_falling(record) < 0.04
    return bool(left(record) < 0.33 and level and told and not blows_up(record))


def happened(record: Record, held_out: bool) -> str:
    """What a run whose injected fault does not show as meant came to, by its true curves; or nothing."""
    if not_finite(record):
        return "nan-loss"
    if held_out and overfits(record, 0.3):
        return "overfitting"
    if left(record) >= 0.97:
        return "loss-not-decreasing|underfitting|loss-plateau|slow-convergence|lr-too-low|lr-too-high"
    if still_falling(record) > 0.1 and left(record) > 0.1:
        return "undertrained|slow-convergence|lr-too-low"
    return ""


def true(record: Record) -> tuple[str, ...]:
    """Diagnoses that the true curves and the model's state bear out whatever was injected."""
    flat = abs(still_falling(record)) < 0.02
    state = record.state
    facts = {
        "nan-loss": not_finite(record),
        "nan-weights": state.get("broken", 0.0) > 0,
        "loss-divergence": blows_up(record),
        "loss-spikes": spikes(record),
        "oscillating-loss": swings(record),
        "overfitting": overfits(record),
        "loss-not-decreasing": 0.97 <= left(record) < 1.1 and flat,
        "loss-plateau": 0.4 <= left(record) < 0.95 and flat,
        "underfitting": 0.5 <= left(record) < 1.1 and flat,
        "undertrained": still_falling(record) > 0.06,
        "exploding-gradients": grows(record),
        "exploding-weights": state.get("growth", 0.0) >= 10 or state.get("scale", 0.0) >= 10,
        "dead-relu": state.get("dead", 0.0) >= 0.5,
        "saturated-activations": state.get("saturated", 0.0) >= 0.6,
        "class-imbalance": state.get("recall", 1.0) < 0.2,
        "train-val-mismatch": apart_at_once(record),
        "label-leakage": solved_at_once(record),
    }
    return tuple(name for name, holds in facts.items() if holds)


def beside(
    must: Sequence[str], may: Sequence[str], record: Record, held_out: bool
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Adds what the true curves show besides what was injected."""
    must, may = list(must), list(may)
    if overfits(record, 0.3) and held_out and "overfitting" not in (*must, *may):
        must.append("overfitting")
    if not_finite(record) and "nan-loss" not in (*must, *may):
        must, may = [*must, "nan-loss"], [*may, "nan-weights"]
    if overfits(record, 0.05):
        may.append("overfitting")
    if still_falling(record) > 0.03:
        may.append("undertrained")
    if record.state.get("dead", 0.0) > 0.25:
        may.append("dead-relu")
    return tuple(must), tuple(sorted(set(may)))


# ---------------------------------------------------------------------------------------------
# Writing


def put(
    out: Path,
    record: Record,
    style: str,
    shown: Callable[[str], bool],
    dice: np.random.Generator,
    hparams: bool = False,
) -> dict[str, str]:
    """Write the run's folder; returns how it was logged."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    fixed = {"unnamed": ["csv"], "breakable": ["events", "jsonl"], "every-step": ["csv", "events", "jsonl"]}
    kind = str(dice.choice(fixed.get(style, [k for k in FORMATS if style != "epochs" or k != "events"])))
    dialect = str(dice.choice([d for d in FORMATS[kind] if d != "keras" or style == "epochs"]))
    dialect = "lightning" if style == "both" and kind == "csv" else dialect
    rows = chosen_rows(record, style, shown)
    write(out, rows, kind, dialect, unnamed=style == "unnamed")
    if hparams or dice.random() < 0.7:
        write_hparams(out, record.hparams, kind)
    write_checkpoints(out, record, str(dice.choice(["pt", "pt", "safetensors"])))
    return {"style": style, "format": kind, "dialect": dialect, "points": str(len(rows))}


def work(job: tuple[Plan, Path]) -> tuple[Plan, Label | None, float]:
    torch.set_num_threads(1)
    began = time.process_time()
    return job[0], make(*job), time.process_time() - began


def generate(out: Path, chosen: Sequence[Plan], jobs: int = 1) -> list[Label]:
    """Make the runs that are not there yet; a line of labels.jsonl or of dropped.jsonl each."""
    (out / "runs").mkdir(parents=True, exist_ok=True)
    paths = {kept: out / name for kept, name in ((True, "labels.jsonl"), (False, "dropped.jsonl"))}
    there = {json.loads(line)["run"] for path in paths.values() for line in lines(path)}
    jobs_left = [(plan, out / "runs") for plan in chosen if plan.name not in there]
    labels: list[Label] = []
    dropped: Counter[str] = Counter()
    spent = 0.0
    for plan, made, seconds in results(jobs_left, jobs):
        spent += seconds
        line = asdict(made) if made else {"run": plan.name, "fault": plan.fault, "strength": plan.strength}
        with paths[made is not None].open("a") as file:
            print(json.dumps(line | {"seconds": round(seconds, 2)}), file=file)
        if made is None:
            dropped[plan.fault] += 1
        else:
            labels.append(made)
        print(f"{plan.name}: {seconds:.1f} s{'' if made else ', dropped'}", file=sys.stderr)
    print(f"{len(labels)} runs in {spent / 60:.1f} core-minutes; dropped: {dict(dropped)}", file=sys.stderr)
    return labels


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def results(work_to_do: list[tuple[Plan, Path]], jobs: int) -> Iterator[tuple[Plan, Label | None, float]]:
    if jobs == 1:
        yield from map(work, work_to_do)
        return
    with ProcessPoolExecutor(jobs) as pool:
        for done in as_completed([pool.submit(work, job) for job in work_to_do]):
            yield done.result()
