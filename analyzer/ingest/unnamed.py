"""Numbers without a header: what their values alone say of them."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from analyzer.ingest import tables
from analyzer.ingest.json_rows import METRIC
from analyzer.ingest.tables import Column, Table
from analyzer.model import FloatArray

ENOUGH_ROWS = 5
TELLING_ROWS = 10  # from which two columns may be told by how they run
LOG = re.compile(r"(?<![a-z])(?:logs?|history|output|stdout)(?![a-z])", re.IGNORECASE)
WHOLE = re.compile(r"\d{1,15}")


def names_of(columns: Sequence[FloatArray], stem: str) -> tuple[str, ...]:
    """A name for each column: what its values prove it to be, else the file's name and a number."""
    names: list[str] = []
    if len(columns) > 1 and counts(columns[0]):
        names.append("step")
    elif len(columns) == 2 and _numbers_epochs(columns[0]):
        names.append("epoch")
    if len(columns) > 2 and np.all(columns[len(names)] > 1e9):  # seconds or milliseconds since 1970
        names.append("timestamp")
    rest = columns[len(names) :]
    if len(rest) == 1:
        return (*names, stem)
    told = _loss_and_perplexity(columns[0], rest) if "step" in names else {}
    told = told or (_loss_and_accuracy(rest) if "step" in names else {})
    return (*names, *(told.get(i, f"{stem}[{i}]") for i in range(len(rest))))


def counts(values: FloatArray) -> bool:
    """Whole numbers that rise, and hardly ever stand still."""
    change = np.diff(values)
    return bool(np.all(values == np.round(values)) and np.all(change >= 0) and np.mean(change > 0) >= 0.9)


def _numbers_epochs(values: FloatArray) -> bool:
    """Whole numbers that stand still over many rows, or go on by one."""
    change = np.diff(values)
    whole = np.all(values == np.round(values)) and values[0] >= 0
    return bool(whole and np.all((change == 0) | (change == 1)) and np.mean(change) <= 0.1)


def _loss_and_perplexity(count: FloatArray, columns: Sequence[FloatArray]) -> dict[int, str]:
    """A column that is the exponential of another, and beside the two a rate that warms up from zero."""
    for i, loss in enumerate(columns):
        with np.errstate(over="ignore"):
            exponential = np.exp(loss)
        for j, other in enumerate(columns):
            if np.ptp(loss) > 0 and np.allclose(other, exponential, rtol=1e-4, atol=0):
                rates = [k for k in range(len(columns)) if k not in (i, j) and _warms_up(count, columns[k])]
                return {i: "loss", j: "perplexity"} | ({rates[0]: "lr"} if len(rates) == 1 else {})
    return {}


def _warms_up(count: FloatArray, values: FloatArray) -> bool:
    """Small, never negative, and proportional to the count over the first rows."""
    last = min(ENOUGH_ROWS, len(values) - 1)
    if not count[last] or np.any(values < 0) or np.any(values > 0.1) or not values[last]:
        return False
    first = slice(0, last + 1)
    return np.allclose(values[first], count[first] * (values[last] / count[last]), rtol=1e-4, atol=0)


def _loss_and_accuracy(columns: Sequence[FloatArray]) -> dict[int, str]:
    """Of two columns one that falls, and one that rises within 0 to 1 as the other falls."""
    if len(columns) != 2 or len(columns[0]) < TELLING_ROWS or any(np.ptp(c) == 0 for c in columns):
        return {}
    for i, (loss, score) in enumerate((columns, columns[::-1])):
        opposed = np.corrcoef(loss, score)[0, 1] < -0.7
        falls, rises = np.mean(loss[1:] < loss[0]) >= 0.9, np.mean(score[1:] > score[0]) >= 0.9
        if opposed and falls and rises and loss.min() >= 0 and score.min() >= 0 and score.max() <= 1:
            return {i: "loss", 1 - i: "accuracy"}
    return {}


def logged_in_columns(rows: Sequence[Sequence[str]], stem: str, suffix: str) -> bool:
    """Is this a log of bare columns: a count that rises with every row, and numbers that are not whole?"""
    if len(rows) < ENOUGH_ROWS or not (suffix == ".log" or LOG.search(stem.replace("_", " "))):
        return False
    if len({len(row) for row in rows}) != 1 or not all(WHOLE.fullmatch(row[0]) for row in rows):
        return False
    rising = np.all(np.diff([float(row[0]) for row in rows]) > 0)
    return bool(rising) and not all(WHOLE.fullmatch(cell) for row in rows for cell in row)


def curves_in_lines(rows: Sequence[Sequence[str]], stem: str) -> Table | None:
    """A line of numbers for each curve, its name before them; one line alone may have that of the file."""
    named = {row[0]: row[1:] for row in rows if len(row) > 1 and isinstance(tables.cell(row[0]), str)}
    if len(named) != len(rows) or not any(METRIC.search(name) for name in named):
        if len(rows) != 1 or not tables.curve_like(stem):
            return None
        named = {stem: rows[0][not rows[0][0] :]}  # pandas' corner is empty
    values = {name: [tables.cell(cell) for cell in row] for name, row in named.items()}
    numbers = {name: [v for v in row if isinstance(v, float)] for name, row in values.items()}
    length = len(next(iter(numbers.values()), ()))
    if length < ENOUGH_ROWS or any(
        len(row) != length or len(numbers[name]) != length for name, row in values.items()
    ):
        return None
    return Table(length, tuple(Column(name, np.array(row)) for name, row in numbers.items()))
