"""What an audit has to do: which runs to read, which to judge anew, and having it done."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

from analyzer.auditing.engines import Engine, outcomes
from analyzer.auditing.ledger import Entry, Ledger, key, read_ledger
from analyzer.auditing.progress import Progress
from analyzer.auditing.supervise import Crew
from analyzer.auditing.tasks import Bundle, Examine, Judge, Outcome, Settings, Task

BATCH = 15_000_000.0  # weight of a batch, see tasks.py: about half a second of work
BATCHES = 8  # for each process at least, so that all end at about the same time
COMMIT_SECONDS = 1.0  # between two commits: what a kill costs at most


@dataclass(frozen=True, slots=True)
class Counts:
    """Runs by what was done with their files: ``found`` in all, and how many of them."""

    found: int = 0
    read: int = 0
    judged: int = 0
    unchanged: int = 0
    failed: int = 0  # timed out or killed, of those read


@dataclass(frozen=True, slots=True)
class Plan:
    """A bundle to be read, or with ``entry`` to be judged anew; ``before`` is what was known of it."""

    bundle: Bundle
    entry: Entry | None = None
    before: Entry | None = None

    @property
    def weight(self) -> float:
        return (Examine(self.bundle) if self.entry is None else Judge(self.bundle.path, ())).weight


def update(
    ledger: Ledger,
    bundles: Sequence[Bundle],
    crew: Crew,
    rules: str,
    engine: Engine,
    progress: Progress | None,
) -> Counts:
    """Bring the ledger up to date with ``bundles``. What is done stays done if this is interrupted."""
    settings = crew.settings
    plans = planned(bundles, ledger.entries(), settings, rules)
    read = judged = failed = 0
    while plans:
        lacking = []
        for plan, outcome in _worked(ledger, plans, crew, engine, progress):
            if outcome.state == "unread":
                lacking.append(Plan(plan.bundle))
            elif plan.entry:
                ledger.judged(plan.entry, outcome, rules)
                judged += 1
            else:
                ledger.put(plan.bundle, outcome, reader_of(settings, outcome.state), rules)
                read += 1
                failed += outcome.state != "done"
        plans = lacking
    return Counts(len(bundles), read, judged, len(bundles) - read - judged, failed)


def planned(bundles: Iterable[Bundle], known: dict[str, Entry], settings: Settings, rules: str) -> list[Plan]:
    """What the ledger does not know yet; the most work first, so that none is left alone at the end."""
    plans = []
    for bundle in bundles:
        entry = known.get(key(bundle.path))
        if not entry or (entry.fingerprint, entry.reader) != (
            bundle.fingerprint,
            reader_of(settings, entry.state),
        ):
            same_reader = entry is not None and entry.reader == settings.reader
            plans.append(Plan(bundle, before=entry if same_reader else None))
        elif entry.rules != rules and entry.state == "done":
            plans.append(Plan(bundle, entry))
    return sorted(plans, key=lambda plan: -plan.weight)


def reader_of(settings: Settings, state: str) -> str:
    """What an entry depends on: where reading failed, on the limits as well, so that others are tried."""
    return settings.reader if state == "done" else f"{settings.reader} {settings.timeout:g} {settings.memory}"


def _worked(
    ledger: Ledger, plans: Sequence[Plan], crew: Crew, engine: Engine, progress: Progress | None
) -> Iterator[tuple[Plan, Outcome]]:
    """Every plan with what came of it; what the caller does with the ledger is committed at times."""
    if progress:
        progress.begin(len(plans), sum(plan.weight for plan in plans))
    of_path = {plan.bundle.path: plan for plan in plans}
    committed = time.monotonic()
    with closing(read_ledger(ledger.path)) as stored:
        for outcome in outcomes(batches(plans, engine.jobs), lambda b: _tasks(b, stored), crew, engine):
            plan = of_path[outcome.path]
            yield plan, outcome
            if progress:
                progress.step(outcome.path, plan.weight)
            if time.monotonic() - committed > COMMIT_SECONDS:
                ledger.commit()
                committed = time.monotonic()
    ledger.commit()
    if progress:
        progress.end()


def _tasks(plans: Sequence[Plan], stored: Ledger) -> list[Task]:
    return [_task(plan, stored) for plan in plans]


def _task(plan: Plan, stored: Ledger) -> Task:
    if plan.entry:
        return Judge(plan.bundle.path, stored.runs(plan.entry.id))
    return Examine(plan.bundle, stored.tails(plan.before.id) if plan.before else ())


def batches(plans: Sequence[Plan], jobs: int) -> Iterator[list[Plan]]:
    """Plans in batches of about equal weight, a heavy one by itself."""
    target = min(BATCH, sum(plan.weight for plan in plans) / (BATCHES * jobs))
    batch: list[Plan] = []
    weight = 0.0
    for plan in plans:
        if batch and weight + plan.weight > target:
            yield batch
            batch, weight = [], 0.0
        batch.append(plan)
        weight += plan.weight
    if batch:
        yield batch
