"""What several runs tell together, in sentences: the same in every output format."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import takewhile

from analyzer.model import Association, Cohort, Insight, Outlier, Replicates, WasteTotal, Winner
from analyzer.report.wording import counted, number, percent

NAMED = 3  # names written out before "and n more"
SENTENCES = 5  # of one kind
LITTLE = 0.01  # share of all compute: less waste is not worth a sentence
SHORT = 0.1  # hours not worth naming
FIELD = 3  # runs that a best one must stand out from
ROLE_WORDS = {
    "val_loss": "validation loss",
    "val_metric": "validation metric",
    "train_loss": "training loss",
    "reward": "reward",
}

Section = tuple[str, list[str]]


def sections(insight: Insight) -> list[Section]:
    """(title, sentences) of everything worth saying; [] where there is nothing."""
    cohorts = insight.cohorts
    told = [
        ("Wasted compute", list(_waste(insight.waste))),
        (
            "Hyperparameters that go along with a finding (an association, not proof of a cause)",
            [_association(a) for c in cohorts for a in c.associations],
        ),
        ("Seeds of one configuration", [_replicates(r) for c in cohorts for r in c.replicates]),
        ("Far worse than comparable runs", [_outlier(o, c) for c in cohorts for o in c.outliers]),
        (
            "Best of comparable runs",
            [_winner(w, c) for c in cohorts for w in c.winners[:1] if _telling(w, c)],
        ),
        ("Runs to look at", list(_odd(insight))),
    ]
    return [(title, few(sentences)) for title, sentences in told if sentences]


def few(sentences: Sequence[str]) -> list[str]:
    rest = len(sentences) - SENTENCES
    return list(sentences) if rest <= 0 else [*sentences[:SENTENCES], f"… and {rest} more like these"]


def names(runs: Sequence[str]) -> str:
    """The first few; a folder that all of them lie in is named once."""
    rest = len(runs) - NAMED
    folder = _shared_folder(runs)
    shown = ", ".join(run[len(folder) :] for run in runs[:NAMED])
    within = f" in {folder.rstrip('/')}" if folder else ""
    return (shown if rest <= 0 else f"{shown} and {rest} more") + within


def _shared_folder(runs: Sequence[str]) -> str:
    """With its last slash; "" for one run, and where there is none."""
    if len(runs) < 2:
        return ""
    levels = zip(*(run.split("/")[:-1] for run in runs), strict=False)
    return "".join(f"{level[0]}/" for level in takewhile(lambda level: len(set(level)) == 1, levels))


def _waste(waste: WasteTotal) -> Iterator[str]:
    if not waste.by_rule or waste.share < LITTLE:
        return
    hours = f"; {waste.hours:.1f} of {waste.of_hours:.1f} hours in all" if waste.hours >= SHORT else ""
    yield f"On average {percent(waste.share)} of a run bought nothing{hours}"
    for rule, (runs, _, lost) in list(waste.by_rule.items())[:NAMED]:
        yield f"{rule}: {counted(runs, 'run')}" + (f", {lost:.1f} hours" if lost >= SHORT else "")


def _association(found: Association) -> str:
    what = found.rule or "a finding"
    also = f" (and {', '.join(found.equal[:NAMED])}, which vary alike)" if found.equal else ""
    counts = f"({found.sick} with, {found.healthy} without; p = {number(found.p, 2)} after correction)"
    if found.value:
        shares = f"{percent(found.with_finding)}, with another value {percent(found.without)}"
        return f"With {found.hyperparameter} = {found.value}{also}, {shares} of runs have {what} {counts}"
    medians = f"median {number(found.with_finding)} against {number(found.without)}"
    side = "higher" if found.effect > 0 else "lower"
    return f"Runs with {what} have a {side} {found.hyperparameter}{also}: {medians} {counts}"


def _replicates(group: Replicates) -> str:
    count = len(group.runs)
    held = [f"{rule} in all" for rule in group.always]
    held += [f"{rule} in {n} of {count}" for rule, n in group.sometimes.items()]
    verdict = ", ".join(held) if held else "no finding in any"
    spread = ""
    if group.values:
        word = ROLE_WORDS.get(group.metric, group.metric)
        spread = f"; best {word} {number(min(group.values))} to {number(max(group.values))}"
    return f"{count} runs: {verdict}{spread} ({names(group.runs)})"


def _outlier(outlier: Outlier, cohort: Cohort) -> str:
    word = ROLE_WORDS.get(outlier.metric, outlier.metric)
    return (
        f"{outlier.run}: best {word} {number(outlier.value)}, "
        f"median of {counted(len(cohort.runs), 'comparable run')} {number(outlier.median)}"
    )


def _telling(winner: Winner, cohort: Cohort) -> bool:
    return len(cohort.runs) >= FIELD and winner.metric != "train_loss"


def _winner(winner: Winner, cohort: Cohort) -> str:
    word = ROLE_WORDS.get(winner.metric, winner.metric)
    kept = f", near checkpoint {winner.checkpoint}" if winner.checkpoint else ""
    return (
        f"{winner.run}: {word} {number(winner.value)} at step {number(winner.step)}, "
        f"the best of {counted(len(cohort.runs), 'run')}{kept}"
    )


def _odd(insight: Insight) -> Iterator[str]:
    for same in insight.duplicates:
        yield f"The same curves, point by point: {names(same)}"
    for runs, what in (
        (insight.never_started, "Never started"),
        (insight.died_early, "Crashed or stopped early"),
        (insight.resumed, "Resumed again and again"),
    ):
        if runs:
            yield f"{what}: {names(runs)}"
