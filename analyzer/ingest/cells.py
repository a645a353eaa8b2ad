"""The cells of a table of text, column by column, while its blocks of rows come in."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from analyzer.ingest import tables
from analyzer.ingest.tables import Column, Labels, Table
from analyzer.model import FloatArray, IntArray, Problem

MAX_WORDS = 1000  # different words of a column of labels
SEVERAL = re.compile(
    r"\s*\d*\.\d+(?:e-?\d+)?(?:,\s*\d*\.\d+(?:e-?\d+)?){1,63}\s*", re.IGNORECASE
)  # rates of groups

Stretch = tuple[int, FloatArray, IntArray | None]


@dataclass(slots=True)
class Cells:
    """One column of the file while its blocks of rows come in.

    ``numbers`` holds stretches of (first row, values, rows or None for all of them) by tag: a cell
    that is a list feeds several tags. ``words`` holds (first row, codes) of cells that are text.
    """

    name: str
    numbers: dict[str, list[Stretch]] = field(default_factory=dict)
    known: dict[str, int] = field(default_factory=dict)
    words: list[tuple[int, IntArray]] = field(default_factory=list)
    lost: int = 0
    example: str = ""


def take(column: Cells, cells: FloatArray | list[str], start: int, decimal: str) -> None:
    """Add one block: numbers, of which NaN is a missing one, or texts, of which the empty one is."""
    if not isinstance(cells, list):
        keep(column, column.name, start, cells, ~np.isnan(cells))
        return
    rows = [row for row, text in enumerate(cells) if text] if "" in cells else None
    texts = cells if rows is None else [cells[row] for row in rows]
    numbers = plain_numbers(texts, decimal)
    if numbers is None:
        take_mixed(column, cells, start, decimal)
    elif len(texts):
        at = None if rows is None else np.array(rows)
        add(column, column.name, (start, numbers, at))


def plain_numbers(texts: list[str], decimal: str) -> FloatArray | None:
    """The numbers that all texts are, NaN and infinities among them, or None where one is something else."""
    if decimal == ",":
        texts = [text.replace(".", "_").replace(",", ".") for text in texts]
    try:
        numbers = np.array(list(map(float, texts)), dtype=np.float64)
    except ValueError:
        return None
    return None if "_" in "".join(texts) else numbers  # 1_000 is a number to Python alone


def take_mixed(column: Cells, cells: list[str], start: int, decimal: str) -> None:
    """Texts that are not all plain numbers: each different one is looked at once."""
    different = dict.fromkeys(cells)
    code_of = {text: code for code, text in enumerate(different)}
    codes = np.array([code_of[text] for text in cells], dtype=np.int64)
    found = [named_numbers(column.name, text, decimal) for text in different]
    for tag in dict.fromkeys(tag for numbers in found for tag in numbers):
        values = np.array([numbers.get(tag, np.nan) for numbers in found])
        present = np.array([tag in numbers for numbers in found])
        keep(column, tag, start, values[codes], present[codes])
    keep_words(column, start, codes, [words_of(t, n) for t, n in zip(different, found, strict=True)])


def words_of(text: str, numbers: Mapping[str, float]) -> str:
    """The text of a cell that is neither numbers nor a sign for nothing."""
    return "" if numbers or tables.cell(text) is None else text.strip()


def named_numbers(name: str, text: str, decimal: str) -> dict[str, float]:
    """The numbers in one cell by tag: none, one, or one for each element of a list."""
    fraction = re.fullmatch(r"\s*(\d+)\s*/\s*\d+\s*", text)
    if fraction and tables.normalise(name) in tables.COUNTERS:  # epoch 3/10
        return {name: float(fraction[1])}
    if decimal == "," or re.fullmatch(r"\s*[-+]?[1-9]\d{0,2}(,\d{3})+(\.\d*)?\s*", text):
        text = text.replace(",", "." if decimal == "," else "")
    value = tables.cell(f"[{text}]" if SEVERAL.fullmatch(text) else text)
    if isinstance(value, float):
        return {name: value}
    return {f"{name}[{i}]": v for i, v in enumerate(value)} if isinstance(value, tuple) else {}


def keep(column: Cells, tag: str, start: int, values: FloatArray, present: NDArray[np.bool_]) -> None:
    if present.all():
        add(column, tag, (start, values, None))
    elif present.any():
        rows = np.flatnonzero(present)
        add(column, tag, (start, values[rows], rows))


def add(column: Cells, tag: str, stretch: Stretch) -> None:
    """Put a stretch behind the others, and join those of like size.

    So few are left at the end that joining them all takes little beside them; thousands of small
    ones would leave their holes in the memory.
    """
    stretches = column.numbers.setdefault(tag, [])
    stretches.append(stretch)
    while len(stretches) > 1 and len(stretches[-2][1]) < 2 * len(stretches[-1][1]):
        stretches[-2:] = [together(*stretches[-2:])]


def together(first: Stretch, second: Stretch) -> Stretch:
    """Two stretches as one; its rows count from the first one's start."""
    start, values, rows = first
    joined = np.concatenate([values, second[1]])
    if rows is None and second[2] is None and second[0] == start + len(values):
        return start, joined, None
    return start, joined, np.concatenate([rows_of(first), rows_of(second) + (second[0] - start)])


def rows_of(stretch: Stretch) -> IntArray:
    """The rows of a stretch, counted from its start."""
    return np.arange(len(stretch[1])) if stretch[2] is None else stretch[2]


def keep_words(column: Cells, start: int, codes: IntArray, texts: list[str]) -> None:
    """Cells of text by number of the word; too many different ones are counted only."""
    is_text = np.array([bool(text) for text in texts])[codes]
    if not is_text.any():
        return
    column.lost += int(is_text.sum())
    column.example = column.example or next(text for text in texts if text)
    if len(column.known) + len(texts) <= MAX_WORDS:
        own = [column.known.setdefault(text, len(column.known)) if text else -1 for text in texts]
        column.words.append((start, np.array(own, dtype=np.int64)[codes]))


def gathered(path: Path, cells: list[Cells], length: int, problems: list[Problem]) -> Table:
    """The table of all blocks. A column with more words than numbers is one of words."""
    columns: list[Column] = []
    for column in cells:
        points = sum(len(values) for blocks in column.numbers.values() for _, values, _ in blocks)
        if points < max(1, column.lost):
            continue
        if column.lost:
            problems.append(tables.lost_cells(str(path), column.name, column.lost, column.example))
        columns += [joined(tag, column.numbers.pop(tag), length) for tag in list(column.numbers)]
    return Table(length, tuple(columns), tuple(labels_of(c, length) for c in cells if c.known))


def joined(name: str, stretches: list[Stretch], length: int) -> Column:
    while len(stretches) > 1:
        stretches[-2:] = [together(*stretches[-2:])]
    ((start, values, rows),) = stretches
    if len(values) == length:
        return Column(name, values)
    return Column(name, values, start + (np.arange(len(values)) if rows is None else rows))


def labels_of(column: Cells, length: int) -> Labels:
    codes = np.full(length, -1, dtype=np.int64)
    for start, block in column.words:
        codes[start : start + len(block)] = block
    return Labels(column.name, tuple(column.known), codes)
