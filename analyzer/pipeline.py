"""The order of the stages, and the only place that catches everything.

A file, run or rule that fails costs only itself: it becomes a problem of its run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from analyzer._version import __version__
from analyzer.assemble import assemble
from analyzer.checkpoints import open_checkpoint
from analyzer.checkpoints.statistics import layer_stats
from analyzer.discover import LONE_CONFIG, Group, about_anything, discover, passed_over_problem
from analyzer.features import compute, specs
from analyzer.insight import insight, member, waste
from analyzer.model import SEVERITIES, Checkpoint, LayerStats, Problem, Report, Rule, Run, RunReport
from analyzer.remote import local_copies, local_file
from analyzer.rulebook import diagnose, load_rules, verdict

VERDICTS = (*SEVERITIES, "healthy", "not-assessed")
STATISTICS_BYTES = 4 << 30  # of tensors read per run without being asked for checkpoints

Progress = Callable[[int, int, str], None]


def analyze_paths(
    paths: Sequence[str | Path],
    rules: Sequence[Rule] | None = None,
    roles: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> Report:
    """Read, measure and diagnose every run below ``paths``: local ones, URLs, archives.

    What was fetched or unpacked for it is gone when this returns, tensors included.
    """
    rules = load_rules() if rules is None else rules
    with local_copies(paths, progress) as copies:
        problems = copies.problems
        reports = [diagnose_run(run, rules) for run in iter_runs(copies.paths, problems, roles, progress)]
        return copies.shown(to_report(reports, problems))


def read_runs(
    paths: Sequence[str | Path], roles: Mapping[str, str] | None = None
) -> tuple[list[Run], list[Problem]]:
    """The runs below ``paths``, and what could not be read outside any run.

    Files that were fetched or unpacked stay as long as a tensor of these runs may be asked for.
    """
    with local_copies(paths, keep=True) as copies:
        runs = list(iter_runs(copies.paths, copies.problems, roles))
        return copies.kept(copies.shown(runs)), copies.shown(copies.problems)


def iter_runs(
    paths: Sequence[Path],
    problems: list[Problem],
    roles: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> Iterator[Run]:
    """The runs below ``paths``, one at a time; what belongs to none of them goes to ``problems``."""
    found = discover(paths)
    problems += found.problems
    passed_over = list(found.passed_over)
    for i, group in enumerate(found.groups):
        if progress:
            progress(i, len(found.groups), group.path.as_posix())
        yield from runs_of(group, paths, roles or {}, problems, passed_over)
    if passed_over:
        problems.append(passed_over_problem(passed_over))


def runs_of(
    group: Group,
    paths: Sequence[Path],
    roles: Mapping[str, str],
    problems: list[Problem],
    passed_over: list[Path],
) -> Iterator[Run]:
    """The runs of one group; of one without any curve or checkpoint only the problems are left."""
    try:
        runs = assemble(group, run_name(group.path, paths), roles)
    except Exception as error:
        problems.append(_internal(group.path.as_posix(), error))
        return
    for run in runs:
        if run.series or run.checkpoints or run.histograms:
            yield run
        else:
            _tell_curveless(group, run, paths, problems, passed_over)


def _tell_curveless(
    group: Group, run: Run, paths: Sequence[Path], problems: list[Problem], passed_over: list[Path]
) -> None:
    """Say what became of files that gave no run; of mere text and JSON only that they are there."""
    told = {problem.path for problem in run.problems}
    silent = [path for path in (str(log.path) for log in group.logs) if path not in told]
    problems += [Problem(str(config.path), "no-logs", LONE_CONFIG) for config in group.configs]
    for problem in (*run.problems, *(Problem(path, "no-series", "no curve in it") for path in silent)):
        path = Path(problem.path)
        if problem.kind == "no-series" and about_anything(path) and path not in paths:
            passed_over.append(path)
        else:
            problems.append(problem)


def run_name(path: Path, paths: Sequence[Path]) -> str:
    """The run's path below the given folder; the folder's own name for the folder itself."""
    for given in paths:
        if path == given:
            return path.resolve().name
        if given in path.parents:
            return path.relative_to(given).as_posix()
    return path.as_posix()


def diagnose_run(run: Run, rules: Sequence[Rule], most: int | None = STATISTICS_BYTES) -> RunReport:
    """Measure one run and apply the rules."""
    problems = [*run.problems, *(p for c in run.checkpoints for p in c.problems if p not in run.problems)]
    try:
        layers = tuple(checkpoint_layers(run.checkpoints, problems, most))
        features = compute(run, layers)
        findings, not_applicable, rule_problems = diagnose(rules, features, specs())
        problems += rule_problems
        return RunReport(
            run,
            verdict(findings, rules, not_applicable),
            findings,
            not_applicable,
            tuple(problems),
            features,
            layers,
            waste({f.rule for f in findings}, features),
        )
    except Exception as error:
        return RunReport(run, "not-assessed", problems=(*problems, _internal(run.path, error)))


def diagnose_checkpoint(given: str | Path, rules: Sequence[Rule]) -> RunReport:
    """One checkpoint on its own, all of it read; IngestError where it cannot be."""
    with local_file(given) as (path, copies):
        checkpoint = open_checkpoint(path)
        run = Run(path.name, path.as_posix(), checkpoints=(checkpoint,), files=(path.as_posix(),))
        run = replace(run, hyperparameters=checkpoint.hyperparameters)
        return copies.shown(diagnose_run(run, rules, most=None))


def checkpoint_layers(
    checkpoints: Sequence[Checkpoint], problems: list[Problem], most: int | None = STATISTICS_BYTES
) -> Iterator[LayerStats]:
    """Statistics of the tensors of the first and of the last checkpoint of a run.

    Where a file holds either weights or optimizer state, of each kind the first and the last.
    Checkpoints with more than ``most`` bytes of tensors are left out; None reads them all.
    """
    weights = [c for c in checkpoints if any(t.group == "model" for t in c.tensors)]
    states = [c for c in checkpoints if c not in weights]
    for checkpoint in dict.fromkeys([*states[:1], *states[-1:], *weights[:1], *weights[-1:]]):
        size = sum(t.nbytes for t in checkpoint.tensors)
        if most is not None and size > most:
            message = f"{size / 2**30:.1f} GiB of tensors were not read; use `analyze checkpoint` on the file"
            problems.append(Problem(checkpoint.path, "too-large", message))
            continue
        try:
            yield from layer_stats(checkpoint)
        except Exception as error:
            problems.append(_internal(checkpoint.path, error))


def _internal(path: str, error: Exception) -> Problem:
    text = f"{type(error).__name__}: {error}"
    return Problem(
        path, "internal", f"the analyzer failed on this ({text[:200]}); the other runs are not affected"
    )


def to_report(reports: Iterable[RunReport], problems: Iterable[Problem]) -> Report:
    """Worst runs first: by verdict, then number and confidence of findings, then name."""
    ranked = sorted(reports, key=_badness)
    compared = insight(map(member, ranked)) if len(ranked) > 1 else None
    return Report(tuple(ranked), tuple(problems), __version__, compared)


def _badness(report: RunReport) -> tuple[int, int, float, str]:
    worst = [f for f in report.findings if f.severity == report.verdict and f.explained_by is None]
    top = max((f.confidence for f in worst), default=0.0)
    return (VERDICTS.index(report.verdict), -len(worst), -top, report.run.name)
