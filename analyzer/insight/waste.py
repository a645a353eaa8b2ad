"""Compute that bought nothing, told only where a finding says so."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from analyzer.model import Features, Measurement, Member, Waste, WasteTotal

# Rule -> the share of the run and the hours that it calls wasted: always from some step to the end.
CALLED_WASTE: Mapping[str, tuple[str, str]] = {
    "nan-loss": ("waste.after_nan_share", "waste.after_nan_hours"),
    "loss-divergence": ("waste.after_divergence_share", "waste.after_divergence_hours"),
    "overfitting": ("waste.after_best_share", "waste.after_best_hours"),
    "no-early-stopping": ("waste.after_best_share", "waste.after_best_hours"),
    "loss-plateau": ("train_loss.plateau_share", "waste.plateau_hours"),
    "loss-not-decreasing": ("train_loss.plateau_share", "waste.plateau_hours"),
    "lr-schedule-decays-early": ("lr.zero_share", "waste.annealed_hours"),
}


def waste(rules: Collection[str], features: Features) -> Waste | None:
    """The largest waste that the findings of a run speak of; stretches all last to its end."""
    found = [w for rule in CALLED_WASTE if rule in rules and (w := _of_rule(rule, features))]
    return max(found, key=lambda w: w.share, default=None)


def _of_rule(rule: str, features: Features) -> Waste | None:
    share_name, hours_name = CALLED_WASTE[rule]
    share, hours, steps = (features.get(name) for name in (share_name, hours_name, "run.steps"))
    if not isinstance(share, Measurement) or share.value <= 0:
        return None
    return Waste(
        rule,
        share.value,
        share.value * steps.value if isinstance(steps, Measurement) else None,
        hours.value if isinstance(hours, Measurement) else None,
    )


def total(members: Sequence[Member]) -> WasteTotal:
    """Sums over runs; the mean share is over the runs that were assessed."""
    assessed = [m for m in members if m.verdict != "not-assessed"]
    wasted = [m.waste for m in members if m.waste]
    by_rule: dict[str, tuple[int, float, float]] = {}
    for w in wasted:
        runs, steps, hours = by_rule.get(w.rule, (0, 0.0, 0.0))
        by_rule[w.rule] = (runs + 1, steps + (w.steps or 0.0), hours + (w.hours or 0.0))
    return WasteTotal(
        runs=len(assessed),
        share=sum(w.share for w in wasted) / len(assessed) if assessed else 0.0,
        hours=sum(w.hours or 0.0 for w in wasted),
        of_hours=sum(m.hours or 0.0 for m in members),
        steps=sum(w.steps or 0.0 for w in wasted),
        of_steps=sum(m.steps or 0.0 for m in members),
        by_rule=dict(sorted(by_rule.items(), key=lambda item: (-item[1][2], -item[1][0], item[0]))),
    )
