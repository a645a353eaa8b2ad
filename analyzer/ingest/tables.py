"""Tables of logged numbers -> series: which column counts the steps, which one tells the time.

Shared by every format that is a table underneath: delimited text, pickled histories, arrays.
A missing cell is a missing point; a cell that says NaN is a NaN that was logged.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath

import numpy as np
from numpy.typing import NDArray

from analyzer.model import Axis, FloatArray, IntArray, Problem, Series

MAX_CELL = 5000  # characters of a cell that is looked into
MAX_LIST = 64  # elements of a list in a cell that become series of their own

STEP_NAMES = (
    "step", "global_step", "trainer/global_step", "total_timesteps", "timesteps", "num_timesteps",
    "total_steps", "training_step", "train_step", "env_step", "env_steps", "iter", "iteration", "n_iter",
    "num_iter", "itr", "iters", "iterations", "training_iteration", "num_updates", "update", "updates",
    "total_batches", "current_steps", "batch", "batch_idx",
)  # fmt: skip
EPOCH_NAMES = ("epoch", "epochs", "epoch_num", "epoch_idx", "n_epoch", "current_epoch")
COUNTERS = frozenset((*STEP_NAMES, *EPOCH_NAMES))
EPISODE_NAMES = ("episode", "episodes", "episode_num")
AMOUNT_NAMES = (
    "steps", "samples", "samples_seen", "num_samples", "examples", "examples_seen", "images_seen",
    "images_trained", "tokens", "tokens_seen", "num_tokens", "frames", "n_updates",
)  # fmt: skip
TIME_NAMES = frozenset((
    "time", "wall_time", "walltime", "wall_clock", "timestamp", "elapsed", "elapsed_time", "time_elapsed",
    "total_time", "relative_time", "runtime", "t",
))  # fmt: skip
MISSING = frozenset(["", "-", "--", "_", "?", "none", "null", "na", "n/a", "n.a.", "#n/a", "<na>", "nil"])
NANS = frozenset(["nan", "+nan", "-nan", "nan()", "-nan(ind)", "nan(ind)", "1.#ind", "-1.#ind", "1.#qnan"])
INFINITIES = {"1.#inf": math.inf, "-1.#inf": -math.inf, "∞": math.inf, "-∞": -math.inf}
BOOLEANS = {"true": 1.0, "false": 0.0}

NUMBER = r"(?:[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:e[-+]?\d+)?|[-+]?(?:nan|inf(?:inity)?))"
_WRAPPED = re.compile(rf"[\w.]+\(\s*({NUMBER})\s*(?:,.*)?\)")  # tensor(0.5, device='cuda:0')
_WITH_MEAN = re.compile(rf"({NUMBER})\s*(?:\({NUMBER}\)|(?:±|\+/?-)\s*{NUMBER})")  # 0.5 (0.6), 0.5 ± 0.1
_INDEX = re.compile(r"(?:unnamed:\s*\d+|index|row|row_?id|#)?")
_CURVE = re.compile(
    r"loss|acc|reward|return|score|error|metric|perplexity|ppl|grad|norm|mse|mae|auc|f1|histor|\blr\b"
)


def curve_like(name: str) -> bool:
    """Does a name speak of something logged over a run?"""
    return _CURVE.search(name.lower()) is not None


@dataclass(frozen=True, slots=True, eq=False)
class Column:
    """Numbers of one column: ``rows`` are those that hold a cell (ascending), None for all of them."""

    name: str
    values: FloatArray
    rows: IntArray | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Labels:
    """A column of words: row i says ``words[codes[i]]``, nothing where the code is -1."""

    name: str
    words: tuple[str, ...]
    codes: IntArray


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """``length`` rows; numbers and words kept apart."""

    length: int
    columns: tuple[Column, ...]
    labels: tuple[Labels, ...] = ()


def cell(text: str) -> float | tuple[float, ...] | str | None:
    """What a cell of text says: a number, a list of numbers, words, or nothing (None)."""
    if len(text) > MAX_CELL:
        return text
    try:
        return float(text) if "_" not in text else _cell(text)
    except ValueError:
        return _cell(text)


def _cell(text: str) -> float | tuple[float, ...] | str | None:
    """A cell that is no plain number."""
    text = text.strip()
    lowered = text.lower()
    if lowered in MISSING:
        return None
    if lowered in BOOLEANS:
        return BOOLEANS[lowered]
    number = _number(lowered.strip("*`"))  # set in bold or as code
    if number is not None:
        return number
    if not re.search(r"\w", text):  # the rule under a header
        return None
    if text[0] in "[(" and text[-1] in "])":
        return _numbers(lowered[1:-1], text)
    wrapped = _WRAPPED.fullmatch(lowered) or _WITH_MEAN.fullmatch(lowered)
    return float(wrapped[1]) if wrapped else text


def _number(text: str) -> float | None:
    """A number from lower-case text, percentages as the number written; None where it is none."""
    if text in NANS:
        return math.nan
    if text in INFINITIES:
        return INFINITIES[text]
    text = text.removesuffix("%").rstrip()
    try:
        return None if "_" in text else float(text)
    except ValueError:
        return None


def _numbers(inner: str, text: str) -> float | tuple[float, ...] | str:
    parts = inner.replace(",", " ").split()
    found = [_number(part) for part in parts[: MAX_LIST + 1]]
    if not found or len(found) > MAX_LIST or any(n is None for n in found):
        return text
    numbers = tuple(n for n in found if n is not None)
    return numbers[0] if len(numbers) == 1 else numbers


def normalise(name: str) -> str:
    """``Time [s]`` -> ``time_s``: lower case, punctuation and spaces to ``_``, slashes kept."""
    return re.sub(r"[^a-z0-9/]+", "_", name.strip().lower()).strip("_")


def from_mapping(mapping: Mapping[str, Iterable[object]]) -> Table:
    """A dict of lists (a Keras history), lists of unequal length allowed."""
    columns: list[Column] = []
    length = 0
    for name, cells in mapping.items():
        listed = list(cells)
        length = max(length, len(listed))
        columns.extend(_columns(str(name), listed))
    return Table(length, tuple(columns))


def from_records(records: Sequence[Mapping[str, object]]) -> Table:
    """A list of dicts, one per row; keys may come and go."""
    names = dict.fromkeys(str(key) for record in records for key in record)
    columns = [c for name in names for c in _columns(name, [record.get(name) for record in records])]
    return Table(len(records), tuple(columns))


def _columns(name: str, cells: Sequence[object]) -> list[Column]:
    """The numeric columns in a list of Python values: one, or one per element of lists."""
    found: dict[str, tuple[list[int], list[float]]] = {}
    for row, value in enumerate(cells):
        for key, number in _named(name, value):
            rows, values = found.setdefault(key, ([], []))
            rows.append(row)
            values.append(number)
    return [column(key, values, rows, len(cells)) for key, (rows, values) in found.items()]


def _named(name: str, value: object) -> list[tuple[str, float]]:
    """The numbers in one value: none, one, or a few with their index."""
    if isinstance(value, str):
        value = cell(value)
    if isinstance(value, bool | int | float | np.number | np.bool_):
        return [(name, float(value))] if not isinstance(value, np.complexfloating) else []
    if isinstance(value, np.ndarray):
        value = value.tolist() if value.size <= MAX_LIST and value.dtype.kind in "biuf" else None
        return _named(name, value)
    if isinstance(value, list | tuple) and 0 < len(value) <= MAX_LIST:
        if len(value) == 1:
            return _named(name, value[0])
        if all(isinstance(v, int | float | np.number) for v in value):
            return [(f"{name}[{i}]", float(v)) for i, v in enumerate(value)]
    return []


def column(
    name: str, values: Sequence[float] | FloatArray, rows: Sequence[int] | IntArray, length: int
) -> Column:
    """A column from its cells and their rows; dense where every row has one."""
    numbers = np.asarray(values, dtype=np.float64)
    return Column(name, numbers, None if len(numbers) == length else np.asarray(rows, dtype=np.int64))


@dataclass(frozen=True, slots=True, eq=False)
class Clock:
    """Where each row of a table stands: its step and, if logged, its time.

    ``used`` are the columns that said so and are no curves of their own.
    """

    axis: Axis
    steps: FloatArray
    wall_times: FloatArray | None = None
    used: frozenset[str] = frozenset()
    epoch: str = ""  # the column that counts epochs, beside a step column


def to_series(table: Table, source: str, axis: Axis | None = None) -> tuple[Series, ...]:
    """Every numeric column as a series, in the order of the file.

    ``axis`` says what a row is where no column counts (default: a row).
    """
    clock = read_clock(table, axis or "row")
    return tuple(
        _series(c, clock, source, "epoch" if clock.epoch and c.name == clock.epoch else c.name)
        for c in unique_names(table.columns)
        if c.name not in clock.used and len(c.values)
    )


def _series(c: Column, clock: Clock, source: str, tag: str) -> Series:
    at: IntArray | slice = slice(0, len(c.values)) if c.rows is None else c.rows
    wall = None if clock.wall_times is None else clock.wall_times[at]
    return Series(tag, clock.steps[at], c.values, wall, clock.axis, source)


def unique_names(columns: Sequence[Column]) -> list[Column]:
    """The second ``loss`` becomes ``loss.1``."""
    seen: dict[str, int] = {}
    named = []
    for c in columns:
        count = seen[c.name] = seen.get(c.name, -1) + 1
        named.append(c if not count else Column(f"{c.name}.{count}", c.values, c.rows))
    return named


def read_clock(table: Table, fallback: Axis) -> Clock:
    """Choose the step axis by name and behaviour; else count the rows."""
    by_name: dict[str, Column] = {}
    for c in table.columns:
        key = normalise(c.name)
        by_name.setdefault(key, c)
        by_name.setdefault(key.rsplit("/", 1)[-1], c)
    if not table.length:
        return Clock(fallback, np.empty(0))
    axis, chosen, steps, epoch = _counter(by_name, table, fallback)
    used = frozenset(c.name for c in table.columns if _is_index(c, table.length)) | chosen
    clock = wall_clock([c for c in table.columns if c.name not in used], steps, table.length)
    if clock is None:
        return Clock(axis, steps, None, used, epoch)
    return Clock(axis, steps, clock[1], used | {clock[0]}, epoch)


def _counter(
    by_name: Mapping[str, Column], table: Table, fallback: Axis
) -> tuple[Axis, frozenset[str], FloatArray, str]:
    """The axis, the column that gives it (if any), the step of each row, and the epoch column beside."""
    epochs = next((by_name[n] for n in EPOCH_NAMES if n in by_name and len(by_name[n].values)), None)
    kinds: tuple[tuple[Axis, Sequence[str]], ...] = (
        ("step", STEP_NAMES), ("epoch", EPOCH_NAMES), ("episode", EPISODE_NAMES), ("step", AMOUNT_NAMES),
    )  # fmt: skip
    for axis, names in kinds:
        for c in (by_name[n] for n in names if n in by_name):
            if np.count_nonzero(np.isfinite(c.values)) < max(1, table.length / 2):
                continue
            steps = filled(c, table.length)
            if axis == "step" and epochs is not None:
                steps = continued(steps, filled(epochs, table.length))
            if _counts(steps) and not _crowded(table, steps):
                beside = epochs.name if epochs is not None and epochs is not c else ""
                return axis, frozenset([c.name]), steps, beside
    beside = epochs.name if epochs is not None else ""
    for c in table.columns:
        if _is_stride(c, table.length):
            return "step", frozenset([c.name]), c.values, beside
    return fallback, frozenset(), np.arange(table.length, dtype=np.float64), beside


def _counts(steps: FloatArray) -> bool:
    """Does it go forward far more often than back? (A step that stands still is told by crowding.)"""
    change = np.diff(steps)
    forward, back = np.count_nonzero(change > 0), np.count_nonzero(change < 0)
    return bool(steps.min() >= -1 and back <= forward / 2)


def _crowded(table: Table, steps: FloatArray) -> bool:
    """Do most cells share the step of the cell before in their column? (Epochs beside batches do.)"""
    same = total = 0
    for c in table.columns:
        if normalise(c.name) in COUNTERS:
            continue
        change = np.diff(steps if c.rows is None else steps[c.rows])
        same += int(np.count_nonzero(change == 0))
        total += len(change)
    return same > total / 2


def _is_index(c: Column, length: int) -> bool:
    """An unnamed column (or one called index) that only counts the rows."""
    if not _INDEX.fullmatch(c.name.strip().lower()) or len(c.values) < length:
        return False
    return bool(length == 1 or np.all(np.diff(c.values) == 1))


def _is_stride(c: Column, length: int) -> bool:
    """An unnamed column that counts on, but not by one: a step that pandas took for the index."""
    if not _INDEX.fullmatch(c.name.strip().lower()) or len(c.values) < max(length, 3):
        return False
    change = np.diff(c.values)
    return bool(np.all(change > 0) and np.all(c.values == np.round(c.values)) and not np.all(change == 1))


def filled(c: Column, length: int) -> FloatArray:
    """One value a row: a missing one is that of the row before, or of the first that has one.

    A column without any finite value is all NaN.
    """
    finite = np.isfinite(c.values)
    if c.rows is None and finite.all():
        return c.values
    if not finite.any():
        return np.full(length, np.nan)
    rows = (np.arange(len(c.values)) if c.rows is None else c.rows)[finite]
    last = np.searchsorted(rows, np.arange(length), side="right") - 1
    filled_in: FloatArray = c.values[finite][np.maximum(last, 0)]
    return filled_in


def continued(steps: FloatArray, epochs: FloatArray) -> FloatArray:
    """A batch counter that starts anew with each epoch, made to count on over epochs.

    Left alone unless every fall of the counter comes with a rise of the epoch.
    """
    falls = np.flatnonzero(np.diff(steps) < 0) + 1
    rises = np.flatnonzero(np.diff(epochs) > 0) + 1
    if not len(falls) or not len(rises) or len(falls) < len(rises) / 2:
        return steps
    if not np.isin(falls, rises).all():
        return steps
    spacing = np.diff(steps)
    stride = float(np.median(spacing[spacing > 0])) if np.any(spacing > 0) else 1.0
    offsets = np.zeros(len(steps))
    offsets[falls] = np.maximum(steps[falls - 1] - steps[falls] + stride, 0.0)
    return np.asarray(steps + np.cumsum(offsets), dtype=np.float64)


def wall_clock(columns: Sequence[Column], steps: FloatArray, length: int) -> tuple[str, FloatArray] | None:
    """The column that tells the time in seconds, and its value for each row.

    It must rise whenever the steps do: a column of seconds per epoch is a curve, not a clock.
    """
    for c in columns:
        name = re.sub(r"_(s|sec|secs|seconds)$", "", normalise(c.name).rsplit("/", 1)[-1])
        if name not in TIME_NAMES or len(c.values) < length / 2 or not np.isfinite(c.values).all():
            continue
        seconds = filled(c, length)
        if _runs_with(seconds, steps):
            return c.name, seconds / 1000.0 if seconds[0] > 1e11 else seconds
    return None


def _runs_with(seconds: FloatArray, steps: FloatArray) -> bool:
    if len(seconds) == 1:
        return bool(seconds[0] > 1e9)  # since 1970
    back = np.diff(seconds) < 0
    return bool(seconds[0] >= 0 and seconds[-1] > seconds[0] and not np.any(back & (np.diff(steps) > 0)))


SPLITS = frozenset((
    "train", "training", "val", "valid", "validation", "test", "testing", "eval", "evaluation", "dev",
))  # fmt: skip
SPLIT_COLUMNS = frozenset(("phase", "split", "mode", "stage", "subset", "partition", "set", "dataset"))
KEY_COLUMNS = frozenset((
    "metric", "metric_name", "metricname", "metric_key", "series", "tag", "key", "name", "variable", "measure",
))  # fmt: skip
VALUE_COLUMNS = frozenset(("value", "metric_value", "metricvalue", "metric_val"))
RUN_COLUMNS = frozenset((
    "run", "run_id", "run_name", "runid", "seed", "trial", "fold", "experiment", "name", "experiment_name",
))  # fmt: skip
MAX_PARTS = 200


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Rows of a table that are curves of their own; ``only`` names the one column that matters."""

    table: Table
    prefix: str = ""
    only: str = ""


def partition(table: Table) -> list[Part]:
    """A table in long form as one part for each curve's rows; any other as a whole.

    A column of metric names or of train/val splits gives the parts.
    """
    for labels in table.labels:
        name = normalise(labels.name)
        used = [labels.words[i] for i in np.unique(labels.codes[labels.codes >= 0])]
        if not 1 <= len(used) <= MAX_PARTS:
            continue
        if name in KEY_COLUMNS and any(normalise(c.name) in VALUE_COLUMNS for c in table.columns):
            return [Part(renamed_value(_part(table, labels, word), word), only=word) for word in used]
        if name in SPLIT_COLUMNS and all(word.lower() in SPLITS for word in used):
            return [Part(_part(table, labels, word), prefix=f"{word}/") for word in used]
    return [Part(table)]


@dataclass(frozen=True, slots=True, eq=False)
class NamedRun:
    """The rows of one of several runs in a table, and what its columns of words say of it."""

    name: str
    table: Table
    said: Mapping[str, str]


def runs_apart(table: Table) -> list[NamedRun]:
    """The runs of a table whose columns of words, or of numbers of runs, name them: model, experiment, seed.

    They do where the steps rise within each combination of words and start anew from one to the next; nothing is
    returned where they do not.
    """
    other = (KEY_COLUMNS - RUN_COLUMNS) | SPLIT_COLUMNS
    naming = [
        labels
        for labels in (*table.labels, *numbered_runs(table))
        if normalise(labels.name) not in other and labels.codes.min(initial=0) >= 0
    ]
    alone = [[labels] for labels in naming if normalise(labels.name) in RUN_COLUMNS]
    for chosen in (naming, *alone):
        runs = _runs_named(table, chosen)
        if runs:
            return runs
    return []


def _runs_named(table: Table, naming: Sequence[Labels]) -> list[NamedRun]:
    """One run for each combination of words, in the order of the file."""
    if not naming or not table.length:
        return []
    codes = np.stack([labels.codes for labels in naming])
    combined, first, code = np.unique(codes, axis=1, return_index=True, return_inverse=True)
    code = code.reshape(-1)  # numpy 2.0 alone gave it a second axis
    if not 1 < combined.shape[1] <= MAX_PARTS or not _restarts(table, code):
        return []
    telling = np.ptp(combined, axis=1) > 0
    runs = []
    for i in np.argsort(first):
        said = {labels.name: labels.words[c] for labels, c in zip(naming, combined[:, i], strict=True)}
        words = [word for word, tells in zip(said.values(), telling, strict=True) if tells]
        runs.append(NamedRun(", ".join(words), _rows(table, code == i, naming), said))
    return runs


def renamed_value(table: Table, word: str) -> Table:
    columns = [
        Column(word, c.values, c.rows) if normalise(c.name) in VALUE_COLUMNS else c for c in table.columns
    ]
    return Table(table.length, tuple(columns), table.labels)


def numbered_runs(table: Table) -> list[Labels]:
    """Columns such as ``seed`` that number the runs, as words."""
    found = []
    for c in table.columns:
        if normalise(c.name) in RUN_COLUMNS and c.rows is None:
            different, codes = np.unique(c.values, return_inverse=True)
            if len(different) <= MAX_PARTS:
                found.append(Labels(c.name, tuple(f"{v:g}" for v in different), codes.astype(np.int64)))
    return found


def _part(table: Table, labels: Labels, word: str) -> Table:
    """The rows of one word, without its column."""
    return _rows(table, labels.codes == labels.words.index(word), [labels])


def _rows(table: Table, keep: NDArray[np.bool_], without: Sequence[Labels]) -> Table:
    """Some rows of a table, without the columns of the labels."""
    gone = {labels.name for labels in without}
    position = np.cumsum(keep) - 1
    length = int(keep.sum())
    columns = []
    for c in table.columns:
        if c.name in gone:
            continue
        rows = np.arange(table.length) if c.rows is None else c.rows
        chosen = keep[rows]
        columns.append(column(c.name, c.values[chosen], position[rows[chosen]], length))
    others = tuple(Labels(o.name, o.words, o.codes[keep]) for o in table.labels if o.name not in gone)
    return Table(length, tuple(columns), others)


def stacked(parts: Sequence[Table]) -> Table:
    """Tables one beneath the other, columns of one name joined, absent ones left empty."""
    columns: dict[str, list[tuple[FloatArray, IntArray]]] = {}
    length = 0
    for part in parts:
        for c in unique_names(part.columns):
            rows = np.arange(part.length) if c.rows is None else c.rows
            columns.setdefault(c.name, []).append((c.values, rows + length))
        length += part.length
    joined = [
        column(name, np.concatenate([v for v, _ in found]), np.concatenate([r for _, r in found]), length)
        for name, found in columns.items()
    ]
    return Table(length, tuple(joined))


def _restarts(table: Table, run: IntArray) -> bool:
    """Do the steps rise within every ``run`` (a number a row) of two or more rows, and start anew from run to run?"""
    clock = read_clock(table, "row")
    if clock.axis == "row":
        named = {normalise(c.name): c for c in table.columns}
        candidates = [named[n] for n in (*STEP_NAMES, *EPOCH_NAMES) if n in named]
        if not candidates:
            return False
        steps = filled(candidates[0], table.length)
    else:
        steps = clock.steps
    groups = [steps[run == code] for code in np.unique(run)]
    rising = all(len(g) > 1 and bool(np.all(np.diff(g) > 0)) for g in groups)
    return rising and len(np.unique(steps)) < len(steps)


def named_rows(table: Table) -> str:
    """The column that names each row, where rows are runs, models or classes and not moments."""
    if table.length < 2:
        return ""
    for labels in table.labels:
        distinct = len(np.unique(labels.codes[labels.codes >= 0]))
        names = sum(not re.match(r"[-+.]?\d", word) for word in labels.words)  # no dates, no amounts
        if distinct == table.length and names * 2 > len(labels.words):
            return labels.name or "the first column"
    return ""


def lost_cells(path: str, name: str, count: int, example: str) -> Problem:
    text = f"{count} cell{'s' if count > 1 else ''} of column {name!r} are not numbers ({example[:40]!r})"
    return Problem(path, "damaged", text + "; left out")


def stem_of(path: str) -> str:
    """File name without its suffixes: ``loss`` of ``loss.csv``."""
    return PurePath(path).name.split(".", 1)[0] or PurePath(path).name
