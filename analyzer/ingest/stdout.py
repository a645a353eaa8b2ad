"""Plain-text training logs: what a script printed, progress bars and tracebacks included.

A tag becomes a series only where a template of lines repeats: prose that mentions a loss is no curve.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from analyzer.errors import IngestError
from analyzer.ingest import wandb
from analyzer.ingest.printed.bars import Bars, advance, bar_in, finished
from analyzer.ingest.printed.curves import MIN_LINES, curves_of, telling
from analyzer.ingest.printed.dicts import entry_of_pairs, literal_pairs
from analyzer.ingest.printed.entries import Entry, Plan, in_section
from analyzer.ingest.printed.headings import (
    Heading,
    bare_names,
    bare_row,
    begins_as_heading,
    heading_of,
    row_below,
    section_of,
)
from analyzer.ingest.printed.lines import (
    MAX_BYTES,
    PREFIX,
    End,
    crash_problem,
    lines_of,
    watch,
    without_prefix,
)
from analyzer.ingest.printed.phases import MAX_BANNERS, Banner, banner_of, runs_apart
from analyzer.ingest.printed.words import EPOCH_LABEL, FIGURE, Templates, entry_of_words
from analyzer.model import Problem, Reading, Series

NAME = "text"
SUMMARY = "Plain-text logs: printed epochs and steps, tables, bars of tqdm, Keras and Ultralytics, Trainer dicts, nanoGPT"
ORDER = 80

SUFFIXES = frozenset({".log", ".txt", ".out", ".err", ".stdout", ".stderr"})
NOT_LOGS = re.compile(r"debug(?:-internal|-core)?\.log|requirements.*\.txt|license.*|readme.*", re.IGNORECASE)
LOG_NAME = re.compile(r"stdout|stderr|log|[^.]*[_-]log$")
LAST_WORDS = 60  # lines that may follow a crash in a text without a curve: what is printed on the way out
DIGIT = re.compile(r"\d")
RULE = re.compile(r"\s*[-=+|]{5,}\s*")
UNBOUNDED = re.compile(r"^\s*\d+(?:it|batch|ba|ex)\s*\[\d")
GLUED = re.compile(
    r"(\W{0,20})(epochs?|ep|iter|iteration|step|round|e(?=\d{1,4}[:/|]))(\d{1,9})(?=[\s:/,|;)\]-])",
    re.IGNORECASE,
)
BOTH_SECTIONS = re.compile(r"^\W*train(?:ing)?\s*\|\s*val(?:id(?:ation)?)?\W*$", re.IGNORECASE)


@dataclass(slots=True)
class Log:
    """What was seen of a file so far."""

    entries: list[Entry] = field(default_factory=list)
    bars: Bars = field(default_factory=dict)
    templates: Templates = field(default_factory=Templates)
    end: End = field(default_factory=End)
    heading: Heading | None = None  # of the table that may go on below
    bare: tuple[int, tuple[str, ...]] | None = None  # the line of names without a counter, and they
    block: int = 0  # stretch between two ruled lines
    section: str = ""  # announced by a line above
    sectioned: dict[tuple[int, str], Entry] = field(default_factory=dict)
    banners: list[Banner] = field(default_factory=list)


def claims(path: Path, head: bytes) -> bool:
    """Text under a name that logs have."""
    name = path.name.lower()
    if NOT_LOGS.fullmatch(name):
        return False
    if path.suffix.lower() not in SUFFIXES and not LOG_NAME.match(name):
        return False
    if path.suffix and path.suffix.lower() not in SUFFIXES and not re.fullmatch(r"\.\d+", path.suffix):
        return False
    return bool(head) and (b"\0" not in head or head.startswith((b"\xff\xfe", b"\xfe\xff")))


def run_root(path: Path) -> Path:
    """The W&B run folder of an ``output.log``, else the folder of the file."""
    return wandb.run_root(path)


def read(path: Path) -> Reading:
    """The curves that were printed, as one run's. IngestError where there is none and nothing crashed either."""
    _, entries, problems = _log_of(path)
    return _reading(path, curves_of(entries, str(path)), problems)


def read_all(path: Path) -> dict[str, Reading]:
    """The runs that were printed, by the words that name them; "" where it is one run's."""
    log, entries, problems = _log_of(path)
    parts = runs_apart(entries, log.banners)
    if len(parts) < 2:
        return {"": _reading(path, curves_of(entries, str(path)), problems)}
    found = {name: series for name, part in parts if (series := curves_of(part, str(path)))}
    last = list(found)[-1]
    return {
        name: Reading(series, problems=problems if name == last else ()) for name, series in found.items()
    }


def _reading(path: Path, series: tuple[Series, ...], problems: tuple[Problem, ...]) -> Reading:
    if not series and not problems:
        raise IngestError(str(path), "text, but no training curve recognised in it", "no-series")
    return Reading(series, problems=problems)


def _log_of(path: Path) -> tuple[Log, list[Entry], tuple[Problem, ...]]:
    """What was seen of a file, the entries that tell something, and what went wrong."""
    log = Log()
    size = at = 0
    for at, (line, seen) in enumerate(lines_of(path), start=1):
        _take(line, at, log)
        size = seen
    found = finished(log.bars, log.entries)
    problems = []
    after = sum(e.line > log.end.line and bool(e.plan.slots) for e in found)
    if log.end.crash and after < MIN_LINES and (found or at - log.end.line <= LAST_WORDS):
        problems.append(crash_problem(str(path), log.end))
    if size >= MAX_BYTES:
        problems.append(
            Problem(str(path), "too-large", f"read only the first {MAX_BYTES >> 20} MiB", MAX_BYTES)
        )
    entries, doubts = telling(found, str(path))
    return log, entries, (*problems, *doubts)


def _take(line: str, at: int, log: Log) -> None:
    """Add what one line says to the log."""
    if not line or line.isspace():
        return
    watch(log.end, line, at)
    if "|" in line and not log.templates.columns and BOTH_SECTIONS.match(without_prefix(line)[0].strip()):
        log.templates.columns = True
        log.templates.shapes.clear()
    if not DIGIT.search(line):
        if RULE.fullmatch(line):
            log.block += 1
            log.section = ""
            return
        log.heading = heading_of(line) or log.heading
        if names := bare_names(line):
            log.bare = at, names
        if "nan" not in line.lower():
            _note(line, at, log)
            return
    bar = bar_in(line)
    if bar:
        _take_bar(line, bar, at, log)
    elif not (line.lstrip()[0].isdigit() and UNBOUNDED.match(line)):
        _take_words(line, at, log)


def _take_words(line: str, at: int, log: Log) -> None:
    heading = heading_of(line) if begins_as_heading(line) else None
    if heading is not None:
        log.heading = heading
    elif entry := _entry(line, at, log):
        if entry.epoch is not None or entry.inner is not None:
            log.section = "" if entry.plan.slots else section_of(line)
        elif log.section:
            entry = _in_section(entry, log)
        entry.block = log.block
        log.entries.append(entry)
    else:
        log.heading = heading_of(line) or log.heading
        _note(line, at, log)


def _in_section(entry: Entry, log: Log) -> Entry:
    """An entry whose metrics name no data as one of the section that was announced."""
    if any(slot.section for slot in entry.plan.slots):
        return entry
    key = (entry.template, log.section)
    known = log.sectioned.get(key)
    made = in_section(
        entry,
        log.section,
        known.template if known else -2 - len(log.sectioned),
        known.plan if known else None,
    )
    return log.sectioned.setdefault(key, made) if known is None else made


def _note(line: str, at: int, log: Log) -> None:
    """What a line without metrics announces: a run, a section."""
    text = without_prefix(line)[0]
    log.section = section_of(text) or log.section
    banner = banner_of(text, at) if len(log.banners) < MAX_BANNERS else None
    if banner is not None:
        log.banners.append(banner)


def _entry(line: str, at: int, log: Log) -> Entry | None:
    """What a line says, or None where it says neither a metric nor a place in training."""
    text, clock = without_prefix(line)
    text = unglued(text)
    if log.heading and (row := row_below(log.heading, text)):
        return entry_of_pairs("", row, at, clock, log.templates)
    if log.bare and at == log.bare[0] + 1 and (row := bare_row(log.bare[1], text)):
        log.bare = at, log.bare[1]
        return entry_of_pairs("", row, at, clock, log.templates)
    pairs = literal_pairs(text)
    if pairs is not None:
        return entry_of_pairs(text[: text.find("{")], pairs, at, clock, log.templates)
    return entry_of_words(text, at, clock, log.templates)


def unglued(text: str) -> str:
    """``epoch12 loss`` as ``epoch 12 loss``, ``E3: loss`` as ``epoch 3: loss``."""
    match = GLUED.match(text)
    if not match:
        return text
    word = "epoch" if match[2] in "eE" else match[2]
    return f"{match[1]}{word} {match[3]}{text[match.end() :]}"


def _take_bar(line: str, match: re.Match[str], at: int, log: Log) -> None:
    """A state of a progress bar, or what was printed while the bar stood there."""
    done, total = (float(part) for part in match.groups()[-2:])
    before = line[: match.start()]
    if begins_as_heading(line) and (heading := heading_of(before.rstrip(" :"))):
        log.heading = heading  # Ultralytics lets its bar run behind the names of the columns
        return
    after = line[match.end() :].lstrip(" ],-")
    if after and ("{" in after or PREFIX.match(after)):
        if printed := _entry(after, at, log):
            log.entries.append(printed)
        return
    row = row_below(log.heading, before.rstrip(" :")) if log.heading else None
    entry = (
        _entry(f"{before} , {after}", at, log)
        if row is None
        else entry_of_pairs("", row, at, None, log.templates)
    )
    if entry is not None and entry.plan.slots:
        entry.bar, entry.total = True, total
        advance(log.bars, log.entries, entry, done, ("" if row else FIGURE.sub("#", before).strip(), total))
    elif EPOCH_LABEL.search(before):  # a bar over epochs: so many are done
        log.entries.append(Entry(at, -1, Plan(), (), epoch=done, bar=True))
    elif entry is not None and entry.epoch is not None:
        log.entries.append(Entry(at, -1, Plan(), (), epoch=entry.epoch, bar=True))
