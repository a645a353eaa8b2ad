"""Curves in memory -> a run: dictionaries, rows of dictionaries, DataFrames."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from analyzer.assemble import ordered
from analyzer.ingest.json_rows import EPOCH_NAMES, STEP_NAMES, Rows, add_rows, table_series
from analyzer.model import Axis, FloatArray, Run, Scalar, Series
from analyzer.roles import ROLES, with_roles

if TYPE_CHECKING:
    from pandas import DataFrame


def run_of(
    curves: Any,
    steps: Sequence[float] | None = None,
    hyperparameters: Mapping[str, Scalar] | None = None,
    name: str = "run",
) -> Run:
    """A run of curves given as

    - a dictionary: tag -> values, with ``steps`` shared by all (default 0, 1, 2, ...);
    - rows such as ``trainer.state.log_history``: each a dictionary with its own step or epoch;
    - a DataFrame: a column ``step`` or ``epoch`` or a named index gives the steps; in a column that has
      values in some of the rows only, the missing ones are no points.

    A tag that is the name of a role has that role. Raises ValueError for what is no curve.
    """
    if hasattr(curves, "columns"):
        series = _of_frame(curves)
    elif isinstance(curves, Mapping):
        series = [_of_values(str(tag), values, steps) for tag, values in curves.items()]
    else:
        series = _of_rows(curves)
    # "test_" may stand in for validation: the table of roles sees to that.
    exact = {s.tag: s.tag for s in series if s.tag in ROLES and not s.tag.startswith("test_")}
    named = tuple(ordered(s) for s in with_roles(series, exact))
    return Run(name, "", named, hyperparameters=dict(hyperparameters or {}))


def _of_values(tag: str, values: Sequence[float], steps: Sequence[float] | None) -> Series:
    array = _numbers(tag, values)
    axis = np.arange(len(array)) if steps is None else np.asarray(steps)[: len(array)]
    if len(axis) < len(array):
        raise ValueError(f"{tag}: {len(array)} values and only {len(axis)} steps")
    return Series(tag, axis.astype(np.float64), array)


def _numbers(tag: str, values: Any) -> FloatArray:
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"{tag}: not all of its values are numbers") from None
    if array.ndim != 1:
        raise ValueError(f"{tag}: a curve has one axis, not {array.ndim}")
    return array


def _of_rows(rows: Iterable[Mapping[str, Any]]) -> list[Series]:
    listed = list(rows)
    if not all(isinstance(row, Mapping) for row in listed):
        raise ValueError("curves are a dictionary, a DataFrame or rows of dictionaries")
    table = Rows()
    add_rows(table, ({key: _plain(value) for key, value in row.items()} for row in listed))
    return list(table_series(table, "")) if table.columns else []


def _plain(value: Any) -> Any:
    """A number of NumPy's, as losses often are, as Python's."""
    return value.item() if isinstance(value, np.generic) else value


def _of_frame(frame: DataFrame) -> list[Series]:
    from pandas.api.types import is_numeric_dtype

    step_column, steps, axis = _axis(frame)
    columns = [c for c in frame.columns if c != step_column and is_numeric_dtype(frame[c])]
    return [s for column in columns if (s := _of_column(frame, column, steps, axis)).points]


def _axis(frame: DataFrame) -> tuple[Any, FloatArray, Axis]:
    """The column of steps (None where it is the index, or the rows are counted), its values and kind."""
    names = {str(column).strip().lower(): column for column in frame.columns}
    for name in (*STEP_NAMES, *EPOCH_NAMES):
        kind: Axis = "epoch" if name in EPOCH_NAMES else "step"
        if name in names:
            return names[name], _numbers(name, frame[names[name]]), kind
        if str(frame.index.name).strip().lower() == name:
            return None, _numbers(name, frame.index), kind
    return None, np.arange(len(frame), dtype=np.float64), "row"


def _of_column(frame: DataFrame, column: Any, steps: FloatArray, axis: Axis) -> Series:
    """Gaps are no points; but after a column that had a value in every row, NaN is what was logged."""
    values = _numbers(str(column), frame[column])
    logged = ~np.isnan(values)
    last = int(np.flatnonzero(logged)[-1]) if logged.any() else -1
    if logged[: last + 1].all() and last > 0:
        logged[last:] = True
    kept = logged & ~np.isnan(steps)
    return Series(str(column), steps[kept], values[kept], axis=axis)
