"""The course of an audit: find the runs, skip what is known, have the rest examined, tell."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from analyzer.auditing import record as records
from analyzer.auditing.bundles import archive_bundle, bundle, in_shard
from analyzer.auditing.engines import Engine
from analyzer.auditing.examine import rules_of, unpacked
from analyzer.auditing.ledger import Entry, Ledger, default_place, key, open_ledger, read_ledger
from analyzer.auditing.progress import Progress
from analyzer.auditing.record import Record
from analyzer.auditing.remote import remote_bundles
from analyzer.auditing.supervise import Crew
from analyzer.auditing.tasks import Bundle, Settings
from analyzer.auditing.versions import reader_version, rules_version
from analyzer.auditing.where import Predicate, where
from analyzer.auditing.work import Counts, update
from analyzer.discover import discover, passed_over_problem
from analyzer.insight import insight
from analyzer.model import Insight, Problem
from analyzer.remote import source
from analyzer.remote.limits import archive_kind

EARLY = 2  # processes that start while runs are looked for, where there is surely something to do
UNSEEN = ("missing", "unreadable")  # what lies there may be there again tomorrow


@dataclass(frozen=True, slots=True)
class Options:
    """What an audit is asked for; see ``analyze audit --help``."""

    engine: Engine = field(default_factory=Engine)
    ledger: Path | None = None
    limit: int | None = None
    since: float | None = None  # seconds since 1970
    shard: tuple[int, int] = (1, 1)
    where: str = ""
    rules: tuple[str, ...] = ()
    select: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    roles: tuple[tuple[str, str], ...] = ()
    timeout: float = 300.0
    memory: int = 4 << 30


@dataclass(frozen=True, slots=True)
class Audit:
    """What is known of the runs audited. Their documents stay in the ledger until they are asked for."""

    paths: tuple[str, ...]  # as they were given
    records: tuple[Record, ...]  # worst first
    problems: tuple[Problem, ...]  # of what is no run
    insight: Insight
    counts: Counts
    seconds: float
    ledger: Path
    places: tuple[tuple[int, int], ...] = ()  # of the records' documents in the ledger
    renamed: tuple[tuple[str, str], ...] = ()  # a root as it is, and as it was given
    left_out: int = 0  # by --since, --shard and --limit

    def documents(self) -> Iterator[dict[str, Any]]:
        """The runs of the JSON report, one at a time, in the order of the records."""
        with closing(read_ledger(self.ledger)) as ledger:
            for place in self.places:
                yield json.loads(given(unpacked(ledger.document(*place)), self.renamed))


def audit(paths: Sequence[str | Path], options: Options, progress: Progress | None = None) -> Audit:
    """Bring the ledger up to date with the runs below ``paths``, and tell what is known of them.

    Raises LedgerError, RuleError, EngineError or WhereError.
    """
    started = time.monotonic()
    holds = where(options.where) if options.where else None
    roots, renamed = _roots(paths)
    settings = _settings(roots, options)
    rules = rules_version(rules_of(settings))
    place = options.ledger or default_place(roots)
    with open_ledger(place) as ledger, closing(Crew(settings, options.engine.jobs)) as crew:
        if options.engine.name == "local" and _stale(ledger.entries(), roots, rules):
            crew.start(EARLY)
        if progress:
            progress.say("looking for runs")
        found = _found(roots)
        bundles = _chosen(found.bundles, roots, options)
        counts = update(ledger, bundles, crew, rules, options.engine, progress)
        if len(bundles) == len(found.bundles) and not any(p.kind in UNSEEN for p in found.problems):
            _prune(ledger, bundles, roots)
        entries = ledger.entries()
        ids = [entries[key(b.path)].id for b in bundles]
        listed, places = told(ledger, ids, renamed, holds)
        return Audit(
            paths=tuple(map(str, paths)),
            records=tuple(listed),
            problems=_problems(ledger, ids, found, renamed),
            insight=insight(r.member for r in listed),
            counts=counts,
            seconds=time.monotonic() - started,
            ledger=ledger.path,
            places=tuple(places),
            renamed=renamed,
            left_out=len(found.bundles) - len(bundles),
        )


def _roots(paths: Sequence[str | Path]) -> tuple[tuple[str, ...], tuple[tuple[str, str], ...]]:
    """Each path as the ledger knows it, and what to call it."""
    roots, renamed = [], []
    for given in map(source, paths):
        root = given if isinstance(given, str) else str(given.resolve())
        roots.append(root)
        if isinstance(given, Path) and str(given) != root:
            renamed.append((root, given.as_posix()))
    return tuple(roots), tuple(renamed)


def _settings(roots: tuple[str, ...], options: Options) -> Settings:
    return Settings(
        roots=roots,
        rules=tuple(str(Path(folder).resolve()) for folder in options.rules),
        select=options.select,
        ignore=options.ignore,
        roles=options.roles,
        reader=reader_version(dict(options.roles)),
        timeout=options.timeout,
        memory=options.memory,
    )


# --------------------------------------------------------------------------- what there is


@dataclass(frozen=True, slots=True)
class Found:
    """What lies below the roots."""

    bundles: list[Bundle]
    problems: list[Problem]
    passed_over: list[Path]  # files that are neither logs nor checkpoints


def _found(roots: Sequence[str]) -> Found:
    urls = [root for root in roots if "://" in root]
    local = [Path(root) for root in roots if root not in urls]
    archives = [path for path in local if archive_kind(path)]
    folders = [path for path in local if path not in archives]
    discovery = discover(folders)
    problems = list(discovery.problems)
    bundles = [bundle(group, folders) for group in discovery.groups]
    bundles += [archive_bundle(path) for path in archives]
    bundles += [b for url in urls for b in remote_bundles(url, problems)]
    return Found(bundles, problems, list(discovery.passed_over))


def _problems(
    ledger: Ledger, ids: Sequence[int], found: Found, renamed: Sequence[tuple[str, str]]
) -> tuple[Problem, ...]:
    """What there is besides runs; one line for all the files that are nothing of ours."""
    problems, passed_over = ledger.problems(ids)
    passed_over = [*found.passed_over, *passed_over]
    told = [*found.problems, *problems, *([passed_over_problem(passed_over)] if passed_over else [])]
    texts = json.loads(given(json.dumps([asdict(problem) for problem in told]), renamed))
    return tuple(Problem(**text) for text in texts)


def _chosen(bundles: list[Bundle], roots: Sequence[str], options: Options) -> list[Bundle]:
    """Without those of other shards, those unchanged since, and all but the newest."""
    if options.shard != (1, 1):
        bundles = [b for b in bundles if in_shard(_below(b.path, roots), options.shard)]
    if options.since is not None:
        bundles = [b for b in bundles if b.modified >= options.since]
    if options.limit is not None:
        newest = sorted(bundles, key=lambda b: (-b.modified, b.path))[: options.limit]
        bundles = sorted(newest, key=lambda b: b.path)
    return bundles


def _below(path: str, roots: Sequence[str]) -> str:
    """The path below the root it lies in: the same wherever the tree is."""
    root = next((root for root in roots if path.startswith(root)), "")
    return path[len(root) :].strip("/\\").replace(os.sep, "/")


# --------------------------------------------------------------------------- what is told


def _stale(entries: Mapping[str, Entry], roots: Sequence[str], rules: str) -> bool:
    """Whether nothing is known of what lies below the roots, or what the rules said of it before they changed."""
    known = [entry for path, entry in entries.items() if _lies_below(path, roots)]
    return not known or any(entry.state == "done" and entry.rules != rules for entry in known)


def _lies_below(path: str, roots: Sequence[str]) -> bool:
    return any(path == root or path.startswith((f"{root}/", f"{root}{os.sep}")) for root in roots)


def _prune(ledger: Ledger, bundles: Sequence[Bundle], roots: Sequence[str]) -> None:
    """Forget what lay below the roots and is no longer there."""
    there = {key(b.path) for b in bundles}
    gone = [
        entry.id for path, entry in ledger.entries().items() if path not in there and _lies_below(path, roots)
    ]
    ledger.forget(gone)


def told(
    ledger: Ledger,
    bundles: Iterable[int],
    renamed: Sequence[tuple[str, str]] = (),
    holds: Predicate | None = None,
) -> tuple[list[Record], list[tuple[int, int]]]:
    """The records of some bundles, worst first, and where their documents are."""
    rows = [
        (records.record_of(given(text, renamed)), (number, part))
        for number, part, text in ledger.records(bundles)
    ]
    kept = [row for row in rows if holds is None or holds(row[0].member.hyperparameters)]
    kept.sort(key=lambda row: records.badness(row[0]))
    return [row[0] for row in kept], [row[1] for row in kept]


def given(text: str, renamed: Sequence[tuple[str, str]]) -> str:
    """JSON with every path in it as the roots were given."""
    for root, name in renamed:
        for behind in ("/", '"'):
            text = text.replace(json.dumps(root)[:-1] + behind, json.dumps(name)[:-1] + behind)
    return text
