"""What one printed line says: where in training it stands, and its metrics."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import isfinite

UNSECTIONED = re.compile(  # of no data set
    r"lr|learning_?rate|(?:grad|gradient)_?norm|gnorm|grad|momentum|loss_scale", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Slot:
    """A number of a template that is a metric: its place, tag, and how it was found."""

    at: int
    tag: str
    section: str
    bare: bool = False  # only "train" or "val" stood before it
    fraction: bool = False  # written as correct/total
    running: bool = False  # a mean since the start of the epoch
    mean: bool = False  # called a mean
    mean_at: int | None = None  # place of the mean so far that follows in parentheses


@dataclass(frozen=True, slots=True)
class Plan:
    """What the numbers of a template mean. ``held_out``: all its metrics are of held-out data."""

    epoch: int | None = None
    inner: int | None = None
    total: int | None = None
    slots: tuple[Slot, ...] = ()
    episodes: bool = False  # what is called epoch here is an episode
    phase: str = ""  # the words before the epoch that are of no section
    held_out: bool = field(init=False)

    def __post_init__(self) -> None:
        held_out = bool(self.slots) and all(slot.section in {"val", "test"} for slot in self.slots)
        object.__setattr__(self, "held_out", held_out)

    @property
    def says_nothing(self) -> bool:
        return self.epoch is None and self.inner is None and not self.slots


@dataclass(slots=True)
class Entry:
    """One line that says something. ``epoch``, ``inner`` (its iteration) and ``total`` as printed."""

    line: int
    template: int
    plan: Plan
    values: tuple[float, ...]
    epoch: float | None = None
    inner: float | None = None
    total: float | None = None
    clock: float | None = None
    bar: bool = False
    block: int = 0  # stretch between two ruled lines
    step: float = 0.0


def filled(at: int, template: int, plan: Plan, figures: Sequence[float], clock: float | None) -> Entry:
    """A plan with its numbers put in."""
    values = tuple([_value(slot, plan, figures) for slot in plan.slots])
    epoch, inner, total = _at(figures, plan.epoch), _at(figures, plan.inner), _at(figures, plan.total)
    return Entry(at, template, plan, values, epoch, inner, total, clock)


def _at(figures: Sequence[float], place: int | None) -> float | None:
    return figures[place] if place is not None and isfinite(figures[place]) else None


def _value(slot: Slot, plan: Plan, figures: Sequence[float]) -> float:
    """The number of a slot; of a fraction the quotient, of batches of an evaluation the mean so far."""
    if slot.fraction and figures[slot.at + 1]:
        return figures[slot.at] / figures[slot.at + 1]
    if slot.mean_at is not None and plan.inner is not None and plan.held_out:
        return figures[slot.mean_at]
    return figures[slot.at]


def in_section(entry: Entry, section: str, template: int, plan: Plan | None) -> Entry:
    """An entry without a section as one of ``section``; ``plan`` where it was made before."""
    if plan is None:
        slots = tuple(
            slot
            if UNSECTIONED.fullmatch(slot.tag)
            else replace(slot, tag=f"{section}_{slot.tag}", section=section)
            for slot in entry.plan.slots
        )
        plan = replace(entry.plan, slots=slots)
    return replace(entry, template=template, plan=plan)
