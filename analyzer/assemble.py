"""A group of files -> ``Run``s: files merged, steps put in order, roles given.

Meaning kept for every format alike:
- a step written twice: the later write wins, the earlier one is counted (``superseded``);
- a log that goes back and goes on (a resumed run): ``rewinds`` names the steps it went back to;
- a log that starts over: a new attempt, a run of its own;
- steps that repeat because the logger had no better counter (many points per epoch): the row
  is the axis;
- zeros logged before a loss was first computed are counted (``leading_zeros``), not removed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from analyzer.checkpoints import open_checkpoint
from analyzer.discover import Group, LogFile
from analyzer.errors import IngestError
from analyzer.model import Checkpoint, FloatArray, Histograms, Problem, Reading, Run, Scalar, Series, Text
from analyzer.roles import with_histogram_roles, with_roles

REPEATED = 0.2  # share of repeated steps beyond which the steps are no axis
ATTEMPT_POINTS = 3  # a first attempt of fewer points is just an overwritten start
LOSS_ROLES = ("train_loss", "val_loss", "train_loss_part", "val_loss_part")
Overrides = Mapping[str, str]


@dataclass(slots=True)
class _Collected:
    """What the files of a group gave, before anything is merged."""

    series: dict[tuple[str, str], list[Series]] = field(default_factory=lambda: defaultdict(list))
    histograms: list[Histograms] = field(default_factory=list)
    texts: list[Text] = field(default_factory=list)
    hyperparameters: dict[str, Scalar] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


def assemble(group: Group, name: str, overrides: Overrides | None = None) -> tuple[Run, ...]:
    """Read a group's files. Several runs where a log starts over or a file holds several."""
    own = _Collected()
    several: dict[str, tuple[LogFile, Reading]] = {}
    for config in group.configs:
        for reading in _read(config, own.problems).values():
            _take(own, config, reading)
    for log in group.logs:
        for part, reading in _read(log, own.problems).items():
            if part:
                several[part] = (log, reading)
            else:
                _take(own, log, reading)
    checkpoints = _checkpoints(group.checkpoints, own)
    runs = (
        [_run(group, name, own, checkpoints, overrides or {})]
        if own.series or checkpoints or not several
        else []
    )
    for part, (log, reading) in several.items():
        collected = _Collected(hyperparameters=dict(own.hyperparameters))
        _take(collected, log, reading)
        runs.append(_run(group, f"{name}:{part}", collected, (), overrides or {}))
    return tuple(attempt for run in runs for attempt in _attempts(run))


def _read(log: LogFile, problems: list[Problem]) -> dict[str, Reading]:
    """What the file holds, by the name of the run; "" is the run that the file belongs to."""
    read_all = getattr(log.ingestor, "read_all", None)
    try:
        return dict(read_all(log.path)) if read_all else {"": log.ingestor.read(log.path)}
    except IngestError as error:
        problems.append(Problem(error.path, error.kind, error.message, error.offset))
    except (OSError, MemoryError) as error:
        problems.append(Problem(str(log.path), "unreadable", str(error) or type(error).__name__))
    return {}


def _take(collected: _Collected, log: LogFile, reading: Reading) -> None:
    for series in reading.series:
        tagged = replace(series, tag=log.prefix + series.tag, source=series.source or str(log.path))
        collected.series[log.ingestor.NAME, tagged.tag].append(tagged)
    collected.histograms += [replace(h, tag=log.prefix + h.tag) for h in reading.histograms]
    collected.texts += reading.texts
    collected.hyperparameters.update(reading.hyperparameters)
    collected.problems += reading.problems


def _checkpoints(paths: Sequence[Path], collected: _Collected) -> tuple[Checkpoint, ...]:
    """Open every checkpoint (no tensor is read), in order of step, epoch, then name."""
    opened = []
    for path in paths:
        try:
            opened.append(open_checkpoint(path))
        except IngestError as error:
            collected.problems.append(Problem(error.path, error.kind, error.message, error.offset))
        except (OSError, MemoryError) as error:
            collected.problems.append(Problem(str(path), "unreadable", str(error) or type(error).__name__))
    for checkpoint in opened:
        collected.problems += checkpoint.problems
        for key, value in checkpoint.hyperparameters.items():
            collected.hyperparameters.setdefault(key, value)
    return tuple(sorted(opened, key=_age))


def _age(checkpoint: Checkpoint) -> tuple[float, float, str]:
    step = checkpoint.step if checkpoint.step is not None else -1
    epoch = checkpoint.epoch if checkpoint.epoch is not None else -1
    return (step, epoch, checkpoint.path)


def _run(
    group: Group, name: str, collected: _Collected, checkpoints: tuple[Checkpoint, ...], overrides: Overrides
) -> Run:
    joined = [join(parts) for parts in collected.series.values()]
    files = [*(log.path for log in group.logs), *(c.path for c in group.configs), *group.checkpoints]
    return Run(
        name,
        group.path.as_posix(),
        tuple(with_roles(joined, overrides)),
        tuple(with_histogram_roles(collected.histograms, overrides)),
        tuple(collected.texts),
        checkpoints,
        collected.hyperparameters,
        tuple(path.as_posix() for path in files),
        tuple(collected.problems),
    )


def join(parts: Sequence[Series]) -> Series:
    """One tag's series from several files, oldest first."""
    if len(parts) == 1:
        return parts[0]
    ordered = sorted(parts, key=lambda s: (_first_time(s), s.source))
    walls = [s.wall_times for s in ordered]
    return replace(
        ordered[0],
        steps=np.concatenate([s.steps for s in ordered]),
        values=np.concatenate([s.values for s in ordered]),
        wall_times=None
        if any(w is None for w in walls)
        else np.concatenate([w for w in walls if w is not None]),
    )


def _first_time(series: Series) -> float:
    times = series.wall_times
    return float(times[0]) if times is not None and len(times) else 0.0


def _attempts(run: Run) -> list[Run]:
    """The run, cut where its main series start over from their first step."""
    main = max(
        (s for s in run.series if s.role in LOSS_ROLES),
        key=lambda s: s.points,
        default=max(run.series, key=lambda s: s.points, default=None),
    )
    starts = _starts(main) if main is not None else []
    if main is None or not starts:
        return [replace(run, series=tuple(ordered(s) for s in run.series))]
    attempts = len(starts) + 1
    pieces: list[list[Series]] = [[] for _ in range(attempts)]
    for series in run.series:
        own = _starts(series)
        if len(own) + 1 == attempts:
            for i, part in enumerate(np.split(np.arange(series.points), own)):
                pieces[i].append(ordered(_part(series, part)))
        else:  # logged in one attempt only, or too rarely to tell: it goes with the last
            pieces[-1].append(ordered(series))
    note = Problem(run.path, "restarted", f"the log starts over: {attempts} attempts in one place")
    return [
        replace(
            run,
            name=f"{run.name}#{i + 1}",
            series=tuple(piece),
            histograms=run.histograms if i == attempts - 1 else (),
            checkpoints=run.checkpoints if i == attempts - 1 else (),
            problems=(*run.problems, note) if i == 0 else (),
        )
        for i, piece in enumerate(pieces)
    ]


def _starts(series: Series) -> list[int]:
    """Indices at which a series starts over: back to its first step, with other values than before."""
    steps = series.steps
    if series.axis == "row" or len(steps) < 2 * ATTEMPT_POINTS:
        return []
    back = np.flatnonzero((np.diff(steps) < 0) & (steps[1:] <= steps[0])) + 1
    found: list[int] = []
    for i in back:
        begin = found[-1] if found else 0
        if (
            i - begin >= ATTEMPT_POINTS
            and len(steps) - i >= ATTEMPT_POINTS
            and not _retold(series, begin, int(i))
        ):
            found.append(int(i))
    return found


def _retold(series: Series, begin: int, i: int) -> bool:
    """Whether what follows ``i`` tells the same points again (a checkpoint's copy of the history)."""
    count = min(i - begin, series.points - i)
    before, after = slice(begin, begin + count), slice(i, i + count)
    same_steps = np.array_equal(series.steps[before], series.steps[after])
    return same_steps and np.allclose(
        series.values[before], series.values[after], rtol=1e-6, atol=0, equal_nan=True
    )


def _part(series: Series, index: np.ndarray) -> Series:
    wall = series.wall_times
    return replace(
        series,
        steps=series.steps[index],
        values=series.values[index],
        wall_times=None if wall is None else wall[index],
    )


def ordered(series: Series) -> Series:
    """Steps in order, each once; see the module's docstring for what becomes of the others."""
    steps = series.steps
    series = replace(series, leading_zeros=_leading_zeros(series))
    if len(steps) < 2 or bool(np.all(np.diff(steps) > 0)):
        return series
    finite = np.isfinite(steps)
    if not finite.all():
        return ordered(_part(series, np.flatnonzero(finite)))
    if _repeats(series):
        return replace(series, steps=np.arange(len(steps), dtype=np.float64), axis="row")
    back = np.flatnonzero(np.diff(steps) < 0) + 1
    order = np.argsort(steps, kind="stable")
    last = np.concatenate([np.diff(steps[order]) > 0, [True]])
    kept = order[last]
    overwritten = _overwritten(series, order, last)
    return replace(
        _part(series, kept),
        rewinds=tuple(float(s) for s in steps[back]) if overwritten else (),
        superseded=overwritten,
    )


def _overwritten(series: Series, order: np.ndarray, last: np.ndarray) -> int:
    """Points whose step was written again with another value."""
    values: FloatArray = series.values[order]
    winner = values[np.flatnonzero(last)][np.concatenate([[0], np.cumsum(last)[:-1]])]
    same = (values == winner) | (np.isnan(values) & np.isnan(winner))
    return int(np.sum(~last & ~same))


def _repeats(series: Series) -> bool:
    """Whether the steps count something coarser than the points: runs of equal steps."""
    same = np.diff(series.steps) == 0
    different = np.diff(series.values) != 0
    return bool(np.mean(same & different) > REPEATED)


def _leading_zeros(series: Series) -> int:
    """Zeros before the first computed value of a loss; 0 where zero is a value like others."""
    if series.role not in LOSS_ROLES or not series.points or series.values[0] != 0:
        return 0
    nonzero = np.flatnonzero(series.values != 0)
    if not len(nonzero) or np.any(series.values[nonzero[0] :] == 0):
        return 0
    return int(nonzero[0])
