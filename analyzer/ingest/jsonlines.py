"""JSON Lines: one JSON object a line, as nearly every home-made logger writes them."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from analyzer.errors import IngestError
from analyzer.ingest.json_rows import Rows, add_rows, is_log, parse, parse_object, table_series
from analyzer.model import Problem, Reading

NAME = "jsonl"
SUMMARY = "JSON Lines (mmdetection, mmengine, detectron2, W&B history, fairseq, timm, any rows of metrics)"
ORDER = 30

BLOCK = 1 << 20  # bytes that are parsed together
MAX_LINE = 16 << 20  # bytes; longer lines are no row of metrics

CONFLICT = re.compile(rb"(<{7}|={7}|>{7}|\|{7})(?: .*)?$")
POINTER = b"version https://git-lfs"


@dataclass
class Lines:
    """What reading line by line came across beside rows."""

    count: int = 0  # lines so far
    bad: int = 0
    first_bad: int = 0  # line number, from 1
    first_bad_offset: int = 0
    last_is_bad: bool = False
    side: int = 0  # of a merge conflict; 0: none, 1: ours, 2: the other
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
    return (
        len(lines) > 1
        and lines[1].startswith(b"{")
        and parse_object(lines[0].decode("utf-8", "replace")) is not None
    )


def run_root(path: Path) -> Path:
    """The W&B run folder of a file inside one, the folder above ``vis_data``, else the file's own."""
    from analyzer.ingest import wandb

    if path.parent.name == "vis_data":
        return path.parent.parent
    return wandb.run_root(path)


def read(path: Path) -> Reading:
    """Every numeric field of every row, on the steps that the rows name."""
    table, lines = Rows(), Lines()
    add_rows(table, _rows(path, lines))
    problems = (*_line_problems(str(path), lines), *table.problems(str(path)))
    if not table.count:
        raise IngestError(str(path), "no line of it is a JSON object", "damaged" if lines.bad else "empty")
    if not is_log(table):
        raise IngestError(str(path), "JSON Lines, but no training curve recognised in it", "no-series")
    return Reading(series=table_series(table, str(path)), hyperparameters=table.header, problems=problems)


# ---------------------------------------------------------------------------------- lines


def _rows(path: Path, lines: Lines) -> Iterator[dict[str, object]]:
    """The JSON objects of a file; what is none is counted in ``lines``."""
    offset = 0
    for size, block in _blocks(path):
        if not offset:
            block = block.removeprefix(b"\xef\xbb\xbf")
        rows = None if lines.side or b"<" * 7 in block else _objects(block)
        if rows is None:
            yield from _one_by_one(block, offset, lines)
        else:
            lines.count += block.count(b"\n")
            lines.last_is_bad = lines.last_is_bad and not rows
            yield from rows
        offset += size


def _blocks(path: Path) -> Iterator[tuple[int, bytes]]:
    """Size in the file and text of stretches of whole lines; a line beyond the limit is cut."""
    try:
        with path.open("rb") as file:
            while block := file.read(BLOCK):
                block += file.readline(MAX_LINE)
                size = len(block)
                if block.startswith(POINTER):
                    raise IngestError(str(path), "a Git LFS pointer, not the file itself", "pointer")
                while not block.endswith(b"\n") and (more := file.readline(MAX_LINE)):
                    size += len(more)
                    if more.endswith(b"\n"):
                        block += b"\n"
                yield size, block
    except OSError as error:
        raise IngestError(str(path), error.strerror or str(error)) from error


def _objects(block: bytes) -> list[dict[str, object]] | None:
    """All lines of a block parsed at once, or None where one of them is no JSON object.

    A 0 stands between any two, so that two broken lines cannot make up a whole one unnoticed.
    """
    texts = [text for line in block.split(b"\n") if (text := line.strip())]
    found = _loads(b"[" + b",0,".join(texts) + b"]")
    if not isinstance(found, list) or len(found) != max(0, 2 * len(texts) - 1) or any(found[1::2]):
        return None
    rows = found[::2]
    return rows if set(map(type, rows)) <= {dict} else None


def _loads(text: bytes) -> object:
    """A JSON document, by the fast parser where it is installed and content; None for what is none."""
    fast = _fast_parser()
    if fast is not None:
        try:
            return fast(text)
        except ValueError:
            pass  # NaN and Infinity, which loggers write, are none to it
    try:
        return parse(text.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return None


@cache
def _fast_parser() -> Callable[[bytes], object] | None:
    try:
        import orjson
    except ImportError:
        return None
    loads: Callable[[bytes], object] = orjson.loads
    return loads


def _one_by_one(block: bytes, offset: int, lines: Lines) -> Iterator[dict[str, object]]:
    """The objects of a block with damage or a merge conflict in it, of which one side is read."""
    for raw in io.BytesIO(block):
        line, start, offset = raw.strip(), offset, offset + len(raw)
        lines.count += 1
        mark = CONFLICT.match(line)
        if mark and (lines.side or mark[1] == b"<" * 7):
            lines.side = {60: 1, 61: 2, 62: 0, 124: 2}[line[0]]
            lines.conflicts += 1
            lines.first_conflict = lines.first_conflict or lines.count
        elif lines.side == 2:
            lines.other_side += 1
        elif line:
            row = parse_object(line.decode("utf-8", "replace")) if line.startswith(b"{") else None
            lines.last_is_bad = row is None
            if row is not None:
                yield row
                continue
            lines.bad += 1
            if lines.bad == 1:
                lines.first_bad, lines.first_bad_offset = lines.count, start


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
        if lines.bad == 1:
            message = f"line {lines.first_bad} is no JSON object"
        yield Problem(path, "damaged", message, lines.first_bad_offset)
