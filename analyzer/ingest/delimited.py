"""CSV, TSV and their kin: one header, one row per step, whatever stands between the cells."""

from __future__ import annotations

import codecs
import csv
import io
import itertools
import mmap
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TextIO

import numpy as np

from analyzer.errors import IngestError
from analyzer.ingest import tables, unnamed
from analyzer.ingest.cells import Cells, gathered, take
from analyzer.ingest.layouts import (
    DELIMITERS,
    SAMPLE_ROWS,
    SPACES,
    Layout,
    encoding_of,
    find_layout,
    header_cells,
    headless_names,
    layout_for,
    prose,
    renews,
    sample_lines,
    split,
    unmistakable,
)  # fmt: skip
from analyzer.ingest.tables import Column, Labels, Table
from analyzer.model import Axis, FloatArray, Problem, Reading

if TYPE_CHECKING:
    import pandas as pd

NAME = "csv"
SUMMARY = "CSV, TSV and other delimited tables: Lightning, Keras, Ultralytics, Stable-Baselines3, exports"
ORDER = 50

SUFFIXES = frozenset([".csv", ".tsv"])
TEXT_SUFFIXES = frozenset([".log", ".txt", ".dat", ".out", ""])
SAMPLE = 256 * 1024  # bytes looked at to find the header
SMALL = 1 << 20  # bytes of a table for which pandas is not worth importing
MAX_COLUMNS = 10_000
CELLS_AT_ONCE = 2_000_000
MAX_SECTIONED = 1 << 28  # bytes of a file that is searched for further headers
MAX_HEADERS = 1000
TENSORBOARD = re.compile(r"run-(.+?)-tag-(.+)")
LOG_WORDS = frozenset(
    ("", "metrics", "metric", "log", "logs", "loss", "losses", "history", "results", "stats")
)
WORDED = re.compile(rb"\n[ \t]*([\"#]?[A-Za-z_][^\r\n]{0,65535})")
WORDED_BY_RETURNS = re.compile(WORDED.pattern.replace(rb"\n", b"\r", 1))
HELD_OUT = tables.SPLITS - {"train", "training"}


def claims(path: Path, head: bytes) -> bool:
    """By suffix, or because the content is a table with a header."""
    suffix = path.suffix.lower()
    if suffix in SUFFIXES:
        return True
    if suffix not in TEXT_SUFFIXES and not re.fullmatch(r"\.\d+", suffix):
        return False
    if not head or binary(head):
        return False
    lines = sample_lines(head, cut=len(head) >= 4096)
    if prose(lines):
        return False
    layout = find_layout(lines)
    return layout is not None and unmistakable(layout, lines, path)


def run_root(path: Path) -> Path:
    """The folder of the file; above the folders that a DVCLive log spreads its plots over."""
    for parent in path.parents:
        if parent.name in ("metrics", "scalars") and parent.parent.name in ("plots", "dvclive"):
            return parent.parent.parent if parent.parent.name == "plots" else parent.parent
    return path.parent


def shares_folder(path: Path) -> bool:
    """Is this a part of the run whose other tables lie beside it? Its tags then say which part."""
    return bool(held_out(path) or environment(path) or TENSORBOARD.fullmatch(path.stem))


def read(path: Path) -> Reading:
    """Every numeric column as a series, those of several runs with the run in their tags.

    ``IngestError`` for what is no table.
    """
    readings = read_all(path)
    if len(readings) == 1:
        return next(iter(readings.values()))
    series = tuple(replace(s, tag=f"{s.tag} [{run}]") for run, r in readings.items() for s in r.series)
    return Reading(series=series, problems=tuple(p for r in readings.values() for p in r.problems))


def read_all(path: Path) -> dict[str, Reading]:
    """The runs of a table, by the words that name them; "" where it is one run's."""
    try:
        layout, table, problems = whole_table(path)
    except IngestError:
        printed = printed_lines(path)
        if printed is None:
            raise
        return printed
    runs = tables.runs_apart(table)
    if not runs:
        return {"": to_reading(path, layout, table, problems)}
    readings: dict[str, Reading] = {}
    for run in runs:
        reading = to_reading(path, layout, run.table, problems if not readings else [])
        readings[run.name] = replace(reading, hyperparameters=dict(run.said))
    return readings


def printed_lines(path: Path) -> dict[str, Reading] | None:
    """The runs of a log of printed lines that bears a table's name; None where it has no curve."""
    from analyzer.ingest import stdout  # for what is no table only

    try:
        readings = stdout.read_all(path)
    except IngestError:
        return None
    return readings if any(reading.series for reading in readings.values()) else None


def whole_table(path: Path) -> tuple[Layout, Table, list[Problem]]:
    """How a file is laid out, what is in it and what of it could not be read."""
    with path.open("rb") as stream:
        head = stream.read(SAMPLE)
    try:
        layout = checked_layout(path, head)
    except IngestError:
        lines = curves_in_lines(path, head)
        if lines is None:
            raise
        return Layout(",", (), 0), lines, []
    table, problems = read_sections(path, layout)
    if table.length and ends_cut(path, layout):
        table = without_last_row(table)
        problems.append(Problem(str(path), "truncated", "the last row is cut short; left out"))
    if not layout.header and len(layout.names) > 2:
        told = ", ".join(map(str, layout.names))
        problems.append(Problem(str(path), "unsure", f"the columns have no names; by their values: {told}"))
    if table.length == 0:
        raise IngestError(str(path), "a header and no rows: nothing was logged", "empty")
    return layout, table, problems


def curves_in_lines(path: Path, head: bytes) -> Table | None:
    """The curves of a small file that has a line for each; None for any other."""
    if len(head) >= SAMPLE or not head.strip() or binary(head):
        return None
    lines = sample_lines(head, cut=False)
    stem = tables.stem_of(str(path))
    tried = (unnamed.curves_in_lines(split(lines, delimiter), stem) for delimiter in DELIMITERS)
    return next((table for table in tried if table is not None), None)


def binary(head: bytes) -> bool:
    """Control characters in the first line, or NULs beside bytes that are no UTF-8 (UTF-16 aside)."""
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return False
    line = head[:512].split(b"\n", 1)[0]
    if any(byte < 32 and byte not in b"\t\r\f\x1b" for byte in line):
        return True
    return b"\0" in head[:512] and encoding_of(head[:512]) == "latin-1"


def checked_layout(path: Path, head: bytes) -> Layout:
    """The layout of a file from its head, or an ``IngestError`` that says why there is none."""
    if not head.strip(b"\0\r\n\t ") or not head.lstrip(codecs.BOM_UTF8).strip():
        raise IngestError(str(path), "the file is empty", "empty")
    if head.startswith(b"version https://git-lfs"):
        raise IngestError(str(path), "a Git LFS pointer, not the file: run `git lfs pull`", "pointer")
    if binary(head):
        raise IngestError(str(path), "binary content, not a table of text")
    lines = sample_lines(head, cut=len(head) >= SAMPLE)
    layout = find_layout(lines)
    if layout is None:
        raise IngestError(str(path), reason_against(lines))
    if len(layout.names) > MAX_COLUMNS:
        raise IngestError(str(path), f"{len(layout.names)} columns, more than {MAX_COLUMNS}", "too-large")
    if not layout.header:
        layout = replace(layout, names=headless_names(path, lines, layout))
    return replace(layout, encoding=encoding_of(head))


def reason_against(lines: Sequence[str]) -> str:
    written = [line for line in lines if line.strip()]
    if len(written) == 1:
        return "one line and no rows of numbers beneath it"
    return "no header with rows of numbers beneath it: not a table of logged values"


# Reading the rows


def read_sections(path: Path, layout: Layout) -> tuple[Table, list[Problem]]:
    """The whole file: one table, or as many as runs with other columns were appended to it."""
    starts = later_headers(path, layout)
    if not starts:
        return read_table(path, layout, None)
    parts: list[Table] = []
    problems: list[Problem] = []
    for start, end in itertools.pairwise([0, *starts, path.stat().st_size]):
        with path.open("rb") as stream:
            stream.seek(start)
            section = stream.read(end - start)
        lines = sample_lines(section[:SAMPLE], cut=len(section) > SAMPLE)
        own = layout_for(lines[:SAMPLE_ROWS], layout.delimiter)
        if own is None:
            problems.append(Problem(str(path), "damaged", "a header with no rows that fit it", start))
            continue
        table, lost = read_table(path, replace(own, encoding=layout.encoding), section)
        parts.append(table)
        problems += lost
    return tables.stacked(parts), problems


def later_headers(path: Path, layout: Layout) -> list[int]:
    """Where further headers with other names begin, in bytes."""
    if not layout.header or layout.delimiter == SPACES or path.stat().st_size > MAX_SECTIONED:
        return []
    current: Sequence[str] = layout.header
    found: list[int] = []
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        worded = WORDED if data.find(b"\n") >= 0 else WORDED_BY_RETURNS
        for match in itertools.islice(worded.finditer(data), MAX_HEADERS):
            cells = header_cells(match[1].decode(layout.encoding, errors="replace"), layout.delimiter)
            if renews(cells, current):
                found.append(match.start(1))
                current = cells
    return found


def read_table(path: Path, layout: Layout, section: bytes | None) -> tuple[Table, list[Problem]]:
    """A file or a section of it in blocks of rows: memory is that of its numbers, not of its text.

    A quote that is never closed would swallow the rest: then quotes count as any other character.
    """
    size = path.stat().st_size if section is None else len(section)
    readers: list[RowReader] = [frames, partial(frames, quoting=csv.QUOTE_NONE)]
    for reader in (rows_of_cells, *readers) if size <= SMALL else readers:
        columns = {j: Cells(name) for j, name in enumerate(layout.names) if name is not None}
        length, lost = 0, Lost()
        try:
            with opened(path, layout, section) as text:
                for block in reader(text, layout, lost):
                    for j, column in columns.items():
                        take(column, block.cells[j], length, layout.decimal)
                    length += block.length
            break
        except (csv.Error, ValueError, OverflowError) as error:
            lost.stopped = str(error)[:200]
    problems = list(lost.problems(str(path)))
    return gathered(path, list(columns.values()), length, problems), problems


@dataclass(slots=True)
class Lost:
    """What did not get into the table."""

    lines: int = 0  # that have more cells than the header has names
    stopped: str = ""

    def problems(self, path: str) -> Iterator[Problem]:
        if self.stopped:
            yield Problem(path, "damaged", f"reading stopped: {self.stopped}")
        if self.lines:
            lines = f"{self.lines} line{'s' if self.lines > 1 else ''}"
            yield Problem(path, "damaged", f"{lines} with more cells than the header has names; left out")


class Block(NamedTuple):
    """Rows by column: numbers with NaN where a cell is missing, or texts."""

    length: int
    cells: Sequence[FloatArray | list[str]]


RowReader = Callable[[TextIO, Layout, Lost], Iterator[Block]]


def opened(path: Path, layout: Layout, section: bytes | None) -> TextIO:
    """The text from the first line of data on."""
    stream = path.open("rb") if section is None else io.BytesIO(section)
    text = io.TextIOWrapper(stream, encoding=layout.encoding, errors="replace", newline="")
    for _ in range(layout.first):
        text.readline()
    return text


def rows_of_cells(text: TextIO, layout: Layout, lost: Lost) -> Iterator[Block]:
    """The whole of a small table, without the second that importing pandas takes."""
    if layout.delimiter == SPACES:
        rows = [line.split() for line in text]
    else:
        rows = list(csv.reader(text, delimiter=layout.delimiter, skipinitialspace=True, strict=True))
    width = len(layout.names)
    named = [(j, name) for j, name in enumerate(layout.names) if name]
    kept = []
    for row in rows:
        if len(row) > width and any(cell.strip() for cell in row[width:]):
            lost.lines += 1
        elif any(row) and not repeats(row, named):
            kept.append(row if len(row) == width else [*row[:width], *[""] * (width - len(row))])
    if kept:
        yield Block(len(kept), [list(map(str.strip, cells)) for cells in zip(*kept, strict=True)])


def repeats(row: Sequence[str], named: Sequence[tuple[int, str]]) -> bool:
    """A comment or a header again, which runs appended to one file leave in it."""
    if row[0][:1] == "#":
        return True
    return bool(named) and all(j < len(row) and row[j].strip() == name for j, name in named)


def frames(
    text: TextIO, layout: Layout, lost: Lost, quoting: Literal[0, 3] = csv.QUOTE_MINIMAL
) -> Iterator[Block]:
    """Blocks of rows of a large table. Only an empty cell counts as missing, not the word NaN.

    One column more than there are names catches rows that are too long, which pandas else cuts
    without a word where the first one is.
    """
    import pandas as pd

    named, width = [(j, name) for j, name in enumerate(layout.names) if name], len(layout.names)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            for frame in pd.read_csv(
                text, sep=layout.delimiter, header=None, names=list(range(width + 1)), index_col=False,
                keep_default_na=False, na_values=[""], skipinitialspace=True, on_bad_lines="warn",
                low_memory=False, chunksize=max(1000, CELLS_AT_ONCE // width),
                decimal=layout.decimal, quoting=quoting,
            ):  # fmt: skip
                fits = frame[width].isna()
                if not fits.all():
                    lost.lines += int((~fits).sum())
                    frame = frame[fits]
                yield without_headers([cells_of(frame[j]) for j in range(width)], named)
        except pd.errors.EmptyDataError:
            return
        finally:
            lost.lines += sum(str(w.message).count("Skipping line") for w in caught)


def cells_of(column: pd.Series[Any]) -> FloatArray | list[str]:
    """Own memory, so that none of the frame is kept for it."""
    if column.dtype.kind in "iufb":
        return column.to_numpy(dtype=np.float64, copy=True)
    cells = column.to_numpy(dtype=object, na_value="").tolist()
    return [cell.strip() if type(cell) is str else str(cell) for cell in cells]  # True beside empty cells


def without_headers(cells: list[FloatArray | list[str]], named: Sequence[tuple[int, str]]) -> Block:
    """Drop repeated headers and comments, which make text of their columns."""
    length, first = len(cells[0]), cells[named[0][0] if named else 0]
    dropped: set[int] = set()
    if isinstance(cells[0], list):
        dropped |= {i for i, text in enumerate(cells[0]) if text[:1] == "#"}
    if isinstance(first, list) and named:
        again = [i for i, text in enumerate(first) if text == named[0][1]]
        dropped |= {i for i in again if repeats([str(column[i]) for column in cells], named)}
    if not dropped:
        return Block(length, cells)
    kept = [i for i in range(length) if i not in dropped]
    return Block(len(kept), [c[kept] if not isinstance(c, list) else [c[i] for i in kept] for c in cells])


def ends_cut(path: Path, layout: Layout) -> bool:
    """Does the last line lack both its end and some of its cells?"""
    with path.open("rb") as stream:
        stream.seek(max(0, path.stat().st_size - SAMPLE))
        tail = stream.read().decode(layout.encoding, errors="replace")
    last = tail.rsplit("\n", 1)[-1]
    rows = split([last], layout.delimiter)
    return bool(rows) and len(rows[0]) < len(layout.names)


def without_last_row(table: Table) -> Table:
    last = table.length - 1
    columns = []
    for c in table.columns:
        count = last if c.rows is None else int(np.searchsorted(c.rows, last))
        columns.append(
            tables.column(
                c.name, c.values[:count], np.arange(last) if c.rows is None else c.rows[:count], last
            )
        )
    labels = tuple(Labels(w.name, w.words, w.codes[:last]) for w in table.labels)
    return Table(last, tuple(columns), labels)


# Naming the curves


def to_reading(path: Path, layout: Layout, table: Table, problems: list[Problem]) -> Reading:
    """The series of a table, named after the file where its columns say too little."""
    reason = no_curves(table)
    if reason:
        problems.append(Problem(str(path), "no-series", reason))
        return Reading(problems=tuple(problems))
    table = renamed(path, layout, table)
    axis: Axis = "episode" if is_monitor(layout) else "row"
    series = tuple(
        replace(s, tag=part.prefix + s.tag)
        for part in tables.partition(table)
        for s in tables.to_series(part.table, str(path), axis)
        if part.only in ("", s.tag)
    )
    if not series:
        raise IngestError(str(path), "a table without a column of numbers to follow", "no-series")
    return Reading(series=series, problems=tuple(problems))


def no_curves(table: Table) -> str:
    """Why the rows are no moments of a run, or nothing."""
    name = tables.named_rows(table)
    if name:
        return f"a table of {table.length} rows that are named by {name!r}, not a curve over time"
    if table.length < 3 and tables.read_clock(table, "row").axis == "row":
        rows = "one row" if table.length == 1 else "two rows"
        return f"{rows} of numbers without a step or epoch: final results, not a curve"
    return ""


def is_monitor(layout: Layout) -> bool:
    """A Stable-Baselines3 monitor file: one row per episode (reward, length, time)."""
    return [n for n in layout.names if n][:3] == ["r", "l", "t"]


def renamed(path: Path, layout: Layout, table: Table) -> Table:
    names = [c.name for c in table.columns]
    new = {name: name for name in names}
    known = {tables.normalise(n) for n in names}
    if known == {"wall_time", "step", "value"}:
        new["Value"] = tensorboard_tag(path)
    elif is_monitor(layout):
        new["r"], new["l"] = (name + environment(path) for name in ("r", "l"))
    elif len(known - {"step", "timestamp"}) == 1 and "step" in known:
        new = {name: dvclive_tag(path, name) for name in names}
    elif any(name.endswith(("__MIN", "__MAX")) for name in names):
        new = wandb_tags(names)
    else:
        new = {name: held_out_tag(path, name, names) for name in names}
    columns = (Column(new[c.name], c.values, c.rows) for c in table.columns if c.name in new)
    return Table(table.length, tuple(columns), table.labels)


def tensorboard_tag(path: Path) -> str:
    """``run-train-tag-loss.csv`` -> ``train/loss``; else the file's stem."""
    match = TENSORBOARD.fullmatch(path.stem)
    if not match:
        return path.stem
    return match[2] if match[1] in (".", "_") else f"{match[1]}/{match[2]}"


def environment(path: Path) -> str:
    """Parallel environments write a file each: the first keeps its names, the others get a number."""
    match = re.match(r"(\d+)\.", path.name)
    return f"[{match[1]}]" if match and int(match[1]) else ""


def dvclive_tag(path: Path, name: str) -> str:
    """The folders below ``metrics`` (or ``scalars``) are part of a DVCLive metric's name."""
    if tables.normalise(name) != tables.normalise(path.stem):
        return name
    folders = path.parts[:-1]
    for root in ("metrics", "scalars", "dvclive"):
        if root in folders:
            below = folders[len(folders) - folders[::-1].index(root) :]
            return "/".join((*below, name))
    return name


def wandb_tags(names: list[str]) -> dict[str, str]:
    """``run - train/loss`` of an exported chart; its ``__MIN`` and ``__MAX`` columns go."""
    kept = [name for name in names if not name.endswith(("__MIN", "__MAX"))]
    pairs = {name: name.split(" - ", 1) for name in kept if " - " in name}
    several = len({run for run, _ in pairs.values()}) > 1
    tags = {name: f"{tag} [run={run}]" if several else tag for name, (run, tag) in pairs.items()}
    return {name: tags.get(name, name) for name in kept}


def held_out(path: Path) -> str:
    """``val`` of ``val_metrics.csv``: the one word of the name that is not a word for logs as such."""
    words = [w for w in re.split(r"[^a-z]+", path.stem.lower()) if w not in LOG_WORDS]
    return words[0] if len(words) == 1 and words[0] in HELD_OUT else ""


def held_out_tag(path: Path, name: str, names: list[str]) -> str:
    """``loss`` of ``val_metrics.csv`` is ``val/loss``, unless its columns tell splits apart themselves."""
    split = held_out(path)
    told = any(tables.SPLITS & set(re.split(r"[^a-z]+", n.lower())) for n in names)
    counts = tables.normalise(name) in (*tables.STEP_NAMES, *tables.EPOCH_NAMES, "", "time")
    return name if not split or told or counts else f"{split}/{name}"
