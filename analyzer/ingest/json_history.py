"""Histories in one JSON document: Keras-like dicts of lists, lists of rows, Sacred, AllenNLP, Chainer."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from math import isfinite
from pathlib import Path

import numpy as np

from analyzer.errors import IngestError
from analyzer.ingest import jsonlines
from analyzer.ingest.json_rows import (
    EPOCH_NAMES,
    METRIC,
    STEP_NAMES,
    Rows,
    add_rows,
    flatten,
    is_log,
    number,
    scalars,
    table_series,
)
from analyzer.ingest.jsonlines import POINTER
from analyzer.model import Axis, FloatArray, Problem, Reading, Scalar, Series

NAME = "json_history"
SUMMARY = "JSON histories: Keras-like, lists of rows, Chainer, AllenNLP, Sacred, TensorBoard downloads"
ORDER = 40

MAX_BYTES = 256 << 20
MAX_NESTING = 100
MAX_DEPTH = 6

HISTORY_NAME = re.compile(
    r"hist|metric|train_?log|training_?log|loss|curve|stats|progress|scalars", re.IGNORECASE
)
RESULTS_NAME = re.compile(
    r"(?:(?:all|train|training|eval|test|predict|final)_)?(?:results?|summary|scores?)|wandb-summary|metrics",
    re.IGNORECASE,
)
LISTED = re.compile(rb'"([^"\n]{1,80})"\s*:\s*\[\s*(?:\[\s*)?"?-?(?:\d|NaN|Infinity)')
ROW_KEY = re.compile(rb'"([^"\n]{1,80})"\s*:\s*"?-?(?:\d|NaN|Infinity)')
FRAMED = re.compile(rb'"([^"\n]{1,80})"\s*:\s*\{\s*"\d+"\s*:')  # a column of a data frame
COUNTED = re.compile(rb'\{\s*"(?:epoch[_ -]?)?\d{1,9}"\s*:\s*\{')  # rows by number
CURVE_NAME = re.compile(r"hist|loss|curve", re.IGNORECASE)
CURVE_FIRST = re.compile(rb'\{\s*"[^"\n]{1,80}"\s*:\s*\[\s*-?\d+\.\d')
TRIPLE = re.compile(rb"\[\s*\[\s*\d{9,}(?:\.\d+)?\s*,\s*\d+\s*,")
ALLENNLP_FILE = re.compile(r"metrics_epoch_(\d+)")
ALLENNLP_EXTRA = re.compile(r"best_|peak_|training_(?:duration|epochs|start_epoch)|epoch$")
AXIS_NAMES = {
    **dict.fromkeys((*EPOCH_NAMES, "epoch_list"), "epoch"),
    **dict.fromkeys((*STEP_NAMES, "iterations", "batches"), "step"),
}
TRANSPARENT = frozenset(
    {"history", "log", "logs", "log_history", "epochs", "metrics", "results", "data", "scalars"}
)
SETTING_NAMES = ("config", "params", "args", "hparams", "hyperparameters", "hyper_parameters", "settings")
TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{},]')


@dataclass
class Gathered:
    """Curves found in a document: (tag, values, index) and rows by prefix."""

    lists: dict[str, list[object]] = field(default_factory=dict)
    rows: dict[str, Rows] = field(default_factory=dict)
    sacred: list[Series] = field(default_factory=list)


def claims(path: Path, head: bytes) -> bool:
    """JSON whose name or first keys are those of a history; other mappings are somebody else's."""
    start = head.lstrip(b"\xef\xbb\xbf").lstrip()
    if path.suffix.lower() not in {".json", ".log", ""} or not start.startswith((b"{", b"[")):
        return False
    if start.startswith(b"["):
        return bool(TRIPLE.match(start)) or (
            start[1:].lstrip().startswith(b"{") and _names_metrics(ROW_KEY, head)
        )
    if path.suffix.lower() != ".json":
        return False
    if RESULTS_NAME.fullmatch(path.stem) or ALLENNLP_FILE.fullmatch(path.stem):
        return True
    if _names_metrics(LISTED, head) or b'"steps": [' in head:
        return True
    if COUNTED.match(start) and _names_metrics(ROW_KEY, head):
        return True
    if CURVE_NAME.search(path.stem) and CURVE_FIRST.match(start):
        return True
    return bool(HISTORY_NAME.search(path.stem)) and (
        _names_metrics(ROW_KEY, head) or _names_metrics(FRAMED, head)
    )


def shares_folder(path: Path) -> bool:
    """AllenNLP writes one file an epoch; results beside a history belong to it."""
    return bool(ALLENNLP_FILE.fullmatch(path.stem) or RESULTS_NAME.fullmatch(path.stem))


def run_root(path: Path) -> Path:
    """The run folder of a W&B file, else the file's own folder: AllenNLP spreads a run over many files."""
    return jsonlines.run_root(path)


def read(path: Path) -> Reading:
    """The curves of a JSON document, whichever of the known shapes it has."""
    data, problems = load(path)
    if isinstance(data, dict) and (single := _one_epoch(path, data)):
        return Reading(series=single, problems=tuple(problems))
    if isinstance(data, list) and (download := _tensorboard(path, data)):
        return Reading(series=(download,), problems=tuple(problems))
    found = Gathered()
    _gather(data, "", found, 0)
    series = tuple(_all_series(found, str(path)))
    settings = _settings(data)
    if not series:
        problems.append(_no_curve(path, data))
    return Reading(series=series, hyperparameters=settings, problems=tuple(problems))


def load(path: Path) -> tuple[object, list[Problem]]:
    """The document, cut back to its last complete element where it breaks off, and what was wrong."""
    text = _text(path)
    try:
        return json.loads(text), []
    except RecursionError as error:
        raise IngestError(str(path), "nested too deeply", "unsafe") from error
    except json.JSONDecodeError as error:
        repaired = _cut_back(text[: error.pos])
        if repaired is None:
            raise IngestError(str(path), f"not JSON: {error.msg}", "damaged", error.pos) from error
        kind = "truncated" if len(text.rstrip()) - error.pos < 2000 and _is_open(text) else "damaged"
        message = f"breaks off ({error.msg}); read up to the last complete element"
        return repaired, [Problem(str(path), kind, message, len(text[: error.pos].encode()))]
    except ValueError as error:  # an integer of thousands of digits
        raise IngestError(str(path), "holds a number too long to read", "unsafe") from error


def _text(path: Path) -> str:
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise IngestError(str(path), f"{size >> 20} MiB of JSON in one document", "too-large")
        raw = path.read_bytes()
    except OSError as error:
        raise IngestError(str(path), error.strerror or str(error)) from error
    if raw.startswith(POINTER):
        raise IngestError(str(path), "a Git LFS pointer, not the file itself", "pointer")
    if not raw.strip(b" \t\r\n\0"):
        raise IngestError(str(path), "an empty file", "empty")
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        return raw.decode("utf-16", "replace")
    return raw.decode("utf-8-sig", "replace")


def _is_open(text: str) -> bool:
    """Whether brackets are left open at the end of the text."""
    return not text.rstrip().endswith(("}", "]"))


def _cut_back(text: str) -> object | None:
    """The document as far as it goes: cut at its last comma, open brackets closed."""
    closers: list[str] = []
    end, tail = 0, ""
    for token in TOKEN.finditer(text):
        mark = token.group()
        if mark in "{[":
            closers.append("}" if mark == "{" else "]")
            if len(closers) > MAX_NESTING:
                return None
        elif mark in "}]" and closers:
            closers.pop()
            end, tail = token.end(), "".join(reversed(closers))
        elif mark == ",":
            end, tail = token.start(), "".join(reversed(closers))
    try:
        value: object = json.loads(text[:end] + tail)
    except (ValueError, RecursionError):
        return None
    return value


def _names_metrics(pattern: re.Pattern[bytes], head: bytes) -> bool:
    return any(METRIC.search(name.decode("utf-8", "replace")) for name in pattern.findall(head))


# ---------------------------------------------------------------------------------- shapes


def _gather(data: object, prefix: str, found: Gathered, depth: int) -> None:
    """Walk a document and put every curve in it where it belongs."""
    if depth > MAX_DEPTH:
        return
    if isinstance(data, list):
        if data and any(isinstance(item, dict) for item in data):
            _rows(prefix, (item for item in data if isinstance(item, dict)), found)
        elif data and _is_curve(data):
            found.lists[prefix or "value"] = data
    elif isinstance(data, dict):
        _gather_mapping(data, prefix, found, depth)


def _gather_mapping(data: dict[str, object], prefix: str, found: Gathered, depth: int) -> None:
    if isinstance(data.get("values"), list) and isinstance(data.get("steps"), list):
        found.sacred.extend(_sacred(prefix, data))
    elif (indexed := _indexed(data)) is None:
        for name, value in data.items():
            quiet = name.lower() in TRANSPARENT and isinstance(value, dict | list) and not _is_curve(value)
            _gather(value, prefix if quiet else f"{prefix}/{name}".lstrip("/"), found, depth + 1)
    elif all(isinstance(value, dict) for value in indexed.values()):
        rows = ({"epoch": at, **value} for at, value in indexed.items() if isinstance(value, dict))
        _rows(prefix, rows, found)
    elif _is_curve(list(indexed.values())):
        found.lists[prefix or "value"] = list(indexed.values())


def _rows(prefix: str, rows: Iterable[dict[str, object]], found: Gathered) -> None:
    add_rows(found.rows.setdefault(prefix, Rows()), rows)


def _indexed(data: Mapping[str, object]) -> dict[int, object] | None:
    """A mapping whose keys count (``"0"``, ``"epoch_1"``), by number and in order; else None."""
    matches = {name: re.fullmatch(r"(?:epoch[_ -]?)?(\d{1,9})", name) for name in data}
    if len(data) < 2 or not all(matches.values()):
        return None
    numbered = {int(match[1]): data[name] for name, match in matches.items() if match}
    return dict(sorted(numbered.items()))


def _is_curve(data: object) -> bool:
    """A list of numbers, gaps allowed."""
    if not isinstance(data, list):
        return False
    known = [item for item in data if item is not None]
    return bool(known) and all(number(item) is not None for item in known)


def _sacred(prefix: str, data: Mapping[str, object]) -> Iterator[Series]:
    """A metric of Sacred's file storage: steps, values and ISO times side by side."""
    steps, values, times = data["steps"], data["values"], data.get("timestamps")
    assert isinstance(steps, list) and isinstance(values, list)
    points = [(number(step), number(value)) for step, value in zip(steps, values, strict=False)]
    kept = [i for i, (step, value) in enumerate(points) if _is_finite(step) and value is not None]
    if not kept:
        return
    clock = _times(times, kept) if isinstance(times, list) and len(times) >= len(points) else None
    yield Series(
        tag=prefix or "value",
        steps=np.array([points[i][0] for i in kept], dtype=np.float64),
        values=np.array([points[i][1] for i in kept], dtype=np.float64),
        wall_times=clock,
    )


def _times(times: list[object], kept: list[int]) -> FloatArray | None:
    try:
        stamps = [datetime.fromisoformat(str(times[i])) for i in kept]
    except ValueError:
        return None
    return np.array([(t if t.tzinfo else t.replace(tzinfo=UTC)).timestamp() for t in stamps])


def _tensorboard(path: Path, data: list[object]) -> Series | None:
    """A curve downloaded from TensorBoard: triples of wall time, step and value."""
    triples = [item for item in data if isinstance(item, list) and len(item) == 3]
    figures = [tuple(number(part) for part in item) for item in triples]
    if (
        not figures
        or len(triples) < len(data)
        or not all(_is_finite(part) for item in figures for part in item[:2])
    ):
        return None
    table = np.array([item for item in figures if item[2] is not None], dtype=np.float64)
    if not table.size or (table[:, 0] < 1e8).any():
        return None
    tag = path.stem.rpartition("tag-")[2]
    return Series(tag, table[:, 1].copy(), table[:, 2].copy(), table[:, 0].copy(), source=str(path))


def _one_epoch(path: Path, data: Mapping[str, object]) -> tuple[Series, ...]:
    """AllenNLP's ``metrics_epoch_3.json``: one point of every curve of the run."""
    match = ALLENNLP_FILE.fullmatch(path.stem)
    if match is None:
        return ()
    epoch = number(data.get("epoch"))
    at = np.array([epoch if epoch is not None and isfinite(epoch) else float(match[1])])
    leaves = ((tag, number(value)) for tag, value in flatten(data) if not ALLENNLP_EXTRA.match(tag))
    return tuple(
        Series(tag, at, np.array([value]), axis="epoch", source=str(path))
        for tag, value in leaves
        if value is not None
    )


# ---------------------------------------------------------------------------------- series


def _all_series(found: Gathered, source: str) -> Iterator[Series]:
    for series in found.sacred:
        yield _with(series, series.tag, source)
    for prefix, table in found.rows.items():
        if not is_log(table):
            continue
        for series in table_series(table, source):
            shared = series.tag.lower() in EPOCH_NAMES
            yield _with(series, f"{prefix}/{series.tag}" if prefix and not shared else series.tag, source)
    yield from _list_series(found.lists, source)


def _with(series: Series, tag: str, source: str) -> Series:
    return Series(tag, series.steps, series.values, series.wall_times, series.axis, source)


def _list_series(lists: Mapping[str, list[object]], source: str) -> Iterator[Series]:
    """Lists beside each other; the folder's own axis list gives the steps, else the position does."""
    longest = max((len(values) for tag, values in lists.items() if not _axis_of(tag)), default=0)
    for tag, values in lists.items():
        if _axis_of(tag):
            continue
        steps, axis = _list_steps(tag, lists, longest)
        kept = [(step, number(value)) for step, value in zip(steps, values, strict=True) if value is not None]
        yield Series(
            tag,
            np.array([step for step, _ in kept], dtype=np.float64),
            np.array([value for _, value in kept], dtype=np.float64),
            axis=axis,
            source=source,
        )


def _axis_of(tag: str) -> str:
    return AXIS_NAMES.get(tag.rpartition("/")[2].lower(), "")


def _list_steps(tag: str, lists: Mapping[str, list[object]], longest: int) -> tuple[list[float], Axis]:
    """Steps of a list: an axis list beside it, else its index.

    Of lists with very different lengths the long one was logged by step, and a short one once
    every so many of its steps if the lengths divide.
    """
    length = len(lists[tag])
    for other, values in lists.items():
        kind = _axis_of(other)
        near = other.rpartition("/")[0] in {tag.rpartition("/")[0], ""}
        steps = [number(value) for value in values]
        if kind and near and len(values) == length and all(_is_finite(step) for step in steps):
            return [step for step in steps if step is not None], "epoch" if kind == "epoch" else "step"
    if longest < 2 * length:
        by_step = longest > 0 and any(2 * len(v) <= longest for t, v in lists.items() if not _axis_of(t))
        return [float(i) for i in range(length)], "step" if by_step else "epoch"
    if length > 1 and longest % length == 0:
        every = longest // length
        return [float((i + 1) * every - 1) for i in range(length)], "step"
    return [float(i) for i in range(length)], "epoch"


def _is_finite(figure: float | None) -> bool:
    return figure is not None and isfinite(figure)


def _settings(data: object) -> dict[str, Scalar]:
    """Hyperparameters stored beside the curves."""
    if not isinstance(data, dict):
        return {}
    kept: dict[str, Scalar] = {}
    for name in SETTING_NAMES:
        value = data.get(name)
        if isinstance(value, dict):
            kept.update(scalars(value))
    return kept


def _no_curve(path: Path, data: object) -> Problem:
    """Why there is no series; an empty document raises."""
    if not data:
        raise IngestError(str(path), "an empty JSON document: nothing was logged", "empty")
    figures = isinstance(data, dict) and any(number(value) is not None for _, value in flatten(data))
    message = (
        "holds final results only, no curve" if figures else "JSON, but no training curve recognised in it"
    )
    return Problem(str(path), "no-series", message)
