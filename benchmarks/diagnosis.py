"""How often the analyzer is right: its findings on the labelled corpus against the labels.

    python -m benchmarks.corpus build/corpus
    python -m benchmarks.diagnosis build/corpus            # the scoreboard
    python -m benchmarks.diagnosis build/corpus --errors   # and every error of the tune part
    python -m benchmarks.diagnosis build/corpus --write    # writes docs/accuracy.md

How a run is counted: a finding whose id is in ``must`` is right, in ``may`` or ``true`` neither right nor
wrong, anything else wrong, unless it is only a remark (severity info). Where ``must`` offers alternatives,
those that were found are right; if none was, the first is missed. The first finding is right when it is in
``must`` or in ``true``. A confidence is judged where its finding is a warning or worse: right in ``must`` or
``true``, wrong where it counts as wrong.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

from analyzer.model import Rule
from analyzer.pipeline import diagnose_run, read_runs
from analyzer.rulebook import load_rules
from benchmarks import judged_logs, rivals

ROOT = Path(__file__).resolve().parents[1]
REMARKS = {"converged", "no-early-stopping", "clipping-saturated", "low-rank-layer", "log-damaged"}
BINS = 10
OURS = "analyzer"


@dataclass(frozen=True)
class Found:
    """One finding, as far as scoring goes; ``margin`` as in :class:`analyzer.model.Finding`."""

    rule: str
    severity: str
    confidence: float
    margin: float = 1.0


@dataclass(frozen=True)
class Scored:
    """One run against its label: ids that are right, wrong and missed; ``seconds`` None: could not be read."""

    label: Mapping[str, Any]
    found: tuple[Found, ...]
    right: tuple[str, ...]
    wrong: tuple[str, ...]
    missed: tuple[str, ...]
    seconds: float | None

    @property
    def first(self) -> str:
        """The first finding that is no remark, or was asked for; or nothing."""
        asked = wanted(self.label)
        return next((f.rule for f in self.found if f.rule not in REMARKS or f.rule in asked), "")

    @property
    def top_hit(self) -> bool:
        return self.first in wanted(self.label) | true(self.label)

    @property
    def top_tenable(self) -> bool:
        return self.top_hit or self.first in self.label["may"]

    @property
    def alarms(self) -> list[str]:
        return [f.rule for f in self.found if f.severity != "info" and f.rule in self.wrong]


def wanted(label: Mapping[str, Any]) -> set[str]:
    return {name for entry in label["must"] for name in entry.split("|")}


def true(label: Mapping[str, Any]) -> set[str]:
    return set(label.get("true", ()))


def score(label: Mapping[str, Any], found: Sequence[Found], seconds: float | None = 0.0) -> Scored:
    """Sort the findings of one run into right and wrong, and say what is missed."""
    ids = {f.rule for f in found if f.severity != "info"} | ({f.rule for f in found} & wanted(label))
    right = ids & wanted(label)
    wrong = ids - right - set(label["may"]) - true(label) - REMARKS
    choices = [entry.split("|") for entry in label["must"]]
    missed = [choice[0] for choice in choices if not ids & set(choice)]
    return Scored(label, tuple(found), tuple(sorted(right)), tuple(sorted(wrong)), tuple(missed), seconds)


def analyse(folder: Path, rules: Sequence[Rule]) -> tuple[list[Found], float]:
    """The findings of all runs below a folder, ranked, and the seconds that took."""
    began = time.perf_counter()
    runs, _ = read_runs([folder])
    findings = [f for run in runs for f in diagnose_run(run, rules).findings]
    seconds = time.perf_counter() - began
    return [Found(f.rule, f.severity, f.confidence, f.margin) for f in findings], seconds


@cache
def rulebook() -> Sequence[Rule]:
    return load_rules()


def score_run(tool: str, corpus: Path, label: Mapping[str, Any]) -> Scored:
    folder = corpus / "runs" / label["run"]
    if tool == OURS:
        return score(label, *analyse(folder, rulebook()))
    began = time.perf_counter()
    found = rivals.findings(tool, folder, rivals.preferences(label))
    seconds = None if found is None else time.perf_counter() - began
    return score(label, [Found(rule, severity, 1.0) for rule, severity in found or ()], seconds)


def labels_of(corpus: Path) -> list[Mapping[str, Any]]:
    lines = (corpus / "labels.jsonl").read_text().splitlines()
    return sorted((json.loads(line) for line in lines), key=lambda label: str(label["run"]))


def score_corpus(
    corpus: Path, labels: Sequence[Mapping[str, Any]], tool: str = OURS, jobs: int = 1
) -> list[Scored]:
    work = partial(score_run, tool, corpus)
    if jobs == 1:
        return [work(label) for label in labels]
    with ProcessPoolExecutor(jobs) as pool:
        return list(pool.map(work, labels, chunksize=8))


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
    """Mean F1 over the diagnoses that labels ask for."""
    asked = [r.f1 for r in table.values() if r.right + r.missed]
    return sum(asked) / max(1, len(asked))


def judged(scored: Iterable[Scored]) -> Iterator[tuple[Found, bool]]:
    """Every warning or worse that is right or wrong, and which."""
    for s in scored:
        for f in s.found:
            if f.severity == "info" or f.rule in REMARKS:
                continue
            if f.rule in s.right or f.rule in s.wrong or f.rule in true(s.label):
                yield f, f.rule not in s.wrong


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
            pairs.update((expected, given) for given in s.wrong or ("nothing wrong",))
        if not s.missed:
            pairs.update((f"({s.label['fault']})", given) for given in s.wrong)
    return pairs


@dataclass(frozen=True)
class Summary:
    """The figures of one tool on one part."""

    faulty: int
    healthy: int
    macro: float
    first: float
    tenable: float
    complete: float
    alarmed: int  # healthy runs with a false alarm
    alarms: int
    unread: int
    median: float  # seconds


def summary(scored: Sequence[Scored]) -> Summary:
    faulty, healthy = halves(scored)
    times = sorted(s.seconds for s in scored if s.seconds is not None) or [0.0]
    return Summary(
        len(faulty),
        len(healthy),
        macro_f1(rates(scored)),
        mean(s.top_hit for s in faulty),
        mean(s.top_tenable for s in faulty),
        mean(not s.missed for s in faulty),
        sum(bool(s.alarms) for s in healthy),
        sum(len(s.alarms) for s in healthy),
        sum(s.seconds is None for s in scored),
        times[len(times) // 2],
    )


def halves(scored: Iterable[Scored]) -> tuple[list[Scored], list[Scored]]:
    """Runs with a fault, and healthy ones."""
    faulty: list[Scored] = []
    healthy: list[Scored] = []
    for s in scored:
        (healthy if s.label["fault"] == "healthy" else faulty).append(s)
    return faulty, healthy


def mean(hits: Iterable[bool]) -> float:
    counted = list(hits)
    return sum(counted) / max(1, len(counted))


# ---------------------------------------------------------------------------------------------
# Text


def percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.0%}"


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return [*lines, *("| " + " | ".join(str(cell) for cell in row) + " |" for row in rows), ""]


def comparison(by_tool: Mapping[str, Sequence[Scored]]) -> list[str]:
    """All tools on one part."""
    rows = []
    for tool, scored in by_tool.items():
        s = summary(scored)
        alarms = f"{s.alarms / max(1, s.healthy):.2f} ({s.alarmed} of {s.healthy} runs)"
        row = (f"{s.macro:.3f}", percent(s.first), percent(s.tenable), percent(s.complete))
        rows.append((tool, *row, alarms, s.unread, f"{s.median:.3f} s"))
    head = (
        "",
        "macro-F1",
        "first finding right",
        "right or permitted",
        "all found",
        "false alarms per healthy run",
    )
    return table((*head, "not read", "time per run"), rows)


def section(scored: Sequence[Scored], details: bool) -> list[str]:
    """One part's scoreboard, in Markdown; ``details`` are of runs, not of diagnoses."""
    figures = rates(scored)
    brier, error, bins = calibration([(f.confidence, right) for f, right in judged(scored)])
    rows = [
        (f"`{d}`", r.right, r.wrong, r.missed, percent(r.precision), percent(r.recall), f"{r.f1:.2f}")
        for d, r in figures.items()
    ]
    lines = table(("diagnosis", "right", "wrong", "missed", "precision", "recall", "F1"), rows)
    if details:
        mixed = [(f"{a} → {b}", n) for (a, b), n in confusions(scored).most_common(20)]
        lines += ["Expected → found instead (in brackets: found beside what was expected):", ""]
        lines += table(("", "runs"), mixed)
    lines += [f"Confidence: Brier score {brier:.3f}, expected calibration error {error:.3f}.", ""]
    reliability = [(n, f"{c:.2f}", f"{right:.2f}") for n, c, right in bins]
    return lines + table(("findings", "mean confidence", "share right"), reliability)


INTRODUCTION = """\
<!-- Written by python -m benchmarks.diagnosis CORPUS --write; edit that instead. -->
# Accuracy

Findings on a labelled corpus: real trainings of small models on generated data, with one injected fault each
or none, made by `python -m benchmarks.corpus`. [benchmarks/corpus/README.md](../benchmarks/corpus/README.md)
has the rules of the labels. Programs (pairs of task and model) are either for tuning or for reporting. No run of
the reporting part was looked at when rules were changed, though its table was, so it is nearly, not strictly,
unseen: quote those figures. The runs are small and the faults are clean: on other runs expect less.
"""
MAPPING = """\
The other tools have fewer checks under other names. Each of their checks counts as whichever diagnosis it
could stand for (`benchmarks/rivals.py` has the list): of several, the one that the label asks for.
"""
TITLES = {"tune": "Part used for tuning", "report": "Part for reporting"}


def scoreboard(by_tool: Mapping[str, Sequence[Scored]], logs: Mapping[str, Counter[str]]) -> str:
    ours = by_tool[OURS]
    lines = [INTRODUCTION]
    for part, title in reversed(TITLES.items()):
        chosen = {tool: [s for s in scored if s.label["part"] == part] for tool, scored in by_tool.items()}
        counts = summary(chosen[OURS])
        lines += [f"## {title}", "", f"{counts.faulty} runs with a fault, {counts.healthy} healthy runs.", ""]
        lines += comparison(chosen)
        lines += [MAPPING] if part == "report" and len(by_tool) > 1 else []
        lines += section(chosen[OURS], details=part == "tune")
        if part == "report":
            lines += real_logs(logs) + worst([s for s in ours if s.label["part"] == part])
    return "\n".join(lines)


def real_logs(logs: Mapping[str, Counter[str]]) -> list[str]:
    if not logs:
        return []
    rows = []
    for tool, n in logs.items():
        faults, healthy = (
            sum(count for outcome, count in n.items() if outcome.startswith(kind))
            for kind in ("fault", "healthy")
        )
        found = f"{n['fault: found']} (+{n['fault: in part']} in part) of {faults}"
        unread = sum(count for outcome, count in n.items() if outcome.endswith("not read"))
        rows.append((tool, found, f"{n['healthy: alarm']} of {healthy}", f"{unread} of {n.total()}"))
    text = "Training logs of other people's runs, judged by eye from plots of their curves before this tool saw them:"
    return ["## Real logs", "", text, "", *table(("", "faults found", "false alarms", "not read"), rows)]


REASONS = {
    "missed": "it stays silent where the fault is there",
    "wrong": "it speaks where the label does not permit it",
}


def worst(scored: Sequence[Scored]) -> list[str]:
    """The three diagnoses of lowest F1, and what stands in their way."""
    figures = rates(scored)
    asked = sorted((d for d, r in figures.items() if r.right + r.missed), key=lambda d: (figures[d].f1, d))[
        :3
    ]
    lines = ["## The worst three", ""]
    for d in asked:
        r = figures[d]
        reason = REASONS["missed" if r.missed >= r.wrong else "wrong"]
        lines += [
            f"- `{d}`: F1 {r.f1:.2f}, {r.wrong} wrong and {r.missed} missed; {reason}. {WOULD_HELP.get(d, '')}"
        ]
    return [*lines, ""]


# What a diagnosis needs beyond what logs of this kind hold, or what rules do not use yet.
WOULD_HELP = {
    "class-imbalance": "Class counts, or one metric per class, in the log would settle it.",
    "data-outliers": "Logged positions of the examples in a batch would tell outliers from other spikes.",
    "dead-relu": "Zero fractions of activations would have to be logged, or the model run.",
    "exploding-gradients": "Norms per layer, and what an ordinary norm is for the number of parameters.",
    "label-leakage": "Knowing how hard the task is: a sound run of an easy task looks alike.",
    "loss-not-decreasing": "The chance level, from labels or outputs, where the loss has no natural zero.",
    "loss-plateau": "A reference for how low the loss of this task can go.",
    "loss-spikes": "Every step's loss: a mean over ten steps hides a jump of one.",
    "low-rank-layer": "Checkpoints from the beginning of the run, to tell collapse from design.",
    "lr-too-high": "A logged learning rate that changes within the run, as a natural experiment.",
    "lr-too-low": "Update-to-weight ratios in the log.",
    "no-early-stopping": "More evaluations: with few of them the best one is partly luck.",
    "oscillating-loss": "Every step's loss, to tell swings from the noise of batches.",
    "overfitting": "More and larger evaluations; an accuracy beside the loss.",
    "saturated-activations": "Shares of saturated outputs, or histograms, in the log.",
    "slow-convergence": "A reference for how low the loss of this task can go.",
    "train-val-mismatch": "An evaluation before the first step and one on training data in evaluation mode.",
    "underfitting": "A reference: the chance level or the variance of the targets.",
    "undertrained": "Longer logs: a fall of a few percent is within the noise of a short tail.",
    "unshuffled-data": "Every step's loss and the number of steps of an epoch.",
    "vanishing-gradients": "Gradient norms of more than a few layers.",
}


def errors(scored: Iterable[Scored]) -> Iterator[str]:
    for s in scored:
        if s.wrong or s.missed or (s.label["must"] and not s.top_hit):
            ranked = ", ".join(f"{f.rule} {f.confidence:.2f}" for f in s.found)
            asked = f"must {list(s.label['must'])}, true {sorted(true(s.label))}"
            yield f"{s.label['run']}: missed {list(s.missed)}, wrong {list(s.wrong)}; {asked}; found: {ranked}"


def ours_on_real_logs() -> Counter[str]:
    """Reads the whole folder at once, as a user would; a judged file belongs to the innermost run above it."""
    runs, _ = read_runs([judged_logs.FOLDER])
    found = {Path(run.path).resolve(): diagnose_run(run, rulebook()).findings for run in runs}

    def diagnose(file: Path, _: list[str]) -> list[tuple[str, str]] | None:
        above = [path for path in (file.resolve(), *file.resolve().parents) if path in found]
        return [(f.rule, f.severity) for f in found[above[0]]] if above else None

    return judged_logs.totals(diagnose)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("corpus", type=Path, nargs="?", default=Path("build/corpus"))
    parser.add_argument("--errors", action="store_true", help="list the errors of the tune part")
    parser.add_argument("--write", action="store_true", help="write docs/accuracy.md")
    parser.add_argument("--alone", action="store_true", help="without other tools and real logs")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    given = parser.parse_args()
    tools = [OURS] if given.alone else [OURS, *rivals.installed()]
    labels = labels_of(given.corpus)
    by_tool = {tool: score_corpus(given.corpus, labels, tool, given.jobs) for tool in tools}
    logs: dict[str, Counter[str]] = {}
    if not given.alone and judged_logs.FOLDER.exists():
        logs = {tool: judged_logs.totals(partial(rivals.findings, tool)) for tool in tools[1:]}
        logs = {OURS: ours_on_real_logs(), **logs}
    text = scoreboard(by_tool, logs)
    print(text)
    if given.errors:
        print("\n".join(errors(s for s in by_tool[OURS] if s.label["part"] == "tune")))
    if given.write:
        (ROOT / "docs" / "accuracy.md").write_text(text)


if __name__ == "__main__":
    main()
