"""The lines of a text log: control sequences and timestamps taken off, and how the program ended."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from analyzer.errors import IngestError
from analyzer.ingest.jsonlines import POINTER
from analyzer.model import Problem

MAX_BYTES = 1 << 30
MAX_LINE = 8000  # characters; a longer line is no line of a log
CHUNK = 1 << 20

ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[()][A-Z0-9]|[\x00-\x08\x0b-\x1f\x7f]")
ISO = r"\d{4}[-/]\d\d[-/]\d\d[ T]\d\d:\d\d:\d\d(?:[.,]\d+)?"
PREFIX = re.compile(
    rf"\s*(?:\[?(?P<clock>{ISO})(?:Z|[+-]\d\d:?\d\d)?\]?"
    r"|\[?\d\d/\d\d(?:/\d+)? \d\d:\d\d:\d\d(?: [AP]M)?\]?|\[?\d\d:\d\d:\d\d(?:[.,]\d+)?\]?"
    r"|[IWEF]\d{4} \d\d:\d\d:\d\d\.\d+\s+\d+ \S+:\d+\]"
    r"|\[?(?:DEBUG|INFO|WARNING|WARN|ERROR|CRITICAL)\]?(?=[\s:|\]-]|$)|\[rank\d+\]:|\[?(?:__main__|root|main)\](?=\s)"
    r"|\[?(?:__main__|root|main|tensorflow|absl)(?=\s[-:|]\s|:)|\[?(?:[A-Za-z_]\w*\.)+[A-Za-z_]\w*(?:\.py:\d+)?(?=\]?\s*[-:|\]]))"
    r"[\s:|\]-]*"
)
EXCEPTION = re.compile(
    r"^(?:[A-Za-z_]\w*\.)*(?:[A-Z]\w*(?:Error|Exception|Interrupt|Exit|Warning|Timeout)|StopIteration)(?::.*)?$"
)
DEATHS = ("Killed", "Segmentation fault", "Aborted", "slurmstepd: error: ")
DEATH = re.compile(
    r"^(?:Killed|Segmentation fault.*|Aborted.*|slurmstepd: error: .*(?:CANCELLED|oom|OOM).*)$"
)


@dataclass(slots=True)
class End:
    """How the program ended, as far as is known: the line of the last exception and its text."""

    traceback: int = 0  # line of a traceback whose exception has not come yet
    crash: str = ""
    line: int = 0


def lines_of(path: Path) -> Iterator[tuple[str, int]]:
    """Lines without control sequences and the bytes read so far; a carriage return ends a line too."""
    rest, seen = b"", 0
    try:
        with path.open("rb") as file:
            wide = file.read(2) in (b"\xff\xfe", b"\xfe\xff")
            file.seek(0)
            while seen < MAX_BYTES and (chunk := file.read(-1 if wide else CHUNK)):
                if not seen and chunk.startswith(POINTER):
                    raise IngestError(str(path), "a Git LFS pointer, not the file itself", "pointer")
                seen += len(chunk)
                if wide:
                    chunk = chunk.decode("utf-16", "replace").encode()
                whole, _, rest = (rest + chunk).replace(b"\r", b"\n").rpartition(b"\n")
                for line in _decoded(whole):
                    yield line, seen
                rest = rest[: 4 * MAX_LINE]
    except OSError as error:
        raise IngestError(str(path), error.strerror or str(error)) from error
    if not seen:
        raise IngestError(str(path), "an empty file", "empty")
    for line in _decoded(rest):
        yield line, seen


def _decoded(raw: bytes) -> list[str]:
    lines = ANSI.sub("", raw.decode("utf-8", "replace")).split("\n")
    return [line if len(line) <= MAX_LINE else line[:MAX_LINE] for line in lines]


def without_prefix(line: str) -> tuple[str, float | None]:
    """The line after timestamps, levels and logger names, and its time in seconds where it has a date."""
    clock: float | None = None
    for _ in range(6):
        match = PREFIX.match(line)
        if not match:
            break
        if match["clock"]:
            clock = _seconds(match["clock"])
        line = line[match.end() :]
    return line, clock


def _seconds(stamp: str) -> float | None:
    try:
        moment = datetime.fromisoformat(stamp.replace(",", ".").replace("/", "-"))
    except ValueError:
        return None
    return moment.replace(tzinfo=UTC).timestamp()


def watch(end: End, line: str, at: int) -> None:
    """Note a traceback, the exception beneath it, or a death from outside.

    A traceback that is indented is quoted, in a text about programs, and not one that was printed.
    """
    if end.traceback or "Traceback (most recent call last)" in line:
        text = line.strip()
        if line.startswith("Traceback (most recent") or "]: Traceback (most recent" in text:
            end.traceback, end.crash, end.line = at, "a traceback without its last line", at
        elif end.traceback and EXCEPTION.match(text):
            end.traceback, end.crash, end.line = 0, text, at
    if line.lstrip().startswith(DEATHS) and DEATH.match(line.strip()):
        end.traceback, end.crash, end.line = 0, line.strip(), at


def crash_problem(path: str, end: End) -> Problem:
    message = re.sub(r"[\x00-\x1f\x7f-\x9f]", "", end.crash)
    return Problem(path, "crashed", message if len(message) <= 200 else f"{message[:199]}…")
