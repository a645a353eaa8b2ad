"""How often the analyzer is right: its findings on the labelled corpus against the labels.

    python -m benchmarks.corpus build/corpus
    python benchmarks/diagnosis.py build/corpus            # the scoreboard
    python benchmarks/diagnosis.py build/corpus --errors   # and every error of the tune part
    python benchmarks/diagnosis.py build/corpus --write    # writes docs/accuracy.md

How a run is counted: a finding whose id is in ``must`` is right, in ``may`` neither right nor wrong,
anything else wrong, unless it is only a remark (severity info). Where ``must`` offers alternatives, those
that were found are right; if none was, the first is missed.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from analyzer.model import Rule  # noqa: E402
from analyzer.pipeline import diagnose_run, read_runs  # noqa: E402
from analyzer.rulebook import load_rules  # noqa: E402

REMARKS = {"converged", "no-early-stopping", "clipping-saturated", "low-rank-layer", "log-damaged"}
BINS = 5


@dataclass(frozen=True)
class Found:
    """One finding, as far as scoring goes."""

    rule: str
    severity: str
    confidence: float


@dataclass(frozen=True)
class Scored:
    """One run against its label: ids that are right, wrong and missed."""

    label: Mapping[str, Any]
    found: tuple[Found, ...]
    right: tuple[str, ...]
    wrong: tuple[str, ...]
    missed: tuple[str, ...]
    seconds: float

    @property
    def first(self) -> str:
        """The first finding that is no remark, or nothing."""
        return next((f.rule for f in self.found if f.rule not in REMARKS), "")

    @property
    def top_hit(self) -> bool:
        return self.first in wanted(self.label)

    @property
    def top_tenable(self) -> bool:
        return self.top_hit or self.first in self.label["may"]

    @property
    def alarms(self) -> list[str]:
        return [f.rule for f in self.found if f.severity != "info" and f.rule in self.wrong]


def wanted(label: Mapping[str, Any]) -> set[str]:
    return {name for entry in label["must"] for name in entry.split("|")}


def score(label: Mapping[str, Any], found: Sequence[Found], seconds: float = 0.0) -> Scored:
    """Sort the findings of one run into right and wrong, and say what is missed."""
    ids = {f.rule for f in found if f.severity != "info"} | ({f.rule for f in found} & wanted(label))
    right = ids & wanted(label)
    wrong = ids - right - set(label["may"]) - REMARKS
    choices = [entry.split("|") for entry in label["must"]]
    missed = [choice[0] for choice in choices if not ids & set(choice)]
    return Scored(label, tuple(found), tuple(sorted(right)), tuple(sorted(wrong)), tuple(missed), seconds)


def analyse(folder: Path, rules: Sequence[Rule]) -> tuple[list[Found], float]:
    """The findings of all runs below a folder, ranked, and the seconds that took."""
    began = time.perf_counter()
    runs, _ = read_runs([folder])
    findings = [f for run in runs for f in diagnose_run(run, rules).findings]
    seconds = time.perf_counter() - began
    return [Found(f.rule, f.severity, f.confidence) for f in findings], seconds


def score_corpus(corpus: Path) -> list[Scored]:
    rules = load_rules()
    lines = (corpus / "labels.jsonl").read_text().splitlines()
    labels = [json.loads(line) for line in lines]
    return [score(label, *analyse(corpus / "runs" / label["run"], rules)) for label in labels]


# ---------------------------------------------------------------------------------------------
# Figures


@dataclass(frozen=True)
class Rates:
    """Counts of one diagnosis."""

    right: int
    wrong: int
    missed: int

    @property
    def precision(self) -> float | None:
        return self.right / (self.right + self.wrong) if self.right + self.wrong else None

    @property
    def recall(self) -> float | None:
        return self.right / (self.right + self.missed) if self.right + self.missed else None

    @property
    def f1(self) -> float:
        return 2 * self.right / max(1, 2 * self.right + self.wrong + self.missed)


def rates(scored: Iterable[Scored]) -> dict[str, Rates]:
    right, wrong, missed = Counter[str](), Counter[str](), Counter[str]()
    for s in scored:
        right.update(s.right)
        wrong.update(s.wrong)
        missed.update(s.missed)
    return {d: Rates(right[d], wrong[d], missed[d]) for d in sorted({*right, *wrong, *missed})}


def macro_f1(table: Mapping[str, Rates]) -> float:
    """Mean F1 over the diagnoses that some label asks for."""
    asked = [r.f1 for r in table.values() if r.right + r.missed]
    return sum(asked) / max(1, len(asked))


def judged(scored: Iterable[Scored]) -> Iterator[tuple[float, bool]]:
    """Confidence and correctness of every finding that is right or wrong."""
    for s in scored:
        for f in s.found:
            if f.rule in s.right or f.rule in s.wrong:
                yield f.confidence, f.rule in s.right


def calibration(pairs: Sequence[tuple[float, bool]]) -> tuple[float, float, list[tuple[int, float, float]]]:
    """Brier score, expected calibration error, and (count, mean confidence, share right) per bin."""
    bins: dict[int, list[tuple[float, bool]]] = defaultdict(list)
    for confidence, right in pairs:
        bins[min(BINS - 1, int(confidence * BINS))].append((confidence, right))
    rows = []
    for _, members in sorted(bins.items()):
        n = len(members)
        rows.append((n, sum(c for c, _ in members) / n, sum(r for _, r in members) / n))
    total = max(1, len(pairs))
    brier = sum((c - r) ** 2 for c, r in pairs) / total
    return brier, sum(n * abs(c - r) for n, c, r in rows) / total, rows


def confusions(scored: Iterable[Scored]) -> Counter[tuple[str, str]]:
    """How often a wrong or missing finding of a fault's run stood in for what it should have been."""
    pairs = Counter[tuple[str, str]]()
    for s in scored:
        for expected in s.missed:
            pairs.update((expected, given) for given in s.wrong or ("nothing else",))
        if not s.missed:
            pairs.update((f"({s.label['fault']})", given) for given in s.wrong)
    return pairs


# ---------------------------------------------------------------------------------------------
# Text


def percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.0%}"


def share(hits: Iterable[bool]) -> str:
    counted = list(hits)
    return percent(sum(counted) / len(counted) if counted else None)


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return [*lines, *("| " + " | ".join(str(cell) for cell in row) + " |" for row in rows), ""]


def section(title: str, scored: Sequence[Scored]) -> list[str]:
    """One part's scoreboard, in Markdown."""
    faulty = [s for s in scored if s.label["fault"] != "healthy"]
    healthy = [s for s in scored if s.label["fault"] == "healthy"]
    figures = rates(scored)
    alarms = sum(len(s.alarms) for s in healthy)
    alarmed = sum(bool(s.alarms) for s in healthy)
    brier, error, bins = calibration(list(judged(scored)))
    times = sorted(s.seconds for s in scored) or [0.0]
    summary = [
        ("runs with a fault, healthy runs", f"{len(faulty)}, {len(healthy)}"),
        ("macro-F1 over the diagnoses asked for", f"{macro_f1(figures):.3f}"),
        ("first finding is right", share(s.top_hit for s in faulty)),
        ("first finding is right or permitted", share(s.top_tenable for s in faulty)),
        ("everything found that must be", share(not s.missed for s in faulty)),
        ("false alarms per healthy run", f"{alarms / max(1, len(healthy)):.3f} ({alarmed} runs)"),
        ("Brier score, expected calibration error", f"{brier:.3f}, {error:.3f}"),
        ("time per run, median and longest", f"{times[len(times) // 2]:.2f} s, {times[-1]:.2f} s"),
    ]
    rows = [
        (f"`{d}`", r.right, r.wrong, r.missed, percent(r.precision), percent(r.recall), f"{r.f1:.2f}")
        for d, r in figures.items()
    ]
    mixed = [(f"{a} → {b}", n) for (a, b), n in confusions(faulty).most_common(20)]
    lines = [f"## {title}", "", *table(("", ""), summary)]
    lines += table(("diagnosis", "right", "wrong", "missed", "precision", "recall", "F1"), rows)
    lines += ["Expected → found instead (in brackets: found beside what was expected):", ""]
    lines += table(("", "runs"), mixed)
    lines += ["Confidence of findings against how many of them are right:", ""]
    return lines + table(
        ("findings", "mean confidence", "right"), [(n, f"{c:.2f}", f"{right:.2f}") for n, c, right in bins]
    )


INTRODUCTION = """\
<!-- Written by benchmarks/diagnosis.py --write. -->
# Accuracy

Findings on a labelled corpus: real trainings of small models on generated data, with one injected fault each
or none, made by `python -m benchmarks.corpus` (its docstring has the rules of the labels). Tasks and models
of the second part were not looked at when rules were changed; quote those figures. The runs are small and
the faults are clean: on other runs expect less.
"""
TITLES = {"tune": "Part used for tuning", "report": "Part kept apart"}


def scoreboard(scored: Sequence[Scored]) -> str:
    lines = [INTRODUCTION]
    for part, title in TITLES.items():
        lines += section(title, [s for s in scored if s.label["part"] == part])
    return "\n".join(lines)


def errors(scored: Iterable[Scored]) -> Iterator[str]:
    for s in scored:
        if s.wrong or s.missed or (s.label["must"] and not s.top_hit):
            ranked = ", ".join(f"{f.rule} {f.confidence:.2f}" for f in s.found)
            yield f"{s.label['run']}: missed {list(s.missed)}, wrong {list(s.wrong)}; found: {ranked}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("corpus", type=Path, nargs="?", default=Path("build/corpus"))
    parser.add_argument("--errors", action="store_true", help="list the errors of the tune part")
    parser.add_argument("--write", action="store_true", help="write docs/accuracy.md")
    given = parser.parse_args()
    scored = score_corpus(given.corpus)
    print(scoreboard(scored))
    if given.errors:
        print("\n".join(errors(s for s in scored if s.label["part"] == "tune")))
    if given.write:
        (ROOT / "docs" / "accuracy.md").write_text(scoreboard(scored))


if __name__ == "__main__":
    main()
