"""Plain-text training logs: what a script printed, progress bars and tracebacks included.

Every line is taken apart into words and numbers; the words are its template. What a template's
numbers mean (an epoch, an iteration, a metric) is decided once, from the words. A tag becomes a
series only where a template repeats: prose that mentions a loss is not a curve.
"""

from __future__ import annotations

import ast
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import pairwise
from math import isfinite
from pathlib import Path

import numpy as np

from analyzer.errors import IngestError
from analyzer.ingest import wandb
from analyzer.ingest.jsonlines import (
    BARE_NONFINITE,
    EPOCH_NAMES,
    METRIC,
    POINTER,
    STEP_NAMES,
    flatten,
    number,
    parse_object,
)
from analyzer.model import Axis, Problem, Reading, Series

NAME = "text"
SUMMARY = "Plain-text logs: printed epochs and steps, tqdm and Keras bars, Trainer dicts, nanoGPT, pix2pix"
ORDER = 80

SUFFIXES = frozenset({".log", ".txt", ".out", ".err", ".stdout", ".stderr"})
NOT_LOGS = re.compile(r"debug(?:-internal|-core)?\.log|requirements.*\.txt|license.*|readme.*", re.IGNORECASE)
MAX_BYTES = 1 << 30
MAX_LINE = 8000  # characters; a longer line is no line of a log
MAX_NUMBERS = 60  # in one line
MAX_TEMPLATES = 50_000
MAX_LITERAL = 4000
MAX_LABEL = 200  # characters before a number that may name it
MIN_LINES = 3  # of one template, for its numbers to be a curve

ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[()][A-Z0-9]|[\x00-\x08\x0b-\x1f\x7f]")
FIGURE = re.compile(
    r"(?<![A-Za-z0-9_@.])(?<![A-Za-z]-)"
    r"([-+]?(?:(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|(?:nan|inf(?:inity)?)(?![A-Za-z0-9_])))([A-Za-z%]*)",
    re.IGNORECASE,
)
ISO = r"\d{4}[-/]\d\d[-/]\d\d[ T]\d\d:\d\d:\d\d(?:[.,]\d+)?"
PREFIX = re.compile(
    rf"\s*(?:\[?(?P<clock>{ISO})(?:Z|[+-]\d\d:?\d\d)?\]?"
    r"|\[?\d\d/\d\d(?:/\d+)? \d\d:\d\d:\d\d(?: [AP]M)?\]?|\[?\d\d:\d\d:\d\d(?:[.,]\d+)?\]?"
    r"|[IWEF]\d{4} \d\d:\d\d:\d\d\.\d+\s+\d+ \S+:\d+\]"
    r"|\[?(?:DEBUG|INFO|WARNING|WARN|ERROR|CRITICAL)\]?(?=[\s:|\]-]|$)|\[rank\d+\]:|\[?(?:__main__|root|main)\](?=\s)"
    r"|\[?(?:__main__|root|main)(?=\s[-:|]\s|:)|\[?(?:[A-Za-z_]\w*\.)+[A-Za-z_]\w*(?:\.py:\d+)?(?=\]?\s*[-:|\]]))"
    r"[\s:|\]-]*"
)
TQDM = re.compile(r"(?<!\d)(\d{1,3})%\|[^|]*\|\s*(\d+)/(\d+)\s*\[[^\],]*(?:,\s*[^\],]*)?")
UNBOUNDED = re.compile(r"^\s*\d+(?:it|batch|ba|ex)\s*\[\d")
KERAS = re.compile(r"^\s*(\d+)/(\d+)\s*(?:\[[=>.\s]+\]|[━╸╺─\s]{3,})(?:\s*-?\s*(?:ETA:\s*)?[\d:.]+(?:s|ms|us)?\b(?:\s*[\d.]+[mu]?s/(?:step|epoch|sample))?)?")  # fmt: skip
ARRAY = re.compile(r"(?:array|tensor)\(([^()]*)\)")

SECTIONS = {
    **dict.fromkeys(("train", "training", "trn"), "train"),
    **dict.fromkeys(
        ("val", "valid", "validation", "validate", "validating", "dev", "eval", "evaluation"), "val"
    ),
    **dict.fromkeys(("test", "testing"), "test"),
}
SECTION = re.compile(rf"(?<![\w./-])({'|'.join(SECTIONS)})(?![\w./-])", re.IGNORECASE)
BOTH_SECTIONS = re.compile(r"^\W*train(?:ing)?\s*\|\s*val(?:id(?:ation)?)?\W*$", re.IGNORECASE)
EPOCH_LABEL = re.compile(
    r"(?:^|[^a-z])ep(?:och)?s?(?:[^a-z]*$|\s+(?:number|no|idx|index)\W*$)", re.IGNORECASE
)
INNER_LABEL = re.compile(
    r"(?:^|[^a-z])(?:global[_ ]?step|step|iter|iters|iteration|iterations|batch|batches|num_updates|updates?|it)s?[^a-z]*$",
    re.IGNORECASE,
)
TOTAL_LABEL = re.compile(r"^[\s\])]*(?:/|of)[\s\[(]*$")
OPEN_LABEL = re.compile(r"(?:[\[(]|^\s*[:|])\s*$")
EPISODE_LABEL = re.compile(r"(?:^|[^a-z])episodes?[^a-z]*$", re.IGNORECASE)
GLOBAL_LABEL = re.compile(
    r"(?:^|[^a-z])(?:num_updates|global[_ ]?step|total[_ ]?(?:time)?steps?)[^a-z]*$", re.IGNORECASE
)
WRAPPER = re.compile(r"(?:(?:torch\.)?tensor|array|np\.float\d*|float)\(\s*$")
SEPARATOR = re.compile(r"\s*(?::|=|\bis\b|->|\|)?\s*$")
PHRASES = re.compile(r"[,;|{}<>()\[\]\t\"…•·]|(?<!\w)'|'(?!\w)|:\s|\s-+\s|-{2,}|\s{2,}|=\s")
FILLERS = frozenset(
    {"phase", "current", "the", "set", "so", "far", "average", "avg", "mean", "running", "epoch's"}
)
SUPERLATIVES = frozenset(
    {"best", "previous", "prev", "old", "target", "improved", "max", "min", "minimum", "maximum", "initial", "lowest",
     "highest", "final", "early", "patience", "threshold", "delta", "weight", "weights", "function", "from", "to"}
)  # fmt: skip
UNSECTIONED = re.compile(
    r"lr|learning_?rate|(?:grad|gradient)_?norm|gnorm|momentum|loss_scale", re.IGNORECASE
)
NOT_METRIC = re.compile(
    r"time|date|eta|^data$|speed|mem|gpu|cuda|seed|port|pid|rank|size|^len|count|total$|^num|^n$|version|elapsed|duration"
    r"|took|ips|fps|throughput|samples|tokens|^it$|^s$|^ms$|sec|device|workers|shape|param|layers|dim|kernel|stride"
    r"|padding|weight$|channels|features|width|height|line|^id$|file|classes|ratio|beta|eps|dropout|^p$|degrees|scale$"
    r"|^v_num$|^skipped$|copypaste|_cost$|^best[_-]|[_-]best$|^wps$|^ups$|^wpb$|^bsz$|train_wall|gb_free|^wall$|patience|remaining",
    re.IGNORECASE,
)
RUNNING = re.compile(r"so far|running", re.IGNORECASE)
LOOSE = re.compile(r"^\s*(\d+)\s+([A-Za-z_]\w*)\s+([-+]?(?:\d+\.?\d*(?:[eE][-+]?\d+)?|nan|inf))\s*$")
EXCEPTION = re.compile(
    r"^(?:[A-Za-z_]\w*\.)*(?:[A-Z]\w*(?:Error|Exception|Interrupt|Exit|Warning|Timeout)|StopIteration)(?::.*)?$"
)
RULE = re.compile(r"\s*[-=+|]{5,}\s*")
DEATH = re.compile(
    r"^(?:Killed|Segmentation fault.*|Aborted.*|slurmstepd: error: .*(?:CANCELLED|oom|OOM).*)$"
)

Labels = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Slot:
    """A number of a template that is a metric: its place, tag, and how it was found."""

    at: int
    tag: str
    section: str
    bare: bool = False  # only "train" or "val" stood before it
    fraction: bool = False  # written as correct/total
    running: bool = False  # a mean since the start of the epoch
    mean_at: int | None = None  # place of the mean so far that follows in parentheses


@dataclass(frozen=True, slots=True)
class Plan:
    """What the numbers of a template mean."""

    epoch: int | None = None
    inner: int | None = None
    total: int | None = None
    slots: tuple[Slot, ...] = ()
    episodes: bool = False  # what is called epoch here is an episode

    @property
    def held_out(self) -> bool:
        return bool(self.slots) and all(slot.section in {"val", "test"} for slot in self.slots)


@dataclass(slots=True)
class Entry:
    """One line that says something: where in training it stands, and its metrics."""

    line: int
    template: int
    plan: Plan
    values: tuple[float, ...]
    epoch: float | None = None
    inner: float | None = None
    total: float | None = None
    clock: float | None = None
    bar: bool = False
    block: int = 0  # stretch between two ruled lines
    step: float = 0.0


@dataclass(slots=True)
class Bar:
    """A progress bar on its way: its last complete state and, in its first pass, all states."""

    entry: Entry
    done: float
    passes: int = 1
    states: list[Entry] = field(default_factory=list)


@dataclass(slots=True)
class Log:
    """What was seen of a file so far."""

    entries: list[Entry] = field(default_factory=list)
    bars: dict[tuple[str, float], Bar] = field(default_factory=dict)
    templates: dict[str, int] = field(default_factory=dict)
    plans: list[Plan] = field(default_factory=list)
    traceback: int = 0  # line of the last traceback
    crash: str = ""
    crash_line: int = 0
    block: int = 0
    columns: bool = False  # below the heading "Training | Validation"


def claims(path: Path, head: bytes) -> bool:
    """Text under a name that logs have."""
    name = path.name.lower()
    if NOT_LOGS.fullmatch(name):
        return False
    if path.suffix.lower() not in SUFFIXES and not name.startswith(("stdout", "stderr", "log")):
        return False
    if path.suffix and path.suffix.lower() not in SUFFIXES and not re.fullmatch(r"\.\d+", path.suffix):
        return False
    return bool(head) and (b"\0" not in head or head.startswith((b"\xff\xfe", b"\xfe\xff")))


def run_root(path: Path) -> Path:
    """The W&B run folder of an ``output.log``, else the folder of the file."""
    return wandb.run_root(path)


def read(path: Path) -> Reading:
    """The curves that were printed. IngestError where there is none and nothing crashed either."""
    log = Log()
    size = 0
    for at, (line, seen) in enumerate(_lines(path), start=1):
        _take(line, at, log)
        size = seen
    _finish_bars(log)
    problems = list(_crash(str(path), log))
    if size >= MAX_BYTES:
        problems.append(
            Problem(str(path), "too-large", f"read only the first {MAX_BYTES >> 20} MiB", MAX_BYTES)
        )
    series, doubts = _series(log, str(path))
    problems += doubts
    if not series and not problems:
        raise IngestError(str(path), "text, but no training curve recognised in it", "no-series")
    return Reading(series=series, problems=tuple(problems))


# ---------------------------------------------------------------------------------- lines


def _lines(path: Path) -> Iterator[tuple[str, int]]:
    """Lines without control sequences and the bytes read so far; a carriage return ends a line too."""
    rest, seen = b"", 0
    try:
        with path.open("rb") as file:
            start = file.read(4)
            file.seek(0)
            wide = start.startswith((b"\xff\xfe", b"\xfe\xff"))
            while seen < MAX_BYTES and (chunk := file.read(-1 if wide else 1 << 20)):
                if not seen and chunk.startswith(POINTER):
                    raise IngestError(str(path), "a Git LFS pointer, not the file itself", "pointer")
                seen += len(chunk)
                if wide:
                    chunk = chunk.decode("utf-16", "replace").encode()
                *whole, rest = (rest + chunk).replace(b"\r", b"\n").split(b"\n")
                for line in whole:
                    yield _clean(line), seen
                rest = rest[: 4 * MAX_LINE]
    except OSError as error:
        raise IngestError(str(path), error.strerror or str(error)) from error
    if not seen:
        raise IngestError(str(path), "an empty file", "empty")
    yield _clean(rest), seen


def _clean(raw: bytes) -> str:
    text = raw[: 4 * MAX_LINE].decode("utf-8", "replace")[:MAX_LINE]
    return ANSI.sub("", text) if not text.isprintable() else text


def _take(line: str, at: int, log: Log) -> None:
    """Add what one line says to the log."""
    if not line.strip():
        return
    _watch_for_crash(line, at, log)
    if "|" in line and not log.columns and BOTH_SECTIONS.match(_without_prefix(line)[0].strip()):
        log.columns = True
    if RULE.fullmatch(line):
        log.block += 1
        return
    if not any(character.isdigit() for character in line) and "nan" not in line.lower():
        return
    if UNBOUNDED.match(line):
        return
    bar = TQDM.search(line) or KERAS.match(line)
    if bar:
        _take_bar(line, bar, at, log)
        return
    entry = _entry(line, at, log)
    if entry is not None:
        entry.block = log.block
        log.entries.append(entry)


def _without_prefix(line: str) -> tuple[str, float | None]:
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


def _take_bar(line: str, match: re.Match[str], at: int, log: Log) -> None:
    """A state of a progress bar: the last complete one of each pass counts."""
    done, total = (float(part) for part in match.groups()[-2:])
    before = line[: match.start()]
    after = line[match.end() :].lstrip(" ],-")
    if "{" in after or (after and PREFIX.match(after)):  # printed while the bar stood there
        if printed := _entry(after, at, log):
            log.entries.append(printed)
        return
    entry = _entry(f"{before} , {after}", at, log)
    if entry is not None and entry.plan.slots:
        entry.bar, entry.total = True, total
        _advance(log, entry, done, (FIGURE.sub("#", before).strip(), total))
    elif EPOCH_LABEL.search(before):  # a bar over epochs: so many are done
        log.entries.append(Entry(at, -1, Plan(), (), epoch=done, bar=True))
    elif entry is not None and entry.epoch is not None:
        log.entries.append(Entry(at, -1, Plan(), (), epoch=entry.epoch, bar=True))


def _advance(log: Log, entry: Entry, done: float, identity: tuple[str, float]) -> None:
    """Move a bar on; a bar that starts over leaves its last complete state as an entry."""
    bar = log.bars.get(identity)
    if bar is None:
        bar = log.bars[identity] = Bar(entry, done)
    elif _starts_over(bar, entry, done):
        if bar.done == bar.entry.total:
            log.entries.append(bar.entry)
        bar.passes += 1
        bar.states.clear()
    elif done == bar.done and bar.states:
        bar.states.pop()
    bar.entry, bar.done = entry, done
    if bar.passes == 1:
        entry.inner = done
        bar.states.append(entry)


def _starts_over(bar: Bar, entry: Entry, done: float) -> bool:
    """Whether a state belongs to the next pass: it falls back, or is complete again some lines later."""
    if done != bar.done or entry.epoch != bar.entry.epoch:
        return done < bar.done or entry.epoch != bar.entry.epoch
    return entry.epoch is None and entry.line > bar.entry.line + 2 and entry.values != bar.entry.values


def _finish_bars(log: Log) -> None:
    """At the end of the file: last passes that were complete; a bar with one pass is itself the curve."""
    for bar in log.bars.values():
        if bar.passes == 1 and len(bar.states) >= 10:
            log.entries += bar.states
            for entry in bar.states:
                entry.bar = False
        elif bar.done == bar.entry.total:
            bar.entry.inner = None
            log.entries.append(bar.entry)
    for entry in log.entries:
        if entry.bar:
            entry.inner = None
    log.entries.sort(key=lambda entry: entry.line)


# ---------------------------------------------------------------------------------- templates


def _entry(line: str, at: int, log: Log) -> Entry | None:
    """What a line says, or None where it says neither a metric nor a place in training."""
    text, clock = _without_prefix(line)
    pairs = _literal_pairs(text)
    if pairs is not None:
        return _pairs_entry(text, pairs, at, clock, log)
    parts = FIGURE.split(text)  # words, number, unit, words, number, unit, …, words
    labels, figures, units = tuple(parts[0::3]), parts[1::3], parts[2::3]
    if not figures or len(figures) > MAX_NUMBERS:
        return None
    marks = tuple("#" if not unit or unit == "%" else "#u" for unit in units)
    template = " ".join(
        part
        for pair in zip((" ".join(label.split()) for label in labels), (*marks, ""), strict=True)
        for part in pair
    )
    if log.columns:
        template = f"columns: {template}"
    known = log.templates.get(template)
    if known is None:
        if len(log.templates) >= MAX_TEMPLATES:
            return None
        known = log.templates[template] = len(log.plans)
        log.plans.append(_plan(labels, marks, text, log.columns))
    plan = log.plans[known]
    if plan.epoch is None and plan.inner is None and not plan.slots:
        return None
    return _filled(at, known, plan, [float(figure) for figure in figures], clock)


def _filled(at: int, template: int, plan: Plan, figures: list[float], clock: float | None) -> Entry:
    """A plan with its numbers put in."""
    values = tuple(_value(slot, plan, figures) for slot in plan.slots)
    places = (plan.epoch, plan.inner, plan.total)
    epoch, inner, total = (None if i is None or not isfinite(figures[i]) else figures[i] for i in places)
    return Entry(at, template, plan, values, epoch, inner, total, clock)


def _value(slot: Slot, plan: Plan, figures: list[float]) -> float:
    """The number of a slot; of a fraction the quotient, of batches of an evaluation the mean so far."""
    if slot.fraction and figures[slot.at + 1]:
        return figures[slot.at] / figures[slot.at + 1]
    if slot.mean_at is not None and plan.inner is not None and plan.held_out:
        return figures[slot.mean_at]
    return figures[slot.at]


def _plan(labels: Labels, marks: tuple[str, ...], text: str, columns: bool) -> Plan:
    """What the numbers between these words mean."""
    loose = LOOSE.match(text)
    if loose:
        return _loose_plan(loose[2])
    epoch = inner = total = None
    slots: list[Slot] = []
    context = ""
    for at, mark in enumerate(marks):
        label = labels[at]
        follows = labels[at + 1]
        context += label
        if mark == "#u":
            continue
        is_total = bool(TOTAL_LABEL.match(label)) and at > 0
        if is_total and inner == at - 1:
            total = at
        elif is_total:
            continue
        elif EPOCH_LABEL.search(label) or EPISODE_LABEL.search(label) or _is_bracketed_epoch(at, labels):
            epoch = at if epoch is None else epoch
        elif GLOBAL_LABEL.search(label):
            inner, total = at, None
        elif INNER_LABEL.search(label) or _is_bracketed_counter(at, labels):
            inner = at if inner is None else inner
        elif re.fullmatch(r"\s*\(\s*", label) and slots and slots[-1].at == at - 1:
            slots[-1] = replace(slots[-1], mean_at=at)
        elif columns and len(marks) == 2 and (name := labels[0].strip(" |\t")) and METRIC.search(name):
            slots.append(Slot(at, f"{('train', 'val')[at]}_{name}", ("train", "val")[at]))
        else:
            found = _slot(at, label, follows, context, slots, epoch is not None or inner is not None)
            if found is not None:
                slots.append(found)
    episodes = epoch is not None and bool(EPISODE_LABEL.search(labels[epoch]))
    return Plan(epoch, inner, total, _distinct(slots), episodes)


def _loose_plan(word: str) -> Plan:
    """``250 val 3.28``: a step, a word and a value and nothing else."""
    section = SECTIONS.get(word.lower(), "")
    if section:
        return Plan(inner=0, slots=(Slot(1, section, section, bare=True),))
    return Plan(inner=0, slots=(Slot(1, word, "", bare=not METRIC.search(word)),))


def _distinct(slots: list[Slot]) -> tuple[Slot, ...]:
    """The first slot of every tag: a repetition is a running average or another thing of the same name."""
    seen: dict[str, Slot] = {}
    for slot in slots:
        seen.setdefault(slot.tag, slot)
    return tuple(seen.values())


def _is_bracketed_counter(at: int, labels: Labels) -> bool:
    """``[0/60000`` and ``][10/5005]``, ``[1, 2000]`` after the epoch, ``[100]`` at the start of a line."""
    label, follows = labels[at], labels[at + 1]
    words = label.strip(" :|([])-\t").lower()
    if OPEN_LABEL.search(label) and TOTAL_LABEL.match(follows):
        return not words or words in SECTIONS
    if at == 1 and _is_bracketed_epoch(0, labels) and label.strip() == ",":
        return True
    return at == 0 and label.strip() == "[" and follows.lstrip().startswith("]") and len(follows.strip()) > 1


def _is_bracketed_epoch(at: int, labels: Labels) -> bool:
    """``[1, 2000]`` and ``[1/5][50/1583]`` at the start of a line, ``Train: 0 [`` before a counter."""
    label, follows = labels[at], labels[at + 1]
    if at == 0 and label.strip() == "[" and len(labels) > at + 2:
        if follows.strip() == ",":
            return labels[at + 2].lstrip().startswith("]")
        return follows.strip() == "/" and bool(re.match(r"\]\s*\[", labels[at + 2]))
    named = SECTION.fullmatch(label.strip(" :"))
    return at == 0 and named is not None and follows.strip() in {"[", ":["}


def _slot(at: int, label: str, follows: str, context: str, before: list[Slot], placed: bool) -> Slot | None:
    """The metric a number is, from the words before it; None if it is none."""
    wrapped = WRAPPER.sub("", label.rstrip()[-MAX_LABEL:]).rstrip(" ([{'\"")
    if re.search(r"[\[(]\s*$", label) and re.fullmatch(r"\s*,?\s*", follows):
        return None  # a vector
    body = SEPARATOR.sub("", wrapped)
    explicit = wrapped.rstrip().endswith((":", "=")) or wrapped.rstrip().endswith(" is")
    phrase = PHRASES.split(body)[-1].strip(" *#>~.!?-&+\\/_")
    words = [word.removesuffix("'s") for word in phrase.split()]
    if not words or len(words) > 6 or any(word.lower() in SUPERLATIVES for word in words):
        return None
    section = next((SECTIONS[word.lower()] for word in words if word.lower() in SECTIONS), "")
    kept = [word for word in words if word.lower() not in FILLERS and word.lower() not in SECTIONS]
    if not kept:
        return _bare_slot(at, section, before) if section else None
    name = "_".join(
        word.lower() if word.isalpha() and (word.isupper() or word.istitle()) else word for word in kept
    )
    if len(kept) > 3 or not _is_metric(kept, name, explicit and (placed or bool(before))):
        return None
    if not section and not UNSECTIONED.fullmatch(name) and not _names_section(name):
        section = _last_section(context[: len(context) - len(label)] + label[: label.rfind(phrase)])
    tag = f"{section}_{name}" if section and not UNSECTIONED.fullmatch(name) else name
    fraction = bool(re.fullmatch(r"\s*/\s*", follows)) and bool(re.search("acc|correct", name, re.IGNORECASE))
    return Slot(
        at, tag, section or _names_section(name), fraction=fraction, running=bool(RUNNING.search(body))
    )


def _bare_slot(at: int, section: str, before: list[Slot]) -> Slot:
    """``LOSS train 1.6 valid 1.5``: the second takes the name of the first."""
    named = next((slot for slot in reversed(before) if slot.section and not slot.bare), None)
    if named is not None:
        name = named.tag.removeprefix(f"{named.section}_")
        return Slot(at, f"{section}_{name}", section)
    return Slot(at, section, section, bare=True)


def _is_metric(words: list[str], name: str, anything: bool) -> bool:
    """A metric by its name, or any single identifier with a colon on a line that says where it stands."""
    if any(NOT_METRIC.search(word) for word in words):
        return False
    if METRIC.search("_".join(words[-2:])) or name == "norm":
        return all(re.fullmatch(r"[A-Za-z_][\w./@%()'-]*|@?\d+", word) for word in words)
    return anything and len(words) == 1 and bool(re.fullmatch(r"[A-Za-z_][\w./@%-]{0,39}", name))


def _names_section(name: str) -> str:
    """The section an identifier names itself: ``val_loss``, ``loss/test``."""
    parts = re.split(r"[_./-]", name.lower())
    return next((SECTIONS[part] for part in (parts[0], parts[-1]) if part in SECTIONS), "")


def _last_section(text: str) -> str:
    found = SECTION.findall(text)
    return SECTIONS[found[-1].lower()] if found else ""


# ---------------------------------------------------------------------------------- literals


def _literal_pairs(text: str) -> dict[str, float] | None:
    """The numbers of a Python dict or JSON object printed in a line; None where there is none."""
    source = text[text.find("{") : text.rfind("}") + 1] if "{" in text else ""
    if not source or len(source) > MAX_LITERAL or ":" not in source:
        return None
    data: object = parse_object(source)
    if data is None:
        try:
            data = ast.literal_eval(BARE_NONFINITE.sub(r"'\g<0>'", ARRAY.sub(r"\1", source)))
        except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
            return None
    if not isinstance(data, dict):
        return None
    named: Mapping[str, object] = {str(key): value for key, value in data.items()}
    return {tag: figure for tag, value in flatten(named) if (figure := number(value)) is not None}


def _pairs_entry(
    text: str, pairs: Mapping[str, float], at: int, clock: float | None, log: Log
) -> Entry | None:
    """An entry from names and numbers; words before the dict may say what it is of."""
    by_name = {tag.lower(): tag for tag in pairs}
    epoch = next((by_name[name] for name in EPOCH_NAMES if name in by_name), None)
    inner = next((by_name[name] for name in STEP_NAMES if name in by_name), None)
    tags = [tag for tag in pairs if tag not in (epoch, inner)]
    if not any(METRIC.search(tag) for tag in tags):
        return None
    section = _last_section(text[: text.find("{")])
    words = FIGURE.sub("#", text[: text.find("{")])
    template = f"{words}{{{','.join(sorted(tags))}}}"
    known = log.templates.get(template)
    if known is None:
        if len(log.templates) >= MAX_TEMPLATES:
            return None
        known = log.templates[template] = len(log.plans)
        slots = (Slot(i, tag if not section or _names_section(tag) else f"{section}_{tag}", section or _names_section(tag))
                 for i, tag in enumerate(tags))  # fmt: skip
        log.plans.append(Plan(slots=tuple(slots)))
    return Entry(
        line=at,
        template=known,
        plan=log.plans[known],
        values=tuple(pairs[tag] for tag in tags),
        epoch=pairs[epoch] if epoch and isfinite(pairs[epoch]) else None,
        inner=pairs[inner] if inner and isfinite(pairs[inner]) else None,
        clock=clock,
    )


# ---------------------------------------------------------------------------------- crash


def _watch_for_crash(line: str, at: int, log: Log) -> None:
    text = line.strip()
    if text.startswith("Traceback (most recent call last)") or "]: Traceback (most recent call last)" in text:
        log.traceback, log.crash = at, "a traceback without its last line"
        log.crash_line = at
    elif (log.traceback and EXCEPTION.match(text)) or DEATH.match(text):
        log.crash, log.crash_line = text, at
        log.traceback = 0


def _crash(path: str, log: Log) -> Iterator[Problem]:
    """The last exception, unless training went on after it."""
    after = sum(1 for entry in log.entries if entry.line > log.crash_line and entry.plan.slots)
    if log.crash and after < MIN_LINES:
        message = re.sub(r"[\x00-\x1f\x7f-\x9f]", "", log.crash)
        yield Problem(path, "crashed", message if len(message) <= 200 else f"{message[:199]}…")


# ---------------------------------------------------------------------------------- steps


@dataclass(slots=True)
class Pass:
    """A stretch of lines over which the iteration counter rises."""

    entries: list[Entry]
    epoch: float | None = None


def _place(entries: list[Entry]) -> Axis:
    """Give every entry its step, and say what the steps count."""
    counted = [entry for entry in entries if entry.inner is not None and not entry.bar]
    train = [entry for entry in counted if entry.plan.slots and not entry.plan.held_out] or counted
    if not train:
        return _place_by_epoch(entries)
    passes = _passes(train)
    _name_epochs(passes, entries)
    length = _epoch_length(passes)
    if length is None:
        _place_by_counter(entries)
    else:
        _place_across_epochs(entries, passes, length)
    return "step"


def _place_by_epoch(entries: list[Entry]) -> Axis:
    """Steps are epochs: the line's own, or that of the last line that named one."""
    named = [entry.epoch for entry in entries if entry.epoch is not None]
    if len(set(named)) < 2:
        return "row"
    first_value = next((entry.line for entry in entries if entry.plan.slots), 0)
    first_name = next(entry.line for entry in entries if entry.epoch is not None)
    current = named[0]
    backwards = first_value < first_name  # the epoch is named after its numbers
    for entry in reversed(entries) if backwards else entries:
        if entry.epoch is not None:
            current = entry.epoch
        entry.step = current
    return "episode" if all(entry.plan.episodes for entry in entries if entry.epoch is not None) else "epoch"


def _passes(train: Iterable[Entry]) -> list[Pass]:
    """Split where the counter of training lines falls back, or the epoch they name changes."""
    found: list[Pass] = []
    last: Entry | None = None
    reached: dict[int, float] = {}
    for entry in train:
        assert entry.inner is not None
        back = entry.inner <= reached.get(entry.template, -np.inf) or (
            last is not None and entry.inner < (last.inner or 0)
        )
        other = last is not None and entry.epoch is not None and last.epoch not in (None, entry.epoch)
        if last is None or back or (other and entry.inner <= (last.inner or 0)):
            found.append(Pass([]))
            reached = {}
        found[-1].entries.append(entry)
        reached[entry.template] = entry.inner
        last = entry
    return found


def _name_epochs(passes: list[Pass], entries: list[Entry]) -> None:
    """The epoch of each pass: its own lines', else that of the heading above or the summary below it."""
    markers = [entry for entry in entries if entry.epoch is not None and (entry.inner is None or entry.bar)]
    at = np.array([marker.line for marker in markers], dtype=np.int64)
    above = bool(markers) and bool(passes) and at[0] < passes[0].entries[0].line
    for one in passes:
        own = next((entry.epoch for entry in one.entries if entry.epoch is not None), None)
        if own is None and markers:
            if above:
                place = int(np.searchsorted(at, one.entries[0].line)) - 1
            else:
                place = int(np.searchsorted(at, one.entries[-1].line, side="right"))
            own = markers[place].epoch if 0 <= place < len(markers) else None
        one.epoch = own


def _epoch_length(passes: list[Pass]) -> float | None:
    """Iterations of an epoch if the counter starts over in each, or None where it runs on.

    Where nothing names the epochs, passes of one stated or equal length are epochs; passes of
    other lengths are runs appended to the same file.
    """
    if len(passes) < 2:
        return None
    totals = {entry.total for one in passes for entry in one.entries if entry.total}
    ends = [one.entries[-1].inner or 0.0 for one in passes]
    longest = max([*ends, *(total for total in totals if len(totals) == 1)])
    epochs = [one.epoch for one in passes]
    changes = sum(a != b for a, b in pairwise(epochs) if a is not None and b is not None)
    if changes >= 0.5 * (len(passes) - 1):
        return longest
    if not any(epoch is not None for epoch in epochs) and (
        len(totals) == 1 or len(set(ends[:-1])) == 1 < len(ends) - 1
    ):
        return longest
    return None


def _place_by_counter(entries: list[Entry]) -> None:
    """The counter is the step; lines without one stand where the line before them stood.

    In a printed table the counter is a row of its own: the last one is that of all its rows.
    """
    counted = [entry for entry in entries if entry.inner is not None and not entry.bar]
    with_values = {entry.block for entry in counted if entry.plan.slots}
    tables = {entry.block: entry.inner or 0.0 for entry in counted if entry.block not in with_values}
    current = counted[0].inner or 0.0
    for entry in entries:
        if entry.block in tables:
            current = tables[entry.block]
        elif entry.inner is not None and not entry.bar:
            current = entry.inner
        entry.step = current


def _place_across_epochs(entries: list[Entry], passes: list[Pass], length: float) -> None:
    """Epochs times their length plus the counter; other lines stand at the end of the pass before them."""
    named = [one.epoch for one in passes if one.epoch is not None]
    zero = 1.0 if named and min(named) >= 1 else 0.0
    previous = zero - 1
    for one in passes:
        epoch = previous + 1 if one.epoch is None else np.floor(one.epoch)
        previous = epoch
        for entry in one.entries:
            entry.step = (epoch - zero) * length + (entry.inner or 0.0)
    placed = {id(entry) for one in passes for entry in one.entries}
    current = 0.0
    for entry in entries:
        if id(entry) in placed:
            current = entry.step
        elif entry.epoch is not None and entry.inner is None and entry.plan.slots:
            current = (np.floor(entry.epoch) - zero + 1) * length
            entry.step = current
        else:
            entry.step = current


# ---------------------------------------------------------------------------------- series


@dataclass(slots=True)
class Curve:
    """The points of one tag from lines of one kind."""

    tag: str
    by_counter: bool
    template: int
    points: list[tuple[float, float, float | None]] = field(default_factory=list)


def _series(log: Log, source: str) -> tuple[tuple[Series, ...], list[Problem]]:
    """Curves of the templates that repeat, and what could not be told apart."""
    entries, doubts = _unambiguous(log.entries, source)
    lines = Counter(entry.template for entry in entries if entry.plan.slots)
    entries = [entry for entry in entries if not entry.plan.slots or lines[entry.template] >= MIN_LINES]
    entries = _without_loose_prose(entries)
    if not any(entry.plan.slots for entry in entries):
        return (), doubts
    entries = _with_inherited_sections(entries)
    axis = _place(entries)
    entries = _without_batches_of_evaluation(entries)
    entries = _last_running_means(entries)
    curves = _curves(entries, _bare_names(entries))
    series = tuple(_as_series(curve, axis, source) for curve in _renamed(curves))
    return series, doubts


def _unambiguous(entries: list[Entry], source: str) -> tuple[list[Entry], list[Problem]]:
    """Without the shorter of two bars that alternate under the same unsectioned names."""
    totals: dict[str, dict[int, float]] = defaultdict(dict)
    for entry in entries:
        if entry.bar and entry.total:
            for slot in entry.plan.slots:
                if not slot.section:
                    sizes = totals[slot.tag]
                    sizes[int(entry.total)] = sizes.get(int(entry.total), 0) + 1
    mixed = {tag: max(sizes) for tag, sizes in totals.items() if len(sizes) > 1}
    if not mixed:
        return entries, []
    longest = max(mixed.values())
    kept = [
        entry
        for entry in entries
        if not (
            entry.bar
            and entry.total
            and entry.total != longest
            and any(s.tag in mixed for s in entry.plan.slots)
        )
    ]
    message = (
        f"progress bars of several lengths print {', '.join(sorted(mixed)[:4])} under the same name; "
        f"only those of {longest} iterations were read, the others may be validation"
    )
    return kept, [Problem(source, "unsure", message)]


def _without_loose_prose(entries: list[Entry]) -> list[Entry]:
    """Number-word-number lines count only where one of the words is a metric or a section."""
    loose = [
        entry
        for entry in entries
        if len(entry.plan.slots) == 1 and entry.plan.slots[0].at == 1 and entry.plan.inner == 0
    ]
    words = {entry.plan.slots[0].tag for entry in loose}
    if any(word in SECTIONS or METRIC.search(word) for word in words):
        return entries
    dropped = {id(entry) for entry in loose if entry.plan.slots[0].bare}
    return [entry for entry in entries if id(entry) not in dropped]


def _without_batches_of_evaluation(entries: list[Entry]) -> list[Entry]:
    """Without single batches of an evaluation: held-out lines that count within one training step.

    Where they print the mean so far, that of the last batch is the result of the evaluation.
    """
    last: dict[tuple[int, float], Entry] = {}
    count: Counter[int] = Counter()
    for entry in entries:
        if entry.plan.held_out and entry.inner is not None:
            last[entry.template, entry.step] = entry
            count[entry.template] += 1
    evaluations = Counter(template for template, _ in last)
    batches = {template for template, many in evaluations.items() if count[template] > 1.5 * many}
    results = {
        id(entry) for entry in last.values() if all(slot.mean_at is not None for slot in entry.plan.slots)
    }
    kept = [entry for entry in entries if entry.template not in batches or id(entry) in results]
    for entry in kept:
        if entry.template in batches:
            entry.inner = None
    return kept


def _with_inherited_sections(entries: list[Entry]) -> list[Entry]:
    """Summaries without a place or a section are of the evaluation whose batches they follow."""
    above: dict[int, Counter[str]] = defaultdict(Counter)
    last: Entry | None = None
    for entry in entries:
        if not entry.plan.slots:
            continue
        if entry.inner is None and entry.epoch is None and not entry.bar:
            of_batches = last is not None and last.plan.held_out and last.inner is not None
            above[entry.template][last.plan.slots[0].section if of_batches and last else ""] += 1
        else:
            last = entry
    sections = {template: found.most_common(1)[0][0] for template, found in above.items()}
    return [_in_section(entry, sections.get(entry.template, "")) for entry in entries]


def _in_section(entry: Entry, section: str) -> Entry:
    if not section or any(slot.section for slot in entry.plan.slots):
        return entry
    slots = tuple(replace(slot, tag=f"{section}_{slot.tag}", section=section) for slot in entry.plan.slots)
    return replace(entry, plan=replace(entry.plan, slots=slots))


def _last_running_means(entries: list[Entry]) -> list[Entry]:
    """Of means since the start of an epoch only the last of each epoch is the epoch's."""
    kept: list[Entry] = []
    for i, entry in enumerate(entries):
        if any(slot.running for slot in entry.plan.slots) and entry.inner is not None:
            later = next(
                (other for other in entries[i + 1 : i + 50] if other.template == entry.template), None
            )
            if later is not None and (later.inner or 0.0) > entry.inner:
                continue
        kept.append(entry)
    return kept


def _bare_names(entries: list[Entry]) -> dict[str, str]:
    """Tags of values printed under "train" and "val" alone: losses, unless they could be fractions."""
    largest: dict[str, float] = defaultdict(float)
    for entry in entries:
        for slot, value in zip(entry.plan.slots, entry.values, strict=True):
            if slot.bare and slot.section and np.isfinite(value):
                largest[slot.tag] = max(largest[slot.tag], abs(value))
    top = max(largest.values(), default=0.0)
    return {tag: f"{tag}_loss" if 1.0 < top < 100.0 else tag for tag in largest}


def _curves(entries: Iterable[Entry], bare: Mapping[str, str]) -> list[Curve]:
    """The points by tag, kind of line and template."""
    curves: dict[tuple[str, bool, int], Curve] = {}
    for entry in entries:
        for slot, value in zip(entry.plan.slots, entry.values, strict=True):
            tag = bare.get(slot.tag, slot.tag) if slot.bare else slot.tag
            by_counter = entry.inner is not None and not entry.bar
            key = (tag, by_counter, entry.template)
            curve = curves.setdefault(key, Curve(tag, by_counter, entry.template))
            curve.points.append((entry.step, value, entry.clock))
    return list(curves.values())


def _renamed(curves: list[Curve]) -> Iterator[Curve]:
    """One curve a tag: lines of one kind joined, ``_step`` and ``_epoch`` told apart where both exist."""
    kinds: dict[str, set[bool]] = defaultdict(set)
    for curve in curves:
        kinds[curve.tag].add(curve.by_counter)
    joined: dict[str, Curve] = {}
    for curve in sorted(curves, key=lambda c: -len(c.points)):
        tag = curve.tag
        if len(kinds[tag]) == 2:
            tag = f"{tag}_step" if curve.by_counter else f"{tag}_epoch"
        tag = _free_name(tag, curve, joined)
        if tag in joined:
            joined[tag].points += curve.points
        else:
            joined[tag] = Curve(tag, curve.by_counter, curve.template, curve.points)
    yield from joined.values()


def _free_name(tag: str, curve: Curve, joined: Mapping[str, Curve]) -> str:
    """The tag, or a numbered one where another template has values of its own at the same steps."""
    for count in range(1, 100):
        name = tag if count == 1 else f"{tag}_{count}"
        if name not in joined:
            return name
        taken = {step for step, _, _ in joined[name].points}
        if sum(step in taken for step, _, _ in curve.points) < 0.5 * len(curve.points):
            return name
    return tag


def _as_series(curve: Curve, axis: Axis, source: str) -> Series:
    clocks = [clock for _, _, clock in curve.points]
    wall = np.array(clocks, dtype=np.float64) if None not in clocks else None
    steps = np.array([step for step, _, _ in curve.points], dtype=np.float64)
    if axis == "row":
        steps = np.arange(len(curve.points), dtype=np.float64)
    return Series(curve.tag, steps, np.array([value for _, value, _ in curve.points]), wall, axis, source)
