"""JSON Lines: one JSON object a line, as nearly every home-made logger writes them."""

from __future__ import annotations

import ast
import json
import math
import re
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from analyzer.errors import IngestError
from analyzer.model import Axis, FloatArray, Problem, Reading, Scalar, Series

NAME = "jsonl"
SUMMARY = "JSON Lines (mmdetection, mmengine, detectron2, W&B history, fairseq, timm, any rows of metrics)"
ORDER = 30

MAX_LINE = 16 << 20  # bytes; longer lines are no row of metrics
MAX_TAGS = 20_000
MAX_DEPTH = 8

STEP_NAMES = (
    "_step", "global_step", "step", "steps", "iteration", "iter", "iters", "iter_num", "num_updates",
    "trainer/global_step", "total_steps", "train_steps", "n_iter", "update", "updates",
    "timesteps_total", "training_iteration", "batch",
)  # fmt: skip
EPOCH_NAMES = ("epoch", "epochs", "current_epoch", "n_epoch", "epoch_num")
CLOCK_NAMES = ("_timestamp", "timestamp", "wall_time", "_runtime", "elapsed_time")
MODE_NAMES = ("mode", "split", "phase", "stage", "subset")
TRAIN_MODES = frozenset({"train", "training"})
HELD_OUT_MODES = frozenset({"val", "valid", "validation", "eval", "evaluation", "dev", "test"})
HEADER_NAMES = frozenset({"env_info", "config", "args", "hparams", "hyperparameters", "exp_name"})

METRIC = re.compile(
    r"loss|acc(?:uracy)?(?![a-z])|error|perplexity|(?<![a-z])(?:ppl|lr|auc|auroc|f1|nll|kl|iou|miou|dice|wer"
    r"|cer|mse|mae|rmse|ap|map|bpc|bpb|fid|ssim|psnr|elbo|top[-_]?[15])(?![a-z])"
    r"|rew(?![a-z])|ep_len|reward|return|learning_rate|grad_norm|gradient_norm|bleu|rouge|recall|precision|f[-_]?score|logloss",
    re.IGNORECASE,
)
NUMBER = re.compile(r"\s*[-+]?(?:(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|nan|inf(?:inity)?)\s*", re.IGNORECASE)
BARE_NONFINITE = re.compile(r"(?<=[:\[,\s])([-+]?)(nan|inf(?:inity)?)(?=\s*[,}\]])", re.IGNORECASE)
CONFLICT = re.compile(rb"(<{7}|={7}|>{7}|\|{7})(?: .*)?$")
POINTER = b"version https://git-lfs"


@dataclass
class Table:
    """Rows of metrics as columns: tag -> row numbers and values of the rows that have it."""

    columns: dict[str, tuple[array[float], array[float]]] = field(default_factory=dict)
    modes: dict[int, str] = field(default_factory=dict)  # row number -> train, val …, as logged
    header: dict[str, Scalar] = field(default_factory=dict)
    rows: int = 0
    dropped_tags: int = 0


@dataclass
class Lines:
    """What reading line by line came across beside rows."""

    bad: int = 0
    first_bad: int = 0  # line number, from 1
    first_bad_offset: int = 0
    last_is_bad: bool = False
    conflicts: int = 0
    first_conflict: int = 0
    other_side: int = 0  # lines of the second side of merge conflicts


def claims(path: Path, head: bytes) -> bool:
    """A JSON Lines name, or a text name whose first lines are JSON objects."""
    suffix = path.suffix.lower()
    if suffix in {".jsonl", ".ndjson"} or path.name.lower().endswith(".log.json"):
        return True
    if suffix not in {".json", ".log", ".txt", ".out", ""}:
        return False
    lines = [s for s in (line.strip() for line in head.lstrip(b"\xef\xbb\xbf").split(b"\n")) if s]
    lines = [line for line in lines if not CONFLICT.match(line)]
    if not lines:
        return False
    if lines[0].startswith(b'{"env_info"'):
        return True
    return len(lines) > 1 and lines[1].startswith(b"{") and _is_object(lines[0])


def run_root(path: Path) -> Path:
    """The W&B run folder of a file inside one, the folder above ``vis_data``, else the file's own."""
    from analyzer.ingest import wandb

    if path.parent.name == "vis_data":
        return path.parent.parent
    return wandb.run_root(path)


def read(path: Path) -> Reading:
    """Every numeric field of every row, on the steps that the rows name."""
    table, lines = Table(), Lines()
    for row in _rows(path, lines):
        add_row(table, row)
    problems = (*_line_problems(str(path), lines), *_table_problems(str(path), table))
    if not table.rows:
        raise IngestError(str(path), "no line of it is a JSON object", "damaged" if lines.bad else "empty")
    if not is_log(table):
        raise IngestError(str(path), "JSON Lines, but no training curve recognised in it", "no-series")
    return Reading(series=table_series(table, str(path)), hyperparameters=table.header, problems=problems)


# ---------------------------------------------------------------------------------- values


def number(value: object) -> float | None:
    """The number a JSON value stands for, or None: true, false and null stand for none."""
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, int | float):
        try:
            return float(value)
        except OverflowError:
            return math.inf if value > 0 else -math.inf
    if isinstance(value, str) and len(value) < 64 and NUMBER.fullmatch(value):
        return float(value)
    return None


def flatten(
    row: Mapping[str, object], joiner: str = "/", prefix: str = "", depth: int = 0
) -> Iterator[tuple[str, object]]:
    """Leaves of nested mappings under joined names; lists and typed media objects are left out."""
    for key, value in row.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            if "_type" not in value and depth < MAX_DEPTH:
                yield from flatten(value, joiner, f"{name}{joiner}", depth + 1)
        elif not isinstance(value, list):
            yield name, value


def scalars(mapping: Mapping[str, object], limit: int = 500) -> dict[str, Scalar]:
    """Hyperparameters of a nested mapping: names joined with dots, long strings left out."""
    kept: dict[str, Scalar] = {}
    for name, value in flatten(mapping, "."):
        if (
            value is None
            or isinstance(value, bool | int | float)
            or (isinstance(value, str) and len(value) <= limit)
        ):
            kept[name] = value
    return kept


def parse_object(text: str) -> dict[str, object] | None:
    """A JSON object, bare NaN, nan and inf accepted; None for anything else."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        try:
            value = json.loads(BARE_NONFINITE.sub(_quoted, text))
        except (ValueError, RecursionError):
            return None
    return value if isinstance(value, dict) else None


def _quoted(match: re.Match[str]) -> str:
    return f'"{match.group()}"'


def _is_object(line: bytes) -> bool:
    return line.startswith(b"{") and parse_object(line.decode("utf-8", "replace")) is not None


# ---------------------------------------------------------------------------------- lines


def _rows(path: Path, lines: Lines) -> Iterator[dict[str, object]]:
    """The JSON objects of a file; what is none is counted in ``lines``."""
    for count, offset, line in _sided_lines(path, lines):
        row = parse_object(line.decode("utf-8", "replace")) if line.startswith(b"{") else None
        lines.last_is_bad = row is None
        if row is not None:
            yield row
            continue
        lines.bad += 1
        if lines.bad == 1:
            lines.first_bad, lines.first_bad_offset = count, offset


def _sided_lines(path: Path, lines: Lines) -> Iterator[tuple[int, int, bytes]]:
    """Number, offset and text of the lines that are not blank, one side of a merge conflict only."""
    offset, side = 0, 0  # 0: no conflict, 1: our side, 2: the other side
    for count, (size, raw) in enumerate(_raw_lines(path), start=1):
        line = raw.lstrip(b"\xef\xbb\xbf").strip() if count == 1 else raw.strip()
        start, offset = offset, offset + size
        mark = CONFLICT.match(line)
        if mark and (side or mark[1] == b"<" * 7):
            side = {60: 1, 61: 2, 62: 0, 124: 2}[line[0]]
            lines.conflicts += 1
            lines.first_conflict = lines.first_conflict or count
        elif side == 2:
            lines.other_side += 1
        elif line:
            yield count, start, line


def _raw_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Size and text of each line; the text of a line beyond the limit is cut."""
    try:
        with path.open("rb") as file:
            while line := file.readline(MAX_LINE):
                size = len(line)
                if line.startswith(POINTER):
                    raise IngestError(str(path), "a Git LFS pointer, not the file itself", "pointer")
                while not line.endswith(b"\n") and (more := file.readline(MAX_LINE)):
                    size += len(more)
                    if more.endswith(b"\n"):
                        break
                yield size, line
    except OSError as error:
        raise IngestError(str(path), error.strerror or str(error)) from error


def _line_problems(path: str, lines: Lines) -> Iterator[Problem]:
    if lines.conflicts:
        yield Problem(
            path,
            "damaged",
            f"{lines.conflicts} git conflict markers from line {lines.first_conflict} on; "
            f"{lines.other_side} lines of the other side left out",
        )
    if lines.bad == 1 and lines.last_is_bad:
        yield Problem(path, "truncated", "the last line breaks off", lines.first_bad_offset)
    elif lines.bad:
        message = f"{lines.bad} lines are not JSON objects, the first is line {lines.first_bad}"
        yield Problem(path, "damaged", message, lines.first_bad_offset)


def _table_problems(path: str, table: Table) -> Iterator[Problem]:
    if table.dropped_tags:
        yield Problem(path, "too-large", f"more than {MAX_TAGS} tags; {table.dropped_tags} values left out")


# ---------------------------------------------------------------------------------- table


def add_row(table: Table, row: Mapping[str, object]) -> None:
    """Put a row's numbers into their columns; a header row goes to the hyperparameters instead."""
    if table.rows == 0 and not table.header and HEADER_NAMES & row.keys() and not _has_step(row):
        table.header.update(_header(row))
        return
    mode = _mode(row)
    if mode:
        table.modes[table.rows] = mode
    for tag, value in flatten(row):
        figure = number(value)
        if figure is None:
            continue
        column = table.columns.get(tag)
        if column is None:
            if len(table.columns) >= MAX_TAGS:
                table.dropped_tags += 1
                continue
            column = table.columns[tag] = (array("d"), array("d"))
        column[0].append(table.rows)
        column[1].append(figure)
    table.rows += 1


def _has_step(row: Mapping[str, object]) -> bool:
    return any(number(row.get(name)) is not None for name in (*STEP_NAMES, *EPOCH_NAMES))


def _mode(row: Mapping[str, object]) -> str:
    for name in MODE_NAMES:
        value = row.get(name)
        if isinstance(value, str) and value.lower() in TRAIN_MODES | HELD_OUT_MODES:
            return value
    return ""


def _header(row: Mapping[str, object]) -> dict[str, Scalar]:
    """Hyperparameters of a first line that describes the run; mmcv's holds its config as source."""
    rest = {key: value for key, value in row.items() if key not in {"env_info", "config"}}
    config = row.get("config")
    if isinstance(config, str):
        return {**scalars(rest), **scalars(_literals(config))}
    if isinstance(config, dict):
        return {**scalars(rest), **scalars(config)}
    return scalars(rest)


def _literals(source: str) -> dict[str, object]:
    """Top-level assignments of a configuration in Python: constants and dict(…) calls, nothing run."""
    if len(source) > 1 << 18:
        return {}
    try:
        module = ast.parse(source)
        return {
            node.targets[0].id: _literal(node.value)
            for node in module.body
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
        }
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return {}


def _literal(node: ast.expr) -> object:
    """The value of a constant, a negated number, or a dict by literal or by call; else an empty list."""
    if isinstance(node, ast.Constant):
        return node.value
    if (
        isinstance(node, ast.UnaryOp)
        and isinstance(node.op, ast.USub)
        and isinstance(node.operand, ast.Constant)
    ):
        value = node.operand.value
        return -value if isinstance(value, int | float) else []
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dict":
        return {word.arg: _literal(word.value) for word in node.keywords if word.arg}
    if isinstance(node, ast.Dict):
        pairs = zip(node.keys, node.values, strict=True)
        return {str(key.value): _literal(value) for key, value in pairs if isinstance(key, ast.Constant)}
    return []


def is_log(table: Table) -> bool:
    """Whether the rows are a training log and not, say, a data set."""
    tags = [tag for tag in table.columns if tag.lower() not in (*STEP_NAMES, *EPOCH_NAMES, *CLOCK_NAMES)]
    if not tags:
        return False
    return any(METRIC.search(tag) for tag in tags) or _first(table, (*STEP_NAMES, *EPOCH_NAMES)) is not None


def table_series(table: Table, source: str) -> tuple[Series, ...]:
    """One series a tag, or one a tag and mode where rows say what they are of."""
    steps, axis, axis_tag = row_steps(table)
    clock = _clock(table)
    modes = _mode_of_rows(table)
    hidden = {axis_tag, *(tag for tag in table.columns if tag.lower() in {"_step", *CLOCK_NAMES})}
    if axis == "step" and axis_tag != "batch":
        hidden |= {tag for tag in table.columns if tag.lower() in {"iter", "step", "iteration"}}
    found: list[Series] = []
    for tag, (at, values) in table.columns.items():
        if tag in hidden:
            continue
        rows = np.frombuffer(at).astype(np.int64)
        figures = np.frombuffer(values).copy()
        groups = modes[rows]
        for mode in dict.fromkeys(groups.tolist()):
            chosen = groups == mode
            where = rows[chosen]
            epoch = tag.lower() in EPOCH_NAMES
            if mode.lower() in HELD_OUT_MODES and (epoch or tag == "lr"):
                continue  # only repeats what training rows say
            found.append(
                Series(
                    tag=f"{mode}/{tag}" if mode and not epoch else tag,
                    steps=steps[where],
                    values=figures[chosen],
                    wall_times=clock[where]
                    if clock is not None and np.isfinite(clock[where]).all()
                    else None,
                    axis=axis,
                    source=source,
                )
            )
    return tuple(found)


def row_steps(table: Table) -> tuple[FloatArray, Axis, str]:
    """The step of every row, its axis, and the tag it came from ("" for row numbers)."""
    step_tag, epoch_tag = _first(table, STEP_NAMES), _first(table, EPOCH_NAMES)
    if step_tag is None and epoch_tag is None:
        return np.arange(table.rows, dtype=np.float64), "row", ""
    if step_tag is None:
        assert epoch_tag is not None
        return _filled(_column(table, epoch_tag)), "epoch", epoch_tag
    steps = _column(table, step_tag)
    if epoch_tag is None:
        return _place_held_out(table, _filled(steps)), "step", step_tag
    epochs = _column(table, epoch_tag)
    if _restarts_each_epoch(table, steps, epochs):
        return _across_epochs(table, steps, _filled(epochs)), "step", step_tag
    if _counts_epochs_without_saying(steps, epochs):
        for row in np.flatnonzero(np.isnan(epochs)):
            table.modes.setdefault(int(row), "val")
        steps = np.where(np.isnan(epochs), np.nan, steps)
    return _place_held_out(table, _filled(steps)), "step", step_tag


def _first(table: Table, names: tuple[str, ...]) -> str | None:
    """The tag of the first of ``names`` that is a column."""
    by_name = {tag.lower(): tag for tag in reversed(table.columns)}
    return next((by_name[name] for name in names if name in by_name), None)


def _column(table: Table, tag: str) -> FloatArray:
    """A column over all rows, NaN where a row lacks it."""
    full: FloatArray = np.full(table.rows, np.nan)
    rows, values = table.columns[tag]
    full[np.frombuffer(rows).astype(np.int64)] = np.frombuffer(values)
    return full


def _filled(steps: FloatArray) -> FloatArray:
    """Rows without a step take that of the row before them; leading ones that of the first that has one."""
    known = np.isfinite(steps)
    if not known.any():
        return np.arange(len(steps), dtype=np.float64)
    last = np.maximum.accumulate(np.where(known, np.arange(len(steps)), -1))
    filled: FloatArray = steps[np.where(last < 0, np.argmax(known), last)]
    return filled


def _held_out(table: Table) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    held = np.zeros(table.rows, dtype=np.bool_)
    held[[row for row, mode in table.modes.items() if mode.lower() in HELD_OUT_MODES]] = True
    return held


def _place_held_out(table: Table, steps: FloatArray) -> FloatArray:
    """Held-out rows that count their own batches go to the training step they follow."""
    held = _held_out(table)
    if not held.any() or held.all():
        return steps
    reached = _filled(np.where(held, np.nan, steps))
    return np.where(held & (steps < reached), reached, steps)


def _restarts_each_epoch(table: Table, steps: FloatArray, epochs: FloatArray) -> bool:
    """Whether the step column counts within an epoch: it falls where the epoch rises."""
    train = ~_held_out(table) & np.isfinite(steps) & np.isfinite(epochs)
    rises = np.diff(epochs[train]) > 0
    falls = np.diff(steps[train]) <= 0
    return bool(rises.any()) and bool(falls[rises].mean() > 0.5)


def _across_epochs(table: Table, steps: FloatArray, epochs: FloatArray) -> FloatArray:
    """Steps since the start of training, from steps within an epoch; held-out rows at its end.

    The iterations of an epoch are the most that was seen: on training rows, or on a held-out
    row where it agrees with them to within one logging interval (mmcv writes it there).
    """
    held = _held_out(table)
    inner = steps[~held & np.isfinite(steps)]
    length = inner.max(initial=1.0)
    gaps = np.diff(np.unique(inner))
    interval = gaps.min() if gaps.size else 0.0
    ends = steps[held & np.isfinite(steps) & (steps >= length) & (steps < length + interval)]
    length = ends.max(initial=length)
    done = np.floor(epochs) - (1.0 if np.nanmin(epochs) >= 1 else 0.0)
    across: FloatArray = np.where(held | np.isnan(steps), (done + 1) * length, done * length + _filled(steps))
    return across


def _counts_epochs_without_saying(steps: FloatArray, epochs: FloatArray) -> bool:
    """Whether rows without an epoch hold it in their step column (mmengine's evaluation rows)."""
    lacking = np.isnan(epochs)
    if not lacking.any() or lacking.all() or not np.isfinite(steps[lacking]).any():
        return False
    same = np.isclose(steps, _filled(epochs))
    return bool(same[lacking].mean() > 0.9) and bool(same[~lacking].mean() < 0.5)


def _mode_of_rows(table: Table) -> np.ndarray[tuple[int], np.dtype[np.object_]]:
    """The mode of every row, "" where none was logged; training is named only beside another mode."""
    names = np.full(table.rows, "", dtype=object)
    inferred = bool(table.modes) and all(mode == "val" for mode in table.modes.values())
    if inferred and len(table.modes) < table.rows:
        names[:] = "train"
    for row, mode in table.modes.items():
        names[row] = mode
    return names


def _clock(table: Table) -> FloatArray | None:
    """Wall time of every row in seconds; milliseconds since the epoch are told by their size."""
    for name in CLOCK_NAMES:
        tag = _first(table, (name,))
        if tag is not None:
            clock = _column(table, tag)
            clock[clock > 1e11] /= 1000
            return clock
    return None
