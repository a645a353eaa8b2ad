"""Entries -> curves: which templates repeat, what belongs to which data, one curve a tag."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from analyzer.ingest.json_rows import METRIC
from analyzer.ingest.printed.entries import Entry
from analyzer.ingest.printed.steps import place
from analyzer.ingest.printed.words import SECTIONS
from analyzer.model import Axis, Problem, Series

MIN_LINES = 3  # of one template, for its numbers to be a curve


@dataclass(slots=True)
class Curve:
    """The points of one tag from lines of one kind: line, step, value, time."""

    tag: str
    by_counter: bool
    template: int
    points: list[tuple[int, float, float, float | None]] = field(default_factory=list)


def telling(found: list[Entry], source: str) -> tuple[list[Entry], list[Problem]]:
    """The entries of the templates that repeat, and what could not be told apart."""
    entries, doubts = _unambiguous(found, source)
    lines = Counter(entry.template for entry in entries if entry.plan.slots)
    often = {template for template, count in lines.items() if count >= MIN_LINES} or _alike(entries, lines)
    return _without_loose_prose(_of_a_log(entries, often)), doubts


def _alike(entries: list[Entry], lines: Mapping[int, int]) -> set[int]:
    """In a short excerpt: the templates that say where they stand and share a metric, if one comes twice."""
    sharing: dict[str, set[int]] = defaultdict(set)
    for entry in entries:
        if len(entry.plan.slots) > 1 and (entry.epoch is not None or entry.inner is not None):
            for slot in entry.plan.slots:
                if METRIC.search(slot.tag):
                    sharing[slot.tag].add(entry.template)
    for templates in sharing.values():
        counts = [lines[template] for template in templates]
        if max(counts) > 1 and sum(counts) >= MIN_LINES:
            return templates
    return set()


def _of_a_log(entries: list[Entry], often: set[int]) -> list[Entry]:
    """The lines that come often and, once they have begun, evaluations that came once or twice."""
    told = {slot.tag for entry in entries if entry.template in often for slot in entry.plan.slots}
    first = next((entry for entry in entries if entry.template in often), None)
    kept: list[Entry] = []
    for entry in entries:
        if entry.template in often or not entry.plan.slots:
            kept.append(entry)
        elif first and _not_before(entry, first) and (part := _held_out_part(entry, told)):
            kept.append(part)
    return kept


def _not_before(entry: Entry, first: Entry) -> bool:
    """Whether a line stands below the first of a log, or is of its epoch or an earlier one."""
    if entry.line > first.line:
        return True
    return entry.epoch is not None and first.epoch is not None and entry.epoch <= first.epoch


def _held_out_part(entry: Entry, told: set[str]) -> Entry | None:
    """What an entry says of held-out data under names that no other line tells."""
    pairs = [
        (slot, value)
        for slot, value in zip(entry.plan.slots, entry.values, strict=True)
        if slot.section in {"val", "test"}
        and METRIC.search(slot.tag)
        and not slot.bare
        and slot.tag not in told
    ]
    if not pairs:
        return None
    plan = replace(entry.plan, slots=tuple(slot for slot, _ in pairs))
    return replace(entry, plan=plan, values=tuple(value for _, value in pairs))


def curves_of(entries: list[Entry], source: str) -> tuple[Series, ...]:
    """The curves of a run, from the entries that tell something."""
    if not any(entry.plan.slots for entry in entries):
        return ()
    entries = _with_inherited_sections(entries)
    axis = place(entries)
    entries = _without_batches_of_evaluation(entries)
    entries = _last_running_means(entries)
    curves = _curves(entries, _bare_names(entries))
    return tuple(_as_series(curve, axis, source) for curve in _renamed(curves))


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
    """Tags of values printed under "train" and "val" alone: losses, unless they could be fractions.

    Beside a loss they are something else: a score where they lie within 0 to 1 or 100 and rise.
    """
    values: dict[str, list[float]] = defaultdict(list)
    beside: set[str] = set()
    for entry in entries:
        for slot, value in zip(entry.plan.slots, entry.values, strict=True):
            if slot.bare and slot.section and np.isfinite(value):
                values[slot.tag].append(value)
                if any("loss" in other.tag.lower() for other in entry.plan.slots if not other.bare):
                    beside.add(slot.tag)
    top = max(
        (abs(value) for tag, found in values.items() if tag not in beside for value in found), default=0.0
    )
    names = {tag: f"{tag}_loss" if 1.0 < top < 100.0 else tag for tag in values}
    return names | {tag: f"{tag}_score" if _rises(values[tag]) else tag for tag in beside}


def _rises(values: list[float]) -> bool:
    """Whether fractions or percentages end higher than most of them are."""
    within = min(values) >= 0 and max(values) <= 100
    late = values[-max(1, len(values) // 4) :]
    return within and float(np.median(late)) > values[0]


def _curves(entries: Iterable[Entry], bare: Mapping[str, str]) -> list[Curve]:
    """The points by tag, kind of line and template."""
    curves: dict[tuple[str, bool, int], Curve] = {}
    for entry in entries:
        for slot, value in zip(entry.plan.slots, entry.values, strict=True):
            tag = bare.get(slot.tag, slot.tag) if slot.bare else slot.tag
            by_counter = entry.inner is not None and not entry.bar
            key = (tag, by_counter, entry.template)
            curve = curves.setdefault(key, Curve(tag, by_counter, entry.template))
            curve.points.append((entry.line, entry.step, value, entry.clock))
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
            joined[tag].points = sorted(joined[tag].points + curve.points, key=lambda p: p[0])
        else:
            joined[tag] = Curve(tag, curve.by_counter, curve.template, curve.points)
    yield from joined.values()


def _free_name(tag: str, curve: Curve, joined: Mapping[str, Curve]) -> str:
    """The tag, or a numbered one where another template has values of its own at the same steps."""
    for count in range(1, 100):
        name = tag if count == 1 else f"{tag}_{count}"
        if name not in joined:
            return name
        taken = {step for _, step, _, _ in joined[name].points}
        if sum(step in taken for _, step, _, _ in curve.points) < 0.5 * len(curve.points):
            return name
    return tag


def _as_series(curve: Curve, axis: Axis, source: str) -> Series:
    clocks = [clock for *_, clock in curve.points]
    wall = np.array(clocks, dtype=np.float64) if None not in clocks else None
    steps = np.array([step for _, step, _, _ in curve.points], dtype=np.float64)
    if axis == "row":
        steps = np.arange(len(curve.points), dtype=np.float64)
    return Series(curve.tag, steps, np.array([value for _, _, value, _ in curve.points]), wall, axis, source)
