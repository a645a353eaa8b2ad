"""MLflow runs: the file store (``mlruns/…``) and the SQLite store (``mlflow.db``)."""

from __future__ import annotations

import re
import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import numpy as np

from analyzer.errors import IngestError
from analyzer.model import Problem, Reading, Scalar, Series

NAME = "mlflow"
SUMMARY = "MLflow file store (metrics/, params/, meta.yaml) and mlflow.db"
ORDER = 15

PARTS = frozenset({"metrics", "params", "tags"})
RUN_ID = re.compile(r"[0-9a-f]{32}")
METRIC_LINE = re.compile(
    rb"\d{9,13} [-+]?(?:(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?|nan|inf(?:inity)?)(?: -?\d{1,18})?\s*",
    re.IGNORECASE,
)
RUN_META = re.compile(rb"^run_(?:id|uuid):", re.MULTILINE)
SQLITE_MAGIC = b"SQLite format 3\0"
SQLITE_SUFFIXES = frozenset({".db", ".sqlite", ".sqlite3"})
KEPT_TAGS = frozenset({"mlflow.runName", "mlflow.source.name", "mlflow.parentRunId"})
META_NAMES = ("run_name", "name", "status", "start_time", "end_time", "source_name", "lifecycle_stage")
STATUS = {1: "RUNNING", 2: "SCHEDULED", 3: "FINISHED", 4: "FAILED", 5: "KILLED"}
MAX_VALUE = 6000  # characters of a parameter, MLflow's own limit
MAX_METRIC_BYTES = 1 << 30
MAX_SQLITE_WORK = 20_000  # progress callbacks of 100 000 instructions each

Row = tuple[object, ...]


def claims(path: Path, head: bytes) -> bool:
    """By the place in a run's folder and, for metrics and meta.yaml, by the content."""
    if path.suffix.lower() in SQLITE_SUFFIXES:
        return head.startswith(SQLITE_MAGIC)
    if path.name == "meta.yaml":
        return bool(RUN_META.search(head))
    part = _part(path)
    if part is None:
        return False
    if path.parts[part] == "metrics":
        return bool(METRIC_LINE.fullmatch(head.split(b"\n", 1)[0] + b"\n")) or _in_run(path, part)
    return _in_run(path, part)


def run_root(path: Path) -> Path:
    """The folder that holds ``metrics/``, ``params/`` and ``meta.yaml``."""
    part = None if path.name == "meta.yaml" else _part(path)
    return path.parent if part is None else Path(*path.parts[:part])


def read(path: Path) -> Reading:
    """One metric, one parameter, one tag, or the facts about a run; all runs of a database."""
    if path.suffix.lower() in SQLITE_SUFFIXES:
        return _merged(read_all(path))
    if path.name == "meta.yaml":
        return _meta(path)
    part = _part(path)
    if part is None:
        raise IngestError(str(path), "not a file of an MLflow run", "unsupported")
    name = "/".join(path.parts[part + 1 :])
    if path.parts[part] == "metrics":
        return _metric(path, name)
    value = _lines(path, 1 << 20).decode("utf-8", "replace").rstrip("\n")
    if len(value) > MAX_VALUE or (path.parts[part] == "tags" and name not in KEPT_TAGS):
        return Reading()
    return Reading(hyperparameters={name: _scalar(value)})


def read_all(path: Path) -> dict[str, Reading]:
    """The runs of an ``mlflow.db`` by their name (made unique with their id where it is not).

    A file of the file store belongs to one run, whose name is not in it: "" stands for it.
    """
    if path.suffix.lower() not in SQLITE_SUFFIXES:
        return {"": read(path)}
    uri = f"file:{quote(str(path.resolve()))}?mode=ro&immutable=1"
    try:
        with closing(sqlite3.connect(uri, uri=True)) as store:
            return _runs(path, store)
    except sqlite3.Error as error:
        raise IngestError(str(path), f"SQLite: {error}", "damaged") from error


def _part(path: Path) -> int | None:
    """Index of ``metrics``, ``params`` or ``tags`` in the path: the one below a run id, else the last."""
    places = [i for i, name in enumerate(path.parts[:-1]) if i and name in PARTS]
    below_id = [i for i in places if RUN_ID.fullmatch(path.parts[i - 1])]
    return next(iter(below_id or places[-1:]), None)


def _in_run(path: Path, part: int) -> bool:
    return bool(RUN_ID.fullmatch(path.parts[part - 1]))


def _scalar(text: str) -> Scalar:
    """MLflow stores every parameter as text: numbers and truth values are told by their look."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return {"True": True, "False": False, "None": None}.get(text, text)


# ---------------------------------------------------------------------------------- files


def _lines(path: Path, limit: int) -> bytes:
    try:
        with path.open("rb") as file:
            raw = file.read(limit + 1)
    except OSError as error:
        raise IngestError(str(path), error.strerror or str(error)) from error
    if len(raw) > limit:
        raise IngestError(str(path), f"more than {limit >> 20} MiB", "too-large")
    return raw


def _metric(path: Path, name: str) -> Reading:
    """A metric file: a line ``milliseconds value step`` a point, without the step in old versions."""
    raw = _lines(path, MAX_METRIC_BYTES)
    points: list[tuple[float, float, float]] = []
    bad = first_bad = offset = 0
    for line in raw.split(b"\n"):
        if METRIC_LINE.fullmatch(line):
            clock, value, *step = line.split()
            points.append((float(step[0]) if step else 0.0, float(value), float(clock) / 1000))
        elif line.strip():
            first_bad = first_bad if bad else offset
            bad += 1
        offset += len(line) + 1
    if not points:
        raise IngestError(str(path), "no line of it is a metric", "damaged" if bad else "empty")
    table = np.array(points)
    problems = (Problem(str(path), "damaged", f"{bad} lines are not points", first_bad),) if bad else ()
    steps, values, clock_column = (column.copy() for column in table.T)
    series = Series(name, steps, values, clock_column, source=str(path))
    if len(points) > 1 and not steps.any():  # logged without steps: MLflow writes 0 for every point
        rows = np.arange(len(values), dtype=np.float64)
        series = Series(name, rows, values, clock_column, "row", str(path))
    return Reading(series=(series,), problems=problems)


def _meta(path: Path) -> Reading:
    """Name, status and times of a run."""
    import yaml

    try:
        data = yaml.safe_load(_lines(path, 1 << 20))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise IngestError(str(path), "not YAML", "damaged") from error
    if not isinstance(data, dict):
        raise IngestError(str(path), "not a mapping", "damaged")
    facts: dict[str, Scalar] = {}
    for name in META_NAMES:
        value = data.get(name)
        if isinstance(value, str | int | float) and value != "":
            facts[f"mlflow.{name}"] = value
    status = data.get("status")
    if isinstance(status, int):
        facts["mlflow.status"] = STATUS.get(status, status)
    return Reading(hyperparameters=facts, problems=tuple(_failed(path, facts)))


def _failed(path: Path, facts: dict[str, Scalar]) -> Iterator[Problem]:
    if facts.get("mlflow.status") in {"FAILED", "KILLED"}:
        yield Problem(str(path), "crashed", f"MLflow says the run {str(facts['mlflow.status']).lower()}")


# ---------------------------------------------------------------------------------- database


def _runs(path: Path, store: sqlite3.Connection) -> dict[str, Reading]:
    """Every run of an open store. A database is hostile: only its tables are read, with a limit on work."""
    work = iter(range(MAX_SQLITE_WORK))
    store.set_progress_handler(lambda: int(next(work, None) is None), 100_000)
    store.execute("PRAGMA trusted_schema = OFF")
    tables = {row[0] for row in store.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if not {"metrics", "runs"} <= tables:
        raise IngestError(str(path), "an SQLite database, but without MLflow's tables", "unsupported")
    metrics = "SELECT run_uuid, key, step, value, timestamp, is_nan FROM metrics ORDER BY run_uuid, key, timestamp, step"
    series = _database_series(str(path), store.execute(metrics))
    params: dict[str, dict[str, Scalar]] = defaultdict(dict)
    if "params" in tables:
        for run, key, value in store.execute("SELECT run_uuid, key, value FROM params"):
            params[str(run)][str(key)] = _scalar(str(value)[:MAX_VALUE])
    readings: dict[str, Reading] = {}
    for run, name, status in store.execute("SELECT run_uuid, name, status FROM runs ORDER BY start_time"):
        label = str(name or run)
        label = f"{label} ({run})" if label in readings else label
        facts: dict[str, Scalar] = {
            **params[str(run)],
            "mlflow.run_name": label,
            "mlflow.status": str(status),
        }
        readings[label] = Reading(
            tuple(series[str(run)]), hyperparameters=facts, problems=tuple(_failed(path, facts))
        )
    if not readings:
        raise IngestError(str(path), "an MLflow database without runs", "empty")
    return readings


def _database_series(source: str, rows: Iterable[Row]) -> dict[str, list[Series]]:
    """Metrics by run; infinities are stored as the largest float, NaN as a flag."""
    points: dict[tuple[str, str], list[tuple[float, float, float]]] = defaultdict(list)
    for run, key, step, value, clock, is_nan in rows:
        if not all(isinstance(part, int | float) for part in (step, value, clock)):
            continue
        figure = np.nan if is_nan else float(value)  # type: ignore[arg-type]
        if abs(figure) >= np.finfo(np.float64).max:
            figure = np.copysign(np.inf, figure)
        points[str(run), str(key)].append((float(step), figure, float(clock) / 1000))  # type: ignore[arg-type]
    series: dict[str, list[Series]] = defaultdict(list)
    for (run, key), rows_of_key in points.items():
        steps, values, clock_column = (column.copy() for column in np.array(rows_of_key).T)
        series[run].append(Series(key, steps, values, clock_column, source=source))
    return series


def _merged(readings: dict[str, Reading]) -> Reading:
    """All runs in one reading; with several, tags and parameters carry the name of their run."""
    if len(readings) == 1:
        return next(iter(readings.values()))
    return Reading(
        series=tuple(
            Series(f"{name}/{s.tag}", s.steps, s.values, s.wall_times, s.axis, s.source)
            for name, reading in readings.items()
            for s in reading.series
        ),
        hyperparameters={f"{n}/{k}": v for n, r in readings.items() for k, v in r.hyperparameters.items()},
        problems=tuple(problem for reading in readings.values() for problem in reading.problems),
    )
