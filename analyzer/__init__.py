"""Post-hoc analysis of deep-learning training logs and checkpoints.

>>> import analyzer
>>> report = analyzer.analyze("runs")
>>> [(run.run.name, run.verdict) for run in report.runs]
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any

from analyzer._version import __version__

if TYPE_CHECKING:
    from pandas import DataFrame

    from analyzer.auditing.course import Audit
    from analyzer.model import Checkpoint, Finding, LayerStats, Run
    from analyzer.notebook import Report

__all__ = ["__version__", "analyze", "audit", "diagnose", "inspect_checkpoint", "read"]

StrPath = str | PathLike[str]


def read(path: StrPath | Sequence[StrPath], *, roles: Mapping[str, str] | None = None) -> list[Run]:
    """Every run at or below ``path``; ``roles`` maps tags to roles where the table errs.

    What could not be read is in each run's ``problems``; :class:`analyzer.errors.IngestError` says
    why there is no run at all. A folder that holds nothing of the kind gives an empty list.
    """
    from analyzer.errors import IngestError
    from analyzer.reading import read_runs

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
    from analyzer import notebook, pipeline
    from analyzer.model import Run
    from analyzer.rulebook import load_rules

    loaded = load_rules(_paths(list(rules)))
    given = [source] if isinstance(source, (str, PathLike, Run)) else list(source)
    runs = [item for item in given if isinstance(item, Run)]
    paths = _paths([item for item in given if not isinstance(item, Run)])
    report = pipeline.analyze_paths(paths, loaded, roles)
    if runs:
        diagnosed = (pipeline.diagnose_run(r, loaded) for r in runs)
        report = pipeline.to_report([*report.runs, *diagnosed], report.problems)
    return notebook.of(report)


def audit(
    root: StrPath | Sequence[StrPath],
    *,
    jobs: int | None = None,
    ledger: StrPath | None = None,
    rules: Iterable[StrPath] = (),
    roles: Mapping[str, str] | None = None,
    where: str = "",
    limit: int | None = None,
    since: float | None = None,
) -> Audit:
    """Diagnose all runs below ``root``, reading only what changed since the last time.

    ``jobs`` processes (default: the cores there are) do the work; ``ledger`` is the file in which it is
    remembered (default: ``.analyzer/audit.sqlite`` in ``root``). ``where`` is a condition on
    hyperparameters, ``limit`` takes the runs changed last, ``since`` those changed after that time
    (seconds since 1970). Raises :class:`analyzer.errors.AnalyzerError` with what to do about it.
    """
    from pathlib import Path

    from analyzer.auditing import course
    from analyzer.auditing.engines import Engine, cores

    options = course.Options(
        engine=Engine(jobs=jobs or cores()),
        ledger=None if ledger is None else Path(ledger),
        limit=limit,
        since=since,
        where=where,
        rules=tuple(map(str, _paths(list(rules)))),
        roles=tuple((roles or {}).items()),
    )
    return course.audit(_paths(root), options)


def diagnose(
    curves: Mapping[str, Sequence[float]] | DataFrame | Iterable[Mapping[str, Any]],
    *,
    steps: Sequence[float] | None = None,
    hyperparameters: Mapping[str, str | int | float | bool | None] | None = None,
) -> list[Finding]:
    """Findings for curves in memory: a dictionary, a DataFrame, or rows such as a trainer's log history.

    Keys and columns are roles (``train_loss``) or tags. ``steps`` is shared by all curves of a dictionary
    and defaults to 0, 1, 2, ...; a curve may end before it does; see :func:`analyzer.memory.run_of`.
    Raises ValueError for what is no curve.
    """
    from analyzer.memory import run_of
    from analyzer.pipeline import diagnose_run
    from analyzer.rulebook import load_rules

    return list(diagnose_run(run_of(curves, steps, hyperparameters), load_rules()).findings)


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
