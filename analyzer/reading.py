"""From paths to runs: what is found is read and assembled, one group of files at a time.

Apart from the pipeline, which goes on from here, so that to read runs loads nothing that measures or
judges them. A group that fails costs only itself.
"""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path

from analyzer.assemble import assemble
from analyzer.discover import LONE_CONFIG, Group, about_anything, discover, passed_over_problem
from analyzer.model import Problem, Run
from analyzer.remote import local_copies

Progress = Callable[[int, int, str], None]


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
        with _collecting_nothing():
            runs = assemble(group, run_name(group.path, paths), roles)
    except Exception as error:
        problems.append(internal(group.path.as_posix(), error))
        return
    for run in runs:
        if run.series or run.checkpoints or run.histograms:
            yield run
        else:
            _tell_curveless(group, run, paths, problems, passed_over)


@contextmanager
def _collecting_nothing() -> Iterator[None]:
    """What is read stays: to look through it for garbage takes up to two fifths of the time (nested JSON)."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def _tell_curveless(
    group: Group, run: Run, paths: Sequence[Path], problems: list[Problem], passed_over: list[Path]
) -> None:
    """Say what became of files that gave no run; of mere text and JSON only that they are there."""
    told = {problem.path for problem in run.problems}
    damaged = {problem.path for problem in run.problems if problem.kind != "no-series"}
    silent = [path for path in (str(log.path) for log in group.logs) if path not in told]
    problems += [Problem(str(config.path), "no-logs", LONE_CONFIG) for config in group.configs]
    for problem in (*run.problems, *(Problem(path, "no-series", "no curve in it") for path in silent)):
        path = Path(problem.path)
        if problem.kind == "no-series" and problem.path in damaged:
            continue  # why there is no curve in it is told
        if problem.kind == "no-series" and about_anything(path) and path not in paths:
            passed_over.append(path)
        else:
            problems.append(problem)


def run_name(path: Path, paths: Sequence[Path]) -> str:
    """The run's path below the given folder; the folder's own name for the folder itself.

    Of several folders the runs below go by the folder's name, too, and by its path where others have it.
    """
    labels = _labels(tuple(paths))
    for given, label in labels.items():
        with suppress(ValueError):  # it lies elsewhere
            below = path.relative_to(given)
            return below.as_posix() if len(labels) == 1 and path != given else (label / below).as_posix()
    return path.as_posix()


@lru_cache(1)
def _labels(paths: tuple[Path, ...]) -> dict[Path, Path]:
    """What to call each folder given that lies in no other one: its name, its path where two have that."""
    every = set(paths)
    tops = [path for path in dict.fromkeys(paths) if every.isdisjoint(path.parents)]
    names = Counter(path.name for path in tops)
    own = (path if names[path.name] > 1 else Path(path.name or path.resolve().name) for path in tops)
    return dict(zip(tops, own, strict=True))


def internal(path: str, error: Exception) -> Problem:
    text = f"{type(error).__name__}: {error}"
    return Problem(
        path, "internal", f"the analyzer failed on this ({text[:200]}); the other runs are not affected"
    )
