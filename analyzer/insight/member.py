"""A diagnosed run -> what comparing it with others needs."""

from __future__ import annotations

import hashlib

import numpy as np

from analyzer.model import Best, Features, Measurement, Member, Run, RunReport

BEST_ROLES = ("val_loss", "val_metric", "reward", "train_loss")
TELLING = 5  # points: shorter or constant curves are alike in many runs


def member(report: RunReport) -> Member:
    """The run's findings, best points and configuration. Reads no file."""
    run, features = report.run, report.features
    findings = tuple((f.rule, f.severity) for f in report.findings if f.explained_by is None)
    return Member(
        name=run.name,
        path=run.path,
        verdict=report.verdict,
        findings=findings,
        hyperparameters=dict(run.hyperparameters),
        tags=frozenset(s.tag for s in run.series),
        best=best_points(run, features),
        points=max((s.points for s in run.series), default=0),
        steps=_value(features, "run.steps"),
        hours=_value(features, "run.hours"),
        waste=report.waste,
        rewinds=max((len(s.rewinds) for s in run.series), default=0),
        crashed=any(p.kind == "crashed" for p in report.problems),
        checkpoints=tuple((c.path, c.step) for c in run.checkpoints),
        digest=digest(run),
    )


def best_points(run: Run, features: Features) -> dict[str, Best]:
    """The best point of each role that has one, at the scale it was logged in."""
    found = {}
    for role in BEST_ROLES:
        value, step = _value(features, f"{role}.min"), _value(features, f"{role}.min_step")
        if value is not None and step is not None:
            curves = run.by_role(role) or run.by_role(role.replace("metric", "accuracy"))
            known = [s.direction for s in curves if s.direction != "unknown"]
            found[role] = Best(value, step, known[0] if known else "higher" if role == "reward" else "lower")
    return found


def digest(run: Run) -> str:
    """A fingerprint of the tags, steps and values of all curves that say something; "" without any."""
    telling = [s for s in run.series if s.points >= TELLING and np.ptp(s.values) != 0]
    if not telling:
        return ""
    found = hashlib.blake2b(digest_size=16)
    steps = np.empty(0)
    for series in sorted(telling, key=lambda s: (s.tag, s.points)):
        found.update(series.tag.encode("utf-8", "surrogatepass") + b"\0")
        if not np.array_equal(series.steps, steps):  # most curves have those of the one before
            steps = series.steps
            found.update(np.ascontiguousarray(steps).data)
        found.update(np.ascontiguousarray(series.values).data)
    return found.hexdigest()


def _value(features: Features, name: str) -> float | None:
    found = features.get(name)
    return found.value if isinstance(found, Measurement) else None
