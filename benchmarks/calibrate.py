"""Fits the confidence of findings on the tuning part of the corpus: analyzer/rulebook/confidence.json.

    python -m benchmarks.calibrate CORPUS... [--check]     with --check, nothing is written

Several corpora count together: the usual one and further turns of its tuning part (``--part tune --seeds 5``).

Per rule, warnings of its that are right and wrong (as :mod:`benchmarks.diagnosis` counts them). How much a
rule's own estimate is worth against these counts, and what a margin says, are chosen so that runs of a program
are foretold best by those of the others: confidence is needed for programs that nobody has seen.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import median

from analyzer.rulebook import load_rules
from analyzer.rulebook.confidence import FILE, Calibration, bounded, confidence
from benchmarks.diagnosis import Scored, calibration, judged, labels_of, score_corpus

TRUSTS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
SLOPES = (0.25, 0.5, 1.0, 1.5, 2.0, 3.0)
NO_MARGIN = 1.0  # of a finding that rests on a fact, see Finding.margin


@dataclass(frozen=True)
class Case:
    """One finding whose truth is known."""

    program: str
    rule: str
    margin: float | None
    right: bool


def cases(scored: Iterable[Scored]) -> list[Case]:
    return [
        Case(s.label["program"], f.rule, None if f.margin == NO_MARGIN else f.margin, right)
        for s in scored
        for f, right in judged([s])
    ]


def counted(known: Iterable[Case]) -> dict[str, tuple[int, int]]:
    tally = Counter((case.rule, case.right) for case in known)
    return {rule: (tally[rule, True], tally[rule, False]) for rule in sorted({rule for rule, _ in tally})}


def foretold(known: Sequence[Case], fitted: Calibration, estimates: dict[str, float]) -> float:
    """Sum of the log-losses of ``known``."""
    total = 0.0
    for case in known:
        p = confidence(case.rule, estimates.get(case.rule, 0.5), case.margin, fitted)
        total -= math.log(p if case.right else 1 - p)
    return total


def fit(known: Sequence[Case], estimates: dict[str, float]) -> Calibration:
    """The best of a few settings, by leaving out one program after another."""
    usual = median(bounded(case.margin) for case in known if case.margin is not None)
    programs = sorted({case.program for case in known})
    folds = [
        ([c for c in known if c.program == p], counted(c for c in known if c.program != p)) for p in programs
    ]

    def loss(setting: tuple[float, float]) -> float:
        made = ((out, Calibration(counts, setting[0], setting[1], usual)) for out, counts in folds)
        return sum(foretold(out, fitted, estimates) for out, fitted in made)

    trust, slope = min(product(TRUSTS, SLOPES), key=loss)
    return Calibration(counted(known), trust, slope, usual)


def written(fitted: Calibration, provenance: dict[str, object]) -> str:
    rules = {rule: {"right": right, "wrong": wrong} for rule, (right, wrong) in fitted.counts.items()}
    values = {"trust": fitted.trust, "slope": fitted.slope, "usual": round(fitted.usual, 4)}
    return json.dumps({"provenance": provenance, **values, "rules": rules}, indent=1) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("corpus", type=Path, nargs="+")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--jobs", type=int, default=2)
    given = parser.parse_args()
    scored = [s for c in given.corpus for s in score_corpus(c, labels_of(c), jobs=given.jobs)]
    estimates = {rule.id: rule.confidence for rule in load_rules()}
    tune = [s for s in scored if s.label["part"] == "tune"]
    fitted = fit(cases(tune), estimates)
    for part in ("tune", "report"):
        known = cases(s for s in scored if s.label["part"] == part)
        pairs = [(confidence(c.rule, estimates[c.rule], c.margin, fitted), c.right) for c in known]
        brier, error, _ = calibration(pairs)
        print(f"{part}: {len(pairs)} findings, Brier {brier:.3f}, expected calibration error {error:.3f}")
    if not given.check:
        digest = hashlib.sha256("".join(sorted(str(s.label["run"]) for s in tune)).encode()).hexdigest()[:12]
        provenance: dict[str, object] = {
            "made_by": "python -m benchmarks.calibrate CORPUS...",
            "corpus": "python -m benchmarks.corpus CORPUS, and further turns of its tuning part",
            "part": "tune",
            "runs": len(tune),
            "findings": len(cases(tune)),
            "runs_digest": digest,
        }
        FILE.write_text(written(fitted, provenance), encoding="utf-8")
    print(f"trust {fitted.trust}, slope {fitted.slope}, usual margin {fitted.usual:.2f}")


if __name__ == "__main__":
    main()
