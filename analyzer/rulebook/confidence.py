"""How sure a finding is: the share of such findings that were right in runs of which the truth is known.

``confidence.json`` holds, for every rule that was measured, how often it was right and wrong on the tuning part
of the labelled corpus, and one slope for all: how much a wider margin speaks for a finding. It is written by
``python -m benchmarks.calibrate``; ``docs/accuracy.md`` says how well it holds on other runs.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

FILE = Path(__file__).with_name("confidence.json")
LEAST, MOST = 0.02, 0.99  # nothing is certain


@dataclass(frozen=True, slots=True)
class Calibration:
    """What was measured: (right, wrong) per rule, and the parameters of :func:`confidence`.

    ``trust`` is the number of findings that a rule's own estimate is worth, ``slope`` what the bounded
    margin adds to the log-odds, ``usual`` the bounded margin at which it adds nothing.
    """

    counts: Mapping[str, tuple[int, int]]
    trust: float
    slope: float
    usual: float


def parse(text: str) -> Calibration:
    data = json.loads(text)
    counts = {rule: (int(found["right"]), int(found["wrong"])) for rule, found in data["rules"].items()}
    return Calibration(counts, float(data["trust"]), float(data["slope"]), float(data["usual"]))


@cache
def shipped() -> Calibration:
    return parse(FILE.read_text(encoding="utf-8"))


def confidence(rule: str, estimate: float, margin: float | None, known: Calibration | None = None) -> float:
    """Probability that a finding of ``rule`` is right, 0 to 1.

    ``estimate`` is what the rule says of itself; the counts correct it. ``margin`` is that of its weakest
    needed comparison, None where a margin has no meaning.
    """
    known = known or shipped()
    base = precision(estimate, *known.counts.get(rule, (0, 0)), known.trust)
    if margin is None:
        return min(base, MOST)
    shift = known.slope * (bounded(margin) - known.usual)
    odds = base / max(1e-9, 1 - base) * math.exp(shift)
    return min(MOST, max(LEAST, odds / (1 + odds)))


def precision(estimate: float, right: int, wrong: int, trust: float) -> float:
    """Mean of a Beta distribution: the estimate, worth ``trust`` findings, and those that were counted."""
    return (right + trust * estimate) / (right + wrong + trust)


def bounded(margin: float) -> float:
    """0 at the threshold, ½ at twice it, towards 1 far beyond."""
    return margin / (1 + margin)
