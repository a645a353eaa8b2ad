"""Which framework trained a run: its own code is advised first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import PurePath

from analyzer.model import Finding, Remedy, Run

KERAS_TAGS = frozenset({"train/epoch_loss", "validation/epoch_loss"})  # of its TensorBoard callback


def framework(run: Run) -> str:
    """``transformers``, ``lightning`` or ``keras`` where files only they write are there; else ``pytorch``."""
    names = {PurePath(file).name for file in run.files}
    if "trainer_state.json" in names:
        return "transformers"
    if "hparams.yaml" in names or any("pytorch-lightning_version" in c.metadata for c in run.checkpoints):
        return "lightning"
    tags = {series.tag for series in run.series}
    if tags & KERAS_TAGS or any(name.endswith((".keras", ".weights.h5")) for name in names):
        return "keras"
    return "pytorch"


def own_first(findings: Sequence[Finding], run: Run) -> tuple[Finding, ...]:
    """The findings, each remedy's code for the run's framework before that for others."""
    own = framework(run)
    if own == "pytorch":  # every remedy has it, and first
        return tuple(findings)
    return tuple(replace(f, remedies=tuple(_with_first(own, r) for r in f.remedies)) for f in findings)


def _with_first(own: str, remedy: Remedy) -> Remedy:
    snippets = dict(sorted(remedy.snippets.items(), key=lambda item: item[0] != own))
    return replace(remedy, snippets=snippets)
