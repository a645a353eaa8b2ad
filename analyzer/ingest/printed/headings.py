"""Tables printed with a line of names above: skorch, fastai, Ultralytics, rows of a CSV between other lines."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from analyzer.ingest.json_rows import EPOCH_NAMES, METRIC, STEP_NAMES
from analyzer.ingest.printed.words import NOT_METRIC, SECTIONS
from analyzer.ingest.tables import cell

MOST_NAMES = 60
NAME = re.compile(r"[A-Za-z_#%][\w ./%@:()\[\]+-]{0,40}")
IDENTIFIER = re.compile(r"[A-Za-z][\w./@-]{0,40}")
COUNTERS = frozenset((*EPOCH_NAMES, *STEP_NAMES))
CLASSES, ALL_CLASSES = "class", "all"  # a detector's evaluation: one row for all classes, then one for each
FIRST = re.compile(rf"[\s|#]*(?:{CLASSES}|{'|'.join(sorted(COUNTERS))})\b\s*[|,A-Za-z]", re.IGNORECASE)
OF_WHAT = r"(?:set|metrics?|results?|performance|stats|statistics|summary|phase)"
HALF = rf"({'|'.join(sorted(SECTIONS))})"
STAMP = r"(?:\([^()]*\)\W*)?"
SECTION_ALONE = re.compile(rf"\W*{HALF}(?:\s+{OF_WHAT})?\W*{STAMP}", re.IGNORECASE)
SECTION_LAST = re.compile(rf".*[-:>\]]\W*{HALF}(?:\s+{OF_WHAT}\W*|\s*:\W*)", re.IGNORECASE)
PART_OF_TOTAL = re.compile(r"(\d+)/\d+")


@dataclass(frozen=True, slots=True)
class Heading:
    """The names of the columns, and what stands between the cells ("" for white space).

    ``wide``: the names where one blank is a part of them, if that too can be meant.
    """

    names: tuple[str, ...]
    delimiter: str
    wide: tuple[str, ...] = ()
    ends: tuple[int, ...] = ()  # of the names in their line, where white space parts them


def heading_of(line: str) -> Heading | None:
    """Names of which one is a metric and one counts, or stands for classes; None for any other line."""
    if ":" in line or "=" in line or not METRIC.search(line):
        return None
    delimiter = next((d for d in ("|", ",", "\t") if d in line.strip(" |\t")), "")
    names = _cells(line, delimiter)
    wide = (
        [] if delimiter else re.split(r"\s{2,}", line.strip())
    )  # names with a space in them stand further apart
    if wide[:2] == ["E", "#"]:  # spaCy
        wide[:2] = ["epoch", "step"]
    if not _are_names(names):
        names, wide = wide, []
    if not _are_names(names):
        return None
    ends = _ends(line) if not delimiter else ()
    return Heading(tuple(names), delimiter, tuple(wide) if _are_names(wide) else (), ends)


def bare_names(line: str) -> tuple[str, ...]:
    """Names between delimiters, two of them metrics, of which none counts: those of the numbers just below."""
    if not ("," in line or "|" in line or "\t" in line) or ":" in line or not METRIC.search(line):
        return ()
    names = tuple(part.strip() for part in re.split(r"[,|\t]", line.strip(" *=#~-|\t\r\n")))
    if len(set(names)) < len(names) or not all(IDENTIFIER.fullmatch(name) for name in names):
        return ()
    return names if sum(bool(METRIC.search(name)) for name in names) > 1 else ()


def bare_row(names: Sequence[str], line: str) -> dict[str, float] | None:
    """As many bare numbers as there are names, whatever stands between them; None for any other line."""
    cells = re.split(r"\s*[,|]\s*|\s+", line.strip())
    values = [cell(text) for text in cells]
    if len(cells) != len(names) or not all(isinstance(value, float) for value in values):
        return None
    return {name: value for name, value in zip(names, values, strict=True) if isinstance(value, float)}


def section_of(line: str) -> str:
    """The section that a line announces for those below it: ``Validation:``, ``Epoch 3 - Test metrics:``."""
    tail = line[-48:].lower()
    if len(line) > 100 or "|" in line or not ("train" in tail or "val" in tail or "test" in tail):
        return ""
    match = SECTION_ALONE.fullmatch(line) or SECTION_LAST.fullmatch(line)
    return SECTIONS[match[1].lower()] if match else ""


def begins_as_heading(line: str) -> bool:
    """Whether the first word counts or stands for classes: worth asking, before its digits are taken for values."""
    return FIRST.match(line) is not None


def _are_names(cells: list[str]) -> bool:
    lowered = [name.lower() for name in cells]
    return (
        2 <= len(cells) <= MOST_NAMES
        and len(set(cells)) == len(cells)
        and all(NAME.fullmatch(name) for name in cells if name)
        and (any(name in COUNTERS for name in lowered) or lowered[0] == CLASSES)
        and any(METRIC.search(name) for name in cells)
    )


def _cells(line: str, delimiter: str) -> list[str]:
    if not delimiter:
        return line.split()
    text = line.strip().strip("|") if delimiter == "|" else line
    return [part.strip() for part in text.split(delimiter)]


def _ends(line: str) -> tuple[int, ...]:
    return tuple(word.end() for word in re.finditer(r"\S+", line))


def _beneath_their_names(cells: list[str], heading: Heading, line: str) -> list[str]:
    """The cells of a row that leaves some out, where each ends beneath the end of a name; else as they are."""
    place = {end: i for i, end in enumerate(heading.ends)}
    ends = _ends(line)
    if not set(ends) <= place.keys():
        return cells
    row = [""] * len(heading.names)
    for cell_text, end in zip(cells, ends, strict=True):
        row[place[end]] = cell_text
    return row


def row_below(heading: Heading, line: str) -> dict[str, float] | None:
    """The numbers of a row by their names: counters and what may be metrics; None for no such row."""
    cells = _cells(line, heading.delimiter)
    if len(cells) < len(heading.names) == len(heading.ends):
        cells = _beneath_their_names(cells, heading, line)
    names = heading.wide if len(cells) == len(heading.wide) else heading.names
    if len(cells) != len(names) or (names[0].lower() == CLASSES and cells[0] != ALL_CLASSES):
        return None
    found: dict[str, float] = {}
    for name, text in zip(names, cells, strict=True):
        counts = name.lower() in COUNTERS
        part = PART_OF_TOTAL.fullmatch(text) if counts else None
        value = cell(part[1] if part else text)
        if isinstance(value, float) and (counts or METRIC.search(name) or not NOT_METRIC.search(name)):
            found[name if "(" in name else name.rstrip(")")] = value
        elif counts or (value is not None and METRIC.search(name) and not isinstance(value, float)):
            return None
    return found
