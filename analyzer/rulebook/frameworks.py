"""Which framework trained a run: its own code is advised first."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import PurePath

from analyzer.model import Finding, Remedy, Run

VERSION = re.compile(r"version_\d+")  # Lightning's folder of one run
KERAS_TAGS = frozenset({"train/epoch_loss", "validation/epoch_loss"})  # of its TensorBoard callback


def framework(run: Run) -> str:
    """``transformers``, ``lightning`` or ``keras`` where files only they write are there; else ``pytorch``.

    Others write ``hparams.yaml``, too, but not into ``version_0`` or beside ``metrics.csv``.
    """
    files = [PurePath(file) for file in run.files]
    names = {file.name for file in files}
    if "trainer_state.json" in names:
        return "transformers"
    versions = any(file.name == "hparams.yaml" and VERSION.fullmatch(file.parent.name) for file in files)
    stamped = any("pytorch-lightning_version" in c.metadata for c in run.checkpoints)
    if versions or stamped or names >= {"hparams.yaml", "metrics.csv"}:
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
