"""Post-hoc analysis of deep-learning training logs and checkpoints.

>>> import analyzer
>>> report = analyzer.analyze("runs")
>>> [(run.run.name, run.verdict) for run in report.runs]
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING

from analyzer._version import __version__

if TYPE_CHECKING:
    from analyzer.model import Checkpoint, Finding, LayerStats, Report, Run, Series

__all__ = ["__version__", "analyze", "diagnose", "inspect_checkpoint", "read"]

StrPath = str | PathLike[str]


def read(path: StrPath | Sequence[StrPath], *, roles: Mapping[str, str] | None = None) -> list[Run]:
    """Every run at or below ``path``; ``roles`` maps tags to roles where the table errs.

    What could not be read is in each run's ``problems``; :class:`analyzer.errors.IngestError` says
    why there is no run at all. A folder that holds nothing of the kind gives an empty list.
    """
    from analyzer.errors import IngestError
    from analyzer.pipeline import read_runs

    runs, problems = read_runs(_paths(path), roles)
    told = [problem for problem in problems if problem.kind not in ("passed-over", "no-logs")]
    if told and not runs:
        raise IngestError(told[0].path, told[0].message, told[0].kind, told[0].offset)
    return runs


def analyze(
    source: StrPath | Run | Iterable[StrPath | Run],
    *,
    rules: Iterable[StrPath] = (),
    roles: Mapping[str, str] | None = None,
) -> Report:
    """Diagnose runs, given as paths or as what :func:`read` returned.

    ``rules`` are folders of further rules. Raises :class:`analyzer.errors.RuleError` when one of
    them is broken.
    """
    from analyzer import pipeline
    from analyzer.model import Run
    from analyzer.rulebook import load_rules

    loaded = load_rules(_paths(list(rules)))
    given = [source] if isinstance(source, (str, PathLike, Run)) else list(source)
    runs = [item for item in given if isinstance(item, Run)]
    paths = _paths([item for item in given if not isinstance(item, Run)])
    report = pipeline.analyze_paths(paths, loaded, roles)
    if not runs:
        return report
    return pipeline.to_report(
        [*report.runs, *(pipeline.diagnose_run(r, loaded) for r in runs)], report.problems
    )


def diagnose(
    curves: Mapping[str, Sequence[float]],
    *,
    steps: Sequence[float] | None = None,
    hyperparameters: Mapping[str, str | int | float | bool | None] | None = None,
) -> list[Finding]:
    """Findings for curves in memory, keyed by role (``train_loss``) or by tag.

    ``steps`` is shared by all curves and defaults to 0, 1, 2, ...; a curve may end before it does.
    Raises ValueError for what is no curve.
    """
    from analyzer.assemble import ordered
    from analyzer.model import Run
    from analyzer.pipeline import diagnose_run
    from analyzer.roles import ROLES, with_roles
    from analyzer.rulebook import load_rules

    series = [_series(tag, values, steps) for tag, values in curves.items()]
    named = with_roles(series, {tag: tag for tag in curves if tag in ROLES})
    run = Run("run", "", tuple(ordered(s) for s in named), hyperparameters=dict(hyperparameters or {}))
    return list(diagnose_run(run, load_rules()).findings)


def _series(tag: str, values: Sequence[float], steps: Sequence[float] | None) -> Series:
    import numpy as np

    from analyzer.model import Series

    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1:
        raise ValueError(f"{tag}: a curve has one axis, not {array.ndim}")
    axis = np.arange(len(array)) if steps is None else np.asarray(steps)[: len(array)]
    if len(axis) < len(array):
        raise ValueError(f"{tag}: {len(array)} values and only {len(axis)} steps")
    return Series(tag, axis.astype(np.float64), array)


def inspect_checkpoint(path: StrPath) -> tuple[Checkpoint, list[LayerStats]]:
    """A checkpoint's contents and the statistics of its tensors, without executing any of it.

    Raises :class:`analyzer.errors.IngestError` for a file that cannot be read.
    """
    from analyzer.checkpoints import open_checkpoint
    from analyzer.checkpoints.statistics import layer_stats
    from analyzer.remote import local_file

    with local_file(path, keep=True) as (file, copies):
        checkpoint = open_checkpoint(file)
        layers = list(layer_stats(checkpoint))
        return copies.kept(copies.shown(checkpoint)), copies.shown(layers)


def _paths(given: StrPath | Sequence[StrPath]) -> list:  # type: ignore[type-arg]
    from analyzer.remote import source

    return [source(p) for p in ([given] if isinstance(given, (str, PathLike)) else given)]
