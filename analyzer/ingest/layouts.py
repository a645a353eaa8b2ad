"""How the cells of a table of text are laid out: delimiter, header, names, decimal comma."""

from __future__ import annotations

import codecs
import csv
import io
import itertools
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from analyzer.ingest import tables, unnamed

SAMPLE_ROWS = 400
KNOWN = 1 << 14  # lines and cells remembered: each is asked about under every header that was tried above it
SPACES = r"\s+"
DELIMITERS = (",", "\t", ";", "|")
NUMBERED = re.compile(r"\d|nan|inf|true|false", re.IGNORECASE)
NAME_LIKE = re.compile(r"[^\W\d][\w ./%@:+-]{0,80}(?:[(\[][\w %.]{0,20}[)\]])?")


@dataclass(frozen=True, slots=True)
class Layout:
    """How the cells of a file are laid out.

    ``names`` has one entry per cell of a row (None: an empty cell that the header does not know);
    ``first`` is the index of the first line of data.
    """

    delimiter: str
    names: tuple[str | None, ...]
    first: int
    rows: int = 0  # rows of the sample that fit
    decimal: str = "."
    encoding: str = "utf-8"
    header: tuple[str, ...] = ()


def encoding_of(head: bytes) -> str:
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)  # may end within a character
    except UnicodeDecodeError:
        return "latin-1"
    return "utf-8-sig"


def sample_lines(head: bytes, cut: bool) -> list[str]:
    """The lines of the head, without the last one where the head was cut off in it."""
    text = head.decode(encoding_of(head), errors="replace")
    lines = io.StringIO(text, newline="").readlines()
    if cut and len(lines) > 1 and not lines[-1].endswith("\n"):
        lines.pop()
    return lines


def find_layout(lines: Sequence[str]) -> Layout | None:
    """The delimiter and header under which most lines make rows of numbers.

    Among equals the one that parts most names: a decimal comma parts numbers, but no header.
    """
    lines = list(lines[:SAMPLE_ROWS])
    written = sum(bool(line.strip()) for line in lines)
    found = [layout for d in DELIMITERS if (layout := layout_for(lines, d)) is not None]
    if not any(len(layout.header) > 1 and layout.rows == written - 1 for layout in found):
        found += [layout for d in (SPACES,) if (layout := layout_for(lines, d)) is not None]
    if not found:
        return None
    return max(found, key=lambda a: (a.rows, a.delimiter != SPACES, len(a.header), len(a.names)))


def layout_for(lines: list[str], delimiter: str) -> Layout | None:
    """The layout under one delimiter: the first line that can be a header for what follows."""
    single = delimiter == ","  # a file of one column has no delimiter to tell
    for i, line in enumerate(lines[:30]):
        if not line.strip():
            continue
        header = header_cells(line, delimiter)
        if len(header) < 1 + (not single) or not heads(header):
            continue
        layout = fit(header, split(beneath(header, lines[i + 1 :], delimiter), delimiter), delimiter)
        if layout is not None:
            return replace(layout, first=i + 1)
        alone = not any(rest.strip() for rest in lines[i + 1 :])
        alone = alone and all(len(header_cells(before, delimiter)) < 2 for before in lines[:i])
        if alone and len(header) > 1 and delimiter != SPACES:
            return Layout(delimiter, header, i + 1, header=header)
    return headless(lines, delimiter)


def beneath(header: Sequence[str], lines: Sequence[str], delimiter: str) -> list[str]:
    """The lines up to the next header."""
    return list(itertools.takewhile(lambda line: not renews(header_cells(line, delimiter), header), lines))


@lru_cache(maxsize=KNOWN)
def header_cells(line: str, delimiter: str) -> tuple[str, ...]:
    """Names in a header line; one behind a ``#`` counts, a JSON comment does not."""
    text = line.strip("\r\n")
    if text.lstrip().startswith("#"):
        text = text.lstrip().lstrip("#").strip()
        if text.startswith("{"):
            return ()
    if delimiter == SPACES:
        return tuple(cell for cell in re.split(r"[,;\s]+", text.strip()) if cell)
    cells = split([text], delimiter)
    return tuple(cell.strip() for cell in cells[0]) if cells else ()


def split(lines: Sequence[str], delimiter: str) -> list[list[str]]:
    """Cells of each written line."""
    if delimiter == SPACES:
        return [line.split() for line in lines if line.strip()]
    try:
        rows = list(csv.reader(lines, delimiter=delimiter, skipinitialspace=True))
    except csv.Error:
        rows = [line.rstrip("\r\n").split(delimiter) for line in lines]
    return [row for row in rows if any(cell.strip() for cell in row)]


def heads(cells: Sequence[str]) -> bool:
    """Can these be names? No numbers among them, save the column numbers that pandas writes."""
    if cells[0] == "" and len(cells) > 1 and list(cells[1:]) == [str(i) for i in range(len(cells) - 1)]:
        return True
    named = [c for c in cells if c]
    return bool(named) and all(worded(c) and len(c) <= 300 for c in named)


@lru_cache(maxsize=KNOWN)
def worded(text: str) -> bool:
    return isinstance(tables.cell(text), str)


def renews(cells: Sequence[str], header: Sequence[str]) -> bool:
    """Is this another header, with some names of the one above and some of its own?"""
    if len(cells) < 2:
        return False
    shared = set(cells).intersection(header)
    shared.discard("")
    if not shared or 2 * len(shared) < min(len(cells), len(header)):
        return False
    return list(cells) != list(header) and heads(cells)


@lru_cache(maxsize=KNOWN)
def numeric(text: str) -> bool:
    value = tables.cell(text)
    if isinstance(value, str):
        return bool(re.fullmatch(r"[-+]?\d+,\d+(e[-+]?\d+)?", text.strip(), re.I))
    return value is not None


def fit(header: Sequence[str], rows: list[list[str]], delimiter: str) -> Layout | None:
    """The layout of rows beneath a header, when most have the header's length or nearly."""
    if not rows:
        return None
    width = Counter(len(row) for row in rows).most_common(1)[0][0]
    alike = [row for row in rows if len(row) == width]
    tolerance = 0 if delimiter == SPACES else 2
    if len(alike) * 2 < len(rows) or not -tolerance <= width - len(header) <= max(tolerance, 1):
        return None
    fitting = [row for row in alike if any(numeric(cell) for cell in row)]
    share = sum(numeric(cell) or not cell.strip() for row in alike for cell in row) / (width * len(alike))
    if len(fitting) * 2 < len(alike) or share < (0.5 if delimiter == SPACES or width == 1 else 0.0):
        return None
    names = aligned(header, alike)
    return Layout(delimiter, names, 0, len(fitting), decimal_of(fitting, delimiter), header=tuple(header))


def aligned(header: Sequence[str], rows: list[list[str]]) -> tuple[str | None, ...]:
    """A name for each cell of a row, where rows are longer than the header by some cells.

    A cell that is always empty is a stray delimiter; else the first one is the unnamed index of
    R and pandas, and further ones are numbered.
    """
    names: list[str | None] = list(header)
    extra = len(rows[0]) - len(names)
    if extra <= 0:
        return tuple(names)
    empty = [j for j in range(len(rows[0])) if not any(row[j].strip() for row in rows)]
    if empty and extra == 1:
        names.insert(empty[-1] if empty[-1] == len(header) else empty[0], None)
    elif extra == 1 and numbers_rows([row[0] for row in rows]):
        names.insert(0, "")
    else:
        names += [f"column_{len(header) + k}" for k in range(extra)]
    return tuple(names)


def numbers_rows(cells: Sequence[str]) -> bool:
    """Words, or whole numbers that count by one."""
    numbers = [tables.cell(cell) for cell in cells]
    if all(isinstance(n, str) for n in numbers):
        return True
    counted = [n for n in numbers if isinstance(n, float)]
    return len(counted) == len(cells) and all(b - a == 1 for a, b in itertools.pairwise(counted))


def decimal_of(rows: list[list[str]], delimiter: str) -> str:
    """A comma when numbers are written with one and none with a point."""
    cells = [cell.strip() for row in rows for cell in row]
    commas = [c for c in cells if re.fullmatch(r"[-+]?\d*,\d+([eE][-+]?\d+)?", c)]
    points = any(re.fullmatch(r"[-+]?\d*\.\d+([eE][-+]?\d+)?", c) for c in cells)
    thousands = all(re.fullmatch(r"[-+]?[1-9]\d{0,2},\d{3}", c) for c in commas)
    return "," if commas and not points and not thousands else "."


def headless(lines: list[str], delimiter: str) -> Layout | None:
    """Rows of nothing but numbers, as ``numpy.savetxt`` leaves them."""
    lines = [line for line in lines if not line.lstrip().startswith("#")]
    rows = split(lines, delimiter)
    if len(rows) < 2 or len({len(row) for row in rows[:-1]}) != 1:
        return None
    width = len(rows[0])
    if (width == 1 and delimiter != ",") or width > 64:
        return None
    if not all(isinstance(tables.cell(cell), float) for row in rows[:-1] for cell in row):
        return None
    return Layout(delimiter, (None,) * width, 0, len(rows))


def headless_names(path: Path, lines: list[str], layout: Layout) -> tuple[str, ...]:
    """Names for columns without any."""
    rows = split([line for line in lines if not line.lstrip().startswith("#")], layout.delimiter)
    cells = [[tables.cell(cell) for cell in row] for row in rows[:-1][:SAMPLE_ROWS]]
    whole = [row for row in cells if len(row) == len(cells[0]) and all(isinstance(c, float) for c in row)]
    columns = list(np.array(whole, dtype=np.float64).T)
    return unnamed.names_of(columns, tables.stem_of(str(path)))


def prose(lines: Sequence[str]) -> bool:
    """Do most lines hold no number, so that no table of them could be unmistakable? Told without parting them."""
    written = [line for line in lines if line.strip()]
    return 2 * sum(bool(NUMBERED.search(line)) for line in written) < len(written) - 6


def unmistakable(layout: Layout, lines: Sequence[str], path: Path) -> bool:
    """Is this a table and not a log whose lines happen to hold a comma or four words each?"""
    written = sum(bool(re.search(r"\w", line)) for line in lines[layout.first :])
    if layout.rows < (3 if layout.delimiter == SPACES else 1) or layout.rows < 0.9 * written:
        return False
    if not layout.header:
        rows = split(lines, layout.delimiter)
        return tables.curve_like(path.stem) or unnamed.logged_in_columns(rows, path.stem, path.suffix.lower())
    return layout.first <= 5 and all(NAME_LIKE.fullmatch(name) for name in layout.header if name)
