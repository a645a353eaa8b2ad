"""The pure function of an audit: files of a run in, what the ledger keeps of it out."""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path

from analyzer.auditing import record as records
from analyzer.auditing.bundles import group_of
from analyzer.auditing.growth import Growing
from analyzer.auditing.remote import fetched
from analyzer.auditing.tasks import Bundle, Kept, Outcome, Settings, Tail
from analyzer.features import LazyFeatures, specs
from analyzer.ingest import tensorboard
from analyzer.insight import waste
from analyzer.model import Features, Measurement, Missing, Problem, Rule, RunReport
from analyzer.pipeline import diagnose_run
from analyzer.reading import runs_of
from analyzer.report.json_report import finding_document, strict
from analyzer.rulebook import diagnose, load_rules, selected, verdict

LEVEL = 1  # of compression: higher ones save little and take longer than reading


@cache
def rules_of(settings: Settings) -> tuple[Rule, ...]:
    return selected(load_rules([Path(f) for f in settings.rules]), settings.select, settings.ignore)


# --------------------------------------------------------------------------- from files


def examine(bundle: Bundle, settings: Settings, tails: Sequence[Tail] = ()) -> Outcome:
    """Read, measure and judge the runs of one bundle, reading on where ``tails`` say that reading ended."""
    start = time.perf_counter()
    problems: list[Problem] = []
    passed_over: list[Path] = []
    growing = Growing(tensorboard, {tail.path: tail for tail in tails})
    kept = tuple(_kept(r) for r in _reports(bundle, settings, growing, problems, passed_over))
    cost = time.perf_counter() - start
    files = tuple(map(str, passed_over))
    return Outcome(bundle.path, "done", kept, tuple(problems), files, cost, tuple(growing.kept))


def _reports(
    bundle: Bundle, settings: Settings, growing: Growing, problems: list[Problem], passed_over: list[Path]
) -> Iterator[RunReport]:
    rules, roles = rules_of(settings), dict(settings.roles)
    if bundle.url:
        yield from fetched(bundle, rules, settings.roots, roles, problems, passed_over)
        return
    roots = [Path(root) for root in settings.roots]
    for run in runs_of(group_of(bundle, growing), roots, roles, problems, passed_over):
        yield diagnose_run(run, rules)


def _kept(report: RunReport) -> Kept:
    document = records.document(report)
    return Kept(
        records.record_text(records.record(report, document)),
        packed(json.dumps(document, separators=(",", ":"))),
        packed(records.features_text(measured(report.features))),
    )


def measured(features: Features) -> Features:
    """What the rules asked for when the run was judged."""
    return features.measured() if isinstance(features, LazyFeatures) else features


def packed(text: str) -> bytes:
    return zlib.compress(text.encode("utf-8", "surrogatepass"), LEVEL)


def unpacked(data: bytes) -> str:
    return zlib.decompress(data).decode("utf-8", "surrogatepass")


# --------------------------------------------------------------------------- from features


class Stored(Mapping[str, Measurement | Missing]):
    """Features as they were stored; ``lacking`` names those that were asked for and are not."""

    def __init__(self, found: Features):
        self.found = found
        self.lacking: set[str] = set()

    def __getitem__(self, name: str) -> Measurement | Missing:
        if name in self.found:
            return self.found[name]
        if name not in specs():
            raise KeyError(name)
        self.lacking.add(name)
        return Missing("was not stored")

    def __iter__(self) -> Iterator[str]:
        return iter(self.found)

    def __len__(self) -> int:
        return len(self.found)


def judge(path: str, runs: Sequence[Kept], settings: Settings) -> Outcome:
    """Judge runs anew from their stored features.

    State ``same``, without runs, where the rules say what they said; ``unread`` where features are lacking.
    """
    start = time.perf_counter()
    judged = [_judged(run, rules_of(settings)) for run in runs]
    kept = tuple(run for run in judged if run)
    state = "unread" if len(kept) < len(runs) else "same" if kept == tuple(runs) else "done"
    return Outcome(path, state, kept if state == "done" else (), cost=time.perf_counter() - start)


def _judged(kept: Kept, rules: Sequence[Rule]) -> Kept | None:
    features = Stored(records.features_of(unpacked(kept.features)))
    findings, absent, failed = diagnose(rules, features, specs())
    lost = waste({f.rule for f in findings}, features)
    if features.lacking:
        return None
    if not features:  # nothing could be measured
        return kept
    document = json.loads(unpacked(kept.document))
    problems = [p for p in document["problems"] if p["kind"] != "rule-error"]
    said = strict(
        {
            "verdict": verdict(findings, rules, absent),
            "findings": [finding_document(f) for f in findings],
            "not_applicable": [{"rule": a.rule, "missing": list(a.missing)} for a in absent],
            "problems": problems + [{"path": p.path, "kind": p.kind, "message": p.message} for p in failed],
            "waste": lost and asdict(lost),
        }
    )
    if all(document[key] == value for key, value in said.items()):
        return kept
    old = records.record_of(kept.record)
    member = replace(
        old.member,
        verdict=said["verdict"],
        findings=tuple((f.rule, f.severity) for f in findings if f.explained_by is None),
        waste=lost,
    )
    new = replace(
        old,
        member=member,
        findings=tuple(records.light_finding(f) for f in said["findings"]),
        problems=tuple(said["problems"]),
    )
    text = json.dumps({**document, **said}, separators=(",", ":"))
    return Kept(records.record_text(new), packed(text), kept.features)
