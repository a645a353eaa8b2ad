"""What changed between two audits: findings that are new, resolved or worse, runs that came and went."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from analyzer.auditing.ledger import read_ledger
from analyzer.auditing.record import record_of
from analyzer.errors import AnalyzerError
from analyzer.model import SEVERITIES
from analyzer.report.escape import plain

SQLITE = b"SQLite format 3\0"
Findings = Mapping[str, str]  # severity by rule


class ChangesError(AnalyzerError):
    """Something that is not the result of an audit."""


@dataclass(frozen=True, slots=True)
class Change:
    """One finding of one run; ``before`` and ``after`` are severities, "" where it does not hold."""

    run: str
    rule: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Changes:
    new: tuple[Change, ...]
    worsened: tuple[Change, ...]
    eased: tuple[Change, ...]
    resolved: tuple[Change, ...]
    added: tuple[str, ...]  # runs that only the later audit knows
    removed: tuple[str, ...]
    same: int  # runs in both whose findings are the same


def changes(old: Mapping[str, Findings], new: Mapping[str, Findings]) -> Changes:
    """Findings of runs that both audits know, and the findings of runs that only the later one does."""
    found = [c for run in sorted(new) for c in _of_run(run, old.get(run, {}), new[run])]
    return Changes(
        new=tuple(c for c in found if not c.before),
        worsened=tuple(c for c in found if c.before and c.after and _rank(c.after) < _rank(c.before)),
        eased=tuple(c for c in found if c.before and c.after and _rank(c.after) > _rank(c.before)),
        resolved=tuple(c for c in found if not c.after),
        added=tuple(sorted(new.keys() - old.keys())),
        removed=tuple(sorted(old.keys() - new.keys())),
        same=sum(old[run] == new[run] for run in old.keys() & new.keys()),
    )


def _of_run(run: str, old: Findings, new: Findings) -> Iterator[Change]:
    rules = sorted(old.keys() | new.keys(), key=lambda rule: (_rank(new.get(rule, "")), rule))
    for rule in rules:
        before, after = old.get(rule, ""), new.get(rule, "")
        if before != after:
            yield Change(run, rule, before, after)


def _rank(severity: str) -> int:
    return SEVERITIES.index(severity) if severity in SEVERITIES else len(SEVERITIES)


# --------------------------------------------------------------------------- reading results


def findings_of(path: Path) -> dict[str, Findings]:
    """Severity by rule by run, of an audit's ledger, JSON or JSON Lines. Raises ChangesError."""
    try:
        with path.open("rb") as file:
            head = file.read(len(SQLITE))
        if head == SQLITE:
            return _of_ledger(path)
        return _by_run(list(_documents(path)))
    except OSError as error:
        raise ChangesError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError):
        raise ChangesError(f"{path}: neither a ledger nor the JSON or JSON Lines of an audit") from None


def _of_ledger(path: Path) -> dict[str, Findings]:
    with closing(read_ledger(path)) as ledger:
        ids = [entry.id for entry in ledger.entries().values()]
        records = [record_of(text) for _, _, text in ledger.records(ids)]
    return _by_run([{"name": r.name, "path": r.path, "findings": r.findings} for r in records])


def _documents(path: Path) -> Iterator[Mapping[str, Any]]:
    with path.open(encoding="utf-8") as file:
        first = file.readline()
        try:
            document = json.loads(first)
        except ValueError:
            document = json.loads(first + file.read())
        if "runs" in document:
            yield from document["runs"]
            return
        yield document
        yield from map(json.loads, file)


def _by_run(documents: list[Mapping[str, Any]]) -> dict[str, Findings]:
    """By the run's name, or its path where several have one name."""
    names = Counter(str(d["name"]) for d in documents)
    return {
        (d["name"] if names[d["name"]] == 1 else f"{d['path']} {d['name']}"): {
            f["rule"]: f["severity"] for f in d["findings"]
        }
        for d in documents
    }


# --------------------------------------------------------------------------- telling


def at_least(found: Changes, level: str) -> bool:
    """Whether a finding that is new or worse is at least this severe."""
    return any(_rank(change.after) <= _rank(level) for change in (*found.new, *found.worsened))


def as_json_text(found: Changes) -> str:
    return json.dumps(asdict(found), indent=2) + "\n"


def as_text(found: Changes) -> str:
    groups = [
        ("New", [f"{c.after:<9} {c.rule}: {c.run}" for c in found.new]),
        ("Worse", [f"{c.before} to {c.after}  {c.rule}: {c.run}" for c in found.worsened]),
        ("Eased", [f"{c.before} to {c.after}  {c.rule}: {c.run}" for c in found.eased]),
        ("Resolved", [f"{c.before:<9} {c.rule}: {c.run}" for c in found.resolved]),
        ("Runs that are new", list(found.added)),
        ("Runs that are gone", list(found.removed)),
    ]
    lines = [f"{found.same:,} runs with the same findings"]
    for title, told in groups:
        if told:
            lines += ["", f"{title} ({len(told):,})", *(f"  {plain(line)}" for line in told)]
    return "\n".join(lines) + "\n"
