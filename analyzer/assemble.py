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

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from analyzer.checkpoints import open_checkpoint
from analyzer.discover import SPLIT_WORDS, Group, LogFile
from analyzer.errors import IngestError
from analyzer.model import FloatArray, Histograms, Problem, Reading, Run, Scalar, Series, Text
from analyzer.roles import ROLES, with_histogram_roles, with_roles

if TYPE_CHECKING:
    from analyzer.model import Checkpoint

REPEATED = 0.2  # share of repeated steps beyond which the steps are no axis
ATTEMPT_POINTS = 3  # a first attempt of fewer points is just an overwritten start
LATER_POINTS = 2  # of the last attempt, in a log that started over before
# What a file without curves says of itself; beside files with curves it restates or is about something else.
CURVELESS = ("no-series", "empty", "unsupported")
CONSOLE = "text"  # the format of plain-text output
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
    curveless: list[Problem] = field(default_factory=list)  # of files that hold no curve


def assemble(group: Group, name: str, overrides: Overrides | None = None) -> tuple[Run, ...]:
    """Read a group's files. Several runs where a log starts over or a file holds several."""
    own = _Collected()
    several: list[tuple[str, LogFile, Reading]] = []
    for config in group.configs:
        for reading in _read(config, own.problems).values():
            _take(own, config, reading)
    for log in group.logs:
        apart = log.ingestor.NAME != CONSOLE or len(group.logs) == 1  # else it tells another log again
        for part, reading in _read(log, own.problems, apart).items():
            if part:
                several.append((part, log, reading))
            else:
                _take(own, log, reading)
    checkpoints = _checkpoints([*group.checkpoints, *_refused(group.logs, own)], own)
    runs = []
    if own.series or own.histograms or checkpoints or not several:
        runs.append(_run(group, name, own, checkpoints, overrides or {}))
        own.problems = []
    for part, log, reading in several:
        collected = _Collected(hyperparameters=dict(own.hyperparameters), problems=own.problems)
        own.problems = []
        _take(collected, log, reading)
        runs.append(_run(group, f"{name}:{part}", collected, (), overrides or {}))
    return tuple(attempt for run in runs for attempt in _attempts(run))


def _read(log: LogFile, problems: list[Problem], apart: bool = True) -> dict[str, Reading]:
    """What the file holds, by the name of the run; "" is the run that the file belongs to."""
    read_all = getattr(log.ingestor, "read_all", None) if apart else None
    try:
        return dict(read_all(log.path)) if read_all else {"": log.ingestor.read(log.path)}
    except IngestError as error:
        problems.append(Problem(error.path, error.kind, error.message, error.offset))
    except (OSError, MemoryError) as error:
        problems.append(Problem(str(log.path), "unreadable", str(error) or type(error).__name__))
    return {}


def _refused(logs: Sequence[LogFile], collected: _Collected) -> list[Path]:
    """Pickles that are no logs to be trusted: opened as checkpoints are, they tell what they would run."""
    unsafe = {problem.path for problem in collected.problems if problem.kind == "unsafe"}
    refused = [log.path for log in logs if log.ingestor.NAME == "pickle" and str(log.path) in unsafe]
    told = set(map(str, refused))
    collected.problems = [p for p in collected.problems if p.kind != "unsafe" or p.path not in told]
    return refused


def _take(collected: _Collected, log: LogFile, reading: Reading) -> None:
    for series in reading.series:
        tag, source = _tag(log, series.tag), series.source or str(log.path)
        if (tag, source) != (series.tag, series.source):
            series = replace(series, tag=tag, source=source)
        collected.series[log.ingestor.NAME, tag].append(series)
    collected.histograms += [replace(h, tag=_tag(log, h.tag)) for h in reading.histograms]
    collected.texts += reading.texts
    collected.hyperparameters.update(reading.hyperparameters)
    for text in reading.texts:
        from analyzer.ingest.hyperparameters import settings_in_text  # few logs have texts

        for name, value in settings_in_text(text.tag, text.value).items():
            collected.hyperparameters.setdefault(name, value)
    for problem in reading.problems:
        bare = problem.kind in CURVELESS and not reading.series and not reading.histograms
        (collected.curveless if bare else collected.problems).append(problem)


def _tag(log: LogFile, tag: str) -> str:
    """The tag with what its file's place says of it, unless it names its half of the run itself."""
    words = re.split(r"[^a-z0-9]+", tag.lower()) if log.prefix else ()
    return (tag if SPLIT_WORDS.intersection(words) else log.prefix + tag) + log.suffix


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


def _age(checkpoint: Checkpoint) -> tuple[float, float, list[tuple[int, str]]]:
    from analyzer.checkpoints.entries import natural  # logs without checkpoints need nothing of those

    step = checkpoint.step if checkpoint.step is not None else -1
    epoch = checkpoint.epoch if checkpoint.epoch is not None else -1
    return (step, epoch, natural(checkpoint.path))


def _run(
    group: Group, name: str, collected: _Collected, checkpoints: tuple[Checkpoint, ...], overrides: Overrides
) -> Run:
    joined = [
        max(parts, key=lambda s: s.points)
        if format == CONSOLE
        else join(parts)  # its other stream tells it again
        for (format, _), parts in collected.series.items()
    ]
    problems = [*collected.problems, *collected.curveless]
    if joined:
        problems = [p for p in collected.problems if p.kind != "no-series"]
    logs = (log.path for log in (*group.logs, *group.configs))
    files = [*logs, *group.checkpoints, *group.parts]
    return Run(
        name,
        group.path.as_posix(),
        _without_echo(with_roles(joined, overrides), [format for format, _ in collected.series]),
        tuple(with_histogram_roles(collected.histograms, overrides)),
        tuple(collected.texts),
        checkpoints,
        collected.hyperparameters,
        tuple(path.as_posix() for path in files),
        tuple(dict.fromkeys(problems)),
    )


def _without_echo(series: Sequence[Series], formats: Sequence[str]) -> tuple[Series, ...]:
    """Leave out what console output repeats, rounded and on an axis of its own.

    It repeats a structured log, or one of the two streams of a program repeats the other.
    """
    printed = [s for s, format in zip(series, formats, strict=True) if format == CONSOLE and s.role]
    told = {s.role for s, format in zip(series, formats, strict=True) if format != CONSOLE and s.role}
    main = max((s.source for s in printed), key=[s.source for s in printed].count, default="")
    in_main = {_quantity(s) for s in printed if s.source == main}
    return tuple(
        s
        for s, format in zip(series, formats, strict=True)
        if format != CONSOLE or (s.role not in told and (s.source == main or _quantity(s) not in in_main))
    )


def _quantity(series: Series) -> tuple[str, str]:
    """What a series measures: of the quantities that a run has one of, whatever else its name says."""
    single = not series.role or ROLES[series.role].single
    return series.role, "" if single else series.subject


def join(parts: Sequence[Series]) -> Series:
    """One tag's series from several files, oldest first."""
    if len(parts) == 1:
        return parts[0]
    ordered = sorted(parts, key=lambda s: (_first_time(s), _by_number(s.source)))
    walls = [s.wall_times for s in ordered]
    steps = np.concatenate([s.steps for s in ordered])
    return replace(
        ordered[0],
        steps=np.arange(len(steps), dtype=np.float64) if all(s.axis == "row" for s in ordered) else steps,
        values=np.concatenate([s.values for s in ordered]),
        wall_times=None
        if any(w is None for w in walls)
        else np.concatenate([w for w in walls if w is not None]),
    )


def _first_time(series: Series) -> float:
    times = series.wall_times
    return float(times[0]) if times is not None and len(times) else 0.0


def _by_number(path: str) -> list[tuple[int, str]]:
    """A key that puts ``checkpoint-500`` before ``checkpoint-1000``."""
    return [(int(digits or 0), text) for text, digits in re.findall(r"(\D*)(\d{0,18})", path)]


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
        cuts = _cuts(series, main, starts)
        for i, part in enumerate(np.split(np.arange(series.points), cuts), start=attempts - 1 - len(cuts)):
            if len(part):
                pieces[i].append(ordered(_part(series, part)))
    note = Problem(run.path, "restarted", f"the log starts over: {attempts} attempts in one place")
    further = _going_on(main, starts)
    return [
        replace(
            run,
            name=f"{run.name}#{i + 1}",
            series=tuple(piece),
            histograms=run.histograms if i == attempts - 1 else (),
            checkpoints=run.checkpoints if i == attempts - 1 else (),
            problems=(*run.problems, note) if i == 0 else further[i - 1],
        )
        for i, piece in enumerate(pieces)
    ]


def _going_on(main: Series, starts: Sequence[int]) -> list[tuple[Problem, ...]]:
    """For each attempt after the first, whether it counts from 0 but goes on where the one before ended."""
    pieces = [piece[np.isfinite(piece)] for piece in np.split(main.values, starts)]
    note = Problem(main.source, "continued", "this part goes on from the level at which the one before ended")
    return [(note,) if _goes_on(before, after) else () for before, after in pairwise(pieces)]


def _goes_on(before: np.ndarray, after: np.ndarray) -> bool:
    """Whether a loss begins nearer to the end than to the start of an attempt that fell by a fifth."""
    if not len(before) or not len(after) or min(before.min(), after.min()) <= 0:
        return False
    start, end = float(before[0]), float(np.median(before[-3:]))
    return end < 0.8 * start and abs(after[0] - end) < 0.5 * (start - end)


def _cuts(series: Series, main: Series, starts: Sequence[int]) -> list[int]:
    """Where to cut a series for the main one's attempts; nowhere if it cannot be told: all is the last's."""
    for own in (_starts(series), _returns(series)):
        if len(own) == len(starts):
            return own
    if series.wall_times is None or main.wall_times is None or np.any(np.diff(series.wall_times) < 0):
        return []
    return [int(i) for i in np.searchsorted(series.wall_times, main.wall_times[list(starts)])]


def _starts(series: Series) -> list[int]:
    """Indices at which a series starts over: back to its first step, with other values than before."""
    steps = series.steps
    if series.axis == "row" or len(steps) < 2 * ATTEMPT_POINTS:
        return []
    found: list[int] = []
    told = 0
    for i, end in pairwise([*_returns(series), len(steps)]):
        begin = found[-1] if found else 0
        enough = LATER_POINTS if found else ATTEMPT_POINTS
        long = i - begin >= ATTEMPT_POINTS and len(steps) - i >= enough
        if long and not _retold(series, slice(told, i), slice(i, end)):
            found.append(i)
        told = i
    return found


def _returns(series: Series) -> list[int]:
    """Indices at which a series is back at its first step, or before it."""
    steps = series.steps
    return (np.flatnonzero((steps[1:] < steps[:-1]) & (steps[1:] <= steps[0])) + 1).tolist()


def _retold(series: Series, before: slice, after: slice) -> bool:
    """Whether the points of ``after`` tell ``before`` again (a checkpoint's copy of the history)."""
    count = min(before.stop - before.start, after.stop - after.start)
    old = slice(before.start, before.start + count)
    new = slice(after.start, after.start + count)
    return np.array_equal(series.steps[old], series.steps[new]) and np.allclose(
        series.values[old], series.values[new], rtol=1e-6, atol=0, equal_nan=True
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
    if (zeros := _leading_zeros(series)) != series.leading_zeros:
        series = replace(series, leading_zeros=zeros)
    if len(steps) < 2 or bool((steps[1:] > steps[:-1]).all()):
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
    different = series.values[1:] != series.values[:-1]
    return bool(np.mean(same & different) > REPEATED)


def _leading_zeros(series: Series) -> int:
    """Zeros before the first computed value of a loss; 0 where zero is a value like others."""
    if series.role not in LOSS_ROLES or not series.points or series.values[0] != 0:
        return 0
    nonzero = np.flatnonzero(series.values != 0)
    if not len(nonzero) or np.any(series.values[nonzero[0] :] == 0):
        return 0
    return int(nonzero[0])
