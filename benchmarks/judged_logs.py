"""Real logs of other people that a person has judged, where the folder is there: totals of agreement.

The folder holds ``INDEX.tsv`` with the columns ``file``, ``judgement`` (words, by comma) and ``confidence``
(high, med, low). A judgement is a glance at a plot, so that a word stands for several diagnoses
(``MEANS``) and the words of ``SOFT`` ask for nothing.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[2] / "shared" / "real_logs"
MEANS = {
    "overfitting": "overfitting train-val-mismatch",
    "underfitting": "underfitting loss-not-decreasing loss-plateau slow-convergence",
    "plateau": "loss-plateau loss-not-decreasing underfitting converged lr-schedule-decays-early",
    "oscillation": "oscillating-loss lr-too-high loss-spikes",
    "divergence": "loss-divergence nan-loss lr-too-high exploding-gradients",
    "nan": "nan-loss nan-weights",
    "spikes": "loss-spikes data-outliers",
    "lr-too-high": "lr-too-high oscillating-loss loss-divergence loss-not-decreasing",
    "lr-too-low": "lr-too-low slow-convergence undertrained loss-not-decreasing",
    "unfinished": "undertrained slow-convergence",
}
SOFT = {"unfinished", "gan/rl", "unclear", "plateau"}

Judged = tuple[str, frozenset[str], str]  # file, words, confidence
Diagnose = Callable[[Path, list[str]], list[tuple[str, str]] | None]


def judged(confidences: Iterable[str] = ("high", "med")) -> Iterator[Judged]:
    """Rows of the index that say something."""
    if not (FOLDER / "INDEX.tsv").exists():
        return
    with (FOLDER / "INDEX.tsv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            words = frozenset(w.strip() for w in row["judgement"].split(",")) - {"", "n/a"}
            if words - {"unclear"} and row["confidence"] in confidences:
                yield row["file"], words, row["confidence"]


def accepted(words: Iterable[str]) -> list[str]:
    return [name for word in sorted(words) for name in MEANS.get(word, "").split()]


def outcome(words: frozenset[str], found: list[tuple[str, str]] | None) -> str:
    """``healthy: quiet``, ``alarm`` or ``not read``; ``fault: found``, ``in part``, ``missed`` or ``not read``;
    ``soft`` or ``soft: not read``."""
    hard = (words & MEANS.keys()) - SOFT
    if found is None:
        return f"{'fault' if hard else 'healthy' if 'healthy' in words else 'soft'}: not read"
    named = {name for name, _ in found}
    if hard:
        met = [word for word in hard if named & set(MEANS[word].split())]
        return "fault: found" if len(met) == len(hard) else "fault: in part" if met else "fault: missed"
    if "healthy" not in words:
        return "soft"
    alarms = {name for name, severity in found if severity != "info"} - set(accepted(words))
    return "healthy: alarm" if alarms else "healthy: quiet"


def totals(diagnose: Diagnose, confidences: Iterable[str] = ("high", "med")) -> Counter[str]:
    """Outcomes of all judged files; ``diagnose`` gets a path and the ids a judgement would accept.

    It is asked for the file's folder where it can do nothing with the file.
    """
    counts: Counter[str] = Counter()
    for file, words, _ in judged(confidences):
        found = diagnose(FOLDER / file, accepted(words))
        if found is None:
            found = diagnose((FOLDER / file).parent, accepted(words))
        counts[outcome(words, found)] += 1
    return counts
